"""Shards, sharded collections, zones and the balancer, through a router.

What is sent here is what mongos documents, and nothing internal: `tests/support/router_standin/accepts.py` has a row
for each command. A write concern goes only with commands that take one: mongos refuses it elsewhere.
https://www.mongodb.com/docs/manual/sharding/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.mongodb.topology import ReplicaSet
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Server

_RETRIABLE = frozenset({6, 7, 70, 89, 91, 117, 133, 189, 202, 10107, 11600, 11602, 13436})
_MAJORITY = {"w": "majority"}
_SHARDED = {"unsplittable": {"$ne": True}}


@dataclass(frozen=True)
class Zone:
    """A range of a shard key's values that belongs on certain shards."""

    zone: str
    shards: tuple[str, ...]  # the shards that hold it
    min: Mapping[str, Any]  # lower bound, inclusive: shard key field → value, or the text ``MinKey``
    max: Mapping[str, Any]  # upper bound, exclusive: shard key field → value, or the text ``MaxKey``


@dataclass(frozen=True)
class ShardedCollection:
    """How a collection is sharded."""

    namespace: str  # ``database.collection``
    key: Mapping[str, int | str]  # the shard key: field → 1 or ``hashed``
    unique: bool = False  # the key is unique (not with a hashed one)
    # number of initial chunks of a hashed key on an empty collection; None: MongoDB's own choice
    chunks: int | None = None
    split: tuple[Mapping[str, Any], ...] = ()  # shard key documents to split an empty, ranged collection at
    zones: tuple[Zone, ...] = field(default=())  # its zones


def add_shard(router: Server, shard: ReplicaSet, wait: Wait) -> bool:
    """Add a shard to the cluster, if it is not there.

    Follows https://www.mongodb.com/docs/manual/reference/command/addShard/

    Args:
        router: connection to a router, as a user who may manage the cluster.
        shard: the replica set; it has a primary.
        wait: how long to try while the cluster's other parts come up.

    Returns: Whether it was added now.
    Raises ProvisionError: the router refused it.
    """
    if any(each["_id"] == shard.name for each in shards(router)):
        return False

    def attempt() -> bool | None:
        try:
            # One member is enough: the router learns of the others from it.
            seed = f"{shard.name}/{shard.members[0].address}"
            router.command(
                "admin", {"addShard": seed, "name": shard.name, "writeConcern": _MAJORITY}, timeout=60
            )
        except CommandFailed as refusal:
            if refusal.code in _RETRIABLE:
                return None
            raise ProvisionError(
                f"adding shard {shard.name}",
                str(refusal),
                "Look at `invoke logs --on <deployment> --node router-1`.",
            ) from refusal
        return True

    return wait.until(f"the router to add shard {shard.name}", attempt)


def shards(router: Server) -> list[dict[str, Any]]:
    """The cluster's shards, each with ``_id``, ``host`` and ``state``."""
    return list(router.command("admin", {"listShards": 1})["shards"])


class Drain:
    """A shard on its way out of the cluster: `ask` begins to drain it, says how far that is, and takes it out at the end.

    From MongoDB 8.3 on each step is a command of its own, and `removeShard`, which is all of them, is deprecated:
    https://www.mongodb.com/docs/manual/tutorial/remove-shards-from-cluster/

    Raises CommandFailed: the router refused.
    """

    def __init__(self, router: Server, shard: str) -> None:
        self._router = router
        self._shard = shard
        self._in_steps = "startShardDraining" in router.command("admin", {"listCommands": 1})["commands"]

    def ask(self) -> dict[str, Any]:
        """The router's answer: ``state`` is ``started``, ``ongoing`` (with ``remaining``) or ``completed``.

        Raises CommandFailed: the router refused.
        """
        if not self._in_steps:
            return self._run({"removeShard": self._shard, "writeConcern": _MAJORITY})
        if not any(each["_id"] == self._shard and each.get("draining") for each in shards(self._router)):
            self._run({"startShardDraining": self._shard, "writeConcern": _MAJORITY})
            return {"state": "started"}
        answer = self._run({"shardDrainingStatus": self._shard})
        if answer["state"] == "drainingComplete":
            self._run({"commitShardRemoval": self._shard, "writeConcern": _MAJORITY})
            return {"state": "completed"}
        return answer

    def _run(self, command: Mapping[str, Any]) -> dict[str, Any]:
        return self._router.command("admin", command, timeout=60)


def entry(router: Server, namespace: str) -> dict[str, Any] | None:
    """What the cluster has on record of a sharded collection (``key``, ``uuid``); None: it is not sharded.

    From MongoDB 8.0 on, unsharded collections that were moved are on record as well: as ``unsplittable``.
    """
    query = {"_id": namespace, **_SHARDED}
    found = _first_batch(router, "config", {"find": "collections", "filter": query, "limit": 1})
    return found[0] if found else None


def shard_collection(router: Server, wanted: ShardedCollection) -> bool:
    """Shard a collection as declared, with its zones. One that is sharded already is left as it is.

    Follows https://www.mongodb.com/docs/manual/reference/command/shardCollection/

    Returns: Whether it was sharded now.
    Raises ProvisionError: it is sharded by another key, or the router refused.
    """
    doing = f"sharding {wanted.namespace}"
    present = entry(router, wanted.namespace)
    if present is not None:
        key = dict(present["key"])
        if key != dict(wanted.key):
            raise ProvisionError(
                doing,
                f"It is sharded by {key} already, and the settings say {dict(wanted.key)}.",
                "Change `sharding` in invoke.yaml to what it is, or reshard it:\n"
                "https://www.mongodb.com/docs/manual/reference/command/reshardCollection/",
            )
        return False
    command: dict[str, Any] = {"shardCollection": wanted.namespace, "key": dict(wanted.key)}
    if wanted.unique:
        command["unique"] = True
    hashed = "hashed" in wanted.key.values()
    if hashed and wanted.chunks:
        command["numInitialChunks"] = wanted.chunks
    try:
        database = wanted.namespace.partition(".")[0]
        router.command("admin", {"enableSharding": database, "writeConcern": _MAJORITY}, timeout=60)
        with _zones(router, wanted):
            router.command("admin", {**command, "writeConcern": _MAJORITY}, timeout=120)
    except CommandFailed as refusal:
        raise ProvisionError(doing, str(refusal), "Correct `sharding` in invoke.yaml.") from refusal
    for middle in wanted.split:
        try:
            router.command("admin", {"split": wanted.namespace, "middle": _bounds(middle)}, timeout=60)
        except CommandFailed as refusal:
            raise ProvisionError(
                doing,
                f"It is sharded now, but not split at {dict(middle)}: {refusal}",
                "Split it where you want it split: "
                f"""invoke cluster.shell --eval 'sh.splitAt("{wanted.namespace}", {{…}})'""",
            ) from refusal
    return True


@contextlib.contextmanager
def _zones(router: Server, wanted: ShardedCollection) -> Iterator[None]:
    """Declare a collection's zones for the block that shards it; if one of the two is refused, take the ranges back.

    A range that stayed would stand in the way of a corrected one.

    Follows https://www.mongodb.com/docs/manual/reference/command/updateZoneKeyRange/
    """
    declared: list[dict[str, Any]] = []
    try:
        for zone in wanted.zones:
            for shard in zone.shards:
                router.command("admin", {"addShardToZone": shard, "zone": zone.zone}, timeout=60)
            bounds = {"min": _bounds(zone.min), "max": _bounds(zone.max)}
            command = {"updateZoneKeyRange": wanted.namespace, **bounds}
            router.command("admin", {**command, "zone": zone.zone}, timeout=60)
            declared.append(command)
        yield
    except CommandFailed:
        for command in declared:
            with contextlib.suppress(CommandFailed):
                router.command("admin", {**command, "zone": None}, timeout=60)
        raise


def _bounds(document: Mapping[str, Any]) -> dict[str, Any]:
    """A shard key document from settings; YAML has no MinKey and MaxKey, so their names stand for them."""
    from bson.max_key import MaxKey
    from bson.min_key import MinKey

    special = {"MinKey": MinKey(), "MaxKey": MaxKey()}
    return {
        name: special.get(value, value) if isinstance(value, str) else value
        for name, value in document.items()
    }


def chunks_by_shard(router: Server, namespace: str) -> dict[str, int]:
    """Number of chunks of a collection on each shard."""
    sharded = entry(router, namespace)
    if sharded is None:
        return {}
    counted = _first_batch(
        router,
        "config",
        {
            "aggregate": "chunks",
            "pipeline": [
                {"$match": {"uuid": sharded["uuid"]}},
                {"$group": {"_id": "$shard", "n": {"$sum": 1}}},
            ],
            "cursor": {"batchSize": 10_000},
        },
    )
    return {each["_id"]: int(each["n"]) for each in counted}


def sharded_namespaces(router: Server) -> list[str]:
    """Every sharded collection but those of MongoDB's own databases."""
    command = {"find": "collections", "filter": _SHARDED, "projection": {"_id": 1}, "batchSize": 10_000}
    found = _first_batch(router, "config", command)
    return sorted(
        str(each["_id"]) for each in found if not str(each["_id"]).startswith(("config.", "admin."))
    )


def balancer(router: Server) -> dict[str, Any]:
    """The balancer's mode and whether it is in a round.

    Follows https://www.mongodb.com/docs/manual/reference/command/balancerStatus/
    """
    answer = router.command("admin", {"balancerStatus": 1})
    return {"mode": answer.get("mode"), "running": bool(answer.get("inBalancerRound"))}


def stop_balancer(router: Server, seconds: float) -> None:
    """Switch the balancer off, and wait until the round it is in has ended.

    Follows https://www.mongodb.com/docs/manual/reference/command/balancerStop/

    `seconds`: how long that may take.

    Raises NotReachable, CommandFailed: it is in a round still, or was refused.
    """
    router.command("admin", {"balancerStop": 1, "maxTimeMS": round(seconds * 1000)}, timeout=seconds + 10)


def start_balancer(router: Server) -> None:
    """Switch the balancer on.

    Follows https://www.mongodb.com/docs/manual/reference/command/balancerStart/

    Raises NotReachable, CommandFailed: it was refused.
    """
    router.command("admin", {"balancerStart": 1}, timeout=60)


@dataclass(frozen=True)
class ShardShare:
    """What one shard has of a collection."""

    shard: str
    documents: int
    bytes: int
    chunks: int


def distribution(router: Server, namespace: str) -> list[ShardShare]:
    """Documents, bytes and chunks of a collection on each shard.

    Follows https://www.mongodb.com/docs/manual/reference/operator/aggregation/collStats/

    `namespace`: ``database.collection``.

    Returns: All shards, by name.
    Raises CommandFailed: the collection does not exist, or rights are missing.
    """
    database, _, collection = namespace.partition(".")
    stats = _first_batch(
        router,
        database,
        {"aggregate": collection, "pipeline": [{"$collStats": {"storageStats": {}}}], "cursor": {}},
    )
    chunks = chunks_by_shard(router, namespace)
    found = {each["shard"]: each["storageStats"] for each in stats if "shard" in each}
    return [
        ShardShare(
            name,
            int(found.get(name, {}).get("count", 0)),
            int(found.get(name, {}).get("size", 0)),
            chunks.get(name, 0),
        )
        for name in sorted(each["_id"] for each in shards(router))
    ]


def _first_batch(connection: Server, database: str, command: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    return list(connection.command(database, command)["cursor"]["firstBatch"])
