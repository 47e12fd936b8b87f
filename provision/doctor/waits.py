"""Questions whose answers take time, asked all at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """An answer that is on its way, looked for by a thread of its own.

    The thread does not keep the process from ending: one that hangs in a name look-up is left behind.

    `ask`: gives the answer.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._answers: list[T] = []
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self, deadline: float, otherwise: T) -> T:
        """The answer, waited for until a deadline.

        `deadline` is on the clock of `time.monotonic`. Raises what asking raised.
        """
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._failures:
            raise self._failures[0]
        return self._answers[0] if self._answers else otherwise

    def _run(self) -> None:
        try:
            self._answers.append(self._ask())
        except BaseException as failure:  # noqa: BLE001 — raised again where the answer is wanted
            self._failures.append(failure)
