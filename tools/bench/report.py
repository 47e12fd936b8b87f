"""Results as a table, as Markdown and as JSON. Pure, but for what `Machine.here` reads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provision.core.errors import ProvisionError
from tools.bench import RUNS
from tools.bench.measure import Result, Spread

COLUMNS = ("FIGURE", "OURS", "COMPARED WITH", "RATIO", "BOUND", "HOLDS")
BEGIN = "<!-- results of invoke bench: begin -->"
END = "<!-- results of invoke bench: end -->"


@dataclass(frozen=True)
class Machine:
    """What it was measured on.

    Args:
        when: date and time in UTC, ISO 8601.
        system: operating system and architecture.
        processor: the processor's name as the system gives it; may be empty.
        cores: logical cores.
        python: version of the interpreter of env/.
        mongod: version of the mongod that was measured; None where none was.
        load_before: the system's load average over one minute when measuring began.
        load_after: and when it ended.
    """

    when: str
    system: str
    processor: str
    cores: int
    python: str
    mongod: str | None
    load_before: float
    load_after: float

    @staticmethod
    def load_average() -> float:
        return os.getloadavg()[0]

    @classmethod
    def here(cls, load_before: float, mongod: str | None) -> Machine:
        """This machine, now."""
        return cls(
            datetime.now(UTC).isoformat(timespec="seconds"),
            f"{platform.system()} {platform.release()} {platform.machine()}",
            _processor(),
            os.cpu_count() or 1,
            platform.python_version(),
            mongod,
            load_before,
            cls.load_average(),
        )

    def __str__(self) -> str:
        parts = [
            self.when,
            self.system,
            f"{self.cores} cores" + (f" ({self.processor})" if self.processor else ""),
            f"Python {self.python}",
            *([f"mongod {self.mongod}"] if self.mongod else []),
            f"load average {self.load_before:.1f} before, {self.load_after:.1f} after",
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Report:
    """All results of one run of the bench."""

    machine: Machine
    runs: int
    results: tuple[Result, ...]

    @property
    def failed(self) -> bool:
        """Whether a subject could not be measured. A bound that does not hold is a finding, not a failure."""
        return any(result.error is not None for result in self.results)

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells, one row for each subject; columns as in COLUMNS."""
        return [_row(result) for result in self.results]

    def notes(self) -> Iterator[str]:
        """What stands below the table: what was compared, what was noisy, skipped or failed."""
        for result in self.results:
            subject = result.subject
            against = f", beside {subject.theirs_label}" if subject.theirs_label else ""
            yield f"{subject.name}: {subject.claim}{against}."
            if result.note is not None:
                yield f"{subject.name}: {result.note}"
            if result.skipped is not None:
                yield f"{subject.name}: skipped: {result.skipped}"
            if result.error is not None:
                yield f"{subject.name}: failed: {result.error.partition(chr(10))[0]}"
            for reason in result.noise:
                yield f"{subject.name}: noisy: {reason}"
        few = "" if self.runs >= RUNS else f" Fewer than {RUNS} runs are a try, not a result."
        yield f"Seconds and ratios: median (least–greatest) of {self.runs} runs, ratios pair by pair.{few}"
        yield f"{self.machine}."

    def as_json(self) -> dict[str, Any]:
        """The same for scripts; the shape is described in docs/benchmarks.md."""
        return {
            "machine": asdict(self.machine),
            "runs": self.runs,
            "results": [_as_json(result) for result in self.results],
        }

    def markdown(self) -> str:
        """The table and its notes as Markdown."""
        lines = [
            "| " + " | ".join(name.capitalize() for name in COLUMNS) + " |",
            "|" + "---|" * len(COLUMNS),
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows()),
            "",
            *(f"- {note}" for note in self.notes()),
        ]
        return "\n".join(lines)


def write_into(document: Path, report: Report) -> None:
    """Replace what stands between the two markers of a document by the report.

    Raises:
        ProvisionError: the markers aren't there, or the file can't be read or written.
    """
    from provision.core.files import write_atomically

    try:
        write_atomically(document, replace_between(document.read_text(encoding="utf-8"), report.markdown()))
    except (OSError, ValueError) as error:
        raise ProvisionError(
            f"writing the results into {document}", f"{error}.", f"It needs the lines {BEGIN} and {END}."
        ) from None


def replace_between(text: str, block: str) -> str:
    """The text with what stands between the markers replaced.

    Raises:
        ValueError: it does not hold both, in order.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the markers of the results are missing")
    return f"{head}{begin}\n{block}\n{end}{tail}"


def _row(result: Result) -> tuple[str, ...]:
    bound = str(result.subject.bound or "–")
    if not result.measured:
        return (result.subject.name, "–", "–", "–", bound, "skipped" if result.skipped else "failed")
    verdict = {True: "yes", False: "NO", None: "–"}[result.holds]
    return (
        result.subject.name,
        _cell(result.ours, result.subject.unit),
        _cell(result.theirs, result.subject.unit),
        _cell(result.ratios, "×"),
        bound,
        verdict + (" (noisy)" if result.noise else ""),
    )


def _cell(values: Sequence[float], unit: str) -> str:
    if not values:
        return "–"
    spread = Spread.of(values)
    return f"{spread.median:.2f} {unit} ({spread.min:.2f}–{spread.max:.2f})"


def _as_json(result: Result) -> dict[str, Any]:
    subject = result.subject
    return {
        "name": subject.name,
        "claim": subject.claim,
        "compared_with": subject.theirs_label or None,
        "unit": subject.unit,
        "bound": asdict(subject.bound) if subject.bound else None,
        "ours": _spread_json(result.ours),
        "theirs": _spread_json(result.theirs),
        "ratio": _spread_json(result.ratios),
        "holds": result.holds,
        "busy_percent": list(result.busy),
        "noise": list(result.noise),
        "note": result.note,
        "skipped": result.skipped,
        "error": result.error,
    }


def _spread_json(values: Sequence[float]) -> dict[str, Any] | None:
    return {**asdict(Spread.of(values)), "samples": list(values)} if values else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor()
