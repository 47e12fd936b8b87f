"""Signals that end this process, at moments when ending at once would leave something behind. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 0.01
_armed: list[Callable[[], None]] = []
"""What each `once` that is in force does to let a signal through again."""


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP wait until the block is over; then the first that came does what it would have done.

    For a block that starts a process: a handler that raises between fork and assignment would leave one that nobody
    knows. Only handlers of this process wait, and only in its main thread, where they run; what the kernel does by itself
    it still does.
    """
    came: list[int] = []
    before = handlers()
    replace(before, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        restore(before)
        if came:
            before[came[0]](came[0], None)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Have the first SIGINT, SIGTERM or SIGHUP do in the block what it would have done, and ignore those that follow.

    For a block that cleans up when it is interrupted: a second Ctrl-C must not leave behind what the first one is about to
    end. There is no moment between the two at which another would come through.
    """
    before = handlers()
    came: list[int] = []

    def first(number: int, frame: FrameType | None) -> None:
        if came:  # a block within this one has put this handler back
            return
        came.append(number)
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        before[number](number, frame)

    def arm() -> None:
        came.clear()
        replace(before, first)

    arm()
    _armed.append(arm)
    try:
        yield
    finally:
        _armed.remove(arm)
        restore(before)


def repeat_lost() -> None:
    """Have a signal come again whose exit was raised where Python drops exceptions.

    A handler runs between any two instructions of the main thread. In a finalizer, in a callback of a weak reference
    or of the garbage collector, what it raises is reported and dropped, and Ctrl-C would do nothing. Each import ends
    with such a callback. https://docs.python.org/3/library/sys.html#sys.unraisablehook
    """
    before = sys.unraisablehook

    def dropped(lost: sys.UnraisableHookArgs) -> None:
        number = _number(lost.exc_value)
        if number is None or threading.current_thread() is not threading.main_thread():
            before(lost)
            return
        former = signal.getsignal(signal.SIGALRM)

        def again(_number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGALRM, former)
            for arm in _armed:
                arm()
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame)

        # Not from here: it would be dropped as well.
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)

    sys.unraisablehook = dropped


def _number(error: BaseException | None) -> int | None:
    """The signal whose handler has raised this exit; None: it is none of a signal."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code - 128 in ENDING:
        return error.code - 128
    return None


def handlers() -> dict[int, Handler]:
    """The signals that this process handles itself, with their handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in ENDING}
    return {number: handler for number, handler in found.items() if callable(handler)}


def replace(before: dict[int, Handler], handler: Handler) -> None:
    """Have a handler in place of those."""
    for number in before:
        signal.signal(number, handler)


def restore(before: dict[int, Handler]) -> None:
    """Have those handlers again."""
    for number, handler in before.items():
        signal.signal(number, handler)
