"""Says that mongod is fetched, and how far that has come: the first test that wants one may wait for it for a minute."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

_MB = 1_000_000


class Fetching:
    """Progress on standard error, past pytest's capturing: a line, and where that is a terminal, how far it has come.

    `shown`: inside such a context, what is written is shown and not captured.
    """

    def __init__(self, shown: Callable[[], AbstractContextManager[None]]) -> None:
        self._shown = shown
        self._begun = False
        self._percent = 0

    def advance(self, done: int, total: int | None) -> None:
        """See `provision.core.steps.Progress`."""
        percent = 100 * done // total if total else 0
        if self._begun and percent == self._percent:
            return
        with self._shown():
            if not self._begun:
                sys.stderr.write("\nmongodb: fetching mongod, once for all projects of this machine ...\n")
            if percent > self._percent and sys.stderr.isatty():
                size = (total or 0) // _MB
                sys.stderr.write(f"\rmongodb: {percent:3d} % of {size} MB{'' if percent < 100 else chr(10)}")
            sys.stderr.flush()
        self._begun, self._percent = True, percent

    def pause(self) -> None:
        """See `provision.core.steps.Progress`: while mongod is fetched, nothing else writes."""
