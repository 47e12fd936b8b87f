import mongoengine
from flask import Flask

from library.settings import MONGODB_SETTINGS


class Visit(mongoengine.Document):
    meta = {"collection": "visits"}


def create_app():
    app = Flask(__name__)
    mongoengine.connect(**MONGODB_SETTINGS, uuidRepresentation="standard")

    @app.get("/")
    def home():
        Visit().save()
        return {"database": Visit._get_db().name, "visits": Visit.objects.count()}

    return app
