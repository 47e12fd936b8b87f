"""The data of a deployment's nodes as folders: copied out and in, and swapped for others.

A swap has four places for each node: its data; `incoming`, what is put in their place; `replaced`, what was there, until
the new data are proved; `undo`, what was there before the last swap that was proved. Each step can be done again from
wherever it was cut off: the record of the swap says which.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from provision.core import copying
from provision.core.dataclass import dataclass
from provision.mongodb.topology import Node
from provision.settings.paths import Paths

INCOMING, REPLACED, UNDO, TRASH = ".incoming", ".replaced", ".undo", ".trash"
BESIDE = (INCOMING, REPLACED, UNDO, TRASH)
_UNDONE = ".undone"  # in `incoming`: it was the undo, and is the only copy
# A mongod makes these anew: its lock, its statistics, its temporary files.
LEFT_OUT = ("mongod.lock", "diagnostic.data", "_tmp")
# Of `admin` and `local`, each with a document or two.
_OWN_COLLECTIONS, _EMPTY_COLLECTION = 6, 36 << 10
LEFT_OUT_PREFIX = "WiredTigerPreplog"  # room set aside for the journal, empty


@dataclass(frozen=True)
class Copied:
    """How data were copied out."""

    shares_blocks: bool = False  # with the data: until either is written to
    # of copied files: those that are known already
    checksums: Mapping[Path, str] = field(default_factory=dict)


class DataFolders(Protocol):
    """What can be done with the data of nodes that a back end keeps. Only `copy_out` may be used while they run."""

    def copy_out(self, sources: Mapping[str, Node], target: Path) -> Copied:
        """Copy each node's data to a folder of that name in the target, which is there.

        Raises OSError, ProvisionError: it can't be done.
        """

    def size(self, nodes: Sequence[Node]) -> int:
        """Bytes that the data of nodes take, about; they may run meanwhile. 0: they have none.

        Raises ProvisionError: nobody can tell.
        """

    def room(self, nodes: Sequence[Node]) -> int | None:
        """Bytes free where the nodes have their data; None: copies take no room, or nobody can tell."""

    def copy_in(self, source: Path, folders: Sequence[tuple[Node, str]]) -> None:
        """Copy a folder in the source to each node's `incoming`. On a failure nothing of it is left.

        Raises OSError, ProvisionError: it can't be done.
        """

    def take_undo(self, nodes: Sequence[Node]) -> bool:
        """Make `undo` the `incoming`; False: there is none."""

    def discard(self, nodes: Sequence[Node]) -> None:
        """Delete `incoming`; what was the undo becomes that again."""

    def with_data(self, nodes: Sequence[Node]) -> frozenset[str]:
        """Names of the nodes that have data."""

    def forward(self, nodes: Sequence[Node]) -> None:
        """Put `incoming` in the place of the data, which become `replaced`."""

    def back(self, nodes: Sequence[Node], had: Collection[str]) -> None:
        """Put `replaced` back, and discard what had come. `had`: names of the nodes that had data before."""

    def keep(self, nodes: Sequence[Node]) -> None:
        """Make `replaced` the `undo`, and delete what that was."""

    def forget(self, nodes: Sequence[Node]) -> None:
        """Delete all but the data."""


@dataclass(frozen=True)
class OpenedFolder:
    """A mongod of a back end on data in a folder of this machine, as no node. It ends with this process in any case.

    A back end starts one by ``open_folder(folder, name, options)``: the data are in ``folder/name``, the log is
    ``folder/name.log``.
    """

    process: subprocess.Popen[bytes]  # it, or the command that has a container run it and ends with it
    port: Callable[[], int | None]  # of this machine; None: not known yet
    end: Callable[[], None]  # asks it to end in order
    remove: Callable[[], None]  # ends it, if it runs, whether it wants to or not


class FoldersHere:
    """Data in folders of this project, each swapped by renaming it."""

    def __init__(self, paths: Paths, deployment: str) -> None:
        self._paths = paths
        self._deployment = deployment

    def copy_out(self, sources: Mapping[str, Node], target: Path) -> Copied:
        pairs = []
        for name, node in sources.items():
            folder = self._data(node)
            (target / name).mkdir(mode=0o700)
            pairs += [(file, target / name / file.relative_to(folder)) for file in data_files(folder)]
        copying.copy_files(pairs)
        if not copying.shares_blocks(target):
            return Copied()
        return Copied(True, copying.checksums_of_originals(pairs))

    def size(self, nodes: Sequence[Node]) -> int:
        found = 0
        for folder in map(self._data, nodes):
            for file in folder.rglob("*"):
                with contextlib.suppress(OSError):  # one that a mongod has just removed
                    found += copying.room_of(file)
        return found

    def room(self, nodes: Sequence[Node]) -> int | None:
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if copying.shares_blocks(self._parent):
            return None
        disk = os.statvfs(self._parent)
        return disk.f_bavail * disk.f_frsize

    def copy_in(self, source: Path, folders: Sequence[tuple[Node, str]]) -> None:
        nodes = [node for node, _ in folders]
        self.discard(nodes)
        pairs = []
        try:
            for node, name in folders:
                target = self._parent / INCOMING / node.name
                target.mkdir(mode=0o700, parents=True)
                files = [file for file in sorted((source / name).rglob("*")) if file.is_file()]
                pairs += [(file, target / file.relative_to(source / name)) for file in files]
            copying.copy_files(pairs)
            copying.settle(target for _, target in pairs)
        except BaseException:
            self.discard(nodes)
            raise

    def take_undo(self, nodes: Sequence[Node]) -> bool:
        self.discard(nodes)
        undo = self._parent / UNDO
        if not undo.is_dir():
            return False
        (undo / _UNDONE).touch(0o600)
        undo.rename(self._parent / INCOMING)
        for node in nodes:  # one that had no data gets them from the other members
            (self._parent / INCOMING / node.name).mkdir(mode=0o700, exist_ok=True)
        return True

    def discard(self, nodes: Sequence[Node]) -> None:
        incoming, undo = self._parent / INCOMING, self._parent / UNDO
        if (incoming / _UNDONE).exists() and not undo.exists():
            incoming.rename(undo)
            (undo / _UNDONE).unlink()
        self._delete(INCOMING)

    def with_data(self, nodes: Sequence[Node]) -> frozenset[str]:
        return frozenset(
            node.name for node in nodes if self._data(node).is_dir() and any(self._data(node).iterdir())
        )

    def forward(self, nodes: Sequence[Node]) -> None:
        replaced = self._parent / REPLACED
        replaced.mkdir(mode=0o700, exist_ok=True)
        for node in nodes:
            incoming, data = self._parent / INCOMING / node.name, self._data(node)
            if not incoming.is_dir():
                continue
            if data.is_dir():
                data.rename(replaced / node.name)
            incoming.rename(data)
        copying.sync(replaced)
        copying.sync(self._parent)

    def back(self, nodes: Sequence[Node], had: Collection[str]) -> None:
        for node in nodes:
            replaced, data = self._parent / REPLACED / node.name, self._data(node)
            incoming = self._parent / INCOMING / node.name
            if not incoming.is_dir() and data.is_dir() and (replaced.is_dir() or node.name not in had):
                data.rename(incoming)
            if replaced.is_dir():
                replaced.rename(data)
        copying.sync(self._parent)
        self._delete(REPLACED)
        self.discard(nodes)

    def keep(self, nodes: Sequence[Node]) -> None:
        replaced, undo = self._parent / REPLACED, self._parent / UNDO
        if replaced.is_dir():
            if undo.is_dir():
                self._delete(UNDO)
            replaced.rename(undo)
            copying.sync(self._parent)
        self._delete(INCOMING)
        self._delete(TRASH)

    def forget(self, nodes: Sequence[Node]) -> None:
        for name in (INCOMING, REPLACED, UNDO):
            self._delete(name)
        self._delete(TRASH)

    @property
    def _parent(self) -> Path:
        return self._paths.node_data(self._deployment, "x").parent

    def _data(self, node: Node) -> Path:
        return self._paths.node_data(self._deployment, node.name)

    def _delete(self, name: str) -> None:
        """Rename first: what is half deleted never has a name that means something."""
        folder, trash = self._parent / name, self._parent / TRASH
        shutil.rmtree(trash, ignore_errors=True)
        if folder.is_dir() and folder != trash:
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def is_bare(folder: Path) -> bool:
    """Whether a data folder has no more than what MongoDB makes before anybody can write to it."""
    sizes = [file.stat().st_size for file in folder.rglob("collection*.wt")]
    return len(sizes) <= _OWN_COLLECTIONS and max(sizes, default=0) <= _EMPTY_COLLECTION


def data_files(folder: Path) -> Iterator[Path]:
    """The files of a data folder that a copy needs."""
    for entry in sorted(folder.iterdir()):
        if entry.name in LEFT_OUT or entry.name.startswith(LEFT_OUT_PREFIX):
            continue
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from data_files(entry)
        elif stat.S_ISREG(mode):
            yield entry
