"""What is fast, measured beside what a user would do instead. docs/benchmarks.md explains every figure.

`measure` defines a subject and measures it, `lab` is the scratch place it is measured in, `subjects` holds one
module for each, `report` turns results into a table, Markdown and JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from provision.cli.result import Result
    from provision.settings.loading import Loaded
    from tools.bench.measure import Subject
    from tools.bench.report import Report

RUNS = 5
"""Pairs measured where no other number is asked for, and the fewest that make a result."""


def choose(names: Sequence[str]) -> list[Subject]:
    """The subjects of these names, in the order they are measured; all of them for no name.

    Raises:
        ProvisionError: there is no subject of that name.
    """
    from provision.core.errors import ProvisionError
    from tools.bench.subjects import ALL

    known = {subject.name: subject for subject in ALL}
    for name in names:
        if name not in known:
            raise ProvisionError(
                f"choosing what to measure: {name!r}",
                f"There is no subject of that name. There are: {', '.join(known)}.",
                "List them with: invoke bench --list",
            )
    return [subject for subject in ALL if not names or subject.name in names]


def run(loaded: Loaded, names: Sequence[str], runs: int, say: Callable[[str], None]) -> Report:
    """Measure subjects one after the other, in a scratch copy of the project that is removed afterwards.

    Args:
        loaded: the project's settings; its caches are used, its data are not.
        names: which subjects; none: all.
        runs: measured pairs for each; one more goes before them as warm-up.

    Returns:
        The results, also of the subjects that failed or were skipped.

    Raises:
        ProvisionError: an unknown name, a number of runs below 1, or the scratch copy can't be made.
    """
    from provision.core.errors import ProvisionError
    from tools.bench.lab import Lab
    from tools.bench.measure import measure
    from tools.bench.report import Machine, Report

    if runs < 1:
        raise ProvisionError("measuring", f"{runs} runs were asked for.", "Ask for at least 1 (default: 5).")
    subjects = choose(names)
    with Lab(loaded, say) as lab:
        before = Machine.load_average()
        results = [measure(subject, lab, runs, say) for subject in subjects]
        return Report(Machine.here(before, lab.mongod_version), runs, tuple(results))


def measured(loaded: Loaded, names: Sequence[str], runs: int, write: bool = False) -> Result[dict[str, Any]]:
    """Measure subjects (none named: all): what `invoke bench` does.

    Args:
        runs: measured pairs for each.
        write: put the results of all subjects into docs/benchmarks.md.

    Returns:
        With exit status 1 where a subject could not be measured. A bound that does not hold is shown, and is
        no failure: the machine may have been busy.

    Raises:
        ProvisionError: as `run`; or only a part of the results would be written.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.core.errors import ProvisionError
    from tools.bench.report import COLUMNS, write_into

    if write and names:
        raise ProvisionError(
            "writing the results into docs/benchmarks.md",
            "Its table holds all subjects, measured in one run.",
            "Leave the names out.",
        )
    report = run(loaded, names, runs, display.note)
    if write:
        write_into(loaded.paths.root / "docs" / "benchmarks.md", report)

    def show() -> None:
        display.table(COLUMNS, report.rows())
        display.line("")
        for note in report.notes():
            display.line(note)

    return Result(report.as_json(), show, status=int(report.failed))


def listed(names: Sequence[str] = ()) -> Result[dict[str, Any]]:
    """What there is to measure, with its bound: what `invoke bench --list` shows.

    Raises:
        ProvisionError: there is no subject of that name.
    """
    from provision.cli import display
    from provision.cli.result import Result

    rows = [(subject.name, str(subject.bound or "–"), subject.claim) for subject in choose(names)]
    figures = [{"name": name, "bound": bound, "claim": claim} for name, bound, claim in rows]
    return Result(
        {"figures": figures},
        lambda: display.table(("FIGURE", "BOUND", "WHAT IS MEASURED"), rows),
    )
