"""One run of pytest, and what it leaves on this machine.

A run has a folder of its own in the temporary directory: its servers' data, logs and records. Whatever it
starts is known there before it is started, and the folder says which process the run is. So the next run finds
what a killed one has left, and removes that alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_atomically, write_json
from provision.core.locks import exclusive
from provision.state import slots
from provision.state.process_identity import (
    ProcessIdentity,
    identity_of,
    is_alive,
    is_record,
    is_recorded_alive,
    recorded,
    signalled,
    this_process,
)

_GONE_SECONDS = 10.0
_KEPT = "kept"
USERS = "users"
"""A file of a run whose servers other runs use; they hold a shared lock on it."""
_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Owner:
    """The process that a run is: it means something on one machine, in one namespace of process ids."""

    host: str  # the machine's name
    namespace: int  # of process ids; 0 where the system has but one
    process: ProcessIdentity

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(socket.gethostname(), _namespace(), this_process())

    def as_json(self) -> dict[str, Any]:
        """For the run's record, and for workers, which are processes of their own."""
        return {"host": self.host, "namespace": self.namespace, **self.process.as_record()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Owner | None:
        """What `as_json` gave; None: it names nobody.

        An earlier version noted the moment when the process began, which a step of the clock moves. So a process that has
        that pid now is taken for it: its run is left alone as long as there is one.
        """
        if not is_record(values):
            return None
        process = (
            recorded(values)
            if "start_ticks" in values
            else identity_of(values["pid"]) or ProcessIdentity(values["pid"], "", 0)
        )
        try:
            return cls(str(values["host"]), int(values["namespace"]), process) if process else None
        except (KeyError, ValueError):
            return None

    @property
    def is_dead(self) -> bool:
        """Whether it has certainly ended. What another machine or container runs is not known here."""
        if (self.host, self.namespace) != (socket.gethostname(), _namespace()):
            return False
        return not is_alive(self.process)


@dataclass(frozen=True)
class Run:
    """One run of pytest, with all its workers."""

    id: str  # names it: its folder, its containers' label, its databases
    base: Path  # where the folders of this user's runs are
    owner: Owner  # the process that the workers work for
    project: str = ""  # pytest's rootdir: what a run keeps is for those of its project

    @classmethod
    def new(cls, project: str = "") -> Run:
        """A run of this process. Writes nothing."""
        return cls(secrets.token_hex(6), base_directory(), Owner.here(), project)

    @property
    def folder(self) -> Path:
        return self.base / self.id

    def as_json(self) -> dict[str, Any]:
        """For workers, which are processes of their own."""
        return {
            "id": self.id,
            "base": str(self.base),
            "owner": self.owner.as_json(),
            "project": self.project,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Run:
        owner = Owner.from_json(values["owner"])
        if owner is None:
            raise ValueError(values)
        return cls(values["id"], Path(values["base"]), owner, values["project"])

    def server(self, key: str) -> Path:
        """The folder of one of its servers."""
        return self.folder / key

    @property
    def kept(self) -> frozenset[str]:
        """The databases of failed tests that stay after the run."""
        return frozenset(file.name for file in (self.folder / _KEPT).glob("*"))

    def keep(self, database: str, uri: str) -> Path:
        """Let a database and its server stay after the run, until the next one in this project.

        Returns: A file of the user's with its connection string, which may hold a password.
        """
        file = self.folder / _KEPT / database
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(file, uri, 0o600)
        return file

    def left(self) -> list[Run]:
        """The runs whose leavings this run removes: killed ones, and those of its project that kept something.

        What a run in another project has kept stays for a day.
        """
        return [
            run
            for run in dead_runs(self.base)
            if (run.project == self.project or not run.keeps_something()) and not run.is_used()
        ]

    def keeps_something(self) -> bool:
        """Whether it has kept a database that somebody may still want to look at."""
        with contextlib.suppress(OSError):
            files = list((self.folder / _KEPT).iterdir())
            young = any(time.time() - file.stat().st_mtime < _KEPT_SECONDS for file in files)
            return young and Path(self.project).is_dir()
        return False

    @contextlib.contextmanager
    def starting(self, key: str) -> Iterator[Path]:
        """Hold a server of this run: who comes second finds what the first has started.

        Yields the server's folder.
        """
        self.make()
        with exclusive(self.folder / f"{key}.lock", f"starting MongoDB ({key}) for tests", lambda _: None):
            if self.owner.is_dead:
                raise ProvisionError(
                    "starting MongoDB for tests",
                    "The pytest process that this worker works for has ended.",
                    "Run pytest again.",
                )
            folder = self.server(key)
            folder.mkdir(mode=0o700, exist_ok=True)
            yield folder

    def is_used(self) -> bool:
        """Whether other runs use its servers (`--mongodb-reuse`), in whatever state its own process is."""
        try:
            descriptor = os.open(self.folder / USERS, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def make(self, files: Mapping[str, str] | None = None) -> None:
        """Make the run's folder, with files in it; remove first what dead runs have left."""
        doing = "making a directory for the tests' MongoDB"
        try:
            self.base.mkdir(mode=0o700, exist_ok=True)
            found = self.base.lstat()
        except OSError as error:
            raise ProvisionError(
                doing, f"{self.base}: {error.strerror}.", "Set TMPDIR to a directory you may write to."
            ) from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ProvisionError(
                doing,
                f"{self.base} is not a directory of yours alone.",
                "Remove it, or set TMPDIR to a directory of your own.",
            )
        if self.folder.exists():
            return
        with exclusive(self.base / "runs.lock", "removing what killed test runs have left", lambda _: None):
            if self.folder.exists():
                return
            for left in self.left():
                with contextlib.suppress(ProvisionError):  # its record stays, for a run with Docker
                    left.clear()
            # The owner is on record before the folder is seen: one without would be no one's.
            partial = Path(tempfile.mkdtemp(prefix=".new-", dir=self.base))
            write_json(partial / "owner.json", {**self.owner.as_json(), "project": self.project})
            for name, text in (files or {}).items():
                write_atomically(partial / name, text, 0o600)
            partial.rename(self.folder)

    def clear(self) -> None:
        """End every server of this run, and remove its folder.

        A record of databases on somebody else's server stays until a run on that server has dropped them.

        Raises ProvisionError: its containers can't be removed; their record stays.
        """
        if not self.folder.is_dir():
            return
        with contextlib.ExitStack() as held:
            # A worker that outlived its killed run may be starting something right now.
            for lock in sorted(self.folder.glob("*.lock")):
                held.enter_context(exclusive(lock, "removing a test run", lambda _: None))
            self._kill_processes()
            keep = self._servers("uri")
            try:
                if containers := self._servers("container"):
                    from provision.testing.container import remove_all

                    keep |= containers
                    remove_all(self.id)
                    keep -= containers
            finally:
                ended = [each for each in self.folder.iterdir() if each not in keep and each.is_dir()]
                for folder in ended:
                    shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(ProvisionError):  # `ps` shows them as deleted then
                    slots.forget(ended)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _servers(self, kind: str) -> set[Path]:
        """The folders of its servers of a kind."""
        records = self.folder.glob("*/server.json")
        return {each.parent for each in records if (read_json(each) or {}).get("kind") == kind}

    def _kill_processes(self) -> None:
        """Kill the nodes of this run: their data are of no use any more."""
        import psutil

        from provision.backends.processes import MARK

        pids = set()
        for path in self.folder.glob("*/.state/deployments/*/*.json"):
            record = read_json(path) or {}
            if is_recorded_alive(record):
                pids.add(int(record["pid"]))
        killed = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid in pids or process.environ().get(MARK, "").startswith(f"{self.folder}/"):
                    killed.append(identity_of(process.pid))
        signalled([each for each in killed if each is not None], _GONE_SECONDS, signal.SIGKILL)


def base_directory() -> Path:
    """Where this user's runs are: always the same place, so that a run finds those before it."""
    return Path(tempfile.gettempdir()).resolve() / f"provision-pytest-{os.getuid()}"


def runs(base: Path) -> list[Run]:
    """Every run that has a folder."""
    found = []
    for record in sorted(base.glob("*/owner.json")):
        values = read_json(record) or {}
        owner = Owner.from_json(values)
        if owner is not None:
            found.append(Run(record.parent.name, base, owner, str(values.get("project", ""))))
    return found


def dead_runs(base: Path) -> list[Run]:
    """Those of them that are certainly over."""
    return [each for each in runs(base) if each.owner.is_dead]


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
