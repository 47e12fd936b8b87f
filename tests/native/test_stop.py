"""`invoke stop`, with a real mongod."""

from __future__ import annotations

import json
from typing import Any

from pymongo import MongoClient

from tests.support.clones import Clone


def test_stop_stops_and_keeps_the_data(clone: Clone) -> None:
    with MongoClient[dict[str, Any]](clone.start()) as client:
        client.test.people.insert_one({"_id": 1})
    assert clone.succeeds("stop") == "local: stopped mongod\n"
    assert clone.mongods() == []
    with MongoClient[dict[str, Any]](clone.start()) as client:
        assert client.test.people.count_documents({}) == 1


def test_a_second_stop_changes_nothing(clone: Clone) -> None:
    clone.start()
    clone.succeeds("stop")
    assert clone.succeeds("stop") == "local: was not running\n"


def test_what_never_ran_is_stopped_in_a_bare_clone(clone: Clone) -> None:
    assert clone.succeeds("stop") == "local: was not running\n"
    assert json.loads(clone.succeeds("stop", "--json")) == {"deployment": "local", "stopped": []}


def test_stop_leaves_the_mongod_of_another_clone_alone(clone: Clone, another_clone: Clone) -> None:
    clone.start()
    another_clone.start()
    clone.succeeds("stop")
    assert another_clone.status()["state"] == "running"
