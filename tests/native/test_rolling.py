"""`cluster.restart --rolling` and `cluster.upgrade` over processes: writes go on, and none is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from provision.deployments.status import NodeStatus
from provision.state import remembered
from tests.support.clones import Clone, cloned
from tests.support.load import writing
from tests.support.processes import free_ports
from tests.support.router_standin.install import beside

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Clone]:
    """A clone with a replica set `rs` of three members and a small sharded cluster `sh`; neither runs."""
    folder = tmp_path_factory.mktemp("rolling")
    first = free_ports(250)
    rs = {"topology": "replica-set", "port": first}
    sh = {
        "topology": "sharded",
        "port": first + 50,
        "members": 1,
        "shards": 2,
        "config_servers": 1,
        "auth": True,
    }
    mongod = beside(mongod_binary, mongod_version, folder / "bin")
    with cloned(folder, str(mongod), {"rs": rs, "sh": sh}) as made:
        yield made


@pytest.fixture
def rs(shared: Clone) -> Clone:
    """The clone, with every member of `rs` well."""
    if states(shared, "rs") != ["PRIMARY", "SECONDARY", "SECONDARY"]:
        shared.succeeds("cluster.up", "--on", "rs")
    return shared


@pytest.fixture
def sh(shared: Clone) -> Clone:
    """The clone, where nothing runs."""
    for name in ("rs", "sh"):
        deployment = shared.deployment(name)
        for node in deployment.topology.nodes:
            deployment.backend.kill(node)
    return shared


def nodes(clone: Clone, on: str) -> dict[str, NodeStatus]:
    return {node.name: node for node in clone.deployment(on).status().nodes}


def states(clone: Clone, on: str) -> list[str]:
    return sorted(node.state for node in nodes(clone, on).values())


def pids(clone: Clone, on: str) -> dict[str, int | None]:
    return {name: node.pid for name, node in nodes(clone, on).items()}


def primary(clone: Clone) -> str:
    return next(name for name, node in nodes(clone, "rs").items() if node.state == "PRIMARY")


def test_a_set_is_restarted_with_new_settings_while_writes_go_on_and_none_is_lost(rs: Clone) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["deployments"]["rs"]["set_parameter"] = {"ttlMonitorEnabled": False}

    before, led = pids(rs, "rs"), primary(rs)
    rs.change_settings(change)
    with writing(rs.deployment("rs").uri(), dense=True) as load:
        done = json.loads(rs.succeeds("cluster.restart", "--rolling", "--on", "rs", "--json"))
    assert sorted(done["restarted"]) == ["member-1", "member-2", "member-3"]
    assert done["restarted"][-1] == led
    assert [each["former"] for each in done["handed_over"]] == [led]
    after = pids(rs, "rs")
    assert all(after[name] != before[name] for name in before)
    assert load.lost() == set()
    for name in before:
        with MongoClient[dict[str, Any]](
            rs.deployment("rs").uri(direct=rs.deployment("rs").node(name))
        ) as client:
            assert client.admin.command("getParameter", ttlMonitorEnabled=1)["ttlMonitorEnabled"] is False


def test_one_node_is_restarted_and_the_others_are_left_alone(rs: Clone) -> None:
    before = pids(rs, "rs")
    told = rs.invoke("cluster.restart", "member-2", "--rolling", "--on", "rs")
    assert told.stdout == "rs: restarted member-2\n"
    assert "member-2: is back" in told.stderr
    after = pids(rs, "rs")
    assert {name for name in before if before[name] != after[name]} == {"member-2"}


def test_one_that_was_killed_in_the_middle_goes_on_when_it_is_typed_again(rs: Clone) -> None:
    before = pids(rs, "rs")
    with writing(rs.deployment("rs").uri()) as load:
        running = rs.begin("cluster.restart", "--rolling", "--on", "rs")
        running.says(": restarting")
        running.signal_group(signal.SIGKILL)
        running.ends()
        told = rs.invoke("cluster.restart", "--rolling", "--on", "rs")
    assert told.returncode == 0, told.stderr
    assert "it was in hand when an earlier attempt was interrupted" in told.stderr
    after = pids(rs, "rs")
    assert all(after[name] not in (None, before[name]) for name in before)
    assert states(rs, "rs") == ["PRIMARY", "SECONDARY", "SECONDARY"]
    assert load.lost() == set()
    assert "in hand" not in rs.invoke("cluster.restart", "member-1", "--rolling", "--on", "rs").stderr


def test_a_member_that_does_not_come_back_is_named_and_the_others_serve_on(rs: Clone) -> None:
    led = primary(rs)

    def change(value: dict[str, Any]) -> Any:
        return lambda settings: settings["deployments"]["rs"].__setitem__("set_parameter", value)

    rs.change_settings(change({"noSuchParameter": 1}))
    with writing(rs.deployment("rs").uri()) as load:
        said = rs.fails("cluster.restart", "--rolling", "--on", "rs")
    assert "noSuchParameter" in said
    assert "invoke cluster.restart --rolling --on rs" in said
    down = [name for name, node in nodes(rs, "rs").items() if node.state == "DOWN"]
    assert len(down) == 1
    assert down != [led]
    assert f"It goes on with {down[0]}" in said
    rs.change_settings(change({}))
    done = json.loads(rs.succeeds("cluster.restart", "--rolling", "--on", "rs", "--json"))
    assert done["restarted"][0] == down[0]
    assert len(done["restarted"]) == 3
    assert load.lost() == set()


def test_no_node_is_restarted_unless_one_is_named_or_all_are_meant(rs: Clone) -> None:
    assert "add --rolling" in rs.fails("cluster.restart", "--on", "rs")
    assert "Its nodes are" in rs.fails("cluster.restart", "member-9", "--rolling", "--on", "rs")


# Another version


def test_the_version_that_runs_is_unchanged(rs: Clone, mongod_version: str) -> None:
    before = pids(rs, "rs")
    done = json.loads(
        rs.succeeds("cluster.upgrade", "--to", rs.environment["INVOKE_MONGODB_PATH"], "--on", "rs", "--json")
    )
    assert (done["restarted"], done["version"], done["raised"]) == ([], mongod_version, False)
    assert "unchanged" in rs.succeeds("cluster.upgrade", "--feature-compatibility", "--on", "rs")
    assert "You named no version" in rs.fails("cluster.upgrade", "--on", "rs")
    assert pids(rs, "rs") == before
    listed = rs.succeeds("settings", "--key", "deployments.rs.mongod")
    assert "cluster.upgrade" not in listed
    assert "earlier" not in listed


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("/no/such/mongod", "there is no such file"),
        ("99.0.0", "not 99.0.0"),
        ("8", "neither a whole version nor a path"),
    ],
)
def test_a_version_that_cannot_be_had_changes_nothing(rs: Clone, to: str, told: str) -> None:
    before = pids(rs, "rs")
    assert told in rs.fails("cluster.upgrade", "--to", to, "--on", "rs")
    assert pids(rs, "rs") == before
    assert ("deployments", "rs", "mongod") not in remembered.flags(rs.root)


# What leaves less of `rs` than the others need


def test_a_set_that_is_not_whole_is_left_alone(rs: Clone) -> None:
    rs.succeeds("cluster.kill", "member-3", "--on", "rs")
    before = pids(rs, "rs")
    said = rs.fails("cluster.restart", "--rolling", "--on", "rs")
    assert "member-3 is DOWN" in said
    assert "invoke cluster.up --on rs" in said
    assert pids(rs, "rs") == before
    assert "is not whole" in rs.fails("cluster.upgrade", "--feature-compatibility", "--on", "rs")


def test_what_would_be_unavailable_for_a_moment_is_told_and_wants_agreement(sh: Clone) -> None:
    assert "is not running" in sh.fails("cluster.restart", "--rolling", "--on", "sh")
    sh.succeeds("cluster.up", "--on", "sh")
    before = pids(sh, "sh")
    said = sh.fails("cluster.restart", "--rolling", "--on", "sh")
    for told in ("config has one member", "shard1 has one member", "router-1 is the only router", "--yes"):
        assert told in said
    assert pids(sh, "sh") == before
    with writing(sh.deployment("sh").uri(user="app")) as load:
        done = json.loads(sh.succeeds("cluster.restart", "--rolling", "--yes", "--on", "sh", "--json"))
    assert done["restarted"] == ["config-1", "shard1-1", "shard2-1", "router-1"]
    assert load.lost() == set()
    assert set(states(sh, "sh")) == {"PRIMARY", "ROUTER"}
