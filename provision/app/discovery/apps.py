"""Where a project's Flask app is: an object, or a factory."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from provision.app.discovery.source import (
    FACTORIES,
    Module,
    assigned,
    assignments,
    called,
    literal,
    makes_app,
    text_of,
)
from provision.core.dataclass import dataclass

_CONVENTIONAL = ("wsgi", "app", "application", "main", "run", "server", "manage")
_OBJECTS = ("app", "application", "api", "server")


@dataclass(frozen=True)
class Candidate:
    """One way to get an app."""

    factory: str  # as `app.factory` takes it
    path: str  # the folder that it is imported from, below the project's; ``"."`` is that itself
    where: str  # file and line, or the file that names it
    rank: int  # the smaller, the more sure
    needs: str = (
        ""  # what the factory's arguments are, where nobody in the project says with which it is called
    )
    calls: str = ""  # the factory that gave this object, as module:name
    server: str = ""  # what serves it, where that is not Flask: ``"socketio"``
    port: int | None = None  # where the script listens


def candidates_of(root: Path, modules: Sequence[Module]) -> list[Candidate]:
    found = [each for module in modules for each in _of_module(module, modules)]
    named = _named(root, found)
    if named:
        return named
    given = {each.calls for each in found if each.calls}
    # An object that a factory gave, and the factory: one app.
    apart = [
        each
        for each in found
        if each.factory not in given and f"{each.factory.partition('(')[0]}" not in given
    ]
    if not apart:
        return []
    best = min(each.rank for each in apart)
    return [each for each in apart if each.rank == best]


def _of_module(module: Module, modules: Sequence[Module]) -> Iterator[Candidate]:
    depth = module.file.count("/")
    server, port = _served(module)
    for name, call in module.apps.items():
        calls = _factory_called(module, call, modules)
        if not calls and not makes_app(module, call):
            continue
        rank = _rank(module, depth, name, _OBJECTS)
        yield Candidate(
            f"{module.name}:{name}",
            module.path,
            f"{module.file}, line {call.lineno}",
            rank,
            calls=calls,
            server=server,
            port=port,
        )
        return  # the others of this module are parts of it, or the same
    names = sorted(module.factories, key=lambda each: each not in FACTORIES)
    for name in names[:1]:
        function = module.factories[name]
        rank = _rank(module, depth, name, FACTORIES) + 1
        arguments, needs = _arguments(function, modules)
        where = f"{module.file}, line {function.lineno}"
        yield Candidate(
            f"{module.name}:{name}{arguments}", module.path, where, rank, needs, server=server, port=port
        )


def _rank(module: Module, depth: int, name: str, usual: Sequence[str]) -> int:
    stem = module.name.rsplit(".", 1)[-1]
    conventional = _CONVENTIONAL.index(stem) if stem in _CONVENTIONAL and depth == 0 else 10
    package = module.file.endswith("__init__.py")
    return (
        (0 if conventional < 10 else 20 if package else 40)
        + (0 if name in usual else 5)
        + 10 * max(0, depth - package - (module.path != "."))
    )


def _factory_called(module: Module, call: ast.Call, modules: Sequence[Module]) -> str:
    """The factory of the project, as module:name, that a call calls; empty: it calls none."""
    name = called(call)
    if name in module.factories:
        return f"{module.name}:{name}"
    source = module.imports.get(name, "")
    holder, _, _ = source.rpartition(".")
    for other in modules:
        if name in other.factories and (
            other.name == holder or (holder and other.name.startswith(f"{holder}."))
        ):
            return f"{other.name}:{name}"
    return ""


def _arguments(function: ast.FunctionDef, modules: Sequence[Module]) -> tuple[str, str]:
    """The arguments to call a factory with, in brackets, and what it needs where nobody says with which."""
    given = function.args
    required = len(given.args) - len(given.defaults)
    names = [each.arg for each in given.args[:required]]
    names += [
        each.arg for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None
    ]
    if not names:
        return "", ""
    for other in modules:
        for node in ast.walk(other.tree):
            if (
                isinstance(node, ast.Call)
                and called(node) == function.name
                and (literal := _literal_call(node))
            ):
                return literal, ""
    if names == [given.args[0].arg] and (choice := _configurations(modules)):
        return f"({choice!r})", ""
    return "", ", ".join(names)


def _literal_call(call: ast.Call) -> str:
    """The arguments of a call, in brackets, where all are literals, or ``os.getenv("X") or "default"``."""
    shown = []
    for key, value in [("", each) for each in call.args] + [
        (f"{each.arg}=", each.value) for each in call.keywords
    ]:
        known = literal(value)
        if known is None:
            return ""
        shown.append(f"{key}{known!r}")
    return f"({', '.join(shown)})" if shown else ""


def _configurations(modules: Sequence[Module]) -> str:
    """The key of a mapping of configurations that is for development: ``config = {"development": …}``."""
    keys = {
        str(key.value)
        for module in modules
        for statement in module.tree.body
        for _, value in assignments(statement)
        if isinstance(value, ast.Dict)
        for key in value.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    return next((each for each in ("development", "dev", "default") if each in keys), "")


def _served(module: Module) -> tuple[str, int | None]:
    """What serves the app where the module is run as a script, and on which port."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "run":
            port = next((each.value for each in node.keywords if each.arg == "port"), None)
            number = literal(port) if port is not None else None
            made = module.apps.get(getattr(node.func.value, "id", ""))
            kind = "socketio" if made is not None and called(made) == "SocketIO" else ""
            if kind or made is not None:
                return kind, int(number) if isinstance(number, int | str) and str(number).isdigit() else None
    return "", None


def _named(root: Path, found: Sequence[Candidate]) -> list[Candidate]:
    """The app that a file of the project names outright: FLASK_APP, or the command line of a server."""
    for file, name in _names(root):
        module, _, rest = name.partition(":")
        if module.endswith(".py"):
            module = module.removesuffix(".py").replace("/", ".").lstrip(".")
        known = next((each for each in found if each.factory.partition(":")[0] == module), None)
        if rest:
            path = known.path if known else "."
            return [Candidate(f"{module}:{rest}", path, file, 0, server=known.server if known else "")]
        if known is not None:
            return [known]
    return []


def _names(root: Path) -> Iterator[tuple[str, str]]:
    for name in (".flaskenv", ".env", ".env.example", ".env.sample", "env.example"):
        for key, value, line in assigned(root / name):
            if key == "FLASK_APP" and value:
                yield f"{name}, line {line}", value
    for name in (
        "pyproject.toml",
        "setup.cfg",
        "tox.ini",
        "Procfile",
        "Dockerfile",
        "Makefile",
        "docker-compose.yml",
        "compose.yaml",
    ):
        for number, text in enumerate(text_of(root / name).splitlines(), 1):
            if match := re.search(r"FLASK_APP[\"']?\s*[=:]\s*[\"']?([\w.:()/'\"-]+)", text):
                yield f"{name}, line {number}", match[1].strip("\"'")
            elif match := re.search(
                r"\b(?:gunicorn|waitress-serve|uwsgi)\b.*?[\s\"']([A-Za-z_][\w.]*:[A-Za-z_]\w*(?:\([^)\s]*\))?)",
                text,
            ):
                yield f"{name}, line {number}", match[1]
