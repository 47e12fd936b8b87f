"""What a snapshot says of itself, whether a deployment can take it, and which ones may go. Pure data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from provision.core.dataclass import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from provision.core.errors import ProvisionError
from provision.mongodb.topology import Topology

SCHEMA = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class CopiedSet:
    """One set's data in a snapshot: of a replica set, or of a mongod that stands alone."""

    name: str  # of the replica set; of one that stands alone, the node's. The folder with its files has the same name
    role: str  # the role of its members in their topology: ``"shard"``
    members: tuple[str, ...]  # ``host:port`` of each member; for one that stands alone there is one


@dataclass(frozen=True)
class CopiedFile:
    """A file of a snapshot."""

    path: str  # from the snapshot's folder
    bytes: int
    checksum: str  # ``"crc32:8b2e0d11"``
    # Of a copy that shares its blocks with the data: who finds it the same need not read the file. A disk that has lost
    # a block has lost it for the data as well.
    stamp: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What a snapshot says of itself. It is written last: a folder without one does not count."""

    name: str
    deployment: str  # whose data they are
    created: str  # UTC, ISO 8601
    named: bool  # its name was given: `snapshots.keep` does not count it
    mongod: str  # the version that wrote the files: ``"8.0.17"``
    # the feature compatibility version; None: not known, as nobody ran who could be asked
    feature_compatibility: str | None
    balanced: bool  # the balancer was stopped for it, so that a restore starts it again
    sets: tuple[CopiedSet, ...]
    files: tuple[CopiedFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """For its file."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Manifest:
        """What its file says.

        Raises KeyError, TypeError: it says something else.
        Raises ProvisionError: a newer version of the tool has written it.
        """
        if value["schema"] > SCHEMA:
            raise ProvisionError(
                f"reading the snapshot {value.get('name')}",
                f"A newer version of this tool has taken it (schema {value['schema']}; this one knows {SCHEMA}).",
                "Use that version again (git pull).",
            )
        known = {key: value[key] for key in cls.__dataclass_fields__}
        sets = tuple(CopiedSet(each["name"], each["role"], tuple(each["members"])) for each in value["sets"])
        return cls(**{**known, "sets": sets, "files": tuple(map(_file, value["files"]))})


def _file(value: Mapping[str, Any]) -> CopiedFile:
    stamp = value.get("stamp")
    # Until schema 2 it was always this one.
    checksum = value["checksum"] if "checksum" in value else f"sha256:{value['sha256']}"
    return CopiedFile(value["path"], value["bytes"], checksum, stamp)


def sets_of(topology: Topology) -> tuple[CopiedSet, ...]:
    """The sets of a deployment, as a snapshot has them: config servers first."""
    alone = tuple(CopiedSet(node.name, node.role.value, (node.address,)) for node in topology.standalones)
    return alone + tuple(
        CopiedSet(each.name, each.members[0].role.value, tuple(node.address for node in each.members))
        for each in topology.all_sets
    )


def check_name(name: str) -> str:
    """A name that a folder may have and a command line takes.

    Raises ProvisionError: it is not one.
    """
    if _NAME.fullmatch(name):
        return name
    raise ProvisionError(
        f"naming a snapshot {name!r}",
        "A name has letters, digits, dots, hyphens and underscores, begins with a letter or digit, and has 100 "
        "characters at most.",
        "Name it so: invoke snapshot.save before-migration",
    )


def default_name(branch: str | None, now: datetime, taken: Sequence[str]) -> str:
    """Branch and time: ``"main-20261126-231500"``; where that is taken, with a number behind it."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", branch or "").strip("-._")[:70]
    base = "-".join(part for part in (readable, now.strftime("%Y%m%d-%H%M%S")) if part)
    names = (base, *(f"{base}-{n}" for n in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def why_unreadable(manifest: Manifest, version: str) -> str | None:
    """Why a mongod of a version can't read a snapshot's files; None: it can.

    A mongod reads what its own release and the one before it have written, by their feature compatibility version; and
    never the files of a newer release, whose journal it does not know.

    Follows https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/
    """
    wrote, reads = _major(manifest.mongod), _major(version)
    compatible = manifest.feature_compatibility
    of = f"MongoDB {manifest.mongod} wrote it" + (
        f" (feature compatibility version {compatible})" if compatible else ""
    )
    if wrote > reads:
        return f"{of}, and MongoDB {version} can't read what a newer release has written."
    oldest = _major(compatible) if compatible else wrote
    if oldest < (reads[0] - 1, 0):
        return f"{of}, and MongoDB {version} reads the release before its own, not older ones."
    return None


def why_other_shape(manifest: Manifest, topology: Topology) -> str | None:
    """Why a snapshot does not fit a deployment; None: it has the same sets, with the same members."""
    theirs = {each.name: each for each in manifest.sets}
    ours = {each.name: each for each in sets_of(topology)}
    if theirs.keys() != ours.keys():
        return f"It has the data of {', '.join(theirs)}; {topology.name} consists of {', '.join(ours)}."
    for name, each in theirs.items():
        if each.role != ours[name].role:
            return f"In it, {name} is a {each.role}; in {topology.name}, a {ours[name].role}."
        if each.role != "standalone" and set(each.members) != set(ours[name].members):
            if len(each.members) == len(ours[name].members) == 1 and each.role == "member":
                continue  # a set of one takes its new address by itself
            return (
                f"In it, {name} has the members {', '.join(each.members)}; in {topology.name}, "
                f"{', '.join(ours[name].members)}."
            )
    return None


def expired(
    manifests: Sequence[Manifest], now: datetime, keep: int | None, max_age_days: float | None, named: bool
) -> list[Manifest]:
    """The snapshots that may go. The newest never does.

    Args:
        keep: how many to keep, the newest first; None: all.
        max_age_days: how old one may become; None: as old as it likes.
        named: also those that were given a name.
    """
    by_age = sorted(manifests, key=lambda each: each.created, reverse=True)
    subject = [each for each in by_age if named or not each.named]
    oldest = now - timedelta(days=max_age_days) if max_age_days is not None else None
    gone = []
    for place, each in enumerate(subject):
        too_many = keep is not None and place >= max(keep, 1)
        too_old = oldest is not None and datetime.fromisoformat(each.created) < oldest
        if each is not by_age[0] and (too_many or too_old):
            gone.append(each)
    return gone


def moment(now: datetime) -> str:
    """As `Manifest.created` has it."""
    return now.astimezone(UTC).isoformat(timespec="microseconds")


def _major(version: str) -> tuple[int, int]:
    first, _, rest = version.partition(".")
    return int(first), int(rest.partition(".")[0] or 0)
