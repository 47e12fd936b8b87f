"""``--mongodb-reuse``: servers that stay between runs, and end by themselves when nobody uses them.

They belong to a run of their own, the home, whose process is a keeper. Who uses it holds a shared lock on a file of
it, which the kernel drops when the process dies. The keeper takes that lock for itself when nobody has had it for a
while, ends the servers, and ends; so nobody can join meanwhile, and who wanted to starts a new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provision.core.errors import ProvisionError
from provision.core.locks import exclusive
from provision.testing.run import USERS, Owner, Run, runs

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_STARTED: list[subprocess.Popen[bytes]] = []
"""Keepers outlive the run that has started them. Python warns of a child that is forgotten while it runs."""


class Membership:
    """The use of a home, until the process ends or `leave` is called."""

    def __init__(self, home: Run, descriptor: int) -> None:
        self.home = home
        self._descriptor = descriptor

    def leave(self) -> None:
        """From now on, the keeper counts."""
        os.utime(self._descriptor)
        os.close(self._descriptor)


def join(run: Run, servers: str, idle_seconds: float) -> Membership:
    """Use the home of a project's servers; start it if there is none.

    `servers`: which of a project's homes: runs that name the same mongod share one.

    Raises ProvisionError: its keeper does not start.
    """
    name = f"reuse-{hashlib.sha256(f'{run.project} {servers}'.encode()).hexdigest()[:12]}"
    run.make()
    with exclusive(run.base / f"{name}.lock", "joining the MongoDB that stays between runs", lambda _: None):
        deadline = time.monotonic() + _START_SECONDS
        keeper: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            found = next((each for each in runs(run.base) if each.id == name), None)
            if found is not None and not found.owner.is_dead:
                descriptor = _shared(found.folder / USERS)
                if descriptor is not None:
                    return Membership(found, descriptor)
            elif found is not None and not found.is_used():
                found.clear()
            elif found is None and (keeper is None or keeper.poll() is not None):
                keeper = _start(run, name, idle_seconds)
            time.sleep(_POLL_SECONDS)
    raise ProvisionError(
        "joining the MongoDB that stays between runs",
        f"What keeps it did not answer within {_START_SECONDS:.0f} s.",
        "Run pytest without --mongodb-reuse.",
    )


def drop_abandoned(client: Any, home: Run) -> None:
    """Drop the databases of runs that are over, but for those that they have kept."""
    from provision.testing.databases import DATABASE

    # In this order: a run has its folder before it makes a database.
    names = [name for name in client.list_database_names() if DATABASE.fullmatch(name)]
    known = runs(home.base)
    alive = {run.id for run in known if not run.owner.is_dead}
    kept = {name for run in known for name in run.kept}
    for name in names:
        if name.split("_")[1] not in alive and name not in kept:
            client.drop_database(name)


def _shared(file: Path) -> int | None:
    """Hold a file's lock with others; None: the keeper has it, or it is gone."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(descriptor)
        if (os.fstat(descriptor).st_ino, os.fstat(descriptor).st_nlink) == (file.stat().st_ino, 1):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _start(run: Run, name: str, idle_seconds: float) -> subprocess.Popen[bytes]:
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    words = [str(run.base), name, str(idle_seconds), run.project]
    keeper = subprocess.Popen(
        [sys.executable, "-P", "-m", "provision.testing.reuse", *words],
        cwd=run.base,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _STARTED.append(keeper)
    return keeper


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[list[int]]:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        yield got
    finally:
        signal.signal(signal.SIGTERM, before)


def keep(base: Path, name: str, idle_seconds: float, project: str) -> None:
    """Be the keeper: end the home's servers when nobody has used them for so long, or at SIGTERM."""
    home = Run(name, base, Owner.here(), project)
    home.make({USERS: ""})
    descriptor = os.open(home.folder / USERS, os.O_RDWR | os.O_CLOEXEC)
    pause = max(0.05, min(1.0, idle_seconds / 5))
    used, changed = time.monotonic(), 0
    with _ended_by_signal() as signals:
        while True:
            time.sleep(pause)
            now = os.fstat(descriptor).st_mtime_ns
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                used = time.monotonic()
                continue
            if now != changed:  # a run has come and gone since the last look
                used, changed = time.monotonic(), now
            if signals or time.monotonic() - used >= idle_seconds:
                home.clear()
                return
            fcntl.flock(descriptor, fcntl.LOCK_UN)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4])
