"""Pipfile and Pipfile.lock, as requirements that pip and uv read. Pure. Standard library only.

Follows https://pipenv.pypa.io/en/latest/pipfile.html
"""

from __future__ import annotations

from pathlib import Path

from provision.env.poetry import both, editable, git_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


_NOT_CATEGORIES = frozenset(
    {"_meta", "default", "packages", "source", "requires", "pipenv", "pipfile", "scripts"}
)
_DEV = {"dev": ("dev-packages", "develop"), "develop": ("dev-packages", "develop")}


def categories(file: Mapping[str, Any]) -> list[str]:
    """The names of the sections of packages besides the main one, in a Pipfile or its lock; `dev` is dev-packages."""
    names = [name for name in file if name not in _NOT_CATEGORIES and isinstance(file[name], dict)]
    return ["dev" if name in ("develop", "dev-packages") else name for name in names]


def _sections(file: Mapping[str, Any], main: str, chosen: Sequence[str]) -> dict[str, Any]:
    """The packages of the main section and of those that are chosen; the main one is the last word."""
    found: dict[str, Any] = {}
    for category in chosen:
        for name in _DEV.get(category, (category,)):
            found |= file.get(name, {})
    found |= file.get(main, {})
    return found


def from_pipfile(pipfile: Mapping[str, Any], folder: Path, chosen: Sequence[str] = ()) -> list[str]:
    """The requirements of a Pipfile's section packages, and of the categories that are chosen.

    Versions are written as PEP 440 has them.
    """
    packages = _sections(pipfile, "packages", chosen)
    return [
        *_sources(pipfile.get("source", [])),
        *(_line(name, wanted, folder) for name, wanted in packages.items()),
    ]


def from_lock(
    lock: Mapping[str, Any], folder: Path, chosen: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """The packages of a lock's section default and of the categories that are chosen, as it pins them.

    Those with hashes, and those that have none.
    """
    options = _sources(lock.get("_meta", {}).get("sources", []))
    hashed: list[str] = []
    other: list[str] = []
    for name, package in _sections(lock, "default", chosen).items():
        line = _line(name, package, folder)
        if package.get("hashes") and "version" in package:
            hashed.append(line + "".join(f" --hash={each}" for each in package["hashes"]))
        else:
            other.append(line)
    return [*options, *hashed] if hashed else [], [*options, *other] if other else []


def _sources(sources: list[Mapping[str, Any]]) -> list[str]:
    """The indexes besides PyPI; ``${NAME}`` in them stands for a variable, for pip as for Pipenv."""
    urls = [source["url"] for source in sources if source.get("url")]
    return [f"--extra-index-url {url}" for url in urls if "//pypi.org/" not in url]


def _line(name: str, wanted: Any, folder: Path) -> str:
    table: Mapping[str, Any] = {"version": wanted} if isinstance(wanted, str) else wanted
    extras = f"[{','.join(table['extras'])}]" if table.get("extras") else ""
    # A marker may also stand as a key of its own: sys_platform = "== 'win32'".
    own = [
        f"{key} {table[key]}"
        for key in ("sys_platform", "platform_system", "os_name", "python_version", "platform_machine")
        if key in table
    ]
    marker = both(str(table.get("markers", "")), *own)
    behind = f" ; {marker}" if marker else ""
    if "git" in table:
        url = git_url(table["git"], str(table.get("ref", "")), table.get("subdirectory"))
        return f"{name}{extras} @ {url}{behind}"
    place = table.get("path") or table.get("file")
    if place and "://" not in place:
        target = (folder / place).resolve()
        if table.get("editable") and not behind:
            return editable(target, extras)
        return f"{name}{extras} @ {target.as_uri()}{behind}"
    if place:
        return f"{name}{extras} @ {place}{behind}"
    version = str(table.get("version", "*"))
    return f"{name}{extras}{'' if version == '*' else version}{behind}"
