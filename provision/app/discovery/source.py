"""The Python files of a project as syntax trees, and what stands in its other files. Nothing is run."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from provision.core.dataclass import dataclass

_SKIPPED = frozenset(
    (
        "node_modules",
        "site-packages",
        "__pycache__",
        "tests",
        "test",
        "testing",
        "docs",
        "doc",
        "examples",
        "example",
    )
) | frozenset(("samples", "migrations", "env", "venv", "build", "dist"))
# Classes whose instance is a Flask app, or holds one: of Flask, APIFlask, flask-openapi3, Eve and connexion.
_APPS = frozenset({"Flask", "APIFlask", "OpenAPI", "Eve", "FlaskApp", "App"})
FACTORIES = ("create_app", "make_app")
_INTERESTING = re.compile(rb"Flask|create_app|make_app|[Mm]ongo|connexion|\bEve\b")
_LARGEST = 1_000_000
_MOST_FILES = 20_000


@dataclass
class Module:
    """One Python file, read."""

    name: str  # dotted, from the folder that it is imported from
    path: str
    file: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)  # name here → module.name there
    apps: dict[str, ast.Call] = field(
        default_factory=dict
    )  # name → the call that makes it, at the top of the module
    factories: dict[str, ast.FunctionDef] = field(default_factory=dict)


def python_files(root: Path) -> Iterator[Path]:
    """The Python files of a project, those at its top first; of virtualenvs, tests and examples none."""
    seen = 0
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and each not in _SKIPPED and not (here / each / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            if (
                name.endswith(".py")
                and not name.startswith("test_")
                and name not in ("conftest.py", "setup.py")
            ):
                seen += 1
                if seen > _MOST_FILES:
                    return
                yield here / name


def parse(root: Path, file: Path) -> Module | None:
    try:
        content = file.read_bytes()[:_LARGEST]
        if not _INTERESTING.search(content) and b"environ" not in content and b"getenv" not in content:
            return None
        tree = ast.parse(content)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    base, name = _import_name(root, file, tree)
    path = base.relative_to(root).as_posix()
    module = Module(name, path, file.relative_to(root).as_posix(), tree)
    _read_module(module)
    return module


def _import_name(root: Path, file: Path, tree: ast.Module) -> tuple[Path, str]:
    """The folder that a file is imported from, and its dotted name there."""
    parts = [] if file.stem == "__init__" else [file.stem]
    folder = file.parent
    while folder != root and ((folder / "__init__.py").is_file() or _imports_own_folder(tree, folder.name)):
        parts.insert(0, folder.name)
        folder = folder.parent
    if file.stem == "__init__" and not parts:
        parts = [folder.name]  # a package at the very top: it is imported from above
        folder = folder.parent
    if folder.name == "src" and folder.parent == root and _installs_itself(root):
        folder = root  # installed, it is imported from anywhere, and runs where its files are
    return (folder if folder.is_relative_to(root) else root), ".".join(parts)


def _imports_own_folder(tree: ast.Module, name: str) -> bool:
    """Whether a file imports from its folder by that folder's name: it is a package without `__init__.py`."""
    return any(
        isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == name
        for node in tree.body
    )


def _installs_itself(root: Path) -> bool:
    project = root / "pyproject.toml"
    text = project.read_text(encoding="utf-8", errors="replace") if project.is_file() else ""
    return (
        "[project]" in text
        or "[tool.poetry]" in text
        or any((root / each).is_file() for each in ("setup.py", "setup.cfg"))
    )


def _read_module(module: Module) -> None:
    package = module.name.rsplit(".", 1)[0] if "." in module.name else module.name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            source = (f"{package}." if node.level else "") + (node.module or "")
            for each in node.names:
                module.imports[each.asname or each.name] = f"{source.rstrip('.')}.{each.name}"
        elif isinstance(node, ast.Import):
            for each in node.names:
                module.imports[each.asname or each.name.split(".")[0]] = each.name
    for statement in module.tree.body:
        if isinstance(statement, ast.FunctionDef) and _is_factory(module, statement):
            module.factories[statement.name] = statement
        for target, value in assignments(statement):
            if isinstance(value, ast.Call):
                module.apps.setdefault(target, value)


def assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Name and value of what a statement at the top of a module assigns, in `if` and `try` too."""
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value
    elif isinstance(statement, ast.If | ast.Try) and not _is_main(statement):
        for each in statement.body:
            yield from assignments(each)


def _is_main(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`."""
    return isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)


def called(call: ast.Call) -> str:
    """The last name of what is called: ``Flask`` of ``flask.Flask(…)``."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def makes_app(module: Module, call: ast.AST) -> bool:
    if not isinstance(call, ast.Call) or called(call) not in _APPS:
        return False
    if isinstance(call.func, ast.Attribute):
        source = module.imports.get(getattr(call.func.value, "id", ""), "")
    else:
        source = module.imports.get(called(call), "")
    known = source.split(".")[0]
    return known in ("flask", "apiflask", "flask_openapi3", "eve", "connexion") or (
        called(call) == "Flask" and known != ""
    )


def _is_factory(module: Module, function: ast.FunctionDef) -> bool:
    inner = list(ast.walk(function))
    returns = any(isinstance(node, ast.Return) and node.value is not None for node in inner)
    makes = any(makes_app(module, node) for node in inner)
    return returns and (makes or function.name in FACTORIES)


def literal(value: ast.expr) -> object:
    if isinstance(value, ast.Constant):
        return value.value
    if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or):
        return literal(value.values[-1])
    if isinstance(value, ast.Call) and called(value) in ("get", "getenv") and len(value.args) == 2:
        return literal(value.args[1])
    if isinstance(value, ast.Call) and called(value) in ("int", "str") and len(value.args) == 1:
        return literal(value.args[0])
    return None


def examples_of(root: Path) -> dict[str, tuple[str, str]]:
    """What the project's examples of an environment say: name → value and place."""
    found: dict[str, tuple[str, str]] = {}
    for name in (
        ".env.example",
        ".env.sample",
        ".env.template",
        ".env.dist",
        "env.example",
        ".flaskenv",
        ".env",
    ):
        for key, value, line in assigned(root / name):
            found.setdefault(key, (value, f"{name}, line {line}"))
    return found


def assigned(file: Path) -> Iterator[tuple[str, str, int]]:
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if match := re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", line):
            yield match[1], match[2].strip("\"'"), number


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""
    except OSError:
        return ""
