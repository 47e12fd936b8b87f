"""What an app's folder declares that the app needs, and how that is installed. Reads files, changes none.

The folder is looked through in this order, and the first that is there counts:

1. `uv.lock` beside a `pyproject.toml`, or that of the workspace of which the folder is a member
2. `poetry.lock`, or the table `tool.poetry` in `pyproject.toml`
3. `Pipfile.lock`, then `Pipfile`
4. `requirements.txt`
5. `requirements/`: the one of `dev.txt` and `development.txt` that is there, else `base.txt`, else its only file
6. `pyproject.toml` with a table `project` (PEP 621)
7. `setup.py`, then `setup.cfg`

What `app.requirements` names is read by its name in the same way; a name that is none of these is a requirements file.
Groups (PEP 735, Poetry, Pipenv's dev-packages and categories) and extras are left out unless they are asked for by
name. Standard library only.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.env import pipfile, poetry
from provision.env.requirements_files import all_files, decoded, local_projects, project_files
from provision.env.virtualenv import BootstrapError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")

_PYPI = "https://pypi.org/simple"
# What setuptools leaves out where it looks for the packages of a project by itself.
_NOT_PACKAGES = frozenset(
    {
        *(
            "ci",
            "bin",
            "debian",
            "doc",
            "docs",
            "documentation",
            "manpages",
            "news",
            "newsfragments",
            "changelog",
        ),
        *(
            "test",
            "tests",
            "unit_test",
            "unit_tests",
            "example",
            "examples",
            "scripts",
            "tools",
            "util",
            "utils",
        ),
        *("python", "build", "benchmark", "benchmarks", "exercise", "exercises", "htmlcov", "env", "venv"),
        "node_modules",
    }
)


@dataclass(frozen=True)
class Step:
    """One thing that an installer is told to install: a file, the lines of one, a project, or all of uv.lock."""

    file: Path | None = None  # a requirements file, or a pyproject.toml whose dependencies uv reads
    lines: tuple[str, ...] = ()  # of a requirements file that is made for this
    project: Path | None = None  # folder of a project, which is installed editable
    synced: Path | None = None  # folder with a uv.lock: a project, or a workspace
    member: str = ""  # of uv.lock: the member of a workspace that is installed; empty: its root
    groups: tuple[str, ...] = ()  # of uv.lock: the groups that are installed, too
    extras: tuple[str, ...] = ()  # of a project, and of uv.lock: the extras that are installed, too
    # what the lock pins is taken from any index: its files are known by their hashes, and none is of a private index
    any_index: bool = False
    dependencies: bool = True  # with what these need themselves; False: they are complete


@dataclass(frozen=True)
class Declared:
    """What an app's folder declares."""

    format: str  # as it is named to people: "requirements.txt", "uv.lock", "[project] in pyproject.toml"
    folder: Path  # where the installer runs: relative paths count from it
    files: tuple[Path, ...]  # absolute; the virtualenv is made again when the content of one changes
    steps: tuple[Step, ...]  # one after the other
    needs_uv: bool = False  # pip does not read this format
    notes: tuple[str, ...] = ()  # what people should know of it, each a sentence
    groups: tuple[str, ...] = ()  # the groups and extras that were asked for

    @property
    def place(self) -> str:
        """The format with the whole path of its file: there may be a file of that name in several folders."""
        table, among, _ = self.format.rpartition(" in ")
        return f"{table}{among}{self.files[0]}"


def find(folder: Path, groups: Sequence[str] = ()) -> Declared | None:
    """What a folder declares by itself; None: nothing.

    `groups`: the groups and extras that are installed, too.

    Raises BootstrapError: a file cannot be read, or it has no group of that name.
    """
    folder = folder.resolve()
    pyproject = _toml(folder / "pyproject.toml")
    for finder in (_uv_lock, _poetry, _pipfile, _requirements, _project, _setup):
        found = finder(folder, pyproject, groups)
        if found is not None:
            return replace(found, groups=tuple(groups))
    return None


def read(file: Path, folder: Path, groups: Sequence[str] = ()) -> Declared:
    """What a file declares that was named by a person.

    `folder`: where the installer runs for a requirements file. `groups`: as for `find`.

    Raises BootstrapError: the file cannot be read, or it has no group of that name.
    """
    file, folder = file.resolve(), folder.resolve()
    by_name: dict[str, Callable[[Path, Mapping[str, Any], Sequence[str]], Declared | None]] = {
        "uv.lock": _uv_lock,
        "poetry.lock": _poetry,
        "Pipfile.lock": _pipfile,
        "Pipfile": _pipfile,
        "setup.py": _setup,
        "setup.cfg": _setup,
    }
    pyproject = _toml(file.parent / "pyproject.toml")
    if file.name == "pyproject.toml":
        found = _poetry(file.parent, pyproject, groups) or _project(file.parent, pyproject, groups)
        if found is None:
            raise _unreadable(file, "it has neither a table project nor a table tool.poetry")
    else:
        found = by_name[file.name](file.parent, pyproject, groups) if file.name in by_name else None
    return replace(found or _requirements_file(file, folder, groups), groups=tuple(groups))


# --- locks ------------------------------------------------------------------------------------------------


def _uv_lock(folder: Path, pyproject: Mapping[str, Any], groups: Sequence[str]) -> Declared | None:
    root = _workspace(folder, pyproject)
    if root is None:
        return None
    lock = root / "uv.lock"
    files = [lock, *project_files(folder), *project_files(root)]
    indexes = set()
    for package in _toml(lock).get("package", []):
        source = package.get("source", {})
        indexes.add(source.get("registry", _PYPI))
        place = source.get("editable") or source.get("directory") or source.get("virtual")
        if place:
            files += project_files((root / place).resolve())
    chosen, extras = _chosen("uv.lock", groups, _dependency_groups(pyproject), _extras(pyproject))
    step = Step(
        synced=root,
        member="" if root == folder else str(pyproject["project"]["name"]),
        groups=chosen,
        extras=extras,
        dependencies=False,
        any_index=indexes <= {_PYPI},
    )
    return Declared("uv.lock", root, _once(files), (step,), needs_uv=True, notes=_left_out(pyproject, groups))


def _workspace(folder: Path, pyproject: Mapping[str, Any]) -> Path | None:
    """Where the uv.lock is that pins what a folder needs: in it, or at the root of its workspace.

    Follows https://docs.astral.sh/uv/concepts/projects/workspaces/
    """
    if not pyproject:
        return None
    if (folder / "uv.lock").is_file():
        return folder
    for root in folder.parents if "name" in pyproject.get("project", {}) else ():
        if not (root / "uv.lock").is_file():
            continue
        workspace = _toml(root / "pyproject.toml").get("tool", {}).get("uv", {}).get("workspace", {})
        if _is_among(folder, root, workspace.get("members", ())) and not _is_among(
            folder, root, workspace.get("exclude", ())
        ):
            return root
    return None


def _is_among(folder: Path, root: Path, patterns: Iterable[str]) -> bool:
    return any(folder in root.glob(pattern) for pattern in patterns)


def _poetry(folder: Path, pyproject: Mapping[str, Any], groups: Sequence[str]) -> Declared | None:
    lock = folder / "poetry.lock"
    table = pyproject.get("tool", {}).get("poetry", {})
    # With PEP 621 beside it, Poetry's table may hold no dependencies at all.
    if not lock.is_file() and (not table or ("project" in pyproject and "dependencies" not in table)):
        return None
    options = poetry.sources(pyproject)
    where = "poetry.lock" if lock.is_file() else "[tool.poetry]"
    chosen, extras = _chosen(where, groups, poetry.groups(pyproject), poetry.extras(pyproject))
    if lock.is_file():
        hashed, other = poetry.from_lock(_toml(lock), pyproject, folder, chosen, extras)
        steps = [Step(lines=(*options, *lines), dependencies=False) for lines in (hashed, other) if lines]
        files, name = [lock], "poetry.lock"
    else:
        hashed, other = [], poetry.from_table(pyproject, folder, chosen, extras)
        steps = [Step(lines=(*options, *other))] if other else []
        files, name = [], "[tool.poetry] in pyproject.toml"
    files += project_files(folder)
    for place in local_projects("\n".join(other), folder):
        files += project_files(place)
    package = table.get("name") or pyproject.get("project", {}).get("name")
    if (
        table.get("package-mode", True)
        and "build-system" in pyproject
        and package
        and (table.get("packages") or _has_package(folder, str(package)))
    ):
        steps.append(Step(project=folder, dependencies=False))
    return Declared(name, folder, _once(files), tuple(steps), notes=_left_out(pyproject, groups))


def _has_package(folder: Path, name: str) -> bool:
    """Whether a project holds what it is called after: else Poetry has nothing to install of it."""
    module = re.sub(r"[-.]+", "_", name)
    places = [above / each for above in (folder, folder / "src") for each in (module, module.lower())]
    return any(place.is_dir() or place.with_name(f"{place.name}.py").is_file() for place in places)


def _pipfile(folder: Path, _: Mapping[str, Any], groups: Sequence[str]) -> Declared | None:
    lock, source = folder / "Pipfile.lock", folder / "Pipfile"
    if lock.is_file():
        locked = _json(lock)
        chosen, _none = _chosen("Pipfile.lock", groups, pipfile.categories(locked), ())
        hashed, other = pipfile.from_lock(locked, folder, chosen)
        steps = tuple(Step(lines=tuple(lines), dependencies=False) for lines in (hashed, other) if lines)
    elif source.is_file():
        written = _toml(source)
        chosen, _none = _chosen("Pipfile", groups, pipfile.categories(written), ())
        other = pipfile.from_pipfile(written, folder, chosen)
        steps = (Step(lines=tuple(other)),) if other else ()
    else:
        return None
    files = [file for file in (lock, source) if file.is_file()]
    for place in local_projects("\n".join(other), folder):
        files += project_files(place)
    return Declared(files[0].name, folder, _once(files), steps)


# --- requirements files -----------------------------------------------------------------------------------


def _requirements(folder: Path, _: Mapping[str, Any], groups: Sequence[str]) -> Declared | None:
    file = folder / "requirements.txt"
    if not file.is_file():
        inside = sorted((folder / "requirements").glob("*.txt"))
        for wanted in (("dev.txt", "development.txt"), ("base.txt",), tuple(each.name for each in inside)):
            sensible = [each for each in inside if each.name in wanted]
            if len(sensible) == 1:
                file = sensible[0]
                break
        else:
            return None
    return _requirements_file(file, folder, groups)


def _requirements_file(file: Path, folder: Path, groups: Sequence[str]) -> Declared:
    if groups:
        raise BootstrapError(
            f"looking up {', '.join(groups)} of app.groups",
            f"The app is installed from {file}, and a requirements file has no groups",
            "name the file that has what you need in app.requirements, and remove app.groups",
        )
    try:
        files = list(all_files(file))
        texts = [decoded(each.read_bytes()) for each in files]
    except OSError as error:
        raise _unreadable(Path(str(error.filename)), str(error.strerror)) from None
    for text in texts:
        for place in local_projects(text, folder):
            files += project_files(place)
    name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
    return Declared(name, folder, _once(files), (Step(file=file),))


# --- projects ---------------------------------------------------------------------------------------------


def _project(folder: Path, pyproject: Mapping[str, Any], groups: Sequence[str]) -> Declared | None:
    if "project" not in pyproject:
        return None
    table = pyproject["project"]
    settings = pyproject.get("tool", {}).get("uv", {})
    name = "[project] in pyproject.toml"
    steps: tuple[Step, ...]
    sources = bool(settings.get("sources"))
    chosen, extras = _chosen("pyproject.toml", groups, _dependency_groups(pyproject), _extras(pyproject))
    more = [line for group in chosen for line in _group_lines(folder, pyproject, group)]
    package = _is_package(folder, pyproject)
    if package:
        steps = (Step(project=folder, extras=extras),)
    elif sources:
        steps = (Step(file=folder / "pyproject.toml"),)
    else:
        lines = tuple(table.get("dependencies", ()))
        steps = (Step(lines=lines),) if lines else ()
    if not package:
        more += [line for name in extras for line in _extra_lines(pyproject, name)]
    if more:
        steps += (Step(lines=_once(more)),)
    if sources:
        name = "tool.uv.sources in pyproject.toml"
    files = list(project_files(folder))
    for source in settings.get("sources", {}).values():
        for each in source if isinstance(source, list) else [source]:
            if "path" in each:
                files += project_files((folder / each["path"]).resolve())
    return Declared(name, folder, _once(files), steps, needs_uv=sources, notes=_left_out(pyproject, groups))


def _is_package(folder: Path, pyproject: Mapping[str, Any]) -> bool:
    """Whether the project itself is installed, and not only what it needs.

    Without a build system pip takes setuptools, which looks for the packages by itself, and uv installs none.
    """
    own = pyproject.get("tool", {}).get("uv", {}).get("package")
    if own is not None:
        return bool(own)
    if "build-system" in pyproject or (folder / "setup.py").is_file():
        return True
    if "dependencies" in pyproject["project"].get("dynamic", ()):
        return True
    if "uv" in pyproject.get("tool", {}):
        return False
    return _is_discovered(folder)


def _is_discovered(folder: Path) -> bool:
    """Whether setuptools finds by itself what is in a project: a `src` layout, or one package or module."""
    if any((folder / "src").glob("*/")) or any((folder / "src").glob("*.py")):
        return True
    names = [each.name for each in folder.iterdir() if each.is_dir() and each.name.isidentifier()]
    packages = [name for name in names if name.lower() not in _NOT_PACKAGES and not name.startswith("_")]
    if packages:
        return len(packages) == 1
    modules = [
        each.stem for each in folder.glob("*.py") if each.stem not in {*_NOT_PACKAGES, "conftest", "tasks"}
    ]
    return len(modules) == 1


def dependencies(folder: Path) -> tuple[str, ...] | None:
    """What a project itself names as its dependencies (PEP 621); None: only its build can tell."""
    project = _toml(folder / "pyproject.toml").get("project", {})
    if not project or "dependencies" in project.get("dynamic", ()):
        return None
    return tuple(project.get("dependencies", ()))


def _setup(folder: Path, _: Mapping[str, Any], groups: Sequence[str]) -> Declared | None:
    for name in ("setup.py", "setup.cfg"):
        file = folder / name
        # A setup.cfg may hold nothing but the settings of other tools.
        if file.is_file() and (name == "setup.py" or "[metadata]" in decoded(file.read_bytes())):
            # Which extras there are is known only to its build.
            return Declared(
                name, folder, project_files(folder), (Step(project=folder, extras=tuple(groups)),)
            )
    return None


# --- groups and extras ------------------------------------------------------------------------------------


def _dependency_groups(pyproject: Mapping[str, Any]) -> Mapping[str, Any]:
    found = pyproject.get("dependency-groups", {})
    return found if isinstance(found, dict) else {}


def _extras(pyproject: Mapping[str, Any]) -> Mapping[str, Any]:
    found = pyproject.get("project", {}).get("optional-dependencies", {})
    return found if isinstance(found, dict) else {}


def _chosen(
    where: str, wanted: Sequence[str], groups: Iterable[str], extras: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which groups, and which extras, are meant; a name is a group's first. Each is written as it is declared.

    Raises BootstrapError: there is no group and no extra of that name.
    """
    of_groups = {poetry.normalized(name): name for name in groups}
    of_extras = {poetry.normalized(name): name for name in extras}
    for name in wanted:
        if poetry.normalized(name) not in {*of_groups, *of_extras}:
            there = sorted({*of_groups.values(), *of_extras.values()})
            raise BootstrapError(
                "reading what the app needs",
                f"app.groups asks for {name}, and {where} has "
                + (f"{', '.join(there)}" if there else "neither groups nor extras"),
                "name one of them in app.groups" if there else "remove app.groups",
            )
    keys = [poetry.normalized(name) for name in wanted]
    return (
        tuple(of_groups[key] for key in keys if key in of_groups),
        tuple(of_extras[key] for key in keys if key not in of_groups),
    )


def _group_lines(
    folder: Path, pyproject: Mapping[str, Any], name: str, above: tuple[str, ...] = ()
) -> Iterator[str]:
    """The requirements of a group, with those of the groups that it includes (PEP 735).

    Raises BootstrapError: it includes itself, or one that is not there.
    """
    groups = {poetry.normalized(each): lines for each, lines in _dependency_groups(pyproject).items()}
    key = poetry.normalized(name)
    if key in above or key not in groups:
        why = "includes itself" if key in above else "is included, and there is none"
        raise _unreadable(folder / "pyproject.toml", f"the dependency group {name} {why}")
    for line in groups[key]:
        if isinstance(line, str):
            yield line
        elif isinstance(line, dict) and "include-group" in line:
            yield from _group_lines(folder, pyproject, line["include-group"], (*above, key))


def _extra_lines(pyproject: Mapping[str, Any], name: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The requirements of an extra; where it asks for extras of the project itself, theirs."""
    own = poetry.normalized(str(pyproject.get("project", {}).get("name", "")))
    extras = {poetry.normalized(each): lines for each, lines in _extras(pyproject).items()}
    key = poetry.normalized(name)
    for line in extras.get(key, ()) if key not in above else ():
        itself = re.match(r"[\w.-]+\s*\[(.*?)\]", line) if poetry.requirement_name(line) == own else None
        if itself is None:
            yield line
        else:
            for each in itself[1].split(","):
                yield from _extra_lines(pyproject, each.strip(), (*above, key))


def _left_out(pyproject: Mapping[str, Any], wanted: Sequence[str]) -> tuple[str, ...]:
    """A note of the groups that are not installed."""
    asked = {poetry.normalized(name) for name in wanted}
    names = {
        name
        for name in (*_dependency_groups(pyproject), *poetry.groups(pyproject))
        if poetry.normalized(name) not in asked
    }
    if not names:
        return ()
    return (
        f"Dependency groups that are left out: {', '.join(sorted(names))}. "
        "`app.groups` in invoke.yaml names those that the app needs.",
    )


# --- reading ----------------------------------------------------------------------------------------------


def _toml(file: Path) -> Mapping[str, Any]:
    """A TOML file; empty where there is none."""
    import tomllib

    try:
        return tomllib.loads(decoded(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _unreadable(file, str(error.strerror)) from None
    except ValueError as error:
        raise _unreadable(file, f"it is not TOML: {error}") from None


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(decoded(file.read_bytes()))
    except OSError as error:
        raise _unreadable(file, str(error.strerror)) from None
    except ValueError as error:
        raise _unreadable(file, f"it is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _unreadable(file: Path, why: str) -> BootstrapError:
    return BootstrapError(
        "reading what the app needs",
        f"{file}: {why}",
        f"correct {file}, or name another file in app.requirements in the settings",
    )


def _once(each: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(each))
