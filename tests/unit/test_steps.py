"""A step reads state, decides, acts, and says changed or unchanged and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from provision.core.errors import ProvisionError
from provision.core.steps import Decision, Progress, Silent, StepResult, run_steps


@dataclass
class Recorder:
    """A step that makes something once, and a reporter that remembers."""

    name: str = "thing"
    there: bool = False
    acted: int = 0
    seen: list[tuple[str, bool]] = field(default_factory=list)

    def decide(self) -> Decision:
        return Decision(not self.there, "is there" if self.there else "is missing")

    def act(self, progress: Progress) -> str:
        self.there, self.acted = True, self.acted + 1
        return "made"

    def started(self, name: str) -> Progress:
        return Silent()

    def finished(self, result: StepResult, dry_run: bool) -> None:
        self.seen.append((result.why, dry_run))


def test_what_is_missing_is_made_once() -> None:
    step = Recorder()
    first, second = run_steps([step], step)[0], run_steps([step], step)[0]
    assert (first.changed, first.why) == (True, "made")
    assert (second.changed, second.why) == (False, "is there")
    assert step.acted == 1
    assert step.seen == [("made", False), ("is there", False)]


def test_a_dry_run_decides_and_does_not_act() -> None:
    step = Recorder()
    result = run_steps([step], step, dry_run=True)[0]
    assert (result.changed, result.why, step.acted) == (True, "is missing", 0)
    assert step.seen == [("is missing", True)]


def test_each_step_decides_when_those_before_it_have_acted() -> None:
    first = Recorder()

    class Second(Recorder):
        def decide(self) -> Decision:
            return Decision(first.there, "after the first")

    second = Second()
    assert [each.changed for each in run_steps([first, second], first)] == [True, True]


def test_a_failure_ends_the_run() -> None:
    class Failing(Recorder):
        def act(self, progress: Progress) -> str:
            raise ProvisionError("making a thing", "It broke.", "Mend it.")

    after = Recorder()
    with pytest.raises(ProvisionError, match="It broke"):
        run_steps([Failing(), after], after)
    assert after.acted == 0
