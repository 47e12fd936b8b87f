"""The tasks of `invoke` in this clone: those of `provision`, and three that work on this repository.

At import this needs nothing but Invoke and the standard library: outside env/ it builds env/ and re-executes
itself there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from provision.core import output  # noqa: E402
from provision.env import bootstrap  # noqa: E402

if bootstrap.launched_by_invoke():  # by itself, as `env/bin/invoke`: entry.py has done so already
    output.guard()
bootstrap.ensure_environment()

from provision.cli import collection, interrupts  # noqa: E402
from provision.cli.command import command  # noqa: E402
from provision.cli.numeric_flags import Amount, Count  # noqa: E402
from provision.cli.uncaught import install_excepthook  # noqa: E402

if TYPE_CHECKING:
    from provision.cli.result import Result
    from provision.cli.session import Session

install_excepthook()
interrupts.install()


@command(
    needs=("hosts", "test"),
    help={
        "require": "fail where the machine lacks one of these, for example docker,browser; --help of pytest lists them",
        "only": "only these parts: unit,native,docker,hosts,browser",
        "workers": "processes to run the tests in (default: two for each processor)",
        "reruns": "run a test that fails again, up to this many times; its first failure is shown all the same",
        "args": "more arguments for pytest",
    },
)
def test(
    _session: Session,
    require: str = "",
    only: str = "",
    workers: Amount = 0,
    reruns: Amount = 0,
    args: str = "",
) -> None:
    """Run the test suite. Shows the slowest tests, and what this machine lacks and could therefore not run."""
    from tools import suite

    suite.run(ROOT, suite.command(ROOT, require, only, workers, args, reruns))


@command(
    needs=("hosts", "test"),
    help={
        "only": "measure only this figure; may be repeated",
        "runs": "measured pairs of each",
        "list": "say what there is to measure",
        "write": "put all results into docs/benchmarks.md",
    },
    iterable=["only"],
    positional=[],
)
def bench(
    session: Session, only: Sequence[str], runs: Count = 5, list: bool = False, write: bool = False
) -> Result[dict[str, Any]]:
    """Measure what is fast beside what a user would do instead. docs/benchmarks.md explains the figures.

    Exits with 1 if a figure could not be measured. A bound that is missed is shown, and is not a failure.
    """
    from tools import bench as benchmarks

    if list:
        return benchmarks.listed(only)
    return benchmarks.measured(session.load(remember=False), only, runs, write)


@command(needs=("test",), help={"only": "pages or terminal (default: both)"})
def screenshots(session: Session, only: str = "") -> Result[list[str]]:
    """Take the documentation's pictures, in light and dark, into docs/screenshots/.

    Pages: flaskbook, in a browser. Terminal: commands that are typed into a shell, in a project and with a MongoDB of
    their own.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.core.errors import ProvisionError
    from provision.deployments import setup_steps
    from tools import screenshots as pages
    from tools import terminal

    makers = {"pages": pages.take, "terminal": terminal.take}
    if only and only not in makers:
        raise ProvisionError(
            "taking pictures", f"There is no {only}.", f"Type --only {' or --only '.join(makers)}."
        )
    setup_steps.ensure_for_start(session.loaded, session.steps(sys.stderr))
    folder = ROOT / "docs" / "screenshots"
    chosen = [makers[only]] if only else makers.values()
    taken = [path for take in chosen for path in take(session.loaded, folder, session.say)]
    return Result(
        [str(path.relative_to(ROOT)) for path in taken],
        lambda: display.line(f"Took {len(taken)} pictures into docs/screenshots/"),
    )


namespace = collection()
for _task in (test, bench, screenshots):
    namespace.add_task(_task)
