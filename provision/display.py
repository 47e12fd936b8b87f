"""Everything a person sees. Results come in, text or JSON goes out; nothing is decided here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

from provision.steps import Progress, Silent, StepResult

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1", "cyan": "36"}


def colourful(stream: IO[str]) -> bool:
    """Whether to colour what goes to a stream: a terminal, unless NO_COLOR says otherwise (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: IO[str] | None = None) -> str:
    """Text in a colour, where the stream takes colours.

    Args:
        text: what to show.
        colour: ``green``, ``yellow``, ``red``, ``cyan``, ``dim`` or ``bold``.
        stream: where it will go; default: standard output.
    """
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colourful(stream or sys.stdout) else text


def line(text: str) -> None:
    """One line of a result, on standard output."""
    print(text, flush=True)  # noqa: T201


def note(text: str) -> None:
    """One line about what is going on, on standard error: scripts read standard output alone."""
    print(paint(text, "dim", sys.stderr), file=sys.stderr, flush=True)  # noqa: T201


def as_json(value: Any) -> None:
    """A result for scripts, on standard output."""
    line(json.dumps(value, indent=2, default=str))


class StepLines:
    """Shows each step as a line: its name, changed or unchanged, and why.

    Args:
        timings: show how long each took.
        quiet: show only progress, because the results go out as JSON.
        stream: where the lines go; default: standard output.
    """

    def __init__(self, timings: bool = False, quiet: bool = False, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._timings = timings
        self._quiet = quiet
        self._bar: _Bar | None = None

    def started(self, name: str) -> Progress:
        if not sys.stderr.isatty():
            return Silent()
        self._bar = _Bar(name)
        return self._bar

    def finished(self, result: StepResult, dry_run: bool) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._quiet:
            return
        word = ("would change" if dry_run else "changed") if result.changed else "unchanged"
        first, *others = result.why.split("\n")
        seconds = f" ({result.seconds:.2f} s)" if self._timings else ""
        word = paint(f"{word:<12}", "yellow" if result.changed else "green", self._stream)
        print(f"{result.name:<14} {word} {first}{seconds}", file=self._stream, flush=True)
        for each in others:
            print(" " * 28 + paint(each, "dim", self._stream), file=self._stream, flush=True)


class _Bar:
    """A progress bar that appears with the first step forward."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress: Any = None
        self._task: Any = None

    def advance(self, done: int, total: int | None) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn(f"{self._name:<14}"),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=Console(file=sys.stderr),
                transient=True,
            )
            self._task = self._progress.add_task(self._name, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], paint_cell: Callable[[str, str], str] | None = None
) -> None:
    """A plain table: aligned columns, no frame, so that it can be read, copied and grepped.

    Args:
        columns: the headings.
        rows: cells, as many in each as there are headings.
        paint_cell: given heading and padded cell, returns it coloured.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    line(
        paint(
            "  ".join(f"{name:<{width}}" for name, width in zip(columns, widths, strict=True)).rstrip(), "dim"
        )
    )
    for row in cells:
        padded = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        if paint_cell is not None:
            padded = [paint_cell(name, cell) for name, cell in zip(columns, padded, strict=True)]
        line("  ".join(padded).rstrip())


def state(word: str) -> str:
    """A node's or deployment's state in its colour."""
    bare = word.strip()
    if bare in ("running", "PRIMARY", "STANDALONE"):
        return paint(word, "green")
    if bare in ("SECONDARY", "ARBITER", "ok"):
        return paint(word, "cyan")
    return paint(word, "red" if bare in ("DOWN", "UNREACHABLE", "degraded", "error") else "yellow")


def status(found: Mapping[str, Any]) -> None:
    """A deployment's status: a heading, then a table of its nodes.

    Args:
        found: `provision.deployment.Status.as_json`.
    """
    version = f", MongoDB {found['version']}" if found["version"] else ""
    line(f"{paint(found['deployment'], 'bold')}: {state(found['state'])}{version}")
    line(f"{found['uri']}\n")
    table(
        ("NODE", "ROLE", "STATE", "PID", "PORT"),
        [(n["name"], n["role"], n["state"], str(n["pid"] or "-"), str(n["port"])) for n in found["nodes"]],
        lambda column, cell: state(cell) if column == "STATE" else cell,
    )


def findings(found: Sequence[Mapping[str, str]]) -> None:
    """What `doctor` found: a mark and a line each, what mends it indented below, and how many of each at the end.

    Args:
        found: `provision.doctor.Finding.as_json`, in order.
    """
    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
    width = max(len(each["check"]) for each in found)
    for each in found:
        mark, colour = marks[each["level"]]
        line(f"{paint(mark, colour)} {each['check']:<{width}}  {each['what']}")
        for remedy in each["remedy"].splitlines():
            line(" " * (width + 4) + paint(remedy, "cyan" if each["level"] != "ok" else "dim"))
    count = {level: sum(each["level"] == level for each in found) for level in marks}
    line(
        f"\n{count['ok']} ok, {count['warning']} to look at, {count['error']} in the way of `run`."
        if count["warning"] or count["error"]
        else f"\nAll {count['ok']} checks are ok."
    )


def removal(planned: Mapping[str, Any]) -> None:
    """What `clean` would remove, with sizes, and what it leaves and why.

    Args:
        planned: `provision.clean.CleanPlan.as_json`.
    """
    if not planned["items"]:
        line("There is nothing to remove.")
    else:
        rows = [(_megabytes(each["bytes"]), each["path"], each["what"]) for each in planned["items"]]
        table(("MB", "PATH", "WHAT"), [*rows, (_megabytes(planned["bytes"]), "", "in all")])
    if planned["kept"]:
        line("\nThis stays:")
        for each in planned["kept"]:
            line(f"  {each['path']}: {each['why']}")


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:8.1f}"
