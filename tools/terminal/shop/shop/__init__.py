"""A shop: the app of the terminal pictures."""

import os

from flask import Flask
from pymongo import MongoClient


def create_app():
    app = Flask(__name__)
    shop = MongoClient(os.environ["MONGODB_URI"]).get_default_database("shop")

    @app.get("/")
    def orders():
        return {"orders": shop.orders.estimated_document_count()}

    return app
