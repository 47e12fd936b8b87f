import os

from flask import Flask, jsonify
from pymongo import MongoClient

app = Flask(__name__)
database = MongoClient(os.environ["MONGO_URI"]).get_default_database()


@app.route("/")
def home():
    database.visits.insert_one({})
    return jsonify(database=database.name, visits=database.visits.count_documents({}))
