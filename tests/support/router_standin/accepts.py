"""What a mongos accepts, by its version: the commands that this project sends through a router, and their fields.

The stand-in refuses what the table refuses, with mongos' own codes, so every test of a sharded cluster checks what the
tool sends. Where the rows come from:

- a real mongos 5.0.7 showed that `addShardToZone` and `updateZoneKeyRange` refuse a write concern, and that `addShard`,
  `removeShard`, `enableSharding`, `shardCollection` and `movePrimary` take one;
- MongoDB's sources say it of `split`, the balancer's commands, `moveCollection`, `startShardDraining` and
  `commitShardRemoval`; its manual has the fields of the zones' commands, and 8.3 as the first version of the drain's;
- the other rows were written down without looking: check a row against its page (`manual`) before you rely on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Version = tuple[int, int]
MANUAL = "https://www.mongodb.com/docs/manual/reference/command/"
# Fields that any command may carry. A write concern, a read concern and a time limit go with any command that takes
# them; a write concern is what mongos refuses by name elsewhere.
GENERAL = frozenset(
    {"$db", "$clusterTime", "$readPreference", "$audit", "$client", "lsid", "txnNumber", "autocommit", "startTransaction",
     "apiVersion", "apiStrict", "apiDeprecationErrors", "comment", "maxTimeMS", "readConcern", "writeConcern",
     "maxTimeMSOpOnly", "mayBypassWriteBlocking"}
)  # fmt: skip
INVALID_OPTIONS, COMMAND_NOT_FOUND, UNKNOWN_FIELD, NOT_ADMIN = 72, 59, 40415, 13


@dataclass(frozen=True)
class Accepted:
    """A command that mongos accepts.

    Attributes:
        name: the command's.
        write_concern: it takes a `writeConcern`.
        fields: those that it takes besides the general ones; None: whatever a driver sends.
        admin: only on the database admin.
        since: first version that has it.
        before: first version that has it no longer.
        page: its page in the manual, where that is not named after it.
    """

    name: str
    write_concern: bool = False
    fields: frozenset[str] | None = frozenset()
    admin: bool = True
    since: Version = (0, 0)
    before: Version = (1000, 0)
    page: str = ""

    @property
    def manual(self) -> str:
        """Address of its page in the manual."""
        return f"{MANUAL}{self.page or self.name}/"


@dataclass(frozen=True)
class Refusal:
    """Why mongos refuses a command: an error code, its name, and mongos' words."""

    code: int
    name: str
    message: str


def _of(*fields: str) -> frozenset[str]:
    return frozenset(fields)


_ROWS = (
    # Shards
    Accepted("addShard", True, _of("name", "maxSize")),
    Accepted("removeShard", True),
    Accepted("startShardDraining", True, since=(8, 3)),
    Accepted("shardDrainingStatus", since=(8, 3)),
    Accepted("commitShardRemoval", True, since=(8, 3)),
    Accepted("listShards"),
    Accepted("getShardMap"),
    Accepted("movePrimary", True, _of("to")),
    Accepted("moveCollection", False, _of("toShard"), since=(8, 0)),
    # Collections
    Accepted("enableSharding", True, _of("primaryShard")),
    Accepted(
        "shardCollection",
        True,
        _of("key", "unique", "numInitialChunks", "presplitHashedZones", "collation", "timeseries"),
    ),
    Accepted("split", False, _of("find", "middle", "bounds")),
    Accepted(
        "moveChunk",
        True,
        _of("find", "bounds", "to", "forceJumbo", "secondaryThrottle", "_secondaryThrottle",
            "_waitForDelete", "waitForDelete"),
    ),
    Accepted(
        "moveRange",
        True,
        _of("min", "max", "toShard", "forceJumbo", "secondaryThrottle", "waitForDelete"),
        since=(6, 0),
    ),
    # Zones
    Accepted("addShardToZone", False, _of("zone")),
    Accepted("removeShardFromZone", False, _of("zone")),
    Accepted("updateZoneKeyRange", False, _of("min", "max", "zone")),
    # The balancer
    Accepted("balancerStart"),
    Accepted("balancerStop"),
    Accepted("balancerStatus"),
    Accepted("balancerCollectionStatus"),
    # The router itself
    Accepted("hello", fields=None, admin=False),
    Accepted("isMaster", fields=None, admin=False, page="hello"),
    Accepted("ismaster", fields=None, admin=False, page="hello"),
    Accepted("ping", admin=False),
    Accepted("buildInfo", admin=False),
    Accepted("connectionStatus", fields=_of("showPrivileges"), admin=False),
    Accepted("connPoolStats"),
    Accepted("serverStatus", fields=None, admin=False),
    Accepted("listCommands", admin=False),
    Accepted("getLog"),
    Accepted("shutdown", False, _of("force", "timeoutSecs")),
    Accepted("setFeatureCompatibilityVersion", True, _of("confirm")),
    Accepted("endSessions", admin=False),
    Accepted("saslStart", fields=None, admin=False, page="authenticate"),
    Accepted("saslContinue", fields=None, admin=False, page="authenticate"),
    # Data
    Accepted("insert", True, None, admin=False),
    Accepted("update", True, None, admin=False),
    Accepted("delete", True, None, admin=False),
    Accepted("findAndModify", True, None, admin=False),
    Accepted("find", False, None, admin=False),
    Accepted("aggregate", True, None, admin=False),
    Accepted("getMore", False, None, admin=False),
    Accepted("killCursors", False, None, admin=False),
    Accepted("count", False, None, admin=False),
    Accepted("distinct", False, None, admin=False),
    Accepted("listDatabases", False, None),
    Accepted("listCollections", False, None, admin=False),
    Accepted("listIndexes", False, None, admin=False),
    Accepted("create", True, None, admin=False),
    Accepted("createIndexes", True, None, admin=False),
    Accepted("dropIndexes", True, None, admin=False),
    Accepted("drop", True, None, admin=False),
    Accepted("dropDatabase", True, None, admin=False),
    Accepted("collStats", False, None, admin=False),
    Accepted("dbStats", False, None, admin=False),
)  # fmt: skip
TABLE: Mapping[str, Accepted] = {row.name: row for row in _ROWS}


def refusal(version: Version, name: str, fields: Iterable[str], database: str) -> Refusal | None:
    """Why a mongos of a version refuses a command; None: it accepts it, or the table does not know it. Pure.

    Args:
        version: major and minor.
        name: the command's.
        fields: names of its top-level fields.
        database: the database that it is sent to.
    """
    row = TABLE.get(name)
    if row is None:
        return None
    given = set(fields) - {name}
    if not row.since <= version < row.before:
        return Refusal(COMMAND_NOT_FOUND, "CommandNotFound", f"no such command: '{name}'")
    if row.admin and database != "admin":
        return Refusal(NOT_ADMIN, "Unauthorized", f"{name} may only be run against the admin database.")
    if "writeConcern" in given and not row.write_concern:
        return Refusal(INVALID_OPTIONS, "InvalidOptions", "Command does not support writeConcern")
    unknown = sorted(given - row.fields - GENERAL) if row.fields is not None else []
    if unknown:
        return Refusal(
            UNKNOWN_FIELD,
            "Location40415",
            f"BSON field '{name}.{unknown[0]}' is an unknown field.",
        )
    return None
