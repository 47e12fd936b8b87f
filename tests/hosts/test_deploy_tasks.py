"""`invoke hosts.deploy` and `invoke tunnel` with flaskbook, as a person types them."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
import yaml

from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.hosts.shop import without_index
from tests.hosts.virtualenvs import Virtualenvs
from tests.support.clones import Clone, make_clone

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("index")]


@pytest.fixture
def clone_on_a_host(sshd: str, tmp_path: Path, routed_mongod: Path) -> Iterator[tuple[Clone, Project]]:
    """A clone whose invoke.yaml has a replica set and flaskbook on one host, which reaches no package index."""
    with (
        hosts_of_their_own(sshd, ("db1",)) as hosts,
        at_home(hosts, tmp_path / "home"),
        project_on(hosts, tmp_path, routed_mongod) as project,
    ):
        without_index(hosts.hosts["db1"])
        folder = tmp_path / "work"
        folder.mkdir()
        made = make_clone(folder / "clone", str(project.mongod))
        settings = yaml.safe_load((made.root / "invoke.yaml").read_text())
        settings["hosts"] = project.hosts
        settings["deployments"]["prod"] = {
            "backend": "hosts",
            "hosts": ["db1"],
            "app_hosts": ["db1"],
            "port": 27300,
        }
        (made.root / "invoke.yaml").write_text(yaml.safe_dump(settings))
        (made.home / ".ssh").mkdir(mode=0o700)
        (made.home / ".ssh" / "known_hosts").write_text(hosts.known_hosts)
        try:
            yield made, project
        finally:
            made.close()


def test_flaskbook_from_setup_through_a_tunnel_to_down(
    clone_on_a_host: tuple[Clone, Project], virtualenvs: Virtualenvs
) -> None:
    clone, project = clone_on_a_host
    host = project.lab.hosts["db1"]
    assert "invoke cluster.up --on prod" in clone.fails("hosts.deploy", "--on", "prod")
    assert "virtualenv" in clone.succeeds("hosts.setup", "--on", "prod")
    virtualenvs.keep(host)
    clone.succeeds("cluster.up", "--on", "prod")

    assert "would change" in clone.succeeds("hosts.deploy", "--on", "prod", "--dry-run")
    assert json.loads(clone.succeeds("hosts.deploy", "--on", "prod", "--json"))["changed"] == ["db1"]
    assert " changed" not in clone.succeeds("hosts.deploy", "prod")

    held = clone.begin("tunnel", "--on", "prod", "--user", "root", "--json")
    opened = json.loads(held.says("}").splitlines()[0])
    with urllib.request.urlopen(f"{opened['app']}readyz") as answer:
        assert json.load(answer)["database"] == "writable"
    with urllib.request.urlopen(opened["app"]) as answer:
        assert b"flaskbook" in answer.read()
    with pymongo.MongoClient(opened["uri"]) as client:
        assert client.admin.command("hello")["isWritablePrimary"]
        assert client.flaskbook.health.find_one({"_id": "readyz"})
    held.signal_group(signal.SIGINT)
    assert held.ends() == 130
    assert "need none" in clone.fails("tunnel")

    clone.succeeds("cluster.down", "--on", "prod", "--delete-data", "--yes")
    assert "serve.py" not in host.run("ps", "-eo", "args")
    assert {path.name for path in (host.srv / "mongodb").iterdir()} == {"bin", "env"}
