"""A prompt on a deployment: mongosh where it is installed, else Python with ``db`` and ``client`` bound.

https://www.mongodb.com/docs/mongodb-shell/
https://pymongo.readthedocs.io/
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.errors import USER_ERROR, ProvisionError
from provision.data.mongosh import GET_MONGOSH, connect_script

if TYPE_CHECKING:
    from pymongo import MongoClient

_HISTORY_LINES = 1000
_SHOWN_OF_CURSOR = 20
_SERVER_SELECTION_MS = 10_000
_POLL_SECONDS = 0.02
# The server's replies as they came, which say again what the other properties say.
_RAW_RESULTS = frozenset({"raw_result", "bulk_api_result"})
_EXPRESSION = "<expression>"
_PIPED = "<stdin>"
# https://www.mongodb.com/docs/manual/reference/error-codes/: TransactionTooLargeForCache
_TOO_LARGE_FOR_CACHE = 388


def open_shell(uri: str, database: str, history: Path, python: bool = False) -> int:
    """Open a prompt on a database, or run the script that is piped in.

    On a terminal this is mongosh, or else a Python prompt with history and tab completion. Otherwise standard
    input is run as a script of that shell's language: what it prints is shown, and its first error ends it.

    Args:
        uri: connection string of the deployment; it may hold a password.
        database: the database that ``db`` stands for.
        history: file for the Python prompt's history; mongosh keeps its own.
        python: use Python even where mongosh is installed.

    Returns: The exit status: 0, or 1 if the script failed.
    Raises ProvisionError: the Python prompt could not reach the deployment.
    """
    mongosh = None if python else shutil.which("mongosh")
    if mongosh is None:
        with _connected(uri) as client:
            if sys.stdin.isatty():
                return _python_prompt(client, database, history)
            return _run_here(_piped(), _PIPED, namespace(client, database), show=_displayhook)
    if sys.stdin.isatty():
        return _mongosh(mongosh, uri, database, lambda connect, _: ["--shell", "--file", str(connect)])
    script = _piped()

    def arguments(connect: Path, folder: Path) -> list[str]:
        piped = folder / "stdin.js"
        piped.write_text(script, encoding="utf-8")
        return ["--quiet", "--file", str(connect), "--file", str(piped)]

    return _mongosh(mongosh, uri, database, arguments)


def _piped() -> str:
    """The script on standard input: UTF-8, as both languages are, whatever the locale says of terminals."""
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def evaluate(uri: str, database: str, expression: str, python: bool = False) -> int:
    """Evaluate one expression and print its value.

    mongosh takes JavaScript and prints as its prompt does. Python takes Python and prints Extended JSON, a
    cursor as the list of its documents. Several statements are run in order, and the last one's value is printed.

    Args:
        uri: connection string of the deployment; it may hold a password.
        database: the database that ``db`` stands for.
        python: use Python even where mongosh is installed.

    Returns: The exit status: 0, or 1 if the expression failed; the error is on standard error.
    Raises ProvisionError: Python could not reach the deployment.
    """
    mongosh = None if python else shutil.which("mongosh")
    if mongosh is None:
        with _connected(uri) as client:
            return _run_here(expression, _EXPRESSION, namespace(client, database), show=_print_json)
    return _mongosh(
        mongosh,
        uri,
        database,
        lambda connect, _: ["--quiet", "--eval", f"load({json.dumps(str(connect))})", "--eval", expression],
    )


def namespace(client: MongoClient[Any], database: str) -> dict[str, Any]:
    """The names that are bound at the Python prompt.

    `database`: the database that ``db`` stands for.
    """
    import datetime

    import bson
    import pymongo

    return {
        "__name__": "__console__",
        "client": client,
        "db": client[database],
        "pymongo": pymongo,
        "ObjectId": bson.ObjectId,
        "datetime": datetime,
    }


def run_python(source: str, filename: str, names: dict[str, Any]) -> Any:
    """Run Python source; the value of its last statement is the result, as in a notebook.

    Args:
        source: one or more statements.
        filename: stands for the source in tracebacks.
        names: the names it sees, and adds to.

    Returns: The last statement's value if that is an expression, else None.
    Raises Exception: whatever the source raises; SyntaxError if it is not Python.
    """
    tree = ast.parse(source, filename)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    # The user's own code, as at any prompt. It must not inherit this module's __future__ imports.
    exec(compile(tree, filename, "exec", dont_inherit=True), names)  # noqa: S102
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), names)  # noqa: S307


def plain(value: Any) -> Any:
    """What PyMongo gives, as data: a cursor as its documents, the result of a write as a mapping; else the value itself."""
    from pymongo import results
    from pymongo.command_cursor import CommandCursor
    from pymongo.cursor import Cursor

    if isinstance(value, Cursor | CommandCursor):
        return list(value)
    if type(value).__module__ == results.__name__:
        if not value.acknowledged:
            return {"acknowledged": False}
        names = [name for name in dir(type(value)) if isinstance(getattr(type(value), name), property)]
        return {name: getattr(value, name) for name in names if name not in _RAW_RESULTS}
    return value


def as_extended_json(value: Any, indent: int | None = None) -> str:
    """A value of BSON's types, or one for `plain`, as relaxed Extended JSON; what has no such form as its ``repr``.

    https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/

    `indent`: spaces of each level; None: all on one line.
    """
    from bson import json_util

    options = json_util.RELAXED_JSON_OPTIONS
    return json_util.dumps(
        plain(value), json_options=options, indent=indent, ensure_ascii=False, default=repr
    )


@contextlib.contextmanager
def _connected(uri: str) -> Iterator[MongoClient[Any]]:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    doing = f"opening a shell on {_hosts(uri)}"
    try:
        client: MongoClient[Any] = MongoClient(
            uri, appname="invoke shell", tz_aware=True, serverSelectionTimeoutMS=_SERVER_SELECTION_MS
        )
    except (PyMongoError, ValueError) as error:
        raise ProvisionError(doing, _first_sentence(error), "Look at the address with: invoke uri") from None
    with client:
        try:
            _wait_until_answered(client)
            client.admin.command("ping")
        except PyMongoError as error:
            raise ProvisionError(
                doing, _first_sentence(error), "Look at it with: invoke status\nStart it with:   invoke start"
            ) from None
        yield client


def _wait_until_answered(client: MongoClient[Any]) -> None:
    """Wait until some node answered. If all have refused, that is said at once; the driver itself would retry."""
    from pymongo.errors import ConnectionFailure

    deadline = time.monotonic() + _SERVER_SELECTION_MS / 1000
    while True:
        nodes = client.topology_description.server_descriptions().values()
        if any(node.is_server_type_known for node in nodes):
            return
        errors = [str(node.error) for node in nodes if node.error]
        if 0 < len(nodes) == len(errors) or time.monotonic() > deadline:
            raise ConnectionFailure("; ".join(errors) or "no node answered in time")
        time.sleep(_POLL_SECONDS)


def _hosts(uri: str) -> str:
    """The hosts of a connection string, and nothing that could be a secret."""
    # First the credentials go: in a malformed connection string even they may hold a slash.
    return uri.rpartition("://")[2].rpartition("@")[2].partition("/")[0].partition("?")[0] or "MongoDB"


def _first_sentence(error: Exception) -> str:
    """The reason, without what PyMongo adds: its time limits, its view of the deployment, the reply once more."""
    return re.sub(
        r" \(configured timeouts: [^)]*\)|, (Timeout|full error): .*", "", str(error), flags=re.DOTALL
    )


def _run_here(source: str, filename: str, names: dict[str, Any], show: Callable[[Any], None]) -> int:
    try:
        show(run_python(source, filename, names))
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)  # noqa: T201
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:  # noqa: BLE001 — it is the user's code
        _print_their_error(error, filename)
        return USER_ERROR
    return 0


def _print_their_error(error: Exception, filename: str) -> None:
    """Show an error of the user's code: where it is in that code, without our frames and the driver's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    lines = [f'  File "{filename}", line {frame.lineno}, in {frame.name}\n' for frame in frames]
    if filename == _EXPRESSION:
        lines = []
    print("".join([*lines, *traceback.format_exception_only(error)]), end="", file=sys.stderr)  # noqa: T201
    hint = _hint(error)
    if hint:
        print(hint, file=sys.stderr)  # noqa: T201


def _hint(error: Exception) -> str | None:
    # db.user.insertOne is a collection named "user.insertOne", and cannot be called.
    if isinstance(error, TypeError) and "object is not callable" in str(error) and "Collection" in str(error):
        return f"This shell speaks Python: insert_one, find_one, ... For mongosh's insertOne: {GET_MONGOSH}"
    if isinstance(error, SyntaxError):
        return f"This shell speaks Python. For mongosh's JavaScript: {GET_MONGOSH}"
    # Where the cache is full before the transaction has begun to write, it is an ordinary conflict that says so.
    if getattr(error, "code", None) == _TOO_LARGE_FOR_CACHE or "Cache full" in str(error):
        return (
            "The changes of a transaction have to fit in the node's cache: 0.25 GB take some 16 MB. Set a larger "
            "cache_size_gb for the deployment in invoke.yaml (1 takes 48 MB), then type: invoke restart"
        )
    return None


def _print_json(value: Any) -> None:
    shown = as_extended_json(value, indent=2)
    try:
        shown.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # JSON has a way to write every character in ASCII
        shown = json.dumps(json.loads(shown), indent=2)
    print(shown)  # noqa: T201


def _displayhook(value: Any) -> None:
    """Show a value at the prompt: of a cursor its first documents, as mongosh does."""
    import builtins
    import itertools
    import pprint

    from pymongo.command_cursor import CommandCursor
    from pymongo.cursor import Cursor

    if value is None:
        return
    builtins._ = value  # type: ignore[attr-defined]
    if isinstance(value, Cursor | CommandCursor):
        for document in itertools.islice(value, _SHOWN_OF_CURSOR):
            pprint.pp(document)
        if value.alive:
            print(f"Those were the first {_SHOWN_OF_CURSOR}. The next: _    All: list(...)")  # noqa: T201
        return
    pprint.pp(value)


def _python_prompt(client: MongoClient[Any], database: str, history: Path) -> int:
    import code
    import platform

    names = namespace(client, database)
    hosts = ",".join(f"{host}:{port}" for host, port in sorted(client.nodes))
    banner = "\n".join(
        (
            f"Python {platform.python_version()} on MongoDB {client.server_info()['version']} at {hosts}, "
            f"database {database}.",
            "Bound: db, client, pymongo, ObjectId, datetime.    Tab completes, Ctrl-D leaves.",
            '  db.user.insert_one({"name": {"first_name": "Ada", "last_name": "Lovelace"}})',
            '  db.user.find({"name.last_name": "Lovelace"})',
            f"mongosh, MongoDB's own shell, would open here if it were on the PATH: {GET_MONGOSH}",
        )
    )
    hooks = sys.displayhook, sys.excepthook
    # The prompt shows an error with the hook in force, and ours ends the process.
    sys.displayhook, sys.excepthook = _displayhook, sys.__excepthook__
    try:
        with _line_editing(names, history):
            code.InteractiveConsole(names).interact(banner, exitmsg="")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    finally:
        sys.displayhook, sys.excepthook = hooks
    return 0


@contextlib.contextmanager
def _line_editing(names: dict[str, Any], history: Path) -> Iterator[None]:
    """History and tab completion; a Python built without readline does without."""
    try:
        import readline
    except ImportError:
        yield
        return
    import rlcompleter

    completer = readline.get_completer()
    readline.set_completer(rlcompleter.Completer(names).complete)
    # macOS's Python comes with libedit, which has another syntax for the same.
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    with contextlib.suppress(OSError):  # none yet, or not readable: the prompt matters more
        readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        readline.set_completer(completer)
        # What is typed may hold passwords: the file is its user's alone from its first moment.
        mask = os.umask(0o077)
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
        except OSError as error:
            print(f"The history could not be kept: {error}", file=sys.stderr)  # noqa: T201
        finally:
            os.umask(mask)


def _mongosh(executable: str, uri: str, database: str, arguments: Callable[[Path, Path], list[str]]) -> int:
    """Run mongosh on a database.

    The connection string goes into a script that mongosh loads, not into argv, where everyone on the machine
    could read its password. The script is its user's alone, and deletes itself as soon as it is loaded.
    """
    with tempfile.TemporaryDirectory(prefix="invoke-shell-") as folder:  # made with mode 0700
        connect = Path(folder) / "connect.js"
        descriptor = os.open(connect, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(connect_script(uri, database))
        command = [executable, "--nodb", *arguments(connect, Path(folder))]
        with _ctrl_c_is_the_childs():
            return _exit_status(subprocess.run(command, check=False).returncode)


@contextlib.contextmanager
def _ctrl_c_is_the_childs() -> Iterator[None]:
    """Ctrl-C interrupts what runs in mongosh, not us. Unlike SIG_IGN, a handler is not inherited by the child."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _exit_status(returned: int) -> int:
    # A child ended by a signal counts as shells count it.
    return returned if returned >= 0 else 128 - returned
