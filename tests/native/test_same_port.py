"""Who answers is who was started: clones that want the same port, and programs that have it already."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.backends.base import Observed
from provision.backends.processes import Processes
from provision.core.errors import ProvisionError
from provision.deployments import identity
from provision.deployments.deployment import Deployment
from provision.deployments.identity import Impostor
from provision.mongodb.credentials import Credentials
from provision.mongodb.topology import Node
from provision.mongodb.wire import Connection, Refused
from provision.testing.servers import Server
from tests.support import racing
from tests.support.clones import Clone
from tests.support.deployments import deployed, foreign_mongod
from tests.support.processes import free_port


@pytest.mark.parametrize("count", [2, 4])
def test_of_clones_started_at_once_one_succeeds_and_the_others_say_who_holds_the_port(
    tmp_path: Path, mongod_binary: Path, count: int
) -> None:
    clones = racing.processes(tmp_path, count, str(mongod_binary))
    try:
        racing.rounds(clones, 2, lambda done: check(done))
    finally:
        racing.close(clones)


def check(done: racing.Round) -> None:
    assert done.faults == []


@pytest.fixture
def stopped(tmp_path: Path, mongod_binary: Path, mongod_version: str) -> Iterator[Callable[..., Deployment]]:
    """Makes a deployment that was up once and is stopped."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Deployment:
            folder = tmp_path / "lab"
            folder.mkdir()
            chosen = {"topology": "single", **settings}
            deployment = stack.enter_context(deployed(folder, mongod_binary, mongod_version, **chosen))
            deployment.down()
            return deployment

        yield make


@contextlib.contextmanager
def taken_after_the_check(
    deployment: Deployment, binary: Path, data: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> Iterator[None]:
    """Another mongod takes the first node's port when it was found free, and answers before ours is spawned."""
    data.mkdir()
    spawn = Processes._spawn
    with contextlib.ExitStack() as stack:

        def late(self: Processes, node: Node) -> None:
            stack.enter_context(foreign_mongod(binary, data, node.port, *options))
            spawn(self, node)

        monkeypatch.setattr(Processes, "_spawn", late)
        yield


@pytest.mark.parametrize("auth", [False, True], ids=["open", "with-auth"])
def test_a_mongod_that_took_the_port_after_the_check_is_named_and_nothing_is_written_to_it(
    stopped: Callable[..., Deployment],
    tmp_path: Path,
    mongod_binary: Path,
    monkeypatch: pytest.MonkeyPatch,
    auth: bool,
) -> None:
    deployment = stopped(auth=auth)
    node = deployment.node()
    foreign = tmp_path / "foreign"
    with taken_after_the_check(deployment, mongod_binary, foreign, monkeypatch, "--replSet", "rs0"):
        with pytest.raises(ProvisionError) as failure:
            deployment.up()
        assert f"Port {node.port} is held by mongod" in failure.value.cause
        assert str(foreign) in failure.value.cause
        with Connection("127.0.0.1", node.port) as connection:
            assert "setName" not in connection.command("admin", {"hello": 1})
            names = connection.command("admin", {"hello": 1})
            assert names["isreplicaset"] is True
    assert not deployment.running([node])


def test_a_node_whose_port_is_answered_by_another_mongod_is_neither_up_nor_reached(
    stopped: Callable[..., Deployment], tmp_path: Path, mongod_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process runs by its record, and frozen or elsewhere it may be: who answers is not it."""
    deployment = stopped(replica_set=None)
    node = deployment.node()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with (
        foreign_mongod(mongod_binary, foreign, node.port),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ours,
    ):
        monkeypatch.setattr(Processes, "observe", lambda *_: Observed(True, ours.pid))
        with pytest.raises(Impostor, match=f"Port {node.port} is held by mongod"):
            deployment.dial(node)
        with pytest.raises(ProvisionError, match=f"seeding lab[^$]*Port {node.port} is held by mongod"):
            deployment.check_answers([node], "seeding lab")
        assert deployment.status().nodes[0].state == "UNREACHABLE"
        ours.communicate(b"\n")
        monkeypatch.undo()


def test_stop_shuts_down_no_other_mongod_that_answers_on_the_port(
    stopped: Callable[..., Deployment], tmp_path: Path, mongod_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = stopped()
    node = deployment.node()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with (
        foreign_mongod(mongod_binary, foreign, node.port) as theirs,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ours,
    ):
        monkeypatch.setattr(Processes, "observe", lambda *_: Observed(ours.poll() is None, ours.pid))
        deployment.down()
        assert theirs.poll() is None
        assert ours.poll() is not None


def test_a_connection_that_breaks_while_its_node_lives_is_dialled_again(
    stopped: Callable[..., Deployment],
) -> None:
    """A mongod closes its clients' connections as its state changes; here, each one after one command."""
    deployment = stopped()
    node = deployment.node()
    broken = []

    class Breaking(Connection):
        def command(self, *arguments: Any, **more: Any) -> dict[str, Any]:
            if len(broken) < 30 and random.Random(len(broken)).random() < 0.5:
                broken.append(True)
                self._socket.shutdown(socket.SHUT_RDWR)
            else:
                broken.append(False)
            return super().command(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "Connection", Breaking)
        deployment.up()
    assert any(broken)
    assert deployment.running([node])


def test_a_port_that_changed_between_stop_and_start_never_fails_on_a_lost_connection(
    tmp_path: Path, mongod_binary: Path, clone: Clone
) -> None:
    """Its set's configuration names the old port: mongod goes from STARTUP to REMOVED, and closes its clients."""
    clone.succeeds("setup")
    for _ in range(5):
        port = free_port()
        moved = {"INVOKE_DEPLOYMENTS_LOCAL_PORT": str(port)}
        assert f"127.0.0.1:{port}" in clone.succeeds("start", env=moved)
        clone.succeeds("stop", env=moved)


@pytest.mark.parametrize(("iterations", "taken"), [(4095, False), (4096, True)])
def test_scram_with_fewer_than_4096_iterations_is_refused(
    mongodb: Server, iterations: int, taken: bool
) -> None:
    host, port = mongodb.client.address or ("", 0)
    name = f"weak-{iterations}"
    admin = mongodb.client.admin
    admin.command("createUser", name, pwd="secret", roles=[], mechanisms=["SCRAM-SHA-256"])
    try:
        salt = b"0123456789abcdefghijklmnopqr"
        salted = hashlib.pbkdf2_hmac("sha256", b"secret", salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored = {
            "iterationCount": iterations,
            "salt": base64.b64encode(salt).decode(),
            "storedKey": base64.b64encode(hashlib.sha256(client_key).digest()).decode(),
            "serverKey": base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode(),
        }
        # mongod itself takes no fewer than 5000 for a new user.
        admin["system.users"].update_one({"user": name}, {"$set": {"credentials.SCRAM-SHA-256": stored}})
        admin.command("invalidateUserCache")
        who = Credentials(name, "secret")
        if taken:
            Connection(host, port, credentials=who).close()
        else:
            with pytest.raises(Refused, match="4095 iterations"):
                Connection(host, port, credentials=who)
    finally:
        admin.command("dropUser", name)
