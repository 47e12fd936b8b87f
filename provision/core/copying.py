"""Copying big files: shared blocks where the file system can do that, else within the kernel, else by reading and writing.

Holes stay holes: MongoDB's journal files are mostly that. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# https://man7.org/linux/man-pages/man2/ioctl_ficlone.2.html
_FICLONE = 0x40049409
_CHUNK = 1 << 24
# The kernel or the file system does not copy by itself; anything else (a full disk) is a failure.
_NOT_SUPPORTED = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
)
_WORKERS = 4
_READ_AT_ONCE = 1 << 30
_READ_SIZE = 1 << 20


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content to a new file, which only its owner may read.

    Raises OSError: it can't be read, or not be written. What was written of it stays.
    """
    with source.open("rb", buffering=0) as reading:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if _cloned(reading.fileno(), descriptor):
                return
            size = os.fstat(reading.fileno()).st_size
            for start, end in _data(reading.fileno(), size):
                _copy_range(reading.fileno(), descriptor, start, end)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def copy_files(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Copy files to new ones, several at a time; the folders of the new ones are made.

    Raises OSError: as `copy_file`; the others that have begun are finished first.
    """
    listed = list(pairs)
    for folder in dict.fromkeys(target.parent for _, target in listed):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        futures = [pool.submit(copy_file, source, target) for source, target in listed]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def checksums(files: Iterable[Path], settled: bool = False) -> Mapping[Path, str]:
    """The checksums of files, several at a time: ``"crc32:8b2e0d11"``.

    Args:
        settled: have each written to disk as well.
    Raises OSError: one can't be read.
    """
    listed = list(files)
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        return dict(zip(listed, pool.map(lambda file: _checksum(file, settled), listed), strict=True))


def changed(expected: Mapping[Path, str]) -> list[Path]:
    """Files that are not as they were when their checksums were taken: CRC-32, or ``"sha256:…"``.

    Raises OSError: one can't be read.
    """
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        found = pool.map(lambda file: _checksum(file, sha256=expected[file].startswith("sha256:")), expected)
        return [file for file, checksum in zip(expected, found, strict=True) if checksum != expected[file]]


def crc32(value: int) -> str:
    """A checksum as `checksums` has it, of what zlib.crc32 gave."""
    return f"crc32:{value:08x}"


def checksums_of_originals(pairs: Sequence[tuple[Path, Path]]) -> Mapping[Path, str]:
    """The checksums of copies that share blocks, read from the files that they are copies of: those are in memory still.

    `pairs`: source and copy. Nobody writes to the sources since before they were copied.

    Returns: By copy. It is empty where reading would take long.
    Raises OSError: one can't be read.
    """
    before = {source: source.stat() for source, _ in pairs}
    if sum(each.st_size for each in before.values()) > _READ_AT_ONCE:
        return {}
    found = checksums(before)
    return {
        copy: found[source]
        for source, copy in pairs
        if source.stat().st_mtime_ns == before[source].st_mtime_ns
        and copy.stat().st_size == before[source].st_size
    }


def room_of(path: Path) -> int:
    """Bytes that a file takes on its disk: holes take none.

    Follows https://docs.python.org/3/library/os.html#os.stat_result.st_blocks
    Raises OSError: it can't be looked at.
    """
    return path.lstat().st_blocks * 512


def stamp(path: Path) -> str:
    """What changes whenever somebody writes to a file, or puts another one in its place.

    Raises OSError: it can't be looked at.
    """
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_ctime_ns}"


def settle(files: Iterable[Path]) -> None:
    """Have files and the folders that they are in written to disk.

    Raises OSError: one can't be.
    """
    listed = list(files)
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        list(pool.map(sync, listed))
    for folder in dict.fromkeys(file.parent for file in listed):
        sync(folder)


def sync(path: Path) -> None:
    """Have one file or folder written to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shares_blocks(folder: Path) -> bool:
    """Whether a copy in this folder takes no room until it is changed."""
    names = [folder / f".clone-{os.getpid()}-{n}" for n in (1, 2)]
    try:
        names[0].write_bytes(b"x" * 4096)
        with names[0].open("rb") as reading, names[1].open("wb") as writing:
            return _cloned(reading.fileno(), writing.fileno())
    except OSError:
        return False
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _checksum(file: Path, settled: bool = False, sha256: bool = False) -> str:
    with file.open("rb", buffering=0) as reading:
        found = f"sha256:{hashlib.file_digest(reading, 'sha256').hexdigest()}" if sha256 else _crc32(reading)
        if settled:
            os.fsync(reading.fileno())
    return found


def _crc32(reading: io.FileIO) -> str:
    found, part = 0, memoryview(bytearray(_READ_SIZE))
    while size := reading.readinto(part):
        found = zlib.crc32(part[:size], found)
    return crc32(found)


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are not holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            start, end = position, size
        yield start, min(end, size)
        position = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    position = start
    while position < end:
        copied = _copied_by_kernel(source, target, position, end - position)
        if copied is None:
            part = os.pread(source, min(_CHUNK, end - position), position)
            copied = os.pwrite(target, part, position) if part else 0
        if copied == 0:
            return  # the file has become shorter
        position += copied


def _copied_by_kernel(source: int, target: int, position: int, count: int) -> int | None:
    if not hasattr(os, "copy_file_range"):
        return None
    try:
        return os.copy_file_range(source, target, count, position, position)
    except OSError as problem:
        if problem.errno not in _NOT_SUPPORTED:
            raise
        return None
