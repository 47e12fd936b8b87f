"""`invoke clean`: removes what the tool made, and nothing else.

`plan` looks and decides, `carry_out` acts. What is not known for ours stays, and is named with the reason. No
symbolic link is followed below the configured directories. The virtualenv that this runs in goes last, so that
an interrupted run can be typed again.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from provision.backends.folders import BESIDE
from provision.backends.processes import data_user
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.doctor import removal, traces
from provision.doctor.at_rest import alone, refuse_while_running
from provision.doctor.removal import Item, Way, foreign, has_more_than, size
from provision.env import virtualenv
from provision.env.groups import keeps_env
from provision.machine.access import cache_directory, chown
from provision.settings.loading import Loaded
from provision.state import records
from provision.state.records import Lifetime

_DOING = "cleaning"
_CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")
_PACKAGES = ("provision", "flaskbook", "tests", "tools")
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Kept:
    """One thing that stays though it is where ours are."""

    path: Path
    why: str


@dataclass(frozen=True)
class CleanPlan:
    """What `carry_out` does."""

    loaded: Loaded
    items: tuple[Item, ...]  # what it removes, in this order
    kept: tuple[Kept, ...]  # what stays, and why
    locks: tuple[Path, ...]  # what other commands hold while they work here

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
    refuse_while_running(loaded)
    search = _Search(loaded)
    search.configurations()
    search.logs()
    search.data(data)
    search.above()
    if cache:
        search.cache()
    search.caches_of_tools()
    search.state(data)
    search.environment()
    return CleanPlan(loaded, tuple(search.items), tuple(search.kept), search.locks())


def carry_out(plan: CleanPlan) -> None:
    """Remove what was planned.

    What was interrupted before is simply done: everything is looked at again before it is removed. While it
    works, no other command of the tool can start anything in this project.

    Raises ProvisionError: another command is at work, something runs by now, or something can't be removed; what
    was not removed yet is still there.
    """
    # What is imported from now on must not be written beside its source again.
    sys.dont_write_bytecode = True
    with alone(plan.locks):
        refuse_while_running(plan.loaded)
        for item in plan.items:
            try:
                removal.remove(item)
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
            self._snapshots(name, wanted)
            folder = self.paths.node_data(name, "x").parent
            if wanted and folder.is_dir() and not folder.is_symlink():
                known = {self.paths.node_data(name, node) for node in (*nodes, *BESIDE)}
                others = [entry for entry in sorted(folder.iterdir()) if entry not in known]
                self._name(others, "it is not a data directory of a node")
            if folder.is_dir() and not folder.is_symlink():
                self._parent(folder, f"directory of the data of {name}", anywhere=True)
        if wanted and self.paths.data.is_relative_to(self.paths.root) and self.paths.data.is_dir():
            ours = {self.paths.node_data(name, "x").parent for name in self.rendered}
            ours.add(self.paths.snapshots("x").parent)
            others = [entry for entry in sorted(self.paths.data.iterdir()) if entry not in ours]
            self._name(others, "it belongs to no deployment")
        self._parent(self.paths.snapshots("x").parent, "directory of snapshots")
        self._parent(self.paths.data, "directory of data")

    def _snapshots(self, name: str, wanted: bool) -> None:
        """A deployment's snapshots, and what the last restore has left to undo."""
        beside = (self.paths.node_data(name, folder) for folder in BESIDE)
        for folder, what in (
            (self.paths.snapshots(name), f"snapshots of {name}"),
            *((each, f"data of {name} before the last restore") for each in beside),
        ):
            if not self._is_folder(folder):
                continue
            if wanted:
                self._add(folder, what, Way.TREE)
            else:
                self.kept.append(Kept(folder, "data stay; --data removes them too"))

    def cache(self) -> None:
        """Downloads of MongoDB and uv. Only what has their names: the directory may be shared with others."""
        mongodb = self.paths.cache / "mongodb"
        running = traces.executables()
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
        """What Python, pytest, mypy and ruff keep in a clone of the tool. In anybody's project, that is theirs."""
        root = self.paths.root
        if not keeps_env(root):
            return
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
        if not spared or has_more_than(state, spared):
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
        if not keeps_env(self.paths.root):
            return  # a folder of that name in anybody's project is theirs
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
        others = list(foreign(path))
        if not wanted:
            self.kept.append(Kept(path, "data stay; --data removes them too"))
        elif (pid := data_user(path)) is not None:
            self.kept.append(Kept(path, f"a mongod uses it (process {pid})"))
        elif others and not holds_data:
            self.kept.append(Kept(path, "it holds no data of a mongod"))
        else:
            self._name(others, "no mongod made it")
            self._add(path, what, Way.DATA, others)

    def above(self) -> None:
        """What is above the folders of data and logs, where they share a folder of their own in the project."""
        for folder in {self.paths.data.parent, self.paths.log.parent}:
            self._parent(folder, "directory of data and logs")

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
        if way is Way.DATA or not kept or has_more_than(path, kept):
            self.items.append(Item(path, what, 0 if way is Way.IF_EMPTY else size(path, kept), way, kept))


def _is_download(entry: Path) -> bool:
    if entry.is_symlink() or not entry.is_dir():
        return False
    return entry.name.startswith(".partial-") or (entry / "bin" / "mongod").is_file()


def _is_in_docker(loaded: Loaded, name: str) -> bool:
    settings = loaded.settings.deployments.get(name)
    return settings is not None and settings.capabilities.containers
