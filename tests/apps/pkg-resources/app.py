import os

import pkg_resources
from flask import Flask
from pymongo import MongoClient

app = Flask(__name__)
database = MongoClient(os.environ["MONGO_URI"]).get_default_database()
FLASK = pkg_resources.get_distribution("flask").version


@app.get("/")
def home():
    database.visits.insert_one({})
    return {"database": database.name, "visits": database.visits.count_documents({})}
