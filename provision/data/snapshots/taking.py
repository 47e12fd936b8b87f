"""Taking a snapshot: one copy of each set's data, as they were at one moment."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from provision.core.dataclass import dataclass
from pathlib import Path

from provision.backends.folders import Copied, DataFolders
from provision.core import copying
from provision.core.errors import ProvisionError
from provision.data.snapshots.manifest import (
    CopiedFile,
    Manifest,
    check_name,
    default_name,
    moment,
    sets_of,
)
from provision.data.snapshots import versions
from provision.data.snapshots.store import Snapshot, Store, now
from provision.deployments import held_writes
from provision.deployments.deployment import Deployment
from provision.mongodb import membership
from provision.mongodb.topology import Node
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from provision.state import records
from provision.state.checkout import checkout_of

Say = Callable[[str], None]
_BALANCER_SECONDS = 60.0


@dataclass(frozen=True)
class _Seen:
    mongod: str
    feature_compatibility: str | None
    balanced: bool = False  # the balancer was on


def folders_of(deployment: Deployment, doing: str) -> DataFolders:
    """What can copy a deployment's data.

    Raises ProvisionError: nothing can.
    """
    folders = deployment.backend.folders()
    if folders is not None:
        return folders
    raise ProvisionError(
        doing,
        f"The nodes of {deployment.name} are on several hosts, each with a disk of its own. Snapshots of them are not "
        "supported.",
        "Use MongoDB's own tools on the hosts: https://www.mongodb.com/docs/manual/core/backups/",
    )


def save(deployment: Deployment, name: str, say: Say) -> Snapshot:
    """See `provision.data.snapshots.save`."""
    doing = f"taking a snapshot of {deployment.name}"
    folders = folders_of(deployment, doing)
    store = Store(deployment.paths, deployment.name)
    if name:
        check_name(name)
    with deployment.holding("taking a snapshot of", say) as lock, _explained(doing, store.folder):
        if deployment.settle() is not None:
            deployment.up(say, holding=True)  # proves what a restore has left
        store.clear()
        taken = [each.name for each in store.all()]
        if name in taken:
            raise ProvisionError(
                doing,
                f"There is a snapshot {name} already.",
                f"Give it another name, or delete that one: invoke snapshot.delete {name} --on {deployment.name}",
            )
        checkout = checkout_of(deployment.paths.root)
        name_ = name or default_name(checkout.branch if checkout else None, now(), taken)
        with _running_or_at_rest(deployment, doing, say) as sources:
            say(f"Copying the data of {deployment.name}")
            folder = store.begin(name_)
            try:
                if sources is None:
                    sources = of_one(deployment)
                    seen = _Seen(versions.on_record(deployment, doing), None)
                    created = now()
                    copied = folders.copy_out(sources, folder)
                else:
                    with _held(deployment, sources, lock, doing) as seen:
                        created = now()
                        copied = folders.copy_out(sources, folder)
                files = _listed(folder, copied)
                sets = sets_of(deployment.topology)
                return store.complete(
                    folder,
                    Manifest(
                        name_, deployment.name, moment(created), bool(name), seen.mongod,
                        seen.feature_compatibility, seen.balanced, sets, files,
                    ),
                )  # fmt: skip
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise


@contextlib.contextmanager
def _running_or_at_rest(deployment: Deployment, doing: str, say: Say) -> Iterator[dict[str, Node] | None]:
    """The primary of each set; None: the deployment is stopped, and a set has one copy of its data.

    Where a set has several, nobody knows which of its members is the most recent until they have elected a primary. So
    it is started for the snapshot, and stopped again.
    """
    look = deployment.look(deployment.topology.nodes)
    look.certain(doing)
    bearing = (sum(not node.arbiter for node in each.members) for each in deployment.topology.all_sets)
    started = False
    if not look.running:
        folders = folders_of(deployment, doing)
        if not folders.with_data(deployment.topology.nodes):
            raise ProvisionError(
                doing, "It has no data yet.", f"Start it first: invoke start --on {deployment.name}"
            )
        if all(count == 1 for count in bearing):
            yield None
            return
        deployment.up(say, holding=True)
        started = True
    try:
        yield primaries(deployment, doing)
    finally:
        if started:
            deployment.end_all()


def of_one(deployment: Deployment) -> dict[str, Node]:
    """The node of each set whose data stand for the set's where none runs."""
    alone = {node.name: node for node in deployment.topology.standalones}
    return alone | {
        each.name: next(node for node in each.members if not node.arbiter)
        for each in deployment.topology.all_sets
    }


def primaries(deployment: Deployment, doing: str) -> dict[str, Node]:
    """The node of each set that takes its writes.

    Raises ProvisionError: one has no primary.
    """
    found = {node.name: node for node in deployment.topology.standalones}
    for each in deployment.topology.all_sets:
        primary = deployment.primary(each.members)
        if primary is None:
            raise ProvisionError(
                doing,
                f"{each.name} has no primary.",
                f"Bring it up first: invoke start --on {deployment.name}",
            )
        found[each.name] = primary
    return found


@contextlib.contextmanager
def _held(deployment: Deployment, sources: Mapping[str, Node], lock: int, doing: str) -> Iterator[_Seen]:
    """Hold the writes of all sets, and the balancer, for the length of the block."""
    from provision.mongodb import sharding

    nodes = list(sources.values())
    with ExitStack() as stack:
        try:
            router: Connection | None = None
            balanced = False
            if deployment.topology.is_sharded:
                router = stack.enter_context(deployment.dial(deployment.topology.routers[0], 90))
                balanced = sharding.balancer(router)["mode"] != "off"
            watching = [*nodes, *(deployment.topology.routers[:1] if balanced else ())]
            stack.enter_context(deployment.watched(watching, lock))
            if router is not None and balanced:
                stack.callback(_surely, deployment, deployment.topology.routers[0], sharding.start_balancer, router)
                sharding.stop_balancer(router, _BALANCER_SECONDS)
            connections = {
                node.name: stack.enter_context(deployment.dial(node, 60))  # those of the locks
                for node in nodes
            }
            asking = connections[nodes[0].name]
            version = str(asking.command("admin", {"buildInfo": 1})["version"])
            compatible = membership.feature_version(asking)[0]
            held_writes.hold(connections)
            for node in nodes:
                stack.callback(_surely, deployment, node, held_writes.unlock, connections[node.name])
            for name, node in sources.items():
                said = connections[node.name].command("admin", {"hello": 1})
                if said.get("setName") and not said.get("isWritablePrimary"):
                    raise ProvisionError(
                        doing, f"{name} has elected another primary in this moment.", "Type the same again."
                    )
        except (NotReachable, CommandFailed) as problem:
            raise ProvisionError(
                doing,
                f"{str(problem).rstrip('.')}.",
                f"Look at its state, then type the same again: invoke status --on {deployment.name}",
            ) from None
        yield _Seen(version, compatible, balanced)


def _surely(
    deployment: Deployment, node: Node, let_go: Callable[[Connection], None], connection: Connection
) -> None:
    """Let go of a node; where that fails, as the process would that watches over it."""
    try:
        let_go(connection)
    except (NotReachable, CommandFailed):
        held_writes.release(deployment.targets([node]))


def _listed(folder: Path, copied: Copied) -> tuple[CopiedFile, ...]:
    """The files of a snapshot with their checksums; they are on disk when this returns."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    unknown = [path for path in files if path not in copied.checksums]
    found = {**copied.checksums, **copying.checksums(unknown, settled=True)}
    copying.settle(files)
    return tuple(
        CopiedFile(
            str(path.relative_to(folder)),
            path.stat().st_size,
            found[path],
            copying.stamp(path) if copied.shares_blocks else None,
        )
        for path in files
    )


@contextlib.contextmanager
def _explained(doing: str, place: Path) -> Iterator[None]:
    """An error of the file system as one for people."""
    try:
        yield
    except OSError as problem:
        raise disk_error(doing, place, problem) from None


def disk_error(doing: str, place: Path, problem: OSError) -> ProvisionError:
    """The error for a folder that can't be written."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProvisionError(
            doing,
            f"The disk that holds {place} is full. Nothing was changed.",
            "Free some space: `invoke snapshot.list` shows what snapshots hold, `invoke snapshot.delete NAME` deletes "
            "one. Then type the same again.",
        )
    where = problem.filename2 or problem.filename or place
    return ProvisionError(
        doing,
        f"{where}: {problem.strerror or problem}. Nothing was changed.",
        "Give yourself rights to it, then type the same again.",
    )
