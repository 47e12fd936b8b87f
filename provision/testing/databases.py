"""A test's own database: made by its first write, dropped when the test is over."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

_PREFIX = "test_"
DATABASE = re.compile(rf"\b{_PREFIX}[0-9a-f]{{12}}_[0-9a-f]{{8}}\b")
"""The name of any test's database, of any run."""
_DROP_SECONDS = 30
_ABANDON_SECONDS = 5


def new_name(run: str) -> str:
    """A name that no other test has: the run is part of it."""
    return f"{_PREFIX}{run}_{secrets.token_hex(4)}"


def of_run(run: str, names: list[str]) -> list[str]:
    """Those of the databases that were made for a run. Pure."""
    return [name for name in names if re.fullmatch(rf"{_PREFIX}{re.escape(run)}_[0-9a-f]{{8}}", name)]


def drop(database: Database[dict[str, Any]], sharded: bool, abandon: bool) -> None:
    """Drop a test's database, if the test has made it.

    A database is gone with its last collection. Dropping the collections takes 3 ms on a replica set; the command
    `dropDatabase` waits for the next commit of the journal between its two phases, 100 ms. A sharded cluster keeps
    records of databases, so there it is that command.
    https://www.mongodb.com/docs/manual/reference/command/dropDatabase/

    With `abandon` the server ends with this run: if it does not answer any more, nothing is left to be
    dropped.
    """
    import pymongo
    from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

    try:
        with pymongo.timeout(_ABANDON_SECONDS if abandon else _DROP_SECONDS):
            if sharded:
                database.client.drop_database(database.name)
                return
            try:
                _drop_collections(database)
            except OperationFailure:
                # What can't be dropped by itself goes with the whole.
                database.client.drop_database(database.name)
    except PyMongoError as error:
        if not (abandon and (isinstance(error, ConnectionFailure) or error.timeout)):
            raise


def _drop_collections(database: Database[dict[str, Any]]) -> None:
    from pymongo.write_concern import WriteConcern

    own = database.client.get_database(database.name, write_concern=WriteConcern(w=1))
    found = {each["name"]: each["type"] for each in own.list_collections()}
    # A view or time series takes what it is made of with it, and is listed beside it.
    for name in sorted(found, key=lambda each: found[each] == "collection"):
        if not name.startswith("system."):
            own.drop_collection(name)
    for name in own.list_collection_names():
        own.drop_collection(name)


def drop_all(client: MongoClient[dict[str, Any]], run: str, kept: Container[str] = frozenset()) -> list[str]:
    """Drop every database of a run but those that are kept.

    Returns: Their names.
    Raises PyMongoError: the server does not answer, or refuses.
    """
    names = [name for name in of_run(run, client.list_database_names()) if name not in kept]
    for name in names:
        client.drop_database(name)
    return names


def without_password(uri: str) -> str:
    """A connection string with its user, and without the password. Pure."""
    scheme, _, rest = uri.partition("://")
    address, separator, options = rest.partition("?")
    user, at, hosts = address.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{hosts}{separator}{options}"


def uri_with(uri: str, database: str) -> str:
    """A connection string with another default database. Pure.

    The default database is where a user is looked up unless `authSource` says otherwise, so that is said.
    https://www.mongodb.com/docs/manual/reference/connection-string/
    """
    scheme, _, rest = uri.partition("://")
    address, _, options = rest.partition("?")
    # A password may hold any character but these, which are written as %XX.
    hosts, _, default = address.partition("/")
    given = [option for option in options.split("&") if option]
    named = {option.partition("=")[0].lower() for option in given}
    if "@" in hosts and not named & {"authsource", "authmechanism"}:
        given.append(f"authSource={default or 'admin'}")
    return f"{scheme}://{hosts}/{database}{'?' + '&'.join(given) if given else ''}"
