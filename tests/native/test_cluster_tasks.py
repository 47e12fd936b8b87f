"""The tasks over a replica set and a sharded cluster of processes. Where there is no mongos, the router stand-in serves."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from provision.core.locks import exclusive
from provision.settings.paths import Paths
from provision.state.process_identity import identity_of
from tests.support.clones import Clone, cloned
from tests.support.polling import until
from tests.support.processes import free_ports
from tests.support.router_standin.install import beside

pytestmark = pytest.mark.timeout(300)
SHARDING = {"flaskbook": {"user": {"key": {"_id": "hashed"}}}}


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Clone]:
    """A clone with the deployments of all tests: each goes on with what the one before has left, where that serves."""
    folder = tmp_path_factory.mktemp("shared")
    first = free_ports(350)
    rs = {"topology": "replica-set", "port": first}
    sh = {
        "topology": "sharded",
        "port": first + 100,
        "members": 1,
        "shards": 2,
        "auth": True,
        "sharding": SHARDING,
    }
    mongod = beside(mongod_binary, mongod_version, folder / "bin")
    with cloned(folder, str(mongod), {"rs": rs, "sh": sh}) as made:
        yield made


def sized(shared: Clone, members: int) -> Clone:
    """Have so many members of `rs`, and all well: grown where there are fewer, anew where there are more."""
    if len(folders(shared, "rs")) > members:
        forget(shared, "rs")
    if len(folders(shared, "rs")) != members or not well(shared, "rs"):
        shared.succeeds("cluster.up", "--on", "rs", "--members", str(members))
    return shared


@pytest.fixture
def one_member(shared: Clone) -> Clone:
    """The shared clone, with one member of `rs`, which is well."""
    return sized(shared, 1)


@pytest.fixture
def two_members(shared: Clone) -> Clone:
    """The shared clone, with two members of `rs`, which are well."""
    return sized(shared, 2)


@pytest.fixture
def rs(shared: Clone) -> Clone:
    """The shared clone, with three members of `rs`, which are well."""
    return sized(shared, 3)


@pytest.fixture
def no_third_member(shared: Clone) -> Clone:
    """The shared clone, with two members of `rs` at most."""
    if len(folders(shared, "rs")) > 2:
        forget(shared, "rs")
    return shared


@pytest.fixture
def no_rs(shared: Clone) -> Clone:
    """The shared clone, with nothing of `rs`."""
    if folders(shared, "rs"):
        forget(shared, "rs")
    return shared


@pytest.fixture
def no_sh(shared: Clone) -> Clone:
    """The shared clone, with nothing of `sh`."""
    if folders(shared, "sh"):
        forget(shared, "sh")
    return shared


@pytest.fixture
def sh(shared: Clone) -> Clone:
    """The shared clone, with every node of `sh` well and nobody in the database."""
    if folders(shared, "sh", "shard") - {"shard1-1", "shard2-1"}:
        forget(shared, "sh")  # another test has left another shard, or another member
    if not well(shared, "sh"):
        shared.succeeds("cluster.up", "--on", "sh")
    empty(shared)
    return shared


@pytest.fixture
def two_shards(shared: Clone) -> Clone:
    """The shared clone, with nothing of `sh`, or two shards of one member each, whatever their numbers are."""
    found = folders(shared, "sh", "shard")
    if found and sorted(name[-2:] for name in found) != ["-1", "-1"]:
        forget(shared, "sh")
    return shared


def folders(clone: Clone, on: str, prefix: str = "") -> set[str]:
    """Its nodes that have data."""
    return {path.name for path in (clone.root / "data" / on).glob(f"{prefix or '[!.]'}*")}


def empty(clone: Clone) -> None:
    """Delete the people of `sh`."""
    with MongoClient[dict[str, Any]](clone.deployment("sh").uri(user="app")) as client:
        client.flaskbook.user.delete_many({})


def forget(clone: Clone, on: str) -> None:
    """Delete its data, and what flags have settled."""
    clone.succeeds("cluster.down", "--on", on, "--delete-data", "--yes")


def well(team: Clone, on: str) -> bool:
    """Whether each of its nodes does its work."""
    return {node.state for node in team.deployment(on).status().nodes} <= {"PRIMARY", "SECONDARY", "ROUTER"}


def told(clone: Clone, on: str) -> dict[str, str]:
    """Node → state, by the command."""
    found = json.loads(clone.succeeds("cluster.status", "--on", on, "--json"))
    return {node["name"]: node["state"] for node in found["nodes"]}


def states(clone: Clone, on: str) -> dict[str, str]:
    """The same without a command."""
    return {node["name"]: node["state"] for node in clone.status(on=on)["nodes"]}


def members(uri: str) -> set[str]:
    """The members that the replica set itself has."""
    with MongoClient[dict[str, Any]](uri) as client:
        config = client.admin.command("replSetGetConfig")["config"]
    return {member["host"] for member in config["members"]}


def counted_on_shards(team: Clone, shards: list[str]) -> dict[str, int]:
    """Documents of flaskbook.user, asked of each shard itself."""
    counts = {}
    deployment = team.deployment("sh")
    for shard in shards:
        uri = deployment.uri(user="root", direct=deployment.node(f"{shard}-1"))
        with MongoClient[dict[str, Any]](uri) as client:
            counts[shard] = client.flaskbook.user.count_documents({})
    return counts


def test_a_flag_that_is_refused_is_forgotten_and_changes_nothing(one_member: Clone) -> None:
    assert (
        "--members none: it takes a whole number"
        in one_member.invoke("cluster.up", "--on", "rs", "--members", "none").stderr
    )
    assert "flag --members: deployments.rs.members: 51 is not allowed" in one_member.fails(
        "cluster.up", "--on", "rs", "--members", "51"
    )
    assert "invoke cluster.down --delete-data --on rs" in one_member.fails(
        "cluster.up", "--on", "rs", "--port", "29999"
    )
    assert states(one_member, "rs") == {"member-1": "PRIMARY"}
    assert "29999" not in one_member.succeeds("settings", "--key", "deployments.rs.port")


def test_the_tour_is_taken_on_a_replica_set(one_member: Clone) -> None:
    stages = json.loads(one_member.succeeds("tour", "--on", "rs", "--json"))
    assert [each["number"] for each in stages] == list(range(1, 11))
    assert "IXSCAN" in json.dumps(stages[5]["result"])


def test_members_are_added_and_fewer_are_named_and_left(one_member: Clone) -> None:
    one_member.succeeds("cluster.up", "--on", "rs", "--members", "2")
    uri = one_member.succeeds("uri", "--on", "rs").strip()
    assert json.loads(one_member.succeeds("uri", "--on", "rs", "--json")) == {"deployment": "rs", "uri": uri}
    assert len(members(uri)) == 2
    done = one_member.invoke("cluster.up", "--on", "rs", "--members", "1")
    assert done.returncode == 0
    assert "rs0 has 2 members, and the settings ask for 1" in done.stderr
    assert told(one_member, "rs").keys() == {"member-1", "member-2"}


def test_logs_of_all_nodes_are_merged_by_time(two_members: Clone) -> None:
    # Of several connections at once, a mongod itself may write lines in another order than that of their times.
    deployment = two_members.deployment("rs")
    for node in deployment.topology.nodes * 20:
        with deployment.dial(node) as connection:
            connection.command("admin", {"ping": 1})
    lines = two_members.succeeds("cluster.logs", "--all", "--lines", "30", "--on", "rs").splitlines()
    assert {line.split()[0] for line in lines} == {"member-1", "member-2"}
    times = [line.split()[1:3] for line in lines]
    assert times == sorted(times)
    assert "--all" in two_members.fails("cluster.logs", "--on", "rs")


def test_flags_hold_for_later_commands_until_the_data_are_deleted(no_third_member: Clone) -> None:
    clone = no_third_member
    clone.succeeds("cluster.up", "--on", "rs", "--members", "2")
    assert set(told(clone, "rs")) == {"member-1", "member-2"}
    listed = clone.succeeds("settings", "--key", "deployments.rs.members")
    assert "an earlier cluster.up --members 2" in listed
    clone.succeeds("cluster.down", "--on", "rs")
    assert told(clone, "rs") == {"member-1": "DOWN", "member-2": "DOWN"}
    assert "standard input is not a terminal" in clone.fails("cluster.down", "--on", "rs", "--delete-data")
    clone.succeeds("cluster.down", "--on", "rs", "--delete-data", "--yes")
    assert len(states(clone, "rs")) == 3


def test_up_until_writable_finishes_in_the_background_before_anybody_else_may_begin(no_rs: Clone) -> None:
    done = json.loads(no_rs.succeeds("cluster.up", "--on", "rs", "--wait", "writable", "--json"))
    assert [each["what"] for each in done["timings"]][-1] == "majority write acknowledged"
    again = json.loads(no_rs.succeeds("cluster.up", "--on", "rs", "--json"))
    assert again["started"] == []
    assert len(members(no_rs.deployment("rs").uri())) == 3
    log = no_rs.root / ".state" / "deployments" / "rs" / "up.log"
    assert "all members of rs0 are healthy" in log.read_text()


def test_a_primary_that_is_stopped_hands_over_first(rs: Clone) -> None:
    said = rs.succeeds("cluster.stepdown", "rs0", "--on", "rs")
    former = next(name for name in states(rs, "rs") if f"and {name} was" in said)
    primary = next(name for name, state in states(rs, "rs").items() if state == "PRIMARY")
    assert primary != former
    assert f"{primary} is primary now" in said
    done = rs.invoke("cluster.stop", primary, "--on", "rs")
    assert done.returncode == 0, done.stderr
    assert "is primary now" in done.stderr
    found = states(rs, "rs")
    assert found[primary] == "DOWN"
    assert "PRIMARY" in found.values()
    started = json.loads(rs.succeeds("cluster.start", primary, "--on", "rs", "--json"))
    assert started == {"deployment": "rs", "started": [primary]}
    until("it to be a secondary", lambda: states(rs, "rs")[primary] == "SECONDARY")


def test_a_killed_and_a_paused_node_are_seen_and_up_heals_both(rs: Clone) -> None:
    killed = json.loads(rs.succeeds("cluster.kill", "member-2", "--on", "rs", "--json"))
    assert killed == {"deployment": "rs", "killed": ["member-2"]}
    paused = json.loads(rs.succeeds("cluster.pause", "member-3", "--on", "rs", "--json"))
    assert paused == {"deployment": "rs", "paused": ["member-3"]}
    found = states(rs, "rs")
    assert (found["member-2"], found["member-3"]) == ("DOWN", "PAUSED")
    rs.succeeds("cluster.up", "--on", "rs")
    assert sorted(states(rs, "rs").values()) == ["PRIMARY", "SECONDARY", "SECONDARY"]
    assert rs.succeeds("cluster.pause", "member-3", "--on", "rs") == "member-3: paused\n"
    resumed = json.loads(rs.succeeds("cluster.resume", "member-3", "--on", "rs", "--json"))
    assert resumed == {"deployment": "rs", "resumed": ["member-3"]}
    assert states(rs, "rs")["member-3"] != "PAUSED"


@pytest.mark.parametrize("task", ["cluster.pause", "cluster.resume"])
def test_nodes_are_paused_and_resumed_when_no_other_command_is_at_work(rs: Clone, task: str) -> None:
    paths = Paths.of(rs.root, "data", "log", None)
    with exclusive(paths.lock("deployment-rs"), "doing something to rs"):
        waiting = rs.begin(task, "member-3", "--on", "rs")
        waiting.says("doing something to rs")
    assert waiting.ends() == 0


def test_a_paused_node_is_taken_down_with_the_others(rs: Clone) -> None:
    pid = rs.status(on="rs")["nodes"][0]["pid"]
    rs.succeeds("cluster.pause", "member-1", "--on", "rs")
    rs.succeeds("cluster.down", "--on", "rs")
    assert identity_of(pid) is None


def test_processes_cannot_be_isolated(shared: Clone) -> None:
    assert "have no network of their own" in shared.fails("cluster.isolate", "member-1", "--on", "rs")
    assert "have no network of their own" in shared.fails("cluster.heal", "--on", "rs")


def test_what_does_not_run_is_one_error_that_says_how_to_start_it(no_sh: Clone) -> None:
    for command in (
        ["shell", "--eval", "1"],
        ["tour"],
        ["seed"],
        ["cluster.distribution"],
        ["cluster.shell", "router-1", "--eval", "1"],
        ["cluster.remove-shard", "shard2", "--yes"],
        ["cluster.stepdown", "shard1"],
    ):
        assert "invoke start --on sh" in no_sh.fails(*command, "--on", "sh"), command


def test_the_app_is_served_from_the_cluster_on_its_first_run(no_sh: Clone) -> None:
    running = no_sh.begin("run", "--on", "sh")
    running.says("Serving flaskbook")
    assert no_sh.get("/readyz")[0] == 200
    no_sh.succeeds("seed", "--on", "sh", "--users", "10")
    assert no_sh.get("/people")[0] == 200
    secrets = json.loads((no_sh.root / ".state" / "deployments" / "sh" / "credentials.json").read_text())
    for told in (
        running.text,
        no_sh.succeeds("cluster.status", "--on", "sh"),
        no_sh.succeeds("uri", "--on", "sh"),
    ):
        assert not any(secret in told for secret in secrets.values())
    assert secrets["app"] in no_sh.succeeds("uri", "--on", "sh", "--user", "app")
    named = no_sh.succeeds("uri", "--on", "sh", "--user", "app", "--database", "flaskbook")
    assert secrets["app"] in named and "/flaskbook?" in named
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


def test_people_that_are_dropped_come_back_sharded_and_indexed_as_they_were(sh: Clone) -> None:
    sh.succeeds("seed", "--on", "sh", "--users", "500")
    with MongoClient[dict[str, Any]](sh.deployment("sh").uri("flaskbook", user="app")) as client:
        client.flaskbook.user.create_index({"age": 1}, name="by_age")
        indexes = client.flaskbook.user.index_information()
        assert indexes.keys() >= {"_id_", "_id_hashed", "by_age"}
        before = list(client.flaskbook.user.find({}, {"_id": 0}, sort=[("created", 1), ("name", 1)]))
        assert "standard input is not a terminal" in sh.fails(
            "seed", "--on", "sh", "--users", "500", "--drop"
        )
        sh.succeeds("seed", "--on", "sh", "--users", "500", "--drop", "--yes")
        assert client.flaskbook.user.index_information() == indexes
        assert list(client.flaskbook.user.find({}, {"_id": 0}, sort=[("created", 1), ("name", 1)])) == before
    assert min(counted_on_shards(sh, ["shard1", "shard2"]).values()) > 100


def test_a_collection_with_documents_is_sharded(sh: Clone) -> None:
    uri = sh.succeeds("uri", "--on", "sh", "--user", "root").strip()
    with MongoClient[dict[str, Any]](uri) as client:
        client.flaskbook.event.drop()
        client.flaskbook.event.insert_many([{"country": "DE"}, {"country": "FR"}])
    command = ("cluster.shard-collection", "flaskbook.event", "--key", "country:1,_id:1", "--on", "sh")
    assert "is sharded now" in sh.succeeds(*command)
    assert "already" in sh.succeeds(*command)
    other = (*command[:3], "_id:hashed", *command[4:])
    assert "sharded by" in sh.fails(*other)
    assert "flaskbook.event: 2 documents" in sh.succeeds("cluster.distribution", "--on", "sh")


def test_routers_are_added_and_the_last_one_is_removed(sh: Clone) -> None:
    sh.succeeds("cluster.up", "--on", "sh", "--routers", "2")
    assert states(sh, "sh")["router-2"] == "ROUTER"
    assert "router-2 is the last one" in sh.fails("cluster.remove-router", "router-1", "--on", "sh")
    removed = json.loads(sh.succeeds("cluster.remove-router", "router-2", "--on", "sh", "--json"))
    assert removed == {"deployment": "sh", "removed": "router-2"}
    assert "router-2" not in states(sh, "sh")
    assert "needs one" in sh.fails("cluster.remove-router", "router-1", "--on", "sh")


def test_a_shell_on_one_node_is_that_nodes(sh: Clone) -> None:
    asked = ("--on", "sh", "--python", "--eval", 'db.client.admin.command("hello").get("setName")')
    assert sh.succeeds("cluster.shell", "shard1-1", *asked).strip() == '"shard1"'
    assert sh.succeeds("shell", *asked).strip() == "null"


def test_a_sharded_cluster_is_seeded_grown_and_shrunk_without_losing_anybody(sh: Clone) -> None:
    seeded = json.loads(sh.succeeds("seed", "--on", "sh", "--users", "3000", "--json"))
    assert seeded["inserted"] == 3000
    assert sum(each["documents"] for each in seeded["distribution"]) == 3000
    counts = counted_on_shards(sh, ["shard1", "shard2"])
    assert counts == {each["shard"]: each["documents"] for each in seeded["distribution"]}
    assert min(counts.values()) > 1000

    sh.succeeds("cluster.add-shard", "--on", "sh")
    assert [each["name"] for each in sh.status(on="sh")["shards"]] == ["shard1", "shard2", "shard3"]

    sh.succeeds("cluster.remove-shard", "shard1", "--on", "sh", "--yes")
    found = sh.status(on="sh")
    assert [each["name"] for each in found["shards"]] == ["shard2", "shard3"]
    assert "shard1-1" not in {node["name"] for node in found["nodes"]}
    assert not (sh.root / "data" / "sh" / "shard1-1").exists()
    assert sum(counted_on_shards(sh, ["shard2", "shard3"]).values()) == 3000

    again = sh.invoke("cluster.up", "--on", "sh", "--json")
    assert json.loads(again.stdout)["started"] == []
    sh.succeeds("cluster.down", "--on", "sh")
    sh.succeeds("cluster.up", "--on", "sh")
    spread = json.loads(sh.succeeds("cluster.distribution", "flaskbook.user", "--on", "sh", "--json"))
    assert sum(each["documents"] for each in spread["collections"]["flaskbook.user"]) == 3000


def test_a_shard_whose_primary_has_moved_is_drained_without_losing_anybody(two_shards: Clone) -> None:
    clone = two_shards
    clone.succeeds("cluster.up", "--on", "sh", "--members", "2", "--shards", "2")
    first, second = (each["name"] for each in clone.status(on="sh")["shards"])
    empty(clone)
    clone.succeeds("seed", "--on", "sh", "--users", "200")
    stepped = json.loads(clone.succeeds("cluster.stepdown", first, "--on", "sh", "--json"))
    assert stepped.keys() == {"deployment", "replica_set", "primary", "former"}
    assert stepped["primary"] != stepped["former"]
    removed = json.loads(clone.succeeds("cluster.remove-shard", first, "--on", "sh", "--yes", "--json"))
    assert removed == {"deployment": "sh", "removed": first}
    assert counted_on_shards(clone, [second]) == {second: 200}
