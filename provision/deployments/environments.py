"""Every environment of this user on this machine, for `invoke ps`. Reads, never changes.

It reads the list of environments, what is on record below each folder, and the processes; no other project's settings.
Docker is asked once, and only where a deployment is in it.
"""

from __future__ import annotations

import resource
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from provision.core.dataclass import dataclass
from provision.settings.capabilities import BACKENDS
from provision.settings.paths import Paths
from provision.state import records, slots
from provision.state.checkout import checkout_of
from provision.state.process_identity import is_recorded_alive
from provision.state.slots import AppUp, DeploymentUp, Entry

_STATM = Path("/proc/self/statm")  # Linux has it
_DOCKER_SECONDS = 0.3
_CGROUPS = (
    "system.slice/docker-{}.scope/memory.current",
    "docker/{}/memory.current",
    "memory/docker/{}/memory.usage_in_bytes",
    "memory/system.slice/docker-{}.scope/memory.usage_in_bytes",
)
_FORMAT = "\t".join(
    (
        "{{.ID}}",
        "{{.State}}",
        *(
            f'{{{{.Label "com.docker.compose.{each}"}}}}'
            for each in ("project", "service", "project.working_dir")
        ),
    )
)


@dataclass(frozen=True)
class DeploymentThere:
    """A deployment that was brought up; `running` of its `nodes` run. `state`: running, partly, stopped or unknown.

    `uri` has no password.
    """

    name: str
    backend: str
    state: str
    nodes: int
    running: int
    uri: str


@dataclass(frozen=True)
class Environment:
    """A project's folder; `gone`: it was deleted. `slot` is null where its ports are those that its settings name.

    `memory` is in bytes, of the processes and containers that run; null: it is not known. `last_used` is a day.
    """

    folder: str
    project: str
    branch: str | None
    slot: int | None
    gone: bool
    deployments: list[DeploymentThere]
    apps: list[str]
    memory: int | None
    last_used: str


def environments() -> list[Environment]:
    """Every environment, by its folder.

    Raises ProvisionError: the list is damaged, or this machine does not show its processes.
    """
    entries = slots.read()
    machine = _Machine()
    return [machine.look(entry) for _, entry in sorted(entries.items())]


class _Machine:
    """What runs here; what is slow to ask is asked once, when it is needed."""

    def look(self, entry: Entry) -> Environment:
        gone = entry.is_gone
        found = [self._deployment(entry, name, up) for name, up in entry.deployments.items()]
        apps = [each for each in entry.apps if each.alive]
        memory = [*(size for _, sizes in found for size in sizes), *map(self._app_memory, apps)]
        return Environment(
            str(entry.root),
            entry.project,
            entry.branch if gone else _branch(entry.root),
            entry.slot,
            gone,
            [there for there, _ in found],
            [each.address for each in apps],
            None if None in memory else sum(size for size in memory if size is not None),
            entry.last_used,
        )

    def _deployment(
        self, entry: Entry, name: str, up: DeploymentUp
    ) -> tuple[DeploymentThere, Sequence[int | None]]:
        sizes: Sequence[int | None] = []
        count = len(up.nodes)
        if BACKENDS[up.backend].containers:
            listed = self._containers
            if listed is None:
                return DeploymentThere(name, up.backend, "unknown", count, 0, up.uri), [None]
            alive = listed[up.compose or "", str(entry.root)]
            sizes = [_container_memory(each) for each in alive]
        elif BACKENDS[up.backend].local:
            nodes = node_records(entry, name, up)
            pids = [int(each["pid"]) for each in nodes.values() if is_recorded_alive(each)]
            count, sizes = len(nodes), [memory_of(pid) for pid in pids]
        else:
            return DeploymentThere(name, up.backend, "unknown", count, 0, up.uri), []
        state = "stopped" if not sizes else "running" if len(sizes) >= count else "partly"
        return DeploymentThere(name, up.backend, state, count, len(sizes), up.uri), sizes

    def _app_memory(self, app: AppUp) -> int:
        pid = int(app.process["pid"])
        return sum(memory_of(each) or 0 for each in (pid, *descendants(pid, self._children)))

    @cached_property
    def _children(self) -> Mapping[int, Sequence[int]]:
        return children()

    @cached_property
    def _containers(self) -> Mapping[tuple[str, str], list[str]] | None:
        """Compose project and folder → the ids of its containers that run; None: Docker does not answer at once."""
        try:
            ran = subprocess.run(
                ["docker", "container", "ls", "--no-trunc", "--format", _FORMAT,
                 "--filter", "label=com.docker.compose.project"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DOCKER_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        if ran.returncode != 0:
            return None
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for line in ran.stdout.splitlines():
            identity, _, project, _, directory = line.split("\t", 4)
            found[project, directory].append(identity)
        return found


def node_records(entry: Entry, name: str, up: DeploymentUp) -> dict[str, Mapping[str, Any]]:
    """Node name → the record of its process: below the folder where that is there, else as it was brought up."""
    found = {each.name: each.process or {} for each in up.nodes}
    paths = Paths.of(entry.root, "data", "log", None)
    for file in records.NODE.files(paths, name):
        found[file.stem] = records.NODE.load(file) or {}
    return found


def memory_of(pid: int) -> int | None:
    """Resident memory of a process, in bytes; None: it is gone, or not shown."""
    if _STATM.exists():  # read in a hundredth of the time that psutil takes to be imported
        try:
            pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
            return int(pages) * resource.getpagesize()
        except (OSError, IndexError, ValueError):
            return None
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def children() -> Mapping[int, Sequence[int]]:
    """Process id → those of its children."""
    import psutil

    found: dict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        found[process.info["ppid"]].append(process.pid)
    return found


def descendants(pid: int, of: Mapping[int, Sequence[int]]) -> Iterator[int]:
    """The children of a process, and theirs."""
    for child in of.get(pid, ()):
        yield child
        yield from descendants(child, of)


def _container_memory(identity: str) -> int | None:
    for place in _CGROUPS:
        try:
            return int(Path("/sys/fs/cgroup", place.format(identity)).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return None


def _branch(root: Path) -> str | None:
    checkout = checkout_of(root)
    return checkout.branch if checkout else None
