"""A client of a deployment, for commands that read and write data in bulk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError
from provision.deployments.deployment import Deployment

if TYPE_CHECKING:
    from pymongo import MongoClient

_SERVER_SELECTION_MS = 5_000


@contextlib.contextmanager
def connected(deployment: Deployment, doing: str, command: str, uri: str = "") -> Iterator[MongoClient[Any]]:
    """A client of a deployment.

    Args:
        command: what connects, as it is typed: the server's log names it.
        uri: the connection string; empty: that of the user who may read and write everything.

    Raises ProvisionError: the server refuses what is asked of it in the block, or can't be reached.
    """
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        client: MongoClient[Any] = MongoClient(
            uri or deployment.uri(user="root"), appname=command, serverSelectionTimeoutMS=_SERVER_SELECTION_MS
        )
        with client:
            yield client
    except PyMongoError as error:
        raise ProvisionError(
            doing, said(error), f"Look at it: invoke status --on {deployment.name}"
        ) from None


def said(error: Exception) -> str:
    """What an error of PyMongo says, without the server's whole answer and without the state of all servers."""
    return str(error).partition(", full error:")[0].partition(", Timeout:")[0]
