"""Tests that need a real mongod."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pymongo import MongoClient
from pymongo.database import Database

from provision import assembly
from provision.deployment import Deployment
from provision.mongodb import binaries
from provision.settings import Layer, load
from provision.steps import Silent
from tests.support.capabilities import ROOT
from tests.support.processes import free_port


@dataclass(frozen=True)
class Server:
    """The one mongod that all workers of a test run share: a single-node replica set.

    Args:
        uri: its connection string, without a database.
        client: connected to it.
    """

    uri: str
    client: MongoClient[Any]


@pytest.fixture(scope="session")
def mongodb(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, mongod_binary: Path
) -> Iterator[Server]:
    """The first worker to come starts it, the last to leave stops it. Each test takes a database of its own."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "mongodb"
    shared.mkdir(exist_ok=True)
    shutil.copy2(ROOT / "mongod.conf.j2", shared)
    lock, ledger = FileLock(shared / "ledger.lock"), shared / "ledger.json"

    def deployment(port: int) -> Deployment:
        chosen = {
            "mongodb": {"source": "path", "path": str(mongod_binary)},
            "deployments": {"local": {"port": port}},
        }
        loaded = load(shared, [Layer("the tests", chosen)], remember=False)
        binaries.find(loaded.settings.mongodb, loaded.paths, Silent())
        return assembly.deployment(loaded, "local")

    with lock:
        known = json.loads(ledger.read_text()) if ledger.exists() else {"port": free_port(), "users": 0}
        uri = deployment(known["port"]).up().uri
        ledger.write_text(json.dumps({**known, "users": known["users"] + 1}))
    try:
        with MongoClient(uri) as client:
            yield Server(uri, client)
    finally:
        with lock:
            known = json.loads(ledger.read_text())
            known["users"] -= 1
            ledger.write_text(json.dumps(known))
            if known["users"] == 0:
                deployment(known["port"]).down()
                shutil.rmtree(shared / "data")


@pytest.fixture
def database(mongodb: Server) -> Iterator[Database[Any]]:
    """An empty database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield mongodb.client[name]
    mongodb.client.drop_database(name)
