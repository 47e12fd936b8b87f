"""A sharded cluster over three hosts: it serves flaskbook, survives the loss of any one of them, and leaves no trace.

Every set has a member on each host, so that whichever is lost, two of three are left.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from flaskbook.application import create_app
from flaskbook.database import close
from provision.app.deploy import rollout
from provision.deployments.deployment import Deployment, Up
from provision.hosts.backend import Hosts
from provision.hosts.certificates import trusting
from provision.mongodb import users
from provision.settings.loading import Loaded
from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.hosts.lab import LabHost, Seen
from tests.hosts.scan import LOOPBACK, assert_every_port_is_locked, command_lines
from tests.hosts.virtualenvs import Virtualenvs
from tests.support.capabilities import ROOT
from tests.support.load import writing
from tests.support.polling import until

pytestmark = [pytest.mark.timeout(600), pytest.mark.needs("index")]
NAMES = ("db1", "db2", "db3")
HASHED = {"key": {"_id": "hashed"}}
APP_PORT = 8000
SETTINGS: dict[str, Any] = {
    "app_hosts": ["db1", "db2"],
    "topology": "sharded",
    "config_servers": 3,
    "shards": 2,
    "members": 3,
    "routers": 3,
    "sharding": {"flaskbook": {"user": HASHED, "load": HASHED}},
}
ADA = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "age": 36,
    "email": "ada@example.org",
    "password": "analytical engine",
}


@dataclass
class Cluster:
    """The cluster of this file's tests.

    Args:
        project: whose it is.
        deployment: the cluster.
        up: what its first `up` did.
        before: host name → the host before anything was put there.
        command_lines: those that were seen, here and on the hosts, while it came up.
    """

    project: Project
    deployment: Deployment
    up: Up
    before: dict[str, Seen]
    command_lines: set[str]

    @property
    def loaded(self) -> Loaded:
        return self.project.loaded(**SETTINGS)

    @property
    def uri(self) -> str:
        return self.deployment.uri("flaskbook", user="app")

    def heal(self) -> Up:
        """What `cluster.up` does when it is typed again."""
        self.deployment = self.project.deployment(self.loaded)
        return self.deployment.up()

    def host_of_primary(self, replica_set: str) -> LabHost:
        nodes = self.deployment.status().nodes
        name = next(each.name for each in nodes if (each.replica_set, each.state) == (replica_set, "PRIMARY"))
        assert isinstance(self.deployment.backend, Hosts)
        return self.project.lab.hosts[self.deployment.backend.placement[name]]


@pytest.fixture(scope="module")
def cluster(
    sshd: str, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path, virtualenvs: Virtualenvs
) -> Iterator[Cluster]:
    """The cluster, brought up once."""
    folder = tmp_path_factory.mktemp("sharded")
    with (
        hosts_of_their_own(sshd, NAMES) as lab,
        at_home(lab, folder / "home"),
        project_on(lab, folder, routed_mongod) as project,
    ):
        before = {name: host.seen("/srv/mongodb") for name, host in lab.hosts.items()}
        shutil.copytree(ROOT / "flaskbook", project.root / "flaskbook")
        shutil.copy2(ROOT / "requirements.txt", project.root)
        loaded = project.loaded(**SETTINGS)
        deployment = project.deployment(loaded)
        project.hand_over()
        with command_lines() as seen:
            virtualenvs.set_up(loaded, lab)
            up = deployment.up()
            rollout.deploy(loaded, "prod")
        yield Cluster(project, deployment, up, before, seen)


@pytest.fixture
def flaskbook(cluster: Cluster) -> Iterator[FlaskClient]:
    """A client of a flaskbook that runs here, beside those on db1 and db2; Ada is among its people."""
    cluster.heal()
    app = create_app({"TESTING": True, "PROPAGATE_EXCEPTIONS": False, "MONGODB_URI": cluster.uri})
    client = app.test_client()
    # One that was cut off may have to catch up: until then a write may take longer than the app waits for one.
    until("Ada to sign up", lambda: client.post("/sign-up", json=ADA).status_code == 202)
    try:
        yield client
    finally:
        close(app)


def test_every_set_has_a_member_on_every_host(cluster: Cluster) -> None:
    deployment = cluster.deployment
    assert set(cluster.up.started) == {node.name for node in deployment.topology.nodes}
    assert isinstance(deployment.backend, Hosts)
    for group in (*(each.members for each in deployment.topology.all_sets), deployment.topology.routers):
        assert {deployment.backend.placement[node.name] for node in group} == set(NAMES)
    assert deployment.status().state == "running"


def test_no_secret_is_in_a_command_line_or_a_file_of_others(cluster: Cluster) -> None:
    secrets = users.existing(cluster.loaded.paths, "prod")
    assert secrets is not None
    words = (secrets.key, secrets.root.password, secrets.app.password, "PRIVATE KEY")
    assert len(cluster.command_lines) > 20
    assert not [line for line in cluster.command_lines for word in words if word in line]
    for host in cluster.project.lab.hosts.values():
        modes = host.run(
            "stat", "-c", "%a %n", *(f"/srv/mongodb/prod/{name}" for name in ("keyfile", "host.pem"))
        )
        assert [line.split()[0] for line in modes.splitlines()] == ["400", "600"]


def test_no_port_does_anything_for_whoever_comes_without_tls_and_a_password(cluster: Cluster) -> None:
    cluster.heal()
    authority = cluster.loaded.paths.ca_certificate("prod")
    found = assert_every_port_is_locked(cluster.project.lab, trusting(authority))
    assert isinstance(cluster.deployment.backend, Hosts)
    planned: dict[str, set[int]] = {name: set() for name in NAMES}
    for node in cluster.deployment.topology.nodes:
        planned[cluster.deployment.backend.placement[node.name]].add(node.port)
    assert found == planned
    for name in SETTINGS["app_hosts"]:
        local = {port for address, port in cluster.project.lab.hosts[name].listening() if address in LOOPBACK}
        assert APP_PORT in local


def test_second_up_changes_nothing(cluster: Cluster) -> None:
    cluster.heal()
    assert cluster.heal().started == ()


def test_writes_and_flaskbook_go_on_while_a_host_is_switched_off(
    cluster: Cluster, flaskbook: FlaskClient
) -> None:
    lost = cluster.host_of_primary("shard1")
    nodes = _nodes_on(cluster, lost)
    with writing(cluster.uri) as load:
        lost.stop()
        load.goes_on("without that host")
        _serves(cluster, flaskbook, without=lost)
        assert cluster.deployment.status().state == "degraded"

        lost.start()
        assert set(cluster.heal().started) == nodes
        assert cluster.deployment.status().state == "running"
        load.goes_on("with it")
    assert load.lost() == set()
    # Without systemd an app does not start with its host.
    rollout.deploy(cluster.loaded, "prod")
    _serves(cluster, flaskbook)


def test_writes_and_flaskbook_go_on_while_a_host_is_cut_off(cluster: Cluster, flaskbook: FlaskClient) -> None:
    assert cluster.deployment.topology.config is not None
    lost = cluster.host_of_primary(cluster.deployment.topology.config.name)
    with writing(cluster.uri) as load:
        lost.cut_off()
        load.goes_on("without that host")
        _serves(cluster, flaskbook, without=lost)
        lost.connect()
        until("every node to be well again", lambda: cluster.deployment.status().state == "running", 150)
        load.goes_on("with it")
    assert load.lost() == set()
    assert cluster.heal().started == ()
    _serves(cluster, flaskbook)


def test_taken_down_it_leaves_the_hosts_as_they_were_but_for_the_data_directory(cluster: Cluster) -> None:
    cluster.heal()
    nodes = {node.name for node in cluster.deployment.topology.nodes}
    assert rollout.taken_down(cluster.loaded, "prod") is None
    assert set(cluster.deployment.down(delete_data=True)) == nodes
    assert isinstance(cluster.deployment.backend, Hosts)
    cluster.deployment.backend.close()
    for name, host in cluster.project.lab.hosts.items():
        assert cluster.before[name].changes(host.seen("/srv/mongodb")) == []
        # What `hosts.setup` brought stays, and nothing of the deployment.
        brought = {"bin", "env"} if name in SETTINGS["app_hosts"] else {"bin"}
        assert {path.name for path in (host.srv / "mongodb").iterdir()} == brought


def _nodes_on(cluster: Cluster, host: LabHost) -> set[str]:
    assert isinstance(cluster.deployment.backend, Hosts)
    return {node for node, name in cluster.deployment.backend.placement.items() if name == host.name}


def _serves(cluster: Cluster, here: FlaskClient, without: LabHost | None = None) -> None:
    """Every app takes writes, and shows what is there. What one had under way when a host was lost may fail first.

    Args:
        cluster: what they run on.
        here: the app on this machine.
        without: a host whose app is left out.
    """

    def get(path: str) -> tuple[int, str]:
        answer = here.get(path)
        return answer.status_code, answer.text

    apps: dict[str, Callable[[str], tuple[int, str]]] = {"this machine": get}
    for name in SETTINGS["app_hosts"]:
        host = cluster.project.lab.hosts[name]
        if host is not without:
            apps[name] = functools.partial(host.get, APP_PORT)
    for name, ask in apps.items():
        until(f"flaskbook on {name} to take writes", functools.partial(_is_ready, ask))
        until(f"flaskbook on {name} to show Ada", functools.partial(_shows_ada, ask))


def _is_ready(ask: Callable[[str], tuple[int, str]]) -> bool:
    return ask("/readyz")[0] == 200


def _shows_ada(ask: Callable[[str], tuple[int, str]]) -> bool:
    return "Lovelace" in ask("/people")[1]
