"""A database as new: dropped, migrated and seeded; from the second time on put back as it was then.

What it was is kept below `.state/`, by a key that changes with the seeds and the migrations.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from provision.core.dataclass import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError
from provision.core.steps import Progress
from provision.data import database_copy
from provision.data.connection import connected
from provision.data.database_copy import Kept
from provision.data.program import AppProgram
from provision.data.seeds import applying
from provision.data.seeds.applying import MakeProgram, Prepared, SeedResult, Target
from provision.data.seeds.files import RECORDS, Seed, digest_of_all, unreadable

if TYPE_CHECKING:
    from pymongo import MongoClient

    from provision.mongodb.sharding import ShardedCollection

MOST_KEPT = 3
"""Copies that are kept of one deployment: a person who goes back and forth between branches has each of theirs."""
_MONGODBS_OWN = ("admin", "config", "local")
_NOT_MIGRATIONS = frozenset(("__pycache__", "node_modules"))


@dataclass(frozen=True)
class Migration:
    """What makes the database ready for the seeds."""

    words: Sequence[str]  # app.migrate; empty: nothing
    files: Sequence[Path]  # what it reads, as far as that is known
    folder: Path  # app.path
    known: bool  # the files are known: the settings name them, or there are directories named migrations

    @classmethod
    def of(cls, words: Sequence[str] | None, named: Sequence[str] | None, folder: Path) -> Migration:
        """From the settings `app.migrate` and `app.migrations`.

        Raises ProvisionError: a setting names a file that is not there.
        """
        if not words:
            return cls((), (), folder, True)
        if named is None:
            places = sorted(_directories_named_migrations(folder))
        else:
            places = [folder / Path(each).expanduser() for each in named]
            missing = [each for each in places if not each.exists()]
            if missing:
                raise ProvisionError(
                    "looking for the migrations",
                    f"app.migrations names {missing[0]}, which is not there.",
                    "Correct app.migrations in invoke.yaml.",
                )
        files = [file for place in places for file in _files_of(place)]
        return cls(tuple(words), tuple(files), folder, named is not None or bool(places))

    @property
    def typed(self) -> str:
        return shlex.join(self.words)

    @property
    def digest(self) -> str:
        """Of the command, and of the names and contents of its files.

        Raises ProvisionError: one can't be read.
        """
        digest = hashlib.sha256(json.dumps(list(self.words)).encode())
        for file in self.files:
            try:
                content = file.read_bytes()
            except OSError as error:
                raise unreadable(str(file), error) from None
            digest.update(f"\0{file}\0".encode() + hashlib.sha256(content).digest())
        return digest.hexdigest()


def _directories_named_migrations(folder: Path) -> list[Path]:
    """Below an app's folder, without virtualenvs and what is hidden."""
    found = []
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            inside = [each for each in place.iterdir() if each.is_dir() and not each.is_symlink()]
        except OSError:
            continue
        for each in inside:
            if each.name == "migrations":
                found.append(each)
            elif not (each.name.startswith(".") or each.name in _NOT_MIGRATIONS or (each / "pyvenv.cfg").exists()):
                waiting.append(each)
    return found


def _files_of(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(each for each in place.rglob("*") if each.is_file() and "__pycache__" not in each.parts)


@dataclass(frozen=True)
class ResetDone:
    """What `reset` did."""

    restored: bool  # the database was put back as it was kept; else it was built anew
    collections: tuple[
        str, ...
    ]  # those that were written; of a database that was put back, those that had changed
    removed: tuple[str, ...]  # collections that were removed, as the kept database does not have them
    documents: int  # how many were written; of a database that was built, how many it has
    seeds: tuple[SeedResult, ...]  # what became of each seed; empty where the database was put back
    migrated: bool  # app.migrate was run
    seconds: float


def reset(
    target: Target,
    kept_in: Path,
    seeds: Sequence[Seed],
    migration: Migration,
    make_program: MakeProgram,
    fresh: bool,
    say: Callable[[str], None],
    progress: Progress,
) -> ResetDone:
    """Drop the database, migrate and seed it, and keep it; or put back what was kept of it. Touches no other database.

    `kept_in`: the folder for copies of this deployment. `fresh`: build it anew in any case.
    Raises ProvisionError: a seed is wrong, and nothing was dropped; or a step failed, and the database is as far as
    that step. Then the next reset begins anew.
    """
    begun = time.monotonic()
    if target.database in _MONGODBS_OWN:
        raise ProvisionError(
            target.resetting,
            f"{target.database} is a database of MongoDB's own.",
            "Set app.database in invoke.yaml to the database of your app.",
        )
    with connected(target.deployment, target.resetting, "invoke reset") as client:
        for left in kept_in.glob(f"{database_copy.MAKING}*"):  # of a reset that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = kept_in / _key(target, client, seeds, migration)
        kept = None if fresh else Kept.read(folder)
        if kept is not None:
            if not migration.known:
                say(
                    "It can't be known whether the migrations have changed: name their files in app.migrations. "
                    "`invoke reset --fresh` runs them again."
                )
            done = _put_back(target, client, kept, progress)
            folder.touch()
            return ResetDone(True, *done, (), False, round(time.monotonic() - begun, 3))
        with Prepared(seeds, target.scratch, progress) as prepared:
            program = _checked(target, migration, make_program) if migration.words else None
            sharded = _drop(target, client)
            if program is not None:
                _migrate(target, migration, program, say, progress)
            database = client[target.database]
            results = applying.apply_prepared(target, database, prepared, make_program, say, progress)
        kept = _keep(target, client, folder, sharded, say, progress)
        names = tuple(each.name for each in kept.collections if each.name != RECORDS) if kept else ()
        count = sum(each.documents for each in kept.collections if each.name != RECORDS) if kept else 0
        seconds = round(time.monotonic() - begun, 3)
        return ResetDone(False, names, (), count, tuple(results), bool(migration.words), seconds)


def _key(target: Target, client: MongoClient[Any], seeds: Sequence[Seed], migration: Migration) -> str:
    """What a kept database is found by. It changes with all that the database is made of, as far as that is known."""
    declared = [
        [
            each.namespace,
            dict(each.key),
            each.unique,
            each.chunks,
            [dict(one) for one in each.split],
            repr(each.zones),
        ]
        for each in _declared(target)
    ]
    version = ".".join(str(client.server_info()["version"]).split(".")[:2])
    has_mongosh = shutil.which("mongosh") is not None and any(each.path.suffix == ".js" for each in seeds)
    parts = [target.database, version, digest_of_all(seeds), migration.digest, declared, has_mongosh]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _declared(target: Target) -> list[ShardedCollection]:
    if not target.deployment.topology.is_sharded:
        return []
    return [
        each for each in target.deployment.collections if each.namespace.startswith(f"{target.database}.")
    ]


def _drop(target: Target, client: MongoClient[Any]) -> dict[str, dict[str, Any]]:
    """Drop the database, and shard again what was sharded in it, and what the settings say.

    Returns: Namespace → shard key, of all that is sharded now.
    """
    keys = _shard_keys(target)
    client.drop_database(target.database)
    for wanted in _declared(target):
        keys[wanted.namespace] = dict(wanted.key)
    if keys:
        from provision.deployments import cluster

        for namespace, key in keys.items():
            cluster.shard_again(target.deployment, namespace, key)
    return keys


def _shard_keys(target: Target) -> dict[str, dict[str, Any]]:
    if not target.deployment.topology.is_sharded:
        return {}
    from provision.deployments import cluster
    from provision.mongodb import sharding

    with cluster.routed(target.deployment, f"reading the shard keys of {target.database}") as router:
        return {
            namespace: dict(found["key"])
            for namespace in sharding.sharded_namespaces(router)
            if namespace.startswith(f"{target.database}.")
            and (found := sharding.entry(router, namespace)) is not None
        }


def _checked(target: Target, migration: Migration, make_program: MakeProgram) -> AppProgram:
    """The app's environment for app.migrate.

    Raises ProvisionError: a variable that stands for the app's database leads to another server.
    """
    program = make_program()
    for name, host in program.elsewhere(target.deployment.uri()):
        raise ProvisionError(
            target.resetting,
            f"{name} in the app's environment leads to {host}, which is not {target.deployment.name}. "
            f"Nothing was dropped, and `{migration.typed}` was not run.",
            f'Set app.env.{name} in invoke.yaml to "{{{{ uri }}}}", then type `invoke reset` again.',
        )
    return program


def _migrate(
    target: Target, migration: Migration, program: AppProgram, say: Callable[[str], None], progress: Progress
) -> None:
    """Run app.migrate, with the database's address in its environment.

    Raises ProvisionError: it failed.
    """
    doing = f"migrating {target.database} of {target.deployment.name}"
    progress.pause()
    say(f"Running {migration.typed}")
    status = program.run(migration.words, doing)
    if status != 0:
        raise ProvisionError(
            doing,
            f"`{migration.typed}` ended with status {status}; what it printed is above. The database is as far as it came.",
            "Correct it, then type `invoke reset` again.",
        )


def _hashed(target: Target) -> bool:
    """Whether its server can say what is in a collection: a router can't."""
    return not target.deployment.topology.is_sharded


def _keep(
    target: Target,
    client: MongoClient[Any],
    folder: Path,
    sharded: Mapping[str, Mapping[str, Any]],
    say: Callable[[str], None],
    progress: Progress,
) -> Kept | None:
    """Keep the database, and as few others as `MOST_KEPT`; None: there is no room, which is told."""
    try:
        kept = database_copy.keep(client[target.database], folder, sharded, _hashed(target), progress.advance)
    except OSError as error:
        say(
            f"The database is as new. It could not be kept in {folder.parent} ({error.strerror or error}), so the next "
            "reset takes as long as this one."
        )
        return None
    others = sorted(
        (each for each in folder.parent.iterdir() if each.is_dir() and each != folder),
        key=lambda each: each.stat().st_mtime,
        reverse=True,
    )
    for old in others[MOST_KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return kept


def _put_back(
    target: Target, client: MongoClient[Any], kept: Kept, progress: Progress
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    from pymongo import WriteConcern
    from pymongo.errors import BulkWriteError

    from provision.deployments import cluster

    sharded = target.deployment.topology.is_sharded
    # Each write waits for one node, and the last one for a majority: it covers them all.
    quick = client[target.database].with_options(write_concern=WriteConcern(1))
    safe = client[target.database].with_options(write_concern=WriteConcern("majority"))
    try:
        done = database_copy.put_back(
            quick,
            kept,
            _hashed(target),
            functools.partial(cluster.shard_again, target.deployment) if sharded else None,
            progress.advance,
        )
    except BulkWriteError as error:
        failures = error.details.get("writeErrors") or [{"errmsg": str(error)}]
        raise ProvisionError(
            target.resetting,
            f"{failures[0]['errmsg']}. Another program writes to the database.",
            "End that program, then type `invoke reset` again.",
        ) from None
    except OSError as error:
        raise ProvisionError(
            target.resetting,
            f"What was kept can't be read: {error.strerror or error}.",
            "Build it anew: invoke reset --fresh",
        ) from None
    safe[RECORDS].update_one({"_id": ""}, {"$set": {"_id": ""}})
    written = tuple(name for name in done.refilled if name != RECORDS)
    return written, tuple(done.removed), done.documents
