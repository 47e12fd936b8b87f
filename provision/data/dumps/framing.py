"""Documents in a ``.bson`` file: one after the other, each with its length in front. They are not decoded.

https://bsonspec.org/spec.html
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from provision.core.dataclass import dataclass
from pathlib import Path
from typing import IO

from provision.core.errors import ProvisionError
from provision.data.dumps.folder import GZIP

# The largest document that a user can store, and what the server adds to it inside.
LARGEST = 16 * 1024 * 1024 + 16 * 1024
_SMALLEST = 5
_CHUNK = 4 * 1024 * 1024
_LENGTH = struct.Struct("<i")


class DumpDamaged(ProvisionError):
    """A file of a dump is not what a dump has there.

    `file`: which. `offset`: of the first wrong document, in bytes of the uncompressed file.
    """

    def __init__(self, file: Path, offset: int, why: str) -> None:
        self.file = file
        self.offset = offset
        super().__init__(
            f"reading {file}",
            f"{why} (at byte {offset:,} of {'its uncompressed content' if file.name.endswith(GZIP) else 'the file'}).",
            "Copy the dump again from where it was made, or make a new one: invoke dump",
        )


@dataclass(frozen=True)
class Batch:
    """Documents that stand one after the other in a file."""

    offset: int  # of the first one, in bytes of the uncompressed file
    documents: list[bytes]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(map(len, self.documents))


def count(documents: bytes) -> int:
    """How many documents there are in bytes that hold whole ones."""
    at = found = 0
    while at < len(documents):
        at += _LENGTH.unpack_from(documents, at)[0]
        found += 1
    return found


def split(documents: bytes) -> Iterator[bytes]:
    """Each of the documents in bytes that hold whole ones."""
    at = 0
    while at < len(documents):
        end = at + _LENGTH.unpack_from(documents, at)[0]
        yield documents[at:end]
        at = end


def batches(file: IO[bytes], name: Path) -> Iterator[Batch]:
    """The documents of a file, some MB at a time.

    Args:
        file: gives the uncompressed content.
        name: the file, for errors.

    Raises DumpDamaged: a length is impossible, a document does not end where it says, or the file ends within one.
    Raises OSError: it can't be read.
    """
    left, offset = b"", 0
    while chunk := _read(file, name, offset + len(left)):
        left = left + chunk if left else chunk
        documents, at = [], 0
        while len(left) - at >= _LENGTH.size:
            length = _LENGTH.unpack_from(left, at)[0]
            if not _SMALLEST <= length <= LARGEST:
                raise DumpDamaged(name, offset + at, f"A document can't be {length:,} bytes long")
            end = at + length
            if end > len(left):
                break
            if left[end - 1]:
                raise DumpDamaged(name, offset + at, "A document does not end where its length says")
            documents.append(left[at:end])
            at = end
        if documents:
            yield Batch(offset, documents)
        left, offset = left[at:], offset + at
    if left:
        raise DumpDamaged(name, offset, "The file ends within a document")


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file of a dump for reading: its uncompressed content, and the file on disk, whose position is progress.

    Raises OSError: it can't be opened.
    """
    with path.open("rb") as raw:
        if path.name.endswith(GZIP):
            with gzip.GzipFile(fileobj=raw) as content:
                yield content, raw  # type: ignore[misc]
        else:
            yield raw, raw


def read_text(path: Path) -> str:
    """The text of a metadata file.

    Raises DumpDamaged: it is not UTF-8, or not compressed as its name says.
    Raises OSError: it can't be read.
    """
    with opened(path) as (content, _):
        data = b""
        while chunk := _read(content, path, len(data)):
            data += chunk
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DumpDamaged(path, error.start, "It is not UTF-8") from None


def _read(file: IO[bytes], name: Path, offset: int) -> bytes:
    try:
        return file.read(_CHUNK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise DumpDamaged(name, offset, f"It can't be uncompressed: {why}") from None
