"""What Ctrl-C and the signals that end a process mean to a command."""

from __future__ import annotations

import atexit
import signal
import sys
from typing import Any

from provision.core import output
from provision.core.signals import ENDING, handlers, repeat_lost, replace, restore

_before: dict[int, Any] = {}
"""The handlers that `end_here` has replaced."""


def install() -> None:
    """Have SIGINT, SIGTERM and SIGHUP end the process with 128 + the signal's number, where they are not ignored.

    Invoke turns KeyboardInterrupt into status 1; a shell expects 128 + the signal's number.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)
            # What is done is done: Python, as it ends, would let a late signal say otherwise.
            atexit.register(signal.signal, number, signal.SIG_IGN)
    repeat_lost()


def end_here() -> None:
    """Have the first of those signals do nothing any more: what it would take back is done, and is about to be printed.

    A second one ends the process all the same: what is left may wait for something. `go_on` ends this.
    """
    came: list[int] = []

    def late(number: int, _frame: object) -> None:
        output.hurry()
        if came:
            sys.exit(128 + number)
        came.append(number)

    if not _before:
        _before.update(handlers())
        replace(_before, late)  # and not by ignoring them: a child would inherit that


def go_on() -> None:
    """Have those signals do again what they did before `end_here`: another task begins, or somebody else's code goes on."""
    restore(_before)
    _before.clear()


def _interrupted(number: int, _frame: object) -> None:
    output.hurry()
    sys.exit(128 + number)
