"""The tool as a package: its wheel, in a virtualenv of its own, in somebody's project, with no index but a local one."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.support.clones import ROOT, Clone, tracked_files

APPS = ROOT / "tests" / "apps"
# What the apps of tests/apps declare, and what builds those that are projects themselves.
_WANTED = (
    "flask",
    "pymongo",
    "mongoengine",
    "python-dotenv",
    "setuptools<81",
    "setuptools>=61",
    "wheel",
    "pip",
)
_OF_OLD_FLASK = ("Flask==1.1.4", "markupsafe==2.0.1", "pymongo<4.11", "setuptools<76", "wheel")

# The versions of the apps' locks; and uv, which the tool fetches where it finds none.
_PINNED = (APPS / "hashes" / "requirements.txt", ROOT / "provision" / "env" / "uv.txt")


@dataclass
class Project(Clone):
    """Somebody's project, in which the installed tool is used.

    Args:
        tool: the virtualenv that the tool is installed in.
    """

    tool: Path = Path()

    @property
    def command(self) -> list[str]:
        return [*self.prefix, str(self.tool / "bin" / "provision")]


def install(folder: Path) -> Path:
    """Install the tool into a bare virtualenv from its wheel, without any index; once for all workers of a run.

    Args:
        folder: of this run, the same for all its workers.

    Returns:
        The virtualenv.
    """
    with FileLock(folder / "installed.lock"):
        done = folder / "tool"
        if not (done / "bin" / "provision").exists():
            making = folder / "tool"
            run(sys.executable, "-m", "virtualenv", "--quiet", "--no-seed", making)
            wheel = build_wheel(folder / "wheel")
            pip = (sys.executable, "-m", "pip", "--python", making, "install", "--quiet")
            run(*pip, wheel, env={**os.environ, **offline()})
        return done


@functools.cache
def wheelhouse() -> Path:
    """Wheels of all that the tool and the apps need; fetched once for each state of what they declare."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = sorted([*declared, *_WANTED])
    state = (wanted, _OF_OLD_FLASK, sys.version_info[:2], [each.read_bytes() for each in _PINNED])
    digest = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaskbook" / "test-wheelhouse"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / digest
    with FileLock(cache / "lock"):
        if not folder.is_dir():
            making = cache / f"{digest}.new"
            shutil.rmtree(making, ignore_errors=True)
            for name in ("setuptools<81", "setuptools>=61"):  # two versions of one package
                _download(making, "--no-deps", name)
            _download(making, *(each for each in wanted if not each.startswith("setuptools")))
            for pinned in _PINNED:
                _download(making, "--require-hashes", "-r", pinned)
            _download(making, "--python-version", "3.8", "--implementation", "cp", *_OF_OLD_FLASK)
            making.rename(folder)
    return folder


def _download(folder: Path, *arguments: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:")
    run(*pip, "--dest", folder, *arguments)


def build_wheel(folder: Path) -> Path:
    """The wheel of the repository as it is now."""
    source = folder / "source"
    for name in tracked_files():
        if (
            name.split("/")[0] in ("provision", "flaskbook", "pyproject.toml", "README.md", "LICENSE")
            and (ROOT / name).is_file()
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    return next(folder.glob("*.whl"))


def offline() -> dict[str, str]:
    """The variables by which uv and pip know the local index, and no other."""
    links = str(wheelhouse())
    return {
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": links,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": links,
        "PIP_CONFIG_FILE": os.devnull,
    }


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout
