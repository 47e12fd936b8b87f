import os

from flask import Flask
from pymongo import MongoClient


def create_app():
    app = Flask(__name__)
    client = MongoClient(os.environ["SHOP_MONGO_CONNECTION_STRING"])
    app.database = client[os.environ["SHOP_MONGO_DATABASE"]]

    @app.get("/")
    def home():
        database = app.database
        database.visits.insert_one({})
        return {"database": database.name, "visits": database.visits.count_documents({})}

    return app
