"""`invoke ps`, and `invoke clean --gone`: every environment of this user, and what deleted ones have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from provision.cli.command import agreed, command

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.deployments.environments import Environment


@command(only_prints=True)
def ps(_session: Session) -> Result[list[Environment]]:
    """List every environment of yours on this machine: folder, branch, slot, deployments, memory, addresses.

    A folder that was deleted is gone; `invoke clean --gone` ends what it has left.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.deployments.environments import environments

    found = environments()
    columns = ("FOLDER", "BRANCH", "SLOT", "WHAT", "STATE", "MEMORY", "ADDRESS")
    none = "There is no environment yet. `invoke run` or `invoke start` makes one."
    return Result(found, lambda: display.table(columns, _rows(found)) if found else display.line(none))


def _rows(found: Sequence[Environment]) -> list[tuple[str, ...]]:
    """A line for each deployment and app, for people; an environment without any has one line."""
    lines: list[tuple[str, ...]] = []
    for each in found:
        what = [(there.name, there.state, there.uri) for there in each.deployments]
        what += [("app", "running", address) for address in each.apps]
        size = "-" if each.memory is None else f"{each.memory / 2**20:.0f} MB" if each.memory else "-"
        head = (
            each.folder,
            "gone" if each.gone else (each.branch or "-"),
            "-" if each.slot is None else str(each.slot),
        )
        for name, state, address in what or [("-", "-" if each.gone else "stopped", "-")]:
            lines.append((*head, name, state, size, address))
            head, size = ("", "", ""), ""
    return lines


def clean_gone(session: Session, yes: bool, dry_run: bool) -> Result[shapes.Removal]:
    """End what folders that were deleted have left, after asking.

    Raises ProvisionError: nobody can answer, or something can't be removed.
    """
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.doctor import gone

    plan = gone.plan()
    items = [shapes.RemovedItem(each.label, each.what, 0) for each in plan.items]
    kept = [shapes.KeptItem(str(each.path), each.why) for each in plan.kept]
    planned = shapes.Removal(False, 0, items, kept)
    if not session.quiet:
        display.removal(planned)
    done = bool(items) and not dry_run
    if done and (done := agreed("End and remove all this?", "cleaning", yes, ", or --dry-run to only look")):
        gone.carry_out(plan)
    text = "Removed." if done else "Nothing was removed."
    return Result(replace(planned, done=done), lambda: display.line(text) if items else None)
