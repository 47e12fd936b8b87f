"""Putting a snapshot in the place of a deployment's data: checked and copied beside them first, then swapped by renaming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from provision.backends.folders import DataFolders
from provision.core.errors import ProvisionError
from provision.data.snapshots import versions
from provision.data.snapshots.manifest import why_other_shape, why_unreadable
from provision.data.snapshots.store import Snapshot, Store
from provision.data.snapshots.taking import disk_error, folders_of, primaries
from provision.deployments import held_writes, swapping
from provision.deployments.deployment import Deployment, NotProved
from provision.mongodb.topology import Node
from provision.mongodb.wire import CommandFailed, NotReachable, Server
from provision.state import records

Say = Callable[[str], None]
_DIAL_SECONDS = 10.0


def restore(deployment: Deployment, snapshot: Snapshot, say: Say) -> None:
    """See `provision.data.snapshots.restore`."""
    doing = f"restoring {snapshot.name} into {deployment.name}"
    folders = folders_of(deployment, doing)
    with deployment.holding("restoring a snapshot into", say) as lock:
        settled(deployment, say)
        _check(deployment, snapshot, folders, doing)
        say(f"Copying the snapshot {snapshot.name} ({snapshot.room / 1e6:,.0f} MB)")
        deployment.prepare()
        with _telling(say, lambda: "Nothing was changed."):
            _copy_in(deployment, snapshot, folders, doing)
        swap(deployment, folders, f"snapshot {snapshot.name}", snapshot.manifest.balanced, lock, say)


@contextmanager
def _telling(say: Say, text: Callable[[], str]) -> Iterator[None]:
    """Say which data are there, where the block is interrupted."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say(text())
        raise


def _copy_in(deployment: Deployment, snapshot: Snapshot, folders: DataFolders, doing: str) -> None:
    """Copy a snapshot beside the data, while its files are checked: nothing counts until both have been done."""
    targets = folder_of_each(deployment)
    with ThreadPoolExecutor(max_workers=1) as pool:
        checked = pool.submit(Store(deployment.paths, deployment.name).check, snapshot, doing)
        try:
            folders.copy_in(snapshot.folder, targets)
        except OSError as problem:
            checked.result()  # a damaged one is the reason
            raise disk_error(doing, deployment.paths.data, problem) from None
        try:
            checked.result()
        except BaseException:
            folders.discard([node for node, _ in targets])
            raise


def undo(deployment: Deployment, say: Say) -> None:
    """See `provision.data.snapshots.undo`."""
    doing = f"undoing the last restore into {deployment.name}"
    folders = folders_of(deployment, doing)
    with deployment.holding("undoing a restore into", say) as lock:
        settled(deployment, say)
        if not folders.take_undo(_bearing(deployment)):
            raise ProvisionError(
                doing,
                "Nothing was restored here, or it was deleted with the data.",
                f"Look at what there is: invoke snapshot.list --on {deployment.name}",
            )
        swap(deployment, folders, "the data before the last restore", False, lock, say)


def settled(deployment: Deployment, say: Say) -> None:
    """See that nothing of an earlier command is unfinished. The caller holds the lock."""
    if deployment.conflict is not None:
        raise deployment.conflict
    Store(deployment.paths, deployment.name).clear()
    if deployment.settle() is not None:
        with suppress(NotProved):
            deployment.up(say, holding=True)


def _bearing(deployment: Deployment) -> list[Node]:
    return [node for node in deployment.topology.nodes if not node.is_router]


def folder_of_each(deployment: Deployment) -> list[tuple[Node, str]]:
    """Each node and the folder of a snapshot with its data. Arbiters keep theirs: they hold nothing but their vote."""
    return [(node, node.replica_set or node.name) for node in _bearing(deployment) if not node.arbiter]


def _check(deployment: Deployment, snapshot: Snapshot, folders: DataFolders, doing: str) -> None:
    """Refuse what can't be restored, before anything is changed."""
    manifest = snapshot.manifest
    another = f"Look at what fits: invoke snapshot.list --on {deployment.name}"
    if why := why_other_shape(manifest, deployment.topology):
        raise ProvisionError(doing, f"{why} Nothing was changed.", another)
    if why := why_unreadable(manifest, versions.of_next_start(deployment, doing)):
        raise ProvisionError(
            doing,
            f"{why} Nothing was changed.",
            "Choose the version that wrote it: mongodb.version in invoke.yaml.",
        )
    deployment.look(deployment.topology.nodes).certain(doing)
    folders_of_nodes = folder_of_each(deployment)
    needed = sum(snapshot.room_of(name) for _, name in folders_of_nodes)
    free = folders.room([node for node, _ in folders_of_nodes])
    if free is not None and free < needed:
        raise ProvisionError(
            doing,
            f"It needs {needed / 1e6:,.0f} MB beside the data that are there, and {free / 1e6:,.0f} MB are free. "
            "Nothing was changed.",
            "Free some space: `invoke snapshot.list` shows what snapshots hold. Then type the same again.",
        )


def _end(deployment: Deployment, lock: int) -> None:
    """Stop the nodes, whose data others are about to replace: with their writes held, as by a crash.

    In order, a mongod of a replica set takes up to a second for it. It is done so where writes can't be held, or a crash
    would lose some of them.
    """
    with suppress(ProvisionError, NotReachable, CommandFailed, OSError), ExitStack() as stack:
        nodes = list(primaries(deployment, f"stopping {deployment.name}").values())
        if not any(map(deployment.backend.is_paused, nodes)):
            stack.enter_context(deployment.watched(nodes, lock))
            connections = {
                node.name: stack.enter_context(deployment.dial(node, _DIAL_SECONDS)) for node in nodes
            }
            held_writes.hold(connections)
            if all(map(_outlives_crash, connections.values())):
                ending = deployment.running(deployment.topology.nodes)
                # A mongod that is asked to end lets go of its lock first, and acknowledges the writes that waited.
                with ThreadPoolExecutor(max_workers=len(ending)) as pool:
                    list(pool.map(deployment.backend.kill, ending))
            else:
                for each in connections.values():
                    held_writes.unlock(each)
    deployment.end_all()


def _outlives_crash(held: Server) -> bool:
    """Whether all that a node with held writes has acknowledged is there after a crash.

    After one, a primary cuts off its oplog where it last knew that nothing was missing before it. It notes that place
    ten times a second, and not while its writes are held: what was written in between with w: 1 would be lost.
    """
    noted, last = (
        held.command("local", {"find": name, "sort": {"$natural": -1}, "limit": 1})["cursor"]["firstBatch"]
        for name in ("replset.oplogTruncateAfterPoint", "oplog.rs")
    )
    return not noted or not last or noted[0]["oplogTruncateAfterPoint"] >= last[0]["ts"]


def swap(
    deployment: Deployment,
    folders: DataFolders,
    what: str,
    balanced: bool,
    lock: int,
    say: Say,
    start: bool = True,
) -> None:
    """Stop the nodes, swap what is incoming for their data, and start them on these.

    Args:
        lock: descriptor of the deployment's lock.
        start: False: the next `up` swaps and proves them.
    Raises NotProved: they did not start, and run on what was there before.
    """
    paths, name = deployment.paths, deployment.name
    nodes = [node for node in _bearing(deployment) if not node.arbiter]
    ran = bool(deployment.running(deployment.topology.nodes))
    started_by_run = paths.run_record(name)
    kept = started_by_run.read_bytes() if started_by_run.is_file() else None
    at_start = f"Type: invoke start --on {name}"
    proved: list[str] = []
    if ran:
        say(f"Stopping {name}")
        with _telling(say, lambda: f"{name} has the data that it had, and may be stopped. {at_start}"):
            _end(deployment, lock)
    before: dict[str, Any] = records.INITIATED.read(paths, name) or {}
    sets = sorted({*before.get("replica_sets", ()), *(each.name for each in deployment.topology.all_sets)})
    swapping.record(
        paths,
        name,
        swapping.Swap(
            what,
            tuple(node.name for node in nodes),
            tuple(sorted(folders.with_data(nodes))),
            tuple(before.get("replica_sets", ())),
            balanced,
        ),
    )
    records.INITIATED.write(paths, {"replica_sets": sets}, name)
    if not start:
        return
    try:
        with _telling(say, lambda: f"{name} has {what}{' now' if proved else f' from its next start on. {at_start}'}"):
            deployment.up(say, holding=True, started=lambda: proved.append(name))
    except NotProved:
        if ran:
            deployment.up(say, holding=True)
        raise
    finally:
        if kept is not None:  # the `run` that started it stops it
            records.RUN.put(started_by_run, kept)
