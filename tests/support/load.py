"""A client that writes one document after another, and knows which of its writes were acknowledged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from pymongo import MongoClient, WriteConcern
from pymongo.errors import PyMongoError

from tests.support.polling import until

MAJORITY = WriteConcern("majority", wtimeout=20_000)
PAUSE_SECONDS = 0.02
"""Between two writes: without it, they take the processors from what is tested."""


@contextlib.contextmanager
def writing(uri: str) -> Iterator[list[int]]:
    """Majority writes one after another while the block runs; it ends when some more were acknowledged after it.

    Args:
        uri: of a user who may write to the database flaskbook.

    Yields:
        The numbers of the documents whose writes were acknowledged, in ``flaskbook.load``.
    """
    acknowledged: list[int] = []
    over = threading.Event()

    def write() -> None:
        # A host that is gone says nothing: without a time limit, a write would wait for it as long as TCP does.
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=5000, socketTimeoutMS=5000) as client:
            load = client.flaskbook.get_collection("load", write_concern=MAJORITY)
            number = 0
            while not over.is_set():
                number += 1
                with contextlib.suppress(PyMongoError):
                    load.insert_one({"_id": number})
                    acknowledged.append(number)
                over.wait(PAUSE_SECONDS)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until("the first writes", lambda: len(acknowledged) > 10)
        yield acknowledged
        before = len(acknowledged)
        until("writes to go on", lambda: len(acknowledged) > before + 10)
    finally:
        over.set()
        writer.join()


def lost(uri: str, acknowledged: list[int]) -> set[int]:
    """The acknowledged writes that are not there; each test wants none.

    Asked until it is answered: a router has no primary to read from while one is elected, and the driver does not ask
    again for that. Each document is read, and no earlier answer counts.
    """
    with MongoClient[dict[str, Any]](uri) as client:

        def answers() -> list[set[int]]:
            try:
                return [{each["_id"] for each in client.flaskbook.load.find()}]
            except PyMongoError:
                return []

        (there,) = until("an answer to what was written", answers)
    return set(acknowledged) - there
