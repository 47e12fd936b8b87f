"""The database goes away and comes back under a running app."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

JSON = {"Accept": "application/json"}


class OwnMongod:
    """A mongod of one test, which may be stopped, paused and started again."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary = binary
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.uri = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        self._directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(
                    str(self._binary),
                    "--nounixsocket",
                    "--dbpath",
                    str(self._directory),
                    "--port",
                    str(self.port),
                ),
                *("--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.25"),
                *("--logpath", str(self._directory / "mongod.log")),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=1000) as client:
            while True:
                try:
                    client.admin.command("ping")
                    return
                except PyMongoError:
                    assert self.process.poll() is None and time.monotonic() < deadline

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@pytest.fixture
def mongod(mongod_binary: Path, tmp_path: Path) -> Iterator[OwnMongod]:
    server = OwnMongod(mongod_binary, tmp_path)
    server.start()
    yield server
    server.stop()


def until_ready(client: Any) -> None:
    deadline = time.monotonic() + 20
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the app doesn't find its database again"


def test_an_outage_is_a_503_and_passes_without_restart(
    mongod: OwnMongod, make_app: Any, register: Any, ada: Any, post_form: Any
) -> None:
    client = make_app(MONGODB_URI=mongod.uri).test_client()
    profile = register(client)
    assert client.get("/readyz").status_code == 200
    mongod.stop()
    for address in ("/profile", "/people?last_name=a", profile["url"], "/"):
        page = client.get(address)
        assert page.status_code == 503 and "The database is not reachable" in page.text, address
        assert page.headers["Retry-After"]
    assert client.get("/profile", headers=JSON).get_json()["error"]["status"] == 503
    assert client.post("/log-in", json={"email": ada["email"], "password": "x"}).status_code == 503
    assert client.post("/sign-up", json=ada).status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert client.get("/no-such-page").status_code == 404
    mongod.start()
    until_ready(client)
    assert client.get("/profile", headers=JSON).get_json()["email"] == ada["email"]


def test_a_database_that_hangs_is_a_503_too(mongod: OwnMongod, make_app: Any, register: Any) -> None:
    client = make_app(MONGODB_URI=mongod.uri).test_client()
    register(client)
    mongod.send(signal.SIGSTOP)
    try:
        assert client.get("/profile").status_code == 503
        assert client.get("/readyz").status_code == 503
    finally:
        mongod.send(signal.SIGCONT)
    until_ready(client)
    assert client.get("/profile").status_code == 200


def test_an_app_made_while_the_database_is_away_works_once_it_is_there(
    mongod_binary: Path, tmp_path: Path, make_app: Any
) -> None:
    server = OwnMongod(mongod_binary, tmp_path)
    client = make_app(MONGODB_URI=server.uri).test_client()
    assert client.get("/people").status_code == 503
    server.start()
    try:
        until_ready(client)
        assert client.get("/people").status_code == 200
    finally:
        server.stop()


def test_a_sign_up_cut_short_by_an_outage_can_be_repeated(
    mongod: OwnMongod, make_app: Any, register: Any, ada: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from flaskbook.user import account
    from flaskbook.user.model import User

    client = make_app(MONGODB_URI=mongod.uri).test_client()
    assert client.get("/people").status_code == 200
    original = User.save

    def save_without_database(self: Any, **options: Any) -> Any:
        mongod.stop()
        return original(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(User, "save", save_without_database)
        assert client.post("/sign-up", json=ada).status_code == 503
    mongod.start()
    until_ready(client)
    monkeypatch.setattr(account, "GRACE", timedelta(0))
    assert register(client)["email"] == ada["email"]
