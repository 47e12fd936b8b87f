"""Checks for what crashed runs have left, and of the permissions of secrets."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from provision.backends.processes import data_user, lock_pid
from provision.core.dataclass import dataclass
from provision.core.finding import Finding, error, ok, warning
from provision.deployments import assembly
from provision.doctor.ports import DEFAULT_DEPLOYMENT
from provision.doctor.traces import AppProcess, NodeProcess, Record, is_at_work
from provision.mongodb.diagnosis import explain_corruption, is_corrupt
from provision.mongodb.logs import follow
from provision.settings.loading import Loaded
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings
from provision.state import records, remembered

_LOG_LINES = 400


@dataclass(frozen=True)
class NodeTrace:
    """What is left of a node, or is there of it."""

    deployment: str
    node: str
    configured: bool  # the settings name it
    record: Record | None
    process: int | None  # the process that carries its mark, if there is one
    data: Path  # its data directory
    lock_pid: int | None  # the process that ``mongod.lock`` in it names
    locked: bool  # that one runs and uses the data
    at_work: bool = False  # a command changes the deployment now
    # what its last run or its data directory says of corrupt data, and what can be done; None: nothing
    corrupt: tuple[str, str] | None = None


def read_nodes(
    loaded: Loaded, records: Sequence[Record], processes: Sequence[NodeProcess]
) -> list[NodeTrace]:
    """Every node that the settings name or that has left a trace."""
    configured = {
        (name, node.name)
        for name, settings in loaded.settings.deployments.items()
        for node in assembly.plan(name, _as_it_is(loaded, name, settings)).nodes
    }
    by_record = {(each.deployment, each.node): each for each in records}
    by_process = {(each.deployment, each.node): each.pid for each in processes}
    found = []
    for key in sorted(configured | by_record.keys() | by_process.keys()):
        data = loaded.paths.node_data(*key)
        found.append(
            NodeTrace(
                *key,
                key in configured,
                by_record.get(key),
                by_process.get(key),
                data,
                lock_pid(data),
                data_user(data) is not None,
                is_at_work(loaded.paths, key[0]),
                _corruption(loaded, *key) if key in configured else None,
            )
        )
    return found


def _corruption(loaded: Loaded, name: str, node: str) -> tuple[str, str] | None:
    data = loaded.paths.node_data(name, node)
    if not (data / "WiredTiger").is_file():
        return None
    turtle = data / "WiredTiger.turtle"
    emptied = turtle.is_file() and turtle.stat().st_size == 0
    tail = follow(loaded.paths.node_log(name, node), stop=lambda: True, last=_LOG_LINES)
    if not (emptied or is_corrupt(list(tail))):
        return None
    deployment = assembly.deployment(loaded, name, as_asked=True)
    return explain_corruption(str(data), deployment.salvage(deployment.node(node)))


def _as_it_is(loaded: Loaded, name: str, settings: DeploymentSettings) -> DeploymentSettings:
    """A deployment's settings, with the nodes that an earlier command gave it and that the settings leave out."""
    return remembered.combine(name, settings, remembered.Extent.recorded(loaded.paths, name)).settings


def judge_node(facts: NodeTrace) -> Finding | None:
    """What a crash has left of a node; None: nothing. Pure."""
    name = f"{facts.node} of {facts.deployment}"
    option = "" if facts.deployment == DEFAULT_DEPLOYMENT else f" --on {facts.deployment}"
    record, process = facts.record, facts.process
    if facts.at_work:
        return None
    if record is not None and record.alive:
        if facts.configured:
            return None
        return warning(
            "leftovers",
            f"{name} runs (process {record.pid}), and the settings do not name it: it was started with others.",
            f"To keep it, put {facts.deployment} back into invoke.yaml. If nobody uses it: kill {record.pid}",
        )
    if process is not None:
        return warning(
            "leftovers",
            f"{name} runs (process {process}), and its record was lost in a crash.",
            f"./invoke status{option} takes it back; ./invoke stop{option} ends it"
            if facts.configured and facts.lock_pid == process
            else f"kill {process}",
        )
    if facts.locked:
        level = error if facts.deployment == DEFAULT_DEPLOYMENT else warning
        return level(
            "data in use",
            f"{facts.data} is used by a mongod (process {facts.lock_pid}) that this tool did not start.",
            "End that one if nobody uses it, or use another data directory: paths.data in invoke.yaml\n"
            f"ps -p {facts.lock_pid} -o user,args",
        )
    if facts.corrupt is not None:
        level = error if facts.deployment == DEFAULT_DEPLOYMENT else warning
        return level("data", *facts.corrupt)
    if record is not None:
        return warning(
            "leftovers",
            f"{name} (process {record.pid}) ended without being stopped: a crash, kill -9 or a reboot.",
            f"./invoke start{option} recovers its data; ./invoke stop{option} only clears the record"
            if facts.configured
            else f"rm {shlex.quote(str(record.file))}",
        )
    if facts.lock_pid is not None:
        return warning(
            "leftovers",
            f"{facts.data} was not shut down cleanly. What was acknowledged is in its journal.",
            f"./invoke start{option} recovers it",
        )
    return None


def judge_apps(apps: Iterable[AppProcess]) -> list[Finding]:
    """Apps that have outlived the `invoke run` that launched them. Pure."""
    return [
        warning(
            "leftovers", f"The app (process {each.pid}) has outlived its `invoke run`.", f"kill {each.pid}"
        )
        for each in apps
        if each.orphan
    ]


def judge_files(temporary: Sequence[Path], downloads: Sequence[Path]) -> list[Finding]:
    """Files and directories that killed runs left half made. Pure."""
    findings = []
    if temporary:
        findings.append(
            warning(
                "leftovers",
                f"{len(temporary)} temporary file(s) of runs that were killed.",
                f"rm {shlex.join(map(str, temporary))}",
            )
        )
    if downloads:
        findings.append(
            warning(
                "leftovers",
                f"{len(downloads)} half-made download(s) in the cache; the next download removes them.",
                f"rm -r {shlex.join(map(str, downloads))}",
            )
        )
    return findings


def read_secrets(paths: Paths) -> dict[Path, int]:
    """The private files and directories that are there, with their permission bits."""
    found = {}
    for path in records.private_files(paths):
        try:
            found[path] = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue
    return found


def judge_secrets(modes: dict[Path, int], state: Path) -> list[Finding]:
    """Whether others may read secrets. Pure."""
    open_to_others = {path: mode for path, mode in modes.items() if mode & 0o077}
    if not open_to_others:
        return [ok("secrets", f"{len(modes)} private files and directories, for you alone.")] if modes else []
    return [
        warning(
            "secrets",
            f"Others may read {path} (mode {mode:04o}).",
            f"chmod {'700' if path == state else '600'} {shlex.quote(str(path))}",
        )
        for path, mode in open_to_others.items()
    ]
