"""One writer at a time. Standard library only: the bootstrap waits on the same locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_SECONDS = 0.02


@contextlib.contextmanager
def exclusive(path: Path, doing: str, say: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold an exclusive lock on a file for the length of the block; another process waits for it.

    The kernel drops the lock with its last holder, so a killed process leaves none behind.

    Yields the lock's file descriptor: a child that inherits it holds the lock, too, until it ends. `doing` is
    what those who wait are told; `say` is called once, if there is something to wait for (by default:
    standard error).
    """
    descriptor = _acquire(path, doing, say or _to_stderr)
    try:
        with contextlib.suppress(
            OSError
        ):  # told to those who wait; a full disk does not keep us from holding the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {doing}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


class HeldError(Exception):
    """Another process holds the lock; the text says which: ``"process 4711 starting local"``."""


@contextlib.contextmanager
def at_once(path: Path) -> Iterator[None]:
    """Hold an exclusive lock as `exclusive` does, but wait for nobody. Its directory is there.

    Raises HeldError: another process holds it.
    Raises OSError: the lock file cannot be made or opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise HeldError(f"process {holder}" if holder else path.name)
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, doing: str, say: Callable[[str], None]) -> int:
    told = False
    while True:
        _make_private(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try(descriptor):
                if not told:
                    pid, _, theirs = (
                        os.pread(descriptor, 200, 0).decode(errors="replace").strip().partition(" ")
                    )
                    say(
                        f"Waiting for process {pid or '?'} ({theirs or 'it has just begun'}) before {doing} ..."
                    )
                    told = True
                time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(path, descriptor):
            return descriptor
        # The file we waited on was removed by its holder: the lock is on the one that has its name now.
        os.close(descriptor)


def _make_private(directory: Path) -> None:
    """Make a directory and its missing parents for their owner alone (`mkdir` gives its mode to the last one only)."""
    missing = [each for each in (directory, *directory.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (now.st_ino, now.st_dev) == (ours.st_ino, ours.st_dev)


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file now.

    Nobody holds a file that is missing.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as problem:
        return problem.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(descriptor)
    return False
