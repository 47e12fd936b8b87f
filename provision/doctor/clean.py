"""`invoke clean`: removes what the tool made, and nothing else.

`plan` looks and decides, `carry_out` acts. What is not known for ours stays, and is named with the reason. No
symbolic link is followed below the configured directories. The virtualenv that this runs in goes last, so that
an interrupted run can be typed again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from provision.backends.processes import data_user
from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.doctor import traces
from provision.env import virtualenv
from provision.machine.access import cache_directory, chown
from provision.settings.loading import Loaded
from provision.state import records
from provision.state.records import Lifetime

_DOING = "cleaning"
_CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")
_PACKAGES = ("provision", "flaskbook", "tests", "tools")
_NAMED_AT_MOST = 5
# What a mongod writes into its data directory:
# https://github.com/mongodb/mongo/blob/master/src/mongo/db/storage/README.md
_MONGODS = re.compile(
    r"WiredTiger\S*|(collection|index|internal)-\S+\.wt|(_mdb_catalog|sizeStorer)\.wt|mongod\.lock|storage\.bson"
    r"|metrics\.\S+|_repair_incomplete"
)
_MONGODS_RECORDS = frozenset({"journal", "diagnostic.data"})
# In these, names are those of collections: whatever is in them is a mongod's.
_MONGODS_FOLDERS = _MONGODS_RECORDS | {"_tmp", "rollback", "moveChunk"}


class Way(StrEnum):
    """How something is removed."""

    FILE = "file"
    TREE = "tree"
    DATA = "data"
    ENVIRONMENT = "environment"
    IF_EMPTY = "if empty"


@dataclass(frozen=True)
class Item:
    """One thing to be removed.

    Args:
        what: what it is, for people.
        bytes: what is in it.
        way: how it is removed.
        spared: paths inside it that stay.
    """

    path: Path
    what: str
    bytes: int
    way: Way
    spared: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Kept:
    """One thing that stays though it is where ours are."""

    path: Path
    why: str


@dataclass(frozen=True)
class CleanPlan:
    """What `carry_out` does.

    Args:
        items: what it removes, in this order.
        kept: what stays, and why.
        locks: what other commands hold while they work here.
    """

    loaded: Loaded
    items: tuple[Item, ...]
    kept: tuple[Kept, ...]
    locks: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.items)


def plan(loaded: Loaded, data: bool = False, cache: bool = False) -> CleanPlan:
    """Find what the tool has made. Changes nothing.

    Args:
        data: also the data of the deployments.
        cache: also the downloads that all clones of this user share.

    Raises ProvisionError: a deployment or the app runs.
    """
    _refuse_while_running(loaded)
    search = _Search(loaded)
    search.configurations()
    search.logs()
    search.data(data)
    if cache:
        search.cache()
    search.caches_of_tools()
    search.state(data)
    search.environment()
    return CleanPlan(loaded, tuple(search.items), tuple(search.kept), search.locks())


def confirmed(stdin: IO[str], stderr: IO[str]) -> bool:
    """Ask a person whether to go on; only a yes is one.

    Args:
        stdin: where the answer comes from.
        stderr: where the question goes: standard output is for results.

    Raises ProvisionError: nobody can answer, because it is not a terminal.
    """
    if not stdin.isatty():
        raise ProvisionError(
            _DOING,
            "It asks before it removes anything, and standard input is not a terminal. Nothing was removed.",
            "Type `invoke clean --yes` to remove without being asked, or `invoke clean --dry-run` to only look.",
        )
    stderr.write("Remove all this? [y/N] ")
    stderr.flush()
    return stdin.readline().strip().lower() in ("y", "yes")


def carry_out(plan: CleanPlan) -> None:
    """Remove what was planned.

    What was interrupted before is simply done: everything is looked at again before it is removed. While it
    works, no other command of the tool can start anything in this project.

    Args:
        plan: what to remove.

    Raises:
        ProvisionError: another command is at work, something runs by now, or something can't be removed; what
            was not removed yet is still there.
    """
    # What is imported from now on must not be written beside its source again.
    sys.dont_write_bytecode = True
    with _alone(plan):
        _refuse_while_running(plan.loaded)
        for item in plan.items:
            try:
                _remove(item)
            except OSError as problem:
                where = problem.filename or item.path
                raise ProvisionError(
                    f"removing {item.path}",
                    f"{where}: {problem.strerror or problem}. What comes after it in the list is still there.",
                    f"Give yourself rights to {item.path} ({chown([item.path])}), then type the same again.",
                ) from None


class _Search:
    """Collects what is ours and what is not."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.paths = loaded.paths
        self.items: list[Item] = []
        self.kept: list[Kept] = []
        self.rendered = {name: self._rendered(name) for name in self._deployments()}
        self.with_data: set[str] = set()

    def configurations(self) -> None:
        """The `mongod.conf` at the root; all others are under `.state/`."""
        for name, nodes in self.rendered.items():
            for node in nodes:
                conf = self.paths.node_conf(name, node)
                if conf.is_relative_to(self.paths.state):
                    continue
                if conf.is_symlink():
                    self.kept.append(Kept(conf, "it is a symbolic link"))
                elif conf.is_file():
                    if self._is_as_rendered(name, node, conf):
                        self._add(conf, "configuration, rendered", Way.FILE)
                    else:
                        self.kept.append(Kept(conf, "it was edited by hand"))
                self._keep_edited(conf)
        for file in traces.temporary_files(self.paths):
            if file.parent == self.paths.root:
                self._add(file, "temporary file of a run that was killed", Way.FILE)

    def logs(self) -> None:
        """The log files of every node; what else is beside them stays."""
        for name, nodes in self.rendered.items():
            folder = self.paths.node_log(name, "x").parent
            if not self._is_folder(folder):
                continue
            ours = re.compile(rf"({'|'.join(map(re.escape, nodes)) or 'x'})\.(out|log(\.\S+)?)")
            spared = []
            for entry in sorted(folder.iterdir()):
                if ours.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
                    continue
                spared.append(entry)
            self._name(spared, "it is not a log of a node")
            self._add(folder, f"logs of {name}", Way.TREE, spared)
        self._parent(self.paths.log, "directory of logs")

    def data(self, wanted: bool) -> None:
        """The data directory of every node."""
        for name, nodes in self.rendered.items():
            for node in nodes:
                self._node_data(name, node, wanted)
            folder = self.paths.node_data(name, "x").parent
            if wanted and folder.is_dir() and not folder.is_symlink():
                known = {self.paths.node_data(name, node) for node in nodes}
                others = [entry for entry in sorted(folder.iterdir()) if entry not in known]
                self._name(others, "it is not a data directory of a node")
            if folder.is_dir() and not folder.is_symlink():
                self._parent(folder, f"directory of the data of {name}", anywhere=True)
        if wanted and self.paths.data.is_relative_to(self.paths.root) and self.paths.data.is_dir():
            ours = {self.paths.node_data(name, "x").parent for name in self.rendered}
            others = [entry for entry in sorted(self.paths.data.iterdir()) if entry not in ours]
            self._name(others, "it belongs to no deployment")
        self._parent(self.paths.data, "directory of data")

    def cache(self) -> None:
        """Downloads of MongoDB and uv. Only what has their names: the directory may be shared with others."""
        mongodb = self.paths.cache / "mongodb"
        running = _executables()
        if self._is_folder(mongodb):
            for entry in sorted(mongodb.iterdir()):
                if not _is_download(entry):
                    if entry.name != ".lock":
                        self.kept.append(Kept(entry, "the tool did not download it"))
                elif pid := next((pid for pid, exe in running if exe.is_relative_to(entry.resolve())), None):
                    self.kept.append(Kept(entry, f"process {pid} runs from it"))
                else:
                    self._add(entry, "download of MongoDB, shared by all clones", Way.TREE)
        of_user = cache_directory(os.environ, self.paths.root)
        for folder in dict.fromkeys((self.paths.cache, of_user)):
            own = [folder / "uv"] if folder.is_relative_to(self.paths.state) else []
            for entry in sorted([*folder.glob("uv-*"), *folder.glob(".uv-*"), *own]):
                if entry.is_dir() and not entry.is_symlink():
                    self._add(entry, "download of uv, shared by all clones", Way.TREE)
        if self._is_folder(mongodb) and not any(each.path.parent == mongodb for each in self.kept):
            if (mongodb / ".lock").is_file():
                self._add(mongodb / ".lock", "lock of the downloads", Way.FILE)
            self._add(mongodb, "directory of the downloads", Way.IF_EMPTY)
        if self.paths.cache == of_user:
            self._parent(self.paths.cache, "directory of the cache", anywhere=True)

    def caches_of_tools(self) -> None:
        """What Python, pytest, mypy and ruff keep in the project."""
        root = self.paths.root
        found = [root / name for name in _CACHES] + [root / "__pycache__"]
        for package in _PACKAGES:
            for folder, below, _ in os.walk(root / package):
                found += [Path(folder, name) for name in below if name == "__pycache__"]
        for path in found:
            if path.is_dir() and not path.is_symlink():
                self._add(path, "cache of Python and the test tools", Way.TREE)

    def state(self, data: bool) -> None:
        """Records and secrets. What opens data that stay, stays with them; so does what was edited by hand."""
        state = self.paths.state
        if state.is_symlink() or not state.is_dir():
            if state.is_symlink():
                self.kept.append(Kept(state, "it is a symbolic link"))
            return
        spared: list[Path] = []
        for name, nodes in self.rendered.items():
            reasons = self._reasons(name, data)
            for record in records.every(of_deployment=True):
                if why := reasons.get(record.lifetime):
                    there = record.files(self.paths, name)
                    self.kept += [Kept(file, why) for file in there]
                    spared += there
            folder = self.paths.deployment(name)
            for node in nodes:
                conf = self.paths.node_conf(name, node)
                if conf.parent == folder and conf.is_file() and not self._is_as_rendered(name, node, conf):
                    self.kept.append(Kept(conf, "it was edited by hand"))
                    spared.append(conf)
            for edited in sorted(folder.glob("*.edited")):
                self.kept.append(Kept(edited, "it was edited by hand"))
                spared.append(edited)
        if not spared or _has_more_than(state, spared):
            self._add(state, "records, secrets, virtualenv of the app", Way.TREE, spared)

    def _reasons(self, name: str, data: bool) -> dict[Lifetime, str]:
        """Why records of a deployment are needed still, by how long they are needed."""
        reasons = {}
        where = self._elsewhere(name)
        if where:
            how = f"invoke cluster.down --on {name} --delete-data"
            reasons[Lifetime.DATA] = f"the data of {name} are {where}; `{how}` removes them"
        if where or (name in self.with_data and not data):
            reasons[Lifetime.KEY] = f"it opens the data of {name}, which stay"
        if records.APP.files(self.paths, name):
            how = f"invoke hosts.undeploy {name}"
            reasons[Lifetime.APP] = f"the app of {name} is on its hosts; `{how}` removes it"
        return reasons

    def _elsewhere(self, name: str) -> str:
        """Where a deployment has data that are not in a directory here: ``"in Docker"``; empty: nowhere."""
        if _is_in_docker(self.loaded, name) and records.INITIATED.files(self.paths, name):
            return "in Docker"
        return "on its hosts" if records.PLACEMENT.files(self.paths, name) else ""

    def environment(self) -> None:
        """`env/`, if it is a virtualenv."""
        env = self.paths.env
        if env.is_symlink():
            self.kept.append(Kept(env, "it is a symbolic link"))
        elif env.is_dir():
            made = (env / virtualenv.RECORD).is_file() or (env / "pyvenv.cfg").is_file()
            if made or not any(env.iterdir()):
                self._add(env, "virtualenv", Way.ENVIRONMENT)
            else:
                self.kept.append(Kept(env, "it is not a virtualenv"))

    def locks(self) -> tuple[Path, ...]:
        """The locks of the project; where downloads go, theirs too."""
        names = {self.paths.lock(f"deployment-{name}") for name in self.rendered}
        names |= {self.paths.env_lock, *records.LOCK.files(self.paths)}
        cache = self.paths.cache / "mongodb"
        if any(each.path.parent == cache for each in self.items):
            names.add(cache / ".lock")
        return tuple(sorted(names))

    def _deployments(self) -> list[str]:
        """Those of the settings, and those that the settings no longer name but that have left records."""
        return list(dict.fromkeys([*self.loaded.settings.deployments, *records.deployments(self.paths)]))

    def _rendered(self, name: str) -> dict[str, str | None]:
        """Node → digest of the configuration that was rendered for it; None: not known."""
        settings = self.loaded.settings.deployments.get(name)
        nodes = [each.name for each in assembly.plan(name, settings).nodes] if settings else []
        record = records.RENDERED.read(self.paths, name) or {}
        digests = {
            node: known[1] for node, known in record.items() if isinstance(known, list) and len(known) == 2
        }
        return {node: digests.get(node) for node in dict.fromkeys([*nodes, *digests])}

    def _is_as_rendered(self, name: str, node: str, conf: Path) -> bool:
        try:
            text = conf.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        if hashlib.sha256(text.encode()).hexdigest() == self.rendered[name][node]:
            return True
        if name not in self.loaded.settings.deployments:
            return False
        try:
            deployment = assembly.deployment(self.loaded, name)
            return text == deployment.rendering.render(deployment.node(node))
        except (ProvisionError, OSError):
            return False

    def _keep_edited(self, conf: Path) -> None:
        edited = conf.with_name(conf.name + ".edited")
        if edited.exists():
            self.kept.append(Kept(edited, "it was edited by hand"))

    def _node_data(self, name: str, node: str, wanted: bool) -> None:
        path = self.paths.node_data(name, node)
        if path.parent.is_symlink() or path.is_symlink():
            self.kept.append(Kept(path.parent if path.parent.is_symlink() else path, "it is a symbolic link"))
            return
        if not path.is_dir():
            return
        what = f"data of {node} of {name}"
        holds_data = (path / "WiredTiger").is_file() or (path / "storage.bson").is_file()
        if not holds_data and not any(path.iterdir()):
            self._add(path, what, Way.IF_EMPTY)
            return
        self.with_data.add(name)
        foreign = list(_foreign(path))
        if not wanted:
            self.kept.append(Kept(path, "data stay; --data removes them too"))
        elif (pid := data_user(path)) is not None:
            self.kept.append(Kept(path, f"a mongod uses it (process {pid})"))
        elif foreign and not holds_data:
            self.kept.append(Kept(path, "it holds no data of a mongod"))
        else:
            self._name(foreign, "no mongod made it")
            self._add(path, what, Way.DATA, foreign)

    def _parent(self, path: Path, what: str, anywhere: bool = False) -> None:
        """A directory above what is removed: it goes if nothing stays in it, and if it is inside the project."""
        inside = anywhere or (path.is_relative_to(self.paths.root) and path != self.paths.root)
        if not inside or path.is_symlink() or not path.is_dir():
            return
        going = {each.path for each in self.items if not each.spared}
        if all(entry in going for entry in path.iterdir()):
            self._add(path, what, Way.IF_EMPTY)

    def _is_folder(self, path: Path) -> bool:
        if path.is_symlink():
            self.kept.append(Kept(path, "it is a symbolic link"))
            return False
        return path.is_dir()

    def _name(self, paths: Sequence[Path], why: str) -> None:
        self.kept += [Kept(each, why) for each in paths[:_NAMED_AT_MOST]]
        if len(paths) > _NAMED_AT_MOST:
            more = len(paths) - _NAMED_AT_MOST
            self.kept.append(Kept(paths[0].parent, f"{more} more in it: {why}"))

    def _add(self, path: Path, what: str, way: Way, spared: Iterable[Path] = ()) -> None:
        kept = frozenset(spared)
        if way is Way.DATA or not kept or _has_more_than(path, kept):
            self.items.append(Item(path, what, 0 if way is Way.IF_EMPTY else _size(path, kept), way, kept))


def _remove(item: Item) -> None:
    path = item.path
    if path.is_symlink():
        return  # put there since it was looked at: not what was shown
    if item.way is Way.FILE:
        path.unlink(missing_ok=True)
    elif item.way is Way.IF_EMPTY:
        _remove_if_empty(path)
    elif not path.is_dir():
        return
    elif item.way is Way.ENVIRONMENT:
        _remove_environment(path)
    elif item.way is Way.TREE and not item.spared:
        shutil.rmtree(path)
    elif item.way is Way.TREE:
        _remove_but(path, item.spared.__contains__)
    else:
        _remove_data(path)


def _remove_but(folder: Path, spare: Callable[[Path], bool]) -> None:
    for entry in list(folder.iterdir()):
        if spare(entry):
            continue
        if entry.is_dir() and not entry.is_symlink():
            _remove_but(entry, spare)
        else:
            entry.unlink()
    _remove_if_empty(folder)


def _remove_data(folder: Path) -> None:
    if (pid := data_user(folder)) is not None:
        raise OSError(errno.EBUSY, f"a mongod uses it by now (process {pid})", str(folder))
    foreign = frozenset(_foreign(folder))
    # Until all else is gone these say that a mongod's data were here.
    last = {folder / "WiredTiger", folder / "storage.bson"}
    _remove_but(folder, lambda path: path in foreign or path in last)
    for path in last - foreign:
        path.unlink(missing_ok=True)
    _remove_if_empty(folder)


def _remove_environment(env: Path) -> None:
    """Remove a virtualenv, its record last: killed before that, it is known as ours and as unfinished."""
    record = env / virtualenv.RECORD
    temporary = env / f"{virtualenv.RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps({"schema": virtualenv.SCHEMA, "state": "building", "path": str(env)}))
    temporary.replace(record)
    for entry in list(env.iterdir()):
        if entry == record:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    record.unlink()
    env.rmdir()


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as problem:
        if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _foreign(folder: Path) -> Iterator[Path]:
    """What is in a data directory and not a mongod's; symbolic links and folders of other names never are."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and entry.name in _MONGODS_FOLDERS:
            if entry.name in _MONGODS_RECORDS:
                yield from _foreign(entry)
        elif entry.is_symlink() or not entry.is_file() or not _MONGODS.fullmatch(entry.name):
            yield entry


def _is_download(entry: Path) -> bool:
    if entry.is_symlink() or not entry.is_dir():
        return False
    return entry.name.startswith(".partial-") or (entry / "bin" / "mongod").is_file()


def _executables() -> list[tuple[int, Path]]:
    """The programs that run, as far as this user may see them."""
    import psutil

    return [
        (each.pid, Path(each.info["exe"])) for each in psutil.process_iter(["exe"]) if each.info.get("exe")
    ]


def _has_more_than(folder: Path, spared: Iterable[Path]) -> bool:
    """Whether there is a file in a directory that is neither spared nor below something that is."""
    stay = frozenset(spared)
    if not folder.is_dir() or folder.is_symlink():
        return folder not in stay
    entries = list(folder.iterdir())
    if not entries:
        return True
    return any(entry not in stay and _has_more_than(entry, stay) for entry in entries)


def _size(path: Path, spared: frozenset[Path]) -> int:
    """Bytes of the files in a tree, those spared left out; what vanishes meanwhile counts nothing."""
    if path in spared:
        return 0
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(
                _size(Path(entry.path), spared)
                if entry.is_dir(follow_symlinks=False) or spared
                else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            )
    except OSError:
        return 0


def _refuse_while_running(loaded: Loaded) -> None:
    paths = loaded.paths
    names = {each.deployment for each in traces.node_processes(paths)}
    names |= {each.deployment for each in traces.records(paths) if each.alive}
    names |= {name for name in loaded.settings.deployments if _runs_in_docker(loaded, name)}
    if names:
        running = sorted(names)
        raise ProvisionError(
            _DOING,
            f"{' and '.join(running)} {'runs' if len(running) == 1 else 'run'}. Nothing was removed.",
            "\n".join(
                f"Type `invoke stop{'' if each == 'local' else f' --on {each}'}` first." for each in running
            ),
        )
    apps = traces.app_processes(paths.under_root(loaded.settings.app.path))
    if apps:
        raise ProvisionError(
            _DOING,
            f"The app runs (process {apps[0].pid}). Nothing was removed.",
            f"End it with Ctrl-C in its terminal, or type: kill {apps[0].pid}",
        )


def _is_in_docker(loaded: Loaded, name: str) -> bool:
    settings = loaded.settings.deployments.get(name)
    return settings is not None and settings.capabilities.containers


def _runs_in_docker(loaded: Loaded, name: str) -> bool:
    if not _is_in_docker(loaded, name) or not loaded.paths.deployment(name).is_dir():
        return False
    try:
        deployment = assembly.deployment(loaded, name)
        return bool(deployment.running(deployment.topology.nodes))
    except (ProvisionError, OSError):
        # No engine, or the containers of another clone.
        return False


@contextlib.contextmanager
def _alone(plan: CleanPlan) -> Iterator[None]:
    """Hold every lock of the project, so that nothing is removed under a command at work."""
    with contextlib.ExitStack() as held:
        for file in plan.locks:
            if file.parent.is_dir():
                held.enter_context(_held(file))
        yield


@contextlib.contextmanager
def _held(file: Path) -> Iterator[None]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise ProvisionError(
                _DOING,
                f"Another command is at work ({f'process {holder}' if holder else file.name}). Nothing was removed.",
                "Type the same again when it has ended.",
            ) from None
        yield
    finally:
        os.close(descriptor)
