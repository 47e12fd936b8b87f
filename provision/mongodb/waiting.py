"""Waiting is an object with a deadline that watches for death; its failure says what was awaited."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError

POLL_SECONDS = 0.01
_TELL_SECONDS = 5.0
_TELL_AGAIN_SECONDS = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class Wait:
    """How long to wait, and what makes waiting pointless."""

    deadline: float  # when to give up, on the clock of `time.monotonic`
    seconds: float  # how long that was from the beginning, for the message
    check_alive: Callable[[], None]  # raises `ProvisionError` once what is awaited can no longer happen
    log_tail: Callable[[], list[str]]  # the last readable log lines of the node that is waited for
    # seconds between two tries; more where many wait at once, so that they leave the processor to the nodes
    poll: float = POLL_SECONDS
    say: Callable[[str], None] = lambda _: None  # told what is awaited, where it takes long

    def until(self, what: str, attempt: Callable[[], T | None]) -> T:
        """Try until there is an answer.

        Args:
            what: what is awaited, as a clause: ``"mongod to listen on port 27017"``.
            attempt: returns None to be asked again; what it raises ends the wait.

        Returns: The first answer that is not None.
        Raises ProvisionError: the deadline passed, or it can no longer happen.
        """
        begun = time.monotonic()
        tell_at = begun + _TELL_SECONDS
        while True:
            answer = attempt()
            if answer is not None:
                return answer
            self.check_alive()
            now = time.monotonic()
            if now >= self.deadline:
                raise ProvisionError(
                    f"waiting for {what}",
                    f"It did not happen within {self.seconds:g} s, and the process is still running.",
                    "Look at `invoke logs`. A slow machine may need a larger mongodb.start_timeout in invoke.yaml.",
                    self.log_tail(),
                )
            if now >= tell_at:
                tell_at = now + _TELL_AGAIN_SECONDS
                said: list[str] = []
                with suppress(Exception):  # what can't be read must not end what may go well
                    said = self.log_tail()[-1:]
                self.say("\n  ".join([f"Waiting for {what}, for {now - begun:.0f} s now.", *said]))
            time.sleep(self.poll)
