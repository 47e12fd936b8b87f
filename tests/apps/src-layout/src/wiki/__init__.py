import os
from importlib.metadata import version

from flask import Flask
from pymongo import MongoClient

__version__ = version("wiki-of-mine")


def create_app():
    app = Flask(__name__)
    app.database = MongoClient(os.environ["MONGODB_URL"]).get_default_database()

    @app.get("/")
    def home():
        database = app.database
        database.visits.insert_one({})
        return {"database": database.name, "visits": database.visits.count_documents({})}

    return app
