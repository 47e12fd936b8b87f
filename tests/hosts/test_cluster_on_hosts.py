"""A sharded cluster and replica sets over three hosts."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
from pymongo import WriteConcern
from pymongo.errors import PyMongoError

from provision import assembly
from provision.backends.hosts import Hosts
from provision.deployment import Deployment
from provision.errors import ProvisionError
from provision.hosts import operations
from provision.hosts.certificates import trusting
from provision.mongodb import users
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from tests.hosts.conftest import Project
from tests.hosts.lab import LabHost
from tests.support.polling import until

pytestmark = pytest.mark.timeout(300)
SHARDED = {"topology": "sharded", "config_servers": 1, "shards": 2, "members": 1, "routers": 1}
SET = {"topology": "replica-set", "members": 3}
MAJORITY = WriteConcern("majority", wtimeout=20_000)


def test_sharded_cluster_over_three_hosts_is_locked_and_leaves_them_as_they_were(project: Project) -> None:
    project.set_up().raise_first()
    homes = {host.name: _tree(host.folder / "home") for host in project.lab.hosts.values()}
    loaded = project.loaded(**SHARDED)
    deployment = project.deployment(loaded)
    backend = deployment.backend
    assert isinstance(backend, Hosts)

    with _command_lines() as seen:
        up = deployment.up()

    assert set(up.started) == {node.name for node in deployment.topology.nodes}
    assert set(backend.placement.values()) == {"db1", "db2", "db3"}
    uri = deployment.uri("flaskbook", user="app")
    with pymongo.MongoClient(uri) as client:
        assert (
            client.flaskbook.get_collection("note", write_concern=MAJORITY).insert_one({"n": 1}).acknowledged
        )

    secrets = users.existing(loaded.paths, "prod")
    assert secrets is not None
    words = (secrets.key, secrets.root.password, secrets.app.password, "PRIVATE KEY")
    assert len(seen) > 20
    assert not [line for line in seen for word in words if word in line]

    status = deployment.status()
    assert status.state == "running"
    assert {each.state for each in status.nodes} == {"PRIMARY", "ROUTER"}

    _assert_every_port_is_locked(project, trusting(loaded.paths.ca_certificate("prod")))
    modes = project.lab.hosts["db1"].run("stat", "-c", "%a %n", *_secret_files("/srv/mongodb/prod"))
    assert {line.split()[0] for line in modes.splitlines()} == {"400", "600"}

    again = assembly.deployment(loaded, "prod")
    assert again.up().started == ()
    assert isinstance(again.backend, Hosts)
    again.backend.close()

    stopped = deployment.down(delete_data=True)
    assert set(stopped) == set(up.started)
    for host in project.lab.hosts.values():
        assert host.processes("mongod") == []
        assert "router_standin" not in host.run("ps", "-eo", "args")
        assert {path.name for path in host.srv.iterdir()} == {"mongodb"}
        assert {path.name for path in (host.srv / "mongodb").iterdir()} == {"bin"}
        assert _tree(host.folder / "home") == homes[host.name]


def test_writes_go_on_while_a_host_is_switched_off_and_none_is_lost(project: Project) -> None:
    project.set_up().raise_first()
    deployment = project.deployment(project.loaded(**SET))
    deployment.up()
    primary = _primary_host(project, deployment)

    with _writing(deployment.uri("flaskbook", user="app")) as acknowledged:
        until("some writes", lambda: len(acknowledged) > 20)
        primary.stop()
        before = len(acknowledged)
        until("writes to go on without that host", lambda: len(acknowledged) > before + 20)
    assert deployment.status().state == "degraded"

    primary.start()
    deployment = project.deployment(project.loaded(**SET))
    assert len(deployment.up().started) == 1
    assert deployment.status().state == "running"
    with pymongo.MongoClient(deployment.uri("flaskbook", user="app")) as client:
        assert set(acknowledged) <= {each["_id"] for each in client.flaskbook.load.find()}


def test_writes_go_on_while_a_host_is_cut_off_and_none_is_lost(project: Project) -> None:
    project.set_up().raise_first()
    deployment = project.deployment(project.loaded(**SET))
    deployment.up()
    primary = _primary_host(project, deployment)

    with _writing(deployment.uri("flaskbook", user="app")) as acknowledged:
        until("some writes", lambda: len(acknowledged) > 20)
        primary.cut_off()
        before = len(acknowledged)
        until("writes to go on without that host", lambda: len(acknowledged) > before + 20)
        primary.connect()
        before = len(acknowledged)
        until("writes to go on with it", lambda: len(acknowledged) > before + 20)

    def healthy() -> bool:
        return deployment.status().state == "running"

    until("the host's member to be healthy again", healthy)
    with pymongo.MongoClient(deployment.uri("flaskbook", user="app")) as client:
        assert set(acknowledged) <= {each["_id"] for each in client.flaskbook.load.find()}


def test_rotated_certificates_are_used_without_a_restart(project: Project) -> None:
    project.set_up().raise_first()
    loaded = project.loaded(**SET)
    deployment = project.deployment(loaded)
    deployment.up()
    context = trusting(loaded.paths.ca_certificate("prod"))
    nodes = deployment.topology.nodes
    before = {node.name: _served_certificate(node.host, node.port, context) for node in nodes}
    pids = {host.name: host.run("pidof", "mongod") for host in project.lab.hosts.values()}

    done = operations.rotate_certificates(loaded, "prod")

    assert set(done.nodes) == set(before)
    for node in nodes:
        assert _served_certificate(node.host, node.port, context) != before[node.name]
    assert {host.name: host.run("pidof", "mongod") for host in project.lab.hosts.values()} == pids
    assert deployment.status().state == "running"


def test_a_node_that_cannot_start_is_named_with_its_host_and_nothing_is_left_running(
    project: Project,
) -> None:
    project.set_up().raise_first()
    deployment = project.deployment(project.loaded(**SET, set_parameter={"noSuchParameter": 1}))
    with pytest.raises(ProvisionError) as caught:
        deployment.up()
    assert "noSuchParameter" in caught.value.text()
    assert all(host.processes("mongod") == [] for host in project.lab.hosts.values())


def test_a_port_in_use_on_one_host_is_named_before_anything_starts(project: Project) -> None:
    project.set_up().raise_first()
    deployment = project.deployment(project.loaded(**SET))
    node = deployment.topology.nodes[0]
    holder = next(host for host in project.lab.hosts.values() if host.address == node.host)
    with (
        holder.listener(node.port),
        pytest.raises(ProvisionError, match=f"Port {node.port} of {holder.name}"),
    ):
        deployment.up()
    assert all(host.processes("mongod") == [] for host in project.lab.hosts.values())


def test_hosts_without_mongod_are_named_with_the_command_that_brings_it(project: Project) -> None:
    project.set_up(["db1", "db2"]).raise_first()
    with pytest.raises(ProvisionError) as caught:
        project.deployment(project.loaded(**SET)).up()
    assert "db3" in caught.value.cause
    assert "invoke hosts.setup --on prod" in caught.value.remedy


def test_a_host_that_is_down_is_named_and_up_completes_when_it_is_back(project: Project) -> None:
    project.set_up().raise_first()
    down = project.lab.hosts["db2"]
    down.stop()
    deployment = project.deployment(project.loaded(**SET))
    with pytest.raises(ProvisionError, match="db2"):
        deployment.up()
    down.start()
    again = project.deployment(project.loaded(**SET))
    assert len(again.up().started) == 3


@pytest.mark.parametrize("off", ["auth", "tls"])
def test_an_address_beyond_loopback_is_refused_without_authentication_and_tls(
    project: Project, off: str
) -> None:
    with pytest.raises(ProvisionError, match="over the network without"):
        assembly.deployment(project.loaded(**SET, **{off: False}), "prod")


def test_a_killed_node_is_seen_as_down_and_comes_back(project: Project) -> None:
    project.set_up(["db1"]).raise_first()
    del project.hosts["db2"], project.hosts["db3"]
    deployment = project.deployment(project.loaded(topology="single", replica_set="rs0"))
    deployment.up()
    node = deployment.topology.nodes[0]
    deployment.kill_node(node)
    assert not deployment.backend.observe(node).running
    assert deployment.up().started == (node.name,)
    deployment.backend.pause(node, True)
    assert deployment.backend.is_paused(node)
    assert deployment.backend.release(node)
    assert any("MongoDB starting" in line for line in deployment.backend.log_tail(node, 1000))
    following = deployment.log(node, 5, follow=True)
    assert next(following).startswith("{")
    following.close()  # type: ignore[attr-defined]


def _primary_host(project: Project, deployment: Deployment) -> LabHost:
    """The host of the primary, once every member has its vote: MongoDB gives it to a new one some seconds later."""

    def all_vote() -> bool:
        with deployment.dial(deployment.topology.nodes[-1]) as member:
            status = member.command("admin", {"replSetGetStatus": 1})
        return status["votingMembersCount"] == len(deployment.topology.nodes)  # type: ignore[no-any-return]

    until("every member to have its vote", all_vote)
    assert isinstance(deployment.backend, Hosts)
    name = next(each.name for each in deployment.status().nodes if each.state == "PRIMARY")
    return project.lab.hosts[deployment.backend.placement[name]]


def _secret_files(folder: str) -> list[str]:
    return [f"{folder}/keyfile", f"{folder}/host.pem"]


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def _command_lines() -> Iterator[set[str]]:
    """Every command line, of this machine and of the hosts on it, that is seen during the block."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            over.wait(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@contextlib.contextmanager
def _writing(uri: str) -> Iterator[list[int]]:
    """Majority writes, one after another; yields the numbers of those that were acknowledged."""
    acknowledged: list[int] = []
    over = threading.Event()

    def write() -> None:
        # A host that is gone says nothing: without a time limit, a write would wait for it as long as TCP does.
        with pymongo.MongoClient(uri, serverSelectionTimeoutMS=2000, socketTimeoutMS=5000) as client:
            load = client.flaskbook.get_collection("load", write_concern=MAJORITY)
            number = 0
            while not over.is_set():
                number += 1
                with contextlib.suppress(PyMongoError):
                    load.insert_one({"_id": number})
                    acknowledged.append(number)
                over.wait(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield acknowledged
    finally:
        over.set()
        writer.join()


def _assert_every_port_is_locked(project: Project, context: ssl.SSLContext) -> None:
    """No port of a host but sshd's takes a plain connection, or does anything for nobody."""
    found = 0
    for host in project.lab.hosts.values():
        for address, port in host.listening():
            if port == 22:
                continue
            found += 1
            assert address in ("127.0.0.1", host.address), f"{host.name} listens on {address}:{port}"
            if address != host.address:
                continue
            with pytest.raises(NotReachable), Connection(address, port, 5.0) as plain:
                plain.command("admin", {"hello": 1})
            with Connection(address, port, 5.0, tls=context) as nobody:
                with pytest.raises(CommandFailed) as refused:
                    nobody.command("admin", {"listDatabases": 1})
                assert refused.value.code in (13, 18)  # Unauthorized, AuthenticationFailed
            strangers = ssl.create_default_context()
            with pytest.raises(NotReachable, match="certificate"):
                Connection(address, port, 5.0, tls=strangers)
    assert found >= 4


def _served_certificate(host: str, port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection((host, port), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        certificate = encrypted.getpeercert(binary_form=True)
    assert certificate
    return certificate
