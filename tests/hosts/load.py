"""A load of majority writes, and what must hold of it: what was acknowledged is there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from tests.support.load import MAJORITY, PAUSE_SECONDS
from tests.support.polling import until

_ENOUGH = 20
# An election takes ten seconds, and a router gives a host that says nothing another ten.
_PATIENCE_SECONDS = 150.0


class Load:
    """Majority writes to ``flaskbook.load``, one after another, from a thread of its own.

    Args:
        uri: where to.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._over = threading.Event()
        self.acknowledged: list[int] = []
        self.failures: list[str] = []

    def goes_on(self, what: str) -> None:
        """Wait until some more writes were acknowledged."""
        before = len(self.acknowledged)
        until(
            f"writes to go on {what}",
            lambda: len(self.acknowledged) > before + _ENOUGH,
            _PATIENCE_SECONDS,
            detail=lambda: "\n".join(self.failures[-5:]),
        )

    def lost(self) -> set[int]:
        """Those that were acknowledged and are not there."""
        with self._client() as client:
            return set(self.acknowledged) - {each["_id"] for each in client.flaskbook.load.find()}

    def run(self) -> None:
        with self._client() as client:
            load = client.flaskbook.get_collection("load", write_concern=MAJORITY)
            number = 0
            while not self._over.is_set():
                number += 1
                try:
                    load.insert_one({"_id": number})
                except PyMongoError as error:
                    self.failures.append(f"{number}: {error}")
                else:
                    self.acknowledged.append(number)
                self._over.wait(PAUSE_SECONDS)

    def end(self) -> None:
        self._over.set()

    def _client(self) -> pymongo.MongoClient[dict[str, Any]]:
        # A host that is gone says nothing: without time limits, a write would wait for it as long as TCP does.
        return pymongo.MongoClient(
            self._uri, serverSelectionTimeoutMS=5000, socketTimeoutMS=5000, connectTimeoutMS=2000
        )


@contextlib.contextmanager
def writing(uri: str) -> Iterator[Load]:
    """Writes go on during the block; it begins when the first ones were acknowledged."""
    load = Load(uri)
    writer = threading.Thread(target=load.run)
    writer.start()
    try:
        load.goes_on("at first")
        yield load
    finally:
        load.end()
        writer.join()
