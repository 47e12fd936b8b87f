import os

from flask import Flask
from pymongo import MongoClient

app = Flask(__name__)
client = MongoClient(os.getenv("MONGO_HOST", "localhost"), int(os.getenv("MONGO_PORT", "27017")))
database = client[os.getenv("MONGO_DBNAME", "guestbook")]


@app.get("/")
def home():
    database.visits.insert_one({})
    return {"database": database.name, "visits": database.visits.count_documents({})}


if __name__ == "__main__":
    app.run(port=5001, debug=True)
