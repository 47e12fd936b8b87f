"""The tasks of any project: set up, run, look, clean up. `cluster`, `hosts` and `clients` have the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from provision.cli.command import ON, agreed, brought_up, command, need
from provision.cli.numeric_flags import Amount

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.core.finding import Finding
    from provision.core.steps import StepResult
    from provision.deployments.status import Status
    from provision.settings.loading import Value


@command(
    help={
        "dry-run": "say what would be done and change nothing",
        "timings": "show how long each step took",
        "group": "also install what these need, now and not when they are first typed: hosts,test,dev",
        "rebuild": "make the app's own virtualenv again from nothing, also where it is current",
        "find-mongod": "look for mongod again, also where one was found before: you have installed another",
    }
)
def setup(
    session: Session,
    dry_run: bool = False,
    timings: bool = False,
    group: str = "",
    rebuild: bool = False,
    find_mongod: bool = False,
) -> Result[list[StepResult]]:
    """Set up this clone: directories, virtualenvs, requirements, mongod, mongod.conf, secrets.

    Typing it again changes nothing. `invoke run` does it by itself.
    """
    from provision.cli.result import Result
    from provision.core import steps
    from provision.deployments import setup_steps

    if group:
        need(*group.split(","))
    planned = setup_steps.steps(session.load(remember=not dry_run), rebuild, find_mongod)
    # Each step shows itself as it is finished.
    return Result(steps.run_steps(planned, session.steps(timings=timings), dry_run), lambda: None)


@command(
    only_prints=True,
    help={
        "key": "only the settings whose key begins with this",
        "schema": "print the JSON schema of invoke.yaml instead, with which an editor completes and explains it",
    },
    optional=["key"],
)
def settings(session: Session, key: str = "", schema: bool = False) -> Result[list[Value] | dict[str, Any]]:
    """List every setting, its value and where it came from: the layer that won, a file with its line."""
    from provision.cli import display
    from provision.cli.result import Result, as_text
    from provision.settings.layers import located

    if schema:
        from provision.settings.validation import json_schema

        found = json_schema()
        return Result(found, lambda: display.line(as_text(found)))
    values = [value for value in session.loaded.values() if value.key.startswith(key)]
    rows = [(v.key, "null" if v.value is None else v.value, located(v.origin, v.line)) for v in values]
    return Result(values, lambda: display.table(("SETTING", "VALUE", "FROM"), rows))


@command(
    only_prints=True,
    help={
        "check": "write nothing; exit with 1 if a file on disk has drifted",
        "compose": "the compose file of a deployment in Docker (default: of cluster, which is compose.yaml)",
        "node": "which node",
        "on": "which deployment of invoke.yaml (default: local; with --compose: cluster)",
    },
)
def render(
    session: Session, check: bool = False, node: str = "", compose: bool = False, on: str | None = None
) -> Result[shapes.Rendered]:
    """Show the configuration rendered from mongod.conf.j2, or say whether the one on disk has drifted."""
    from provision.cli import rendering

    if compose:
        return rendering.compose(session, on or "cluster", check)
    return rendering.mongod_conf(session, on or "local", node, check)


@command(help={**ON, "timings": "show what was reached when"})
def start(session: Session, on: str = "local", timings: bool = False) -> Result[shapes.BroughtUp]:
    """Start MongoDB; returns when a majority write was acknowledged.

    A deployment that runs already is left as it is.
    """
    from provision.cli import interrupts
    from provision.cli.progress import UpProgress
    from provision.cli.worktrees import beginning

    first = beginning(session, on)
    deployment = session.ready(on)
    with UpProgress.of(deployment, session.quiet) as progress:
        first.put_in_place(deployment, progress.say)
        done = deployment.up(progress.say, progress.reached, started=interrupts.end_here)
        return brought_up(done, timings, first.hint)


@command(help=ON)
def stop(session: Session, on: str = "local") -> Result[shapes.Stopped]:
    """Stop MongoDB. Data stay."""
    from provision.cli import display, shapes
    from provision.cli.result import Result

    stopped = list(session.deployment(on).down(session.say))
    text = f"{on}: stopped {', '.join(stopped)}" if stopped else f"{on}: was not running"
    return Result(shapes.Stopped(on, stopped), lambda: display.line(text))


@command(help=ON)
def restart(session: Session, on: str = "local") -> Result[shapes.BroughtUp]:
    """Stop MongoDB, then start it with the settings as they are now."""
    from provision.cli import interrupts
    from provision.cli.progress import UpProgress
    from provision.deployments import assembly

    running = session.ready(on)
    if running.conflict is not None and not running.restart_applies:
        raise running.conflict
    assembly.deployment(session.loaded, on, as_asked=True)  # settings that contradict each other stop nothing
    running.look(running.topology.nodes).certain(f"restarting {on}")
    running.down(session.say)
    session.changed(on)
    deployment = session.deployment(on)
    with UpProgress.of(deployment, session.quiet) as progress:
        return brought_up(deployment.up(progress.say, progress.reached, started=interrupts.end_here))


@command(only_prints=True, help=ON)
def status(session: Session, on: str = "local") -> Result[Status]:
    """Show the state of every node. The JSON's shape is documented in docs/status.md."""
    from provision.cli.display import show_status

    return show_status(session.deployment(on).status())


@command(
    only_prints=True,
    help={
        "follow": "go on with each new line",
        "lines": "how many of the last lines",
        "raw": "JSON, as it is",
        "node": "which node; several with commas between (default: the first)",
        "all": "every node, merged by time",
        **ON,
    },
)
def logs(
    session: Session,
    follow: bool = False,
    lines: Amount = 50,
    raw: bool = False,
    on: str = "local",
    node: str = "",
    all: bool = False,
) -> None:
    """Show MongoDB's log as readable lines, coloured by severity."""
    from provision.cli import tailing
    from provision.deployments import cluster as operations

    deployment = session.deployment(on)
    named = operations.nodes(deployment, node) if node else [deployment.node()]
    tailing.show(deployment, deployment.topology.nodes if all else named, lines, follow, raw)


@command(
    only_prints=True,
    help={
        "database": "put this database's name into it",
        "for": "host: programs on this machine (default); container: those in its Docker network; direct: one node",
        "node": "the node of --for direct (default: the first)",
        "user": "app or root: with the user's password, which is printed",
        **ON,
    },
)
def uri(
    session: Session,
    on: str = "local",
    database: str = "",
    for_: str = "host",
    node: str = "",
    user: str = "",
) -> Result[shapes.Address]:
    """Print the connection string; with --user, it has that user's password in it."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.cli.session import tell_differences
    from provision.deployments import cluster as operations

    deployment = session.deployment(on)
    tell_differences(deployment)
    found = operations.uri(deployment, database, for_, node, user)
    if user and not session.loaded.deployment(on).auth:
        display.note(f"{on} has no users, so nobody is in it: deployments.{on}.auth is false.")
    return Result(shapes.Address(on, found), lambda: display.line(found))


@command(
    help={
        "port": "port of the app, for this run (default: app.port)",
        "keep": "leave MongoDB running when the app ends",
        **ON,
    }
)
def run(session: Session, on: str = "local", port: int | None = None, keep: bool = False) -> None:
    """Set up what is missing, start MongoDB, and serve the app. Ctrl-C ends what this started."""
    from provision.app import launch
    from provision.cli import display
    from provision.cli.progress import UpProgress
    from provision.cli.worktrees import beginning
    from provision.state import slots

    loaded = session.load({} if port is None else {"app.port": ("--port", port)})
    app = loaded.settings.app
    host = f"[{app.host}]" if ":" in app.host else app.host
    with slots.serving(loaded.paths, f"http://{host}:{app.port}/"):
        first = beginning(session, on)
        if first.hint:
            display.told(first.hint)
        launch.run(loaded, on, keep, display.told, session.steps(), UpProgress.of, first.put_in_place)


@command(only_prints=True)
def doctor(session: Session) -> Result[list[Finding]]:
    """Check this machine: what `run` needs, what crashed runs have left, and the command that corrects it.

    Exits with 1 only if `run` could not work. --json prints a list of objects with the fields check, level (ok,
    warning or error), what and remedy.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.doctor import examine, works

    findings = examine(session.load(remember=False))
    return Result(findings, lambda: display.findings(findings), status=0 if works(findings) else 1)


@command(
    help={
        "data": "also the data of every deployment",
        "cache": "also the downloads that all your clones share",
        "gone": "instead of this clone's, end and remove what folders that were deleted have left; `invoke ps` lists them",
        "yes": "don't ask",
        "dry-run": "show what would be removed and change nothing",
    }
)
def clean(
    session: Session,
    data: bool = False,
    cache: bool = False,
    gone: bool = False,
    yes: bool = False,
    dry_run: bool = False,
) -> Result[shapes.Removal]:
    """Remove what this tool has made, after asking. Data stay, unless --data is given.

    What is not known to be the tool's stays in any case, and is named.
    """
    from dataclasses import replace

    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.doctor import clean as cleaning

    if gone:
        from provision.cli.environments import clean_gone

        return clean_gone(session, yes, dry_run)
    plan = cleaning.plan(session.load(remember=False), data, cache)
    items = [shapes.RemovedItem(str(item.path), item.what, item.bytes) for item in plan.items]
    kept = [shapes.KeptItem(str(item.path), item.why) for item in plan.kept]
    planned = shapes.Removal(False, plan.bytes, items, kept)
    if not session.quiet:
        display.removal(planned)
    done = bool(plan.items) and not dry_run
    if done and (done := agreed("Remove all this?", "cleaning", yes, ", or --dry-run to only look")):
        cleaning.carry_out(plan)
    text = "Removed." if done else "Nothing was removed."
    return Result(replace(planned, done=done), lambda: display.line(text) if items else None)
