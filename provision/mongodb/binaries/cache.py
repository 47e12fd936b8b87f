"""The cache of downloaded binaries, shared by all clones of this user.

One folder per download, ``<version>-<platform>/bin/{mongod,mongos}``. It appears under that name only when
it is complete and its mongod has run; until then it is a folder ``.partial-…`` of the process that holds the lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from provision.core.files import read_json, write_json
from provision.core.locks import exclusive
from provision.machine.access import explain
from provision.mongodb.binaries.examine import examine
from provision.mongodb.binaries.machine import Machine
from provision.mongodb.binaries.model import OF_THE_MACHINE, NotServing, Reason
from provision.settings.paths import Paths

_PARTIAL = ".partial-"
_STAND_IN = "stands-in.json"


class Cache:
    """Downloaded binaries."""

    def __init__(self, paths: Paths) -> None:
        self.root = paths.cache / "mongodb"

    def mongod(self, entry: str) -> Path:
        """Where the mongod of an entry is, or would be."""
        return self.root / entry / "bin" / "mongod"

    def holds(self, entry: str) -> bool:
        return self.mongod(entry).is_file()

    def entries(self) -> list[str]:
        """Names of the complete downloads, sorted."""
        return sorted(path.parent.parent.name for path in self.root.glob("[!.]*/bin/mongod"))

    def stands_in(self, entry: str, version: str, mirror: str) -> bool:
        """Whether the entry was taken, some earlier time, because that mirror did not have that version."""
        marks = read_json(self.root / entry / _STAND_IN)
        return marks is not None and _mark(version, mirror) in marks

    def let_stand_in(self, entry: str, version: str, mirror: str) -> None:
        """Note that the entry is taken because that mirror did not have that version.

        Raises OSError: it cannot be noted.
        """
        file = self.root / entry / _STAND_IN
        write_json(file, {**(read_json(file) or {}), _mark(version, mirror): version})

    def obtain(
        self, entry: str, expected: str, machine: Machine, fill: Callable[[Path], None]
    ) -> tuple[Path, str]:
        """The mongod of an entry, downloaded unless a working one is there; two at once download once.

        Args:
            expected: the version that a fresh one must have.
            fill: puts ``bin/mongod`` (and ``bin/mongos``) into the folder it is given.

        Raises:
            NotServing: it could not be downloaded, or can't run here; nothing of the attempt is left, except a download that
                is right and lacks something of this machine: it is not downloaded again.
        """
        if (found := self._working(entry, machine)) is not None:
            return found
        try:
            with exclusive(self.root / ".lock", f"downloading MongoDB {entry}"):
                self._remove_leftovers()
                if (found := self._working(entry, machine)) is not None:
                    return found
                if os.statvfs(self.root).f_flag & getattr(os, "ST_NOEXEC", 0):
                    raise NotServing(
                        f"the file system of {self.root} is mounted noexec: nothing that is put there can run",
                        Reason.NOEXEC,
                        str(self.root),
                    )
                with self._partial() as folder:
                    fill(folder)
                    try:
                        version = examine(folder / "bin" / "mongod", machine)
                    except NotServing as why:
                        if why.reason in OF_THE_MACHINE:
                            self._put_in_place(folder, entry)
                        raise
                    if version != expected:
                        raise NotServing(f"the download for {entry} holds mongod {version}, not {expected}")
                    self._put_in_place(folder, entry)
        except OSError as problem:
            full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
            told = f"the cache {self.root} cannot be written: {problem.strerror or problem}"
            if full:
                raise NotServing(told, Reason.SPACE, str(self.root)) from None
            if problem.errno not in (errno.EACCES, errno.EPERM) or not problem.filename:
                raise NotServing(told, Reason.UNWRITABLE) from None
            rights = explain(Path(problem.filename), (), "")[0].removesuffix(".")
            raise NotServing(f"{told}: {rights}", Reason.UNWRITABLE, str(problem.filename)) from None
        return self.mongod(entry), version

    def _working(self, entry: str, machine: Machine) -> tuple[Path, str] | None:
        if not self.holds(entry):
            return None
        try:
            return self.mongod(entry), examine(self.mongod(entry), machine)
        except NotServing as why:
            if why.reason in OF_THE_MACHINE:
                raise
            # It ran when it was put there. Damaged since, or the system has changed: a fresh one may do.
            return None

    def _remove_leftovers(self) -> None:
        # Only a holder of the lock makes these, and that is us now: what is there, a killed one has left.
        for path in self.root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _partial(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self.root))
        try:
            (folder / "bin").mkdir()
            folder.chmod(0o755)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _put_in_place(self, folder: Path, entry: str) -> None:
        place = self.root / entry
        if place.exists():
            # A mongod still running from the old files keeps them open, and is not disturbed.
            old = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self.root))
            place.rename(old / entry)
            folder.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            folder.rename(place)


def _mark(version: str, mirror: str) -> str:
    # A digest: the mirror's URL may carry a password.
    return hashlib.sha256(f"{version} {mirror}".encode()).hexdigest()[:16]
