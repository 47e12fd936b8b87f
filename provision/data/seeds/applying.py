"""Seeds are applied to a database: each once per content, which the database itself records."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from provision.core.dataclass import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from provision.core.errors import ProvisionError
from provision.core.steps import Progress
from provision.data.connection import connected
from provision.data.indexes import to_create
from provision.data.mongosh import GET_MONGOSH, connect_script
from provision.data.program import AppProgram
from provision.data.seeds.files import RECORDS, Kind, Seed

if TYPE_CHECKING:
    from pymongo.collection import Collection
    from pymongo.database import Database

    from provision.data.seeds.parsing import Parsed, Spool
    from provision.deployments.deployment import Deployment

SCRIPT = Path(__file__).with_name("run_seed.py")
_BATCH = 5_000
_BATCH_BYTES = 24_000_000
# While the server takes one batch, the next one is read.
_IN_FLIGHT = 2
_REPORT_BYTES = 1 << 20

State = Literal["applied", "unchanged", "left out"]
MakeProgram = Callable[[], AppProgram]
"""The app's environment; its virtualenv is made where it is missing."""


@dataclass(frozen=True)
class SeedResult:
    """What became of one seed."""

    file: str  # seeds/10-users.ndjson
    collection: str  # what it fills; empty for a program
    state: State
    why: str
    documents: int | None  # how many were written; None: a program wrote them, or nothing was done
    seconds: float


@dataclass(frozen=True)
class Target:
    """The database that is filled, of a deployment of this project."""

    deployment: Deployment
    database: str
    scratch: Path  # folder for what does not fit into memory

    @property
    def doing(self) -> str:
        return f"seeding {self.database} of {self.deployment.name}"

    @property
    def resetting(self) -> str:
        return f"resetting {self.database} of {self.deployment.name}"


class Prepared:
    """Seeds whose files have been read and found right, as far as they are data."""

    def __init__(self, seeds: Sequence[Seed], scratch: Path, progress: Progress) -> None:
        """Read the files of data.

        Raises ProvisionError: naming the file and line that is wrong.
        """
        from provision.data.seeds.parsing import Spool

        self.seeds = tuple(seeds)
        self.spools: dict[str, Spool] = {}
        read = 0

        def told(count: int) -> None:
            progress.advance(read + count, None)

        try:
            for seed in self.seeds:
                if not seed.is_program:
                    spool = self.spools[seed.key] = Spool(seed, scratch, told)
                    read += spool.count
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for spool in self.spools.values():
            spool.close()


def apply(
    target: Target,
    seeds: Sequence[Seed],
    make_program: MakeProgram,
    force: bool,
    say: Callable[[str], None],
    progress: Progress,
) -> list[SeedResult]:
    """Apply the seeds that the database does not have yet, or has with other content. `force`: all of them.

    A file of data is read to its end before any of it is written.
    Raises ProvisionError: the seed that is wrong, and the line. Those before it have been applied.
    """
    with connected(target.deployment, target.doing, "invoke seed") as client:
        database = client[target.database]
        present = _recorded(database)
        results = []
        for seed in seeds:
            record, digest = present.get(seed.key), seed.digest()
            if not force and record is not None and record.get("digest") == digest:
                results.append(
                    SeedResult(seed.name, seed.collection, "unchanged", "applied before", None, 0.0)
                )
                continue
            why = "forced" if record and record.get("digest") == digest else "changed" if record else "new"
            with Prepared([seed], target.scratch, progress) as prepared:
                results.append(
                    _apply_one(
                        target, database, seed, prepared, make_program, digest, record, why, say, progress
                    )
                )
        return results


def apply_prepared(
    target: Target,
    database: Database[Any],
    prepared: Prepared,
    make_program: MakeProgram,
    say: Callable[[str], None],
    progress: Progress,
) -> list[SeedResult]:
    """Apply all seeds to a database that has none of them."""
    return [
        _apply_one(target, database, seed, prepared, make_program, seed.digest(), None, "new", say, progress)
        for seed in prepared.seeds
    ]


def _recorded(database: Database[Any]) -> Mapping[str, Mapping[str, Any]]:
    return {str(each["_id"]): each for each in database[RECORDS].find()}


def _apply_one(
    target: Target,
    database: Database[Any],
    seed: Seed,
    prepared: Prepared,
    make_program: MakeProgram,
    digest: str,
    before: Mapping[str, Any] | None,
    why: str,
    say: Callable[[str], None],
    progress: Progress,
) -> SeedResult:
    begun = time.monotonic()
    documents: int | None = None
    made = 0
    if seed.kind is Kind.MONGOSH and shutil.which("mongosh") is None:
        say(f"{seed.name} needs mongosh, which is not installed: it was left out. Install it: {GET_MONGOSH}")
        return SeedResult(seed.name, "", "left out", "there is no mongosh", None, 0.0)
    if seed.kind in (Kind.PYTHON, Kind.MONGOSH):
        progress.pause()
    if seed.kind is Kind.PYTHON:
        _run_python(target, seed, make_program())
    elif seed.kind is Kind.MONGOSH:
        _run_mongosh(target, seed, make_program())
    else:
        spool = prepared.spools[seed.key]
        documents, made, begun = spool.count, spool.made, begun - spool.seconds
        _write(target, database, seed, spool, progress)
        _remove_left_over(database[seed.collection], seed, made, int((before or {}).get("made") or 0))
    from pymongo import WriteConcern

    database[RECORDS].with_options(write_concern=WriteConcern("majority")).replace_one(
        {"_id": seed.key},
        {
            "_id": seed.key,
            "digest": digest,
            "applied": datetime.now(UTC),
            "documents": documents,
            "made": made,
        },
        upsert=True,
    )
    return SeedResult(
        seed.name, seed.collection, "applied", why, documents, round(time.monotonic() - begun, 3)
    )


# Data


def _write(target: Target, database: Database[Any], seed: Seed, spool: Spool, progress: Progress) -> None:
    """Write the documents of a file: insert them where there are none; else replace those that have the same `_id`."""
    from provision.data.seeds.parsing import metadata

    options, indexes = metadata(seed)
    collection = database[seed.collection]
    if options and not any(database.list_collection_names(filter={"name": seed.collection})):
        database.command({"create": seed.collection, **options})
    empty = not list(collection.find({}, {"_id": 1}).limit(1))
    key: Sequence[str] = ()
    if not empty:
        from provision.deployments import cluster

        key = tuple(cluster.shard_key(target.deployment, collection.full_name) or ())
    done = 0
    with ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="seed") as pool:
        pending: list[Any] = []
        try:
            for batch in spool.batches(_BATCH, _BATCH_BYTES):
                if len(pending) >= _IN_FLIGHT:
                    done += pending.pop(0).result()
                    progress.advance(done, spool.count)
                pending.append(pool.submit(_write_batch, collection, seed, batch, empty, key))
            for each in pending:
                done += each.result()
                progress.advance(done, spool.count)
        finally:
            for each in pending:
                each.cancel()
    wanted = to_create(options, indexes)
    if wanted:
        database.command({"createIndexes": seed.collection, "indexes": wanted})


def _write_batch(
    collection: Collection[Any], seed: Seed, batch: Sequence[Parsed], empty: bool, key: Sequence[str]
) -> int:
    from bson.raw_bson import RawBSONDocument
    from pymongo import ReplaceOne
    from pymongo.errors import BulkWriteError

    from provision.data.seeds.parsing import error_at

    raw = [RawBSONDocument(each.raw) for each in batch]
    try:
        if empty:
            collection.insert_many(raw, ordered=False)
        else:
            collection.bulk_write(
                [ReplaceOne(_filter(each, key), each, upsert=True) for each in raw], ordered=False
            )
    except BulkWriteError as error:
        failures = error.details.get("writeErrors") or []
        if not failures:
            raise
        first = min(failures, key=lambda each: int(each["index"]))
        more = f" {len(failures) - 1} more documents were refused." if len(failures) > 1 else ""
        said = str(first["errmsg"]).removesuffix(".")
        raise error_at(seed, batch[int(first["index"])].line, f"{said}.{more}") from None
    return len(batch)


def _filter(document: Mapping[str, Any], key: Sequence[str]) -> dict[str, Any]:
    """What finds a document: its `_id`, and where the collection is sharded its shard key."""
    found = {"_id": document["_id"]}
    for field in key:
        value: Any = document
        for part in field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found[field] = value
    return found


def _remove_left_over(collection: Collection[Any], seed: Seed, made: int, before: int) -> None:
    """Remove the documents whose `_id` was made of their place, and whose place the file no longer has."""
    from provision.data.seeds.parsing import made_id

    if made < before:
        collection.delete_many({"_id": {"$gte": made_id(seed, made), "$lte": made_id(seed, before - 1)}})


# Programs


def _run_python(target: Target, seed: Seed, program: AppProgram) -> None:
    """Call the `seed` of a Python file, in the app's own interpreter."""
    reader, writer = os.pipe()
    order = {
        "file": str(seed.path),
        "name": seed.name,
        "uri": target.deployment.uri(target.database, user="app"),
        "database": target.database,
        "report": writer,
    }
    with os.fdopen(reader, "rb") as reports, _drained(reports) as told:
        try:
            status = program.run(
                ["python", str(SCRIPT)], f"running {seed.name}", json.dumps(order).encode(), [writer]
            )
        finally:
            os.close(writer)
    if status == 0:
        return
    report = json.loads(told[0]) if told and told[0].endswith(b"}") else None
    if report is None:
        raise ProvisionError(
            f"running {seed.name}",
            f"It ended with status {status}; what it printed is above.",
            "Correct it, then type the same again.",
        )
    remedies = {
        "pymongo": "List pymongo in what declares the app's dependencies (app.requirements)",
        "function": "Write this function: it gets the app's database, of PyMongo",
    }
    raise ProvisionError(
        f"running {seed.name}",
        report["line"],
        f"{remedies.get(report['kind'], 'Correct it')}, then type the same again.",
        report["trace"],
    )


@contextlib.contextmanager
def _drained(reports: Any) -> Iterator[list[bytes]]:
    """All that comes through a pipe until its other ends are closed; the pipe holds less than a traceback may have."""
    told: list[bytes] = []
    with ThreadPoolExecutor(1, thread_name_prefix="seed-report") as pool:
        pool.submit(lambda: told.append(reports.read(_REPORT_BYTES)))
        yield told


def _run_mongosh(target: Target, seed: Seed, program: AppProgram) -> None:
    """Have mongosh run a file, with `db` bound to the app's database."""
    with tempfile.TemporaryDirectory(prefix="invoke-seed-") as folder:  # made with mode 0700
        connect = Path(folder) / "connect.js"
        descriptor = os.open(connect, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(connect_script(target.deployment.uri(user="app"), target.database))
        words = ["mongosh", "--nodb", "--quiet", "--norc", "--file", str(connect), "--file", str(seed.path)]
        status = program.run(words, f"running {seed.name}")
    if status != 0:
        raise ProvisionError(
            f"running {seed.name}",
            f"mongosh ended with status {status}; what it printed is above.",
            "Correct the file, then type the same again.",
        )
