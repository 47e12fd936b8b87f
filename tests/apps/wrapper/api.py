import os

from openapi import FlaskApp
from pymongo import MongoClient


def create_app():
    wrapper = FlaskApp(__name__)
    app = wrapper.app
    app.database = MongoClient(os.environ["MONGO_URI"]).get_default_database()

    @app.get("/")
    def home():
        database = app.database
        database.visits.insert_one({})
        return {"database": database.name, "visits": database.visits.count_documents({})}

    return wrapper
