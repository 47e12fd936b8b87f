"""The scratch place that subjects are measured in: copies of the project, free ports, and processes to time.

It lies in the project's `.state/`, so on the same file system as a real `env/` and `data/`. All that is
started here carries a mark in its environment; leaving the lab, by whatever way, ends what carries it and
removes the folder. What a killed bench left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from provision.core.errors import ProvisionError
from provision.core.locks import exclusive
from provision.mongodb import binaries
from provision.mongodb.binaries import Mongod
from provision.settings.loading import Loaded
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings
from provision.state.process_identity import identity_of, signalled

T = TypeVar("T")
MARK = "FLASKBOOK_BENCH"
_LIMIT_SECONDS = 900.0
_POLL_SECONDS = 0.01
_END_SECONDS = 30.0
_TAIL_LINES = 15
# What would steer our processes or the compared ones away from what a new terminal gives them.
_FOREIGN = ("PYTHON", "VIRTUAL_ENV", "FLASK_", "WERKZEUG_", "MONGO", "SECRET_KEY", "PROVISION_")


@dataclass(frozen=True)
class Done:
    """A process that has ended as expected: wall seconds from its start to its end, and what it printed."""

    seconds: float
    output: str


@dataclass(frozen=True)
class Project:
    """A copy of the project that has been set up.

    Args:
        paths: of the copy.
        mongod: the one that its `setup` chose.
    """

    paths: Paths
    mongod: Mongod

    @property
    def python(self) -> Path:
        return self.paths.env / "bin" / "python"


class Lab:
    """Use as a context manager. A second bench of the same clone waits for the first.

    Args:
        loaded: settings of the project that is measured.
        say: told what takes long.
    """

    def __init__(self, loaded: Loaded, say: Callable[[str], None]) -> None:
        self._loaded = loaded
        self._say = say
        self._project: Project | None = None
        self._exit = contextlib.ExitStack()
        self._kept: dict[str, Any] = {}
        self.folder = Path()
        self.node: DeploymentSettings
        self.app_port = self.floor_port = 0

    def __enter__(self) -> Self:
        paths = self._loaded.paths
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Started in the background by a shell. Processes inherit that, but one that is measured has to take a
            # Ctrl-C; a handler they do not inherit.
            signal.signal(signal.SIGINT, lambda _number, _frame: None)
        with contextlib.ExitStack() as entering:
            scratch = paths.benchmarks
            for folder in (paths.state, scratch):
                folder.mkdir(mode=0o700, exist_ok=True)
            entering.enter_context(exclusive(paths.lock("bench"), "measuring", self._say))
            for left in scratch.iterdir():
                _remove(left)
            self.folder = Path(tempfile.mkdtemp(dir=scratch))
            entering.callback(_remove, self.folder)
            port, self.app_port, self.floor_port = free_ports(3)
            configured = self._loaded.deployment("local")
            self.node = replace(configured, port=port, replica_set=configured.replica_set or "rs0")
            self._exit = entering.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave behind what the first one is cleaning up.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._exit.close()
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def mongod_version(self) -> str | None:
        """The version of the mongod that was measured; None where no subject needed one."""
        return self._project.mongod.version if self._project else None

    @property
    def factory(self) -> str:
        """The app that the project's settings name."""
        return self._loaded.settings.app.factory

    @property
    def image(self) -> str:
        """The Docker image that the project's settings name."""
        return self._loaded.settings.mongodb.image

    @property
    def environment(self) -> dict[str, str]:
        """Of every process here: the user's own, with the scratch ports and folders, and our mark."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        kept["PATH"] = os.pathsep.join(
            folder
            for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
            if folder != str(Path(sys.prefix) / "bin")  # of an env/ that was activated
        )
        path = self._loaded.settings.mongodb.path
        own_mongod = {"INVOKE_MONGODB_PATH": str(self._loaded.paths.under_root(path))} if path else {}
        return {
            **kept,
            **own_mongod,
            "XDG_STATE_HOME": str(self.folder / "state"),  # the user's list of environments stays as it is
            "INVOKE_ISOLATED": "0",
            "INVOKE_PATHS_DATA": "data",
            "INVOKE_PATHS_LOG": "log",
            "INVOKE_PATHS_CACHE": str(self._loaded.paths.cache),
            "INVOKE_APP_PORT": str(self.app_port),
            "INVOKE_DEPLOYMENTS_LOCAL_PORT": str(self.node.port),
            "INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET": str(self.node.replica_set),
            MARK: str(self.folder),
        }

    def project(self) -> Project:
        """A copy of the project that is set up, made at the first call.

        Raises:
            ProvisionError: its `setup` failed.
        """
        if self._project is None:
            self._say("Setting up a copy of the project to measure")
            root = self.copy("project")
            self.run(["./invoke", "setup"], root)
            paths = Paths.of(root, "data", "log", str(self._loaded.paths.cache))
            mongodb = self._loaded.settings.mongodb
            if mongodb.path:
                mongodb = replace(mongodb, path=str(self._loaded.paths.under_root(mongodb.path)))
            mongod = binaries.recorded(paths, mongodb)
            if mongod is None:
                raise ProvisionError(
                    "setting up a copy of the project to measure",
                    "Its setup recorded no mongod.",
                    "Type `invoke doctor`.",
                )
            self._project = Project(paths, mongod)
        return self._project

    def copy(self, name: str) -> Path:
        """A fresh copy of the project's files as they are now, as a new clone would have them.

        Args:
            name: of its folder; one that is there is replaced.

        Returns:
            The folder; remove it with `discard`, or leave it to the end.
        """
        paths = self._loaded.paths
        made = {paths.env, paths.data, paths.log, paths.state, paths.node_conf("local", "mongod")}
        made.add(paths.root / ".git")

        def not_in_a_clone(folder: str, names: list[str]) -> set[str]:
            return {
                each
                for each in names
                if Path(folder) / each in made
                or each == "__pycache__"
                or (each.startswith(".") and each.endswith("_cache"))
            }

        copy = self.emptied(name)
        shutil.copytree(paths.root, copy, ignore=not_in_a_clone, symlinks=True, dirs_exist_ok=True)
        return copy

    def keep(self, name: str, make: Callable[[], contextlib.AbstractContextManager[T]]) -> T:
        """What several subjects share: made at the first call, ended with the lab.

        Args:
            name: what to call it.
            make: makes it, and ends it.
        """
        if name not in self._kept:
            self._kept[name] = self._exit.enter_context(make())
        return self._kept[name]  # type: ignore[no-any-return]

    def discard(self, folder: Path) -> None:
        """Remove a folder of this lab."""
        shutil.rmtree(folder)

    def emptied(self, name: str) -> Path:
        """An empty folder of this lab, whatever was in it."""
        folder = self.folder / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def run(
        self, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, status: int = 0
    ) -> Done:
        """Run a process to its end, and time it from outside.

        Args:
            argv: program and arguments.
            folder: where it runs.
            env: variables beside those of the lab.
            status: the exit status it must end with.

        Raises:
            ProvisionError: it ended with another, or not at all.
        """
        with self.started(argv, folder, env) as process:
            process.wait()
            done = Done(process.seconds, process.output())
            if process.status != status:
                raise process.failure(f"It ended with status {process.status} instead of {status}.")
            return done

    @contextlib.contextmanager
    def started(
        self, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> Iterator[Running]:
        """A running process, killed at the end of the block if it runs still.

        Args:
            argv: program and arguments.
            folder: where it runs.
            env: variables beside those of the lab.
        """
        with tempfile.TemporaryFile(dir=self.folder) as output:
            begun = time.perf_counter()
            try:
                process = subprocess.Popen(
                    list(argv),
                    cwd=folder,
                    env={**self.environment, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is ours to pass on
                )
            except OSError as error:
                raise ProvisionError(
                    f"running {' '.join(argv)}", f"{error.strerror}.", "Type `invoke doctor`."
                ) from None
            watchdog = threading.Timer(_LIMIT_SECONDS, process.kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                yield Running(list(argv), process, output.fileno(), begun)
            finally:
                watchdog.cancel()
                process.kill()
                process.wait()

    def reset(self) -> None:
        """End all processes that were started here: what a failed trial has left does not disturb the next."""
        _end_marked(self.folder)

    def end(self, pid: int, gently: bool = False) -> None:
        """End a process of this lab that is not our child, and wait until it has.

        Args:
            pid: its process id.
            gently: let it shut down properly, because its data are used again.
        """
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if gently:
                process.terminate()
            else:
                process.kill()
            process.wait(_END_SECONDS)


class Running:
    """A process that `Lab.started` has started."""

    def __init__(self, argv: list[str], process: subprocess.Popen[bytes], output: int, begun: float) -> None:
        self._argv = argv
        self._process = process
        self._output = output
        self._begun = begun
        self.seconds = 0.0

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def wait(self) -> None:
        """Wait for its end; `seconds` is then how long it took."""
        # Popen.wait with a timeout looks only every 50 ms; the watchdog is the timeout.
        self._process.wait()
        self.seconds = time.perf_counter() - self._begun

    def until_ok(self, port: int, path: str) -> float:
        """Ask over HTTP every 10 ms until the answer is 200.

        Args:
            port: on the loopback address.
            path: what to ask for.

        Returns:
            Seconds from the start of the process to the answer.

        Raises:
            ProvisionError: the process ended before.
        """
        while self.status is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_END_SECONDS)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == http.client.OK:
                    return time.perf_counter() - self._begun
            except (OSError, http.client.HTTPException):
                pass  # nobody listens yet
            finally:
                connection.close()
            time.sleep(_POLL_SECONDS)
        raise self.failure(f"It ended with status {self.status} before it answered.")

    def interrupt(self) -> None:
        """Do what Ctrl-C does, and wait for the end."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait()

    def output(self) -> str:
        """What it has printed, both streams."""
        size = os.fstat(self._output).st_size
        return os.pread(self._output, size, 0).decode(errors="replace")

    def failure(self, why: str) -> ProvisionError:
        """The error for a process that did not do what was expected."""
        tail = "\n".join(self.output().strip().splitlines()[-_TAIL_LINES:])
        return ProvisionError(
            f"measuring {' '.join(self._argv)}", f"{why}\n{tail}".strip(), "Run that command by hand."
        )


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback address that nobody holds now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _remove(folder: Path) -> None:
    _end_marked(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _end_marked(folder: Path) -> None:
    """End all processes that carry the mark of a lab's folder, and theirs, which inherit it."""
    import psutil

    # Twice: one that was being started while the first list was made is on the second.
    for _ in range(2):
        marked = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                    marked.append(identity_of(process.pid))
        signalled([each for each in marked if each is not None], _END_SECONDS, signal.SIGKILL)
