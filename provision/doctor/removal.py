"""How `clean` removes things: files, trees with what is spared in them, a mongod's data, a virtualenv.

No symbolic link is followed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from provision.backends.processes import data_user
from provision.core.dataclass import dataclass
from provision.env import virtualenv

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
    """One thing to be removed."""

    path: Path
    what: str  # what it is, for people
    bytes: int  # what is in it
    way: Way  # how it is removed
    spared: frozenset[Path] = frozenset()  # paths inside it that stay


def remove(item: Item) -> None:
    """Remove one thing, if it still is what was looked at.

    Raises OSError: it can't be removed, or a mongod uses it by now.
    """
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
        virtualenv.remove(path)
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
    others = frozenset(foreign(folder))
    # Until all else is gone these say that a mongod's data were here.
    last = {folder / "WiredTiger", folder / "storage.bson"}
    _remove_but(folder, lambda path: path in others or path in last)
    for path in last - others:
        path.unlink(missing_ok=True)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as problem:
        if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def foreign(folder: Path) -> Iterator[Path]:
    """What is in a data directory and not a mongod's; symbolic links and folders of other names never are."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and entry.name in _MONGODS_FOLDERS:
            if entry.name in _MONGODS_RECORDS:
                yield from foreign(entry)
        elif entry.is_symlink() or not entry.is_file() or not _MONGODS.fullmatch(entry.name):
            yield entry


def has_more_than(folder: Path, spared: Iterable[Path]) -> bool:
    """Whether there is a file in a directory that is neither spared nor below something that is."""
    stay = frozenset(spared)
    if not folder.is_dir() or folder.is_symlink():
        return folder not in stay
    entries = list(folder.iterdir())
    if not entries:
        return True
    return any(entry not in stay and has_more_than(entry, stay) for entry in entries)


def size(path: Path, spared: frozenset[Path]) -> int:
    """Bytes of the files in a tree, those spared left out; what vanishes meanwhile counts nothing."""
    if path in spared:
        return 0
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(
                size(Path(entry.path), spared)
                if entry.is_dir(follow_symlinks=False) or spared
                else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            )
    except OSError:
        return 0
