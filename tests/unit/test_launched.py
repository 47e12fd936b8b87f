"""What runs, beside what the settings ask for: which change a restart applies, and which the data can't follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.deployments import assembly, launched
from provision.deployments.launched import Launched
from provision.settings.loading import Layer, load
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings
from provision.state.remembered import Extent, There, combine

LOCAL = DeploymentSettings()
NODE = Launched("mongod 8.0.17", {"cache_size_gb": 0.25, "set_parameter": {}}, "/data", "/log", "1")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (replace(LOCAL, port=28022), "local runs with port 27017, and the settings ask for port 28022"),
        (replace(LOCAL, auth=True), "local runs with auth false, and the settings ask for auth true"),
        (replace(LOCAL, replica_set=None), "replica_set rs0, and the settings ask for replica_set null"),
    ],
)
def test_what_a_restart_applies_is_named_while_it_runs_and_done_when_it_is_stopped(
    asked: DeploymentSettings, said: str
) -> None:
    present = Extent.of(LOCAL)
    running = combine("local", asked, present, There.RUNNING)
    assert running.conflict is not None
    assert said in running.conflict.cause
    assert "invoke restart --on local" in running.conflict.remedy
    assert Extent.of(running.settings) == present
    assert running.restart
    stopped = combine("local", asked, present, There.DATA)
    assert stopped.conflict is None
    assert stopped.settings == asked
    assert stopped.extent == Extent.of(asked)


@pytest.mark.parametrize("there", [There.DATA, There.RUNNING])
@pytest.mark.parametrize(
    ("present", "changes"),
    [
        (LOCAL, {"topology": "replica-set"}),
        (LOCAL, {"backend": "docker"}),
        (LOCAL, {"replica_set": "other"}),
        (replace(LOCAL, topology="replica-set"), {"port": 28000}),
        (replace(LOCAL, topology="replica-set"), {"replica_set": "other"}),
        (replace(LOCAL, topology="sharded"), {"topology": "single"}),
    ],
)
def test_what_data_cannot_follow_is_refused_with_the_ways_there_are(
    present: DeploymentSettings, changes: dict[str, object], there: There
) -> None:
    found = combine("local", replace(present, **changes), Extent.of(present), there)  # type: ignore[arg-type]
    assert found.conflict is not None
    assert not found.restart
    assert "untouched" in found.conflict.cause
    assert found.conflict.remedy.startswith("Keep it as it is: set ")
    assert "invoke cluster.down --delete-data --on local" in found.conflict.remedy
    assert found.extent == Extent.of(present)


def test_where_no_data_are_left_anything_may_be_asked_for() -> None:
    asked = replace(LOCAL, topology="replica-set", backend="docker", port=28000)
    found = combine("local", asked, Extent.of(LOCAL), There.NOTHING)
    assert (found.conflict, found.settings) == (None, asked)


def test_a_variable_that_asks_for_a_change_is_part_of_the_command_that_applies_it() -> None:
    origins = {"port": "environment INVOKE_DEPLOYMENTS_LOCAL_PORT"}
    found = combine("local", replace(LOCAL, port=28022), Extent.of(LOCAL), There.RUNNING, origins)
    assert found.conflict is not None
    assert "INVOKE_DEPLOYMENTS_LOCAL_PORT=28022 invoke restart --on local" in found.conflict.remedy


def test_a_record_of_an_older_version_makes_no_difference_of_what_it_does_not_know() -> None:
    old = Extent("sharded", "docker", 27100, 3, 0, 3, 1, (1, 2))
    asked = replace(
        LOCAL, topology="sharded", backend="docker", port=27100, config_servers=3, shards=2, auth=False
    )
    assert old.changes(Extent.of(asked)) == ()
    assert combine("c", asked, old).settings == asked


def test_what_a_node_was_launched_with_is_compared_value_by_value() -> None:
    asked = replace(NODE, program="mongod 8.0.18", options={"cache_size_gb": 1, "set_parameter": {"x": True}})
    assert NODE.differences(NODE) == []
    assert NODE.differences(asked) == [
        "mongod 8.0.17, and the settings ask for mongod 8.0.18",
        "cache_size_gb 0.25, and the settings ask for 1",
        "set_parameter.x null, and the settings ask for true",
    ]
    assert NODE.differences(replace(NODE, program="")) == []
    assert "mongod.conf.j2" in NODE.differences(replace(NODE, template="2"))[0]


@pytest.mark.parametrize(
    ("before", "program", "names", "command"),
    [
        ("mongod 8.0.17", "mongod 8.0.18", ["mongod"], "invoke restart --on c"),
        ("mongod 8.0.17", "mongod 8.0.18", ["a", "b"], "invoke cluster.restart --rolling --on c"),
        ("mongod 8.0.17", "mongod 9.0.1", ["mongod"], "invoke cluster.upgrade --to 9.0.1 --on c --yes"),
        ("mongod 8.0.17", "mongod 9.0.1", ["a", "b"], "invoke cluster.upgrade --to 9.0.1 --on c"),
        ("mongo:8.0", "mongo:8.0.17", ["mongod"], "invoke restart --on c"),
        ("mongo:8.0", "mongo:8.0.17", ["a", "b"], "invoke cluster.restart --rolling --on c"),
    ],
)
def test_the_command_that_applies_a_difference_fits_it(
    before: str, program: str, names: list[str], command: str
) -> None:
    present = dict.fromkeys(names, replace(NODE, program=before))
    asked = dict.fromkeys(names, replace(NODE, program=program))
    (said,) = launched.notices("c", names, present, asked)
    assert f"`{command}`" in said
    assert launched.notices("c", [], present, asked) == []


def test_nodes_that_differ_are_named_where_others_do_not() -> None:
    present = {"a": NODE, "b": replace(NODE, options={"cache_size_gb": 1, "set_parameter": {}})}
    (said,) = launched.notices("c", ["a", "b"], present, dict.fromkeys("ab", NODE))
    assert "cache_size_gb 1, and the settings ask for 0.25 (b)" in said


def test_records_are_read_as_they_were_written_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", str(tmp_path / "cache"))
    launched.record(paths, "c", {"a": NODE})
    launched.record(paths, "c", {"b": NODE})
    assert launched.recorded(paths, "c") == {"a": NODE, "b": NODE}
    paths.launched_record("c").write_text('{"a": {"program": "x"}, "b": 1}')
    assert launched.recorded(paths, "c") == {}


def test_sharding_of_what_is_not_sharded_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    sharding = {"flaskbook": {"user": {"key": {"_id": "hashed"}}}}
    values = {"deployments": {"c": {"topology": "replica-set", "sharding": sharding}}}
    loaded = load(tmp_path, [Layer("the test", values)], {}, remember=False)
    (tmp_path / "mongod.conf.j2").write_text("")
    deployment = assembly.deployment(loaded, "c")
    assert deployment.collections == ()
    assert deployment.kept == ("c is a replica set: deployments.c.sharding is left out.",)
