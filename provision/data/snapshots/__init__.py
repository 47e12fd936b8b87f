"""Snapshots of a deployment: all its data as they were at one moment, kept beside them, and put back in a moment.

Other parts of the tool use these functions alone. Each takes the deployment's lock for as long as it works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provision.core.errors import ProvisionError
from provision.data.snapshots import cloning, manifest, restoring, taking
from provision.data.snapshots.manifest import Manifest
from provision.data.snapshots.store import Snapshot, Store, now
from provision.deployments.deployment import Deployment

__all__ = ["Manifest", "Snapshot", "clone", "collect", "delete", "every", "find", "latest", "restore", "save", "size", "undo"]

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Nothing is said."""


def save(deployment: Deployment, name: str = "", *, say: Say = _silent) -> Snapshot:
    """Take a snapshot. The deployment runs on, or stays stopped; while files are copied, writes wait.

    What was acknowledged by a majority before the call is in it; what is written after the call is not.

    `name`: its name; empty: the branch and the time.
    Raises ProvisionError: it can't be taken, or the name is taken; nothing is left of the attempt.
    """
    return taking.save(deployment, name, say)


def restore(deployment: Deployment, snapshot: Snapshot, *, say: Say = _silent) -> None:
    """Put a snapshot in the place of the deployment's data. It runs afterwards, and a majority write has proved it.

    What was there becomes the undo; the undo from before is deleted.

    Raises NotProved: the nodes did not start on it, and are back on what was there.
    Raises ProvisionError: it does not fit, is damaged, or there is no room; nothing was changed.
    """
    restoring.restore(deployment, snapshot, say)


def undo(deployment: Deployment, *, say: Say = _silent) -> None:
    """Put back what was there before the last restore. What that restored becomes the undo.

    Raises ProvisionError: there is nothing to undo, or as `restore`.
    """
    restoring.undo(deployment, say)


def clone(source: Deployment, target: Deployment, *, say: Say = _silent, start: bool = True) -> None:
    """Put another deployment's data into this one, with this one's addresses; the other one goes on meanwhile.

    What was there becomes the undo. The two share nothing afterwards, and know nothing of each other.

    `start`: False: the next `up` starts it on the new data, and proves them.
    Raises NotProved: as `restore`.
    Raises ProvisionError: they have not the same shape, or as `save` and `restore`; nothing was changed.
    """
    cloning.clone(source, target, say, start)


def size(deployment: Deployment) -> int:
    """Bytes that a clone of it would take, about; 0: it has no data.

    Raises ProvisionError: nobody can tell.
    """
    doing = f"looking at the data of {deployment.name}"
    return taking.folders_of(deployment, doing).size(list(taking.of_one(deployment).values()))


def every(deployment: Deployment) -> Sequence[Snapshot]:
    """Its complete snapshots, the oldest first."""
    return Store(deployment.paths, deployment.name).all()


def find(deployment: Deployment, name: str) -> Snapshot | None:
    """The snapshot of that name; None: there is none."""
    return Store(deployment.paths, deployment.name).find(name)


def latest(deployment: Deployment) -> Snapshot | None:
    """The newest snapshot; None: there is none."""
    return next(reversed(every(deployment)), None)


def get(deployment: Deployment, name: str, doing: str) -> Snapshot:
    """As `find`.

    Raises ProvisionError: there is none of that name; it names those that there are.
    """
    found = find(deployment, name)
    if found is not None:
        return found
    names = ", ".join(each.name for each in every(deployment)) or "none"
    raise ProvisionError(
        doing,
        f"{deployment.name} has no snapshot {name!r}. There are: {names}.",
        f"Name one of them: invoke snapshot.list --on {deployment.name}",
    )


def delete(deployment: Deployment, snapshot: Snapshot, *, say: Say = _silent) -> None:
    """Delete a snapshot.

    Raises ProvisionError: its files can't be removed.
    """
    with deployment.holding("deleting a snapshot of", say):
        try:
            Store(deployment.paths, deployment.name).delete(snapshot)
        except OSError as problem:
            raise taking.disk_error(f"deleting the snapshot {snapshot.name}", snapshot.folder, problem) from None


def collect(
    deployment: Deployment, keep: int | None, max_age_days: float | None, named: bool, *, say: Say = _silent
) -> list[str]:
    """Delete the snapshots that the settings want no more; the newest stays in any case.

    Args:
        keep: how many to keep; None: all.
        max_age_days: how old one may become; None: as old as it likes.
        named: also those that were given a name.
    Returns: Their names.
    Raises ProvisionError: as `delete`.
    """
    by_name = {each.name: each for each in every(deployment)}
    manifests = [each.manifest for each in by_name.values()]
    gone = manifest.expired(manifests, now(), keep, max_age_days, named)
    for each in gone:
        delete(deployment, by_name[each.name], say=say)
    return [each.name for each in gone]
