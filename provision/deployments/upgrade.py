"""Another version of MongoDB for a running deployment: `cluster.upgrade`.

Node by node, as a rolling restart, with the balancer off meanwhile. What new features need, the feature compatibility
version, is raised only when told: until then, the old version could still read all data.

https://www.mongodb.com/docs/manual/release-notes/8.0-upgrade-sharded-cluster/
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from provision.backends.registry import in_containers
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments import assembly, cluster, on_hosts, rolling
from provision.deployments.deployment import Deployment
from provision.deployments.rolling import HandOver, Roll, Say
from provision.mongodb import membership, sharding
from provision.mongodb.binaries.model import numbers, unsupported
from provision.mongodb.wire import CommandFailed, NotReachable
from provision.settings.loading import Loaded
from provision.state import records, remembered
from provision.state.remembered import Flag

if TYPE_CHECKING:
    from provision.core.steps import Progress

_BALANCER_SECONDS = 120.0
_FEATURES_SECONDS = 600.0
_LAST_MINOR = 3  # of every major version since 5
_CONFIRMED_SINCE = (7, 0)  # setFeatureCompatibilityVersion wants `confirm: true`


@dataclass(frozen=True)
class Features:
    """The feature compatibility version of a replica set or a standalone mongod."""

    version: str  # ``"6.0"``
    changing: bool = False  # raising or lowering it was interrupted


@dataclass(frozen=True)
class Plan:
    """What an upgrade has to do."""

    nodes: tuple[str, ...]  # names of the nodes that run another version, or don't run
    raise_to: str | None  # the feature compatibility version to be set at the end; None: it stays


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did; its fields are what ``--json`` prints.

    Args:
        version: what all of its nodes run now.
        restarted: names of the nodes that were restarted with it, in order.
        unchanged: names of those that ran it.
        handed_over: the primaries that gave way.
        feature_compatibility: the feature compatibility version that it has now.
        raised: whether that was raised now.
        seconds: wall time.
    """

    deployment: str
    version: str
    restarted: tuple[str, ...]
    unchanged: tuple[str, ...]
    handed_over: tuple[HandOver, ...]
    feature_compatibility: str
    raised: bool
    seconds: float


# What is decided, pure


def plan(
    name: str,
    running: Mapping[str, str | None],
    features: Mapping[str, Features],
    to: str,
    raise_features: bool,
) -> Plan:
    """Decide what an upgrade has to do, or why it may not be. Pure.

    MongoDB goes from one version to those that may follow it, and only when the feature compatibility version is that of
    the version which runs.

    Args:
        running: node → the version that it runs; None: it does not run.
        features: replica set, or standalone mongod → its feature compatibility version.
        to: the version wanted, ``"7.0.14"``.

    Raises ProvisionError: it may not be.
    """
    doing = f"upgrading {name} to {to}"
    target = numbers(to)
    newer = {node: version for node, version in running.items() if version and numbers(version) > target}
    if newer:
        listed = ", ".join(f"{node} runs {version}" for node, version in newer.items())
        raise ProvisionError(
            doing,
            f"{listed}, and `cluster.upgrade` does not go back to an older series. Nothing was changed.",
            "Restore a backup into a new deployment of that version. From 8.3 on, MongoDB can go back by one, by hand:\n"
            "https://www.mongodb.com/docs/manual/release-notes/",
        )
    for each, found in features.items():
        present = numbers(found.version)
        # While it is being raised, a server says the old version, and the new one as its target.
        finishing = raise_features and follows(present, target)
        if found.changing and not finishing:
            raise ProvisionError(
                doing,
                f"Changing the feature compatibility version of {each} from {found.version} was interrupted.",
                f"Finish that first: invoke cluster.upgrade --feature-compatibility --on {name}",
            )
        if not follows(present, target):
            ahead = [version for version in running.values() if version and numbers(version) > present]
            raise ProvisionError(
                doing,
                f"The feature compatibility version of {each} is {found.version}, and MongoDB does not go from there to "
                f"{target[0]}.{target[1]} in one step. Nothing was changed.",
                f"Raise it first: invoke cluster.upgrade --feature-compatibility --on {name}"
                if ahead
                else f"Upgrade to a version that follows {found.version} first, with --feature-compatibility: "
                f"{_next_after(present)}.",
            )
    nodes = tuple(node for node, version in running.items() if version != to)
    series = f"{target[0]}.{target[1]}"
    lower = any(each.version != series or each.changing for each in features.values())
    return Plan(nodes, series if raise_features and lower else None)


def follows(present: tuple[int, int], target: tuple[int, int]) -> bool:
    """Whether one may go from a version to another in one step. Pure.

    From a major release (8.0) to any of its minor releases; from a minor release to the next one; from a major release, and
    from its last minor one, to the next major release. Follows
    https://www.mongodb.com/docs/manual/release-notes/8.3-upgrade-from-8.0-sharded-cluster/ and
    https://www.mongodb.com/docs/manual/release-notes/9.0-upgrade-sharded-cluster/

    Args:
        present: major and minor.
        target: major and minor.
    """
    major, minor = present
    if target[0] == major:
        return target[1] in (minor, minor + 1) or (minor == 0 and target[1] > 0)
    return target == (major + 1, 0) and minor in (0, _LAST_MINOR)


def _next_after(present: tuple[int, int]) -> str:
    """Which series may follow one, for a person. Pure."""
    major, minor = present
    if minor in (0, _LAST_MINOR):
        return f"{major + 1}.0"
    return f"{major}.{minor + 1}"


def image_for(current: str, to: str) -> str:
    """The Docker image for what was typed: an image, or a version, which is a tag of the current image. Pure."""
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", to):
        return to
    folder, slash, rest = current.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{rest.partition(':')[0]}:{to}"


# What is done


def upgrade(
    loaded: Loaded,
    name: str,
    to: str | None,
    raise_features: bool,
    say: Say,
    progress: Progress,
    again: str,
    interrupt: bool = False,
) -> Upgraded:
    """Have all nodes of a deployment run another version, one after another, while it goes on serving.

    What was chosen holds for the later commands on the deployment. Interrupted, it goes on with the nodes that don't run
    the version yet when it is called again.

    Args:
        to: a version, the path of a mongod, or a Docker image; None: what runs, to raise the feature compatibility
            version alone.
        raise_features: raise the feature compatibility version when all nodes run it.
        again: the command to type after a failure.
        interrupt: go on although a part of it is unavailable for a moment.

    Raises ProvisionError: it may not be, there is no such version, or a node did not come back with it.
    """
    begun = time.monotonic()
    doing = f"upgrading {name}{f' to {to}' if to else ''}"
    with cluster.resizing(loaded, name, say):
        before = assembly.deployment(loaded, name)
        with before.holding("upgrading", say):
            rolling.check_settled(loaded, name, doing)
            Roll(before, loaded.paths.rolling_record(name), doing, again, say).check_whole()
            running = {each.name: each.version for each in before.status().nodes}
            features = _features(before, doing)
            with _choice(loaded, name, before, to, running, doing, progress, again) as chosen:
                planned = plan(name, running, features, chosen.version, raise_features)
                roll = Roll(
                    assembly.deployment(chosen.loaded, name),
                    loaded.paths.rolling_record(name),
                    doing,
                    again,
                    say,
                )
                if planned.nodes:
                    rolling.check_interruptions(before, planned.nodes, doing, again, interrupt)
                    _send(chosen.loaded, roll.deployment, doing, say)
                    chosen.keep()
            with _balancer_off(roll, bool(planned.nodes)):
                if planned.nodes:
                    roll.deployment.prepare()
                    roll.run(planned.nodes)
            if planned.raise_to is not None:
                _raise_features(roll.deployment, planned.raise_to, doing, again, say)
            features = _features(roll.deployment, doing)
    lowest = min((each.version for each in features.values()), key=numbers)
    return Upgraded(
        name,
        chosen.version,
        tuple(roll.restarted),
        tuple(node for node in running if node not in roll.restarted),
        tuple(roll.handed_over),
        lowest,
        planned.raise_to is not None,
        round(time.monotonic() - begun, 3),
    )


@dataclass
class _Chosen:
    """A version that was chosen."""

    loaded: Loaded  # the settings with it
    version: str  # what it calls itself
    flags: Mapping[str, Flag]  # what is remembered of the choice
    name: str
    kept: bool = False

    def keep(self) -> None:
        """From now on, nodes are started with it."""
        remembered.remember(self.loaded.paths, self.name, self.flags)
        self.kept = True


@contextlib.contextmanager
def _choice(
    loaded: Loaded,
    name: str,
    before: Deployment,
    to: str | None,
    running: Mapping[str, str | None],
    doing: str,
    progress: Progress,
    again: str,
) -> Iterator[_Chosen]:
    """What `to` names, run once here. Unless it is kept, nothing is changed by having looked."""
    if to is None:
        versions = {version for version in running.values() if version is not None}
        if len(versions) != 1:
            raise ProvisionError(
                doing,
                f"Its nodes run several versions: {', '.join(sorted(versions))}.",
                f"Name the one that all are to run: {again} --to {max(versions, key=numbers)}",
            )
        yield _Chosen(loaded, versions.pop(), {}, name)
        return
    typed = f"cluster.upgrade --to {to}"
    if before.backend.capabilities.containers:
        current = loaded.deployment(name).image or loaded.settings.mongodb.image
        flags = {"image": Flag(image_for(current, to), typed)}
        changed = cluster.with_flags(loaded, name, flags)
        backend = in_containers(assembly.deployment(changed, name).backend)
        assert backend is not None  # noqa: S101 — it was, a line ago
        version = backend.version()
        if (against := unsupported(version)) is not None:
            raise ProvisionError(
                doing,
                f"{flags['image'].value} has {version}, which is {against}.",
                "Name another one with --to.",
            )
        yield _Chosen(changed, version, flags, name)
        return
    flags = {"mongod": Flag(_own(loaded, to, doing), typed)}
    changed = cluster.with_flags(loaded, name, flags)
    record = loaded.paths.mongod_record_of(name)
    recorded = records.MONGOD_OF_DEPLOYMENT.load(record)
    chosen: _Chosen | None = None
    try:
        mongod = assembly.mongod(changed, name) or _find(changed, name, to, doing, again, progress)
        if before.topology.routers and mongod.mongos is None:
            raise ProvisionError(
                doing,
                f"A sharded cluster needs mongos, and there is none beside {mongod.path}.",
                "MongoDB's archive has both: set mongodb.source to archive in invoke.yaml, or name a mongod that has "
                "mongos beside it: --to /path/to/mongod",
            )
        chosen = _Chosen(changed, mongod.version, flags, name)
        yield chosen
    finally:
        if chosen is None or not chosen.kept:
            records.MONGOD_OF_DEPLOYMENT.store(record, recorded)


def _own(loaded: Loaded, to: str, doing: str) -> str:
    """A version, or the absolute path of a mongod."""
    if re.fullmatch(r"\d+\.\d+\.\d+", to):
        return to
    if "/" not in to:
        raise ProvisionError(
            doing,
            f"{to!r} is neither a whole version nor a path.",
            "Write the version with its patch level, --to 8.0.17, or the path of a mongod: --to /path/to/mongod",
        )
    return str(loaded.paths.under_root(to))


def _find(changed: Loaded, name: str, to: str, doing: str, again: str, progress: Progress) -> Any:
    try:
        return assembly.find_mongod(changed, name, progress).mongod
    except ProvisionError as error:
        raise ProvisionError(
            doing,
            f"There is no such mongod here. {error.cause}",
            "Name one that is on this machine: --to /path/to/mongod\n"
            "Or let the tool download it: mongodb.source must be auto or archive in invoke.yaml.\n"
            f"Then type it again: {again}"
            if "/" not in to
            else f"Name another one with --to, then type it again: {again}",
            error.log_lines,
        ) from None


def _send(loaded: Loaded, deployment: Deployment, doing: str, say: Say) -> None:
    """See that hosts have the binary, and that it runs there; before anything is restarted."""
    backend = on_hosts.backend_of(deployment)
    if backend is not None:
        used = set(backend.placement.values())
        links = {host: link for host, link in backend.links.items() if host in used}
        on_hosts.send_binaries(loaded, deployment.name, links, doing, say)


@contextlib.contextmanager
def _balancer_off(roll: Roll, needed: bool) -> Iterator[None]:
    """Keep the balancer of a sharded cluster from moving chunks meanwhile; it comes on again if it was on.

    An earlier attempt that was killed has left a note that it was.
    """
    record = records.ROLLING.load(roll.record) or {}
    was_on = bool(record.get("balancer"))
    topology = roll.deployment.topology
    # A router that an earlier attempt left down can't be asked; that attempt has seen to the balancer.
    only_left = [node.name for node in topology.routers] == [roll.in_hand]
    if topology.is_sharded and needed and not only_left:
        with cluster.routed(roll.deployment, roll.doing) as router:
            if sharding.balancer(router)["mode"] != "off":
                was_on = True
                records.ROLLING.store(roll.record, {**record, "balancer": True})
                roll.say("The balancer is off until all nodes are done")
                with rolling.said(roll.doing, "The balancer could not be stopped"):
                    sharding.stop_balancer(router, _BALANCER_SECONDS)
    try:
        yield
    finally:
        if was_on:
            _start_balancer(roll)


def _start_balancer(roll: Roll) -> None:
    try:
        with cluster.routed(roll.deployment, roll.doing) as router:
            sharding.start_balancer(router)
    except (ProvisionError, NotReachable, CommandFailed):
        # What made the upgrade fail is told, and may be why no router answers.
        roll.say(f"The balancer is still off. `{roll.again}` switches it on at its end.")
        return
    left = {
        key: value for key, value in (records.ROLLING.load(roll.record) or {}).items() if key != "balancer"
    }
    records.ROLLING.store(roll.record, left or None)
    roll.say("The balancer is on again")


def _features(deployment: Deployment, doing: str) -> dict[str, Features]:
    """The feature compatibility version of every set and standalone mongod."""
    found = {}
    leaders = [(each.name, deployment.primary(each.members)) for each in deployment.topology.all_sets]
    for name, node in (*leaders, *((node.name, node) for node in deployment.topology.standalones)):
        if node is None:  # a set of one, whose member an earlier attempt has left down
            continue
        with (
            rolling.said(doing, f"{node.name} does not say its feature compatibility version"),
            deployment.dial(node) as connection,
        ):
            found[name] = Features(*membership.feature_version(connection))
    return found


def _raise_features(deployment: Deployment, to: str, doing: str, again: str, say: Say) -> None:
    """Raise the feature compatibility version: through a router for the whole cluster.

    Follows https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/
    """
    command: dict[str, Any] = {"setFeatureCompatibilityVersion": to}
    if numbers(to) >= _CONFIRMED_SINCE:
        command["confirm"] = True
    say(f"Raising the feature compatibility version to {to}")
    topology = deployment.topology
    try:
        if topology.is_sharded:
            with cluster.routed(deployment, doing) as router:
                router.command("admin", command, timeout=_FEATURES_SECONDS)
            return
        for each in topology.replica_sets:
            node = deployment.primary(each.members)
            if node is None:
                raise NotReachable(f"{each.name} has no primary")
            with deployment.dial(node) as connection:
                connection.command("admin", command, timeout=_FEATURES_SECONDS)
        for node in topology.standalones:
            with deployment.dial(node) as connection:
                connection.command("admin", command, timeout=_FEATURES_SECONDS)
    except (NotReachable, CommandFailed) as refusal:
        raise ProvisionError(
            doing,
            f"The feature compatibility version was not raised to {to}: {str(refusal).rstrip('.')}.",
            f"All nodes run the new version, and go on. Type it again: {again}",
        ) from None
