"""What earlier commands have settled about a deployment.

The flags of an earlier `cluster.up` or `cluster.upgrade`, which hold for the later commands too; and the extent that
the deployment has reached. Settings that ask for less than that never take a node away by themselves, so what runs is
always known: to `status`, and to `down`. And the moves from one host to another that have begun.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings, KeyPath
from provision.state.records import EXTENT, FLAGS, MOVING

DEFAULT_SET = "rs0"
_VARIABLE = "environment "


def flags(root: Path) -> dict[KeyPath, tuple[str, Any]]:
    """The remembered flags of every deployment, for `settings.load`.

    Returns: Key → (where it came from, value).
    """
    found: dict[KeyPath, tuple[str, Any]] = {}
    for file in sorted((root / ".state" / "deployments").glob("*/flags.json")):
        for key, entry in (FLAGS.load(file) or {}).items():
            if isinstance(entry, dict) and "value" in entry:
                found["deployments", file.parent.name, key] = (
                    f"an earlier {entry.get('from')}",
                    entry["value"],
                )
    return found


@dataclass(frozen=True)
class Move:
    """A node that goes from one host to another.

    Args:
        source: the host that it leaves.
        target: the host that it goes to.
        lost: the host that it leaves is gone for good: nothing is asked of it any more.
    """

    node: str
    source: str
    target: str
    lost: bool = False


@dataclass(frozen=True)
class Flag:
    """A value that a command was given for a key of a deployment."""

    value: Any  # the validated value
    typed: str  # the command that gave it: ``"cluster.up --shards 3"``


def remember(paths: Paths, deployment: str, given: Mapping[str, Flag]) -> dict[str, Any] | None:
    """Add flags to those that hold for a deployment.

    `given`: key of `DeploymentSettings` → flag.

    Returns: The record as it was before, for `restore`.
    Raises OSError: it can't be written.
    """
    before = FLAGS.read(paths, deployment)
    if given:
        added = {key: {"value": flag.value, "from": flag.typed} for key, flag in given.items()}
        FLAGS.write(paths, {**(before or {}), **added}, deployment)
    return before


def restore(paths: Paths, deployment: str, before: dict[str, Any] | None) -> None:
    """Put the flags back to what `remember` found."""
    FLAGS.write(paths, before, deployment)


def moves(paths: Paths, deployment: str) -> dict[str, Move]:
    """Node name → its move from one host to another that has begun and is not finished."""
    record = MOVING.read(paths, deployment) or {}
    return {node: Move(**{**each, "node": node}) for node, each in record.items()}


def record_moves(paths: Paths, deployment: str, unfinished: Mapping[str, Move]) -> None:
    """Note which moves have begun and are not finished; with none, there is no record.

    Raises OSError: it can't be written.
    """
    record = {node: asdict(each) for node, each in unfinished.items()}
    MOVING.write(paths, record or None, deployment)


def gaps(numbers: Sequence[int]) -> list[int]:
    """The numbers below the greatest that are missing."""
    return [n for n in range(1, max(numbers, default=0)) if n not in numbers]


@dataclass(frozen=True)
class Extent:
    """What a deployment consists of, and how clients and nodes reach each other in it."""

    topology: str  # ``single``, ``replica-set`` or ``sharded``
    backend: str  # what its nodes run on
    port: int  # its first port
    members: int = 1  # data-bearing members of each set
    arbiters: int = 0  # arbiters of each set
    config_servers: int = 0  # config servers
    routers: int = 0  # routers
    shards: tuple[int, ...] = ()  # the shards' numbers
    replica_set: str | None = None  # name of its replica set; None: it has none, or several
    # it has a key file and users; None: not known, as it was recorded by an older version of the tool
    auth: bool | None = None
    tls: bool | None = None  # its connections are encrypted; None: likewise

    @classmethod
    def of(cls, settings: DeploymentSettings) -> Self:
        """What settings ask for."""
        one = cls(
            settings.topology,
            settings.backend,
            settings.port,
            replica_set=settings.replica_set,
            auth=settings.has_auth,
            tls=settings.has_tls,
        )
        if settings.topology == "single":
            return one
        return replace(
            one,
            members=settings.members,
            arbiters=settings.arbiters,
            config_servers=settings.config_servers,
            routers=settings.routers,
            shards=settings.shard_numbers,
            replica_set=(settings.replica_set or DEFAULT_SET) if settings.topology == "replica-set" else None,
        )

    @classmethod
    def recorded(cls, paths: Paths, deployment: str) -> Self | None:
        """What a deployment has reached; None: it was never up."""
        record = EXTENT.read(paths, deployment)
        try:
            return None if record is None else cls(**{**record, "shards": tuple(record["shards"])})
        except (KeyError, TypeError):
            return None

    @staticmethod
    def record(paths: Paths, deployment: str, reached: Extent | None) -> None:
        """Note what a deployment has reached; None: nothing.

        Raises OSError: it can't be written.
        """
        record = None if reached is None else {**asdict(reached), "shards": list(reached.shards)}
        EXTENT.write(paths, record, deployment)

    def applied_to(self, settings: DeploymentSettings) -> DeploymentSettings:
        """Settings that ask for exactly this."""
        values: dict[str, Any] = {"topology": self.topology, "backend": self.backend, "port": self.port}
        if self.topology != "single":
            values |= {
                "members": self.members,
                "arbiters": self.arbiters,
                "config_servers": self.config_servers,
                "routers": self.routers,
                "shards": len(self.shards),
                "removed_shards": gaps(self.shards),
            }
        if self.topology == "single" or self.replica_set is not None:
            values["replica_set"] = self.replica_set
        # What the settings leave to the back end stays so, where that comes to the same.
        if self.auth not in (None, replace(settings, **values).has_auth):
            values["auth"] = self.auth
        if self.tls not in (None, replace(settings, **values).has_tls):
            values["tls"] = self.tls
        return replace(settings, **values)

    def grown_to(self, wanted: Extent) -> Extent:
        """This, with whatever more is wanted: members, shards and routers can be added, and not taken away.

        Behind an arbiter no member is added: nodes are numbered, and it would have to become one.
        """
        members = self.members if self.arbiters else max(self.members, wanted.members)
        return replace(
            wanted,
            members=members,
            arbiters=max(self.arbiters, wanted.arbiters),
            config_servers=max(self.config_servers, wanted.config_servers),
            routers=max(self.routers, wanted.routers),
            shards=tuple(sorted({*self.shards, *wanted.shards})),
        )

    def changes(self, wanted: Extent) -> tuple[Change, ...]:
        """What is wanted otherwise, beyond the number of nodes: a running node does not notice, and clients fail."""
        found = []
        for key in ("topology", "backend", "port", "replica_set", "auth", "tls"):
            present, asked = getattr(self, key), getattr(wanted, key)
            unknown = present is None and not (key == "replica_set" and self.topology == "single")
            another_kind = key == "replica_set" and self.topology != wanted.topology
            if present != asked and not unknown and not another_kind:
                found.append(Change(key, present, asked))
        return tuple(found)


@dataclass(frozen=True)
class Change:
    """One key of a deployment's settings that is not what the deployment was launched with."""

    key: str  # of `DeploymentSettings`
    present: Any  # its value as the deployment was launched
    asked: Any  # its value now

    @property
    def needs_new_data(self) -> bool:
        """Whether data that are there can't follow it."""
        return self.key in ("topology", "backend") or (
            self.key == "replica_set" and None not in (self.present, self.asked)
        )

    def phrase(self, value: Any) -> str:
        """One of its values as a person says it: ``port 27017``."""
        return f"{self.key} {_as_typed(value)}"


class There(StrEnum):
    """What is there of a deployment that was up once."""

    NOTHING = "nothing"
    DATA = "data"
    RUNNING = "running"


@dataclass(frozen=True)
class Combined:
    """What a deployment is, given its settings and what it has reached."""

    settings: DeploymentSettings  # the settings of what there is and will be
    extent: Extent  # the same as an extent
    notices: tuple[str, ...] = ()  # where it is left as it is although the settings ask for something else
    # why `up` can't bring the settings about now, with what to type; None: it can
    conflict: ProvisionError | None = None
    restart: bool = True  # a restart brings them about


def combine(
    name: str,
    settings: DeploymentSettings,
    present: Extent | None,
    there: There = There.DATA,
    origins: Mapping[str, str] | None = None,
) -> Combined:
    """Bring a deployment's settings and its extent together. Pure.

    Args:
        settings: what is asked for.
        present: what it has reached; None: it was never up.
        there: what is there of it.
        origins: key → where its value comes from, for errors.
    """
    wanted = Extent.of(settings)
    if present is None or there is There.NOTHING:
        return Combined(settings, wanted)
    changes = present.changes(wanted)
    # The addresses of several nodes are in their data.
    moved = present.topology != "single" and any(each.key == "port" for each in changes)
    if moved or any(each.needs_new_data for each in changes):
        conflict = _refusal(name, present, changes, there, origins or {})
        return Combined(present.applied_to(settings), present, (), conflict, restart=False)
    if changes and there is There.RUNNING:
        conflict = _restart_first(name, changes, origins or {})
        return Combined(present.applied_to(settings), present, (), conflict)
    extent = present.grown_to(wanted)
    if extent == wanted:
        return Combined(settings, extent)
    return Combined(extent.applied_to(settings), extent, tuple(_notices(name, settings, present, wanted)))


def _restart_first(name: str, changes: Sequence[Change], origins: Mapping[str, str]) -> ProvisionError:
    """A deployment that runs with other settings: nothing is changed under the feet of its clients."""
    apply = f"Restart it with them: {_given(changes, origins)}invoke restart --on {name}"
    if any(origins.get(each.key, "").startswith("flag ") for each in changes):
        apply = f"Stop it: invoke stop --on {name}\nThen type this again."
    return ProvisionError(
        f"starting {name}",
        f"{name} runs with {_and(each.phrase(each.present) for each in changes)}, and the settings ask for "
        f"{_and(each.phrase(each.asked) for each in changes)}.",
        apply,
    )


def _given(changes: Sequence[Change], origins: Mapping[str, str]) -> str:
    """The variables that ask for changes, as a command takes them: they were perhaps set for one command alone."""
    variables = {
        origin.removeprefix(_VARIABLE): _as_typed(each.asked)
        for each in changes
        if (origin := origins.get(each.key, "")).startswith(_VARIABLE)
    }
    return "".join(f"{name}={value} " for name, value in sorted(variables.items()))


def _refusal(
    name: str, present: Extent, changes: Sequence[Change], there: There, origins: Mapping[str, str]
) -> ProvisionError:
    """A change that the data can't follow."""
    renamed = next((each for each in changes if each.key == "replica_set"), None)
    runs = "runs" if there is There.RUNNING else "is there"
    if renamed is not None and len(changes) == 1:
        cause = (
            f"{name} {runs}. Its data directory belongs to the replica set {renamed.present!r}, not to {renamed.asked!r}. "
            "A set's name is in its data, which are untouched."
        )
    else:
        cause = (
            f"{name} {runs} with {_and(each.phrase(each.present) for each in changes)}, and the settings ask for "
            f"{_and(each.phrase(each.asked) for each in changes)}. Its data can't follow, and are untouched."
        )
    back = ", ".join(f"{each.key}: {_as_typed(each.present)}" for each in changes)
    ways = [f"Keep it as it is: set {back} under deployments.{name} in invoke.yaml"]
    if renamed is not None and len(changes) == 1 and present.topology == "single":
        null = f"INVOKE_DEPLOYMENTS_{name.upper().replace('-', '_')}_REPLICA_SET=null"
        ways.append(
            "Or rename it: take its old name out of its data while it stands alone, then start it with the new one:\n"
            f"{null} invoke restart --on {name}\n"
            f"{null} invoke shell --on {name} --python --eval 'client.drop_database(\"local\")'\n"
            f"{_given(changes, origins)}invoke restart --on {name}"
        )
    else:
        ways.append(
            "Or give the new one a name of its own in invoke.yaml, start both, and copy: "
            f'mongodump --archive --uri "$(invoke uri --user root --on {name})" | '
            'mongorestore --archive --uri "$(invoke uri --user root --on NEW)"'
            if present.auth
            else "Or give the new one a name of its own in invoke.yaml, start both, and copy: "
            f'mongodump --archive --uri "$(invoke uri --on {name})" | '
            'mongorestore --archive --uri "$(invoke uri --on NEW)"'
        )
    ways.append(f"Or delete its data: invoke cluster.down --delete-data --on {name}")
    return ProvisionError(f"starting {name}", cause, "\n".join(ways))


def _as_typed(value: Any) -> str:
    """A setting's value as invoke.yaml and the environment have it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _and(phrases: Iterable[str]) -> str:
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last


def _notices(name: str, settings: DeploymentSettings, present: Extent, wanted: Extent) -> Iterator[str]:
    again = (
        f"It stays as it is: only `invoke cluster.down --delete-data --on {name}` and a new `up` change that."
    )
    sharded = present.topology == "sharded"
    sets = [f"shard{n}" for n in present.shards] if sharded else [settings.replica_set or DEFAULT_SET]
    for each in sets:
        if wanted.members < present.members:
            yield f"{each} has {_count(present.members, 'member')}, and the settings ask for {wanted.members}. {again}"
        if present.arbiters and wanted.members > present.members:
            yield f"{each} has an arbiter, behind which no member is added. {again}"
        if wanted.arbiters < present.arbiters:
            yield f"{each} has {_count(present.arbiters, 'arbiter')}, and the settings ask for {wanted.arbiters}. {again}"
    if not sharded:
        return
    if wanted.config_servers < present.config_servers:
        yield (
            f"config has {_count(present.config_servers, 'member')}, and the settings ask for "
            f"{wanted.config_servers}. {again}"
        )
    for n in sorted({*present.shards} - {*wanted.shards}, reverse=True):
        yield (
            f"shard{n} is no longer in the settings. It stays as it is: "
            f"`invoke cluster.remove-shard shard{n} --on {name}` drains and removes it."
        )
    for n in range(present.routers, wanted.routers, -1):
        yield (
            f"router-{n} is no longer in the settings. It stays as it is: "
            f"`invoke cluster.remove-router router-{n} --on {name}` stops and removes it."
        )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
