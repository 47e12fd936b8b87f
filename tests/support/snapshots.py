"""Deployments of processes for tests of snapshots, and what is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from provision.core.steps import Silent
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.mongodb.topology import Node
from provision.settings.loading import Layer, Loaded, load
from tests.support.polling import until

# What differs between two deployments, or two moments of one, without its data being others.
_ANYWHERE = {"$readPreference": {"mode": "secondaryPreferred"}}
_OWN = ("local", "admin", "config", "provision")


@dataclass
class Project:
    """A project in a folder, with deployments of processes."""

    root: Path
    settings: Mapping[str, Any]

    @classmethod
    def make(cls, root: Path, mongod: Path, deployments: Mapping[str, Any], **more: Any) -> Project:
        """Prepare one; nothing is started."""
        root.mkdir(parents=True)
        (root / "invoke.yaml").write_text("{}\n")
        settings = {
            "mongodb": {"path": str(mongod)},
            "app": {"database": "flaskbook"},
            "deployments": {name: {"backend": "processes", **each} for name, each in deployments.items()},
            **more,
        }
        project = cls(root, settings)
        for name in deployments:
            assembly.find_mongod(project.load(), name, Silent())
        return project

    def load(self) -> Loaded:
        return load(self.root, [Layer("the tests", dict(self.settings))], {}, remember=False)

    def on(self, name: str) -> Deployment:
        """A deployment as a new process of the tool would see it."""
        return assembly.deployment(self.load(), name)

    def close(self) -> None:
        """End all its nodes."""
        for name in self.settings["deployments"]:
            deployment = self.on(name)
            deployment.backend.terminate(deployment.topology.nodes, 0.0)


@contextlib.contextmanager
def client(deployment: Deployment, node: Node | None = None) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of all, or of one node, as root where there are users."""
    uri = deployment.uri(user="root", direct=node)
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=30_000) as opened:
        yield opened


def hashes(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Set → its databases' hashes, the same on every member of the set; asked until all members have what one has."""
    topology = deployment.topology
    sets = {each.name: [node for node in each.members if not node.arbiter] for each in topology.replica_sets}
    sets |= {node.name: [node] for node in topology.standalones}
    return {name: _equal(deployment, members) for name, members in sets.items()}


def _equal(deployment: Deployment, members: list[Node]) -> dict[str, Any]:
    def ask() -> list[dict[str, Any]] | None:
        first, *others = [_hashes_of(deployment, member) for member in members]
        return [first] if all(each == first for each in others) else None

    found = until(f"equal hashes on {', '.join(member.name for member in members)}", ask)
    assert found is not None
    return found[0]


def _hashes_of(deployment: Deployment, node: Node) -> dict[str, Any]:
    with deployment.dial(node) as connection:
        listed = connection.command("admin", {"listDatabases": 1, "nameOnly": True, **_ANYWHERE})["databases"]
        return {
            each["name"]: connection.command(each["name"], {"dbHash": 1, **_ANYWHERE})["collections"]
            for each in listed
            if each["name"] not in _OWN
        }


def held(deployment: Deployment) -> list[str]:
    """Names of the nodes that are locked."""
    locked = []
    for node in deployment.topology.nodes:
        if not node.is_router and not node.arbiter:
            with deployment.dial(node) as connection:
                if connection.command("admin", {"currentOp": 1, "command.fsync": 1}).get("fsyncLock"):
                    locked.append(node.name)
    return locked
