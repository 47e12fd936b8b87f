"""What the tool sends through a router stands in the table of what mongos accepts; one place decides who routes in tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.mongodb import sharding
from provision.mongodb.sharding import ShardedCollection, Zone
from tests.support.router_standin import accepts
from tests.support.router_standin.install import beside, install, is_standin, real_mongos

ROOT = Path(__file__).resolve().parents[2]
# What sends commands: a method of a connection that is named so, and helpers of modules that talk to routers alone.
SENDERS = ("_run", "_first_batch")
AT_ROUTERS = ("provision/mongodb/sharding.py",)


def commands_in(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Each command that a module spells out for a router: its name and its fields, from the literals that are sent."""
    only_routers = str(path.relative_to(ROOT)) in AT_ROUTERS
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr == "command":
                if isinstance(called.value, ast.Name) and called.value.id == "router":
                    values = [*node.args]
            elif only_routers and getattr(called, "attr", getattr(called, "id", "")) in SENDERS:
                values = [*node.args]
        elif only_routers and isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = [node.value] if getattr(targets[0], "id", "") == "command" else []
        for value in values:
            if isinstance(value, ast.Dict) and isinstance(value.keys[0], ast.Constant):
                keys = [key.value for key in value.keys if isinstance(key, ast.Constant)]
                yield str(keys[0]), {str(key) for key in keys}


def test_each_command_that_is_spelled_out_for_a_router_is_accepted_by_mongos() -> None:
    seen = set()
    for path in sorted((ROOT / "provision").rglob("*.py")):
        for name, fields in commands_in(path):
            seen.add(name)
            row = accepts.TABLE.get(name)
            assert row is not None, f"{path.name} sends {name}, which the table does not know"
            database = "admin" if row.admin else "some"
            refusal = accepts.refusal(max(row.since, (6, 0)), name, fields, database)
            assert refusal is None, f"{path.name} sends {name}: {refusal}"
    assert seen >= {
        "addShard", "removeShard", "startShardDraining", "shardDrainingStatus", "commitShardRemoval", "listCommands",
        "listShards", "enableSharding", "addShardToZone", "updateZoneKeyRange", "shardCollection", "split",
        "balancerStart", "balancerStop", "balancerStatus", "movePrimary", "moveCollection", "createIndexes", "find",
        "aggregate",
    }  # fmt: skip


class Recorder:
    """A connection to a router that writes down what is sent, and says that all went well."""

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._answers = answers or {}

    def command(self, database: str, command: dict[str, Any], timeout: float = 0.0) -> dict[str, Any]:
        self.sent.append(command)
        name = next(iter(command))
        assert accepts.refusal((8, 3), name, command, database) is None, command
        answer = self._answers.get(name, {"cursor": {"firstBatch": []}})
        return answer(command) if callable(answer) else answer  # type: ignore[no-any-return]

    def names(self) -> list[str]:
        return [next(iter(each)) for each in self.sent]


def test_zones_are_declared_without_a_write_concern() -> None:
    router = Recorder()
    zone = Zone("eu", ("shard1", "shard2"), {"country": "DE"}, {"country": "MaxKey"})
    wanted = ShardedCollection("shop.order", {"country": 1}, zones=(zone,))
    assert sharding.shard_collection(router, wanted)  # type: ignore[arg-type]
    assert router.names() == [
        "find", "enableSharding", "addShardToZone", "addShardToZone", "updateZoneKeyRange", "shardCollection",
    ]  # fmt: skip
    assert all("writeConcern" not in each for each in router.sent if "zone" in each)


def test_unsharded_collections_that_were_moved_are_not_counted_as_sharded() -> None:
    router = Recorder()
    sharding.sharded_namespaces(router)  # type: ignore[arg-type]
    sharding.entry(router, "shop.order")  # type: ignore[arg-type]
    assert [each["filter"]["unsplittable"] for each in router.sent] == [{"$ne": True}] * 2


# A shard is drained by the commands that the router has


def test_a_shard_is_drained_in_steps_where_mongos_has_the_commands_for_it() -> None:
    states = iter(["started", "ongoing", "drainingComplete"])
    draining = iter([False, True, True, True])
    router = Recorder(
        {
            "listCommands": {"commands": {"startShardDraining": {}, "removeShard": {}}},
            "listShards": lambda _: {"shards": [{"_id": "shard2", "draining": next(draining)}]},
            "shardDrainingStatus": lambda _: {"state": next(states), "remaining": {"chunks": 1}},
        }
    )
    steps = sharding.Drain(router, "shard2")  # type: ignore[arg-type]
    told = []
    while (answer := steps.ask())["state"] != "completed":
        told.append(answer["state"])
    assert told == ["started", "started", "ongoing"]
    assert router.names()[-1] == "commitShardRemoval"
    assert "removeShard" not in router.names()
    assert router.names().count("startShardDraining") == 1


def test_a_shard_is_drained_by_one_command_where_mongos_has_nothing_else() -> None:
    states = iter(["started", "ongoing", "completed"])
    router = Recorder(
        {
            "listCommands": {"commands": {"removeShard": {}}},
            "removeShard": lambda _: {"state": next(states)},
        }
    )
    steps = sharding.Drain(router, "shard2")  # type: ignore[arg-type]
    while steps.ask()["state"] != "completed":
        continue
    assert router.names() == ["listCommands", "removeShard", "removeShard", "removeShard"]


# The table


@pytest.mark.parametrize(
    ("version", "command", "database", "code"),
    [
        ((6, 0), {"addShardToZone": "a", "zone": "z"}, "admin", None),
        ((6, 0), {"addShardToZone": "a", "zone": "z", "writeConcern": {}}, "admin", 72),
        ((6, 0), {"updateZoneKeyRange": "a.b", "min": {}, "max": {}, "zone": "z", "writeConcern": {}}, "admin", 72),
        ((6, 0), {"split": "a.b", "middle": {}, "writeConcern": {}}, "admin", 72),
        ((6, 0), {"balancerStop": 1, "writeConcern": {}}, "admin", 72),
        ((6, 0), {"movePrimary": "a", "to": "b", "writeConcern": {}}, "admin", None),
        ((6, 0), {"shardCollection": "a.b", "keys": {}}, "admin", 40415),
        ((6, 0), {"listShards": 1}, "other", 13),
        ((7, 0), {"moveCollection": "a.b", "toShard": "s"}, "admin", 59),
        ((8, 0), {"moveCollection": "a.b", "toShard": "s"}, "admin", None),
        ((6, 0), {"find": "a", "writeConcern": {}}, "a", 72),
    ],
)  # fmt: skip
def test_the_table_refuses_as_mongos_does(
    version: tuple[int, int], command: dict[str, Any], database: str, code: int | None
) -> None:
    refusal = accepts.refusal(version, next(iter(command)), command, database)
    assert (None if refusal is None else refusal.code) == code


def test_each_row_of_the_table_names_a_page_of_the_manual() -> None:
    assert all(
        row.manual.startswith(accepts.MANUAL) and row.manual.endswith("/") for row in accepts.TABLE.values()
    )


# Who routes in tests


@pytest.fixture
def mongod(tmp_path: Path) -> Path:
    return executable(tmp_path / "installed" / "mongod")


def executable(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_without_a_mongos_the_stand_in_routes(mongod: Path, tmp_path: Path) -> None:
    made = beside(mongod, "6.0.5", tmp_path / "bin")
    assert is_standin(made.with_name("mongos"))
    assert real_mongos(made) is None


def test_the_stand_in_never_takes_the_place_of_a_real_mongos(mongod: Path, tmp_path: Path) -> None:
    mongos = executable(mongod.with_name("mongos"))
    made = beside(mongod, "6.0.5", tmp_path / "bin")
    assert made.with_name("mongos").samefile(mongos)
    with pytest.raises(FileExistsError, match="real mongos"):
        install(mongod.parent, "6.0.5")


def test_a_mongos_beside_what_a_link_leads_to_is_the_real_one(mongod: Path, tmp_path: Path) -> None:
    mongos = executable(mongod.with_name("mongos"))
    (tmp_path / "linked").mkdir()
    linked = tmp_path / "linked" / "mongod"
    linked.symlink_to(mongod)
    assert real_mongos(linked) == mongos
    with pytest.raises(FileExistsError, match="real mongos"):
        install(linked.parent, "6.0.5")
