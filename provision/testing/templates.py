"""A database that each test finds as a template left it: reset, not rebuilt.

What a test has written is read from the server, for every client counts: the app has one of its own, maybe in another
process. On a replica set that is the oplog, which holds each change of documents, indexes and collections, also those
of transactions, of TTL indexes and of other clients.
https://www.mongodb.com/docs/manual/core/replica-set-oplog/
Where there is no oplog to be read (a standalone, a sharded cluster, a user without the right to), documents and
indexes are read and compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from provision.core.dataclass import dataclass

if TYPE_CHECKING:
    from bson.raw_bson import RawBSONDocument
    from bson.timestamp import Timestamp
    from pymongo.database import Database

Fill = Callable[["Database[dict[str, Any]]"], object]
"""Fills an empty database: what the fixture `database_template` gives."""
_STRUCTURE = frozenset(
    (
        *("create", "drop", "renameCollection", "collMod", "convertToCapped", "dropDatabase"),
        *("createIndexes", "startIndexBuild", "commitIndexBuild", "abortIndexBuild"),
        *("dropIndexes", "deleteIndexes", "deleteIndex", "dropIndex"),
    )
)
"""Commands in the oplog that change no document of a collection that stays."""
_NO_DOCUMENTS = frozenset(("applyOps", "commitTransaction", "abortTransaction"))
_BUCKETS = "system.buckets."
_ACCOUNTS = ("admin.system.users", "admin.system.roles")
"""Where the users and roles of all databases are."""


@dataclass(frozen=True)
class Stored:
    """A collection, view or time series of a template."""

    kind: str  # ``collection``, ``view`` or ``timeseries``
    options: Mapping[str, Any]  # as the command `create` takes them
    indexes: tuple[Mapping[str, Any], ...] = ()  # without that on _id
    documents: tuple[RawBSONDocument, ...] = field(default=(), repr=False)
    shard_key: Mapping[str, Any] | None = None  # `key` and `unique`, where it is sharded

    @property
    def is_replaced(self) -> bool:
        """Whether it is dropped and made again, for its documents can't be deleted one by one in every version."""
        return self.kind == "timeseries" or bool(self.options.get("capped"))


@dataclass(frozen=True)
class Found:
    """A collection, view or time series that a database has now."""

    kind: str
    options: Mapping[str, Any]
    identity: Any  # its UUID: another one after it was dropped and made again, or renamed
    shard_key: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Written:
    """What was changed in a database."""

    collections: frozenset[str] = frozenset()  # whose documents were changed
    structure: bool = False  # whether collections, views or indexes may have been
    everything: bool = False  # unknown: take all for changed
    accounts: bool = False  # whether users or roles may have been, of whichever database


@dataclass(frozen=True)
class Reset:
    """What brings a database back to its template."""

    drop: tuple[str, ...]
    create: tuple[str, ...]  # and fill
    refill: tuple[str, ...]  # those that stay
    compare_indexes: tuple[str, ...]


def written(entries: Iterable[Mapping[str, Any]], database: str) -> Written:
    """What the entries of an oplog change in a database. Pure."""
    names: set[str] = set()
    structure = everything = accounts = False
    waiting = list(entries)
    while waiting:
        entry = waiting.pop()
        owner, _, collection = str(entry.get("ns", "")).partition(".")
        command = entry.get("o") or {}
        if entry.get("op") == "c":
            verb = next(iter(command), "")
            if verb == "applyOps":  # a transaction, or several writes as one entry
                waiting += command["applyOps"]
            elif owner == database and verb in _STRUCTURE:
                structure = True
            elif owner == database and verb not in _NO_DOCUMENTS:
                everything = True
        elif entry.get("ns") in _ACCOUNTS:
            accounts = True
        elif entry.get("op") in ("i", "u", "d") and owner == database:
            if collection == "system.views":
                structure = True
            names.add(collection.removeprefix(_BUCKETS))
    return Written(frozenset(names), structure, everything, accounts)


def reset_of(
    content: Mapping[str, Stored], known: Mapping[str, Any], found: Mapping[str, Found], changes: Written
) -> Reset:
    """What a reset has to do. Pure.

    `known`: the identity that each collection had at the end of the last reset.
    """
    drop, refill, compare = [], [], []
    for name, now in found.items():
        stored = content.get(name)
        same = (
            stored is not None
            and (now.kind, now.options, now.shard_key) == (stored.kind, stored.options, stored.shard_key)
            and now.identity == known.get(name)
        )
        dirty = changes.everything or name in changes.collections
        if stored is None or not same or (dirty and stored.is_replaced):
            drop.append(name)
        elif stored.kind != "view":
            if dirty:
                refill.append(name)
            if changes.structure or changes.everything:
                compare.append(name)
    create = [name for name in content if name not in found or name in drop]
    # A view or time series takes what it is made of with it.
    drop.sort(key=lambda name: found[name].kind == "collection")
    return Reset(tuple(drop), tuple(create), tuple(refill), tuple(compare))


class Template:
    """What a database holds when a test begins.

    It is kept in memory, so that a database can be brought back to it, or made again, without the function that has
    filled the first one.
    """

    def __init__(self, content: Mapping[str, Stored]) -> None:
        self.content = content

    @classmethod
    def of(cls, database: Database[dict[str, Any]], sharded: bool) -> Template:
        """Read a database."""
        content = {}
        for name, found in _found(database, sharded).items():
            plain = found.kind == "collection"
            content[name] = Stored(
                found.kind,
                found.options,
                tuple(_indexes(database, name)) if found.kind != "view" else (),
                tuple(_documents(database, name)) if plain or found.kind == "timeseries" else (),
                found.shard_key,
            )
        return cls(content)


class Copy:
    """A database that is a template's, and is brought back to it."""

    def __init__(self, database: Database[dict[str, Any]], template: Template, sharded: bool) -> None:
        from pymongo.write_concern import WriteConcern

        self.database = database
        # Waiting for the journal at each write takes most of the time: `_settle` waits once, for all of them.
        concern = WriteConcern() if sharded else WriteConcern(w=1)
        self._quick = database.client.get_database(database.name, write_concern=concern)
        self._template = template
        self._sharded = sharded
        self._known: dict[str, Any] = {}
        self._accounts: frozenset[tuple[str, str]] = frozenset()
        self._position: Timestamp | None = None

    def adopt(self) -> None:
        """Take the database as it is for equal to the template."""
        self._known = {name: found.identity for name, found in _found(self.database, self._sharded).items()}
        self._accounts = _accounts(self.database)
        self._settle()

    def build(self) -> None:
        """Fill an empty database."""
        for name in self._template.content:
            self._create(name)
        self.adopt()

    def reset(self) -> None:
        """Bring it back, whichever client has written to it.

        Raises PyMongoError: the server does not answer, or refuses.
        """
        changes = self._written()
        found = _found(self.database, self._sharded)
        plan = reset_of(self._template.content, self._known, found, changes)
        indexes = {name: self._wrong_indexes(name) for name in plan.compare_indexes}
        for name in plan.drop:
            if name == "system.profile":
                self._quick.command("profile", 0)
            self._quick.drop_collection(name)
        for name in plan.create:
            self._create(name)
        for name, (extra, _) in indexes.items():
            for index in extra:  # a unique one would stand in the way of the documents
                self._quick[name].drop_index(index)
        for name in plan.refill:
            self._quick[name].delete_many({})
        for name, (_, missing) in indexes.items():
            self._create_indexes(name, missing)
        for name in plan.refill:
            self._insert(name)
        if plan.drop or plan.create:
            now = _found(self.database, self._sharded)
            self._known = {name: each.identity for name, each in now.items()}
        extra_accounts = _accounts(self.database) - self._accounts if changes.accounts else frozenset()
        for drop, account in extra_accounts:
            self.database.command(drop, account)
        if plan.drop or plan.create or plan.refill or extra_accounts or any(map(any, indexes.values())):
            self._settle()

    def _written(self) -> Written:
        from pymongo.errors import OperationFailure

        if self._position is None:
            return self._compared()
        try:
            entries, self._position = _oplog_since(self.database, self._position)
        except OperationFailure:
            entries = None  # without the right to
        return self._compared() if entries is None else written(entries, self.database.name)

    def _compared(self) -> Written:
        """What has changed, by reading all of it."""
        there = set(_found(self.database, self._sharded))
        changed = set()
        for name, stored in self._template.content.items():
            if stored.kind == "view" or name not in there:
                continue
            documents = [bytes(document.raw) for document in _documents(self.database, name)]
            expected = [bytes(document.raw) for document in stored.documents]
            # Documents of several shards come in no order.
            if documents != expected and (not self._sharded or sorted(documents) != sorted(expected)):
                changed.add(name)
        return Written(frozenset(changed), structure=True, accounts=True)

    def _wrong_indexes(self, name: str) -> tuple[list[str], list[Mapping[str, Any]]]:
        """The names of the indexes that don't belong there, and those that lack."""
        stored = [_comparable(index) for index in self._template.content[name].indexes]
        now = _indexes(self.database, name)
        extra = [str(index["name"]) for index in now if _comparable(index) not in stored]
        there = [_comparable(index) for index in now]
        lacking = self._template.content[name].indexes
        return extra, [index for index in lacking if _comparable(index) not in there]

    def _create(self, name: str) -> None:
        stored = self._template.content[name]
        self._quick.command({"create": name, **stored.options})
        if stored.kind == "view":
            return
        if stored.shard_key is not None:
            self.database.client.admin.command(
                {"shardCollection": f"{self.database.name}.{name}", **stored.shard_key}
            )
        there = [_comparable(index) for index in _indexes(self.database, name)]
        self._create_indexes(name, [index for index in stored.indexes if _comparable(index) not in there])
        self._insert(name)

    def _create_indexes(self, name: str, indexes: Sequence[Mapping[str, Any]]) -> None:
        if indexes:
            self._quick.command({"createIndexes": name, "indexes": list(indexes)})

    def _insert(self, name: str) -> None:
        stored = self._template.content[name]
        if stored.documents:
            # A document that its collection's validator would refuse is there because the template has put it there.
            plain = stored.kind == "collection"
            self._quick[name].insert_many(stored.documents, bypass_document_validation=plain or None)

    def _settle(self) -> None:
        """Wait until what was written is there for majority reads and snapshots, and note where the oplog stands.

        A delete that finds nothing waits for all writes before it.
        """
        concern = {} if self._sharded else {"writeConcern": {"w": "majority"}}
        reply = self._quick.command(
            {
                "delete": "provision.settled",
                "deletes": [{"q": {"_id": "no such document"}, "limit": 1}],
                **concern,
            }
        )
        self._position = None if self._sharded else reply.get("operationTime")


def _oplog_since(
    database: Database[dict[str, Any]], position: Timestamp
) -> tuple[list[dict[str, Any]] | None, Timestamp]:
    """The entries that may be about a database, and where to read on the next time.

    None: the oplog does not reach back so far. A scan of the oplog waits until all writes that began before it are
    visible, so none is left out that ends later than a younger one.
    """
    oplog = database.client.local["oplog.rs"]
    with database.client.start_session(causal_consistency=False) as session:
        database.client.admin.command("ping", session=session)
        now = session.operation_time or position
    found = oplog.find(
        {
            "ts": {"$gt": position},
            "ns": {"$in": [re.compile(f"^{re.escape(database.name)}\\."), "admin.$cmd", *_ACCOUNTS]},
        },
        {"_id": 0, "op": 1, "ns": 1, "o": {"$cond": [{"$eq": ["$op", "c"]}, "$o", "$$REMOVE"]}},
    )
    entries = list(found)
    oldest = oplog.find_one({}, {"ts": 1}, sort=[("$natural", 1)])
    return (entries if oldest is not None and oldest["ts"] <= position else None), now


def _found(database: Database[dict[str, Any]], sharded: bool) -> dict[str, Found]:
    keys = {}
    if sharded:
        spaces = database.client.config.collections.find(
            {"_id": re.compile(f"^{re.escape(database.name)}\\.")}
        )
        keys = {
            str(space["_id"]).partition(".")[2]: {
                "key": space["key"],
                **({"unique": True} if space.get("unique") else {}),
            }
            for space in spaces
            if "key" in space and not space.get("unsplittable")
        }
    listed = {each["name"]: each for each in database.list_collections()}
    uuids = {name: each.get("info", {}).get("uuid") for name, each in listed.items()}
    return {
        name: Found(
            each["type"],
            each["options"],
            # A time series is a view of its buckets.
            uuids[name] or uuids.get(f"{_BUCKETS}{name}"),
            keys.get(name, keys.get(f"{_BUCKETS}{name}")),
        )
        for name, each in listed.items()
        if name != "system.views" and not name.startswith(_BUCKETS)
    }


def _accounts(database: Database[dict[str, Any]]) -> frozenset[tuple[str, str]]:
    """The users and roles of a database, each with the command that drops it; none without the right to see them."""
    from pymongo.errors import OperationFailure

    try:
        users = database.command("usersInfo")["users"]
        roles = database.command("rolesInfo", 1)["roles"]
    except OperationFailure:
        return frozenset()
    return frozenset(
        [("dropUser", str(each["user"])) for each in users]
        + [("dropRole", str(each["role"])) for each in roles]
    )


def _indexes(database: Database[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    listed = database[name].list_indexes()
    return [
        {key: value for key, value in index.items() if key != "ns"}
        for index in listed
        if index["name"] != "_id_" and not index.get("clustered")
    ]


def _comparable(index: Mapping[str, Any]) -> tuple[Any, ...]:
    """An index such that two are equal if they are the same; the order of its fields counts."""
    return [*index["key"].items()], {key: value for key, value in index.items() if key not in ("key", "v")}


def _documents(database: Database[dict[str, Any]], name: str) -> list[RawBSONDocument]:
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument

    options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    return list(database.get_collection(name, codec_options=options).find())  # type: ignore[arg-type]
