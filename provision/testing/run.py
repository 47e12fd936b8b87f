"""One run of pytest, and what it leaves on this machine.

A run has a folder of its own in the temporary directory: its servers' data, logs and records. Whatever it
starts is known there before it is started, and the folder says which process the run is. So the next run finds
what a killed one has left, and removes that alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from provision.errors import ProvisionError
from provision.files import read_json, write_json
from provision.locks import exclusive

_GONE_SECONDS = 10.0
_SAME_START_SECONDS = 0.05


@dataclass(frozen=True)
class Owner:
    """The process that a run is: its pid means something on one machine, in one namespace, with its start time.

    Args:
        host: the machine's name.
        namespace: of process ids; 0 where the system has but one.
        pid: process id.
        created: when the process began, in seconds since 1970.
    """

    host: str
    namespace: int
    pid: int
    created: float

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        import psutil

        return cls(socket.gethostname(), _namespace(), os.getpid(), psutil.Process().create_time())

    @property
    def is_dead(self) -> bool:
        """Whether it has certainly ended. What another machine or container runs is not known here."""
        if (self.host, self.namespace) != (socket.gethostname(), _namespace()):
            return False
        import psutil

        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return abs(process.create_time() - self.created) > _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


@dataclass(frozen=True)
class Run:
    """One run of pytest, with all its workers.

    Args:
        id: names it: its folder, its containers' label, its databases.
        base: where the folders of this user's runs are.
        owner: the process that the workers work for.
    """

    id: str
    base: Path
    owner: Owner

    @classmethod
    def new(cls) -> Run:
        """A run of this process. Writes nothing."""
        return cls(secrets.token_hex(6), base_directory(), Owner.here())

    @property
    def folder(self) -> Path:
        return self.base / self.id

    def as_json(self) -> dict[str, Any]:
        """For workers, which are processes of their own."""
        return {"id": self.id, "base": str(self.base), "owner": asdict(self.owner)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Run:
        return cls(values["id"], Path(values["base"]), Owner(**values["owner"]))

    def server(self, key: str) -> Path:
        """The folder of one of its servers."""
        return self.folder / key

    @contextlib.contextmanager
    def starting(self, key: str) -> Iterator[Path]:
        """Hold a server of this run: who comes second finds what the first has started.

        Args:
            key: which server.

        Returns:
            The server's folder.

        Raises:
            ProvisionError: the run is over, or its folder can't be made.
        """
        self._make()
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

    def _make(self) -> None:
        """Make the run's folder; whoever makes it removes first what dead runs have left."""
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
            for left in dead_runs(self.base):
                with contextlib.suppress(ProvisionError):  # its record stays, for a run with Docker
                    left.clear()
            # The owner is on record before the folder is seen: one without would be no one's.
            partial = Path(tempfile.mkdtemp(prefix=".new-", dir=self.base))
            write_json(partial / "owner.json", asdict(self.owner))
            partial.rename(self.folder)

    def clear(self) -> None:
        """End every server of this run, and remove its folder.

        A record of databases on somebody else's server stays until a run on that server has dropped them.

        Raises:
            ProvisionError: its containers can't be removed; their record stays.
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
                for folder in self.folder.iterdir():
                    if folder not in keep and folder.is_dir():
                        shutil.rmtree(folder, ignore_errors=True)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _servers(self, kind: str) -> set[Path]:
        """The folders of its servers of a kind."""
        records = self.folder.glob("*/server.json")
        return {each.parent for each in records if (read_json(each) or {}).get("kind") == kind}

    def _kill_processes(self) -> None:
        """Kill the nodes of this run: their data are of no use any more."""
        import psutil

        from provision.backends.processes import MARK, is_alive

        pids = set()
        for path in self.folder.glob("*/.state/deployments/*/*.json"):
            record = read_json(path) or {}
            if "created" in record and is_alive(record):
                pids.add(int(record["pid"]))
        killed = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid in pids or process.environ().get(MARK, "").startswith(f"{self.folder}/"):
                    process.kill()
                    killed.append(process)
        psutil.wait_procs(killed, _GONE_SECONDS)


def base_directory() -> Path:
    """Where this user's runs are: always the same place, so that a run finds those before it."""
    return Path(tempfile.gettempdir()).resolve() / f"provision-pytest-{os.getuid()}"


def runs(base: Path) -> list[Run]:
    """Every run that has a folder."""
    found = []
    for record in sorted(base.glob("*/owner.json")):
        values = read_json(record)
        with contextlib.suppress(TypeError):
            found.append(Run(record.parent.name, base, Owner(**(values or {}))))
    return found


def dead_runs(base: Path) -> list[Run]:
    """Those of them that are certainly over."""
    return [each for each in runs(base) if each.owner.is_dead]


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
