import os


class Development:
    MONGO_URI = os.environ.get("MONGO_URI", "mongodb://localhost:27017/tickets")


class Production(Development):
    PREFERRED_URL_SCHEME = "https"


config = {"development": Development, "production": Production}
