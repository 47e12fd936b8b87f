"""The topology page over real deployments: what it learns, and what happens when nodes go away."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from flask import Flask
from flask.testing import FlaskClient

from flaskbook.application import create_app
from flaskbook.database import close
from flaskbook.topology import reading
from provision.deployments.deployment import Deployment
from tests.support.deployments import deployed
from tests.support.polling import until

MakeFor = Callable[..., Flask]


@pytest.fixture
def app_of() -> Iterator[MakeFor]:
    """Return a function that builds an app on a deployment, with settings given as keywords."""
    apps: list[Flask] = []

    def make(deployment: Deployment, user: str | None = None, **config: Any) -> Flask:
        base = {"TESTING": True, "TOPOLOGY": True, "SAMPLE_PEOPLE": True, "MONGODB_DATABASE": "flaskbook"}
        apps.append(create_app({**base, "MONGODB_URI": deployment.uri(user=user), **config}))
        return apps[-1]

    yield make
    for app in apps:
        app.extensions[reading.EXTENSION].close()
        close(app)


@pytest.fixture(scope="module")
def trio(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("trio")
    with deployed(folder, mongod_binary, mongod_version, topology="replica-set", members=3) as made:
        yield made


def look(client: FlaskClient) -> dict[str, Any]:
    seen: dict[str, Any] = client.get("/topology/data").get_json()
    return seen


def states(seen: dict[str, Any]) -> list[str]:
    return sorted(member["state"] for group in seen["groups"] for member in group["members"])


def shown(client: FlaskClient, *wanted: str) -> dict[str, Any]:
    """The page once its nodes are in these states: a machine with much to do may miss an answer now and then."""

    def ask() -> dict[str, Any] | None:
        seen = look(client)
        return seen if states(seen) == sorted(wanted) else None

    return until(f"the states {', '.join(wanted)}", ask, detail=lambda: str(look(client)))


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("topology-")]


def test_a_single_node_set_is_seen_with_its_collections(make_app: Any) -> None:
    app = make_app(TOPOLOGY=True, SAMPLE_PEOPLE=True)
    client = app.test_client()
    assert client.post("/topology/people", json={}).get_json() == {"added": 1000}
    seen = until(
        "the count",
        lambda: next((s for s in [look(client)] if s["collections"]), None),
        detail=lambda: str(look(client)),
    )
    assert seen["kind"] == "replica set"
    counted = {each["name"]: sum(a["documents"] for a in each["amounts"]) for each in seen["collections"]}
    assert counted["user"] == 1000
    app.extensions[reading.EXTENSION].close()


def test_a_member_that_is_killed_shows_and_comes_back(trio: Deployment, app_of: MakeFor) -> None:
    client = app_of(trio).test_client()
    seen = shown(client, "PRIMARY", "SECONDARY", "SECONDARY")
    assert (seen["kind"], seen["notes"]) == ("replica set", [])
    name = next(m["name"] for m in seen["groups"][0]["members"] if m["state"] == "SECONDARY")
    node = next(node for node in trio.topology.nodes if node.port == int(name.rpartition(":")[2]))
    trio.kill_node(node)
    seen = shown(client, "PRIMARY", "SECONDARY", "DOWN")
    assert f"Down: {name}." in seen["summary"]
    trio.start_node(node)
    shown(client, "PRIMARY", "SECONDARY", "SECONDARY")


def test_a_member_that_hangs_delays_nobody(trio: Deployment, app_of: MakeFor) -> None:
    client = app_of(trio).test_client()
    seen = shown(client, "PRIMARY", "SECONDARY", "SECONDARY")
    name = next(m["name"] for m in seen["groups"][0]["members"] if m["state"] == "SECONDARY")
    node = next(node for node in trio.topology.nodes if node.port == int(name.rpartition(":")[2]))
    trio.backend.pause(node, True)
    try:
        until("the silent member", lambda: "DOWN" in states(look(client)))
        # However long it hangs, one question to it is open at a time: besides, the watcher, the two others, the count.
        for _ in range(5):
            look(client)
            assert len(watchers()) <= 5
    finally:
        trio.backend.pause(node, False)
    until("its return", lambda: "DOWN" not in states(look(client)))


def test_operations_per_second_are_shown(trio: Deployment, app_of: MakeFor) -> None:
    client = app_of(trio).test_client()

    def write_and_look() -> float:
        with pymongo.MongoClient(trio.uri()) as other:
            other.flaskbook.other.insert_many([{"n": n} for n in range(500)])
        return look(client)["operations"] or 0.0

    assert until("operations", lambda: write_and_look() > 50)


def test_nobody_looking_leaves_no_thread(
    trio: Deployment, app_of: MakeFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "IDLE_SECONDS", 0.2)
    client = app_of(trio).test_client()
    assert look(client)["kind"] == "replica set"
    assert watchers()
    until("the watcher's end", lambda: not watchers())
    # and the next one who looks starts another
    assert look(client)["kind"] == "replica set"


def test_many_viewers_cost_the_deployment_the_same(trio: Deployment, app_of: MakeFor) -> None:
    app = app_of(trio)
    found: list[str] = []

    def view() -> None:
        for _ in range(5):
            found.append(look(app.test_client())["kind"])

    viewers = [threading.Thread(target=view) for _ in range(8)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert found == ["replica set"] * 40
    assert watchers().count("topology-watcher") == 1


def test_a_user_without_rights_is_told_which_role_it_lacks(
    tmp_path: Path,
    mongod_binary: Path,
    mongod_version: str,
    app_of: MakeFor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "REFUSED_SECONDS", 0.5)
    with deployed(
        tmp_path, mongod_binary, mongod_version, topology="replica-set", members=2, auth=True
    ) as made:
        with pymongo.MongoClient(made.uri(user="root")) as root:
            root.admin.command(
                "revokeRolesFromUser", "app", roles=[{"role": "clusterMonitor", "db": "admin"}]
            )
        client = app_of(made, "app").test_client()
        # Who is primary needs no rights; what it does, needs some.
        seen = shown(client, "PRIMARY", "SECONDARY")
        assert "operations per second" in seen["notes"][0] and "clusterMonitor" in seen["notes"][0]
        with pymongo.MongoClient(made.uri(user="root")) as root:
            root.admin.command("grantRolesToUser", "app", roles=[{"role": "clusterMonitor", "db": "admin"}])
        # It is asked again after a while.
        until("the notes' end", lambda: look(client)["notes"] == [])
        until("operations", lambda: look(client)["operations"] is not None)


def test_sharding_is_seen_to_happen(
    tmp_path: Path, mongod_binary: Path, mongod_version: str, app_of: MakeFor
) -> None:
    with deployed(
        tmp_path,
        mongod_binary,
        mongod_version,
        topology="sharded",
        members=1,
        config_servers=1,
        shards=2,
        sharding={"flaskbook": {"user": {"key": {"_id": "hashed"}}}},
    ) as made:
        client = app_of(made).test_client()
        seen = shown(client, "ROUTER", "PRIMARY", "PRIMARY", "PRIMARY")
        assert [group["role"] for group in seen["groups"]] == ["routers", "config servers", "shard", "shard"]
        assert client.post("/topology/people", json={}).get_json() == {"added": 1000}

        def shared_out() -> dict[str, int] | None:
            found = {g["name"]: g["documents"] for g in look(client)["groups"] if g["role"] == "shard"}
            return found if len(found) == 2 and sum(n or 0 for n in found.values()) >= 1000 else None

        documents = until("a thousand people", shared_out)
        assert all(count > 300 for count in documents.values()), documents
        chunks = {g["name"]: g["chunks"] for g in look(client)["groups"] if g["role"] == "shard"}
        assert all(count and count >= 1 for count in chunks.values()), chunks
        shard = next(node for node in made.topology.nodes if node.name == "shard2-1")
        made.kill_node(shard)
        seen = shown(client, "ROUTER", "PRIMARY", "PRIMARY", "DOWN")
        assert next(g for g in seen["groups"] if g["name"] == "shard2")["health"] == "down"
        # What was known of its data stays.
        assert next(g for g in seen["groups"] if g["name"] == "shard2")["documents"] == documents["shard2"]


def test_nobody_can_log_in_as_a_sample_person(make_app: Any) -> None:
    app = make_app(TOPOLOGY=True, SAMPLE_PEOPLE=True)
    client = app.test_client()
    client.post("/topology/people", json={})
    people = app.extensions["flaskbook-mongodb"].database.user.find().limit(20)
    email = random.choice([person["email"] for person in people])
    for password in ("!", "sample", ""):
        assert client.post("/log-in", json={"email": email, "password": password}).status_code in (400, 401)


def test_sample_people_are_limited(make_app: Any) -> None:
    client = make_app(TOPOLOGY=True, SAMPLE_PEOPLE=True, SAMPLE_PEOPLE_LIMIT=1).test_client()
    assert client.post("/topology/people", json={}).status_code == 200
    refused = client.post("/topology/people", json={})
    assert refused.status_code == 429 and refused.headers["Retry-After"]


def test_without_a_script_the_button_leads_back_to_the_page(make_app: Any, post_form: Any) -> None:
    client = make_app(TOPOLOGY=True, SAMPLE_PEOPLE=True).test_client()
    answer = post_form(client, "/topology/people", {}, page="/topology")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/topology")
    assert "1000 sample people were added." in client.get("/topology").text


def test_the_page_comes_out_while_the_database_is_away(
    tmp_path: Path, mongod_binary: Path, mongod_version: str, app_of: MakeFor, register: Any
) -> None:
    with deployed(tmp_path, mongod_binary, mongod_version, topology="single") as made:
        cheap = {"ARGON2_TIME_COST": 1, "ARGON2_MEMORY_KIB": 8, "ARGON2_PARALLELISM": 1}
        client = app_of(made, **cheap, PROPAGATE_EXCEPTIONS=False).test_client()
        register(client)
        assert "Log out" in client.get("/topology").text
        made.kill_node(made.node())
        answer = client.get("/topology")
        assert answer.status_code == 200 and "Log out" not in answer.text
        assert client.get("/profile").status_code == 503
