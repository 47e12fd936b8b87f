"""The tasks of `invoke`. Each parses, calls one function of `provision`, and shows the result.

At import this needs nothing but Invoke and the standard library: outside env/ it builds env/ and re-executes
itself there.
"""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from provision.core import output  # noqa: E402
from provision.env import bootstrap  # noqa: E402

if bootstrap.launched_by_invoke():  # by itself, as `env/bin/invoke`: entry.py has done so already
    output.guard()
bootstrap.ensure_environment()

from invoke.collection import Collection  # noqa: E402
from invoke.context import Context  # noqa: E402

from provision.cli.clients import seed, shell, tour, tunnel  # noqa: E402
from provision.cli.cluster import namespace as cluster  # noqa: E402
from provision.cli.command import JSON as _JSON  # noqa: E402
from provision.cli.command import ON as _ON  # noqa: E402
from provision.cli.command import command, load, need, ready, show_up, tell_differences  # noqa: E402
from provision.cli.hosts import namespace as hosts  # noqa: E402
from provision.cli.numeric_flags import Amount, Count  # noqa: E402
from provision.cli.uncaught import install_excepthook  # noqa: E402
from provision.core.errors import ProvisionError  # noqa: E402
from provision.core.signals import repeat_lost  # noqa: E402

install_excepthook()


def _interrupted(number: int, _frame: object) -> None:
    output.hurry()
    # Invoke turns KeyboardInterrupt into status 1; a shell expects 128 + the signal's number.
    sys.exit(128 + number)


for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is not signal.SIG_IGN:
        signal.signal(_number, _interrupted)
        # What is done is done: Python, as it ends, would let a late signal say otherwise.
        atexit.register(signal.signal, _number, signal.SIG_IGN)
repeat_lost()


def _load(ctx: Context, remember: bool = True, **flags: Any) -> Any:
    """The settings in force; flags that were given win. A flag's name is a key with __ for the dot."""
    given = {
        key.replace("__", "."): ("--" + name, value)
        for key, (name, value) in flags.items()
        if value is not None
    }
    return load(ctx, remember, given)


@command(
    help={
        "dry-run": "say what would be done and change nothing",
        "timings": "show how long each step took",
        "group": "also install what these need, now and not when they are first typed: hosts,test,dev",
        **_JSON,
    }
)
def setup(
    ctx: Context, dry_run: bool = False, timings: bool = False, group: str = "", json: bool = False
) -> None:
    """Set up this clone: directories, virtualenv, requirements, mongod, mongod.conf, secrets.

    Typing it again changes nothing. `invoke run` does it by itself.
    """
    from provision.cli import display
    from provision.core import steps
    from provision.deployments import setup_steps

    if group:
        need(*group.split(","))
    wanted = setup_steps.steps(_load(ctx, remember=not dry_run))
    results = steps.run_steps(wanted, display.StepLines(timings, quiet=json), dry_run)
    if json:
        display.as_json([vars(each) for each in results])


@command(
    only_prints=True, help={"key": "only the settings whose key begins with this", **_JSON}, optional=["key"]
)
def settings(ctx: Context, key: str = "", json: bool = False) -> None:
    """List every setting, its value and where it came from: the layer that won, a file with its line."""
    from provision.cli import display
    from provision.settings.layers import located

    values = [each for each in _load(ctx).values() if each.key.startswith(key)]
    if json:
        display.as_json([vars(each) for each in values])
    else:
        display.table(
            ("SETTING", "VALUE", "FROM"),
            [(v.key, "null" if v.value is None else v.value, located(v.origin, v.line)) for v in values],
        )


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
    ctx: Context, check: bool = False, node: str = "", compose: bool = False, on: str | None = None
) -> None:
    """Show the configuration rendered from mongod.conf.j2, or say whether the one on disk has drifted."""
    from provision.cli import display
    from provision.deployments import assembly

    if compose:
        from provision.cli.compose import show

        show(ctx, on or "cluster", check)
        return
    on = on or "local"
    deployment = assembly.deployment(_load(ctx), on, as_asked=True)
    if check:
        drifted = deployment.rendering.drifted()
        for name, why in drifted.items():
            display.line(f"{name}: the configuration on disk {why}")
        if drifted:
            raise ProvisionError(
                f"checking the configuration of {on}",
                f"{len(drifted)} of {len(deployment.topology.nodes)} differ from what would be rendered.",
                "Type `invoke setup` to render them; a file edited by hand is kept beside the new one as .edited.",
            )
        display.line(f"The configuration of {on} is what mongod.conf.j2 and the settings give.")
    else:
        display.line(deployment.rendering.render(deployment.node(node)).rstrip("\n"))


@command(help={**_ON, "timings": "show what was reached when", **_JSON})
def start(ctx: Context, on: str = "local", timings: bool = False, json: bool = False) -> None:
    """Start MongoDB; returns when a majority write was acknowledged.

    A deployment that runs already is left as it is.
    """
    from provision.cli.progress import UpProgress

    deployment = ready(_load(ctx), on)
    with UpProgress.of(deployment, quiet=json) as progress:
        done = deployment.up(progress.say, progress.reached)
    show_up(done, timings, json)


@command(help={**_ON, **_JSON})
def stop(ctx: Context, on: str = "local", json: bool = False) -> None:
    """Stop MongoDB. Data stay."""
    from provision.cli import display
    from provision.deployments import assembly

    stopped = assembly.deployment(_load(ctx), on).down(display.note)
    if json:
        display.as_json({"deployment": on, "stopped": stopped})
    else:
        display.line(f"{on}: stopped {', '.join(stopped)}" if stopped else f"{on}: was not running")


@command(help={**_ON, **_JSON})
def restart(ctx: Context, on: str = "local", json: bool = False) -> None:
    """Stop MongoDB, then start it with the settings as they are now."""
    from provision.cli import display
    from provision.cli.progress import UpProgress
    from provision.deployments import assembly

    loaded = _load(ctx)
    running = ready(loaded, on)
    if running.conflict is not None and not running.restart_applies:
        raise running.conflict
    assembly.deployment(loaded, on, as_asked=True)  # settings that contradict each other stop nothing
    running.look(running.topology.nodes).certain(f"restarting {on}")
    running.down(display.note)
    deployment = assembly.deployment(loaded, on)
    with UpProgress.of(deployment, quiet=json) as progress:
        done = deployment.up(progress.say, progress.reached)
    show_up(done, timings=False, json=json)


@command(only_prints=True, help={**_ON, **_JSON})
def status(ctx: Context, on: str = "local", json: bool = False) -> None:
    """Show the state of every node. The JSON's shape is documented in docs/status.md."""
    from provision.cli import display
    from provision.deployments import assembly

    found = assembly.deployment(_load(ctx), on).status().as_json()
    if json:
        display.as_json(found)
    else:
        display.status(found)


@command(
    only_prints=True,
    help={
        "follow": "go on with each new line",
        "lines": "how many of the last lines",
        "raw": "JSON, as it is",
        "node": "which node; several with commas between (default: the first)",
        "all": "every node, merged by time",
        **_ON,
    },
)
def logs(
    ctx: Context,
    follow: bool = False,
    lines: Amount = 50,
    raw: bool = False,
    on: str = "local",
    node: str = "",
    all: bool = False,
) -> None:
    """Show MongoDB's log as readable lines, coloured by severity."""
    from provision.cli import tailing
    from provision.deployments import assembly
    from provision.deployments import cluster as operations

    deployment = assembly.deployment(_load(ctx), on)
    named = operations.nodes(deployment, node) if node else [deployment.node()]
    tailing.show(deployment, deployment.topology.nodes if all else named, lines, follow, raw)


@command(
    only_prints=True,
    help={
        "database": "put this database's name into it",
        "for": "host: programs on this machine (default); container: those in its Docker network; direct: one node",
        "node": "the node of --for direct (default: the first)",
        "user": "app or root: with the user's password, which is printed",
        **_ON,
        **_JSON,
    },
)
def uri(
    ctx: Context,
    on: str = "local",
    database: str = "",
    for_: str = "host",
    node: str = "",
    user: str = "",
    json: bool = False,
) -> None:
    """Print the connection string; with --user, it has that user's password in it."""
    from provision.cli import display
    from provision.deployments import assembly
    from provision.deployments import cluster as operations

    deployment = assembly.deployment(_load(ctx), on)
    tell_differences(deployment)
    found = operations.uri(deployment, database, for_, node, user)
    if json:
        display.as_json({"deployment": on, "uri": found})
    else:
        display.line(found)


@command(
    help={
        "port": "port of the app, for this run (default: app.port)",
        "keep": "leave MongoDB running when the app ends",
        **_ON,
    }
)
def run(ctx: Context, on: str = "local", port: int | None = None, keep: bool = False) -> None:
    """Set up what is missing, start MongoDB, and serve the app. Ctrl-C ends what this started."""
    from provision.app import launch
    from provision.cli import display
    from provision.cli.progress import UpProgress

    loaded = _load(ctx, app__port=("port", port))
    launch.run(loaded, on, keep, display.line, display.StepLines(), UpProgress.of)


@command(only_prints=True, help=_JSON)
def doctor(ctx: Context, json: bool = False) -> None:
    """Check this machine: what `run` needs, what crashed runs have left, and the command that corrects it.

    Exits with 1 only if `run` could not work. --json prints a list of objects with the fields check, level (ok,
    warning or error), what and remedy.
    """
    from provision.cli import display
    from provision.doctor import examine, works

    findings = examine(_load(ctx, remember=False))
    if json:
        display.as_json([each.as_json() for each in findings])
    else:
        display.findings([each.as_json() for each in findings])
    if not works(findings):
        sys.exit(1)


@command(
    help={
        "data": "also the data of every deployment",
        "cache": "also the downloads that all your clones share",
        "yes": "don't ask",
        "dry-run": "show what would be removed and change nothing",
        **_JSON,
    }
)
def clean(
    ctx: Context,
    data: bool = False,
    cache: bool = False,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Remove what this tool has made, after asking. Data stay, unless --data is given.

    What is not known to be the tool's stays in any case, and is named.
    """
    from provision.cli import display
    from provision.doctor import clean as cleaning

    plan = cleaning.plan(_load(ctx, remember=False), data, cache)
    if not json:
        display.removal(plan.as_json(done=False))
    agreed = bool(plan.items) and not dry_run and (yes or cleaning.confirmed(sys.stdin, sys.stderr))
    if agreed:
        cleaning.carry_out(plan)
    if json:
        display.as_json(plan.as_json(done=agreed))
    elif plan.items:
        display.line("Removed." if agreed else "Nothing was removed.")


@command(
    help={
        "require": "fail where the machine lacks one of these, for example docker,browser; --help of pytest lists them",
        "only": "only these parts: unit,native,docker,hosts,browser",
        "workers": "processes to run the tests in (default: two for each processor)",
        "args": "more arguments for pytest",
    }
)
def test(_ctx: Context, require: str = "", only: str = "", workers: Amount = 0, args: str = "") -> None:
    """Run the test suite. Shows the slowest tests, and what this machine lacks and could therefore not run."""
    need("hosts", "test")
    from tools import suite

    suite.run(ROOT, suite.command(ROOT, require, only, workers, args))


@command(
    help={
        "only": "measure only this figure; may be repeated",
        "runs": "measured pairs of each",
        "list": "say what there is to measure",
        "write": "put all results into docs/benchmarks.md",
        **_JSON,
    },
    iterable=["only"],
    positional=[],
)
def bench(
    ctx: Context,
    only: Sequence[str],
    runs: Count = 5,
    list: bool = False,
    write: bool = False,
    json: bool = False,
) -> None:
    """Measure what is fast beside what a user would do instead. docs/benchmarks.md explains the figures.

    Exits with 1 if a figure could not be measured. A bound that is missed is shown, and is not a failure.
    """
    need("hosts", "test")
    from tools import bench as benchmarks

    if list:
        benchmarks.show_list(only)
    elif benchmarks.show(_load(ctx, remember=False), only, runs, json, write):
        sys.exit(1)


@command(help=_JSON)
def screenshots(ctx: Context, json: bool = False) -> None:
    """Take the documentation's pictures of every page, in light and dark, into docs/screenshots/."""
    from provision.cli import display
    from provision.deployments import setup_steps

    need("test")
    from tools import screenshots as pictures

    loaded = _load(ctx)
    setup_steps.ensure_for_start(loaded, display.StepLines(quiet=json, stream=sys.stderr))
    taken = pictures.take(loaded, ROOT / "docs" / "screenshots", display.note)
    if json:
        display.as_json([str(path.relative_to(ROOT)) for path in taken])
    else:
        display.line(f"Took {len(taken)} pictures into docs/screenshots/")


namespace = Collection(
    setup,
    settings,
    render,
    start,
    stop,
    restart,
    status,
    logs,
    uri,
    run,
    tunnel,
    shell,
    tour,
    seed,
    doctor,
    clean,
    test,
    bench,
    screenshots,
)
namespace.add_collection(cluster)
namespace.add_collection(hosts)
