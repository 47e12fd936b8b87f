"""A host that is away: whether its nodes run is unknown, and no command takes that for "they don't"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.deployments import cluster
from provision.deployments.deployment import Deployment
from provision.hosts.backend import Hosts
from tests.hosts.conftest import Project
from tests.hosts.lab import Lab, LabHost
from tests.hosts.standing import Standing

pytestmark = pytest.mark.timeout(300)
SET = {"topology": "replica-set", "members": 3}


@pytest.fixture
def away(all_on: Lab, trusting: Path, standing: Standing) -> Iterator[tuple[Project, LabHost, str]]:
    """A replica set of three over three hosts that runs, one of these hosts, cut off, and the name of its node."""
    project = standing.up(list(all_on.hosts), **SET)
    running = project.deployment(project.loaded(**SET))
    host = project.lab.hosts["db2"]
    [name] = (node.name for node in running.topology.nodes if node.host == host.address)
    _close(running)
    host.cut_off()
    try:
        yield project, host, name
    finally:
        host.connect()


def test_status_says_unreachable_of_the_nodes_of_a_host_that_is_away(
    away: tuple[Project, LabHost, str],
) -> None:
    project, _, name = away
    status = project.deployment(project.loaded(**SET)).status()
    assert status.state == "degraded"
    assert [each.name for each in status.nodes if each.state == "UNREACHABLE"] == [name]
    assert "DOWN" not in {each.state for each in status.nodes}


def test_commands_on_a_node_of_a_host_that_is_away_name_the_host(away: tuple[Project, LabHost, str]) -> None:
    project, host, name = away
    deployment = project.deployment(project.loaded(**SET))
    node = deployment.node(name)
    for doing, work in (
        ("killing", lambda: cluster.kill(deployment, [node])),
        ("stopping", lambda: cluster.stop(deployment, [node], lambda _: None)),
        ("starting", lambda: cluster.start(deployment, [node])),
        ("starting", lambda: deployment.up()),
    ):
        with pytest.raises(ProvisionError) as caught:
            work()
        assert caught.value.doing.startswith(doing)
        assert f"not known whether {name} runs: db2 ({host.address})" in caught.value.cause
        assert "type the same again" in caught.value.remedy
    # Nothing of it was changed by that.
    host.connect()
    assert host.processes("mongod")


def test_node_is_asked_itself_where_only_its_host_does_not_answer(
    away: tuple[Project, LabHost, str],
) -> None:
    project, host, _ = away
    host.connect()
    # Its sshd is away, and its mongod is not.
    host.run("sh", "-c", "pkill -STOP -f '[s]shd.* -D -e'")
    try:
        status = project.deployment(project.loaded(**SET)).status()
    finally:
        host.run("sh", "-c", "pkill -CONT -f '[s]shd.* -D -e'")
    assert {each.state for each in status.nodes} <= {"PRIMARY", "SECONDARY"}


def test_stop_names_the_nodes_of_a_host_that_is_away_and_stops_the_others(
    away: tuple[Project, LabHost, str],
) -> None:
    project, host, name = away
    with pytest.raises(ProvisionError) as caught:
        project.deployment(project.loaded(**SET)).down()
    assert caught.value.code == 1
    assert caught.value.doing == "stopping prod"
    assert f"It is not known whether {name} runs: db2 ({host.address}) does not answer" in caught.value.cause
    assert "Done with" in caught.value.cause
    assert f"root@{host.address} true" in caught.value.remedy
    assert "invoke stop --on prod" in caught.value.remedy
    running = {each: bool(other.processes("mongod")) for each, other in project.lab.hosts.items()}
    assert running == {"db1": False, "db2": True, "db3": False}

    # What the remedy says, once it can be typed.
    host.connect()
    assert project.deployment(project.loaded(**SET)).down() == (name,)
    assert host.processes("mongod") == []


def test_nodes_on_hosts_are_shut_down_and_not_killed(project: Project) -> None:
    """Others than routers may write to them: a flush before a kill would not be the last word."""
    project.are_ready(["db1"])
    del project.hosts["db2"], project.hosts["db3"]
    one_of_each = {"topology": "sharded", "config_servers": 1, "shards": 1, "members": 1, "routers": 1}
    deployment = project.deployment(project.loaded(**one_of_each))
    deployment.up()
    deployment.down(remove=True)
    logs = {path.name: path.read_text() for path in project.lab.hosts["db1"].srv.glob("mongodb/prod/*.log")}
    ended = {name for name, text in logs.items() if '"id":23138' in text}  # "Shutting down"
    assert {"config.log", "shard1.log"} <= {name.replace("-1", "") for name in ended}, sorted(logs)


def _close(deployment: Deployment) -> None:
    assert isinstance(deployment.backend, Hosts)
    deployment.backend.close()
