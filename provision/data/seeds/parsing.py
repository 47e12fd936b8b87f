"""Files of data → documents as BSON, each with the line it stands in. Knows no server.

Extended JSON: https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
The types in a header of CSV are those of mongoimport with --columnsHaveTypes:
https://www.mongodb.com/docs/database-tools/mongoimport/#std-option-mongoimport.--columnsHaveTypes
"""

from __future__ import annotations

import base64
import csv
import functools
import gzip
import hashlib
import json
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from provision.core.dataclass import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import bson
from bson import json_util
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from provision.core.errors import ProvisionError
from provision.data.dumps import folder, framing
from provision.data.seeds.files import Kind, Seed, unreadable

MOST_BYTES = 16 * 1024 * 1024
# What a file that is larger repeats is left to the server: the _ids take some 150 bytes each.
_REMEMBERED_IDS = 1_000_000
_EXTENDED = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=False)


@dataclass(frozen=True)
class Parsed:
    """One document."""

    line: int  # the line that it begins in, from 1 on; in a file of BSON its number
    raw: bytes  # BSON, with an `_id`
    made: bool  # the file has no `_id` for it, and it has one that is made of its place


class Wrong(Exception):
    """What is wrong with a line, as a sentence."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line = line
        self.what = what


def documents(seed: Seed) -> Iterator[Parsed]:
    """The documents of a file, one after another. A document without an `_id` gets one: see `made_id`.

    Raises ProvisionError: naming the file and line that is wrong. What comes before that line has been given out.
    """
    ids: dict[Any, int] = {}
    made = 0
    try:
        for line, document in _READERS[seed.kind](seed.path):
            parsed = _complete(seed, line, document, made)
            made += parsed.made
            if not parsed.made and len(ids) < _REMEMBERED_IDS:
                key = _id_of(document)
                if (first := ids.setdefault(key, line)) != line:
                    raise Wrong(line, f"The document in {_place(seed)} {first} has the same _id.")
            yield parsed
    except Wrong as wrong:
        raise error_at(seed, wrong.line, wrong.what) from None
    except OSError as error:
        raise unreadable(seed.name, error) from None


def error_at(seed: Seed, line: int, what: str) -> ProvisionError:
    """The error over a line of a seed."""
    if seed.kind is Kind.BSON:
        return ProvisionError(
            f"reading {seed.name}",
            f"{seed.name}, document {line}: {what}",
            "Write the file again with mongodump. Then type the same again.",
        )
    return ProvisionError(
        f"reading {seed.name}",
        f"{seed.name}:{line}: {what}",
        "Correct this line, then type the same again.",
    )


def _place(seed: Seed) -> str:
    return "place" if seed.kind is Kind.BSON else "line"


def made_id(seed: Seed, number: int) -> bson.ObjectId:
    """The `_id` of the document of a file that is its `number`th without one, from 0 on.

    It is the same each time that the file is applied, so that a file is never applied twice side by side. Sorted by
    it, documents have the order of the file, and come before all that an app inserts: its time is at the beginning
    of 1970.
    """
    if number >= 1 << 24:
        raise ProvisionError(
            f"reading {seed.name}",
            f"More than {1 << 24:,} of its documents have no _id.",
            "Give them an _id, or split the file.",
        )
    digest = hashlib.sha256(f"{seed.key}\0{seed.collection}".encode()).digest()[:5]
    return bson.ObjectId(b"\0\0\0\0" + digest + number.to_bytes(3, "big"))


def _complete(seed: Seed, line: int, document: Any, made: int) -> Parsed:
    """A document as BSON, with an `_id`."""
    if isinstance(document, RawBSONDocument):
        if "_id" in document:
            return Parsed(line, bytes(document.raw), False)
        head = bson.encode({"_id": made_id(seed, made)})[4:-1]
        length = struct.pack("<i", len(document.raw) + len(head))
        return Parsed(line, length + head + bytes(document.raw)[4:], True)
    if not isinstance(document, dict):
        raise Wrong(line, f"Here is {_kind_of(document)}, where a document is expected: {{…}}.")
    without = "_id" not in document
    if without:
        document = {"_id": made_id(seed, made), **document}
    try:
        raw = bson.encode(document)
    except (BSONError, OverflowError, ValueError, TypeError, RecursionError) as error:
        raise Wrong(line, f"{str(error).removesuffix('.') or type(error).__name__}.") from None
    if len(raw) > MOST_BYTES:
        raise Wrong(line, f"This document has {len(raw):,} bytes, and MongoDB takes {MOST_BYTES:,} at most.")
    return Parsed(line, raw, without)


def _kind_of(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "a value")


def _id_of(document: Any) -> Any:
    value = document["_id"]
    # To MongoDB 1 and 1.0 are one _id, and to Python, too; but true is not 1.
    hashable = isinstance(value, str | int | float | bson.ObjectId) and not isinstance(value, bool)
    return value if hashable else bson.encode({"_id": value})


# Extended JSON


def _extended(found: dict[str, Any]) -> Any:
    """What an object of Extended JSON stands for. Only one with a key that begins with a dollar is looked at closely."""
    for key in found:
        if key[:1] == "$":
            return json_util.object_hook(found, _EXTENDED)
    return found


_DECODER = json.JSONDecoder(object_hook=_extended)
_BLANK = re.compile(r"\s*")
# What json_util raises where {"$oid": …} and the like have a wrong value.
_WRONG_VALUE = (BSONError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _text(line, number)
            if text.strip():
                yield number, _decoded(text, number)


def _decoded(text: str, line: int) -> Any:
    try:
        value, end = _DECODER.raw_decode(text, _skip(text, 0))
    except json.JSONDecodeError as error:
        raise Wrong(line, _of_json(error)) from None
    except _WRONG_VALUE as error:
        raise Wrong(line, _of_value(error)) from None
    if _skip(text, end) < len(text):
        raise Wrong(line, f"Something follows the document, at column {_skip(text, end) + 1}.")
    return value


def _whole(path: Path) -> Iterator[tuple[int, Any]]:
    """An array of documents, or one document. It is read as a whole."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Wrong(content.count(b"\n", 0, error.start) + 1, _of_encoding(error)) from None
    lines = _Lines(text)
    at = _skip(text, 0)
    if not text[at : at + 1]:
        return
    if text[at] != "[":
        value, end = lines.decode(at)
        yield lines.of(at), value
        _nothing_after(text, end, lines)
        return
    at = _skip(text, at + 1)
    if text[at : at + 1] != "]":
        while True:
            value, end = lines.decode(at)
            yield lines.of(at), value
            at = _skip(text, end)
            if text[at : at + 1] == "]":
                break
            if text[at : at + 1] != ",":
                raise Wrong(lines.of(min(at, len(text))), "Expected a comma, or ] at the end of the array.")
            at = _skip(text, at + 1)
    _nothing_after(text, at + 1, lines)


class _Lines:
    """A text, its documents, and the lines they stand in; positions are asked for in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at, self._line = 0, 1

    def of(self, position: int) -> int:
        """The line of a position, from 1 on."""
        if position < self._at:
            return self._text.count("\n", 0, position) + 1
        self._line += self._text.count("\n", self._at, position)
        self._at = position
        return self._line

    def decode(self, position: int) -> tuple[Any, int]:
        """The value at a position, and where it ends."""
        try:
            return _DECODER.raw_decode(self._text, position)
        except json.JSONDecodeError as error:
            raise Wrong(error.lineno, _of_json(error)) from None
        except _WRONG_VALUE as error:
            raise Wrong(self.of(position), f"In the document that begins here: {_of_value(error)}") from None


def _nothing_after(text: str, end: int, lines: _Lines) -> None:
    if (rest := _skip(text, end)) < len(text):
        raise Wrong(
            lines.of(rest),
            "Something follows the end of the data. A file with a document on each line ends with .ndjson.",
        )


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _of_json(error: json.JSONDecodeError) -> str:
    return f"{error.msg}, at column {error.colno}."


def _of_value(error: Exception) -> str:
    said = str(error).removesuffix(".")
    return f"This is not Extended JSON: {said or type(error).__name__}."


def _of_encoding(error: UnicodeDecodeError) -> str:
    return f"This is not UTF-8: byte 0x{error.object[error.start]:02x}."


def _text(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise Wrong(number, _of_encoding(error)) from None


# BSON


def _dumped(path: Path) -> Iterator[tuple[int, RawBSONDocument]]:
    number = 0
    with path.open("rb") as plain:
        file: IO[bytes] = gzip.open(plain) if path.name.endswith(".gz") else plain  # type: ignore[assignment]  # noqa: SIM115 — closed with `plain`
        try:
            while head := file.read(4):
                number += 1
                length = struct.unpack("<i", head)[0] if len(head) == 4 else 0
                if not 5 <= length <= MOST_BYTES + 16384:
                    raise Wrong(number, "This is not BSON: its length can't be right.")
                rest = file.read(length - 4)
                if len(rest) < length - 4:
                    raise Wrong(number, "The file ends in the middle of this document.")
                bson.decode(head + rest)
                yield number, RawBSONDocument(head + rest)
        except BSONError as error:
            raise Wrong(number, f"This is not BSON: {str(error).removesuffix('.')}.") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Wrong(number + 1, f"The compressed file is damaged: {error}.") from None


def metadata(seed: Seed) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The options and indexes of a collection, as mongodump has written them beside its documents; empty without.

    Raises ProvisionError: they can't be read.
    """
    if seed.metadata is None:
        return {}, []
    name = str(Path(seed.name).with_name(seed.metadata.name))
    try:
        found = folder.from_text(framing.read_text(seed.metadata), seed.collection)
        return found.options, found.indexes
    except OSError as error:
        raise unreadable(name, error) from None
    except (*_WRONG_VALUE, framing.DumpDamaged) as error:
        why = error.cause if isinstance(error, framing.DumpDamaged) else str(error)
        raise ProvisionError(
            f"reading {name}",
            f"It is not what mongodump writes: {why.removesuffix('.')}.",
            "Write it again with mongodump, or remove it. Then type the same again.",
        ) from None


# CSV

_TYPED = re.compile(r"(?P<name>.+)\.(?P<type>[a-z_0-9]+)\((?P<argument>.*)\)")


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        numbers = _Numbered(file)
        rows = csv.reader(numbers, strict=True)
        columns: list[_Column] | None = None
        while True:
            begins = numbers.line + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise Wrong(numbers.line, f"This is not CSV: {error}.") from None
            if row is None:
                return
            if not row:
                continue
            if columns is None:
                columns = [_column(text, begins) for text in row]
                _fit_together(columns, begins)
            else:
                yield begins, _row(columns, row, begins)


class _Numbered:
    """The lines of a file as text; knows how many have been read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.line += 1
            yield _text(line, self.line)


@dataclass(frozen=True)
class _Column:
    path: tuple[str, ...]  # a dot in the header makes a document in the document
    kind: str
    convert: Callable[[str], Any]
    blank: bool  # an empty cell is an empty string; else the field is left out


def _column(header: str, line: int) -> _Column:
    header = header.strip()
    typed = _TYPED.fullmatch(header)
    name, kind, argument = (
        (typed["name"], typed["type"], typed["argument"]) if typed else (header, "string", "")
    )
    if not name or not all(name.split(".")) or name.startswith("$"):
        raise Wrong(line, f"{header!r} is not a field's name.")
    maker = _CONVERTERS.get(kind)
    if maker is None:
        raise Wrong(
            line,
            f"{header}: there is no type {kind}(). There are {', '.join(f'{each}()' for each in _CONVERTERS)}.",
        )
    try:
        return _Column(tuple(name.split(".")), kind, maker(argument), kind == "string")
    except ValueError as error:
        raise Wrong(line, f"{header}: {error}.") from None


def _fit_together(columns: list[_Column], line: int) -> None:
    seen: set[tuple[str, ...]] = set()
    for column in columns:
        if column.path in seen:
            raise Wrong(line, f"The header has {'.'.join(column.path)} twice.")
        seen.add(column.path)
    for path in seen:
        for end in range(1, len(path)):
            if path[:end] in seen:
                raise Wrong(line, f"{'.'.join(path[:end])} is a field and a document with {'.'.join(path)}.")


def _row(columns: list[_Column], cells: list[str], line: int) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise Wrong(line, f"It has {len(cells)} cells, and the header has {len(columns)}.")
    document: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if not cell and not column.blank:
            continue
        try:
            value = column.convert(cell)
        except (ValueError, ArithmeticError, TypeError) as error:
            said = f" ({error})" if column.kind in ("date", "date_go", "binary") else ""
            raise Wrong(
                line, f"{'.'.join(column.path)}: {cell!r} is not a value of {column.kind}(){said}."
            ) from None
        inner = document
        for part in column.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[column.path[-1]] = value
    return document


def _python_free(convert: Callable[[str], Any], text: str) -> Any:
    """A number, as others than Python write it, too."""
    if "_" in text:
        raise ValueError("not a number")
    return convert(text)


def _whole_number(bits: int) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        number = _python_free(int, text)
        if not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise ValueError("too large")
        return number if bits == 32 else bson.Int64(number)

    return convert


def _boolean(text: str) -> bool:
    known = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ValueError from None


def _auto(text: str) -> Any:
    """A number where the text is one, as mongoimport has it; else the text."""
    for convert in (int, float):
        try:
            number = _python_free(convert, text)
        except ValueError:
            continue
        if isinstance(number, float) and not re.search(r"\d", text):
            return text  # nan, infinity: words
        return number if isinstance(number, float) or -(1 << 63) <= number < 1 << 63 else float(number)
    return text


_GO = (
    ("2006", "%Y"), ("January", "%B"), ("Jan", "%b"), ("Monday", "%A"), ("Mon", "%a"), ("MST", "%Z"), ("Z07:00", "%z"),
    ("-07:00", "%z"), ("-0700", "%z"), (".000000", ".%f"), (".000", ".%f"), (".999", ".%f"), ("01", "%m"), ("02", "%d"),
    ("15", "%H"), ("03", "%I"), ("04", "%M"), ("05", "%S"), ("PM", "%p"), ("06", "%y"),
)  # fmt: skip


def _date(layout: str) -> Callable[[str], datetime]:
    """Go's layout of a date, by its reference time 2006-01-02 15:04:05; empty: ISO 8601."""
    if not layout:
        return lambda text: _utc(datetime.fromisoformat(text))
    form, rest = "", layout
    while rest:
        part = next(((go, ours) for go, ours in _GO if rest.startswith(go)), None)
        form += part[1] if part else rest[0].replace("%", "%%")
        rest = rest[len(part[0]) if part else 1 :]
    if "%" not in form.replace("%%", ""):
        raise ValueError(f"{layout!r} is not a layout such as 2006-01-02 15:04:05")
    return lambda text: _utc(datetime.strptime(text, form))


def _utc(moment: datetime) -> datetime:
    """A time without a zone is in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _binary(encoding: str) -> Callable[[str], bytes]:
    known: dict[str, Callable[[str], bytes]] = {
        "base64": functools.partial(base64.b64decode, validate=True),
        "base32": base64.b32decode,
        "hex": bytes.fromhex,
    }
    if encoding not in known:
        raise ValueError(f"write binary({'), binary('.join(known)})")
    return known[encoding]


def _plainly(convert: Callable[[str], Any]) -> Callable[[str], Callable[[str], Any]]:
    def make(argument: str) -> Callable[[str], Any]:
        if argument:
            raise ValueError("this type takes nothing between its brackets")
        return convert

    return make


_CONVERTERS: dict[str, Callable[[str], Callable[[str], Any]]] = {
    "auto": _plainly(_auto),
    "binary": _binary,
    "boolean": _plainly(_boolean),
    "date": _date,
    "date_go": _date,
    "decimal": _plainly(bson.Decimal128),
    "double": _plainly(functools.partial(_python_free, float)),
    "int32": _plainly(_whole_number(32)),
    "int64": _plainly(_whole_number(64)),
    "string": _plainly(str),
}

_READERS: dict[Kind, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    Kind.JSON: _whole,
    Kind.LINES: _lines,
    Kind.BSON: _dumped,
    Kind.CSV: _table,
}


class Spool:
    """The documents of one file, read and found right: they wait here until they are written.

    Small ones wait in memory, others in a file of `folder` that nobody else sees and that ends with the process.
    """

    _HEAD = struct.Struct("<q?i")
    _IN_MEMORY = 8 * 1024 * 1024

    def __init__(self, seed: Seed, folder: Path, told: Callable[[int], None]) -> None:
        """Read a file. `told` is told now and then how many documents there are.

        Raises ProvisionError: a line is wrong.
        """
        import tempfile

        begun = time.monotonic()
        self.count = self.made = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.SpooledTemporaryFile(self._IN_MEMORY, dir=str(folder))  # noqa: SIM115 — until `close`
        try:
            for parsed in documents(seed):
                self._file.write(self._HEAD.pack(parsed.line, parsed.made, len(parsed.raw)))
                self._file.write(parsed.raw)
                self.count += 1
                self.made += parsed.made
                if self.count % 1000 == 0:
                    told(self.count)
            self.seconds = time.monotonic() - begun
        except OSError as error:
            self.close()
            raise ProvisionError(
                f"reading {seed.name}",
                f"Its documents could not be kept in {folder}: {error.strerror or error}.",
                "Make room there, then type the same again.",
            ) from None
        except BaseException:
            self.close()
            raise

    def batches(self, documents: int, most_bytes: int) -> Iterator[list[Parsed]]:
        """All of them, some at a time."""
        self._file.seek(0)
        batch: list[Parsed] = []
        size = 0
        while head := self._file.read(self._HEAD.size):
            line, made, length = self._HEAD.unpack(head)
            batch.append(Parsed(line, self._file.read(length), made))
            size += length
            if len(batch) >= documents or size >= most_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def close(self) -> None:
        self._file.close()
