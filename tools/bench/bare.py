"""The least that shows a page of people and logs somebody in: Flask and PyMongo, and nothing of flaskbook.

``flask --app bench.bare run`` serves it. It makes the queries that flaskbook makes, on the same documents and by
the same index. It has no search, no navigation and style, no JSON, no limits, no protection against cross-site
requests and no security headers: what those cost is what the bench measures.
"""

from __future__ import annotations

import os
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from bson import ObjectId
from flask import Flask, abort, jsonify, render_template, request, session
from jinja2 import DictLoader
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern

PEOPLE_PER_PAGE = 20

_ORDER = [("name.last_name", 1), ("name.first_name", 1), ("_id", 1)]
_PAGE = """<!doctype html>
<html lang="en">
<title>People</title>
<ul>
{% for person in people %}
<li><a href="/people/{{ person._id }}">{{ person.name.last_name }}, {{ person.name.first_name }}</a>
{%- if person.age is not none %} {{ person.age }}{% endif %}</li>
{% endfor %}
</ul>
{% if following %}<a rel="next" href="/people?after={{ following }}">Next page</a>{% endif %}
</html>
"""

app = Flask(__name__)
# A template of a name, which Flask compiles once.
app.jinja_loader = DictLoader({"people.html": _PAGE})
app.secret_key = os.environ["SECRET_KEY"]
client: MongoClient[dict[str, Any]] = MongoClient(os.environ["MONGODB_URI"], tz_aware=True)
database = client.get_default_database()
claims = database.get_collection("email_claim", read_concern=ReadConcern("majority"))
hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)


@app.get("/people")
def people() -> str:
    """A page of people, behind the one whose id is given as ``after``."""
    condition: dict[str, Any] = {"name.last_name": {"$gte": ""}}
    if "after" in request.args:
        last = database.user.find_one({"_id": ObjectId(request.args["after"])}) or abort(404)
        name = last["name"]
        condition = {
            "$or": [
                {"name.last_name": {"$gt": name["last_name"]}},
                {"name.last_name": name["last_name"], "name.first_name": {"$gt": name["first_name"]}},
                {
                    "name.last_name": name["last_name"],
                    "name.first_name": name["first_name"],
                    "_id": {"$gt": last["_id"]},
                },
            ]
        }
    found = list(
        database.user.find(
            condition,
            {"name.first_name": 1, "name.last_name": 1, "age": 1},
            sort=_ORDER,
            collation={"locale": "en", "strength": 1},
            limit=PEOPLE_PER_PAGE + 1,
        )
    )
    page = found[:PEOPLE_PER_PAGE]
    following = page[-1]["_id"] if len(found) > PEOPLE_PER_PAGE else None
    return render_template("people.html", people=page, following=following)


@app.post("/log-in")
def log_in() -> Any:
    """Begin a session for the address and password of a JSON object."""
    given = request.get_json()
    claim = claims.find_one({"_id": given["email"]}) or abort(401)
    user = database.user.find_one({"_id": claim["user"], "email": given["email"]}) or abort(401)
    try:
        hasher.verify(user["password_hash"], given["password"])
    except VerificationError:
        abort(401)
    session["user"] = str(user["_id"])
    return jsonify(id=str(user["_id"]), name=user["name"], age=user.get("age"), email=user["email"])
