"""The live topology page: which nodes there are, how they are, and where the data lie.

====================  =======  ==========================================================================
Address               Methods  Answer
====================  =======  ==========================================================================
``/topology``         GET      the page; its script asks for the picture while the page is visible
``/topology/data``    GET      the picture as JSON: :class:`flaskbook.topology.model.Picture`
``/topology/people``  POST     adds sample people, with ``SAMPLE_PEOPLE`` (development) only → added
====================  =======  ==========================================================================

It tells anybody who reaches the app how the database is built, so it is part of an app only with the setting
``TOPOLOGY``: on in development, off otherwise.
"""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, render_template, url_for
from flask.blueprints import BlueprintSetupState
from pymongo.errors import PyMongoError
from wtforms import Form

from flaskbook.database import is_unavailable
from flaskbook.negotiation import done, submitted
from flaskbook.topology import reading
from flaskbook.topology.samples import BATCH, add_sample_people
from flaskbook.user import limit

topology_app = Blueprint(
    "topology",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/topology/static",
)


@topology_app.record_once
def _set_up(state: BlueprintSetupState) -> None:
    assert isinstance(state.app, Flask)  # noqa: S101 (Flask declares its base class)
    reading.init_app(state.app)


@topology_app.get("/topology")
def page() -> str:
    """Show the page. It comes out without a database, too: that is when it is wanted most."""
    context = {"samples": BATCH if current_app.config["SAMPLE_PEOPLE"] else 0}
    try:
        return render_template("topology/page.html", **context)
    except PyMongoError as error:
        if not is_unavailable(error):
            raise
    return render_template("topology/page.html", database_away=True, **context)


@topology_app.get("/topology/data")
def data() -> Response:
    """Return the picture."""
    return jsonify(asdict(reading.current_picture()))


@topology_app.post("/topology/people")
def add_people() -> Response:
    """Add sample people."""
    if not current_app.config["SAMPLE_PEOPLE"]:
        abort(404)
    submitted(Form)
    # One limit for all clients: what it protects is the disk.
    limit.count((limit.Limit("sample-people", "", current_app.config["SAMPLE_PEOPLE_LIMIT"]),))
    added = add_sample_people()
    return done(f"{added} sample people were added.", url_for("topology.page"), data={"added": added})
