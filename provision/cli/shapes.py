"""What commands print as JSON, where that is not already a type of the room that did the work.

Commands import this on their way, so it imports nothing slow. `tools/schemas.py` looks the other types up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from provision.core.dataclass import dataclass

if TYPE_CHECKING:
    from provision.data.seeds.applying import SeedResult
    from provision.deployments.events import Moment
    from provision.hosts.setup import HostStep
    from provision.mongodb.sharding import ShardShare


@dataclass(frozen=True)
class FailureParts:
    """One failure: what was being done, what stopped it, and what to type next."""

    doing: str
    cause: str
    remedy: str
    log: list[str]


@dataclass(frozen=True)
class Failure:
    """What every command prints where it fails; its exit status is then 1, or 130 after Ctrl-C."""

    error: FailureParts


@dataclass(frozen=True)
class BroughtUp:
    """A deployment that takes writes.

    `started` names the nodes that this command started; empty: all of them were running. `uri` has no password.
    """

    deployment: str
    started: tuple[str, ...]
    uri: str
    timings: list[Moment]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Stopped:
    """The nodes that this command stopped; empty: the deployment was not running."""

    deployment: str
    stopped: list[str]


@dataclass(frozen=True)
class TakenDown:
    """As `Stopped`, and whether the data were deleted."""

    deployment: str
    stopped: list[str]
    data_deleted: bool


@dataclass(frozen=True)
class Address:
    """A connection string; with `--user` it has that user's password in it."""

    deployment: str
    uri: str


@dataclass(frozen=True)
class Rendered:
    """A rendered file; with `--check` instead what has drifted: node or file → how it differs."""

    deployment: str
    text: str | None
    drifted: dict[str, str]


@dataclass(frozen=True)
class RemovedItem:
    """One thing that `clean` removes, and the bytes in it."""

    path: str
    what: str
    bytes: int


@dataclass(frozen=True)
class KeptItem:
    """One thing that stays, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Removal:
    """What `clean` removed, or with `done: false` would remove."""

    done: bool
    bytes: int
    items: list[RemovedItem]
    kept: list[KeptItem]


@dataclass(frozen=True)
class Distribution:
    """How collections are spread: namespace → each shard's share."""

    deployment: str
    collections: dict[str, list[ShardShare]]


@dataclass(frozen=True)
class Sharded:
    """A sharded collection and its key; `changed`: this command sharded it."""

    collection: str
    key: dict[str, int | str]
    changed: bool


@dataclass(frozen=True)
class Removed:
    """What was taken out of a deployment; null: you did not agree, and nothing was changed."""

    deployment: str
    removed: str | None


@dataclass(frozen=True)
class Started:
    """The nodes that were started; those that were running are not among them."""

    deployment: str
    started: list[str]


@dataclass(frozen=True)
class Restarted:
    """The nodes that were restarted."""

    deployment: str
    restarted: list[str]


@dataclass(frozen=True)
class Killed:
    """The nodes that were ended."""

    deployment: str
    killed: list[str]


@dataclass(frozen=True)
class Paused:
    """The nodes that were suspended."""

    deployment: str
    paused: list[str]


@dataclass(frozen=True)
class Resumed:
    """The nodes that go on."""

    deployment: str
    resumed: list[str]


@dataclass(frozen=True)
class CutOff:
    """The nodes that were cut off from the others."""

    deployment: str
    cut_off: list[str]


@dataclass(frozen=True)
class Connected:
    """The nodes that were connected again."""

    deployment: str
    connected: list[str]


@dataclass(frozen=True)
class SteppedDown:
    """The primary of a replica set, and the one before it."""

    deployment: str
    replica_set: str
    primary: str
    former: str


@dataclass(frozen=True)
class HostsSetUp:
    """The steps of all hosts; host → why it failed."""

    steps: tuple[HostStep, ...]
    errors: dict[str, FailureParts]
    seconds: float


@dataclass(frozen=True)
class Deployed:
    """The app on its hosts.

    `changed` names the hosts where another release was started, `removed` those that the app was taken from.
    """

    deployment: str
    release: str
    changed: list[str]
    removed: list[str]
    steps: tuple[HostStep, ...]
    seconds: float


@dataclass(frozen=True)
class Undeployed:
    """The hosts that the app was removed from."""

    deployment: str
    removed: list[str]


@dataclass(frozen=True)
class TourStage:
    """One stage of the tour: what was run, and its result as relaxed Extended JSON."""

    number: int
    title: str
    lesson: str
    python: str
    mongosh: str
    result: Any


@dataclass(frozen=True)
class Seeded:
    """The people that were inserted; `rate`: people a second; `distribution`: each shard's share, or null."""

    deployment: str
    namespace: str
    inserted: int
    dropped: bool
    seconds: float
    rate: float
    distribution: list[ShardShare] | None


@dataclass(frozen=True)
class SnapshotShown:
    """A snapshot. `bytes`: what it takes on the disk; `named`: its name was given; `sets`: whose data it has.

    `feature_compatibility` is null where the deployment was stopped when it was taken.
    """

    name: str
    created: str
    bytes: int
    named: bool
    mongod: str
    feature_compatibility: str | None
    sets: list[str]


@dataclass(frozen=True)
class SnapshotSaved:
    """A snapshot that was taken, and the names of those that `snapshots.keep` and its like let go."""

    deployment: str
    snapshot: SnapshotShown
    deleted: list[str]
    seconds: float


@dataclass(frozen=True)
class SnapshotsListed:
    """The snapshots of a deployment, the oldest first."""

    deployment: str
    snapshots: list[SnapshotShown]


@dataclass(frozen=True)
class SnapshotRestored:
    """What was put in the place of the data: a snapshot's name, or null for what was there before the last restore."""

    deployment: str
    restored: bool
    snapshot: str | None
    seconds: float


@dataclass(frozen=True)
class SnapshotDeleted:
    """The snapshot that was deleted; null: none."""

    deployment: str
    deleted: str | None


@dataclass(frozen=True)
class Cloned:
    """`source`: the folder whose deployment's data were put into this one; null: nothing was changed."""

    deployment: str
    source: str | None
    seconds: float


@dataclass(frozen=True)
class SeedsApplied:
    """What became of each of the project's seeds."""

    deployment: str
    database: str
    seeds: list[SeedResult]


@dataclass(frozen=True)
class Reset:
    """A database that is as new. `done: false`: the person did not agree, and nothing was changed.

    `restored`: it was put back as it was kept, and `collections` are those that had changed; else it was dropped,
    migrated where `migrated` says so, and seeded, and `collections` are all that it has. `documents` were written.
    """

    done: bool
    deployment: str
    database: str
    restored: bool
    migrated: bool
    collections: list[str]
    removed: list[str]
    documents: int
    seeds: list[SeedResult]
    seconds: float
