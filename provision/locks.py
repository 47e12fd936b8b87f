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
def exclusive(path: Path, doing: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file for the length of the block; another process waits for it.

    The kernel drops the lock with its holder, so a killed process leaves none behind. The file stays: to
    remove it while a waiter holds it open would let two in.

    Args:
        path: the lock file; it and its directory are made where missing.
        doing: what the holder does, told to those who wait.
        say: called once with a sentence, if there is something to wait for; default: standard error.

    Raises:
        OSError: the lock file cannot be made or opened.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, doing, say or _to_stderr)
        with contextlib.suppress(OSError):  # told to those who wait; a full disk is no reason not to hold the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {doing}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, doing: str, say: Callable[[str], None]) -> None:
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if not told:
            pid, _, theirs = os.pread(descriptor, 200, 0).decode(errors="replace").strip().partition(" ")
            say(f"Waiting for process {pid or '?'} ({theirs or 'it has just begun'}) before {doing} ...")
            told = True
        time.sleep(_POLL_SECONDS)


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
