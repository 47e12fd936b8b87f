"""What Ctrl-C and the signals that end a process mean to a command."""

from __future__ import annotations

import atexit
import signal
import sys

from provision.core import output
from provision.core.signals import repeat_lost


def install() -> None:
    """Have SIGINT, SIGTERM and SIGHUP end the process with 128 + the signal's number, where they are not ignored.

    Invoke turns KeyboardInterrupt into status 1; a shell expects 128 + the signal's number.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)
            # What is done is done: Python, as it ends, would let a late signal say otherwise.
            atexit.register(signal.signal, number, signal.SIG_IGN)
    repeat_lost()


def end_here() -> None:
    """Have those signals do nothing any more: what they would take back is done, and its result is about to be printed.

    Not ignored as the kernel does it: what this process starts would inherit that.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


def _interrupted(number: int, _frame: object) -> None:
    output.hurry()
    sys.exit(128 + number)
