import os

from flask import Flask
from greetings import hello
from pymongo import MongoClient

app = Flask(__name__)
database = MongoClient(os.environ["MONGO_URI"]).get_default_database()
assert hello()

@app.get("/")
def home():
    database.visits.insert_one({})
    return {"database": database.name, "visits": database.visits.count_documents({})}
