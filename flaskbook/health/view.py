"""``/healthz``: the process is up. ``/readyz``: the database acknowledges a majority write."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, current_app, jsonify
from pymongo.errors import PyMongoError

from flaskbook.database import connection

health_app = Blueprint("health", __name__)


@health_app.get("/healthz")
def healthz() -> Response:
    """Answer 200 as long as the process serves requests. The database isn't asked."""
    return jsonify(status="ok")


@health_app.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Answer 200 if a write was acknowledged by a majority just now, else 503."""
    try:
        connection().database["health"].update_one(
            {"_id": "readyz"}, {"$set": {"checked": datetime.now(UTC)}}, upsert=True
        )
    except PyMongoError as error:
        current_app.logger.warning("Not ready: %s", error)
        return jsonify(status="unavailable", database="not writable"), 503
    return jsonify(status="ok", database="writable"), 200
