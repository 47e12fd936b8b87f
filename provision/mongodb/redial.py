"""A connection that is dialled again when it breaks, for as long as its node lives.

A mongod closes its clients' connections when its state changes, as from STARTUP to REMOVED or from primary to
secondary. That is not a failure: what ends bring-up is a node that died, a deadline, or a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from provision.mongodb.waiting import Wait
from provision.mongodb.wire import Connection, NotReachable


class Redialled:
    """A connection to one node, or to whichever member of a set is primary.

    A command whose reply was lost is sent again. So send only what may be done twice.

    Args:
        connect: opens the connection; waits until it can.
        who: whom it leads to, as errors name it.
    """

    def __init__(self, connect: Callable[[], Connection], wait: Wait, who: str) -> None:
        self._connect = connect
        self._wait = wait
        self._who = who
        self._connection: Connection | None = None

    def open(self) -> None:
        """Open it now.

        Raises ProvisionError: as `command`.
        """
        if self._connection is None:
            self._connection = self._connect()

    def command(
        self, database: str, command: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Run one command, on a new connection where the old one breaks.

        Raises:
            ProvisionError: the node died, refuses, or gave no reply until the deadline.
            CommandFailed: the server answered with an error.
        """

        def attempt() -> dict[str, Any] | None:
            self.open()
            assert self._connection is not None  # noqa: S101 — `open` has opened it
            try:
                return self._connection.command(database, command, timeout)
            except NotReachable:
                self.close()
                return None

        return self._wait.until(f"{self._who} to answer", attempt)

    def close(self) -> None:
        """Close it; closing twice is fine. The next command opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
