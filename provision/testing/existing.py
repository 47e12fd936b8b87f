"""A server that somebody else runs: ``--mongodb=mongodb://…``. Tests get databases of their own on it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_json
from provision.testing import databases
from provision.testing.request import Request
from provision.testing.run import Run
from provision.testing.servers import Found

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure

_SELECTION_MS = 10_000
_RIGHTS = "Give its user the right to list, write and drop databases."
_AUTHENTICATION_FAILED = 18
_DOING = "using the MongoDB that --mongodb names"


def obtain(request: Request, folder: Path, run: Run) -> Found:
    """Connect, and drop what killed runs of this machine have left there."""
    from pymongo import MongoClient
    from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError

    try:
        client: MongoClient[dict[str, Any]] = MongoClient(
            request.source, serverSelectionTimeoutMS=_SELECTION_MS, appname="pytest"
        )
    except (InvalidURI, ConfigurationError, ValueError) as error:
        # Its text may repeat the connection string, and so a password.
        raise ProvisionError(
            _DOING,
            f"It is not a connection string that PyMongo accepts ({type(error).__name__}).",
            "It looks like mongodb://127.0.0.1:27017; in a password, special characters are written as %XX.",
        ) from None
    with client:
        try:
            client.admin.command("ping")
            write_json(folder / "server.json", {"kind": "uri", "server": _digest(request.source)})
            for left in run.left():
                _drop_left(client, left, request.source)
        except OperationFailure as error:
            raise _refused(error, request.source) from None
        except PyMongoError as error:
            raise ProvisionError(
                _DOING, f"It does not answer: {error}", "Start it, or correct --mongodb."
            ) from None
    return Found(request.source, lambda _: _log(request.source), ours=False)


def _refused(error: OperationFailure, source: str) -> ProvisionError:
    """Why a server refuses: who logs in, or what that user may do."""
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    if error.code == _AUTHENTICATION_FAILED:
        try:
            named = parse_uri(source, validate=False, warn=False)
            user, database = (
                named["username"],
                named["options"].get("authsource") or named["database"] or "admin",
            )
        except PyMongoError:
            user, database = None, "admin"
        return ProvisionError(
            _DOING,
            f"The password was refused: {user or 'the user'} does not log in with it in the database {database}.",
            "Correct user and password in --mongodb; special characters are written as %XX. A user of another database\n"
            "logs in with ?authSource=DATABASE at the end.",
        )
    return ProvisionError(_DOING, f"It refused: {error}", _RIGHTS)


def drop_databases(source: str, run: Run) -> None:
    """Drop what workers that crashed have left of this run's databases, but for those that it keeps.

    Raises PyMongoError: the server does not answer, or refuses.
    """
    from pymongo import MongoClient

    client: MongoClient[dict[str, Any]] = MongoClient(source, serverSelectionTimeoutMS=_SELECTION_MS)
    with client:
        if run.kept:
            databases.drop_all(client, run.id, run.kept)
        else:
            _drop_left(client, run, source)


def _drop_left(client: MongoClient[dict[str, Any]], left: Run, source: str) -> None:
    for record in sorted(left.folder.glob("*/server.json")):
        values = read_json(record) or {}
        if (values.get("kind"), values.get("server")) == ("uri", _digest(source)):
            databases.drop_all(client, left.id)
            record.unlink(missing_ok=True)
    with contextlib.suppress(ProvisionError):  # its containers, where Docker does not answer now
        left.clear()


def _digest(source: str) -> str:
    """Tells a server again by its hosts, without a secret in it."""
    hosts = source.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return hashlib.sha256(",".join(sorted(hosts.lower().split(","))).encode()).hexdigest()


def _log(source: str) -> Mapping[str, list[str]]:
    """The last 1024 lines, where our user has the right.

    https://www.mongodb.com/docs/manual/reference/command/getLog/
    """
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        client: MongoClient[dict[str, Any]] = MongoClient(source, serverSelectionTimeoutMS=2000)
        with client:
            return {"mongodb": list(client.admin.command("getLog", "global")["log"])}
    except PyMongoError as error:
        return {"mongodb": [f"its log could not be read: {error}"]}
