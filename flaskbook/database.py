"""MongoDB for a Flask application: one client per app, and mongoengine documents that follow the current app.

mongoengine keeps its connections in module-wide aliases, so two apps in one process (every test suite has
them) would share one. Here the application owns its client, and :class:`AppDocument` asks the current
application for the collection. Nothing connects before the first operation, and indexes are made at the first
use of a collection.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pymongo
from flask import Flask, current_app
from mongoengine import Document
from mongoengine.errors import OperationError
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, ConnectionFailure, InvalidURI, OperationFailure, PyMongoError

from flaskbook.settings import SettingsError

EXTENSION = "flaskbook-mongodb"
DEFAULT_DATABASE = "flaskbook"
# Building an index may outlast the deadline of an ordinary operation: this many seconds are allowed instead.
INDEX_BUILD_SECONDS = 60

# https://www.mongodb.com/docs/manual/reference/error-codes/ : the server answered, and its answer is "not
# now" (no primary, shutting down, a shard or majority out of reach) or "not for you" (13, 18: our
# credentials).
_UNAVAILABLE_CODES = frozenset(
    {6, 7, 13, 18, 50, 64, 89, 91, 100, 133, 189, 202, 262, 9001, 10107, 11600, 11602, 13435, 13436}
)


@dataclass(frozen=True)
class Connection:
    """The client of one application."""

    # connects at the first operation; safe for use by many threads
    client: pymongo.MongoClient[dict[str, Any]]
    database: Database[dict[str, Any]]  # where the application's collections live
    _collections: dict[str, Collection[dict[str, Any]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def collection(self, document: type[AppDocument]) -> Collection[dict[str, Any]]:
        """Return the collection of ``document``. Indexes that are missing are created first, once per process.

        Raises PyMongoError: the database is away or refuses; the next use tries again.
        """
        name = document._get_collection_name()
        if (found := self._collections.get(name)) is not None:
            return found
        with self._lock:
            if (found := self._collections.get(name)) is not None:
                return found
            models = []
            for spec in document._meta["index_specs"]:
                options = {key: value for key, value in spec.items() if key not in ("fields", "cls")}
                models.append(pymongo.IndexModel(spec["fields"], **options))
            collection = self.database[name]
            # Asked first, under the ordinary deadline: an absent database is reported at once.
            existing = collection.index_information()
            if any(model.document["name"] not in existing for model in models):
                with pymongo.timeout(INDEX_BUILD_SECONDS):
                    collection.create_indexes(models)
            self._collections[name] = collection
            return collection


class MongoDB:
    """The Flask extension. ``init_app`` may be called for any number of applications."""

    def init_app(self, app: Flask) -> None:
        """Give ``app`` its client, without connecting.

        Options in the URI win over the defaults set here. Raises SettingsError: the URI isn't one. Its text
        is not repeated, as it may hold a password.
        """
        uri: str = app.config["MONGODB_URI"]
        defaults: dict[str, Any] = {
            "appname": "flaskbook",
            # One deadline for the whole operation: finding a server, connecting, waiting, retrying.
            # Manual: PyMongo, Connection options, Limit server execution time (CSOT).
            "timeoutMS": app.config["MONGODB_TIMEOUT_MS"],
            "serverSelectionTimeoutMS": app.config["MONGODB_TIMEOUT_MS"],
            "w": "majority",
        }
        given = uri.partition("?")[2].lower()
        named = {option.partition("=")[0] for option in given.replace(";", "&").split("&")}
        options = {name: value for name, value in defaults.items() if name.lower() not in named}
        try:
            client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
                uri, connect=False, tz_aware=True, **options
            )
            name = app.config["MONGODB_DATABASE"]
            database = client[name] if name else client.get_default_database(DEFAULT_DATABASE)
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise SettingsError(
                f"MONGODB_URI is not a connection string that PyMongo accepts ({type(error).__name__}). "
                "It should look like mongodb://127.0.0.1:27017/flaskbook; in a password, write special characters as %XX."
            ) from None
        app.extensions[EXTENSION] = Connection(client, database)
        # An app that is dropped, and every app at interpreter exit, closes its sockets and monitor threads.
        weakref.finalize(app, client.close)
        app.register_error_handler(PyMongoError, _on_database_error)
        app.register_error_handler(OperationError, _on_database_error)


def connection() -> Connection:
    """Return the connection of the current application."""
    found: Connection = current_app.extensions[EXTENSION]
    return found


def close(app: Flask) -> None:
    """Close the client of ``app``; for tests and scripts that make many applications."""
    found: Connection = app.extensions[EXTENSION]
    found.client.close()


def advice(app: Flask) -> str | None:
    """Say what to type where no database answers ``app``.

    One sentence; None where the database takes writes.
    """
    client: pymongo.MongoClient[Any] = app.extensions[EXTENSION].client
    try:
        client.admin.command("ping")
    except ConnectionFailure:
        servers = client.topology_description.server_descriptions().values()
        where = ", ".join(f"{each.address[0]}:{each.address[1]}" for each in servers)
        if any(each.server_type_name == "RSGhost" for each in servers):
            return (
                f"The mongod at {where} belongs to a replica set that was never initiated, as one that was started by "
                "hand. End it, then have the tool start it: ./invoke start"
            )
        return f"No MongoDB answers at {where}. To start one, type: ./invoke start"
    except PyMongoError:
        return None  # it answers; what it refuses, each page tells
    return None


class AppDocument(Document):  # type: ignore[misc]
    """Base of all documents: lives in the database of the current application."""

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False}

    @classmethod
    def _get_db(cls) -> Database[dict[str, Any]]:
        return connection().database

    @classmethod
    def _get_collection(cls) -> Collection[dict[str, Any]]:
        # Never kept on the class, as mongoengine does: the next request may belong to another application.
        return connection().collection(cls)


def is_unavailable(error: BaseException) -> bool:
    """Say whether ``error`` means that the database is away, rather than that we asked something wrong."""
    if isinstance(error, OperationError):
        wrapped = error.__cause__ or error.__context__
        return wrapped is not None and is_unavailable(wrapped)
    if isinstance(error, ConnectionFailure) or (isinstance(error, PyMongoError) and error.timeout):
        return True
    return isinstance(error, OperationFailure) and error.code in _UNAVAILABLE_CODES


def _on_database_error(error: Exception) -> Any:
    from flaskbook.errors import service_unavailable

    if not is_unavailable(error):
        raise error
    current_app.logger.warning("The database is not available: %s", error)
    return service_unavailable()
