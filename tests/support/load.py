"""A load of majority writes, and what must hold of it: what was acknowledged is there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from pymongo import MongoClient, WriteConcern
from pymongo.errors import PyMongoError

from tests.support.polling import until

_MAJORITY = WriteConcern("majority", wtimeout=20_000)
# Between two writes. A write costs each member of its set processor time: while nothing happens, few are enough.
_QUIET_SECONDS = 0.1
# And where something happens: a write failed or took long, or somebody waits for more of them.
_DENSE_SECONDS = 0.005
_LONG_SECONDS = 0.2
_STAYS_DENSE_SECONDS = 2.0
_ENOUGH = 20
# An election takes ten seconds, and a router gives a host that says nothing another ten.
_PATIENCE_SECONDS = 150.0


class Load:
    """Majority writes to ``flaskbook.load``, one after another, from a thread of its own.

    Args:
        uri: of a user who may write to the database flaskbook.
        dense: as many as can be, all the time.
    """

    def __init__(self, uri: str, dense: bool = False) -> None:
        self._uri = uri
        self._dense = dense
        self._over = threading.Event()
        self._hurry = threading.Event()
        self._dense_until = 0.0
        self.acknowledged: list[int] = []
        self.failures: list[str] = []

    @contextlib.contextmanager
    def at_its_densest(self) -> Iterator[None]:
        """Something happens in the block: as many writes as can be, until some time after it."""
        self._hurry.set()
        try:
            yield
        finally:
            self._dense_until = time.monotonic() + _STAYS_DENSE_SECONDS
            self._hurry.clear()

    def goes_on(self, what: str) -> None:
        """Wait until some more writes were acknowledged."""
        before = len(self.acknowledged)
        self._hurry.set()
        try:
            until(
                f"writes to go on {what}",
                lambda: len(self.acknowledged) > before + _ENOUGH,
                _PATIENCE_SECONDS,
                detail=lambda: "\n".join(self.failures[-5:]),
            )
        finally:
            self._hurry.clear()

    def lost(self, uri: str = "") -> set[int]:
        """The acknowledged writes that are not there; each test wants none.

        Asked until it is answered: a router has no primary to read from while one is elected, and the driver does not
        ask again for that. Each document is read, and no earlier answer counts.

        Args:
            uri: where they are now, if not where they were written to.
        """
        with _client(uri or self._uri) as client:

            def answers() -> list[set[int]]:
                try:
                    return [{each["_id"] for each in client.flaskbook.load.find()}]
                except PyMongoError:
                    return []

            (there,) = until("an answer to what was written", answers)
        return set(self.acknowledged) - there

    def run(self) -> None:
        with _client(self._uri) as client:
            load = client.flaskbook.get_collection("load", write_concern=_MAJORITY)
            # Beyond what an earlier load has written here: each of its numbers would be a failure.
            number = time.time_ns() // 1_000_000
            while not self._over.is_set():
                number += 1
                begun = time.monotonic()
                try:
                    load.insert_one({"_id": number})
                except PyMongoError as error:
                    self.failures.append(f"{number}: {error}")
                    failed = True
                else:
                    self.acknowledged.append(number)
                    failed = False
                now = time.monotonic()
                if failed or now - begun > _LONG_SECONDS:
                    self._dense_until = now + _STAYS_DENSE_SECONDS
                if self._dense or now < self._dense_until or self._hurry.is_set():
                    self._over.wait(_DENSE_SECONDS)
                else:
                    self._hurry.wait(_QUIET_SECONDS)

    def end(self) -> None:
        self._over.set()
        self._hurry.set()


def _client(uri: str) -> MongoClient[dict[str, Any]]:
    # A host that is gone says nothing: without time limits, a write would wait for it as long as TCP does.
    return MongoClient(uri, serverSelectionTimeoutMS=5000, socketTimeoutMS=5000, connectTimeoutMS=2000)


@contextlib.contextmanager
def writing(uri: str, dense: bool = False) -> Iterator[Load]:
    """Writes go on during the block: some were acknowledged before it, and some are after it.

    Args:
        uri: of a user who may write to the database flaskbook.
        dense: as many as can be, for a test whose every moment matters.
    """
    load = Load(uri, dense)
    writer = threading.Thread(target=load.run)
    writer.start()
    try:
        load.goes_on("at first")
        yield load
        load.goes_on("at last")
    finally:
        load.end()
        writer.join()
