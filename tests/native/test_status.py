"""`invoke status`, `uri` and `logs`, with a real mongod. The JSON's shape is documented in docs/status.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clones import ROOT, Clone, cloned
from tests.unit.test_status_shape import check_shape


@pytest.fixture(scope="module")
def clone_that_runs(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[Clone]:
    with cloned(tmp_path_factory.mktemp("runs"), str(mongod_binary)) as made:
        yield made


@pytest.fixture
def running(clone_that_runs: Clone) -> Clone:
    """A clone whose deployment runs, for all tests that only look at it."""
    clone_that_runs.start()
    return clone_that_runs


def test_the_json_of_a_stopped_and_of_a_running_deployment_has_the_documented_shape(
    clone: Clone, mongod_version: str
) -> None:
    stopped = json.loads(clone.succeeds("status", "--json"))
    check_shape(stopped)
    assert (stopped["deployment"], stopped["state"], stopped["version"]) == ("local", "stopped", None)
    assert stopped["uri"] == clone.uri
    node = stopped["nodes"][0]
    assert (node["name"], node["role"], node["state"], node["pid"], node["port"]) == (
        "mongod",
        "member",
        "DOWN",
        None,
        clone.port,
    )

    clone.start()
    running = json.loads(clone.succeeds("status", "--json"))
    check_shape(running)
    assert (running["state"], running["version"]) == ("running", mongod_version)
    assert running["nodes"][0]["state"] == "PRIMARY"
    assert running["nodes"][0]["pid"] == clone.mongods()[0].pid


def test_status_changes_nothing_in_a_bare_clone(clone: Clone) -> None:
    before = {path for path in clone.root.rglob("*") if clone.root / "env" not in path.parents}
    clone.succeeds("status", "--json")
    assert {path for path in clone.root.rglob("*") if clone.root / "env" not in path.parents} == before


def test_the_table_shows_what_the_json_says(running: Clone) -> None:
    table = running.succeeds("status")
    found = running.status()
    assert table.startswith(f"local: running, MongoDB {found['version']}\n")
    assert found["uri"] in table
    node = found["nodes"][0]
    assert re.search(rf"mongod +member +.*PRIMARY +.*{node['pid']} +{node['port']}", table)
    assert "\x1b" not in table


def test_an_error_is_json_for_those_who_asked_for_json(clone: Clone) -> None:
    done = clone.invoke("status", "--json", "--on", "nowhere")
    assert done.returncode == 1
    assert set(json.loads(done.stdout)["error"]) == {"doing", "cause", "remedy", "log"}


def test_the_uri_is_printed_with_or_without_a_database(clone: Clone) -> None:
    assert clone.succeeds("uri").strip() == clone.uri
    with_database = f"mongodb://127.0.0.1:{clone.port}/shop?replicaSet=rs0"
    assert clone.succeeds("uri", "--database", "shop").strip() == with_database


def test_logs_are_readable_lines_and_raw_ones_are_mongodbs_own(running: Clone) -> None:
    clone = running
    readable = clone.succeeds("logs", "--lines", "400")
    assert "Waiting for connections" in readable
    assert not any(line.startswith("{") for line in readable.splitlines())
    raw = clone.succeeds("logs", "--raw", "--lines", "5").splitlines()
    assert len(raw) == 5
    assert all(json.loads(line)["t"]["$date"] for line in raw)
    assert raw[-1] in Path(clone.log).read_text(encoding="utf-8")


def test_the_documented_example_has_the_documented_shape() -> None:
    text = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
    examples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        check_shape(json.loads(example))
