"""Which files are seeds, in which order, and what each is for. Reads names and contents; knows no server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from provision.core.dataclass import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote

from provision.core.errors import ProvisionError

RECORDS = "__seeds"
"""The collection that records which seeds a database has."""


class Kind(StrEnum):
    """How a seed is read."""

    JSON = "json"  # an array of documents, or one document; Extended JSON
    LINES = "ndjson"  # one document of Extended JSON on each line
    BSON = "bson"  # documents one after another, as mongodump writes them
    CSV = "csv"  # one document on each line, below a header
    PYTHON = "py"  # a program: def seed(database)
    MONGOSH = "js"  # a program for mongosh


_KINDS = {
    ".json": Kind.JSON,
    ".ndjson": Kind.LINES,
    ".jsonl": Kind.LINES,
    ".bson": Kind.BSON,
    ".bson.gz": Kind.BSON,
    ".csv": Kind.CSV,
    ".py": Kind.PYTHON,
    ".js": Kind.MONGOSH,
}
_PROSE = (".md", ".rst", ".txt")
_NUMBER = re.compile(r"(?P<number>\d+)[-_]")
_METADATA = (".metadata.json", ".metadata.json.gz")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Seed:
    """One file of seeds."""

    path: Path
    name: str  # as messages call it: seeds/10-users.ndjson
    kind: Kind
    collection: str  # what a file of data fills; empty for a program
    metadata: Path | None = None  # beside a file of mongodump: the collection's options and indexes

    @property
    def is_program(self) -> bool:
        return self.kind in (Kind.PYTHON, Kind.MONGOSH)

    @property
    def key(self) -> str:
        """What it is recorded by: the name of its file."""
        return self.path.name

    def digest(self) -> str:
        """Of its content, and of that of the metadata beside it: SHA-256 in hexadecimal.

        Raises ProvisionError: it can't be read.
        """
        digest = hashlib.sha256()
        for path in filter(None, (self.path, self.metadata)):
            try:
                with path.open("rb") as file:
                    while part := file.read(_CHUNK):
                        digest.update(part)
            except OSError as error:
                raise unreadable(self.name, error) from None
            digest.update(b"\0")
        return digest.hexdigest()


def find(folder: Path, root: Path) -> list[Seed]:
    """The seeds of a folder, in the order in which they are applied: by the number before their name, then by name.

    Folders are left out, and files that begin with a dot or an underscore, and text that is not data. `root` is the
    project's folder: names of files begin there.
    Raises ProvisionError: a file is none that seeds can be read from, or names no collection.
    """
    if not folder.is_dir():
        return []
    try:
        files = [each for each in folder.iterdir() if each.is_file()]
    except OSError as error:
        raise unreadable(str(folder), error) from None
    names = {each.name for each in files}
    found = []
    for path in sorted(files, key=_order):
        if (
            path.name.startswith((".", "_"))
            or path.name.endswith(_PROSE)
            or _belongs_to_dump(path.name, names)
        ):
            continue
        found.append(_seed(path, root, names))
    return found


def _order(path: Path) -> tuple[bool, int, str]:
    numbered = _NUMBER.match(path.name)
    return (numbered is None, int(numbered["number"]) if numbered else 0, path.name)


def _belongs_to_dump(name: str, names: set[str]) -> bool:
    """Whether a file stands beside a collection that mongodump has written, and says something of it."""
    if name in ("prelude.json", "prelude.json.gz"):
        return any(each.endswith((".bson", ".bson.gz")) for each in names)
    stem = next((name.removesuffix(suffix) for suffix in _METADATA if name.endswith(suffix)), None)
    return stem is not None and bool({f"{stem}.bson", f"{stem}.bson.gz"} & names)


def _seed(path: Path, root: Path, names: set[str]) -> Seed:
    shown = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    suffix = next((each for each in sorted(_KINDS, key=len, reverse=True) if path.name.endswith(each)), None)
    if suffix is None:
        raise ProvisionError(
            f"reading {shown}",
            f"Seeds are files that end with {', '.join(_KINDS)}; this one does not.",
            "Rename it, or let its name begin with an underscore: `seed` then leaves it out.",
        )
    kind, stem = _KINDS[suffix], path.name.removesuffix(suffix)
    if kind in (Kind.PYTHON, Kind.MONGOSH):
        return Seed(path, shown, kind, "")
    # mongodump writes what a file's name can't have as %24.
    collection = (
        unquote(_NUMBER.sub("", stem, count=1)) if kind is Kind.BSON else _NUMBER.sub("", stem, count=1)
    )
    if (
        not collection
        or "$" in collection
        or "\0" in collection
        or collection.startswith((".", "system.", RECORDS))
        or collection.endswith(".")
    ):
        raise ProvisionError(
            f"reading {shown}",
            f"Its name says which collection it fills, and {collection!r} is not a collection's name.",
            "Name it as the collection, with a number before it if the order matters: 10-users.ndjson fills `users`.",
        )
    metadata = next((path.with_name(stem + end) for end in _METADATA if stem + end in names), None)
    return Seed(path, shown, kind, collection, metadata if kind is Kind.BSON else None)


def digest_of_all(seeds: Sequence[Seed]) -> str:
    """Of the names and contents of several, in their order."""
    return hashlib.sha256("".join(f"{each.key}\0{each.digest()}\0" for each in seeds).encode()).hexdigest()


def unreadable(name: str, error: OSError) -> ProvisionError:
    """The error over a file that can't be read."""
    return ProvisionError(
        f"reading {name}", f"{error.strerror or error}.", "Correct that, then type the same again."
    )
