"""`dump` and `load` of a deployment: connects, and says what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from provision.core.dataclass import dataclass
from pathlib import Path

from provision.core.errors import ProvisionError
from provision.core.steps import Progress
from provision.data.connection import connected
from provision.data.dumps import mongorestore, reading, writing
from provision.data.dumps.reading import Dumped, LoadedCollection, Recreate
from provision.data.dumps.writing import DumpedCollection
from provision.deployments.deployment import Deployment


@dataclass(frozen=True)
class Dump:
    """A finished dump."""

    deployment: str
    folder: str
    gzip: bool
    collections: list[DumpedCollection]
    seconds: float

    @property
    def documents(self) -> int:
        """Of all collections."""
        return sum(each.documents for each in self.collections)


@dataclass(frozen=True)
class Load:
    """What was loaded.

    `by` is ``mongorestore`` where that has loaded an archive; `collections` is empty then.
    """

    deployment: str
    source: str
    by: str
    documents: int
    duplicates: int  # documents that were there already, and were left as they are; of mongorestore: all failures
    collections: list[LoadedCollection]
    left_out: list[str]  # what is in the dump and was not loaded, and why
    seconds: float


@dataclass(frozen=True)
class Planned:
    """What a load will read, and into what."""

    collections: list[Dumped]
    left_out: list[str]
    archive: str  # ``plain`` or ``gzip`` where it is an archive; empty: it is a folder


def dump(
    deployment: Deployment,
    folder: Path,
    database: str,
    only: Sequence[str],
    compressed: bool,
    progress: Progress,
) -> Dump:
    """Write the databases of a deployment into a folder, as mongodump does.

    Raises ProvisionError: as `writing.dump`, or the server can't be read.
    """
    begun = time.monotonic()
    with connected(deployment, f"dumping {deployment.name} into {folder}", "invoke dump") as client:
        done = writing.dump(client, folder, database, only, compressed, progress)
    return Dump(deployment.name, str(folder), compressed, done, writing.seconds_since(begun))


def plan(source: Path, database: str, only: Sequence[str], into: str) -> Planned:
    """Read what a load will insert; changes nothing.

    Raises ProvisionError: it is not a dump, or lacks what was asked for.
    """
    doing = f"loading {source}"
    if source.is_file():
        try:
            compression = mongorestore.recognise(source)
        except OSError as error:
            raise ProvisionError(doing, f"{source}: {error.strerror}.", f"Look at it: ls -l {source}") from None
        if compression is None:
            raise ProvisionError(
                doing,
                "It is a file, and not an archive of mongodump.",
                "Name the folder that was dumped into: invoke load dump",
            )
        return Planned([], [], compression)
    found = reading.contents(source)
    return Planned(reading.chosen(found, database, only, into, doing), found.left_out, "")


def load(
    deployment: Deployment,
    source: Path,
    planned: Planned,
    database: str,
    only: Sequence[str],
    into: str,
    drop: bool,
    progress: Progress,
    say: Callable[[str], None],
) -> Load:
    """Insert a dump into a deployment.

    Raises ProvisionError: as `reading.load` or `mongorestore.restore`.
    """
    begun, doing = time.monotonic(), f"loading {source} into {deployment.name}"
    if planned.archive:
        uri = deployment.uri(user="root")
        done = mongorestore.restore(source, planned.archive, uri, database, only, into, drop, say)
        seconds = writing.seconds_since(begun)
        return Load(
            deployment.name, str(source), "mongorestore", done.documents, done.failures, [], [], seconds
        )
    recreate = _sharded_again(deployment) if deployment.topology.is_sharded else None
    with connected(deployment, doing, "invoke load") as client:
        loaded = reading.load(client, planned.collections, drop, progress, doing, recreate)
    return Load(
        deployment.name,
        str(source),
        "invoke",
        sum(each.documents for each in loaded),
        sum(each.duplicates for each in loaded),
        loaded,
        planned.left_out,
        writing.seconds_since(begun),
    )


def _sharded_again(deployment: Deployment) -> Recreate:
    """What gives a collection that is dropped its shard key again."""
    from provision.deployments import cluster

    def recreate(namespace: str) -> Callable[[], None] | None:
        key = cluster.shard_key(deployment, namespace)
        if key is None:
            return None
        return lambda: cluster.shard_again(deployment, namespace, key)

    return recreate
