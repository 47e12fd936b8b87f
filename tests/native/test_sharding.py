"""What `sharding:` declares, on a cluster of processes; and every command that the tool sends through its router."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo.monitoring
import pytest
from pymongo import MongoClient

from provision.core.steps import Silent
from provision.data import seed
from provision.deployments import cluster
from provision.mongodb import sharding
from provision.mongodb.sharding import ShardedCollection
from provision.mongodb.wire import Connection
from tests.support.clones import Clone, cloned
from tests.support.deployments import deployed
from tests.support.processes import free_ports
from tests.support.router_standin import accepts
from tests.support.router_standin.install import beside

pytestmark = pytest.mark.timeout(300)
ZONES = [
    {"zone": "eu", "shards": ["shard1"], "min": {"country": "DE"}, "max": {"country": "FR"}},
    {"zone": "asia", "shards": ["shard2"], "min": {"country": "JP"}, "max": {"country": "MaxKey"}},
]


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Clone]:
    """A clone with the sharded cluster `sh`, and a mongos beside its mongod."""
    folder = tmp_path_factory.mktemp("sharding")
    sh = {
        "topology": "sharded",
        "port": free_ports(200),
        "members": 1,
        "config_servers": 1,
        "shards": 2,
        "auth": True,
    }
    mongod = beside(mongod_binary, mongod_version, folder / "bin")
    with cloned(folder, str(mongod), {"sh": sh}) as made:
        yield made


@pytest.fixture
def new(shared: Clone) -> Clone:
    """The clone, with nothing of `sh`."""
    if (shared.root / "data" / "sh").exists():
        shared.succeeds("cluster.down", "--on", "sh", "--delete-data", "--yes")
    return shared


@pytest.fixture
def team(shared: Clone, request: pytest.FixtureRequest) -> Clone:
    """The clone, whose `sh` has one router, no database shop and no zones; it runs, or there is nothing of it yet."""
    nodes = shared.deployment("sh").status().nodes
    if sorted(node.state for node in nodes) != ["PRIMARY", "PRIMARY", "PRIMARY", "ROUTER"]:
        request.getfixturevalue("new")
        return shared
    with client_of(shared) as client:
        for each in client.config.tags.find():
            bounds = {"min": each["min"], "max": each["max"], "zone": None}
            client.admin.command("updateZoneKeyRange", each["ns"], **bounds)
        client.drop_database("shop")
        for each in client.config.shards.find():
            for zone in each.get("tags", []):
                client.admin.command("removeShardFromZone", each["_id"], zone=zone)
    return shared


def declare(team: Clone, collections: dict[str, Any]) -> None:
    """Change what `sharding:` declares of the database shop."""

    def change(settings: dict[str, Any]) -> None:
        settings["deployments"]["sh"]["sharding"] = {"shop": collections}

    team.change_settings(change)


def client_of(team: Clone) -> MongoClient[dict[str, Any]]:
    return MongoClient(team.deployment("sh").uri(user="root"))


def ranges(team: Clone) -> dict[str, tuple[Any, Any]]:
    """Zone → its lower and upper bound, by the cluster's own catalog."""
    with client_of(team) as client:
        return {
            each["tag"]: (each["min"]["country"], each["max"]["country"])
            for each in client.config.tags.find()
        }


def chunks_at(team: Clone, country: str) -> str:
    """The shard that owns a country's documents."""
    with client_of(team) as client:
        uuid = client.config.collections.find_one({"_id": "shop.order"})["uuid"]  # type: ignore[index]
        chunks = [each for each in client.config.chunks.find({"uuid": uuid}) if _holds(each, country)]
        assert len(chunks) == 1, chunks
        return str(chunks[0]["shard"])


def _holds(chunk: dict[str, Any], country: str) -> bool:
    low, high = chunk["min"]["country"], chunk["max"]["country"]
    return (not isinstance(low, str) or low <= country) and (not isinstance(high, str) or country < high)


def test_a_mistake_in_sharding_leaves_the_cluster_up_names_the_collection_and_can_be_corrected(
    new: Clone,
) -> None:
    wrong = [ZONES[0] | {"max": {"country": "GR"}}, ZONES[1] | {"shards": ["shard9"]}]
    declare(new, {"order": {"key": {"country": 1}, "zones": wrong}, "user": {"key": {"_id": "hashed"}}})
    said = new.fails("cluster.up", "--on", "sh")
    assert "error: sharding shop.order" in said
    assert "shard9" in said
    assert "sh is up and takes writes" in said
    assert "invoke start --on sh" in said
    before = {node["name"]: node["pid"] for node in new.status(on="sh")["nodes"]}
    assert len(before) == 4
    assert all(before.values())
    with client_of(new) as client:
        assert [each["_id"] for each in client.config.collections.find({"_id": {"$regex": "^shop"}})] == [
            "shop.user"
        ]
        assert client.shop.user.insert_one({"name": "Ada"}).acknowledged

    # The corrected range overlaps the one that was declared before the mistake.
    declare(new, {"order": {"key": {"country": 1}, "zones": ZONES}, "user": {"key": {"_id": "hashed"}}})
    new.succeeds("start", "--on", "sh")
    assert set(ranges(new)) == {"eu", "asia"}
    assert ranges(new)["eu"] == ("DE", "FR")
    assert {node["name"]: node["pid"] for node in new.status(on="sh")["nodes"]} == before


def test_zones_hold_their_ranges_on_their_shards(team: Clone) -> None:
    declare(team, {"order": {"key": {"country": 1}, "zones": ZONES}})
    team.succeeds("cluster.up", "--on", "sh")
    assert set(ranges(team)) == {"eu", "asia"}
    with client_of(team) as client:
        tags = {each["_id"]: each.get("tags", []) for each in client.config.shards.find()}
    assert tags == {"shard1": ["eu"], "shard2": ["asia"]}
    assert chunks_at(team, "DE") == "shard1"
    assert chunks_at(team, "JP") == "shard2"


def test_several_mistakes_are_told_at_once(team: Clone) -> None:
    bad = [ZONES[0] | {"shards": ["shard9"]}]
    declare(
        team, {"order": {"key": {"country": 1}, "zones": bad}, "bill": {"key": {"country": 1}, "zones": bad}}
    )
    said = team.fails("cluster.up", "--on", "sh")
    assert "sharding shop.order: " in said
    assert "sharding shop.bill: " in said
    assert {node["state"] for node in team.status(on="sh")["nodes"]} <= {"PRIMARY", "ROUTER", "UP"}


def test_a_collection_is_moved_without_the_five_minutes_that_mongodb_waits(team: Clone) -> None:
    parameter = "reshardingMinimumOperationDurationMillis"
    declare(team, {})
    team.succeeds("cluster.up", "--on", "sh")
    deployment = team.deployment("sh")

    def least() -> int:
        with deployment.dial(deployment.node("config-1")) as connection:
            return int(connection.command("admin", {"getParameter": 1, parameter: 1})[parameter])

    before = least()
    assert before > 0
    with cluster.moved_at_once(deployment):
        assert least() == 0
    assert least() == before


def test_flags_of_a_cluster_that_came_up_hold_although_a_collection_was_refused(team: Clone) -> None:
    declare(team, {"order": {"key": {"country": 1}, "zones": [ZONES[0] | {"shards": ["shard9"]}]}})
    team.fails("cluster.up", "--on", "sh", "--routers", "2")
    names = {node["name"] for node in team.status(on="sh")["nodes"]}
    assert "router-2" in names


# What is sent through the router


class Sent:
    """Every command that goes to a router: by the tool's own connections and by the driver."""

    def __init__(self, ports: set[int]) -> None:
        self.ports = ports
        self.commands: list[tuple[str, dict[str, Any]]] = []

    def note(self, port: int, database: str, command: dict[str, Any]) -> None:
        if port in self.ports:
            self.commands.append((database, dict(command)))

    def names(self) -> set[str]:
        return {next(iter(command)) for _, command in self.commands}


class _Listener(pymongo.monitoring.CommandListener):
    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        # The driver takes the fields away of commands that log in.
        command = {event.command_name: 1, **event.command}
        self._sent.note(event.connection_id[1] or 0, event.database_name, command)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """What goes through routers from here on; the test says which ports are theirs."""
    made = Sent(set())
    original_init, original = Connection.__init__, Connection.command

    def init(self: Connection, host: str, port: int, *args: Any, **kwargs: Any) -> None:
        self.noted_port = port  # type: ignore[attr-defined]
        original_init(self, host, port, *args, **kwargs)

    def command(self: Connection, database: str, command: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        made.note(self.noted_port, database, command)  # type: ignore[attr-defined]
        return original(self, database, command, *args, **kwargs)

    monkeypatch.setattr(Connection, "__init__", init)
    monkeypatch.setattr(Connection, "command", command)
    listeners = pymongo.monitoring._LISTENERS.command_listeners
    listener = _Listener(made)
    pymongo.monitoring.register(listener)
    yield made
    listeners.remove(listener)


def test_every_command_that_is_sent_through_a_router_is_accepted_by_mongos(
    tmp_path: Path, mongod_binary: Path, mongod_version: str, sent: Sent
) -> None:
    first = free_ports(200)
    sent.ports = {first}  # its only router's
    declared = {
        "shop": {
            "order": {"key": {"country": 1}, "zones": ZONES[:1], "split": [{"country": "K"}]},
            "user": {"key": {"_id": "hashed"}, "chunks": 4},
        }
    }
    shape = {
        "topology": "sharded",
        "members": 1,
        "config_servers": 1,
        "shards": 2,
        "auth": True,
        "sharding": declared,
    }
    with deployed(tmp_path, mongod_binary, mongod_version, port=first, **shape) as deployment:
        seed.seed(deployment, "flaskbook", 50, 1, False, Silent())
        wanted = ShardedCollection("flaskbook.user", {"_id": "hashed"})
        assert cluster.shard_collection(deployment, wanted)
        seed.seed(deployment, "flaskbook", 50, 1, True, Silent())
        assert set(cluster.distribution(deployment)) == {"shop.order", "shop.user", "flaskbook.user"}
        assert deployment.status().nodes
        with cluster.routed(deployment, "recording") as router:
            sharding.stop_balancer(router, 30.0)
            sharding.start_balancer(router)
            cluster._drain(deployment, router, "shard2", lambda _: None, "recording")
            assert [each["_id"] for each in sharding.shards(router)] == ["shard1"]
        deployment.down(remove=True)
    assert sent.names() >= {
        "addShard", "listShards", "removeShard", "enableSharding", "addShardToZone", "updateZoneKeyRange",
        "shardCollection", "split", "balancerStart", "balancerStop", "balancerStatus", "update", "insert", "find",
        "aggregate", "createIndexes", "drop", "serverStatus", "shutdown",
    }  # fmt: skip
    version = tuple(int(part) for part in mongod_version.split(".")[:2])
    unknown = sent.names() - set(accepts.TABLE)
    assert not unknown, f"not in the table: {unknown}"
    for database, command in sent.commands:
        name = next(iter(command))
        assert accepts.refusal(version, name, command, database) is None, (database, command)  # type: ignore[arg-type]
