"""Nodes as units of an ordinary user's own systemd, which lingers: no root, no sudo, and yet they start with the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.app.deploy import host_setup
from provision.deployments.deployment import Deployment
from provision.hosts.units import unit_name
from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.hosts.lab import OPERATOR, LabHost
from tests.support.polling import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("systemd")]
NODE = "mongod"
UNIT = unit_name("prod", NODE)
SINGLE: dict[str, Any] = {"topology": "single", "replica_set": "rs0"}


@pytest.fixture(scope="module")
def of_a_user(
    sshd: str, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path
) -> Iterator[tuple[Project, LabHost]]:
    """A project with one host, whose user has neither root's rights nor sudo; set up."""
    folder = tmp_path_factory.mktemp("user")
    with (
        hosts_of_their_own(sshd, ("db1",), systemd=True, lingering=True) as hosts,
        at_home(hosts, folder / "home"),
        project_on(hosts, folder, routed_mongod) as project,
    ):
        project.has_no_router()
        project.hosts["db1"] |= {"user": "operator", "data_dir": "~/mongodb"}
        host = hosts.hosts["db1"]
        until("its user's systemd to run", lambda: host.run("ls", f"/run/user/{OPERATOR}").split())
        project.set_up().raise_first()
        yield project, host
        for deployment in project.made:
            deployment.down(delete_data=True)


def test_check_says_that_nodes_are_units_of_the_user(of_a_user: tuple[Project, LabHost]) -> None:
    found = host_setup.check(of_a_user[0].loaded(**SINGLE), "prod")
    assert [each.what for each in found if each.check == "units"] == [
        "nodes are systemd user units, which start with the host"
    ]


def test_node_is_a_unit_of_the_user_is_started_again_and_comes_back_with_its_host(
    of_a_user: tuple[Project, LabHost],
) -> None:
    project, host = of_a_user
    before = host.seen(str(_home(host) / "mongodb"))
    deployment = project.deployment(project.loaded(**SINGLE))
    assert deployment.up().started == (NODE,)
    [first] = _mongods(host)
    assert first.split()[0] == "operator"
    assert _systemctl(host, "is-active", UNIT) == "active"
    assert f"user@{OPERATOR}.service" in host.run("cat", f"/proc/{first.split()[1]}/cgroup")
    assert deployment.up().started == ()
    found = host_setup.check(project.loaded(**SINGLE), "prod")
    assert [each.what for each in found if each.check == "ports"] == ["port 27300 is free or ours"]

    host.end("mongod --config")
    until("systemd to start it again", lambda: _mongods(host) not in ([], [first]))
    until("it to be well", lambda: _runs(deployment))

    host.stop()
    host.start()
    until("it to come back with its host", lambda: _runs(deployment))
    assert deployment.up().started == ()

    node = deployment.topology.nodes[0]
    deployment.stop_node(node)
    assert _systemctl(host, "show", UNIT, "-p", "ActiveState", "--value") == "inactive"
    deployment.up()
    deployment.kill_node(node)
    assert _mongods(host) == []
    deployment.up()

    assert deployment.down(delete_data=True) == (NODE,)
    deployment.backend.close()  # type: ignore[attr-defined]
    assert _mongods(host) == []
    assert UNIT not in _systemctl(host, "list-unit-files", "--no-legend")
    left = [
        each
        for each in before.changes(host.seen(str(_home(host) / "mongodb")))
        if UNIT in each or "mongod" in each
    ]
    assert left == []
    assert [path.name for path in (_home(host) / "mongodb").iterdir()] == ["bin"]


def _home(host: LabHost) -> Path:
    return host.folder / "home" / "operator"


def _runs(deployment: Deployment) -> bool:
    return deployment.status().state == "running"


def _systemctl(host: LabHost, *arguments: str) -> str:
    runtime = f"XDG_RUNTIME_DIR=/run/user/{OPERATOR}"
    user = ("setpriv", f"--reuid={OPERATOR}", f"--regid={OPERATOR}", "--clear-groups")
    return host.run(*user, "env", runtime, "systemctl", "--user", *arguments).strip()


def _mongods(host: LabHost) -> list[str]:
    """User, pid and program of the host's mongods."""
    lines = host.run("ps", "-eo", "user:20,pid,comm", "--no-headers").splitlines()
    return [line for line in lines if line.split()[2] == "mongod"]
