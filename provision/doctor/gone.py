"""What folders that were deleted have left: `invoke clean --gone`. `plan` looks and decides, `carry_out` acts.

A process belongs to such a folder if it is on record as that very process, or carries the folder's mark, or is a mongod
whose data or configuration were below it. A container, network or volume belongs to it if its labels name the folder, or
if a container that they name uses it. What may be the folder's and does not say so stays, and is named.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from provision.backends.compose import OWNER
from provision.backends.processes import MARK
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments.environments import children, descendants
from provision.doctor.clean import Kept
from provision.state import slots
from provision.state.process_identity import ProcessIdentity, identity_of, is_alive, recorded, signalled
from provision.state.slots import Entry

_DOING = "cleaning up after folders that were deleted"
_END_SECONDS = 5.0
_DOCKER_SECONDS = 60
_PROJECT = "com.docker.compose.project"
_DIRECTORY = "com.docker.compose.project.working_dir"
_PROGRAMS = ("mongod", "mongos")


@dataclass(frozen=True)
class Leftover:
    """One thing that a folder has left."""

    kind: str  # ``process``, ``container``, ``network``, ``volume`` or ``entry``
    name: str
    what: str  # for people
    process: ProcessIdentity | None = None

    @property
    def label(self) -> str:
        """What it is called in a list."""
        return self.name if self.kind == "entry" else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class GonePlan:
    """What `carry_out` does."""

    items: tuple[Leftover, ...]
    kept: tuple[Kept, ...]
    roots: tuple[Path, ...]  # the folders whose entries go


def plan() -> GonePlan:
    """Find what deleted folders have left. Changes nothing.

    Raises ProvisionError: the list of environments is damaged.
    """
    items: list[Leftover] = []
    kept: list[Kept] = []
    roots = []
    for root, entry in sorted(slots.read().items()):
        if not entry.is_gone:
            continue
        processes = list(_processes(entry))
        if (place := _moved_to(root, [each.process for each in processes])) is not None:
            kept.append(Kept(root, f"it was moved to {place}, and runs there"))
            continue
        items += processes
        if any(each.compose for each in entry.deployments.values()):
            there = _in_docker(root)
            if there is None:
                kept.append(
                    Kept(root, "Docker does not answer, and its containers and volumes may be there still")
                )
                continue
            items += there
            kept += [Kept(root, why) for why in _perhaps(entry, there)]
        items.append(Leftover("entry", str(root), "its place in the list, and its ports"))
        roots.append(root)
    return GonePlan(tuple(items), tuple(kept), tuple(roots))


def carry_out(plan: GonePlan) -> None:
    """Remove what was planned; each thing only if it still is what was looked at.

    Raises ProvisionError: something can't be removed; the folder's entry is there still.
    """
    _end([each.process for each in plan.items if each.process is not None])
    for kind, options in (("container", ("--force", "--volumes")), ("network", ()), ("volume", ())):
        names = [each.name for each in plan.items if each.kind == kind]
        if names:
            ran = _docker(kind, "rm", *options, *names)
            if ran is None or ran.returncode != 0:
                said = ran.stderr.strip() if ran is not None else "it does not answer"
                raise ProvisionError(
                    _DOING,
                    f"Docker did not remove the {kind}s: {said.rstrip('.')}.",
                    "Correct that, then type `invoke clean --gone` again.",
                )
    slots.forget([root for root in plan.roots if not root.is_dir()])


def _processes(entry: Entry) -> Iterator[Leftover]:
    """The processes that a deleted folder has left, each once."""
    found: dict[int, Leftover] = {}
    for name, up in entry.deployments.items():
        for node in up.nodes:
            identity = recorded(node.process) if node.process else None
            if identity is not None and is_alive(identity):
                found[identity.pid] = _process(identity, f"{node.name} of {name}")
    below = children() if entry.apps else {}
    for app in entry.apps:
        identity = recorded(app.process)
        if identity is None or not is_alive(identity):
            continue
        found[identity.pid] = _process(identity, f"serves the app at {app.address}")
        for child in descendants(identity.pid, below):
            if child not in found and (other := identity_of(child)) is not None:
                found[child] = _process(other, f"of the app at {app.address}")
    for pid, what in _nodes_below(entry.root):
        if pid not in found and (other := identity_of(pid)) is not None:
            found[pid] = _process(other, what)
    yield from found.values()


def _process(identity: ProcessIdentity, what: str) -> Leftover:
    return Leftover("process", str(identity.pid), what, identity)


def _nodes_below(root: Path) -> Iterator[tuple[int, str]]:
    """This user's mongods and routers that carry the folder's mark, or had their data or configuration below it."""
    import psutil

    for process in psutil.process_iter(["name", "uids", "status"]):
        uids = process.info["uids"]
        if process.info["status"] == psutil.STATUS_ZOMBIE or uids is None or uids.real != os.getuid():
            continue
        try:
            # Names have no colon; a folder may have.
            marked, *names = process.environ().get(MARK, "").rsplit(":", 2)
            if marked == str(root) and len(names) == 2:
                yield process.pid, f"{names[1]} of {names[0]}"
            elif not marked and process.info["name"] in _PROGRAMS and _is_below(process, root):
                yield process.pid, f"{process.info['name']}, with data below the folder"
        except (psutil.Error, OSError):
            continue


def _is_below(process: object, root: Path) -> bool:
    """Whether a mongod's arguments name something below a folder, and its data are gone from where it had them."""
    import psutil

    if not isinstance(process, psutil.Process):
        return False
    words = [word.partition("=")[2] or word for word in process.cmdline()[1:]]
    named = any(Path(process.cwd(), word).is_relative_to(root) for word in words if "/" in word)
    return named and not any(Path(each.path).name == "mongod.lock" for each in process.open_files())


def _moved_to(root: Path, processes: Sequence[ProcessIdentity | None]) -> Path | None:
    """Where a folder is now that was moved and not deleted: what was started in it runs there; None: it was deleted."""
    import psutil

    for identity in processes:
        if identity is None:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            place = Path(psutil.Process(identity.pid).cwd())
            if place != root and (place / ".state").is_dir():
                return place
    return None


def _in_docker(root: Path) -> list[Leftover] | None:
    """The containers, networks and volumes that belong to a folder; None: Docker does not answer."""
    labels = "\t".join(f'{{{{.Label "{each}"}}}}' for each in (_PROJECT, _DIRECTORY, OWNER))
    listed = _docker(
        *("container", "ls", "--all", "--no-trunc", "--filter", f"label={_PROJECT}"),
        *("--format", "{{.ID}}\t{{.Names}}\t" + labels),
    )
    if listed is None or listed.returncode != 0:
        return None
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    ours = [row for row in rows if str(root) in (row[3], row[4])]
    # A name is this folder's where all that bears it is.
    projects = {row[2] for row in ours} - {row[2] for row in rows if row not in ours}
    found = [Leftover("container", row[1], f"of {row[2]}") for row in ours]
    volumes, networks = _labelled("volume", root), _labelled("network", root)
    for project in sorted(projects):
        networks |= _listed("network", f"label={_PROJECT}={project}")
        volumes |= _mounted([row[0] for row in ours if row[2] == project]) & _listed(
            "volume", f"label={_PROJECT}={project}"
        )
    found += [Leftover("network", name, "that its containers were in") for name in sorted(networks)]
    found += [Leftover("volume", name, "with its data") for name in sorted(volumes)]
    return found


def _perhaps(entry: Entry, there: Sequence[Leftover]) -> Iterator[str]:
    """What may be a deleted folder's and does not say so: volumes of a name that every clone has."""
    known = {each.name for each in there}
    for up in entry.deployments.values():
        if up.compose is not None:
            for name in sorted(_listed("volume", f"label={_PROJECT}={up.compose}") - known):
                yield f"the volume {name} may hold its data; `docker volume rm {name}` deletes them"


def _labelled(kind: str, root: Path) -> set[str]:
    return _listed(kind, f"label={OWNER}={root}")


def _listed(kind: str, filtered: str) -> set[str]:
    listed = _docker(kind, "ls", "--filter", filtered, "--format", "{{.Name}}")
    return set(listed.stdout.split()) if listed is not None and listed.returncode == 0 else set()


def _mounted(containers: Sequence[str]) -> set[str]:
    looked = _docker("container", "inspect", "--format", "{{json .Mounts}}", *containers)
    if looked is None or looked.returncode != 0:
        return set()
    mounts = [mount for line in looked.stdout.splitlines() for mount in json.loads(line)]
    return {str(each["Name"]) for each in mounts if each.get("Type") == "volume"}


def _docker(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    if shutil.which("docker") is None:
        return None
    try:
        return subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_DOCKER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _end(identities: Sequence[ProcessIdentity]) -> None:
    """End processes: politely, then at once. One whose pid is another process's by now is left alone.

    Raises ProvisionError: one does not end.
    """
    left = signalled(
        identities, _END_SECONDS, signal.SIGTERM, signal.SIGCONT
    )  # a paused one would not notice
    left = signalled(left, _END_SECONDS, signal.SIGKILL)
    if left:
        raise ProvisionError(
            _DOING,
            f"Process {left[0].pid} does not end.",
            f"Look at it: ps -fp {left[0].pid}\nThen type `invoke clean --gone` again.",
        )
