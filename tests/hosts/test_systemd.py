"""Nodes as units of a host's systemd: the unit file at work, with a real systemd as the host's first process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.app.deploy import host_setup, rollout
from provision.core.errors import ProvisionError
from provision.core.finding import Level
from provision.deployments.deployment import Deployment
from provision.hosts.units import unit_name
from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.hosts.lab import Lab, LabHost
from tests.hosts.virtualenvs import Virtualenvs
from tests.support.capabilities import ROOT
from tests.support.polling import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("systemd")]
NODE = "mongod"
UNIT = unit_name("prod", NODE)
SINGLE: dict[str, Any] = {"topology": "single", "replica_set": "rs0"}
DATA = "/srv/mongodb"
APP_PORT = 8000


@pytest.fixture(scope="module")
def booted(sshd: str) -> Iterator[Lab]:
    """One host, db1, with systemd."""
    with hosts_of_their_own(sshd, ("db1",), systemd=True) as made:
        yield made


@pytest.fixture
def on_systemd(booted: Lab, tmp_path: Path, routed_mongod: Path) -> Iterator[tuple[Project, LabHost]]:
    """A project with that host, set up."""
    host = booted.hosts["db1"]
    with (
        at_home(booted, tmp_path / "home"),
        project_on(booted, tmp_path, routed_mongod) as project,
    ):
        project.are_ready()
        try:
            yield project, host
        finally:
            for deployment in project.made:
                deployment.down(delete_data=True)


def test_node_is_an_enabled_unit_with_the_limits_that_mongodb_wants(
    on_systemd: tuple[Project, LabHost],
) -> None:
    project, host = on_systemd
    before = host.seen(DATA)
    deployment = project.deployment(project.loaded(**SINGLE))
    assert deployment.up().started == (NODE,)
    assert deployment.status().state == "running"
    assert host.run("systemctl", "is-active", UNIT).strip() == "active"
    assert host.run("systemctl", "is-enabled", UNIT).strip() in ("enabled", "linked")
    [pid] = _pids(host)
    # As its unit asks; this machine's own limit may be lower.
    asked = host.run("systemctl", "show", UNIT, "-p", "LimitNOFILE", "-p", "LimitNPROC", "-p", "LimitMEMLOCK")
    assert set(asked.split()) == {"LimitNOFILE=64000", "LimitNPROC=64000", "LimitMEMLOCK=infinity"}
    assert UNIT in host.run("cat", f"/proc/{pid}/cgroup")
    assert deployment.up().started == ()

    assert deployment.down(delete_data=True) == (NODE,)
    _close(deployment)
    assert before.changes(host.seen(DATA)) == []
    assert UNIT not in host.run("systemctl", "list-unit-files", "--no-legend")


def test_node_that_was_killed_is_started_again_by_systemd(on_systemd: tuple[Project, LabHost]) -> None:
    project, host = on_systemd
    deployment = project.deployment(project.loaded(**SINGLE))
    deployment.up()
    [before] = _pids(host)
    host.end("mongod --config|bin/.*/mongod")
    until("systemd to start it again", lambda: _pids(host) not in ([], [before]))
    until("it to be well", lambda: deployment.status().state == "running")


def test_node_comes_back_with_its_host(on_systemd: tuple[Project, LabHost]) -> None:
    project, host = on_systemd
    deployment = project.deployment(project.loaded(**SINGLE))
    deployment.up()
    host.stop()
    host.start()
    until("its unit to be active", lambda: "active" in _state(host).split())
    until("it to be well", lambda: deployment.status().state == "running")
    assert deployment.up().started == ()


def test_node_that_is_stopped_or_killed_on_request_stays_down(on_systemd: tuple[Project, LabHost]) -> None:
    project, host = on_systemd
    deployment = project.deployment(project.loaded(**SINGLE))
    node = deployment.topology.nodes[0]
    for end in (deployment.kill_node, deployment.stop_node):
        deployment.up()
        end(node)
        assert not deployment.backend.observe(node).running
        assert _state(host) in ("inactive", "failed")
        assert _pids(host) == []
    deployment.up()
    deployment.backend.pause(node, True)
    assert deployment.backend.is_paused(node)
    assert deployment.backend.release(node)


def test_node_that_cannot_start_is_explained_by_its_log_and_left_alone(
    on_systemd: tuple[Project, LabHost],
) -> None:
    project, host = on_systemd
    deployment = project.deployment(project.loaded(**SINGLE, set_parameter={"noSuchParameter": 1}))
    with pytest.raises(ProvisionError) as caught:
        deployment.up()
    assert "noSuchParameter" in caught.value.text()
    assert _state(host) in ("inactive", "failed")
    assert _pids(host) == []


@pytest.mark.needs("index")
def test_app_is_a_unit_too_that_is_started_again_and_comes_back_with_its_host(
    on_systemd: tuple[Project, LabHost], virtualenvs: Virtualenvs
) -> None:
    project, host = on_systemd
    shutil.copytree(ROOT / "flaskbook", project.root / "flaskbook")
    shutil.copy2(ROOT / "requirements.txt", project.root)
    loaded = project.loaded(**SINGLE, app_hosts=["db1"])
    virtualenvs.set_up(loaded, project.lab)
    project.deployment(loaded).up()
    rollout.deploy(loaded, "prod")
    unit = rollout.service("prod")
    assert host.run("systemctl", "is-active", unit).strip() == "active"
    assert host.get(APP_PORT, "/readyz")[0] == 200
    ports = [each for each in host_setup.check(loaded, "prod") if each.check == "ports"]
    assert [(each.level, each.what) for each in ports] == [(Level.OK, "ports 27300, 8000 are free or ours")]

    before = _main_pid(host, unit)
    host.run("systemctl", "kill", "--signal=KILL", unit)
    until("systemd to start it again", lambda: _main_pid(host, unit) not in ("0", before))
    until("it to be ready again", lambda: host.get(APP_PORT, "/readyz")[0] == 200)
    host.stop()
    host.start()
    until("it to come back with its host", lambda: host.get(APP_PORT, "/readyz")[0] == 200)

    assert rollout.undeploy(loaded, "prod") == ("db1",)
    assert host.get(APP_PORT, "/readyz")[0] == 0
    assert unit not in host.run("systemctl", "list-unit-files", "--no-legend")


def _state(host: LabHost) -> str:
    return host.run("systemctl", "show", UNIT, "-p", "ActiveState", "--value").strip()


def _main_pid(host: LabHost, unit: str) -> str:
    return host.run("systemctl", "show", unit, "-p", "MainPID", "--value").strip()


def _pids(host: LabHost) -> list[str]:
    """Of the host's mongods."""
    lines = host.run("ps", "-eo", "pid,comm", "--no-headers").splitlines()
    return [line.split()[0] for line in lines if line.split()[1] == "mongod"]


def _close(deployment: Deployment) -> None:
    deployment.backend.close()  # type: ignore[attr-defined]
