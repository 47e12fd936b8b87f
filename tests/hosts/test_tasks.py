"""`invoke hosts.…` and `invoke cluster.…` on hosts, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.hosts.conftest import Project
from tests.support.clones import Clone, make_clone

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def clone_on_hosts(project: Project, tmp_path: Path) -> Iterator[Clone]:
    """A clone whose invoke.yaml has the lab's hosts and a replica set on them."""
    folder = tmp_path / "work"
    folder.mkdir()
    made = make_clone(folder / "clone", str(project.mongod))
    settings = yaml.safe_load((made.root / "invoke.yaml").read_text())
    settings["hosts"] = project.hosts
    settings["deployments"]["prod"] = {
        "topology": "replica-set", "backend": "hosts", "hosts": list(project.hosts), "members": 3, "port": 27300
    }  # fmt: skip
    (made.root / "invoke.yaml").write_text(yaml.safe_dump(settings))
    (made.home / ".ssh").mkdir(mode=0o700)
    (made.home / ".ssh" / "known_hosts").write_text(project.lab.known_hosts)
    try:
        yield made
    finally:
        made.close()


def test_from_check_to_down(clone_on_hosts: Clone, project: Project) -> None:
    clone = clone_on_hosts
    found = json.loads(clone.succeeds("hosts.check", "--on", "prod", "--json"))
    assert {each["host"] for each in found} == {"db1", "db2", "db3"}
    assert "✗" not in clone.succeeds("hosts.check")

    planned = clone.succeeds("cluster.up", "--on", "prod", "--dry-run")
    assert planned == clone.succeeds("hosts.plan", "prod")
    assert all(host.address in planned for host in project.lab.hosts.values())
    assert all(list(host.srv.iterdir()) == [] for host in project.lab.hosts.values())
    assert "hosts.setup --on prod" in clone.fails("cluster.up", "--on", "prod")

    done = json.loads(clone.succeeds("hosts.setup", "--on", "prod", "--json"))
    assert all(each["changed"] for each in done["steps"])
    assert " changed" not in clone.succeeds("hosts.setup", "--on", "prod")

    uri = clone.succeeds("cluster.up", "--on", "prod").strip()
    assert uri.startswith("mongodb://10.77.")
    assert "tls=true" in uri
    status = json.loads(clone.succeeds("cluster.status", "--on", "prod", "--json"))
    assert status["state"] == "running"
    assert "member-3" in clone.succeeds("hosts.rotate-certificates", "prod")
    clone.succeeds("cluster.kill", "member-3", "--on", "prod")
    clone.succeeds("cluster.start", "member-3", "--on", "prod")

    clone.succeeds("cluster.down", "--on", "prod", "--delete-data", "--yes")
    assert all(host.processes("mongod") == [] for host in project.lab.hosts.values())


def test_check_ends_with_1_where_something_is_in_the_way(clone_on_hosts: Clone, project: Project) -> None:
    project.lab.hosts["db2"].stop()
    said = clone_on_hosts.fails("hosts.check", "--on", "prod")
    assert "Nodes could not run on db2" in said


def test_live_progress_shows_the_nodes_as_they_come_and_disturbs_none(
    clone_on_hosts: Clone, project: Project
) -> None:
    clone = clone_on_hosts
    project.are_ready()
    typed = "stty rows 50 cols 150; exec ./invoke cluster.up --on prod"
    shown = clone.begin(command=["script", "-qefc", typed, "/dev/null"])
    assert shown.ends() == 0, shown.text
    assert "PRIMARY" in shown.text
    assert "starting" in shown.text
    for host in project.lab.hosts.values():
        [log] = host.srv.glob("mongodb/prod/member-*.log")
        assert "only allow SSL connections" not in log.read_text()
    clone.succeeds("cluster.down", "--on", "prod", "--delete-data", "--yes")
