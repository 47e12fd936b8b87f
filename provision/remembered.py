"""What earlier commands have settled about a deployment.

The flags of an earlier `cluster.up` or `cluster.upgrade`, which hold for the later commands too; and the extent that
the deployment has reached. Settings that ask for less than that never take a node away by themselves, so what runs is
always known: to `status`, and to `down`. And the moves from one host to another that have begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from provision.errors import ProvisionError
from provision.files import read_json, write_json
from provision.hosts.placement import Move
from provision.mongodb.topology import Size
from provision.paths import Paths
from provision.schema import DeploymentSettings, KeyPath


def flags(root: Path) -> dict[KeyPath, tuple[str, Any]]:
    """The remembered flags of every deployment, for `settings.load`.

    Args:
        root: the project's top folder.

    Returns:
        Key → (where it came from, value).
    """
    found: dict[KeyPath, tuple[str, Any]] = {}
    for file in sorted((root / ".state" / "deployments").glob("*/flags.json")):
        for key, entry in (read_json(file) or {}).items():
            if isinstance(entry, dict) and "value" in entry:
                found["deployments", file.parent.name, key] = (
                    f"an earlier {entry.get('from')}",
                    entry["value"],
                )
    return found


@dataclass(frozen=True)
class Flag:
    """A value that a command was given for a key of a deployment.

    Args:
        value: the validated value.
        typed: the command that gave it: ``"cluster.up --shards 3"``.
    """

    value: Any
    typed: str


def remember(paths: Paths, deployment: str, given: Mapping[str, Flag]) -> dict[str, Any] | None:
    """Add flags to those that hold for a deployment.

    Args:
        paths: where its records are.
        deployment: its name.
        given: key of `DeploymentSettings` → flag.

    Returns:
        The record as it was before, for `restore`.

    Raises:
        OSError: it can't be written.
    """
    file = paths.flags_record(deployment)
    before = read_json(file)
    if given:
        added = {key: {"value": flag.value, "from": flag.typed} for key, flag in given.items()}
        write_json(file, {**(before or {}), **added})
    return before


def restore(paths: Paths, deployment: str, before: dict[str, Any] | None) -> None:
    """Put the flags back to what `remember` found."""
    _put(paths.flags_record(deployment), before)


def forget(paths: Paths, deployment: str) -> None:
    """Forget flags and extent: the deployment's data are gone."""
    for file in (
        paths.flags_record(deployment),
        paths.extent_record(deployment),
        paths.mongod_record_of(deployment),
        paths.rolling_record(deployment),
    ):
        file.unlink(missing_ok=True)


def moves(paths: Paths, deployment: str) -> dict[str, Move]:
    """Node name → its move from one host to another that has begun and is not finished."""
    record = read_json(paths.moving_record(deployment)) or {}
    return {node: Move(**{**each, "node": node}) for node, each in record.items()}


def record_moves(paths: Paths, deployment: str, unfinished: Mapping[str, Move]) -> None:
    """Note which moves have begun and are not finished; with none, there is no record.

    Raises:
        OSError: it can't be written.
    """
    _put(paths.moving_record(deployment), {node: asdict(each) for node, each in unfinished.items()} or None)


def _put(file: Path, record: dict[str, Any] | None) -> None:
    if record is None:
        file.unlink(missing_ok=True)
    elif record != read_json(file):
        write_json(file, record)


def gaps(numbers: Sequence[int]) -> list[int]:
    """The numbers below the greatest that are missing."""
    return [n for n in range(1, max(numbers, default=0)) if n not in numbers]


@dataclass(frozen=True)
class Extent:
    """What a deployment of more than one node consists of.

    Args:
        topology: ``replica-set`` or ``sharded``.
        backend: what its nodes run on.
        port: its first port.
        members: data-bearing members of each set.
        arbiters: arbiters of each set.
        config_servers: config servers.
        routers: routers.
        shards: the shards' numbers.
    """

    topology: str
    backend: str
    port: int
    members: int
    arbiters: int
    config_servers: int
    routers: int
    shards: tuple[int, ...]

    @classmethod
    def of(cls, settings: DeploymentSettings) -> Self | None:
        """What settings ask for; None for a single mongod, which has no extent."""
        if settings.topology == "single":
            return None
        size = Size(shards=settings.shards, removed_shards=tuple(settings.removed_shards))
        return cls(
            settings.topology,
            settings.backend,
            settings.port,
            settings.members,
            settings.arbiters,
            settings.config_servers,
            settings.routers,
            size.shard_numbers,
        )

    @classmethod
    def recorded(cls, paths: Paths, deployment: str) -> Self | None:
        """What a deployment has reached; None: it was never up."""
        record = read_json(paths.extent_record(deployment))
        try:
            return None if record is None else cls(**{**record, "shards": tuple(record["shards"])})
        except (KeyError, TypeError):
            return None

    @staticmethod
    def record(paths: Paths, deployment: str, reached: Extent | None) -> None:
        """Note what a deployment has reached; None: nothing.

        Raises:
            OSError: it can't be written.
        """
        record = None if reached is None else {**asdict(reached), "shards": list(reached.shards)}
        _put(paths.extent_record(deployment), record)

    def applied_to(self, settings: DeploymentSettings) -> DeploymentSettings:
        """Settings that ask for exactly this."""
        values = {**asdict(self), "shards": len(self.shards), "removed_shards": gaps(self.shards)}
        return replace(settings, **values)

    def grown_to(self, wanted: Extent) -> Extent:
        """This, with whatever more is wanted: members, shards and routers can be added, and not taken away.

        Behind an arbiter no member is added: nodes are numbered, and it would have to become one.
        """
        members = self.members if self.arbiters else max(self.members, wanted.members)
        return replace(
            self,
            members=members,
            arbiters=max(self.arbiters, wanted.arbiters),
            config_servers=max(self.config_servers, wanted.config_servers),
            routers=max(self.routers, wanted.routers),
            shards=tuple(sorted({*self.shards, *wanted.shards})),
        )


@dataclass(frozen=True)
class Combined:
    """What a deployment is, given its settings and what it has reached.

    Args:
        settings: the settings of what there is and will be.
        extent: the same as an extent; None for a single mongod.
        notices: where it is left as it is although the settings ask for something else.
        conflict: why the settings can't be brought about at all; None: they can.
    """

    settings: DeploymentSettings
    extent: Extent | None
    notices: tuple[str, ...] = ()
    conflict: ProvisionError | None = None


def combine(name: str, settings: DeploymentSettings, present: Extent | None) -> Combined:
    """Bring a deployment's settings and its extent together. Pure.

    Args:
        name: the deployment's name.
        settings: what is asked for.
        present: what it has reached; None: it was never up.
    """
    wanted = Extent.of(settings)
    if present is None:
        return Combined(settings, wanted)
    if (
        wanted is None
        or (wanted.topology, wanted.backend) != (present.topology, present.backend)
        or wanted.port != present.port
    ):
        asked = f"{settings.topology}, {settings.backend}, port {settings.port}"
        conflict = ProvisionError(
            f"starting {name}",
            f"It is there as {present.topology}, {present.backend}, port {present.port}, and now {asked} is asked for.",
            f"Take it down with its data first: invoke cluster.down --delete-data --on {name}\n"
            "Or give the new one a name of its own in invoke.yaml.",
        )
        return Combined(present.applied_to(settings), present, (), conflict)
    extent = present.grown_to(wanted)
    if extent == wanted:
        return Combined(settings, extent)
    return Combined(extent.applied_to(settings), extent, tuple(_notices(name, settings, present, wanted)))


def _notices(name: str, settings: DeploymentSettings, present: Extent, wanted: Extent) -> Iterator[str]:
    again = f"It was left as it is: only `invoke cluster.down --delete-data --on {name}` and a new `up` change that."
    sharded = present.topology == "sharded"
    sets = [f"shard{n}" for n in present.shards] if sharded else [settings.replica_set or "rs0"]
    for each in sets:
        if wanted.members < present.members:
            yield f"{each} has {_count(present.members, 'member')}, and {wanted.members} is asked for. {again}"
        if present.arbiters and wanted.members > present.members:
            yield f"{each} has an arbiter, behind which no member is added. {again}"
        if wanted.arbiters < present.arbiters:
            yield f"{each} has {_count(present.arbiters, 'arbiter')}, and {wanted.arbiters} is asked for. {again}"
    if not sharded:
        return
    if wanted.config_servers < present.config_servers:
        yield (
            f"config has {_count(present.config_servers, 'member')}, and {wanted.config_servers} is asked for. {again}"
        )
    for n in sorted({*present.shards} - {*wanted.shards}, reverse=True):
        yield (
            f"shard{n} is not asked for any more. It was left as it is: "
            f"`invoke cluster.remove-shard shard{n} --on {name}` drains and removes it."
        )
    for n in range(present.routers, wanted.routers, -1):
        yield (
            f"router-{n} is not asked for any more. It was left as it is: "
            f"`invoke cluster.remove-router router-{n} --on {name}` stops and removes it."
        )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
