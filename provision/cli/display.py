"""Everything a person sees. Results come in, text or JSON goes out; nothing is decided here."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from provision.core.steps import Progress, Silent, StepResult
from provision.core.typed import as_typed

if TYPE_CHECKING:
    from provision.cli.result import Result
    from provision.cli.shapes import Removal
    from provision.core.finding import Finding
    from provision.deployments.status import NodeStatus, Status
    from provision.deployments.upgrade import Upgraded
    from provision.hosts.judge import HostFinding
    from provision.hosts.setup import HostStep
    from provision.mongodb.sharding import ShardShare

_COLOURS = {
    "green": "32",
    "yellow": "33",
    "red": "31",
    "dim": "2",
    "bold": "1",
    "cyan": "36",
    "magenta": "35",
    "blue": "34",
}


def colourful(stream: IO[str]) -> bool:
    """Whether to colour what goes to a stream: a terminal, unless NO_COLOR says otherwise (https://no-color.org)."""
    from provision.mongodb.logs import wants_colour

    return wants_colour(stream, os.environ)


def paint(text: str, colour: str, stream: IO[str] | None = None) -> str:
    """Text in a colour, where the stream takes colours.

    Args:
        colour: ``green``, ``yellow``, ``red``, ``cyan``, ``magenta``, ``blue``, ``dim`` or ``bold``.
        stream: where it will go; default: standard output.
    """
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colourful(stream or sys.stdout) else text


def line(text: str) -> None:
    """One line of a result, on standard output."""
    print(text, flush=True)  # noqa: T201


def told(text: str) -> None:
    """One line about what is going on, on standard output, with commands as they are typed here."""
    line(as_typed(text))


def note(text: str) -> None:
    """One line about what is going on, on standard error: scripts read standard output alone."""
    print(paint(as_typed(text), "dim", sys.stderr), file=sys.stderr, flush=True)  # noqa: T201


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
            self._bar.pause()
            self._bar = None
        if self._quiet:
            return
        word = ("would change" if dry_run else "changed") if result.changed else "unchanged"
        first, *others = as_typed(result.why).split("\n")
        seconds = f" ({result.seconds:.2f} s)" if self._timings else ""
        word = paint(f"{word:<12}", "yellow" if result.changed else "green", self._stream)
        print(f"{result.name:<14} {word} {first}{seconds}", file=self._stream, flush=True)
        for each in others:
            print(" " * 28 + paint(each, "dim", self._stream), file=self._stream, flush=True)


class _Bar:
    """A progress bar that appears with the first step forward.

    Args:
        counted: it counts things, not bytes.
    """

    def __init__(self, name: str, counted: bool = False) -> None:
        self._name = name
        self._counted = counted
        self._progress: Any = None
        self._task: Any = None

    def advance(self, done: int, total: int | None) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn(f"{self._name:<14}"),
                BarColumn(),
                MofNCompleteColumn() if self._counted else DownloadColumn(),
                TimeRemainingColumn(),
                console=Console(file=sys.stderr),
                transient=True,
            )
            self._task = self._progress.add_task(self._name, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def pause(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@contextlib.contextmanager
def counting(what: str) -> Iterator[Progress]:
    """A progress bar on a terminal's standard error, for things that are counted: ``"people"``."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    bar = _Bar(what, counted=True)
    try:
        yield bar
    finally:
        bar.pause()


@contextlib.contextmanager
def reading(what: str) -> Iterator[Progress]:
    """As `counting`, for bytes."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    bar = _Bar(what)
    try:
        yield bar
    finally:
        bar.pause()


def counted(number: int, what: str) -> str:
    """A number with its noun: ``1 document``, ``20,000 documents``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


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


def state(word: str, stream: IO[str] | None = None) -> str:
    """A node's or deployment's state in its colour."""
    bare = word.strip()
    if bare in ("running", "PRIMARY", "STANDALONE"):
        return paint(word, "green", stream)
    if bare in ("SECONDARY", "ARBITER", "ROUTER", "ready", "ok"):
        return paint(word, "cyan", stream)
    return paint(word, "red" if bare in ("DOWN", "UNREACHABLE", "degraded", "error") else "yellow", stream)


def show_status(found: Status) -> Result[Status]:
    """A deployment's status as a result."""
    from provision.cli.result import Result

    return Result(found, lambda: status(found))


def status(found: Status) -> None:
    """A deployment's status: a heading, a table of its nodes, and of a sharded cluster its shards and balancer."""
    version = f", MongoDB {found.version}" if found.version else ""
    line(f"{paint(found.deployment, 'bold')}: {state(found.state)}{version}")
    line(f"{found.uri}\n")
    columns: dict[str, Callable[[NodeStatus], str]] = {
        "NODE": lambda n: str(n.name),
        "ROLE": lambda n: str(n.role),
        "REPLICA SET": lambda n: str(n.replica_set or "-"),
        "STATE": lambda n: str(n.state),
        "LAG": lambda n: "-" if n.lag is None else f"{n.lag:g} s",
        "MEMORY": lambda n: f"{n.memory} MB" if n.memory else "-",
        "PID": lambda n: str(n.pid or "-"),
        "PORT": lambda n: str(n.port),
        "VERSION": lambda n: str(n.version or "-"),
    }
    # A column that says nothing of any node is left out: containers have no PIDs, a lone mongod has no lag.
    cells = {name: [cell(node) for node in found.nodes] for name, cell in columns.items()}
    told = {name: column for name, column in cells.items() if set(column) != {"-"}}
    table(
        tuple(told),
        list(zip(*told.values(), strict=True)),
        lambda column, cell: state(cell) if column == "STATE" else cell,
    )
    if found.shards is not None:
        line("")
        table(
            ("SHARD", "STATE", "CHUNKS"),
            [(shard.name, shard.state, str(shard.chunks)) for shard in found.shards],
            lambda column, cell: state(cell) if column == "STATE" else cell,
        )
    if found.balancer is not None:
        busy = ", moving chunks" if found.balancer.running else ""
        line(f"\nbalancer: {found.balancer.mode}{busy}")
    for note in found.notes:
        line(f"\n{note}")


def distribution(found: Mapping[str, Sequence[ShardShare]]) -> None:
    """How collections are spread over the shards: documents, bytes and chunks, with a bar for the documents.

    `found`: `provision.deployments.cluster.distribution`.
    """
    if not found:
        line("No collection is sharded. `invoke cluster.shard-collection` shards one.")
    for number, (namespace, shards) in enumerate(found.items()):
        total = sum(int(each.documents) for each in shards)
        line(f"{'' if number == 0 else chr(10)}{paint(namespace, 'bold')}: {total:,} documents")
        table(
            ("SHARD", "DOCUMENTS", "SIZE", "CHUNKS", ""),
            [
                (
                    each.shard,
                    f"{each.documents:>9,}",
                    f"{each.bytes / 1_000_000:8.1f} MB",
                    f"{each.chunks:>6}",
                    _bar_of(int(each.documents), total),
                )
                for each in shards
            ],
        )


_BAR_WIDTH = 30


def _bar_of(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    filled = round(share * _BAR_WIDTH)
    return f"{'█' * filled}{'░' * (_BAR_WIDTH - filled)} {share:4.0%}"


def timings(moments: Sequence[Any]) -> None:
    """What an `up` reached when; what the whole waited for is marked.

    `moments`: `provision.deployments.events.Moment`, in order.
    """
    for each in moments:
        text = f"{'*' if each.critical else ' '} {each.seconds:7.3f} s  {each.what}"
        line(paint(text, "bold") if each.critical else text)
    if any(not each.critical for each in moments):
        line(paint("* the critical path: what the whole waited for", "dim"))


def prefixed(node: str, text: str, order: int) -> str:
    """A log line behind its node's name, in a colour of its own.

    Args:
        node: the name, padded.
        order: the node's place among those shown.
    """
    colours = ("cyan", "green", "yellow", "magenta", "blue", "red")
    return f"{paint(node, colours[order % len(colours)])} {text}"


def findings(found: Sequence[Finding]) -> None:
    """What `doctor` found: a mark and a line each, the remedy indented below, and how many of each at the end."""
    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
    width = max(len(each.check) for each in found)
    for each in found:
        mark, colour = marks[each.level]
        line(f"{paint(mark, colour)} {each.check:<{width}}  {each.what}")
        for remedy in as_typed(each.remedy).splitlines():
            line(" " * (width + 4) + paint(remedy, "cyan" if each.level != "ok" else "dim"))
    count = {level: sum(each.level == level for each in found) for level in marks}
    line(
        f"\n{count['ok']} ok, {count['warning']} to look at, {count['error']} in the way of `run`."
        if count["warning"] or count["error"]
        else f"\nAll {count['ok']} checks are ok."
    )


def removal(planned: Removal) -> None:
    """What `clean` would remove, with sizes, and what it leaves and why."""
    if not planned.items:
        line("There is nothing to remove.")
    else:
        rows = [(_megabytes(each.bytes), each.path, each.what) for each in planned.items]
        table(("MB", "PATH", "WHAT"), [*rows, (_megabytes(planned.bytes), "", "in all")])
    if planned.kept:
        line("\nThis stays:")
        for each in planned.kept:
            line(f"  {each.path}: {each.why}")


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:8.1f}"


def host_findings(found: Sequence[HostFinding]) -> None:
    """What `hosts.check` found: a table of all hosts, then the remedy of each fault."""
    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
    colours = dict(marks.values())
    rows = [(each.host, marks[each.level][0], each.check, each.what) for each in found]
    table(
        ("HOST", "", "CHECK", "WHAT"),
        rows,
        lambda _, cell: paint(cell, colours[cell.strip()]) if cell.strip() in colours else cell,
    )
    for each in found:
        if each.remedy and each.level != "ok":
            line("")
            line(f"{each.host}, {each.check}:")
            for remedy in as_typed(each.remedy).splitlines():
                line("  " + paint(remedy, "cyan"))


def host_steps(dry_run: bool, quiet: bool) -> Callable[[HostStep], None]:
    """Shows each step on a host as it is finished; nothing where the result goes out as JSON."""

    def show(step: HostStep) -> None:
        word = ("would change" if dry_run else "changed") if step.changed else "unchanged"
        word = paint(f"{word:<12}", "yellow" if step.changed else "green")
        line(f"{step.host:<10} {step.name:<14} {word} {step.why}")

    return (lambda _: None) if quiet else show


def upgraded(done: Upgraded) -> None:
    """What an upgrade did: the version that all nodes run, and the feature compatibility version."""
    line(
        f"{done.deployment}: {', '.join(done.restarted)} run {done.version} now"
        if done.restarted
        else f"{done.deployment}: unchanged, all nodes run {done.version}"
    )
    raises = f"invoke cluster.upgrade --feature-compatibility --on {done.deployment}"
    follows = done.version.startswith(f"{done.feature_compatibility}.")
    line(
        f"{done.deployment}: its feature compatibility version is {done.feature_compatibility}"
        + (" now" if done.raised else "")
        + ("" if follows else f": {raises} raises it, for good")
    )
