"""A subject is one figure: our way, what a user would do instead, and the bound that must hold between them.

Both ways are measured as whole processes, from outside, in turn (ours, theirs, ours, theirs, …), so that
whatever else the machine does meets both alike. The ratio is formed within each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from provision.core.errors import ProvisionError

if TYPE_CHECKING:
    from tools.bench.lab import Lab

# Above these a result is called noisy. A fifth of the CPU gone to others shows in every figure.
_BUSY_PERCENT = 20.0
_SPREAD = 0.5
_BUSY_INTERVAL_SECONDS = 0.3

Trial = Callable[["Lab"], float]
"""Prepares, measures one run, cleans up; returns the seconds of the run alone."""


@dataclass(frozen=True)
class Bound:
    """What must hold for the median.

    Args:
        at_most: the greatest value.
        unit: ``x``: of the ratio to theirs; ``s``: of our own seconds.
    """

    at_most: float
    unit: Literal["x", "s"]

    def __str__(self) -> str:
        return f"≤ {self.at_most} {'×' if self.unit == 'x' else 's'}"


def never(_lab: Lab) -> None:
    """The skip reason of a subject that can be measured wherever the project is set up, or the note of one without."""


@dataclass(frozen=True)
class Subject:
    """One figure.

    Args:
        name: how it is called on the command line.
        claim: what is measured on our side, from when to when.
        bound: what must hold; None: shown for information.
        ours: one trial of our way.
        theirs: one trial of the other way; None: there is nothing to compare with, and the bound is in seconds.
        theirs_label: what the other way is.
        skip_reason: why it can't be measured on this machine, or None.
        unit: of what a trial returns, if not seconds.
        note: what else to say of it, asked after the last run.
    """

    name: str
    claim: str
    bound: Bound | None
    ours: Trial
    theirs: Trial | None = None
    theirs_label: str = ""
    skip_reason: Callable[[Lab], str | None] = never
    unit: Literal["s", "MB"] = "s"
    note: Callable[[Lab], str | None] = never


@dataclass(frozen=True)
class Spread:
    """Least, middle and greatest of several values."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(min(values), median(values), max(values))

    @property
    def wide(self) -> bool:
        """Whether the values lie so far apart that their median says little."""
        return self.max - self.min > _SPREAD * self.median


@dataclass(frozen=True)
class Result:
    """What came of one subject.

    Args:
        subject: which.
        ours: seconds of each of our runs, in order.
        theirs: seconds of the others' runs, pair by pair with ours; empty where nothing is compared.
        busy: percent of all cores that other processes used, sampled before each pair.
        skipped: why it was not measured.
        error: why it could not be finished.
        note: what else to say of it.
    """

    subject: Subject
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    busy: tuple[float, ...] = ()
    skipped: str | None = None
    error: str | None = None
    note: str | None = None

    @property
    def measured(self) -> bool:
        return self.skipped is None and self.error is None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by theirs, pair by pair."""
        return (
            tuple(our / their for our, their in zip(self.ours, self.theirs, strict=True))
            if self.theirs
            else ()
        )

    @property
    def holds(self) -> bool | None:
        """Whether the bound holds for the median; None where there is no bound or no result."""
        bound = self.subject.bound
        if bound is None or not self.measured:
            return None
        return median(self.ratios if bound.unit == "x" else self.ours) <= bound.at_most

    @property
    def noise(self) -> tuple[str, ...]:
        """Reasons to measure again on a quieter machine."""
        if not self.measured:
            return ()
        reasons = []
        if self.busy and median(self.busy) > _BUSY_PERCENT:
            reasons.append(f"other processes used {median(self.busy):.0f} % of the CPU")
        for whose, values in (("ours", self.ours), ("theirs", self.theirs)):
            if values and Spread.of(values).wide:
                reasons.append(f"{whose} lie far apart")
        return tuple(reasons)


def measure(
    subject: Subject,
    lab: Lab,
    runs: int,
    say: Callable[[str], None] = lambda _: None,
    busy: Callable[[], float] | None = None,
) -> Result:
    """Measure a subject: one pair as warm-up, which is not counted, then ``runs`` pairs.

    Args:
        subject: what to measure.
        lab: where.
        runs: counted pairs.
        say: told which pair is being measured.
        busy: percent of the CPU that others use, asked before each pair; default: sampled from the system.

    Returns:
        The result. A trial that fails makes it a result with an error, so that the other subjects are still
        measured; an interruption ends all.
    """
    asked = busy or others_percent
    ours: list[float] = []
    theirs: list[float] = []
    load: list[float] = []
    try:
        reason = subject.skip_reason(lab)
        if reason is not None:
            say(f"{subject.name}: skipped: {reason}")
            return Result(subject, skipped=reason)
        for number in range(runs + 1):
            say(f"{subject.name}: {f'run {number} of {runs}' if number else 'warm-up'}")
            load.append(asked())
            ours.append(subject.ours(lab))
            if subject.theirs is not None:
                theirs.append(subject.theirs(lab))
        note = subject.note(lab)
    except ProvisionError as error:
        say(f"{subject.name}: failed: {error.cause}")
        lab.reset()
        return Result(subject, error=f"{error.doing}: {error.cause}")
    return Result(subject, tuple(ours[1:]), tuple(theirs[1:]), tuple(load[1:]), note=note)


def others_percent() -> float:
    """Percent of all cores in use while nothing of ours runs."""
    import psutil

    return float(psutil.cpu_percent(_BUSY_INTERVAL_SECONDS))
