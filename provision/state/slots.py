"""Every environment of this user on this machine, in one file of their state directory; and the ports of each.

A project is in it once it has ports of its own, or has brought something up. The file is written under a lock and moved
into place, so it can be read without one. `settings.ports` decides who gets which ports; here is what that needs to know.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.files import write_json
from provision.core.locks import exclusive
from provision.machine.access import base_directory
from provision.settings.paths import Paths
from provision.settings.ports import APP, BLOCKS, Grant, NoRoom, Request, Room, block, free_slot, lay_out
from provision.state.checkout import Checkout, checkout_of
from provision.state.process_identity import ProcessIdentity, identity_of, is_recorded_alive, this_process
from provision.state.remembered import Extent

ISOLATED = "INVOKE_ISOLATED"
_SCHEMA = 1
_LOOPBACK = "127.0.0.1"
_DOING = "looking up which ports are this folder's own"
_NO = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class NodeUp:
    """A node that was started."""

    name: str
    port: int
    process: Mapping[str, Any] | None = None  # which one it is, as a record; None: none of this machine


@dataclass(frozen=True)
class DeploymentUp:
    """A deployment that was brought up."""

    backend: str
    uri: str  # without a password
    nodes: tuple[NodeUp, ...]
    compose: str | None = None  # its compose project

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        nodes = tuple(NodeUp(**each) for each in record["nodes"])
        return cls(record["backend"], record["uri"], nodes, record.get("compose"))

    @property
    def alive(self) -> bool:
        """Whether something of it runs, as far as can be told without asking Docker or a host."""
        if any(each.process for each in self.nodes):
            return any(each.process and is_recorded_alive(each.process) for each in self.nodes)
        return self.compose is not None and any(not _is_free(each.port) for each in self.nodes)


@dataclass(frozen=True)
class AppUp:
    """An `invoke run`, and where its app is served."""

    address: str
    process: Mapping[str, Any]

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return is_recorded_alive(self.process)


@dataclass(frozen=True)
class Entry:
    """One project: a folder with settings."""

    root: Path
    project: str  # its name, as Docker takes it
    slot: int | None = None  # its slot; None: it has the ports that its settings name
    isolated: str = ""  # why it has one without having asked for it
    rooms: Mapping[str, Room] = field(default_factory=dict)
    branch: str | None = None
    first_used: str = ""  # days: ``2026-11-26``
    last_used: str = ""
    deployments: Mapping[str, DeploymentUp] = field(default_factory=dict)  # those that were brought up
    apps: tuple[AppUp, ...] = ()

    @classmethod
    def of(cls, root: str, record: Mapping[str, Any]) -> Self:
        """Read its record.

        Raises KeyError, TypeError, ValueError, AttributeError: it is damaged.
        """
        slot = record["slot"]
        return cls(
            Path(root),
            str(record["project"]),
            None if slot is None else int(slot),
            str(record["isolated"]),
            {name: Room(int(first), int(count)) for name, (first, count) in record["rooms"].items()},
            record["branch"],
            str(record["first_used"]),
            str(record["last_used"]),
            {name: DeploymentUp.of(each) for name, each in record["deployments"].items()},
            tuple(AppUp(each["address"], each["process"]) for each in record["apps"]),
        )

    def as_record(self) -> dict[str, Any]:
        """For the file."""
        record = asdict(self)
        del record["root"]
        return {**record, "rooms": {name: [each.first, each.count] for name, each in self.rooms.items()}}

    @property
    def blocks(self) -> set[int]:
        """The blocks of ports that nobody else may have."""
        own = set() if self.slot is None else {self.slot}
        return own.union(*(each.blocks for each in self.rooms.values()))

    @property
    def is_gone(self) -> bool:
        """Whether its folder was deleted."""
        return not self.root.is_dir()

    @property
    def has_left_something(self) -> bool:
        """Whether anything of a deleted one may be there still."""
        docker = any(each.compose for each in self.deployments.values())
        up = any(each.alive for each in self.deployments.values())
        return docker or up or any(each.alive for each in self.apps)

    def holds(self, ports: range) -> int | None:
        """A port of these that something of it, which runs, listens on; None: none."""
        for up in self.deployments.values():
            held = next((each.port for each in up.nodes if each.port in ports), None)
            if held is not None and up.alive:
                return held
        found = [urlsplit(each.address).port or 0 for each in self.apps if each.alive]
        return next((port for port in found if port in ports), None)


def file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where the slots are; None for a user without a home directory."""
    state = base_directory(os.environ if environ is None else environ, "XDG_STATE_HOME", ".local/state")
    return None if state is None else state / "provision" / "slots.json"


def read() -> dict[Path, Entry]:
    """Every environment, by its folder.

    Raises ProvisionError: the file is damaged, can't be read, or was written by a newer version of the tool.
    """
    path = file()
    if path is None:
        return {}
    doing = f"reading {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError:
        raise _damaged(path, "It is not UTF-8 text") from None
    except OSError as problem:
        raise _unusable(f"{path} can't be read: {problem.strerror}") from None
    try:
        record = json.loads(text)
        schema = record.get("schema", 0)
        if isinstance(schema, int) and schema > _SCHEMA:
            raise ProvisionError(
                doing,
                f"A newer version of this tool has written it (schema {schema}; this one knows {_SCHEMA}).",
                "Use that version in all of your projects.",
            )
        return {Path(root): Entry.of(root, each) for root, each in record["projects"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(path, "It is not what this tool writes") from None


def _damaged(path: Path, why: str) -> ProvisionError:
    aside = shlex.quote(f"{path}.damaged")
    return ProvisionError(
        f"reading {path}",
        f"{why.rstrip('.')}. It says which folder has which ports, and what runs.",
        f"Set it aside: mv {shlex.quote(str(path))} {aside}\n"
        "The next command in each folder writes it anew. Ports of single nodes may change; data stay.",
    )


@contextlib.contextmanager
def changing(doing: str) -> Iterator[dict[Path, Entry]]:
    """Change the entries: what the mapping holds at the end of the block is written. One process at a time.

    Raises ProvisionError: as `read`; or the file can't be written.
    """
    path = file()
    if path is None:
        raise _unusable("You have no home directory, and XDG_STATE_HOME is not set")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = path.with_name("slots.lock")
        lock.touch(0o600)
    except OSError as problem:
        raise _unusable(f"{problem.filename or path.parent}: {problem.strerror}") from None
    with exclusive(lock, doing, lambda _: None):  # it takes a moment
        entries = read()
        before = dict(entries)
        yield entries
        if entries != before:
            try:
                write_json(path, as_file(entries.values()))
            except OSError as problem:
                raise _unusable(f"{path} can't be written: {problem.strerror}") from None


def as_file(entries: Iterable[Entry]) -> dict[str, Any]:
    """What the file has of these entries."""
    return {"schema": _SCHEMA, "projects": {str(each.root): each.as_record() for each in entries}}


def _unusable(why: str) -> ProvisionError:
    return ProvisionError(
        _DOING,
        f"{why}. Which folder has which ports is on record there.",
        "Name a folder that you may write: XDG_STATE_HOME=/path\n"
        f"Or do without ports of its own: set numbers in invoke.yaml, and {ISOLATED}=0.",
    )


def grant(request: Request, remember: bool = True) -> Grant | None:
    """The ports of a folder's own, where its settings ask for `auto` or it needs them; None: it does without.

    `remember`: False: write nothing; what a first command would be given is said, and not kept.

    Raises ProvisionError: there are none, or they can't be put on record.
    """
    root = request.paths.root.resolve()
    checkout = checkout_of(root)
    asked = any(each.usual is None for each in request.needs.values())
    choice = os.environ.get(ISOLATED)
    must = asked or (choice not in _NO if choice is not None else checkout is not None and checkout.linked)
    try:
        entries = read()
    except ProvisionError:
        if must:
            raise
        return None
    why = _why(request, entries, root, checkout, choice)
    if not asked and not why:
        return None
    found = _granted(request, entries, root, checkout, why)
    if not remember or found == entries.get(root):
        return _as_grant(request, found, why)
    with changing("giving a folder ports of its own") as current:
        found = _granted(request, current, root, checkout, why)
        current[root] = found
    return _as_grant(request, found, why)


def _why(
    request: Request,
    entries: Mapping[Path, Entry],
    root: Path,
    checkout: Checkout | None,
    choice: str | None,
) -> str:
    """Why a folder has ports of its own though nobody has asked for them; empty: it has not."""
    if choice is not None:
        return "" if choice.lower() in _NO else ISOLATED
    if root in entries and entries[root].isolated:
        return entries[root].isolated
    if checkout is not None and checkout.linked:
        return "a linked worktree"
    for need in request.needs.values():
        if need.usual is None:
            continue
        ports = range(need.usual, need.usual + need.count)
        if root in entries and entries[root].holds(ports) is not None:
            continue
        for other in entries.values():
            if other.root != root and (held := other.holds(ports)) is not None:
                return f"port {held} is in use by {other.root}"
    return ""


def _granted(
    request: Request, entries: dict[Path, Entry], root: Path, checkout: Checkout | None, why: str
) -> Entry:
    """The folder's entry with all that it needs."""
    today, branch = _today(), checkout.branch if checkout else None
    entry = entries.get(root) or Entry(root, project_name(root, checkout), first_used=today)
    entry = replace(entry, last_used=today, branch=branch, isolated=why or entry.isolated)
    taken = _taken(entries, root)
    fixed, needed, kept = _where_data_are(request), {}, dict(entry.rooms)
    for name, need in request.needs.items():
        if need.usual is not None and not why:
            continue
        port = fixed.get(name)
        room = Room(port, need.count) if port is not None else None
        if room is None or (room.blocks <= set(BLOCKS) and not room.blocks & taken):
            needed[name] = need.count
            if room is not None and (name not in kept or kept[name].first != port):
                kept[name] = room
    try:
        slot = entry.slot
        if slot is None:
            slot = free_slot(taken, _usable, [kept[name] for name in fixed if name in kept])
        rooms = lay_out(slot, needed, kept, taken, _usable)
    except NoRoom as none:
        if any(_may_go(each) for each in entries.values()):
            left = {root: each for root, each in entries.items() if not _may_go(each)}
            entries.clear()
            entries.update(left)
            return _granted(request, entries, root, checkout, why)
        raise _no_room(str(none), needed) from None
    if moved := [name for name in needed if name in fixed and rooms[name].first != fixed[name]]:
        raise _no_room(moved[0], needed)
    return replace(entry, slot=slot, rooms=rooms)


def _as_grant(request: Request, entry: Entry, why: str) -> Grant:
    fixed = {**_where_data_are(request), **_where_it_runs(request, entry)}
    given = {
        name: entry.rooms[name].first
        for name, need in request.needs.items()
        if name in entry.rooms and (need.usual is None or why)
    }
    stays = {name: port for name, port in fixed.items() if given.get(name) != port}
    ports = {name: port for name, port in given.items() if name not in stays}
    if entry.slot is None:
        raise AssertionError("a folder that was given ports has a slot")
    return Grant(entry.slot, entry.project, why, ports, stays)


def _where_data_are(request: Request) -> dict[str, int]:
    """The first ports of those deployments whose data hold their addresses, or are in volumes: these can't move."""
    found = {}
    for name in request.needs:
        extent = None if name == APP else Extent.recorded(request.paths, name)
        if extent is not None and (extent.topology, extent.backend) != ("single", "processes"):
            found[name] = extent.port
    return found


def _where_it_runs(request: Request, entry: Entry) -> dict[str, int]:
    """The ports of what runs now: it moves when it is started again."""
    return {
        name: up.nodes[0].port
        for name, up in entry.deployments.items()
        if name in request.needs and len(up.nodes) == 1 and up.alive
    }


def _taken(entries: Mapping[Path, Entry], root: Path) -> set[int]:
    return set().union(*(each.blocks for other, each in entries.items() if other != root))


def _may_go(entry: Entry) -> bool:
    return entry.is_gone and not entry.has_left_something


def _today() -> str:
    return date.today().isoformat()


def _no_room(name: str, needed: Mapping[str, int]) -> ProvisionError:
    key = "app.port" if name in ("", APP) else f"deployments.{name}.port"
    cause = (
        f"{name} takes {needed[name]} ports that follow each other, and other folders have those."
        if name in needed and name != APP
        else "Other folders have all of them."
    )
    return ProvisionError(
        _DOING,
        cause,
        "See who has them: invoke ps\nFree those whose folder was deleted: invoke clean --gone\n"
        f"Or choose yourself: set {key} in invoke.yaml to a number.",
    )


def _usable(number: int) -> bool:
    return all(map(_is_free, block(number).ports))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def project_name(root: Path, checkout: Checkout | None) -> str:
    """A project's name as Docker takes it: that of the folder, of a linked worktree that of the main one's."""
    name = checkout.repository if checkout is not None and checkout.linked else root.name
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "project"


def came_up(paths: Paths, name: str, up: DeploymentUp) -> None:
    """Put on record that a deployment is up."""
    _note(paths, lambda entry: replace(entry, deployments={**entry.deployments, name: up}))


def went_down(paths: Paths, name: str, forget: bool) -> None:
    """Put on record that nothing of a deployment runs.

    `forget`: nothing of it is left, either: no container, no volume.
    """
    entry = _or_none().get(paths.root.resolve())
    before = entry.deployments.get(name) if entry else None
    if before is None or (before.compose is not None and not forget):
        return

    def without(entry: Entry) -> Entry:
        others = {other: up for other, up in entry.deployments.items() if other != name}
        return replace(entry, deployments=others)

    _note(paths, without)


@contextlib.contextmanager
def serving(paths: Paths, address: str) -> Iterator[None]:
    """For the length of the block, have it on record that this process serves the app."""
    me = AppUp(address, this_process().as_record())
    _note(paths, lambda entry: replace(entry, apps=(*(each for each in entry.apps if each.alive), me)))
    try:
        yield
    finally:
        _note(paths, lambda entry: replace(entry, apps=tuple(each for each in entry.apps if each != me)))


def _note(paths: Paths, change: Callable[[Entry], Entry]) -> None:
    """Change the entry of a project. Where that can't be written it is left out: only looking needs it."""
    root = paths.root.resolve()
    checkout, today = checkout_of(root), _today()
    branch = checkout.branch if checkout else None
    with contextlib.suppress(ProvisionError), changing("noting what runs") as entries:
        entry = entries.get(root) or Entry(root, project_name(root, checkout), first_used=today)
        entries[root] = change(replace(entry, last_used=today, branch=branch))


def _or_none() -> Mapping[Path, Entry]:
    try:
        return read()
    except ProvisionError:
        return {}


def nodes_up(found: Iterable[tuple[str, int, int | None]]) -> tuple[NodeUp, ...]:
    """Nodes by name, port and pid, with what says which process each is."""

    def process(pid: int | None) -> ProcessIdentity | None:
        return None if pid is None else identity_of(pid)

    return tuple(
        NodeUp(name, port, which.as_record() if (which := process(pid)) else None)
        for name, port, pid in found
    )


def forget(roots: Sequence[Path]) -> None:
    """Remove entries; nothing is touched where there are none of these.

    Raises ProvisionError: as `changing`.
    """
    if not read().keys() & set(roots):
        return
    with changing("forgetting folders that were deleted") as entries:
        for root in roots:
            entries.pop(root, None)
