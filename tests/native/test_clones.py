"""Clones: the data of one deployment in another, side by side with it, and neither ever speaks to the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.data import snapshots
from tests.support.processes import free_ports
from tests.support.router_standin.install import beside
from tests.support.snapshots import Project, client, hashes, held

pytestmark = pytest.mark.timeout(600)
NAMES = ("one", "alone", "rs", "sh")


@pytest.fixture(scope="module")
def projects(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[tuple[Project, Project]]:
    """An original and a project for its clone, with the same deployments at other ports."""
    folder = tmp_path_factory.mktemp("clones")
    mongod = beside(mongod_binary, mongod_version, folder / "bin")
    first = free_ports(520)

    def make(name: str, first: int) -> Project:
        sharded = {"topology": "sharded", "members": 1, "config_servers": 1, "shards": 2}
        return Project.make(
            folder / name,
            mongod,
            {
                "one": {"topology": "single", "port": first},
                "alone": {"topology": "single", "port": first + 1, "replica_set": None},
                "rs": {"topology": "replica-set", "port": first + 10, "auth": True},
                "sh": {**sharded, "port": first + 60, "auth": True},
            },
        )

    made = make("original", first), make("clone", first + 260)
    try:
        yield made
    finally:
        for each in made:
            each.close()


def addresses(project: Project, name: str) -> set[str]:
    return {node.address for node in project.on(name).topology.nodes}


def known(project: Project, name: str) -> set[str]:
    """Every address in the configurations of a deployment's sets; in a cluster also in what its nodes know of it."""
    deployment, found = project.on(name), set[str]()
    for node in deployment.topology.nodes:
        if node.is_router:
            continue
        with deployment.dial(node) as connection:
            told: list[Any] = [connection.command("admin", {"hello": 1})]
            if node.replica_set:
                told.append(connection.command("admin", {"replSetGetConfig": 1}))
            if deployment.topology.is_sharded:
                told += [
                    connection.command("config", {"find": "shards"}),
                    connection.command("admin", {"find": "system.version"}),
                ]
            found |= set(re.findall(r"127\.0\.0\.1:\d+", repr(told)))
    return found


def logged(project: Project, name: str) -> str:
    """The logs of all nodes of a deployment."""
    deployment = project.on(name)
    files = [
        deployment.paths.node_log(name, node.name) for node in deployment.topology.nodes if not node.is_router
    ]
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


@pytest.mark.parametrize("name", NAMES)
def test_original_and_clone_run_side_by_side_and_never_speak_to_each_other(
    projects: tuple[Project, Project], name: str
) -> None:
    original, copy = projects
    original.on(name).up()
    with client(original.on(name)) as opened:
        opened.flaskbook.people.insert_many({"_id": n, "name": f"name {n}"} for n in range(1000))
        opened.flaskbook.people.create_index("name", unique=True)
        if original.on(name).topology.is_sharded:
            opened.admin.command("shardCollection", "flaskbook.places", key={"_id": "hashed"})
            opened.flaskbook.places.insert_many({"_id": n} for n in range(500))
    of_original = hashes(original.on(name))
    identities = [original.on(name).backend.observe(node).pid for node in original.on(name).topology.nodes]
    snapshots.clone(original.on(name), copy.on(name))
    assert hashes(copy.on(name)) == of_original
    assert held(original.on(name)) == []
    assert snapshots.every(original.on(name)) == []
    assert [
        original.on(name).backend.observe(node).pid for node in original.on(name).topology.nodes
    ] == identities
    for project, text in ((original, "original"), (copy, "clone")):
        with client(project.on(name)) as opened:
            opened.flaskbook.people.insert_one({"_id": text, "name": text})
            if project.on(name).topology.is_sharded:
                opened.flaskbook.places.insert_many({"_id": f"{text} {n}"} for n in range(100))
    # Each goes on with its own, also after a restart of all of the clone.
    copy.on(name).down()
    copy.on(name).up()
    for project, mine, theirs in ((original, "original", "clone"), (copy, "clone", "original")):
        with client(project.on(name)) as opened:
            assert opened.flaskbook.people.find_one({"_id": mine}) is not None
            assert opened.flaskbook.people.find_one({"_id": theirs}) is None
            if project.on(name).topology.is_sharded:
                assert opened.flaskbook.places.count_documents({}) == 600
    for project, other in ((original, copy), (copy, original)):
        assert known(project, name) <= addresses(project, name)
        log = logged(project, name)
        assert "Listening on" in log
        assert [address for address in addresses(other, name) if address in log] == []


def test_another_shape_is_refused_and_nothing_is_changed(projects: tuple[Project, Project]) -> None:
    original, copy = projects
    original.on("one").up()
    with pytest.raises(ProvisionError, match="is a member; here, mongod has") as caught:
        snapshots.clone(original.on("one"), copy.on("alone"))
    assert "Nothing was changed" in caught.value.cause
    with pytest.raises(ProvisionError, match="They are the same"):
        snapshots.clone(original.on("one"), original.on("one"))
