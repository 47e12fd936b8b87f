"""The tasks of `invoke hosts.…`: other hosts over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context

from provision.cli.command import JSON, command, load, need

if TYPE_CHECKING:
    from provision.deployments.moving import Moved
    from provision.settings.loading import Loaded

_ON = {"on": "the hosts of this deployment (default: all hosts of invoke.yaml)"}


def _load(ctx: Context, remember: bool = True) -> Loaded:
    need("hosts")
    return load(ctx, remember)


@command(only_prints=True, help={**_ON, **JSON})
def check(ctx: Context, on: str | None = None, json: bool = False) -> None:
    """Check whether hosts are ready: SSH, rights, system, disk, memory, clock, ports, limits. Changes nothing.

    Ends with 1 if something is in the way.
    """
    from provision.app.deploy import host_setup
    from provision.cli import display
    from provision.core.errors import ProvisionError
    from provision.core.finding import Level
    from provision.hosts import judge

    found = host_setup.check(_load(ctx), on)
    if json:
        display.as_json([each.as_json() for each in found])
    else:
        display.host_findings([each.as_json() for each in found])
    if not judge.works(found):
        names = dict.fromkeys(each.host for each in found if each.level is Level.ERROR)
        if json:
            raise SystemExit(1)
        raise ProvisionError(
            "checking hosts", f"Nodes could not run on {', '.join(names)}.", "Correct what is marked ✗ above."
        )


@command(help={"dry-run": "say what would be done and change nothing", **_ON, **JSON})
def setup(ctx: Context, on: str | None = None, dry_run: bool = False, json: bool = False) -> None:
    """Make hosts ready: their directory, mongod and mongos, and the app's virtualenv on `app_hosts`. All at once.

    Typing it again changes nothing. What was stopped halfway is finished.
    """
    import sys

    from provision.app.deploy import host_setup
    from provision.cli import display
    from provision.deployments import setup_steps

    loaded = _load(ctx, remember=not dry_run)
    setup_steps.ensure_for_start(loaded, display.StepLines(stream=sys.stderr), on or "")
    done = host_setup.set_up(
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


@command(only_prints=True, help={"on": "the deployment", **JSON}, positional=["on"])
def plan(ctx: Context, on: str, json: bool = False) -> None:
    """Show on which host each node of a deployment is, or would be. Asks no host."""
    show_plan(_load(ctx), on, json)


def show_plan(loaded: Loaded, on: str, json: bool) -> None:
    """Show where each node of a deployment is, or would be.

    Raises:
        ProvisionError: there is no such deployment, or it can't be placed.
    """
    from provision.cli import display
    from provision.deployments import on_hosts

    found = on_hosts.plan(loaded, on)
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


@command(
    help={
        "on": "the deployment",
        "dry-run": "say what would be done and change nothing",
        "rollback": "go back to the release before",
        **JSON,
    },
    positional=["on"],
)
def deploy(ctx: Context, on: str, dry_run: bool = False, rollback: bool = False, json: bool = False) -> None:
    """Put the app on the hosts that `app_hosts` of a deployment names, under gunicorn, one host after another.

    A host where it does not answer gets its previous release back, and the hosts after it keep theirs. Typing it again
    changes nothing. What was stopped halfway is finished.
    """
    from provision.app.deploy import rollout as deploying
    from provision.cli import display

    done = deploying.deploy(
        _load(ctx, remember=not dry_run),
        on,
        dry_run,
        rollback,
        (lambda _: None) if json else lambda step: display.host_step(vars(step), dry_run),
    )
    if json:
        display.as_json(done.as_json())
        return
    for name in done.removed:
        display.line(f"{name}: the app was stopped and removed; it is no longer in app_hosts")


@command(help={"on": "the deployment", **JSON}, positional=["on"])
def undeploy(ctx: Context, on: str, json: bool = False) -> None:
    """Stop the app of a deployment on its hosts, and remove it there."""
    from provision.app.deploy import rollout as deploying
    from provision.cli import display

    removed = deploying.undeploy(_load(ctx), on)
    if json:
        display.as_json({"deployment": on, "removed": removed})
    else:
        display.line(
            "\n".join(f"{name}: the app was stopped and removed" for name in removed) or f"{on}: had no app"
        )


@command(name="rotate-certificates", help={"on": "the deployment", **JSON}, positional=["on"])
def rotate_certificates(ctx: Context, on: str, json: bool = False) -> None:
    """Give every host of a deployment a new certificate, without a restart."""
    from provision.cli import display
    from provision.deployments import on_hosts

    done = on_hosts.rotate_certificates(_load(ctx), on, display.note)
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


namespace = Collection("hosts", check, setup, plan, deploy, undeploy, rotate_certificates)


# Moving nodes

_DEPLOYMENT = {"on": "the deployment"}


@command(help={"node": "which node", "to": "the host it goes to", **_DEPLOYMENT, **JSON}, positional=["node"])
def move(ctx: Context, node: str, to: str = "", on: str = "", json: bool = False) -> None:
    """Move a node to another host while the deployment goes on serving; its data go with it.

    What was interrupted is finished by typing it again, or undone by naming the host that the node came from.
    """
    from provision.cli import display
    from provision.deployments import moving

    again = f"invoke hosts.move {node} --to {to} --on {on}"
    loaded = _named(
        ctx, on, f"moving {node}", again if on else f"invoke hosts.move {node} --to {to} --on NAME", to
    )
    _show_moved(moving.move(loaded, on, node, to, (lambda _: None) if json else display.note, again), json)


@command(
    help={
        "host": "which host",
        "lost": "it is gone for good: its members leave their sets unasked, and new ones start elsewhere",
        "yes": "go on although members of a set come to share a host",
        **_DEPLOYMENT,
        **JSON,
    },
    positional=["host"],
)
def drain(
    ctx: Context, host: str, on: str = "", lost: bool = False, yes: bool = False, json: bool = False
) -> None:
    """Move every node of a deployment off a host while it goes on serving."""
    from provision.cli import display
    from provision.deployments import moving

    again = f"invoke hosts.drain {host} {'--lost ' if lost else ''}--on {on or 'NAME'}"
    loaded = _named(ctx, on, f"draining {host}", again)
    say = (lambda _: None) if json else display.note
    _show_moved(moving.drain(loaded, on, host, lost, yes, say, again), json)


@command(help={"dry-run": "say what would be moved and change nothing", **_DEPLOYMENT, **JSON})
def spread(ctx: Context, on: str = "", dry_run: bool = False, json: bool = False) -> None:
    """Spread a deployment over its hosts, with the fewest moves: after a host was added to it."""
    from provision.cli import display
    from provision.deployments import moving

    again = f"invoke hosts.spread --on {on or 'NAME'}"
    loaded = _named(ctx, on, "spreading nodes over hosts", again)
    done = moving.spread(loaded, on, dry_run, (lambda _: None) if json else display.note, again)
    _show_moved(done, json, "would go" if dry_run else "went")


def _named(ctx: Context, on: str, doing: str, example: str, to: str | None = None) -> Loaded:
    """The settings, once a deployment is named, and a host where one is needed."""
    from provision.cli.command import ready
    from provision.core.errors import ProvisionError

    if not on or to == "":
        missing = "deployment" if not on else "host"
        raise ProvisionError(
            doing, f"No {missing} is named.", f"Type: {example.replace('--to  ', '--to HOST ')}"
        )
    loaded = _load(ctx)
    ready(loaded, on)
    return loaded


def _show_moved(done: Moved, json: bool, verb: str = "went") -> None:
    from dataclasses import asdict

    from provision.cli import display

    if json:
        display.as_json(asdict(done))
        return
    for each in done.moves:
        display.line(f"{each.node}: {verb} from {each.source} to {each.target}")
    if not done.moves:
        display.line(f"{done.deployment}: every node is where it should be")
    for notice in done.notices:
        display.line(notice)


for _each in (move, drain, spread):
    namespace.add_task(_each)
