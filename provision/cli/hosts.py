"""The tasks of `invoke hosts.…`: other hosts over SSH."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from invoke.collection import Collection

from provision.cli.command import command

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.deployments.moving import Moved
    from provision.deployments.on_hosts import Rotation
    from provision.hosts.judge import HostFinding
    from provision.hosts.placement import Placed

_NEEDS = ("hosts",)
_ON = {"on": "the hosts of this deployment (default: all hosts of invoke.yaml)"}
_DEPLOYMENT = {"on": "the deployment"}


@command(needs=_NEEDS, only_prints=True, help=_ON)
def check(session: Session, on: str | None = None) -> Result[list[HostFinding]]:
    """Check whether hosts are ready: SSH, rights, system, disk, memory, clock, ports, limits. Changes nothing.

    Ends with 1 if something is in the way.
    """
    from provision.app.deploy import host_setup
    from provision.cli import display
    from provision.cli.result import Result
    from provision.core.errors import ProvisionError
    from provision.core.finding import Level
    from provision.hosts import judge

    found = host_setup.check(session.loaded, on)
    names = dict.fromkeys(finding.host for finding in found if finding.level is Level.ERROR)
    error = ProvisionError(
        "checking hosts", f"Nodes could not run on {', '.join(names)}.", "Correct what is marked ✗ above."
    )
    return Result(found, lambda: display.host_findings(found), None if judge.works(found) else error)


@command(needs=_NEEDS, help={"dry-run": "say what would be done and change nothing", **_ON})
def setup(session: Session, on: str | None = None, dry_run: bool = False) -> Result[shapes.HostsSetUp]:
    """Make hosts ready: their directory, mongod and mongos, and the app's virtualenv on `app_hosts`. All at once.

    Typing it again changes nothing. What was stopped halfway is finished.
    """
    from provision.app.deploy import host_setup
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.deployments import setup_steps

    loaded = session.load(remember=not dry_run)
    setup_steps.ensure_for_start(loaded, session.steps(sys.stderr), on or "")
    done = host_setup.set_up(loaded, on, dry_run, display.host_steps(dry_run, session.quiet))
    errors = {name: shapes.FailureParts(**error.parts()) for name, error in done.errors.items()}
    # Each step shows itself as it is finished.
    return Result(shapes.HostsSetUp(done.steps, errors, done.seconds), lambda: None, done.error())


@command(needs=_NEEDS, only_prints=True, help=_DEPLOYMENT, positional=["on"])
def plan(session: Session, on: str) -> Result[list[Placed]]:
    """Show on which host each node of a deployment is, or would be. Asks no host."""
    return planned(session, on)


def planned(session: Session, on: str) -> Result[list[Placed]]:
    """Where each node of a deployment is, or would be.

    Raises ProvisionError: there is no such deployment, or it can't be placed.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.deployments import on_hosts

    found = on_hosts.plan(session.loaded, on)
    rows = [
        (node.node, node.host, node.address, "shares its host with another member" if node.shares else "")
        for node in found
    ]
    return Result(found, lambda: display.table(("NODE", "HOST", "ADDRESS", ""), rows))


@command(
    needs=_NEEDS,
    help={
        "on": "the deployment",
        "dry-run": "say what would be done and change nothing",
        "rollback": "go back to the release before",
    },
    positional=["on"],
)
def deploy(
    session: Session, on: str, dry_run: bool = False, rollback: bool = False
) -> Result[shapes.Deployed]:
    """Put the app on the hosts that `app_hosts` of a deployment names, under gunicorn, one host after another.

    A host where it does not answer gets its previous release back, and the hosts after it keep theirs. Typing it again
    changes nothing. What was stopped halfway is finished.
    """
    from provision.app.deploy import rollout
    from provision.cli import display, shapes
    from provision.cli.result import Result

    loaded = session.load(remember=not dry_run)
    done = rollout.deploy(loaded, on, dry_run, rollback, display.host_steps(dry_run, session.quiet))

    def show() -> None:
        for name in done.removed:
            display.line(f"{name}: the app was stopped and removed; it is no longer in app_hosts")

    return Result(
        shapes.Deployed(
            done.deployment, done.release, list(done.changed), list(done.removed), done.steps, done.seconds
        ),
        show,
    )


@command(needs=_NEEDS, help=_DEPLOYMENT, positional=["on"])
def undeploy(session: Session, on: str) -> Result[shapes.Undeployed]:
    """Stop the app of a deployment on its hosts, and remove it there."""
    from provision.app.deploy import rollout
    from provision.cli import display, shapes
    from provision.cli.result import Result

    removed = rollout.undeploy(session.loaded, on)
    text = "\n".join(f"{name}: the app was stopped and removed" for name in removed) or f"{on}: had no app"
    return Result(shapes.Undeployed(on, list(removed)), lambda: display.line(text))


@command(needs=_NEEDS, name="rotate-certificates", help=_DEPLOYMENT, positional=["on"])
def rotate_certificates(session: Session, on: str) -> Result[Rotation]:
    """Give every host of a deployment a new certificate, without a restart."""
    from provision.cli import display
    from provision.cli.result import Result
    from provision.deployments import on_hosts

    done = on_hosts.rotate_certificates(session.loaded, on, session.say)

    def show() -> None:
        display.line(f"{on}: {', '.join(done.nodes) or 'no node'} took the new certificate")
        for names, what in (
            (done.restart, "can't do so without a restart: invoke cluster.restart"),
            (done.down, "does not run, and takes it when it is started"),
        ):
            if names:
                display.line(f"{on}: {', '.join(names)}: {what}")

    return Result(done, show)


@command(
    needs=_NEEDS, help={"node": "which node", "to": "the host it goes to", **_DEPLOYMENT}, positional=["node"]
)
def move(session: Session, node: str, to: str = "", on: str = "") -> Result[Moved]:
    """Move a node to another host while the deployment goes on serving; its data go with it.

    What was interrupted is finished by typing it again, or undone by naming the host that the node came from.
    """
    from provision.deployments import moving

    again = f"invoke hosts.move {node} --to {to} --on {on}"
    example = again if on else f"invoke hosts.move {node} --to {to} --on NAME"
    _require_names(on, f"moving {node}", example, to)
    session.ready(on)
    return _moved(moving.move(session.loaded, on, node, to, session.say, again))


@command(
    needs=_NEEDS,
    help={
        "host": "which host",
        "lost": "the host is gone for good: its members leave their sets, and new ones start on other hosts",
        "yes": "go on, although members of a set will share a host",
        **_DEPLOYMENT,
    },
    positional=["host"],
)
def drain(session: Session, host: str, on: str = "", lost: bool = False, yes: bool = False) -> Result[Moved]:
    """Move every node of a deployment off a host while it goes on serving."""
    from provision.deployments import moving

    again = f"invoke hosts.drain {host} {'--lost ' if lost else ''}--on {on or 'NAME'}"
    _require_names(on, f"draining {host}", again)
    session.ready(on)
    return _moved(moving.drain(session.loaded, on, host, lost, yes, session.say, again))


@command(needs=_NEEDS, help={"dry-run": "say what would be moved and change nothing", **_DEPLOYMENT})
def spread(session: Session, on: str = "", dry_run: bool = False) -> Result[Moved]:
    """Spread a deployment over its hosts, with the fewest moves: after a host was added to it."""
    from provision.deployments import moving

    again = f"invoke hosts.spread --on {on or 'NAME'}"
    _require_names(on, "spreading nodes over hosts", again)
    session.ready(on)
    done = moving.spread(session.loaded, on, dry_run, session.say, again)
    return _moved(done, "would go" if dry_run else "went")


def _require_names(on: str, doing: str, example: str, to: str | None = None) -> None:
    """Refuse to go on while no deployment is named, or no host where one is needed."""
    from provision.core.errors import ProvisionError

    if not on or to == "":
        missing = "deployment" if not on else "host"
        raise ProvisionError(
            doing, f"You named no {missing}.", f"Type: {example.replace('--to  ', '--to HOST ')}"
        )


def _moved(done: Moved, verb: str = "went") -> Result[Moved]:
    from provision.cli import display
    from provision.cli.result import Result

    def show() -> None:
        for move in done.moves:
            display.line(f"{move.node}: {verb} from {move.source} to {move.target}")
        if not done.moves:
            display.line(f"{done.deployment}: every node is where it should be")
        for notice in done.notices:
            display.told(notice)

    return Result(done, show)


namespace = Collection(
    "hosts", check, setup, plan, deploy, undeploy, rotate_certificates, move, drain, spread
)
