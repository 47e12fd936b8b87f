"""Poetry's table and lock, as requirements that pip and uv read. Pure. Standard library only.

Follows https://python-poetry.org/docs/dependency-specification/ and the lock of Poetry 1.1 to 2.x.
"""

from __future__ import annotations

import re
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)(.*)")
_ALWAYS = 'python_version > "2"'


def normalized(name: str) -> str:
    """A package's name, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def specifier(constraint: str) -> str:
    """A constraint of Poetry's as a version specifier of PEP 440; empty for any version.

    PEP 440 has no alternatives: of ``^1.0 || ^2.0`` the last one is taken, which satisfies all that is declared.
    """
    parts = re.split(r"\s*,\s*|(?<=[\w*])\s+(?=[<>=!~^])", constraint.split("||")[-1].strip())
    return ",".join(filter(None, map(_one, parts)))


def _one(part: str) -> str:
    part = re.sub(r"\s+", "", part)
    if part in ("", "*"):
        return ""
    if part.startswith(("^", "~")) and not part.startswith("~="):
        return _range(part[0], part[1:])
    if part[0] in "<>=!~":
        return f"={part}" if re.match(r"=[^=]", part) else part
    if part.endswith(".x"):
        part = f"{part[:-1]}*"
    return f"=={part}"


def _range(sign: str, version: str) -> str:
    """``^1.2.3`` up to the next of the leftmost number that isn't 0, ``~1.2.3`` up to the next minor version."""
    version = re.sub(r"(\.\*)+$", "", version)
    found = _RELEASE.match(version)
    if found is None:
        return f"=={version}"
    numbers = [int(number) for number in found.group(1).split(".")]
    if sign == "^":
        kept = next((index for index, number in enumerate(numbers) if number), len(numbers) - 1)
    else:
        kept = min(1, len(numbers) - 1)
    upper = [*numbers[:kept], numbers[kept] + 1]
    return f">={version},<{'.'.join(map(str, upper))}"


def python_marker(constraint: str) -> str:
    """A constraint on the Python as an environment marker; empty for any Python."""
    alternatives = []
    for alternative in constraint.split("||"):
        terms = []
        for term in filter(None, specifier(alternative).split(",")):
            found = re.match(r"([<>=!~]+)(.+)", term)
            if found:
                full = found.group(2).count(".") > 1 and "*" not in found.group(2)
                variable = "python_full_version" if full else "python_version"
                terms.append(f'{variable} {found.group(1)} "{found.group(2)}"')
        if not terms:
            return ""
        alternatives.append(" and ".join(terms))
    return alternatives[0] if len(alternatives) == 1 else " or ".join(f"({each})" for each in alternatives)


def both(*markers: str) -> str:
    """The marker that holds where all of these do; an empty one always holds."""
    real = list(dict.fromkeys(filter(None, markers)))
    if len(real) < 2:
        return "".join(real)
    return " and ".join(f"({each})" for each in real)


def dependency(name: str, wanted: Any, folder: Path) -> Iterator[str]:
    """The requirement lines of one entry of a table of dependencies; an optional one has none.

    `folder`: what relative paths count from.
    """
    for each in wanted if isinstance(wanted, list) else [wanted]:
        table = {"version": each} if isinstance(each, str) else dict(each)
        if not table.get("optional"):
            yield _line(name, table, folder)


def _line(name: str, table: Mapping[str, Any], folder: Path) -> str:
    marker = condition(table)
    behind = f" ; {marker}" if marker else ""
    extras = f"[{','.join(table['extras'])}]" if table.get("extras") else ""
    if "git" in table:
        revision = table.get("rev") or table.get("tag") or table.get("branch") or ""
        return f"{name}{extras} @ {git_url(table['git'], revision, table.get('subdirectory'))}{behind}"
    if "url" in table:
        return f"{name}{extras} @ {table['url']}{behind}"
    if "path" in table or "file" in table:
        place = (folder / (table.get("path") or table["file"])).resolve()
        if table.get("develop") and not behind:
            return editable(place, extras)
        return f"{name}{extras} @ {place.as_uri()}{behind}"
    return f"{name}{extras}{specifier(str(table.get('version', '*')))}{behind}"


def editable(place: Path, extras: str = "") -> str:
    """A project on this machine as pip and uv read it in a file; only a URL may hold a space, and no URL extras."""
    return f"-e {place}{extras}" if extras else f"-e {place.as_uri()}"


def condition(table: Mapping[str, Any]) -> str:
    """The marker under which a dependency is one."""
    platform = table.get("platform")
    return both(
        python_marker(str(table.get("python", "*"))),
        f'sys_platform == "{platform}"' if platform else "",
        str(table.get("markers", "")),
    )


def git_url(url: str, revision: str, subdirectory: str | None) -> str:
    """A git repository as pip and uv name it; ``git@host:path`` is turned into ``ssh://git@host/path``."""
    scp = re.fullmatch(r"([\w.-]+@[\w.-]+):(?!/)(.+)", url)
    if scp:
        url = f"ssh://{scp.group(1)}/{scp.group(2)}"
    behind = f"#subdirectory={subdirectory}" if subdirectory else ""
    return f"git+{url}{f'@{revision}' if revision else ''}{behind}"


def main_dependencies(pyproject: Mapping[str, Any]) -> dict[str, Any]:
    """Poetry's own table of what the app runs with, without the Python."""
    table = pyproject.get("tool", {}).get("poetry", {}).get("dependencies", {})
    return {name: wanted for name, wanted in table.items() if name.lower() != "python"}


def groups(pyproject: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The dependencies of each group; `dev` may also stand in the older table dev-dependencies."""
    table = pyproject.get("tool", {}).get("poetry", {})
    found = {name: each.get("dependencies", {}) for name, each in table.get("group", {}).items()}
    if "dev-dependencies" in table:
        found["dev"] = table["dev-dependencies"] | found.get("dev", {})
    return found


def extras(pyproject: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The names of the optional packages that each extra asks for."""
    table = pyproject.get("tool", {}).get("poetry", {}).get("extras", {})
    found: dict[str, Sequence[str]] = {
        **table,
        **pyproject.get("project", {}).get("optional-dependencies", {}),
    }
    return found


def _roots(
    pyproject: Mapping[str, Any], chosen: Sequence[str], named: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """What the project itself asks for: of Poetry's main table, of the groups that are chosen, of extras that are named."""
    wanted = {normalized(requirement_name(each)) for name in named for each in extras(pyproject)[name]}
    for name, each in main_dependencies(pyproject).items():
        optional = isinstance(each, dict) and each.get("optional")
        if not optional:
            yield name, each
        elif normalized(name) in wanted:
            yield name, {key: value for key, value in each.items() if key != "optional"}
    of_groups = groups(pyproject)
    for group in chosen:
        yield from of_groups[group].items()


def _lines(pyproject: Mapping[str, Any], named: Sequence[str]) -> list[str]:
    """The requirements of PEP 621, with those of the extras that are named."""
    project = pyproject.get("project", {})
    optional = project.get("optional-dependencies", {})
    return [*project.get("dependencies", []), *(line for name in named for line in optional.get(name, []))]


def from_table(
    pyproject: Mapping[str, Any], folder: Path, chosen: Sequence[str] = (), named: Sequence[str] = ()
) -> list[str]:
    """The requirements of a project without a lock, with those of groups that are chosen and extras that are named."""
    lines = _lines(pyproject, named)
    known = {requirement_name(line) for line in lines}
    for name, wanted in _roots(pyproject, chosen, named):
        if normalized(name) not in known:
            lines += dependency(name, wanted, folder)
    return lines


def requirement_name(line: str) -> str:
    """The normalised name of what a requirement asks for; empty for one without."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return normalized(found[0]) if found else ""


def sources(pyproject: Mapping[str, Any]) -> list[str]:
    """The indexes that a project names besides PyPI, as lines of requirements."""
    found = pyproject.get("tool", {}).get("poetry", {}).get("source", [])
    urls = [source["url"] for source in found if isinstance(source, dict) and source.get("url")]
    return [f"--extra-index-url {url}" for url in urls if "//pypi.org/" not in url]


def from_lock(
    lock: Mapping[str, Any],
    pyproject: Mapping[str, Any],
    folder: Path,
    groups: Sequence[str] = (),
    named: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """The packages that the app runs with, as the lock pins them: those with hashes, and those that can have none.

    `groups`, `named`: the groups and the extras that are installed, too.
    """
    packages: Sequence[Mapping[str, Any]] = lock.get("package", [])
    if named or not any("groups" in package for package in packages):
        # A lock marks what is optional, and does not say of which extra.
        chosen = _reached(packages, pyproject, groups, named)
    else:
        wanted = {"main", *(normalized(group) for group in groups)}
        chosen = [
            (package, _own_marker(package, own))
            for package in packages
            if (own := wanted & {normalized(group) for group in package.get("groups", [])})
            and (not package.get("optional") or own != {"main"})
        ]
    hashed: list[str] = []
    other: list[str] = []
    files = lock.get("metadata", {}).get("files", {})
    for package, marker in chosen:
        hashes = [file["hash"] for file in package.get("files") or files.get(package["name"], [])]
        behind = f" ; {marker}" if marker else ""
        source = package.get("source", {})
        if source.get("type") in ("git", "url", "directory", "file"):
            other.append(_sourced(package, source, folder) + behind)
        elif hashes:
            pins = "".join(f" --hash={each}" for each in sorted(set(hashes)))
            hashed.append(f"{package['name']}=={package['version']}{behind}{pins}")
        else:
            other.append(f"{package['name']}=={package['version']}{behind}")
    return hashed, other


def _own_marker(package: Mapping[str, Any], groups: Collection[str]) -> str:
    """The marker that a lock of Poetry 2 gives a package for any of these groups."""
    markers = package.get("markers", "")
    if not isinstance(markers, dict):
        return str(markers)
    by_group = {normalized(name): str(marker) for name, marker in markers.items()}
    own = dict.fromkeys(by_group.get(group, "") for group in sorted(groups))
    return "" if "" in own else " or ".join(f"({marker})" if len(own) > 1 else marker for marker in own)


def _sourced(package: Mapping[str, Any], source: Mapping[str, Any], folder: Path) -> str:
    name, url = package["name"], source["url"]
    if source["type"] == "git":
        revision = source.get("resolved_reference") or source.get("reference") or ""
        return f"{name} @ {git_url(url, revision, source.get('subdirectory'))}"
    if source["type"] == "url":
        return f"{name} @ {url}"
    return f"{name} @ {(folder / url).resolve().as_uri()}"


def _reached(
    packages: Sequence[Mapping[str, Any]],
    pyproject: Mapping[str, Any],
    groups: Sequence[str],
    extras: Sequence[str],
) -> list[tuple[Mapping[str, Any], str]]:
    """What of an older lock, which names no groups, the app's own dependencies lead to, each with its marker.

    A package is reached under several sets of conditions: all those of one way that leads to it. A set that
    contains another says nothing new.
    """
    by_name: dict[str, list[int]] = {}
    for index, package in enumerate(packages):
        by_name.setdefault(normalized(package["name"]), []).append(index)
    ways: dict[int, list[frozenset[str]]] = {}
    asked: dict[int, set[str]] = {}
    waiting: list[tuple[int, frozenset[str]]] = []

    def follow(name: str, wanted: Any, before: frozenset[str], extras: set[str]) -> None:
        for each in wanted if isinstance(wanted, list) else [wanted]:
            table = {"version": each} if isinstance(each, str) else each
            marker, named = _without_extra(condition(table))
            if table.get("optional") and not named & extras:
                continue
            conditions = before | {marker} if marker else before
            for index in by_name.get(normalized(name), []):
                several = len(by_name[normalized(name)]) > 1
                if several and not satisfies(packages[index]["version"], str(table.get("version", "*"))):
                    continue
                more = set(table.get("extras", [])) - asked.setdefault(index, set())
                asked[index] |= more
                known = ways.setdefault(index, [])
                if more or not any(each_known <= conditions for each_known in known):
                    known[:] = [way for way in known if not conditions <= way] + [conditions]
                    waiting.append((index, conditions))

    for name, wanted in _roots(pyproject, groups, extras):
        follow(name, wanted, frozenset(), set())
    for line in _lines(pyproject, extras):
        follow(requirement_name(line), "*", frozenset(), set(re.findall(r"\[(.*?)\]", line)))
    while waiting:
        index, conditions = waiting.pop()
        for name, wanted in packages[index].get("dependencies", {}).items():
            follow(name, wanted, conditions, asked[index])
    return [(packages[index], _any(ways[index])) for index in sorted(ways)]


def _without_extra(marker: str) -> tuple[str, set[str]]:
    """A marker without its conditions on extras, and the extras that it names."""
    pattern = r"""extra\s*==\s*["']([^"']+)["']"""
    named = set(re.findall(pattern, marker))
    if re.fullmatch(pattern, marker.strip()):
        return "", named
    return re.sub(pattern, _ALWAYS, marker), named


def _any(ways: Sequence[frozenset[str]]) -> str:
    if frozenset() in ways:
        return ""
    conditions = sorted({both(*sorted(way)) for way in ways})
    return conditions[0] if len(conditions) == 1 else " or ".join(f"({each})" for each in conditions)


def satisfies(version: str, constraint: str) -> bool:
    """Whether a locked version is one that a constraint allows; only the numbers of a release are compared."""
    return any(
        all(_holds(version, term) for term in filter(None, specifier(alternative).split(",")))
        for alternative in constraint.split("||")
    )


def _holds(version: str, term: str) -> bool:
    found = re.match(r"([<>=!~]+)\s*v?(\d+(?:\.\d+)*)(\.\*)?", term)
    release = _RELEASE.match(version)
    if found is None or release is None:
        return True
    sign, stars = found.group(1), bool(found.group(3))
    theirs = [int(number) for number in found.group(2).split(".")]
    ours = [int(number) for number in release.group(1).split(".")]
    size = max(len(theirs), len(ours))
    beginning = ours[: len(theirs)] == theirs
    theirs_full, ours_full = (numbers + [0] * (size - len(numbers)) for numbers in (theirs, ours))
    same = beginning if stars else ours_full == theirs_full
    return {
        "==": same,
        "===": same,
        "!=": not same,
        ">=": ours_full >= theirs_full,
        "<=": ours_full <= theirs_full,
        ">": ours_full > theirs_full,
        "<": ours_full < theirs_full,
        "~=": ours_full >= theirs_full and ours[: len(theirs) - 1] == theirs[:-1],
    }.get(sign, True)
