"""What runs of the tool have left on this machine: processes, records, temporary files. Reads, never changes."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from provision.app import app_process
from provision.backends.processes import MARK as NODE_MARK
from provision.core.dataclass import dataclass
from provision.core.locks import is_held
from provision.settings.paths import Paths
from provision.state import records as kinds
from provision.state.process_identity import (
    ProcessIdentity,
    is_alive,
    is_record,
    is_recorded_alive,
    recorded,
)

# A younger temporary file may be that of a command at work in this moment.
_STALE_SECONDS = 60.0
# mkstemp's random part, as `write_atomically` uses it.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")


@dataclass(frozen=True)
class Record:
    """The record of a node that was started."""

    deployment: str  # the node's deployment
    node: str
    pid: int  # the process that was started
    port: int  # the port it was given
    alive: bool  # that very process still runs
    file: Path


@dataclass(frozen=True)
class NodeProcess:
    """A running process that carries this project's mark."""

    deployment: str  # the deployment that it is a node of
    node: str
    pid: int


@dataclass(frozen=True)
class AppProcess:
    """A running app that `invoke run` of this project launched."""

    pid: int
    ports: tuple[int, ...]  # the TCP ports that it listens on
    orphan: bool  # the `invoke run` that launched it is certainly gone


def records(paths: Paths) -> tuple[Record, ...]:
    """Every node's record, also of deployments that the settings no longer name."""
    found = []
    nodes = ((name, file) for name in kinds.deployments(paths) for file in kinds.NODE.files(paths, name))
    for name, file in nodes:
        content = kinds.NODE.load(file)
        if content is None or not is_record(content):
            continue
        port = content.get("port")
        found.append(
            Record(
                name,
                file.stem,
                content["pid"],
                port if isinstance(port, int) else 0,
                is_recorded_alive(content),
                file,
            )
        )
    return tuple(found)


def node_processes(paths: Paths) -> tuple[NodeProcess, ...]:
    """Every process of this user that carries the mark of this project in its environment."""
    import psutil

    found = []
    for process in psutil.process_iter(["uids", "status"]):
        uids = process.info["uids"]
        if uids is None or uids.real != os.getuid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            mark = process.environ().get(NODE_MARK, "")
        except (psutil.Error, OSError):
            continue
        # Names have no colon; a root may have.
        root, *names = mark.rsplit(":", 2)
        if root == str(paths.root) and len(names) == 2:
            found.append(NodeProcess(names[0], names[1], process.pid))
    return tuple(found)


def app_processes(directory: Path) -> tuple[AppProcess, ...]:
    """Every app that `invoke run` launched in a directory."""
    import psutil

    scripts = {str(app_process.FACTORY_SCRIPT), str(app_process.COMMAND_SCRIPT)}
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if not scripts & set((process.info["cmdline"] or ())[1:3]):
            continue
        try:
            if Path(process.cwd()) != directory.resolve():
                continue
            owner = launched_by(process.environ())
            listening = tuple(
                each.laddr.port
                for each in process.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN and each.laddr
            )
        except psutil.Error:
            continue
        found.append(AppProcess(process.pid, listening, orphan=owner is not None and not is_alive(owner)))
    return tuple(found)


def launched_by(environment: Mapping[str, str]) -> ProcessIdentity | None:
    """The `invoke run` that an app's environment names; None: an earlier version's, which did not name itself."""
    try:
        return recorded(json.loads(environment["PROVISION_SERVE"])["owner"])
    except (KeyError, TypeError, ValueError):
        return None


def is_at_work(paths: Paths, deployment: str) -> bool:
    """Whether a command changes a deployment now: its nodes may be between two states."""
    return is_held(paths.lock(f"deployment-{deployment}"))


def temporary_files(paths: Paths) -> tuple[Path, ...]:
    """Files under a temporary name that a killed run left before it could move them into place."""
    return tuple(each for each in sorted(_temporary(paths)) if _is_stale(each))


def stale_downloads(paths: Paths) -> tuple[Path, ...]:
    """Half-made downloads in the cache that nobody is at work on."""
    from provision.mongodb.binaries.cache import Cache

    root = Cache(paths).root
    partial = tuple(sorted(root.glob(".partial-*")))
    return () if not partial or is_held(root / ".lock") else partial


def _temporary(paths: Paths) -> Iterator[Path]:
    for folder, below, names in os.walk(paths.state):
        # A virtualenv's files are not ours to judge.
        below[:] = [name for name in below if Path(folder, name) not in (paths.app_envs, paths.app_env)]
        yield from (Path(folder, name) for name in names if _TEMPORARY.fullmatch(name))
    yield from (each for each in paths.root.glob(".mongod.conf.*") if _TEMPORARY.fullmatch(each.name))
    yield from paths.env.glob(".provision.json.*")


def _is_stale(file: Path) -> bool:
    try:
        facts = file.lstat()
    except OSError:
        return False
    return time.time() - facts.st_mtime > _STALE_SECONDS


def executables() -> list[tuple[int, Path]]:
    """The programs that run, as far as this user may see them."""
    import psutil

    return [
        (each.pid, Path(each.info["exe"])) for each in psutil.process_iter(["exe"]) if each.info.get("exe")
    ]
