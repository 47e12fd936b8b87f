"""A shop: the app of the terminal pictures."""

import os
from typing import Any

from flask import Flask
from pymongo import MongoClient
from pymongo.database import Database


def create_app() -> Flask:
    app = Flask(__name__)
    shop: Database[Any] = MongoClient(os.environ["MONGODB_URI"]).get_default_database("shop")

    @app.get("/")
    def orders() -> dict[str, int]:
        return {"orders": shop.orders.estimated_document_count()}

    return app
