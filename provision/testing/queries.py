"""What this process asks of MongoDB, and the line of code that asked: PyMongo's command monitoring.

It sees each client of this process, the app's as well, and none of another process.
https://pymongo.readthedocs.io/en/stable/api/pymongo/monitoring.html
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import reprlib
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from provision.core.dataclass import dataclass

VERBS = frozenset(
    (
        *("find", "aggregate", "count", "distinct", "getMore", "mapReduce"),
        *("insert", "update", "delete", "findAndModify", "bulkWrite"),
    )
)
"""The commands that count as queries."""
SHOWN = 50
_LONGEST = 160
_MONITORING = "pymongo.monitoring"
_OURS = str(Path(__file__).parent)
_STANDARD = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Query:
    """A command that this process has sent."""

    verb: str
    database: str
    collection: str
    command: Mapping[str, Any]
    file: str  # of the code that sent it
    line: int
    function: str

    @property
    def place(self) -> str:
        """Where it was sent, as pytest writes places."""
        path = Path(self.file)
        with contextlib.suppress(ValueError):
            path = path.relative_to(Path.cwd())
        return f"{path}:{self.line} in {self.function}"


class Recorder:
    """Notes the commands of this process while somebody wants to know."""

    def __init__(self) -> None:
        self._lists: list[list[Query]] = []
        self._lock = threading.Lock()
        self._registered = False

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Query]]:
        """The list that grows as commands are sent."""
        sent: list[Query] = []
        with self._lock:
            self._lists.append(sent)
        try:
            yield sent
        finally:
            with self._lock:
                # By identity: two that are empty are equal.
                self._lists = [each for each in self._lists if each is not sent]

    def started(self, event: Any) -> None:
        """PyMongo sends a command."""
        if (
            not self._lists
            or event.command_name not in VERBS
            or event.database_name in ("admin", "local", "config")
        ):
            return
        file, line, function = _sender(sys._getframe(1))
        first = event.command.get("collection" if event.command_name == "getMore" else event.command_name)
        query = Query(
            event.command_name, event.database_name, str(first), dict(event.command), file, line, function
        )
        with self._lock:
            for sent in self._lists:
                sent.append(query)

    def install(self) -> None:
        """Listen to all clients that will be made. PyMongo is not imported for that, but met when somebody does."""
        if self._registered:
            return
        self._registered = True
        if _MONITORING in sys.modules:
            self._register(sys.modules[_MONITORING])
        else:
            sys.meta_path.insert(0, _AtImport(self))

    def _register(self, monitoring: ModuleType) -> None:
        recorder = self

        class Listener(monitoring.CommandListener):  # type: ignore[name-defined, misc]
            def started(self, event: Any) -> None:
                recorder.started(event)

            def succeeded(self, event: Any) -> None: ...

            def failed(self, event: Any) -> None: ...

        monitoring.register(Listener())


RECORDER = Recorder()
"""There is one: PyMongo keeps a listener until the process ends."""


class _AtImport:
    """Finds one module as others do, and has the recorder registered once it is imported."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if name != _MONITORING:
            return None
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._recorder._register(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def described(verb: str, collection: str, command: Mapping[str, Any]) -> str:
    """A command in a line. Pure."""
    if verb == "insert":
        return f"insert {collection} ({len(command.get('documents', ()))} documents)"
    parts = [verb, collection]
    for name in ("filter", "query", "pipeline", "key", "sort", "update", "updates", "deletes", "limit"):
        value = command.get(name)
        if value:
            parts.append(f"{'' if name in ('filter', 'query', 'pipeline') else name + ' '}{_short(value)}")
    return " ".join(parts)


def too_many(sent: Sequence[Query], most: int) -> str:
    """What a test is told. Pure."""
    lines = [
        f"{len(sent)} {'query was' if len(sent) == 1 else 'queries were'} sent, and at most {most} may be:"
    ]
    for number, query in enumerate(sent[:SHOWN], 1):
        lines.append(f"{number:3}. {described(query.verb, query.collection, query.command)}")
        lines.append(f"     {query.place}")
    if len(sent) > SHOWN:
        lines.append(f"     and {len(sent) - SHOWN} more")
    return "\n".join(lines)


def _short(value: Any) -> str:
    shown = repr(_plain(value))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value[:10]]
    return value if isinstance(value, int | float | None) else _Shown(reprlib.repr(value))


class _Shown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _sender(frame: FrameType | None) -> tuple[str, int, str]:
    """The nearest code that is neither a library's, nor Python's, nor ours."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not (
            file.startswith(("<", _OURS))
            or any(part in file for part in _INSTALLED)
            or file.startswith(_STANDARD)
        ):
            return file, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back
    return "a library's thread", 0, "?"
