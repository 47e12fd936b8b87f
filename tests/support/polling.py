"""Waiting in tests: ask often, give up at a deadline, say what was awaited."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Far above what anything here takes, so that only something that never happens meets it.
DEADLINE_SECONDS = 60.0


def until(
    what: str,
    ask: Callable[[], T],
    seconds: float = DEADLINE_SECONDS,
    detail: Callable[[], str] | None = None,
) -> T:
    """Ask until the answer is true.

    Args:
        what: what is awaited, as a clause.
        ask: asked again until its answer is true in a boolean sense.
        seconds: when to give up.
        detail: what else to show then, a process's output for example.

    Returns:
        The first true answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            more = f"\n{detail()}" if detail else ""
            raise AssertionError(f"waited {seconds:g} s for {what}; last answer: {answer!r}{more}")
        # A question that takes long is asked less often: what is waited for needs the processor, too.
        time.sleep(min(max(0.02, 2 * (time.monotonic() - asked)), 0.2))
