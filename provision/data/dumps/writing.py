"""Writes a dump: documents go from the server to files as they are, and are never decoded."""

from __future__ import annotations

import contextlib
import errno
import glob
import gzip
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from provision.core.dataclass import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from provision.core import copying
from provision.core.errors import ProvisionError, did_you_mean
from provision.core.steps import Progress
from provision.data.dumps import folder as names
from provision.data.dumps.folder import Metadata
from provision.data.dumps.framing import count
from provision.data.dumps.parallel import in_parallel

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

# The database that a cluster is proved in when it comes up.
_OUR_OWN = "provision"
_COMPRESSION = 6
_NAMESPACE_NOT_FOUND = 26
# From this version on, a time series has no collection of buckets that can be read by its name.
_VIEWLESS_TIME_SERIES = (8, 3)


@dataclass(frozen=True)
class DumpedCollection:
    """One collection of a dump."""

    namespace: str  # ``database.collection``
    kind: names.Kind
    documents: int  # of a time series: its buckets
    bytes: int  # of its documents, uncompressed


@dataclass(frozen=True)
class Source:
    """One collection that will be dumped."""

    database: str
    metadata: Metadata

    @property
    def namespace(self) -> str:
        """``database.collection``, as people name it."""
        return f"{self.database}.{self.metadata.name}"


def dump(
    client: MongoClient[Any],
    target: Path,
    database: str,
    only: Sequence[str],
    compressed: bool,
    progress: Progress,
) -> list[DumpedCollection]:
    """Write databases into a folder, which appears when it is complete.

    Args:
        target: the folder; it does not exist, or is empty.
        database: this one alone; empty: all but the server's own.
        only: these collections alone; none: all.
        compressed: each file is gzipped.

    Raises ProvisionError: there is something in the folder, or no such database or collection; or the folder can't be
    written. Nothing is left of the attempt.
    Raises PyMongoError: the server can't be read.
    """
    doing = f"dumping into {target}"
    _require_absent(target, doing)
    wanted = sources(client, database, only, doing)
    with _new_folder(target, doing) as partial:
        return _write_all(client, partial, wanted, compressed, progress)


def sources(client: MongoClient[Any], database: str, only: Sequence[str], doing: str) -> list[Source]:
    """What there is to dump, with options and indexes.

    Raises ProvisionError: there is no such database or collection, or a time series that can't be read.
    """
    present = [name for name in client.list_database_names() if name not in names.SYSTEM_DATABASES]
    if database and database not in present:
        why = (
            f"{database} belongs to the server: its users, shards or oplog."
            if database in names.SYSTEM_DATABASES
            else f"There is no database {database}{did_you_mean(database, present)}."
        )
        raise ProvisionError(doing, why, f"Name one of these: {', '.join(present) or 'none is there yet'}")
    chosen = [database] if database else [name for name in present if name != _OUR_OWN]
    found = [each for name in chosen for each in _of_database(client[name], only, doing)]
    known = {each.metadata.name for each in found}
    if missing := [name for name in only if name not in known]:
        raise ProvisionError(
            doing,
            f"There is no collection {missing[0]} in {', '.join(chosen) or 'any database'}.",
            "See what there is: invoke shell --eval 'db.getCollectionNames()'",
        )
    return found


def _of_database(database: Database[Any], only: Sequence[str], doing: str) -> Iterator[Source]:
    for listed in sorted(database.list_collections(), key=lambda each: str(each["name"])):
        name, kind = listed["name"], listed.get("type", "collection")
        if names.is_left_out(name) or (only and name not in only):
            continue
        if kind == "timeseries":
            _require_buckets(database, name, doing)
        uuid = listed.get("info", {}).get("uuid")
        try:
            indexes = [] if kind == "view" else [dict(each) for each in database[name].list_indexes()]
        except _failure() as error:
            if error.code == _NAMESPACE_NOT_FOUND:  # dropped meanwhile
                continue
            raise
        options = dict(listed.get("options", {}))
        yield Source(database.name, Metadata(name, kind, options, indexes, uuid.hex() if uuid else ""))


def _failure() -> Any:
    from pymongo.errors import OperationFailure

    return OperationFailure


def _require_buckets(database: Database[Any], name: str, doing: str) -> None:
    version = tuple(database.client.server_info()["versionArray"][:2])
    if version >= _VIEWLESS_TIME_SERIES:
        raise ProvisionError(
            doing,
            f"{database.name}.{name} is a time series, which MongoDB {version[0]}.{version[1]} keeps in another way.",
            "Dump it with MongoDB's own mongodump, and the others with: invoke dump --only",
        )


def _write_all(
    client: MongoClient[Any], partial: Path, wanted: Sequence[Source], compressed: bool, progress: Progress
) -> list[DumpedCollection]:
    sizes = {
        each.namespace: client[each.database][each.metadata.name].estimated_document_count()
        if each.metadata.kind == "collection"
        else 0
        for each in wanted
    }
    for name in {each.database for each in wanted}:
        (partial / name).mkdir(exist_ok=True)
    total, done = sum(sizes.values()), 0
    lock = threading.Lock()

    def advanced(more: int) -> None:
        nonlocal done
        with lock:
            done += more
            progress.advance(done, max(done, total))

    def write(each: Source, stopped: Callable[[], bool]) -> DumpedCollection:
        return _write_one(client, partial, each, compressed, advanced, stopped)

    largest_first = sorted(wanted, key=lambda each: -sizes[each.namespace])
    return sorted(in_parallel(write, largest_first), key=lambda each: each.namespace)


def _write_one(
    client: MongoClient[Any],
    partial: Path,
    source: Source,
    compressed: bool,
    advanced: Callable[[int], None],
    stopped: Callable[[], bool],
) -> DumpedCollection:
    metadata = source.metadata
    ending = names.GZIP if compressed else ""
    folder = partial / source.database
    with _created(folder / f"{names.stem(metadata.name)}{names.METADATA}{ending}") as file:
        file.write(names.as_text(metadata).encode())
    documents = size = 0
    if metadata.kind != "view":
        with _created(folder / f"{names.stem(metadata.data_name)}{names.DATA}{ending}") as file:
            for batch in client[source.database][metadata.data_name].find_raw_batches():
                if stopped():
                    break
                file.write(batch)
                here = count(batch)
                documents, size = documents + here, size + len(batch)
                advanced(here)
    return DumpedCollection(source.namespace, metadata.kind, documents, size)


@contextlib.contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """A new file, on disk when the block ends. Two names that differ in case alone are refused where they are one."""
    with path.open("xb") as raw:
        if path.name.endswith(names.GZIP):
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_COMPRESSION) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())


def _require_absent(target: Path, doing: str) -> None:
    try:
        taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise ProvisionError(doing, _why(error), "Name a folder that you may write: invoke dump FOLDER") from None
    if taken:
        raise ProvisionError(
            doing,
            f"{target} is there, and is not an empty folder. Nothing was changed.",
            "Name another folder, or remove this one first: invoke dump FOLDER",
        )


@contextlib.contextmanager
def _new_folder(target: Path, doing: str) -> Iterator[Path]:
    """A folder under a temporary name beside the target, moved into place when the block ends without an error."""
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(target)
        partial.mkdir()
        yield partial
        if target.exists():
            target.rmdir()  # an empty one
        partial.rename(target)
        copying.sync(target.parent)
    except OSError as error:
        remedy = (
            "Free some space, or name a folder on another disk: invoke dump FOLDER"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "Name another folder: invoke dump FOLDER"
        )
        raise ProvisionError(doing, f"{_why(error)}. Nothing is left of the dump.", remedy) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_left_over(target: Path) -> None:
    """Remove what a killed dump into the same folder has left."""
    import psutil

    for left in target.parent.glob(f".{glob.escape(target.name)}.partial-*"):
        number = left.name.rpartition("-")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _why(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


def seconds_since(begun: float) -> float:
    """Wall time since a moment of the monotonic clock, in seconds to the millisecond."""
    return round(time.monotonic() - begun, 3)
