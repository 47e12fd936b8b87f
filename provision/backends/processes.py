"""Nodes as plain processes on this machine."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.backends.base import Observed
from provision.backends.folders import FoldersHere, OpenedFolder
from provision.core.errors import ProvisionError
from provision.core.files import write_if_changed
from provision.core.locks import is_held
from provision.mongodb.config import Layout
from provision.mongodb.topology import LOOPBACK, Node
from provision.settings.capabilities import BACKENDS
from provision.settings.paths import Paths
from provision.state import records
from provision.state.process_identity import (
    ProcessIdentity,
    identity_of,
    is_recorded_alive,
    is_stopped,
    require_processes,
    signalled,
    variable_of,
)

# Marks a process as ours, so that one whose record was lost in a crash is found again.
MARK = "PROVISION_NODE"
_KILL_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
# Nodes outlive the process that started them. A Popen that is collected while its process runs takes that for an oversight.
_OUTLIVING: list[subprocess.Popen[bytes]] = []
_STOP_SECONDS = 30.0


class Processes:
    """The processes back end of one deployment.

    Args:
        environment: variables that these need on this machine.
        key_file: `security.keyFile` of every node; None: no authentication.
    """

    name = "processes"
    capabilities = BACKENDS["processes"]

    def __init__(
        self,
        deployment: str,
        paths: Paths,
        mongod: Path | None,
        mongos: Path | None = None,
        environment: Mapping[str, str] | None = None,
        key_file: Path | None = None,
    ) -> None:
        self._deployment = deployment
        self._paths = paths
        self._mongod = mongod
        self._mongos = mongos
        self._environment = dict(environment or {})
        self._key_file = key_file
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._proved: dict[str, int] = {}

    def folders(self) -> FoldersHere:
        return FoldersHere(self._paths, self._deployment)

    def layout(self, node: Node) -> Layout:
        return Layout(
            data=str(self._paths.node_data(self._deployment, node.name)),
            log=str(self._paths.node_log(self._deployment, node.name)),
            bind_ip=LOOPBACK,
            key_file=str(self._key_file) if self._key_file else None,
        )

    def address(self, node: Node) -> tuple[str, int]:
        return LOOPBACK, node.port

    def machine(self, node: Node) -> str | None:
        return None

    def advertised_names_resolve(self, nodes: Sequence[Node]) -> bool:
        return True

    def configure(self, node: Node, text: str) -> bool:
        return write_if_changed(self._paths.node_conf(self._deployment, node.name), text)

    def launch(self, nodes: Sequence[Node], checked: Callable[[], None] = lambda: None) -> None:
        missing = [node for node in nodes if not self.observe(node).running]
        for node in missing:
            self.program(node)
            self._make_room(node)
        checked()
        # All of them first: what a record needs to be written takes longer than starting a process.
        for node in missing:
            self._spawn(node)
        for node in missing:
            self._record(node, self._children[node.name].pid)

    def observe(self, node: Node) -> Observed:
        child = self._children.get(node.name)
        if child is not None:
            status = child.poll()
            return Observed(status is None, child.pid, status)
        require_processes(f"looking for {node.name} of {self._deployment}")
        record = records.NODE.load(self._paths.node_record(self._deployment, node.name))
        if record is not None and is_recorded_alive(record) and self._may_be_ours(int(record["pid"]), node):
            return Observed(True, int(record["pid"]))
        if (pid := self._orphan(node, record)) is not None:
            self._record(node, pid)
            return Observed(True, pid)
        return Observed(False)

    def answers(self, node: Node, process_id: Callable[[], int]) -> bool | None:
        # A process that has answered once has the port until it ends: it needs no second proof.
        if (observed := self.observe(node)).running and self._proved.get(node.name) == observed.pid:
            return True
        answering = process_id()
        observed = self.observe(node)
        if not observed.running or observed.pid is None:
            return False
        if answering != observed.pid and not _descends(answering, observed.pid):
            return False
        self._proved[node.name] = observed.pid
        return True

    def port_held(self, node: Node) -> ProvisionError | None:
        holder = port_holder(LOOPBACK, node.port, but=self.observe(node).pid)
        if holder is None:
            return None
        return ProvisionError(
            f"starting {node.name} of {self._deployment} on port {node.port}",
            f"Port {node.port} is held by {holder}, which this tool did not start and will not touch.",
            f"Stop it, or choose another port: deployments.{self._deployment}.port in invoke.yaml\n"
            f"(for once: INVOKE_DEPLOYMENTS_{self._deployment.upper().replace('-', '_')}_PORT={node.port + 1}).",
        )

    def observe_all(self, nodes: Sequence[Node]) -> dict[str, Observed]:
        return {node.name: self.observe(node) for node in nodes}

    def terminate(self, nodes: Sequence[Node], timeout: float) -> None:
        # A paused one would not notice the first.
        stubborn = signalled(self._identities(nodes), timeout, signal.SIGTERM, signal.SIGCONT)
        signalled(stubborn, _KILL_SECONDS, signal.SIGKILL)
        self.forget(nodes)

    def kill(self, node: Node) -> None:
        signalled(self._identities([node]), _KILL_SECONDS, signal.SIGKILL)
        self.forget([node])

    def _identities(self, nodes: Sequence[Node]) -> list[ProcessIdentity]:
        """The processes of those nodes that run."""
        observed = self.observe_all(nodes).values()
        found = [identity_of(each.pid) for each in observed if each.running and each.pid is not None]
        return [identity for identity in found if identity is not None]

    def pause(self, node: Node, paused: bool) -> None:
        import psutil

        observed = self.observe(node)
        try:
            if observed.pid is None or not observed.running:
                raise psutil.NoSuchProcess(0)
            process = psutil.Process(observed.pid)
            process.suspend() if paused else process.resume()
        except psutil.NoSuchProcess:
            raise ProvisionError(
                f"{'pausing' if paused else 'resuming'} {node.name} of {self._deployment}",
                "It does not run.",
                f"Start it: invoke cluster.start {node.name} --on {self._deployment}",
            ) from None

    def is_paused(self, node: Node) -> bool:
        pid = self.observe(node).pid
        return pid is not None and is_stopped(pid)

    def release(self, node: Node) -> bool:
        if not self.is_paused(node):
            return False
        self.pause(node, False)
        return True

    def remove(self, nodes: Sequence[Node], data: bool, at_once: bool = False) -> None:
        self.terminate(nodes, 0.0 if at_once else _STOP_SECONDS)
        for node in nodes:
            if data:
                shutil.rmtree(self._paths.node_data(self._deployment, node.name), ignore_errors=True)

    def started_by_hand(self, node: Node) -> int | None:
        """The pid of a mongod that this tool did not start, on this node's data; None: there is none."""
        return (
            None
            if self.observe(node).running
            else data_user(self._paths.node_data(self._deployment, node.name))
        )

    def forget(self, nodes: Sequence[Node]) -> None:
        """Drop the records of nodes that have ended."""
        for node in nodes:
            if (child := self._children.pop(node.name, None)) is not None:
                child.wait()
            self._paths.node_record(self._deployment, node.name).unlink(missing_ok=True)

    def log_tail(self, node: Node, lines: int) -> list[str]:
        from provision.mongodb.logs import follow, with_printed

        logged, printed = (
            follow(path(self._deployment, node.name), stop=lambda: True, last=lines)
            for path in (self._paths.node_log, self._paths.node_output)
        )
        return with_printed(logged, printed)[-lines:]

    def follow_log(self, node: Node, lines: int) -> Iterator[str]:
        from provision.mongodb.logs import follow

        path = self._paths.node_log(self._deployment, node.name)
        return follow(path, stop=lambda: False, last=lines)

    def _make_room(self, node: Node) -> None:
        """Directories the node can write, and a port that is free; an error before anything has started."""
        doing = f"starting {node.name} of {self._deployment} on port {node.port}"
        data = self._paths.node_data(self._deployment, node.name)
        for directory, key in (
            (data, "paths.data"),
            (self._paths.node_log(self._deployment, node.name).parent, "paths.log"),
        ):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                writable = os.access(directory, os.W_OK | os.X_OK) and not _read_only(directory)
                cause = f"{directory} is not writable for {_user()}."
                if writable and _is_full(directory):
                    raise ProvisionError(
                        doing,
                        f"The disk that holds {directory} is full.",
                        f"Free some space, or choose another directory: {key} in invoke.yaml.",
                    )
            except OSError as error:
                writable, cause = False, f"{directory} cannot be made: {error.strerror}."
            if not writable:
                raise ProvisionError(
                    doing,
                    cause,
                    f"Give yourself rights to it, or choose another directory: {key} in invoke.yaml.",
                )
        if (held := self.port_held(node)) is not None:
            raise held

    def _spawn(self, node: Node) -> None:
        output = self._paths.node_output(self._deployment, node.name)
        # A reader who finds this record and no other knows that we were stopped halfway, and looks for the process.
        records.NODE.store(self._paths.node_record(self._deployment, node.name), {"launching": True})
        with output.open("wb") as sink:
            child = subprocess.Popen(
                [
                    str(self.program(node)),
                    "--config",
                    str(self._paths.node_conf(self._deployment, node.name)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._paths.root,
                env={**os.environ, **self._environment, MARK: self._mark(node)},
            )
        self._children[node.name] = child
        _OUTLIVING[:] = [each for each in _OUTLIVING if each.poll() is None] + [child]

    def open_folder(self, folder: Path, name: str, options: Sequence[str]) -> OpenedFolder:
        """See `folders.OpenedFolder`."""
        if self._mongod is None:
            raise ProvisionError(
                "opening a copy of the data", "No mongod has been chosen yet.", "Type `invoke setup` first."
            )
        port = _free_port()
        process = subprocess.Popen(
            [
                *(str(self._mongod), "--dbpath", str(folder / name), "--logpath", str(folder / f"{name}.log")),
                *("--bind_ip", LOOPBACK, "--port", str(port), *options),
                *(("--keyFile", str(self._key_file)) if self._key_file else ()),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **self._environment}, preexec_fn=_die_with_parent,
        )  # fmt: skip

        def remove() -> None:
            process.kill()
            process.wait()

        return OpenedFolder(process, lambda: port, process.terminate, remove)

    @property
    def run_environment(self) -> Mapping[str, str]:
        """The variables that its mongod needs on this machine."""
        return self._environment

    def program(self, node: Node) -> Path:
        """The mongod or mongos that a node runs.

        Raises ProvisionError: none has been chosen, or there is no mongos.
        """
        binary = self._mongos if node.is_router else self._mongod
        if binary is not None:
            return binary
        doing = f"starting {node.name} of {self._deployment}"
        if self._mongod is None:
            raise ProvisionError(doing, "No mongod has been chosen yet.", "Type `invoke setup` first.")
        raise ProvisionError(
            doing,
            f"A sharded cluster needs mongos, and there is none beside {self._mongod}.",
            "MongoDB's archive has both: set mongodb.source to archive in invoke.yaml, or mongodb.path to a mongod that "
            "has mongos beside it.\nOr use a replica set, which needs no mongos: "
            f"invoke cluster.up --topology replica-set --backend processes --on {self._deployment}\n"
            f"Or use Docker: invoke cluster.up --backend docker --on {self._deployment}",
        )

    def _mark(self, node: Node) -> str:
        return f"{self._paths.root}:{self._deployment}:{node.name}"

    def _record(self, node: Node, pid: int) -> None:
        identity = identity_of(pid)
        if identity is not None:
            records.NODE.store(
                self._paths.node_record(self._deployment, node.name),
                {**identity.as_record(), "mongod": str(self.program(node)), "port": node.port},
            )

    def _orphan(self, node: Node, record: Mapping[str, Any] | None) -> int | None:
        """A process of ours whose pid no record tells.

        Where its record was lost, mongod's own `mongod.lock` in the data directory has the pid. Where we were
        stopped between starting it and writing that down, it may not have got that far: then every process is
        asked for the mark in its environment, which says whose it is.
        """
        if record is not None and record.get("launching"):
            import psutil

            return next((pid for pid in psutil.pids() if self._carries_mark(pid, node)), None)
        pid = lock_pid(self._paths.node_data(self._deployment, node.name))
        return pid if pid is not None and self._carries_mark(pid, node) else None

    def _carries_mark(self, pid: int, node: Node) -> bool:
        try:
            return variable_of(pid, MARK) == self._mark(node)
        except ProcessLookupError:
            return False

    def _may_be_ours(self, pid: int, node: Node) -> bool:
        """Whether the mark, where it can be read, speaks for a process that fits the record.

        A record of an earlier version can fit by chance, where the clock was set back. The project's directory is not
        compared: it may have been moved since. A zombie, whose threads still end, shows no environment.
        """
        try:
            mark = variable_of(pid, MARK)
        except ProcessLookupError:
            return False
        return mark is None or mark.endswith(f":{self._deployment}:{node.name}")


def port_holder(host: str, port: int, but: int | None = None) -> str | None:
    """Who listens on a port of this machine.

    Args:
        host: the address that someone wants to listen on.
        but: a process that may; its children may, too.

    Returns:
        None if the port is free, or that process has it; else a phrase:
        ``"mongod (process 4711): mongod -f /etc/mongod.conf"``.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        return None
    except PermissionError:
        return "the system, which keeps ports below 1024 for root"
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # the address is not this machine's: nobody holds a port of it
            return None
    import psutil

    try:
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:  # macOS, for other users' processes
        listening = []
    for each in listening:
        if each.laddr and each.laddr.port == port and each.pid:
            if but is not None and (each.pid == but or _descends(each.pid, but)):
                return None
            try:
                process = psutil.Process(each.pid)
                return f"{process.name()} (process {each.pid}): {_shortened(' '.join(process.cmdline()))}"
            except psutil.Error:
                return f"process {each.pid}"
    return "a process of another user"


def _descends(pid: int, ancestor: int) -> bool:
    """Whether a process was started by another one: a script may stand in front of a mongod."""
    import psutil

    try:
        return any(parent.pid == ancestor for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return False


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def lock_pid(data: Path) -> int | None:
    """The process that a data directory's ``mongod.lock`` names; None: none, it was shut down cleanly."""
    try:
        return int((data / "mongod.lock").read_text(encoding="ascii").strip() or 0) or None
    except (OSError, ValueError):
        return None


def data_user(data: Path) -> int | None:
    """The mongod that uses a data directory now; None: none does.

    A mongod holds a lock on its ``mongod.lock`` as long as it lives. The pid in that file may long be that of another
    mongod, after a crash.
    """
    pid, lock = lock_pid(data), data / "mongod.lock"
    if pid is None:
        return None
    return pid if (is_held(lock) if os.access(lock, os.R_OK) else _is_mongod(pid)) else None


def _is_mongod(pid: int) -> bool:
    """Whether a process runs and is a mongod, as far as can be told."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        words = process.cmdline()
        return "mongod" in process.name() or bool(words and "mongod" in Path(words[0]).name)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _read_only(directory: Path) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _is_full(directory: Path) -> bool:
    disk = os.statvfs(directory)
    return disk.f_blocks > 0 and (disk.f_bfree if os.getuid() == 0 else disk.f_bavail) == 0


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """A process that was killed leaves no mongod behind. Linux alone has this."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
