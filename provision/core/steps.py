"""A step reads state, decides, acts, and says changed or unchanged and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from provision.core.dataclass import dataclass


class Progress(Protocol):
    """Shows how far a long piece of work has come. The default does nothing."""

    def advance(self, done: int, total: int | None) -> None:
        """Say that ``done`` of ``total`` units (bytes, items) are finished; total None: not known."""

    def pause(self) -> None:
        """Show nothing until the next `advance`: a program writes to the terminal meanwhile."""


@dataclass(frozen=True)
class Decision:
    """What a step found: whether there is something to do, and why (or why not)."""

    needed: bool
    why: str


class Step(Protocol):
    """One idempotent piece of set-up."""

    @property
    def name(self) -> str:
        """What it is about, as shown: ``"virtualenv"``."""

    def decide(self) -> Decision:
        """Read the present state and decide. Changes nothing.

        Raises ProvisionError: this step can't correct the state.
        """

    def act(self, progress: Progress) -> str:
        """Do what was decided.

        Returns: What was done, as shown: ``"made data/ and log/"``.
        Raises ProvisionError: it could not be done; nothing half-made is left.
        """


@dataclass(frozen=True)
class StepResult:
    """What became of a step.

    Args:
        changed: it acted, or with a dry run, would have acted.
        why: what was done or why nothing was.
        seconds: wall time.
    """

    name: str
    changed: bool
    why: str
    seconds: float


class Reporter(Protocol):
    """Shows steps while they run."""

    def started(self, name: str) -> Progress:
        """A step acts from now on; its progress goes to the returned object."""

    def finished(self, result: StepResult, dry_run: bool) -> None:
        """A step is over."""


def run_steps(steps: Iterable[Step], reporter: Reporter, dry_run: bool = False) -> list[StepResult]:
    """Run steps in order; each decides when the ones before it have acted.

    The first step that fails raises; those after it don't run. With `dry_run`, steps decide and change
    nothing.
    """
    results = []
    for step in steps:
        begun = time.perf_counter()
        decision = step.decide()
        why = decision.why
        if decision.needed and not dry_run:
            why = step.act(reporter.started(step.name))
        result = StepResult(step.name, decision.needed, why, time.perf_counter() - begun)
        reporter.finished(result, dry_run)
        results.append(result)
    return results


class Silent:
    """A progress and reporter for those who don't watch."""

    def advance(self, done: int, total: int | None) -> None:
        """Nothing is shown."""

    def pause(self) -> None:
        """Nothing is shown."""

    def started(self, name: str) -> Silent:
        return self

    def finished(self, result: StepResult, dry_run: bool) -> None:
        """Nothing is shown."""


@dataclass(frozen=True)
class FunctionStep:
    """A step made of two functions."""

    name: str
    decide_with: Callable[[], Decision]
    act_with: Callable[[Progress], str]

    def decide(self) -> Decision:
        return self.decide_with()

    def act(self, progress: Progress) -> str:
        return self.act_with(progress)
