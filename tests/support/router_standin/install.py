"""Puts a router beside a mongod: the real mongos where there is one, else the stand-in. The one place that decides."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

MARK = "tests.support.router_standin"


def real_mongos(mongod: Path) -> Path | None:
    """The mongos that belongs to a mongod: in its folder, or in the one that a link to it leads to; never a stand-in."""
    for folder in (mongod.parent, mongod.resolve().parent):
        mongos = folder / "mongos"
        if mongos.is_file() and os.access(mongos, os.X_OK) and not is_standin(mongos):
            return mongos
    return None


def is_standin(mongos: Path) -> bool:
    """Whether an executable is what `install` writes."""
    with mongos.open("rb") as opened:
        return MARK.encode() in opened.read(4096)


def beside(mongod: Path, version: str, folder: Path) -> Path:
    """Makes a folder with a mongod and its router: the real one if it has one, else the stand-in.

    Args:
        mongod: the mongod.
        version: its version, "6.0.5".
        folder: the folder to make; what is in it is a copy or a link, which a test may take away.
    Returns:
        the mongod in that folder.
    """
    folder.mkdir(parents=True)
    router = real_mongos(mongod)
    link(mongod, folder / "mongod")
    if router is not None:
        link(router, folder / "mongos")
    else:
        install(folder, version)
    return folder / "mongod"


def install(folder: Path, version: str) -> Path:
    """Writes an executable ``mongos`` that runs the stand-in with this Python.

    Args:
        folder: existing folder to put it in.
        version: the version that it claims, "6.0.5": that of the mongod it stands in front of.
    Returns:
        the executable's path.
    Raises:
        FileExistsError: the mongod there has a real mongos.
    """
    real = real_mongos(folder / "mongod")
    if real is not None:
        raise FileExistsError(f"{real} is a real mongos: the stand-in does not take its place")
    repository = Path(__file__).resolve().parents[3]
    executable = folder / "mongos"
    executable.write_text(
        "#!/bin/sh\n"
        f"export ROUTER_STANDIN_VERSION={shlex.quote(version)}\n"
        f"export PYTHONPATH={shlex.quote(str(repository))}\n"
        f'exec {shlex.quote(sys.executable)} -m {MARK} "$@"\n'
    )
    executable.chmod(0o755)
    return executable


def link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it to another file system."""
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)
