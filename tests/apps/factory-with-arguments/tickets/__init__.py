from config import config
from flask import Flask
from pymongo import MongoClient


def create_app(config_name):
    app = Flask(__name__)
    app.config.from_object(config[config_name])
    app.database = MongoClient(app.config["MONGO_URI"]).get_default_database()

    @app.get("/")
    def home():
        database = app.database
        database.visits.insert_one({})
        return {"database": database.name, "visits": database.visits.count_documents({})}

    return app
