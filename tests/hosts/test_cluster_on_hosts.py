"""Replica sets over three hosts: what survives, what is refused, what an error names."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pymongo
import pytest

from provision.core.errors import ProvisionError
from provision.deployments import assembly, on_hosts
from provision.deployments.deployment import Deployment
from provision.hosts.backend import Hosts
from provision.hosts.certificates import trusting
from tests.hosts.conftest import Project
from tests.hosts.lab import Lab, LabHost
from tests.hosts.standing import Standing
from tests.support.load import writing
from tests.support.polling import until

pytestmark = pytest.mark.timeout(300)
SET = {"topology": "replica-set", "members": 3}


@pytest.fixture
def shared(all_on: Lab, trusting: Path, standing: Standing) -> Project:
    """A project whose replica set of three over three hosts is up."""
    return standing.up(list(all_on.hosts), **SET)


@pytest.fixture
def replica_set(shared: Project) -> Deployment:
    """That replica set."""
    return shared.deployment(shared.loaded(**SET))


def test_writes_go_on_while_a_host_is_switched_off_and_none_is_lost(
    shared: Project, replica_set: Deployment
) -> None:
    primary = _primary_host(shared, replica_set)
    with writing(replica_set.uri("flaskbook", user="app")) as load:
        primary.stop()
        load.goes_on("without that host")
    assert replica_set.status().state == "degraded"

    primary.start()
    again = shared.deployment(shared.loaded(**SET))
    assert len(again.up().started) == 1
    assert again.status().state == "running"
    assert load.lost() == set()


def test_writes_go_on_while_a_host_is_cut_off_and_none_is_lost(
    shared: Project, replica_set: Deployment
) -> None:
    primary = _primary_host(shared, replica_set)
    with writing(replica_set.uri("flaskbook", user="app")) as load:
        primary.cut_off()
        load.goes_on("without that host")
        primary.connect()
        load.goes_on("with it")

    until("the host's member to be healthy again", lambda: replica_set.status().state == "running")
    assert load.lost() == set()


def test_rotated_certificates_are_used_without_a_restart(shared: Project, replica_set: Deployment) -> None:
    loaded = shared.loaded(**SET)
    context = trusting(loaded.paths.ca_certificate("prod"))
    nodes = replica_set.topology.nodes
    before = {node.name: _served_certificate(node.host, node.port, context) for node in nodes}
    pids = {host.name: host.run("pidof", "mongod") for host in shared.lab.hosts.values()}

    done = on_hosts.rotate_certificates(loaded, "prod")

    assert set(done.nodes) == set(before)
    for node in nodes:
        assert _served_certificate(node.host, node.port, context) != before[node.name]
    assert {host.name: host.run("pidof", "mongod") for host in shared.lab.hosts.values()} == pids
    assert replica_set.status().state == "running"


def test_a_node_that_cannot_start_is_named_with_its_host_and_nothing_is_left_running(
    project: Project,
) -> None:
    project.are_ready()
    deployment = project.deployment(project.loaded(**SET, set_parameter={"noSuchParameter": 1}))
    with pytest.raises(ProvisionError) as caught:
        deployment.up()
    assert "noSuchParameter" in caught.value.text()
    assert all(host.processes("mongod") == [] for host in project.lab.hosts.values())


def test_a_port_in_use_on_one_host_is_named_before_anything_starts(project: Project) -> None:
    project.are_ready()
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
    project.are_ready(["db1", "db2"])
    with pytest.raises(ProvisionError) as caught:
        project.deployment(project.loaded(**SET)).up()
    assert "db3" in caught.value.cause
    assert "invoke hosts.setup --on prod" in caught.value.remedy


def test_a_host_that_is_down_is_named_and_up_completes_when_it_is_back(project: Project) -> None:
    project.are_ready()
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


def test_the_users_own_authority_vouches_for_the_hosts(project: Project) -> None:
    project.are_ready(["db1"])
    del project.hosts["db2"], project.hosts["db3"]
    certificate, key = project.root / "company.pem", project.root / "company.key"
    request = (
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/O=Company/CN=Company root",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    command = ["openssl", "req", *request, "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    loaded = project.loaded(
        topology="single", replica_set="rs0", tls_ca_file=str(certificate), tls_ca_key_file=str(key)
    )
    deployment = project.deployment(loaded)
    deployment.up()
    [node] = deployment.topology.nodes
    first = _served_certificate(node.host, node.port, trusting(certificate))
    with pymongo.MongoClient(deployment.uri("flaskbook", user="app")) as client:
        assert client.get_default_database().note.insert_one({}).acknowledged
    assert on_hosts.rotate_certificates(loaded, "prod").nodes == (node.name,)
    assert _served_certificate(node.host, node.port, trusting(certificate)) != first
    assert not list(project.lab.hosts["db1"].srv.rglob("*company*"))


def test_a_killed_node_is_seen_as_down_and_comes_back(project: Project) -> None:
    project.are_ready(["db1"])
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


def _served_certificate(host: str, port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection((host, port), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        certificate = encrypted.getpeercert(binary_form=True)
    assert certificate
    return certificate
