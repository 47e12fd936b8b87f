"""Loads a dump: documents go from files to the server as they are, and are never decoded.

As mongorestore does, it only inserts: a document whose ``_id`` is there already is counted and left as it is.
https://www.mongodb.com/docs/database-tools/mongorestore/mongorestore-behavior-access-usage/
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from provision.core.dataclass import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError, did_you_mean
from provision.core.steps import Progress
from provision.data.connection import said
from provision.data.dumps import folder as names
from provision.data.dumps import framing
from provision.data.dumps.folder import Metadata
from provision.data.dumps.framing import Batch, DumpDamaged
from provision.data.dumps.parallel import in_parallel
from provision.data.indexes import to_create

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection
    from pymongo.database import Database

Recreate = Callable[[str], Callable[[], None] | None]

_DUPLICATE_KEY = 11000
# Options of old servers, which present ones refuse or make of themselves.
_FORMER_OPTIONS = frozenset({"autoIndexId", "flags", "create", "temp"})


@dataclass(frozen=True)
class LoadedCollection:
    """One collection that was loaded.

    `documents` were inserted (of a time series: buckets); `duplicates` were there already and were left as they are.
    """

    namespace: str
    kind: names.Kind
    documents: int
    duplicates: int
    indexes: int  # those created, or found as they should be, besides the one on `_id`
    dropped: bool  # it was there, and was dropped first
    kept: bool  # it was there, and has kept its options


@dataclass(frozen=True)
class Dumped:
    """One collection in a folder."""

    database: str
    metadata: Metadata
    data: Path | None  # its documents; None: there are none, as of a view

    @property
    def namespace(self) -> str:
        """``database.collection``, as people name it."""
        return f"{self.database}.{self.metadata.name}"


@dataclass(frozen=True)
class Contents:
    """What is in the folder of a dump."""

    collections: list[Dumped]
    left_out: list[str] = field(default_factory=list)  # what is in it and is not loaded, and why


def contents(folder: Path) -> Contents:
    """Read what a dump holds: a folder with one for each database, or that of a single database.

    Raises ProvisionError: it is neither, or a file's name or metadata can't be understood.
    """
    doing = f"reading the dump {folder}"
    try:
        if not folder.is_dir():
            raise ProvisionError(
                doing, f"There is no folder {folder}.", "Name the folder that was dumped into: invoke load dump"
            )
        entries = sorted(folder.iterdir())
        if any(names.split(each.name) for each in entries if each.is_file() and each.name != "oplog.bson"):
            return _of_databases([folder.resolve()], [])
        databases = [each for each in entries if each.is_dir()]
        left_out = [
            f"{each.name}: the oplog is not replayed" for each in entries if each.name == "oplog.bson"
        ]
        found = _of_databases(databases, left_out)
    except OSError as error:
        raise _unreadable(error, doing) from None
    if not found.collections and not found.left_out:
        raise ProvisionError(
            doing,
            "There is no .bson and no .metadata.json file in it.",
            "Name the folder that was dumped into: invoke load dump",
        )
    return found


def _of_databases(databases: Sequence[Path], left_out: list[str]) -> Contents:
    collections: list[Dumped] = []
    for folder in databases:
        if folder.name in names.SYSTEM_DATABASES:
            left_out.append(f"{folder.name}: it belongs to the server that was dumped")
            continue
        for each in _of_database(folder):
            if names.is_left_out(each.metadata.name):
                left_out.append(f"{each.namespace}: it belongs to the server that was dumped")
            else:
                collections.append(each)
    return Contents(collections, left_out)


def _of_database(folder: Path) -> Iterator[Dumped]:
    data: dict[str, Path] = {}
    described: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        parts = names.split(file.name)
        if parts is not None and file.is_file():
            (data if parts[1] == "data" else described)[parts[0]] = file
    for stem, file in described.items():
        metadata = _metadata(file, stem)
        own = data.pop(names.stem(metadata.data_name), None) or data.pop(stem, None)
        yield Dumped(folder.name, metadata, own)
    for stem, file in data.items():
        if names.is_cut(stem):
            raise DumpDamaged(file, 0, "The name of its collection is in a .metadata.json that is missing")
        yield Dumped(folder.name, Metadata(_name(file, stem)), file)


def _metadata(file: Path, stem: str) -> Metadata:
    text = framing.read_text(file)
    try:
        return names.from_text(text, names.collection_name(stem))
    except (ValueError, TypeError, KeyError) as error:
        raise DumpDamaged(file, getattr(error, "pos", 0), f"It is not what mongodump writes: {error}") from None


def _name(file: Path, stem: str) -> str:
    try:
        return names.collection_name(stem)
    except ValueError as error:
        raise DumpDamaged(file, 0, f"Its name is not percent-encoded: {error}") from None


def chosen(found: Contents, database: str, only: Sequence[str], into: str, doing: str) -> list[Dumped]:
    """The collections to load, under the names of their databases here. Pure.

    Args:
        database: of this database of the dump alone; empty: of all.
        only: these alone; none: all.
        into: the database that they are loaded into; empty: one of the same name.

    Raises ProvisionError: the dump has no such database or collection, or several databases would go into one.
    """
    databases = sorted({each.database for each in found.collections})
    if database and database not in databases:
        raise ProvisionError(
            doing,
            f"The dump has no database {database}{did_you_mean(database, databases)}.",
            f"Name one of these: {', '.join(databases) or 'there is none to load'}",
        )
    wanted = [each for each in found.collections if database in ("", each.database)]
    known = {each.metadata.name for each in wanted}
    if missing := [name for name in only if name not in known]:
        raise ProvisionError(
            doing,
            f"The dump has no collection {missing[0]}{did_you_mean(missing[0], known)}.",
            f"It has {', '.join(sorted(known)) or 'none'}.",
        )
    wanted = [each for each in wanted if not only or each.metadata.name in only]
    if into:
        if len({each.database for each in wanted}) > 1:
            raise ProvisionError(
                doing,
                f"The dump has the databases {', '.join(databases)}, and they can't all go into {into}.",
                f"Name one of them: invoke load FOLDER --database {databases[0]} --into {into}",
            )
        wanted = [replace(each, database=into) for each in wanted]
    if refused := sorted({each.database for each in wanted} & names.SYSTEM_DATABASES):
        raise ProvisionError(
            doing,
            f"The database {refused[0]} belongs to the server.",
            "Name another one: invoke load FOLDER --into NAME",
        )
    return wanted


def load(
    client: MongoClient[Any],
    wanted: Sequence[Dumped],
    drop: bool,
    progress: Progress,
    doing: str,
    recreate: Recreate | None = None,
) -> list[LoadedCollection]:
    """Load collections, then views.

    Args:
        drop: drop what has one of their names first.
        recreate: given a namespace that will be dropped, gives what makes it anew as the deployment had it (its shard
            key), or None; called when the collection is there again and empty.

    Raises ProvisionError: a file can't be read or is damaged, or the server refuses what is in it. It says what was
    loaded until then.
    """
    _require_kinds(client, wanted, drop, doing)
    total = sum(each.data.stat().st_size for each in wanted if each.data)
    sizes = _Sizes(progress, total)
    finished: list[LoadedCollection] = []
    under_way: dict[str, LoadedCollection] = {}

    def work(each: Dumped, stopped: Callable[[], bool]) -> LoadedCollection:
        loading = _Loading(client, each, drop, sizes, stopped, under_way, recreate)
        done = loading.run()
        if loading.complete:
            finished.append(done)
        return done

    collections = [each for each in wanted if each.metadata.kind != "view"]
    collections.sort(key=lambda each: -(each.data.stat().st_size if each.data else 0))
    views = [each for each in wanted if each.metadata.kind == "view"]
    try:
        done = in_parallel(work, collections)
        done += [work(each, lambda: False) for each in views]
    except _failures() as error:
        raise _stopped(error, doing, finished, under_way) from None
    return sorted(done, key=lambda each: each.namespace)


def _failures() -> tuple[type[Exception], ...]:
    from pymongo.errors import PyMongoError

    return (ProvisionError, PyMongoError, OSError)


def _stopped(
    error: Exception, doing: str, finished: Sequence[LoadedCollection], under_way: dict[str, LoadedCollection]
) -> ProvisionError:
    """The error with what was loaded until then."""
    whole = [f"{each.namespace} ({each.documents:,} documents)" for each in finished]
    of_part = [
        f"{name} ({each.documents:,} documents, without its indexes)"
        for name, each in under_way.items()
        if each.documents and name not in {done.namespace for done in finished}
    ]
    told = "Loaded before that: " + (", ".join(sorted(whole + of_part)) or "nothing") + "."
    if isinstance(error, DumpDamaged):
        error.cause += "\n" + told
        return error
    if isinstance(error, ProvisionError):
        return ProvisionError(error.doing, f"{error.cause}\n{told}", error.remedy)
    if isinstance(error, OSError):
        failed = _unreadable(error, doing)
        return ProvisionError(failed.doing, f"{failed.cause}\n{told}", failed.remedy)
    return ProvisionError(
        doing,
        f"{said(error)}\n{told}",
        "Look at the deployment: invoke status",
    )


def _unreadable(error: OSError, doing: str) -> ProvisionError:
    name = f"{error.filename}: " if error.filename else ""
    return ProvisionError(
        doing, f"{name}{error.strerror or error}.", "Look at the permissions of the folder: ls -l"
    )


def _require_kinds(client: MongoClient[Any], wanted: Sequence[Dumped], drop: bool, doing: str) -> None:
    """Refuse before anything is changed what can't be inserted into what is there."""
    if drop:
        return
    for database in sorted({each.database for each in wanted}):
        present = {each["name"]: each.get("type", "collection") for each in client[database].list_collections()}
        for each in wanted:
            here = present.get(each.metadata.name)
            if each.database == database and here not in (None, each.metadata.kind):
                raise ProvisionError(
                    doing,
                    f"{each.namespace} is a {each.metadata.kind} in the dump, and a {here} on the server. "
                    "Nothing was changed.",
                    "Drop what is there: invoke load FOLDER --drop; or load the others: invoke load FOLDER --only",
                )


class _Sizes:
    """Bytes of files that were read, of all threads."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def advance(self, more: int) -> None:
        with self._lock:
            self._done += more
            self._progress.advance(self._done, self._total)


class _Loading:
    """One collection on its way into the server."""

    def __init__(
        self,
        client: MongoClient[Any],
        dumped: Dumped,
        drop: bool,
        sizes: _Sizes,
        stopped: Callable[[], bool],
        under_way: dict[str, LoadedCollection],
        recreate: Recreate | None,
    ) -> None:
        self._database: Database[Any] = client[dumped.database]
        self._dumped = dumped
        self._metadata = dumped.metadata
        self._drop = drop
        self._sizes = sizes
        self._stopped = stopped
        self._under_way = under_way
        self._recreate = recreate
        self._documents = self._duplicates = 0
        self.complete = False  # not where it was told to stop

    def run(self) -> LoadedCollection:
        name = self._metadata.name
        present = next(iter(self._database.list_collections(filter={"name": name})), None)
        dropped = False
        again: Callable[[], None] | None = None
        if present is not None and self._drop:
            if self._recreate is not None and self._metadata.kind == "collection":
                again = self._recreate(self._dumped.namespace)
            self._database[name].drop()
            dropped, present = True, None
        if present is None:
            self._database.command({"create": name, **self._options()})
        if again is not None:
            again()
        self._under_way[self._dumped.namespace] = self._so_far(0, dropped, present is not None)
        if self._dumped.data is not None:
            self._insert(self._dumped.data, dropped, present is not None)
        if self._stopped():
            return self._so_far(0, dropped, present is not None)
        indexes = 0 if self._metadata.kind == "view" else self._create_indexes()
        self.complete = True
        return self._so_far(indexes, dropped, present is not None)

    def _so_far(self, indexes: int, dropped: bool, kept: bool) -> LoadedCollection:
        return LoadedCollection(
            self._dumped.namespace,
            self._metadata.kind,
            self._documents,
            self._duplicates,
            indexes,
            dropped,
            kept,
        )

    def _options(self) -> dict[str, Any]:
        return {key: value for key, value in self._metadata.options.items() if key not in _FORMER_OPTIONS}

    def _insert(self, file: Path, dropped: bool, kept: bool) -> None:
        from pymongo.errors import BulkWriteError, OperationFailure

        collection = self._database[self._metadata.data_name]
        read = 0
        with framing.opened(file) as (content, raw):
            for batch in framing.batches(content, file):
                if self._stopped():
                    return
                try:
                    self._insert_batch(collection, batch)
                except BulkWriteError as error:
                    self._judge(error.details, len(batch.documents), file)
                except OperationFailure as error:
                    raise _guilty(batch, file) or error from None
                else:
                    self._documents += len(batch.documents)
                self._under_way[self._dumped.namespace] = self._so_far(0, dropped, kept)
                at = raw.tell()
                self._sizes.advance(at - read)
                read = at

    def _insert_batch(self, collection: Collection[Any], batch: Batch) -> None:
        from bson.raw_bson import RawBSONDocument

        # The documents of a capped collection stay in their order. A validator may be younger than documents are.
        collection.insert_many(
            [RawBSONDocument(document) for document in batch.documents],
            ordered=bool(self._metadata.options.get("capped")),
            bypass_document_validation=self._metadata.kind == "collection" or None,
        )

    def _judge(self, details: Any, given: int, file: Path) -> None:
        """Count the duplicates of a batch.

        Raises ProvisionError: the server has refused a document for another reason.
        """
        refused = details.get("writeErrors", [])
        others = [each for each in refused if each.get("code") != _DUPLICATE_KEY]
        self._documents += details.get("nInserted", 0)
        self._duplicates += len(refused) - len(others)
        if others or details.get("writeConcernErrors"):
            why = others[0]["errmsg"] if others else str(details["writeConcernErrors"][0].get("errmsg"))
            raise ProvisionError(
                f"loading {self._dumped.namespace} from {file}",
                f"The server refused {len(others):,} of {given:,} documents: {why}",
                "Load the other collections: invoke load FOLDER --only",
            )

    def _create_indexes(self) -> int:
        from pymongo.errors import OperationFailure

        wanted = to_create(self._metadata.options, self._metadata.indexes)
        if not wanted:
            return 0
        name = self._metadata.name
        try:
            self._database.command({"createIndexes": name, "indexes": wanted})
        except OperationFailure as error:
            raise ProvisionError(
                f"creating the indexes of {self._dumped.namespace}",
                said(error),
                "What is there already may not fit. Drop it first: invoke load FOLDER --drop",
            ) from None
        return len(wanted)


def _guilty(batch: Batch, file: Path) -> DumpDamaged | None:
    """The first document of a batch that is not BSON; None: all of them are."""
    import bson
    from bson.codec_options import CodecOptions, DatetimeConversion

    options: CodecOptions[Any] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
    at = batch.offset
    for document in batch.documents:
        try:
            bson.decode(document, options)
        except Exception as error:  # noqa: BLE001 — whatever stops the decoder
            return DumpDamaged(file, at, f"A document is not BSON: {error}")
        at += len(document)
    return None
