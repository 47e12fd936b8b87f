"""The tasks of `invoke snapshot.…`: all data of a deployment, kept as they are now, and put back."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection

from provision.cli.command import ON, agreed, command

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.data.snapshots import Snapshot
    from provision.deployments.deployment import Deployment


@command(help={"name": "its name (default: the branch and the time)", **ON}, positional=["name"])
def save(session: Session, name: str | None = None, on: str = "local") -> Result[shapes.SnapshotSaved]:
    """Take a snapshot of all data of a deployment, as they are now.

    A deployment that runs goes on; its writes wait while the files are copied. Each write that a majority has acknowledged
    before is in the snapshot. `snapshots.keep` in invoke.yaml says how many stay; those that you name always do.
    """
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.data import snapshots

    begun = time.monotonic()
    rules = session.loaded.settings.snapshots
    deployment = session.deployment(on)
    taken = snapshots.save(deployment, name or "", say=session.say)
    gone = snapshots.collect(deployment, rules.keep, rules.max_age_days, rules.named, say=session.say)
    shown = _shown(taken)
    seconds = time.monotonic() - begun

    def show() -> None:
        display.line(f"{taken.name}: {shown.bytes / 1e6:,.0f} MB of {on}, in {seconds:.1f} s")
        for old in gone:
            display.note(f"Deleted the older snapshot {old}: snapshots in invoke.yaml says how many stay.")

    return Result(shapes.SnapshotSaved(on, shown, gone, round(seconds, 3)), show)


@command(only_prints=True, help=ON)
def list(session: Session, on: str = "local") -> Result[shapes.SnapshotsListed]:
    """Show the snapshots of a deployment, the oldest first."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.data import snapshots

    deployment = session.deployment(on)
    found = [_shown(each) for each in snapshots.every(deployment)]

    def show() -> None:
        if not found:
            display.note(f"{on} has no snapshot. Take one: invoke snapshot.save --on {on}")
            return
        rows = [
            (
                each.name,
                each.created[:19].replace("T", " "),
                f"{each.bytes / 1e6:,.0f} MB",
                each.mongod,
                ", ".join(each.sets),
            )
            for each in found
        ]
        display.table(("NAME", "TAKEN (UTC)", "SIZE", "MONGODB", "SETS"), rows)

    return Result(shapes.SnapshotsListed(on, found), show)


@command(
    help={
        "name": "which snapshot",
        "latest": "the newest one",
        "undo": "instead, put back what was there before the last restore",
        "yes": "don't ask",
        **ON,
    },
    positional=["name"],
)
def restore(
    session: Session,
    name: str | None = None,
    latest: bool = False,
    undo: bool = False,
    yes: bool = False,
    on: str = "local",
) -> Result[shapes.SnapshotRestored]:
    """Put a snapshot in the place of a deployment's data, and start it; asks first.

    What is there now stays until the next restore: --undo puts it back. If the deployment does not start on the snapshot,
    the data from before come back by themselves.
    """
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.data import snapshots

    begun = time.monotonic()
    doing = f"undoing the last restore into {on}" if undo else f"restoring a snapshot into {on}"
    _one_of(doing, on, name, latest, undo)
    chosen = None if undo else _chosen(session.deployment(on), name, doing)
    what = "what was there before the last restore" if chosen is None else f"the snapshot {chosen.name}"
    question = f"Replace the data of {on} with {what}? {_undone_by(on)}"
    if not agreed(question, doing, yes):
        nothing = shapes.SnapshotRestored(on, False, None, 0.0)
        return Result(nothing, lambda: display.line("Nothing was changed."))
    deployment = session.ready(on)
    if chosen is None:
        snapshots.undo(deployment, say=session.say)
    else:
        snapshots.restore(deployment, chosen, say=session.say)
    seconds = time.monotonic() - begun
    done = shapes.SnapshotRestored(on, True, chosen.name if chosen else None, round(seconds, 3))
    has = f"has the data of {what} now" if chosen else "has the data from before the last restore again"
    return Result(done, lambda: display.line(f"{on}: {has} ({seconds:.1f} s)"))


@command(help={"name": "which snapshot", "yes": "don't ask", **ON})
def delete(
    session: Session, name: str, yes: bool = False, on: str = "local"
) -> Result[shapes.SnapshotDeleted]:
    """Delete a snapshot; asks first. The deployment's data stay as they are."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.data import snapshots

    deployment = session.deployment(on)
    doing = f"deleting the snapshot {name}"
    found = snapshots.get(deployment, name, doing)
    if not agreed(f"Delete the snapshot {name} of {on}?", doing, yes):
        return Result(shapes.SnapshotDeleted(on, None), lambda: display.line("Nothing was deleted."))
    snapshots.delete(deployment, found, say=session.say)
    return Result(shapes.SnapshotDeleted(on, name), lambda: display.line(f"{name}: deleted"))


@command(
    help={
        "from_": "the other project: its folder, or the branch or name of an environment that `invoke ps` lists",
        "yes": "don't ask",
        **ON,
    }
)
def clone(session: Session, from_: str = "", on: str = "local", yes: bool = False) -> Result[shapes.Cloned]:
    """Put the data of another worktree's deployment into this one; asks first. The other one goes on meanwhile.

    Both deployments have the same name and shape. All addresses are rewritten: the two know nothing of each other.
    `snapshot.restore --undo` puts back what is there now.
    """
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.data import snapshots

    begun = time.monotonic()
    other = _environment(from_, session.start)
    doing = f"cloning {on} of {other} into {on}"
    there = _deployment_in(other, on, session.quiet)
    question = f"Replace the data of {on} with those of {on} in {other}? {_undone_by(on)}"
    if not agreed(question, doing, yes):
        return Result(shapes.Cloned(on, None, 0.0), lambda: display.line("Nothing was changed."))
    snapshots.clone(there, session.ready(on), say=session.say)
    seconds = time.monotonic() - begun
    done = shapes.Cloned(on, str(other), round(seconds, 3))
    return Result(done, lambda: display.line(f"{on}: has the data of {on} of {other} now ({seconds:.1f} s)"))


def _undone_by(on: str) -> str:
    return f"You can undo that: invoke snapshot.restore --undo{'' if on == 'local' else f' --on {on}'}"


def _environment(source: str, start: Path) -> Path:
    """The folder of another project.

    Raises ProvisionError: there is none of that name, or several.
    """
    from provision.core.errors import ProvisionError
    from provision.state import slots

    if not source:
        raise ProvisionError(
            "cloning another project's data",
            "You named no project.",
            "Name its folder or its branch: invoke clone --from ../main (`invoke ps` lists them).",
        )
    folder = Path(os.path.normpath(start / Path(source).expanduser()))
    if folder.is_dir():
        return folder
    known = [entry for entry in slots.read().values() if not entry.is_gone]
    found = [entry.root for entry in known if source in (entry.root.name, entry.branch)]
    if len(found) == 1:
        return found[0]
    cause = (
        f"There are several: {', '.join(map(str, found))}."
        if found
        else f"There is no folder {folder}, and no environment on a branch or in a folder of that name."
    )
    raise ProvisionError(
        f"looking for the project {source}", cause, "Name its folder; `invoke ps` lists them."
    )


def _deployment_in(folder: Path, on: str, quiet: bool) -> Deployment:
    from provision.cli.session import Session

    return Session(folder, quiet=quiet).deployment(on)


def _one_of(doing: str, on: str, name: str | None, latest: bool, undo: bool) -> None:
    """Refuse a command that names no data, or several."""
    from provision.core.errors import ProvisionError

    if sum((bool(name), latest, undo)) != 1:
        raise ProvisionError(
            doing,
            "Name a snapshot, or say --latest or --undo: one of the three.",
            f"See what there is: invoke snapshot.list --on {on}",
        )


def _chosen(deployment: Deployment, name: str | None, doing: str) -> Snapshot:
    from provision.core.errors import ProvisionError
    from provision.data import snapshots

    if name:
        return snapshots.get(deployment, name, doing)
    found = snapshots.latest(deployment)
    if found is None:
        raise ProvisionError(
            doing,
            f"{deployment.name} has no snapshot.",
            f"Take one: invoke snapshot.save --on {deployment.name}",
        )
    return found


def _shown(snapshot: Snapshot) -> shapes.SnapshotShown:
    from provision.cli import shapes

    manifest = snapshot.manifest
    return shapes.SnapshotShown(
        manifest.name,
        manifest.created,
        snapshot.room,
        manifest.named,
        manifest.mongod,
        manifest.feature_compatibility,
        [each.name for each in manifest.sets],
    )


namespace = Collection("snapshot", save, list, restore, delete)
