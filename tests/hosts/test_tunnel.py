"""`invoke tunnel`: ports of this machine that lead to a database on hosts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from provision.app import tunnel
from provision.app.tunnel import Opened
from provision.core.errors import ProvisionError
from provision.deployments.deployment import Deployment
from provision.hosts.backend import Hosts
from provision.settings.loading import Layer, Loaded, load
from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.support.polling import until

pytestmark = pytest.mark.timeout(300)


@dataclass
class Held:
    """A tunnel that is held by a thread of its own.

    Args:
        opened: what it leads to.
        said: what it told on the way.
        errors: how it ended, if not by being told to.
    """

    opened: list[Opened] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    errors: list[ProvisionError] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return self.opened[0].uri


@pytest.fixture(scope="module")
def replica_set(
    sshd: str, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path
) -> Iterator[tuple[Project, Loaded]]:
    """A replica set of three members on three hosts."""
    folder = tmp_path_factory.mktemp("tunnel")
    with (
        hosts_of_their_own(sshd, ("db1", "db2", "db3")) as hosts,
        at_home(hosts, folder / "home"),
        project_on(hosts, folder, routed_mongod) as project,
    ):
        project.are_ready()
        loaded = project.loaded(topology="replica-set", members=3)
        project.deployment(loaded).up()
        yield project, loaded


@contextlib.contextmanager
def _held(loaded: Loaded, **options: Any) -> Iterator[Held]:
    made, over = Held(), threading.Event()

    def hold() -> None:
        try:
            tunnel.hold(loaded, "prod", opened=made.opened.append, say=made.said.append, over=over, **options)
        except ProvisionError as error:
            made.errors.append(error)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        until("the tunnel to be open", lambda: made.opened or made.errors)
        yield made
    finally:
        over.set()
        holder.join()


def test_tunnel_leads_to_the_primary_and_speaks_tls_with_this_machine(
    replica_set: tuple[Project, Loaded],
) -> None:
    _, loaded = replica_set
    with _held(loaded) as held:
        assert "@127.0.0.1:" in held.uri
        assert "directConnection=true" in held.uri
        assert "tls=true" in held.uri
        with pymongo.MongoClient(held.uri) as client:
            assert client.admin.command("hello")["isWritablePrimary"]
            note = client.get_default_database().note
            assert note.insert_one({"text": "x" * 300_000}).acknowledged
            assert len(note.find_one()["text"]) == 300_000
        assert held.opened[0].app is None
    with pytest.raises(PyMongoError), pymongo.MongoClient(held.uri, serverSelectionTimeoutMS=300) as client:
        client.admin.command("ping")


def test_tunnel_leads_to_a_node_and_is_for_a_user_of_choice(replica_set: tuple[Project, Loaded]) -> None:
    project, loaded = replica_set
    with _held(loaded, node="member-2", user="root") as held, pymongo.MongoClient(held.uri) as client:
        backend = project.made[0].backend
        assert isinstance(backend, Hosts)
        assert held.opened[0].host == backend.placement["member-2"]
        hello = client.admin.command("hello")
        assert hello["me"] == project.made[0].node("member-2").address
        assert client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"][0]["user"] == "root"


def test_lost_connection_is_opened_again_and_clients_go_on(
    replica_set: tuple[Project, Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_BEAT_SECONDS", 0.2)
    project, loaded = replica_set
    with _held(loaded) as held, pymongo.MongoClient(held.uri, serverSelectionTimeoutMS=10_000) as client:
        client.admin.command("ping")
        project.lab.hosts[held.opened[0].host].cut_connections()

        def answers() -> bool:
            with contextlib.suppress(PyMongoError):
                return bool(client.admin.command("ping")["ok"])
            return False

        until("the tunnel to lead there again", answers)
        assert held.errors == []


def test_tunnel_follows_the_primary_where_no_node_was_named(
    replica_set: tuple[Project, Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(tunnel, "_ANSWER_SECONDS", 1.0)
    project, loaded = replica_set
    deployment = project.made[0]
    with _held(loaded) as held, pymongo.MongoClient(held.uri, serverSelectionTimeoutMS=10_000) as client:
        note = client.get_default_database().note

        def takes_writes() -> bool:
            with contextlib.suppress(PyMongoError):
                return note.insert_one({}).acknowledged
            return False

        former = deployment.primary()
        assert former is not None
        until("every member to have its vote", lambda: _votes(deployment) == 3)
        with deployment.dial(former) as connection:
            connection.command("admin", {"replSetStepDown": 60}, timeout=30.0)
        until("writes to go to the new primary", takes_writes)
        assert any("leads to" in each for each in held.said)

        second = deployment.primary()
        assert second not in (None, former)
        assert second is not None
        assert isinstance(deployment.backend, Hosts)
        host = project.lab.hosts[deployment.backend.placement[second.name]]
        host.cut_connections()
        host.cut_off()
        try:
            until("writes to go on without that host", takes_writes)
        finally:
            host.connect()
        assert held.errors == []
    until("the set to be whole again", lambda: deployment.status().state == "running", 120)


def test_host_that_is_gone_ends_the_tunnel_with_one_error_that_names_it(
    replica_set: tuple[Project, Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(tunnel, "_ANSWER_SECONDS", 1.0)
    project, loaded = replica_set
    with _held(loaded, node="member-2") as held:
        host = project.lab.hosts[held.opened[0].host]
        host.cut_connections()
        host.cut_off()
        try:
            until("the tunnel to end", lambda: held.errors, seconds=60)
        finally:
            host.connect()
            until("the set to be whole again", lambda: project.made[0].status().state == "running", 120)
    assert host.name in held.errors[0].text()


def test_port_in_use_is_named(replica_set: tuple[Project, Loaded]) -> None:
    _, loaded = replica_set
    with _held(loaded) as held:
        assert held.errors == []
        with _held(loaded, port=held.opened[0].port) as second:
            over = second.errors
        assert "can't be opened" in over[0].cause
        assert "--port" in over[0].remedy


def test_deployment_on_this_machine_needs_none(tmp_path: Path) -> None:
    loaded = load(tmp_path, [Layer("the tests", {"deployments": {"prod": {}}})], remember=False)
    (tmp_path / "mongod.conf.j2").write_text("")
    with pytest.raises(ProvisionError) as caught:
        tunnel.hold(loaded, "prod")
    assert "need none" in caught.value.cause
    assert "invoke uri --on prod --user app" in caught.value.remedy


def _votes(deployment: Deployment) -> int:
    with deployment.dial(deployment.topology.nodes[0]) as connection:
        return int(connection.command("admin", {"replSetGetStatus": 1})["votingMembersCount"])
