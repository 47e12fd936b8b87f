"""What is decided about clusters without one: sizes, flags that hold, shard keys, timings, connection strings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext

from provision.backends.docker import Docker
from provision.cli import cluster as tasks
from provision.core.errors import ProvisionError
from provision.deployments import assembly, cluster, events
from provision.deployments.events import Event, Kind, Timing
from provision.mongodb.topology import Size
from provision.settings.loading import Layer, Loaded, load
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings
from provision.state import records, remembered
from provision.state.remembered import Extent, Flag, combine

ROOT = Path(__file__).resolve().parents[2]
SHARDED = DeploymentSettings(topology="sharded", shards=2, members=3, config_servers=3, routers=2, port=27100)
REPLICA_SET = DeploymentSettings(topology="replica-set", members=3)


def extent(settings: DeploymentSettings) -> Extent:
    found = Extent.of(settings)
    assert found is not None
    return found


def changed(settings: DeploymentSettings, **values: object) -> DeploymentSettings:
    return DeploymentSettings(**{**vars(settings), **values})  # type: ignore[arg-type]


def loaded(root: Path, **values: object) -> Loaded:
    layer = Layer("the test", {"deployments": {"some": {"topology": "sharded", **values}}})
    return load(root, [layer], {}, remembered=remembered.flags(root))


def paths(root: Path) -> Paths:
    return Paths.of(root, "data", "log", str(root / "cache"))


# Which nodes there are


def test_shards_are_counted_past_those_that_were_removed() -> None:
    assert Size(shards=3).shard_numbers == (1, 2, 3)
    assert Size(shards=3, removed_shards=(1, 3)).shard_numbers == (2, 4, 5)


def test_a_removed_shard_gives_its_name_and_ports_to_no_other() -> None:
    planned = assembly.plan("c", changed(SHARDED, removed_shards=[1]))
    assert [each.name for each in planned.replica_sets] == ["shard2", "shard3"]
    before = assembly.plan("c", changed(SHARDED, shards=3))
    assert planned.replica_sets[0] == before.replica_sets[1]


def test_what_was_never_up_is_what_the_settings_say() -> None:
    found = combine("c", SHARDED, None)
    assert (found.settings, found.notices, found.conflict) == (SHARDED, (), None)
    assert found.extent == extent(SHARDED)


def test_more_of_everything_is_added() -> None:
    wanted = changed(SHARDED, shards=3, members=5, arbiters=1, config_servers=5, routers=3)
    found = combine("c", wanted, extent(SHARDED))
    assert found.settings == wanted
    assert not found.notices


def test_what_is_not_asked_for_any_more_stays_and_is_named_with_the_command_that_removes_it() -> None:
    wanted = changed(SHARDED, shards=1, members=1, config_servers=1, routers=1)
    found = combine("c", wanted, extent(SHARDED))
    assert found.settings == SHARDED
    told = "\n".join(found.notices)
    assert "shard1 has 3 members, and the settings ask for 1" in told
    assert "shard2 has 3 members, and the settings ask for 1" in told
    assert "config has 3 members" in told
    assert "invoke cluster.remove-shard shard2 --on c" in told
    assert "invoke cluster.remove-router router-2 --on c" in told
    assert "remove-shard shard1" not in told


def test_one_thing_may_grow_while_another_is_to_shrink() -> None:
    found = combine("c", changed(SHARDED, shards=4, routers=1), extent(SHARDED))
    assert (found.settings.shards, found.settings.routers) == (4, 2)


def test_no_member_is_added_behind_an_arbiter() -> None:
    with_arbiter = changed(REPLICA_SET, members=2, arbiters=1)
    found = combine("r", changed(with_arbiter, members=4), extent(with_arbiter))
    assert found.settings == with_arbiter
    assert "rs0 has an arbiter" in found.notices[0]


@pytest.mark.parametrize(
    "wanted",
    [changed(SHARDED, backend="docker"), changed(SHARDED, port=28000), REPLICA_SET, DeploymentSettings()],
)
def test_another_kind_place_or_port_is_a_conflict_and_what_is_there_stays_known(
    wanted: DeploymentSettings,
) -> None:
    found = combine("c", wanted, extent(SHARDED))
    assert found.conflict is not None
    assert "invoke cluster.down --delete-data --on c" in found.conflict.remedy
    assert assembly.plan("c", found.settings) == assembly.plan("c", SHARDED)


def test_an_extent_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    reached = extent(changed(SHARDED, removed_shards=[2]))
    Extent.record(paths(tmp_path), "c", reached)
    assert Extent.recorded(paths(tmp_path), "c") == reached
    assert extent(reached.applied_to(DeploymentSettings())) == reached


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    file = paths(tmp_path).extent_record("c")
    file.parent.mkdir(parents=True)
    file.write_text('{"shards": [1]}')
    assert Extent.recorded(paths(tmp_path), "c") is None


# Flags that hold


def test_a_flag_holds_for_later_commands_and_says_where_it_came_from(tmp_path: Path) -> None:
    remembered.remember(paths(tmp_path), "some", {"shards": Flag(3, "cluster.up --shards 3")})
    found = loaded(tmp_path, shards=2)
    assert found.deployment("some").shards == 3
    assert found.origins["deployments", "some", "shards"] == "an earlier cluster.up --shards 3"


def test_a_new_flag_takes_the_place_of_the_same_and_leaves_the_others(tmp_path: Path) -> None:
    where = paths(tmp_path)
    remembered.remember(where, "some", {"shards": Flag(3, "a"), "members": Flag(1, "a")})
    remembered.remember(where, "some", {"shards": Flag(4, "b")})
    found = loaded(tmp_path).deployment("some")
    assert (found.shards, found.members) == (4, 1)


def test_flags_of_a_failed_command_are_taken_back(tmp_path: Path) -> None:
    where = paths(tmp_path)
    before = remembered.remember(where, "some", {"shards": Flag(3, "a")})
    remembered.restore(where, "some", before)
    assert not remembered.flags(tmp_path)


def test_forgetting_leaves_the_settings_alone(tmp_path: Path) -> None:
    where = paths(tmp_path)
    remembered.remember(where, "some", {"shards": Flag(3, "a")})
    records.forget(where, "some")
    assert loaded(tmp_path, shards=2).deployment("some").shards == 2


def test_flags_of_a_deployment_that_the_settings_no_longer_have_are_left_out(tmp_path: Path) -> None:
    remembered.remember(paths(tmp_path), "gone", {"shards": Flag(3, "a")})
    assert "gone" not in loaded(tmp_path).settings.deployments


def test_a_variable_or_flag_for_one_default_deployment_leaves_the_other(tmp_path: Path) -> None:
    found = load(tmp_path, [], {"INVOKE_DEPLOYMENTS_LOCAL_PORT": "28017"})
    assert found.deployment("cluster").shards == 2
    assert found.deployment("local").port == 28017


# The command line


def parsed(*arguments: str) -> dict[str, object]:
    contexts = tasks.namespace.to_contexts()
    found = Parser(initial=ParserContext(), contexts=contexts).parse_argv(list(arguments))
    return {name: argument.value for name, argument in found[-1].args.items()}


def test_an_optional_word_may_be_given_and_left_out() -> None:
    assert parsed("distribution", "flaskbook.user")["collection"] == "flaskbook.user"
    assert parsed("distribution")["collection"] is None
    assert parsed("shell", "--on", "sh", "shard1-1")["node"] == "shard1-1"
    assert parsed("logs", "--all")["node"] is None


def test_a_word_that_is_needed_is_asked_for() -> None:
    with pytest.raises(ParseError, match="'node'"):
        parsed("stop")


def test_a_word_too_many_is_an_error() -> None:
    with pytest.raises(ParseError, match="shard2-1"):
        parsed("shell", "shard1-1", "shard2-1")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("_id:hashed", {"_id": "hashed"}),
        ("country:1,_id:1", {"country": 1, "_id": 1}),
        ("name.last_name", {"name.last_name": 1}),
        (" a : 1 , b : hashed ", {"a": 1, "b": "hashed"}),
    ],
)
def test_a_shard_key_is_read(text: str, key: dict[str, object]) -> None:
    assert cluster.parse_key(text) == key


@pytest.mark.parametrize("text", ["", "a:2", "a:-1", "$a:1", "a:1,a:1", "a:1,", "a b:1", ":1"])
def test_what_is_no_shard_key_is_refused(text: str) -> None:
    with pytest.raises(ProvisionError, match="--key"):
        cluster.parse_key(text)


def test_no_container_reaches_nodes_that_are_processes(tmp_path: Path) -> None:
    deployment = assembly.deployment(loaded(tmp_path), "some")
    with pytest.raises(ProvisionError, match="loopback"):
        cluster.uri(deployment, "", "container", "", "")


def test_a_connection_string_to_one_node_is_direct(tmp_path: Path) -> None:
    deployment = assembly.deployment(loaded(tmp_path, port=28000), "some")
    assert cluster.uri(deployment, "", "host", "", "") == "mongodb://127.0.0.1:28000/"
    assert (
        cluster.uri(deployment, "db", "direct", "shard1-2", "")
        == "mongodb://127.0.0.1:28051/db?directConnection=true"
    )


@pytest.mark.parametrize(("audience", "user"), [("moon", ""), ("host", "admin")])
def test_unknown_audiences_and_users_are_refused(tmp_path: Path, audience: str, user: str) -> None:
    with pytest.raises(ProvisionError, match="not known"):
        cluster.uri(assembly.deployment(loaded(tmp_path), "some"), "", audience, "", user)


# What took how long


def test_the_critical_path_is_what_the_whole_waited_for() -> None:
    timings = [
        Timing(Event(Kind.HAS_PRIMARY, "shard1"), 0.4),
        Timing(Event(Kind.HAS_PRIMARY, "config"), 0.6),
        Timing(Event(Kind.LISTENS, "router-1"), 0.7),
        Timing(Event(Kind.HAS_PRIMARY, "shard2"), 0.9),
        Timing(Event(Kind.ADDED, "shard1"), 0.8),
        Timing(Event(Kind.ADDED, "shard2"), 1.0),
        Timing(Event(Kind.WRITABLE_THROUGH_ROUTER), 1.1),
        Timing(Event(Kind.MEMBERS_HEALTHY, "shard1"), 2.0),
        Timing(Event(Kind.MEMBERS_HEALTHY, "shard2"), 1.5),
        Timing(Event(Kind.HEALTHY), 2.1),
    ]
    assert [each.event.text for each in events.critical_path(timings)] == [
        "shard1 has a primary",
        "all members of shard1 are healthy",
        "every member is healthy",
    ]
    until_writable = [each for each in timings if "healthy" not in each.event.text]
    assert [each.event.text for each in events.critical_path(until_writable)] == [
        "shard2 has a primary",
        "shard2 is added",
        "majority write acknowledged through the router",
    ]


def test_nothing_reached_has_no_critical_path() -> None:
    assert events.critical_path([]) == []


# compose.yaml


def test_the_compose_file_is_what_its_template_and_the_settings_give(tmp_path: Path) -> None:
    """To mend it: ./invoke render --compose > compose.yaml"""
    values = yaml.safe_load((ROOT / "invoke.yaml").read_text(encoding="utf-8"))
    given = load(ROOT, [Layer("invoke.yaml", values)], {}, remember=False)
    settings = given.deployment("cluster")
    backend = assembly.backend(given, assembly.plan("cluster", settings), settings)
    assert isinstance(backend, Docker)
    assert (ROOT / "compose.yaml").read_text(encoding="utf-8") == backend.render_compose()
