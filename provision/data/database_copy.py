"""One database kept in a folder as it is, and put back: documents as BSON, options, indexes, views, shard keys.

Putting it back restarts nothing and touches no other database. A collection that is as it was is left alone:
MongoDB's `dbHash` tells. https://www.mongodb.com/docs/manual/reference/command/dbHash/
"""

from __future__ import annotations

import functools
import json
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from provision.core.dataclass import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bson import json_util

from provision.core import copying
from provision.core.files import write_atomically
from provision.data.dumps import framing
from provision.data.indexes import to_create

if TYPE_CHECKING:
    from pymongo.collection import Collection
    from pymongo.database import Database

MANIFEST = "manifest.json"
MAKING = ".making-"
"""How the name of a folder begins in which a copy is being made."""
_SCHEMA = 2
_OPTIONS = json_util.CANONICAL_JSON_OPTIONS
_BATCH = 10_000
_IN_FLIGHT = 2  # batches of one collection
_AT_ONCE = 2  # collections
# Documents of a larger collection are not compared one by one: that is done in memory.
_COMPARED_BYTES = 200_000_000
# Where more than this part of the documents differ, to fill the collection anew takes less.
_MOST_DIFFERENT = 0.5

Advance = Callable[[int, int | None], None]
Shard = Callable[[str, Mapping[str, Any]], None]
"""Shards the collection of a namespace by a key, or as the settings say."""


@dataclass(frozen=True)
class KeptCollection:
    """One collection, or view, of a copy."""

    name: str
    kind: str  # MongoDB's type: collection, view or timeseries
    options: Mapping[str, Any]
    indexes: Sequence[Mapping[str, Any]]
    hash: str | None  # of its content, by dbHash; None: not known
    file: str  # of its documents; empty for a view
    documents: int
    bytes: int
    checksum: str  # of that file
    shard_key: Mapping[str, Any] | None  # None: it is not sharded

    @property
    def shape(self) -> str:
        """What is not its documents, as text that can be compared."""
        return _shape(self.kind, self.options, self.indexes)


@dataclass(frozen=True)
class Kept:
    """A copy of a database."""

    folder: Path
    collections: Sequence[KeptCollection]

    @property
    def documents(self) -> int:
        return sum(each.documents for each in self.collections)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.collections)

    @classmethod
    def read(cls, folder: Path) -> Kept | None:
        """The copy in a folder; None: there is none, or a file of it is not as it was written."""
        try:
            found = json_util.loads((folder / MANIFEST).read_text(encoding="utf-8"), json_options=_OPTIONS)
            if found["schema"] != _SCHEMA:
                return None
            kept = cls(folder, tuple(KeptCollection(**each) for each in found["collections"]))
            expected = {folder / each.file: each.checksum for each in kept.collections if each.file}
            if copying.changed(expected):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return kept


def keep(
    database: Database[Any],
    folder: Path,
    shard_keys: Mapping[str, Mapping[str, Any]],
    hashed: bool,
    advance: Advance,
) -> Kept:
    """Copy a database into a folder, which is there when the copy is complete.

    `shard_keys`: namespace → key, of those collections that are sharded. `hashed`: the server can run dbHash.
    Raises OSError: it can't be written. PyMongoError: the server refused.
    """
    making = folder.with_name(f"{MAKING}{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    making.mkdir(mode=0o700)
    try:
        kept = []
        found = _present(database)
        plain = [name for name, each in found.items() if each.kind == "collection"] if hashed else []
        before = _hashes(database, plain)
        done = 0
        for number, (name, present) in enumerate(sorted(found.items())):
            file = f"{number}.bson" if present.kind != "view" else ""
            count, size, checksum = 0, 0, ""
            if file:
                told = functools.partial(_told, advance, done)
                count, size, checksum = _copied(database[name], making / file, told)
            done += count
            key = shard_keys.get(f"{database.name}.{name}")
            kept.append(
                KeptCollection(
                    name, present.kind, present.options, present.indexes, None, file, count, size, checksum, key
                )
            )
        # One that an app has written to meanwhile is filled again next time.
        hashes = dict(before.items() & _hashes(database, plain).items())
        kept = [KeptCollection(**{**vars(each), "hash": hashes.get(each.name)}) for each in kept]
        manifest = {"schema": _SCHEMA, "collections": [vars(each) for each in kept]}
        text = json.dumps(json.loads(json_util.dumps(manifest, json_options=_OPTIONS)), indent=1)
        write_atomically(making / MANIFEST, text, 0o600)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return Kept(folder, tuple(kept))


def _copied(collection: Collection[Any], file: Path, told: Callable[[int], None]) -> tuple[int, int, str]:
    """Write all documents into a new file. `told`: how many there are so far.

    Returns: How many, their bytes, and the checksum of these.
    """
    count = size = found = 0
    with file.open("xb") as sink:
        for batch in _raw_batches(collection):
            sink.write(batch)
            found = zlib.crc32(batch, found)
            size += len(batch)
            count += framing.count(batch)
            told(count)
    return count, size, copying.crc32(found)


def _told(advance: Advance, before: int, count: int) -> None:
    advance(before + count, None)


def _raw_batches(collection: Collection[Any]) -> Iterator[bytes]:
    cursor = collection.find_raw_batches({}, batch_size=_BATCH)
    yield from cursor


@dataclass(frozen=True)
class _Present:
    """What a database has of one name now."""

    kind: str
    options: Mapping[str, Any]
    indexes: Sequence[Mapping[str, Any]]

    @property
    def shape(self) -> str:
        return _shape(self.kind, self.options, self.indexes)


def _present(database: Database[Any]) -> dict[str, _Present]:
    found = {}
    for each in database.list_collections():
        if each["name"].startswith("system."):
            continue
        kind = each.get("type", "collection")
        indexes = [] if kind == "view" else [dict(index) for index in database[each["name"]].list_indexes()]
        found[each["name"]] = _Present(kind, dict(each.get("options") or {}), indexes)
    return found


def _shape(kind: str, options: Mapping[str, Any], indexes: Sequence[Mapping[str, Any]]) -> str:
    ordered = sorted((dict(each) for each in indexes), key=lambda each: str(each.get("name")))
    return json_util.dumps([kind, options, ordered], json_options=_OPTIONS)


def _hashes(database: Database[Any], names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    return dict(database.command({"dbHash": 1, "collections": list(names)})["collections"])


@dataclass(frozen=True)
class PutBack:
    """What putting a copy back did."""

    documents: int  # how many were written
    refilled: Sequence[str]  # collections that were not as they were
    removed: Sequence[str]  # collections that the copy does not have


def put_back(
    database: Database[Any], kept: Kept, hashed: bool, shard: Shard | None, advance: Advance
) -> PutBack:
    """Make a database what a copy of it is. `hashed`: as for `keep`.

    `shard`: the server is a router; then the database is dropped as a whole, and its collections are sharded again.
    Raises OSError: the copy can't be read. PyMongoError: the server refused.
    """
    if shard is not None:
        database.client.drop_database(database.name)
    present = _present(database)
    wanted = {each.name: each for each in kept.collections}
    removed = sorted(present.keys() - wanted.keys())
    for name in removed:
        database.drop_collection(name)
    alike = [each for each in kept.collections if each.name in present and present[each.name].shape == each.shape]
    same = {each.name for each in alike if each.kind == "view"}
    same |= _of_same_content(database, [each for each in alike if each.hash is not None]) if hashed else set()
    changed = [each for each in kept.collections if each.name not in same]
    steps = _Steps(sum(each.documents for each in changed), advance)

    def restore(each: KeptCollection) -> None:
        if each in alike and (corrected := _corrected(database[each.name], kept.folder, each)) is not None:
            steps.done(corrected)
            return
        _made(database, each, shard)
        for count in _filled(database, kept.folder, each):
            steps.done(count)

    # Collections of a sharded cluster are made one after another: to shard one takes a lock of the whole cluster.
    with ThreadPoolExecutor(1 if shard is not None else _AT_ONCE, thread_name_prefix="restore") as pool:
        list(pool.map(restore, (each for each in changed if each.kind != "view")))
    for each in changed:
        if each.kind == "view":  # it stands on collections
            restore(each)
    return PutBack(steps.count, tuple(each.name for each in changed), tuple(removed))


def _of_same_content(database: Database[Any], candidates: Sequence[KeptCollection]) -> set[str]:
    """The collections whose documents are as they were. The server reads all of those that have as many as before."""
    asked = [
        each.name for each in candidates if database[each.name].estimated_document_count() == each.documents
    ]
    hashes = _hashes(database, asked)
    return {each.name for each in candidates if hashes.get(each.name) == each.hash}


class _Steps:
    """Counts what several threads have written."""

    def __init__(self, total: int, advance: Advance) -> None:
        self._lock = threading.Lock()
        self._total, self._advance = total, advance
        self.count = 0

    def done(self, count: int) -> None:
        with self._lock:
            self.count += count
            self._advance(self.count, self._total)


def _corrected(collection: Collection[Any], folder: Path, wanted: KeptCollection) -> int | None:
    """Remove the documents that are not as they were, then insert those that are missing: no index is in the way.

    Returns: How many were inserted; None: this collection has to be filled anew, and nothing was done.
    """
    from bson.raw_bson import RawBSONDocument

    plain = wanted.kind == "collection" and not wanted.options.get("capped")
    if not plain or max(wanted.bytes, _size(collection)) > _COMPARED_BYTES:
        return None
    missing = dict.fromkeys(framing.split((folder / wanted.file).read_bytes()))
    most = max(_MOST_DIFFERENT * len(missing), 1)
    wrong: list[Any] = []
    for batch in _raw_batches(collection):
        for document in framing.split(batch):
            if document in missing:
                del missing[document]
            else:
                wrong.append(RawBSONDocument(document)["_id"])
    if len(wrong) + len(missing) > most and len(missing) > _BATCH:
        return None
    for at in range(0, len(wrong), _BATCH):
        collection.delete_many({"_id": {"$in": wrong[at : at + _BATCH]}})
    again = list(missing)
    for at in range(0, len(again), _BATCH):
        _insert(collection, again[at : at + _BATCH])
    return len(again)


def _size(collection: Collection[Any]) -> int:
    """The bytes of its documents."""
    return int(collection.database.command({"collStats": collection.name}).get("size", 0))


def _made(database: Database[Any], wanted: KeptCollection, shard: Shard | None) -> None:
    """Make the collection anew, empty, with the options and indexes that it had."""
    collection = database[wanted.name]
    if shard is None:
        collection.drop()
    database.command({"create": wanted.name, **wanted.options})
    if shard is not None and wanted.shard_key is not None:
        shard(f"{database.name}.{wanted.name}", wanted.shard_key)
    if indexes := to_create(wanted.options, wanted.indexes):
        database.command({"createIndexes": wanted.name, "indexes": indexes})


def _filled(database: Database[Any], folder: Path, wanted: KeptCollection) -> Iterator[int]:
    """Insert the documents of a copy; gives the number of each batch."""
    if not wanted.file:
        return
    # A capped collection keeps the order.
    in_flight = 1 if wanted.options.get("capped") else _IN_FLIGHT
    collection = database[wanted.name]
    with (
        (folder / wanted.file).open("rb") as file,
        ThreadPoolExecutor(in_flight, thread_name_prefix="fill") as pool,
    ):
        pending: list[Any] = []
        try:
            for batch in framing.batches(file, folder / wanted.file):
                if len(pending) >= in_flight:
                    yield pending.pop(0).result()
                pending.append(pool.submit(_insert, collection, batch.documents))
            for each in pending:
                yield each.result()
        finally:
            for each in pending:
                each.cancel()


def _insert(collection: Collection[Any], batch: Sequence[bytes]) -> int:
    from bson.raw_bson import RawBSONDocument

    documents = [RawBSONDocument(each) for each in batch]
    collection.insert_many(documents, ordered=False, bypass_document_validation=True)
    return len(batch)
