"""Signals that end this process, at moments when ending at once would leave something behind. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP wait until the block is over; then the first that came does what it would have done.

    For a block that starts a process: a handler that raises between fork and assignment would leave one that nobody
    knows. Only handlers of this process wait, and only in its main thread, where they run; what the kernel does by itself
    it still does.
    """
    came: list[int] = []
    before = _handlers()
    _replace(before, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        _restore(before)
        if came:
            before[came[0]](came[0], None)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Have the first SIGINT, SIGTERM or SIGHUP do in the block what it would have done, and ignore those that follow.

    For a block that cleans up when it is interrupted: a second Ctrl-C must not leave behind what the first one is about to
    end. There is no moment between the two at which another would come through.
    """
    before = _handlers()
    came: list[int] = []

    def first(number: int, frame: FrameType | None) -> None:
        if came:  # a block within this one has put this handler back
            return
        came.append(number)
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        before[number](number, frame)

    _replace(before, first)
    try:
        yield
    finally:
        _restore(before)


def _handlers() -> dict[int, Handler]:
    """The signals that this process handles itself, with their handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in _ENDING}
    return {number: handler for number, handler in found.items() if callable(handler)}


def _replace(before: dict[int, Handler], handler: Handler) -> None:
    for number in before:
        signal.signal(number, handler)


def _restore(before: dict[int, Handler]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
