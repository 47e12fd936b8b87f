"""The tasks of `invoke hosts.…`: other hosts over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

from provision.commands import JSON, command, load

if TYPE_CHECKING:
    from provision.settings import Loaded

_ON = {"on": "the hosts of this deployment (default: all hosts of invoke.yaml)"}


@command(help={**_ON, **JSON})
def check(ctx: Context, on: str | None = None, json: bool = False) -> None:
    """Look whether hosts will do: SSH, rights, system, disk, memory, clock, ports, limits. Changes nothing.

    Ends with 1 if something is in the way.
    """
    from provision import display
    from provision.doctor.finding import Level
    from provision.errors import ProvisionError
    from provision.hosts import judge, operations

    found = operations.check(load(ctx), on)
    if json:
        display.as_json([each.as_json() for each in found])
    else:
        display.host_findings([each.as_json() for each in found])
    if not judge.works(found):
        names = dict.fromkeys(each.host for each in found if each.level is Level.ERROR)
        if json:
            raise SystemExit(1)
        raise ProvisionError(
            "checking hosts", f"Nodes could not run on {', '.join(names)}.", "Mend what is marked ✗ above."
        )


@command(help={"dry-run": "say what would be done and change nothing", **_ON, **JSON})
def setup(ctx: Context, on: str | None = None, dry_run: bool = False, json: bool = False) -> None:
    """Make hosts ready for nodes: their directory, mongod and mongos. All hosts at once.

    Typing it again changes nothing. What was stopped halfway is finished.
    """
    import sys

    from provision import display, environment
    from provision.hosts import operations

    loaded = load(ctx, remember=not dry_run)
    environment.ensure_for_start(loaded, display.StepLines(stream=sys.stderr))
    done = operations.set_up(
        loaded, on, dry_run, (lambda _: None) if json else lambda step: display.host_step(vars(step), dry_run)
    )
    if json:
        failed = {name: error.as_json()["error"] for name, error in done.errors.items()}
        display.as_json(
            {"steps": [vars(each) for each in done.steps], "errors": failed, "seconds": done.seconds}
        )
        if failed:
            raise SystemExit(1)
    done.raise_first()


@command(help={"on": "the deployment", **JSON}, positional=["on"])
def plan(ctx: Context, on: str, json: bool = False) -> None:
    """Show on which host each node of a deployment is, or would be. Asks no host."""
    show_plan(load(ctx), on, json)


def show_plan(loaded: Loaded, on: str, json: bool) -> None:
    """Show where each node of a deployment is, or would be.

    Raises:
        ProvisionError: there is no such deployment, or it can't be placed.
    """
    from provision import display
    from provision.hosts import operations

    found = operations.plan(loaded, on)
    if json:
        display.as_json([vars(each) for each in found])
    else:
        display.table(
            ("NODE", "HOST", "ADDRESS", ""),
            [
                (
                    each.node,
                    each.host,
                    each.address,
                    "shares its host with another member" if each.shares else "",
                )
                for each in found
            ],
        )


@command(name="rotate-certificates", help={"on": "the deployment", **JSON}, positional=["on"])
def rotate_certificates(ctx: Context, on: str, json: bool = False) -> None:
    """Give every host of a deployment a new certificate, without a restart."""
    from provision import display
    from provision.hosts import operations

    done = operations.rotate_certificates(load(ctx), on, display.note)
    if json:
        display.as_json(vars(done))
        return
    display.line(f"{on}: {', '.join(done.nodes) or 'no node'} took the new certificate")
    for names, what in (
        (done.restart, "can't do so without a restart: invoke cluster.restart"),
        (done.down, "does not run, and takes it when it is started"),
    ):
        if names:
            display.line(f"{on}: {', '.join(names)}: {what}")


namespace = Collection("hosts", check, setup, plan, rotate_certificates)
