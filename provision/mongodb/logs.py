"""MongoDB's structured JSON log for people: one readable line for each entry.

Pure functions over lines, but for `follow`, which reads a growing file.

https://www.mongodb.com/docs/manual/reference/log-messages/
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from provision.core.dataclass import dataclass

TELLING_LINES = 6
"""At most so many lines of a log go into an error message."""

_SERVER_RESTARTED = 20698
_SHUTTING_DOWN = 23138
# "***aborting after fassert() failure": the entry before it says which assertion, and why.
_SAYS_NOTHING = frozenset({23092})

_WORDS = {"F": "fatal", "E": "error", "W": "warning", "I": "info", "D": "debug"}
_SERIOUS = frozenset({"F", "E"})

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_RED, _YELLOW, _GREEN, _CYAN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[36m"
_SEVERITY_STYLE = {"F": _BOLD + _RED, "E": _RED, "W": _YELLOW, "I": _GREEN, "D": _DIM}

# What a reader looks for first, in this order; the rest follows as the server wrote it.
_FIRST = (
    "error",
    "reason",
    "exitCode",
    "signal",
    "message",
    "durationMillis",
    "ns",
    "command",
    "planSummary",
    "remote",
)
_ROOM_FOR_FIRST = 400
_ROOM_FOR_OTHERS = 60
_ROOM_FOR_LINE = 700
_ELLIPSIS = "…"
_NEED_QUOTES = frozenset(' "{}[],=')
# Extended JSON's envelopes around one value: a reader wants the value.
_WRAPPERS = frozenset(
    {"$date", "$oid", "$numberLong", "$numberInt", "$numberDouble", "$numberDecimal", "$uuid"}
)


@dataclass(frozen=True)
class Entry:
    """One entry of the log."""

    time: datetime  # when, with time zone, to the millisecond
    severity: str  # ``F``, ``E``, ``W``, ``I``, or ``D1`` to ``D5``
    component: str  # what it is about: ``"REPL"``; ``"-"``: nothing in particular
    context: str  # the thread that wrote it: ``"conn12"``
    id: int  # identifies the statement in the server's source
    message: str  # what happened
    attributes: Mapping[str, Any]  # the particulars, as MongoDB's relaxed Extended JSON
    tags: tuple[str, ...] = ()  # ``"startupWarnings"`` and the like

    @property
    def severity_word(self) -> str:
        """``"fatal"``, ``"error"``, ``"warning"``, ``"info"``, ``"debug"`` or ``"debug2"``."""
        return _WORDS[self.severity[0]] + self.severity[1:]


def parse(line: str) -> Entry | None:
    """Read one line of a log.

    `line`: the line, with or without its newline; times may be ``iso8601-utc`` or ``iso8601-local``.

    Returns: The entry; None if the line is none: text from elsewhere, or a line cut off in the middle.
    """
    if not line.lstrip().startswith("{"):
        return None
    try:
        values = json.loads(line)
        stamp = datetime.fromisoformat(values["t"]["$date"])
        severity = str(values["s"])
        attributes, tags = values.get("attr", {}), values.get("tags", [])
        entry = Entry(
            time=stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC),
            severity=severity,
            component=str(values.get("c", "-")),
            context=str(values.get("ctx", "-")),
            id=int(values.get("id", 0)),
            message=str(values["msg"]),
            attributes=attributes if isinstance(attributes, dict) else {"attr": attributes},
            tags=tuple(str(tag) for tag in tags),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if severity[:1] in _WORDS else None


def readable(entry: Entry, width: int | None = None) -> str:
    """An entry as one line of text, without colour.

    Local time, severity, component, message, then the attributes as ``key=value``: those that tell most
    first, nested documents abbreviated. Never more than about 700 characters, whatever the entry holds.

    `width`: cut the line to so many characters; None: as long as it must be.
    """
    return "".join(_cut(_parts(entry), width or _ROOM_FOR_LINE))


def paint(entry: Entry, width: int | None = None) -> str:
    """The same line as `readable`, coloured by severity with ANSI escape sequences.

    `width`: as for `readable`; the escape sequences don't count.
    """
    when, severity, component, message, attributes = _cut(_parts(entry), width or _ROOM_FOR_LINE)
    style = _SEVERITY_STYLE[entry.severity[0]]
    grave = style if entry.severity[0] in (*_SERIOUS, "W") else ""
    return "".join(
        f"{colour}{text}{_RESET}" if colour and text else text
        for colour, text in (
            (_DIM, when),
            (style, severity),
            (_CYAN, component),
            (grave, message),
            (_DIM if not grave else "", attributes),
        )
    )


def wants_colour(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether to colour what goes to a stream: a terminal that can, and no ``NO_COLOR`` (https://no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def render(lines: Iterable[str], colour: bool = False, width: int | None = None) -> Iterator[str]:
    """Turn a log's lines into readable ones, each as it comes: one in, one out.

    Args:
        lines: a log's lines; a line that is not a log entry stays as it is, but for control characters.
        width: cut the lines to so many characters.
    """
    show = paint if colour else readable
    for line in lines:
        entry = parse(line)
        yield _harmless(line.rstrip("\r\n")) if entry is None else show(entry, width)


def merge(streams: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, Entry | str]]:
    """The logs of several nodes as one, by time.

    `streams`: node name → its log's lines, oldest first.

    Returns:
        Pairs of node name and entry. A line that is not an entry is given as text, after the entry it followed.
    """

    def named(
        position: int, node: str, lines: Iterable[str]
    ) -> Iterator[tuple[datetime, int, str, Entry | str]]:
        for when, line, entry in _timed(lines):
            yield when, position, node, line.rstrip("\r\n") if entry is None else entry

    ordered = heapq.merge(
        *(named(position, node, lines) for position, (node, lines) in enumerate(streams.items())),
        key=lambda item: item[:2],
    )
    return ((node, what) for _, _, node, what in ordered)


def with_printed(logged: Iterable[str], printed: Iterable[str]) -> list[str]:
    """A log's lines, and what its node printed besides, in the order in which they were written.

    Args:
        logged: the log's lines, oldest first.
        printed: what the node wrote to standard output and standard error at its last start. Entries go where their
            times belong, such as those of the moments before the log is opened; any other line comes last.

    Returns: The lines as they are.
    """
    entries: list[str] = []
    words: list[str] = []
    for line in printed:
        (words if parse(line) is None else entries).append(line)
    if not entries:
        return [*logged, *words]
    merged = heapq.merge(_timed(logged), _timed(entries), key=lambda item: item[0])
    return [*(line for _, line, _ in merged), *words]


def _timed(lines: Iterable[str]) -> Iterator[tuple[datetime, str, Entry | None]]:
    """Each line with its entry, if it is one, and a time that never goes back, for a merger."""
    latest = datetime.min.replace(tzinfo=UTC)
    for line in lines:
        entry = parse(line)
        if entry is not None:
            # A thread may write its entry a moment late.
            latest = max(latest, entry.time)
        yield latest, line, entry


def between(lines: Iterable[str], start: datetime, end: datetime) -> Iterator[str]:
    """Those lines of a log that were written in a span of time, both ends included.

    Args:
        lines: a log's lines, oldest first.
        start: the first moment; one without time zone is local time.

    Returns: The lines as they are. A line that is not an entry belongs to the entry before it.
    """
    # The log counts whole milliseconds, so what happens right after `start` may carry an earlier stamp.
    first = start.astimezone(UTC)
    first = first.replace(microsecond=first.microsecond // 1000 * 1000)
    inside = False
    for line in lines:
        entry = parse(line)
        if entry is not None:
            inside = first <= entry.time <= end.astimezone(UTC)
        if inside:
            yield line


def why_it_died(lines: Sequence[str]) -> list[str]:
    """The lines that tell why a mongod ended, readable, for an error message.

    `lines`: its log's last lines, or what it printed; of a log with several runs the last run counts.

    Returns:
        At most `TELLING_LINES`: its fatal and other errors (each once) and a shutdown with an exit code, or
        what was printed besides the log, or else simply the last lines. Empty if there are no lines.
    """
    run = last_run([line for line in lines if line.strip()])
    entries = [(line, parse(line)) for line in run]
    telling: dict[tuple[int, str], str] = {}
    for _, entry in entries:
        if entry is None or not _is_telling(entry):
            continue
        _, _, _, message, attributes = _parts(entry)
        # Keyed by content: WiredTiger says the same three times.
        telling.setdefault((entry.id, message + attributes), readable(entry))
    if any(entry is not None and entry.severity in _SERIOUS for _, entry in entries):
        return list(telling.values())[-TELLING_LINES:]
    printed = [line for line, entry in entries if entry is None and not line.lstrip().startswith("{")]
    return list(render(printed or run))[-TELLING_LINES:]


def follow(path: Path, stop: Callable[[], bool], poll: float = 0.1, last: int = 10) -> Iterator[str]:
    """A log's last lines, then each new one as soon as it is complete.

    The file may not exist yet, may be rotated (a new file takes its place: the old one is read to its end
    first) or truncated (it is read again from its start).

    Args:
        stop: asked before each look; once it says True, what is complete by then is given, and that is the end.
        poll: seconds between looks.
        last: how many lines to begin with, if the file is there already.

    Returns: The lines, without their newlines.
    Raises OSError: the file is there but cannot be read.
    """
    file: BinaryIO | None = None
    begin_at_tail = path.exists()
    rest = b""
    try:
        while True:
            # Asked before reading, so that what was written before the end is read in this last round.
            ending = stop()
            if file is None:
                file = _open_if_there(path)
                if file is not None and begin_at_tail:
                    _seek_to_last_lines(file, last)
                begin_at_tail = False
            if file is not None:
                # Looked at before reading: what comes into the old file before it is replaced is read below.
                replaced = _is_replaced(file, path)
                if os.fstat(file.fileno()).st_size < file.tell():
                    file.seek(0)
                    rest = b""
                while block := file.read(1 << 16):
                    *complete, rest = (rest + block).split(b"\n")
                    for line in complete:
                        yield line.decode(errors="replace").rstrip("\r")
                if replaced:
                    file.close()
                    file, rest = None, b""
                    continue
            if ending:
                return
            time.sleep(poll)
    finally:
        if file is not None:
            file.close()


def _open_if_there(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False  # renamed, and its successor not there yet: the writer may still write to this one
    mine = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)


def _seek_to_last_lines(file: BinaryIO, count: int) -> None:
    """Position a file so that its last ``count`` complete lines, and what follows them, remain to be read."""
    position = file.seek(0, os.SEEK_END)
    newlines = 0
    while position > 0:
        size = min(1 << 16, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            newlines += 1
            if newlines > count:
                file.seek(position + at + 1)
                return
    file.seek(0)


def last_run(lines: Sequence[str]) -> Sequence[str]:
    for index in range(len(lines) - 1, -1, -1):
        # Looking for the number first spares parsing every line.
        if str(_SERVER_RESTARTED) in lines[index]:
            entry = parse(lines[index])
            if entry is not None and entry.id == _SERVER_RESTARTED:
                return lines[index + 1 :]
    return lines


def _is_telling(entry: Entry) -> bool:
    if entry.id == _SHUTTING_DOWN:
        return bool(entry.attributes.get("exitCode"))
    return entry.severity in _SERIOUS and entry.id not in _SAYS_NOTHING


def _parts(entry: Entry) -> tuple[str, str, str, str, str]:
    """Time, severity, component, message, attributes; each but the last with the space that follows it."""
    local = entry.time.astimezone()
    when = local.strftime("%Y-%m-%d %H:%M:%S.") + f"{local.microsecond // 1000:03d} "
    attributes = " ".join(_attributes(entry.attributes))
    message = _harmless(" ".join(entry.message.split()))
    return (
        when,
        f"{entry.severity_word:<7} ",
        f"{_harmless(entry.component):<8} ",
        message + ("  " if attributes else ""),
        attributes,
    )


def _attributes(attributes: Mapping[str, Any]) -> Iterator[str]:
    first = [key for key in _FIRST if key in attributes]
    for key in (*first, *(key for key in attributes if key not in _FIRST)):
        value = attributes[key]
        if key in ("error", "message", "reason"):
            value = _essence(value)
        room = _ROOM_FOR_FIRST if key in _FIRST and not isinstance(value, dict | list) else _ROOM_FOR_OTHERS
        yield f"{_harmless(key)}={_shorten(_compact(value, room), room)}"


def _essence(value: Any) -> Any:
    """The words of an error document, in place of the document: the server's own or WiredTiger's."""
    if isinstance(value, dict):
        text = value.get("errmsg") or value.get("reason") or value.get("msg")
        if isinstance(text, str):
            name = value.get("codeName")
            return f"{name}: {text}" if name else text
    return value


def _compact(value: Any, room: int) -> str:
    """A value of Extended JSON in few characters; nested documents stop at about ``room`` of them."""
    if isinstance(value, str):
        text = _harmless(value)
        plain = text and text == value and not set(text) & _NEED_QUOTES
        return text if plain else json.dumps(text, ensure_ascii=False)
    if isinstance(value, dict):
        if len(value) == 1:
            (key, inner), *_ = value.items()
            if key in _WRAPPERS:
                return _compact(inner, room)
            if key == "$timestamp" and isinstance(inner, dict):
                return f"{inner.get('t')}:{inner.get('i')}"
            if key == "$binary":
                return "<binary>"
        pairs = [f"{_harmless(key)}: {_compact(each, room // 2)}" for key, each in value.items()]
        return "{" + _listed(pairs, room) + "}"
    if isinstance(value, list):
        return "[" + _listed([_compact(each, room // 2) for each in value], room) + "]"
    return json.dumps(value)


def _listed(texts: Sequence[str], room: int) -> str:
    shown: list[str] = []
    for text in texts:
        if sum(map(len, shown)) + 2 * len(shown) + len(text) > room:
            shown.append(_ELLIPSIS)
            break
        shown.append(text)
    return ", ".join(shown)


def _shorten(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + _ELLIPSIS


def _cut(parts: tuple[str, str, str, str, str], width: int) -> tuple[str, ...]:
    """The parts, together no longer than ``width`` characters, the last of which says if something is missing."""
    if sum(map(len, parts)) <= width:
        return parts
    kept, room = [], width
    for part in parts:
        piece = part[:room]
        room -= len(piece)
        kept.append(piece[:-1] + _ELLIPSIS if piece and room == 0 else piece)
    return tuple(kept)


def _harmless(text: str) -> str:
    """Text without control characters: what clients send gets into logs, and must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode()
        for each in text
    )
