"""The topology page without a database: who gets it, and what it is made of."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from flaskbook.application import create_app
from flaskbook.database import close
from flaskbook.settings import SettingsError
from flaskbook.topology.samples import sample_people

# The discard port: nothing answers there.
NOWHERE = "mongodb://127.0.0.1:9"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("FLASK_DEBUG", raising=False)
    apps: list[Flask] = []

    def build(**config: Any) -> Flask:
        apps.append(create_app({"TESTING": True, "MONGODB_URI": NOWHERE, **config}))
        return apps[-1]

    yield build
    for app in apps:
        app.extensions.get("flaskbook-topology", app.extensions["flaskbook-mongodb"].client).close()
        close(app)


ADDRESSES = ("/topology", "/topology/data", "/topology/static/topology.js")


def test_the_page_is_off_unless_in_development(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make().test_client()
    assert {client.get(address, buffered=True).status_code for address in ADDRESSES} == {404}
    assert client.post("/topology/people", json={}).status_code == 404
    assert ">Topology<" not in client.get("/").text
    monkeypatch.setenv("FLASK_DEBUG", "1")
    client = make().test_client()
    assert {client.get(address, buffered=True).status_code for address in ADDRESSES} == {200}
    assert ">Topology<" in client.get("/").text


def test_the_settings_decide_over_the_mode(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(TOPOLOGY=True).test_client().get("/topology").status_code == 200
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert make(TOPOLOGY=False).test_client().get("/topology").status_code == 404
    with pytest.raises(SettingsError, match="TOPOLOGY is 'yes'"):
        make(TOPOLOGY="yes")


def test_sample_people_are_for_development_even_where_the_page_is_on(make: Any) -> None:
    client = make(TOPOLOGY=True).test_client()
    assert "sample people" not in client.get("/topology").text
    assert client.post("/topology/people", json={}).status_code == 404


def test_the_button_needs_a_token(make: Any) -> None:
    client = make(TOPOLOGY=True, SAMPLE_PEOPLE=True).test_client()
    assert client.post("/topology/people", data={}).status_code == 400


def test_the_page_holds_nothing_inline_and_nothing_from_elsewhere(make: Any) -> None:
    answer = make(TOPOLOGY=True, SAMPLE_PEOPLE=True).test_client().get("/topology")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=\"/)|https?://", answer.text)


def test_the_page_stands_alone(make: Any) -> None:
    client = make(TOPOLOGY=True, BLUEPRINTS=["topology"]).test_client()
    assert client.get("/topology").status_code == 200
    assert client.get("/people").status_code == 404


def test_a_database_that_never_answers_is_shown_as_such(make: Any) -> None:
    drawn = make(TOPOLOGY=True).test_client().get("/topology/data").get_json()
    assert drawn["kind"] == "unknown"
    assert drawn["groups"][0]["members"] == [
        {"name": "127.0.0.1:9", "state": "DOWN", "lag": None, "operations": None, "note": "does not answer"}
    ]
    assert drawn["summary"] == "MongoDB does not answer at 127.0.0.1:9."


def test_the_same_seed_gives_the_same_people() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    people = sample_people(1000, random.Random(1), now)
    assert people == sample_people(1000, random.Random(1), now)
    assert people != sample_people(1000, random.Random(2), now)
    assert len({person["email"] for person in people}) == 1000
    assert all(person["created"] <= now and 18 <= person["age"] <= 95 for person in people)
