"""Which rights a command needs: shards trust a router, so the router must check its clients.

A client's privileges are those that the config servers report for its log-in (``connectionStatus`` with
``showPrivileges``). Commands that are relayed to the config servers on the client's own connection are checked there.
Follows https://www.mongodb.com/docs/manual/reference/privilege-actions/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Needs no log-in.
OPEN = frozenset(
    {
        "hello", "isMaster", "ismaster", "ping", "buildInfo", "buildinfo", "saslStart", "saslContinue", "authenticate",
        "logout", "connectionStatus", "whatsmyuri", "listCommands", "endSessions", "isdbgrid",
    }
)  # fmt: skip

# Command → actions on the collection (or database) that it names.
ON_NAMESPACE: Mapping[str, tuple[str, ...]] = {
    "find": ("find",),
    "aggregate": ("find",),
    "count": ("find",),
    "distinct": ("find",),
    "getMore": ("find",),
    "killCursors": ("find",),
    "insert": ("insert",),
    "update": ("update",),
    "delete": ("remove",),
    "findAndModify": ("find", "update"),
    "findandmodify": ("find", "update"),
    "createIndexes": ("createIndex",),
    "dropIndexes": ("dropIndex",),
    "listIndexes": ("listIndexes",),
    "collMod": ("collMod",),
    "create": ("createCollection",),
    "drop": ("dropCollection",),
    "dropDatabase": ("dropDatabase",),
    "collStats": ("collStats",),
    "collstats": ("collStats",),
    "dbStats": ("dbStats",),
    "dbstats": ("dbStats",),
    "listCollections": ("listCollections",),
    "validate": ("validate",),
    "shardCollection": ("enableSharding",),
    "enableSharding": ("enableSharding",),
    "moveChunk": ("moveChunk",),
    "moveRange": ("moveChunk",),
    "movePrimary": ("moveChunk",),
    "split": ("splitChunk",),
    "renameCollection": ("renameCollectionSameDB",),
}

# Command → actions on the cluster.
ON_CLUSTER: Mapping[str, tuple[str, ...]] = {
    "addShard": ("addShard",),
    "removeShard": ("removeShard",),
    "listShards": ("listShards",),
    "getShardMap": ("getShardMap",),
    "balancerCollectionStatus": ("shardingState",),
    "flushRouterConfig": ("flushRouterConfig",),
    "serverStatus": ("serverStatus",),
    "hostInfo": ("hostInfo",),
    "getLog": ("getLog",),
    "getCmdLineOpts": ("getCmdLineOpts",),
    "getParameter": ("getParameter",),
    "connPoolStats": ("connPoolStats",),
    "shutdown": ("shutdown",),
}

# Command → (collection of the database config, actions on it): zones and the balancer's state are kept there.
ON_CONFIG: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "addShardToZone": (("shards", ("update",)),),
    "removeShardFromZone": (("shards", ("update",)), ("tags", ("find",))),
    "updateZoneKeyRange": (("shards", ("find",)), ("tags", ("find", "update", "remove"))),
    "balancerStart": (("settings", ("update",)),),
    "balancerStop": (("settings", ("update",)),),
    "balancerStatus": (("settings", ("find",)),),
}

Privileges = Sequence[Mapping[str, Any]]


def allows(privileges: Privileges, actions: Iterable[str], database: str, collection: str) -> bool:
    """True if all `actions` are granted on a collection (or, with an empty name, on the whole database)."""
    return set(actions) <= granted(privileges, database, collection)


def granted(privileges: Privileges, database: str, collection: str) -> set[str]:
    """Returns the actions that are granted on a collection, or with an empty name on the database."""
    found: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        if resource.get("anyResource") or _covers(resource, database, collection):
            found.update(privilege["actions"])
    return found


def allows_on_cluster(privileges: Privileges, actions: Iterable[str]) -> bool:
    """True if all `actions` are granted on the cluster."""
    found: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        if resource.get("anyResource") or resource.get("cluster"):
            found.update(privilege["actions"])
    return set(actions) <= found


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    if "db" not in resource or resource["db"] not in ("", database):
        return False
    name = resource["collection"]
    # An empty name means every collection but the system's own.
    return bool(name == collection or (name == "" and not collection.startswith("system.")))
