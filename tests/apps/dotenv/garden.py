import os

from dotenv import load_dotenv
from flask import Flask
from pymongo import MongoClient

load_dotenv()


def create_app():
    app = Flask(__name__)
    app.database = MongoClient(os.environ["MONGO_URI"]).get_default_database()

    @app.get("/")
    def home():
        database = app.database
        database.visits.insert_one({})
        return {"database": database.name, "visits": database.visits.count_documents({})}

    return app
