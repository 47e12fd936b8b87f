"""What a folder with a Flask app says of itself: the app, the names under which it reads its database, the database.

Everything is read, and nothing is run: Python files by their syntax tree, the others as text.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SKIPPED = frozenset(
    "node_modules site-packages __pycache__ tests test testing docs doc examples example samples migrations env venv build dist".split()
)
# Classes whose instance is a Flask app, or holds one: of Flask, APIFlask, flask-openapi3, Eve and connexion.
_APPS = frozenset({"Flask", "APIFlask", "OpenAPI", "Eve", "FlaskApp", "App"})
_CONVENTIONAL = ("wsgi", "app", "application", "main", "run", "server", "manage")
_OBJECTS = ("app", "application", "api", "server")
_FACTORIES = ("create_app", "make_app")
_INTERESTING = re.compile(rb"Flask|create_app|make_app|[Mm]ongo|connexion|\bEve\b")
_MONGO_LIBRARIES = frozenset(
    {"pymongo", "mongoengine", "flask_pymongo", "flask_mongoengine", "motor", "mongokit", "eve"}
)
_LARGEST = 1_000_000
_MOST_FILES = 20_000


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


@dataclass(frozen=True)
class Variable:
    """An environment variable that the app reads and that has to do with its database."""

    name: str
    template: str  # what it gets
    where: str


@dataclass(frozen=True)
class Found:
    """What was read. All is in the order in which it was met."""

    candidates: tuple[Candidate, ...] = ()
    variables: tuple[Variable, ...] = ()
    fixed: tuple[
        str, ...
    ] = ()  # where an address stands in the source: ``"app.py, line 12: localhost:27017"``
    database: str = ""  # empty: not said anywhere
    database_from: str = ""
    uses_mongo: bool = False


@dataclass
class _Module:
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


def look(root: Path, known: Mapping[str, object]) -> Found:
    """Read a project.

    Args:
        root: its folder.
        known: the names of variables that the app gets anyway.
    """
    files = list(_files(root))
    modules = [
        module for file in files if file.suffix == ".py" and (module := _parse(root, file)) is not None
    ]
    candidates = _candidates(root, modules)
    libraries = {each.split(".")[0] for module in modules for each in module.imports.values()}
    uses_mongo = bool(libraries & _MONGO_LIBRARIES)
    examples = _examples(root)
    variables = _variables(modules, examples, known, uses_mongo)
    database, database_from = _database(modules, examples)
    return Found(
        tuple(candidates), tuple(variables), tuple(_fixed(modules)), database, database_from, uses_mongo
    )


# Files


def _files(root: Path) -> Iterator[Path]:
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


def _parse(root: Path, file: Path) -> _Module | None:
    try:
        content = file.read_bytes()[:_LARGEST]
        if not _INTERESTING.search(content) and b"environ" not in content and b"getenv" not in content:
            return None
        tree = ast.parse(content)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    base, name = _import_name(root, file, tree)
    path = base.relative_to(root).as_posix()
    module = _Module(name, path, file.relative_to(root).as_posix(), tree)
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


def _read_module(module: _Module) -> None:
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
        if isinstance(statement, ast.FunctionDef):
            if _is_factory(module, statement):
                module.factories[statement.name] = statement
        for target, value in _assignments(statement):
            if isinstance(value, ast.Call):
                module.apps.setdefault(target, value)


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Name and value of what a statement at the top of a module assigns, in `if` and `try` too."""
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value
    elif isinstance(statement, ast.If | ast.Try):
        if not _is_main(statement):
            for each in statement.body:
                yield from _assignments(each)


def _is_main(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`."""
    return isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)


def _called(call: ast.Call) -> str:
    """The last name of what is called: ``Flask`` of ``flask.Flask(…)``."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _makes_app(module: _Module, call: ast.AST) -> bool:
    if not isinstance(call, ast.Call) or _called(call) not in _APPS:
        return False
    if isinstance(call.func, ast.Attribute):
        source = module.imports.get(getattr(call.func.value, "id", ""), "")
    else:
        source = module.imports.get(_called(call), "")
    known = source.split(".")[0]
    return known in ("flask", "apiflask", "flask_openapi3", "eve", "connexion") or (
        _called(call) == "Flask" and known != ""
    )


def _is_factory(module: _Module, function: ast.FunctionDef) -> bool:
    inner = list(ast.walk(function))
    returns = any(isinstance(node, ast.Return) and node.value is not None for node in inner)
    makes = any(_makes_app(module, node) for node in inner)
    return returns and (makes or function.name in _FACTORIES)


# The app


def _candidates(root: Path, modules: Sequence[_Module]) -> list[Candidate]:
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


def _of_module(module: _Module, modules: Sequence[_Module]) -> Iterator[Candidate]:
    depth = module.file.count("/")
    server, port = _served(module)
    for name, call in module.apps.items():
        calls = _factory_called(module, call, modules)
        if not calls and not _makes_app(module, call):
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
    names = sorted(module.factories, key=lambda each: each not in _FACTORIES)
    for name in names[:1]:
        function = module.factories[name]
        rank = _rank(module, depth, name, _FACTORIES) + 1
        arguments, needs = _arguments(module, function, modules)
        yield Candidate(
            f"{module.name}:{name}{arguments}", module.path, f"{module.file}, line {function.lineno}", rank, needs, server=server, port=port
        )  # fmt: skip


def _rank(module: _Module, depth: int, name: str, usual: Sequence[str]) -> int:
    stem = module.name.rsplit(".", 1)[-1]
    conventional = _CONVENTIONAL.index(stem) if stem in _CONVENTIONAL and depth == 0 else 10
    package = module.file.endswith("__init__.py")
    return (
        (0 if conventional < 10 else 20 if package else 40)
        + (0 if name in usual else 5)
        + 10 * max(0, depth - package - (module.path != "."))
    )


def _factory_called(module: _Module, call: ast.Call, modules: Sequence[_Module]) -> str:
    """The factory of the project, as module:name, that a call calls; empty: it calls none."""
    name = _called(call)
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


def _arguments(module: _Module, function: ast.FunctionDef, modules: Sequence[_Module]) -> tuple[str, str]:
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
                and _called(node) == function.name
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
        literal = _literal(value)
        if literal is None:
            return ""
        shown.append(f"{key}{literal!r}")
    return f"({', '.join(shown)})" if shown else ""


def _literal(value: ast.expr) -> object:
    if isinstance(value, ast.Constant):
        return value.value
    if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or):
        return _literal(value.values[-1])
    if isinstance(value, ast.Call) and _called(value) in ("get", "getenv") and len(value.args) == 2:
        return _literal(value.args[1])
    return None


def _configurations(modules: Sequence[_Module]) -> str:
    """The key of a mapping of configurations that is for development: ``config = {"development": …}``."""
    keys = {
        str(key.value)
        for module in modules
        for statement in module.tree.body
        for _, value in _assignments(statement)
        if isinstance(value, ast.Dict)
        for key in value.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    return next((each for each in ("development", "dev", "default") if each in keys), "")


def _served(module: _Module) -> tuple[str, int | None]:
    """What serves the app where the module is run as a script, and on which port."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "run":
            port = next((each.value for each in node.keywords if each.arg == "port"), None)
            number = _literal(port) if port is not None else None
            made = module.apps.get(getattr(node.func.value, "id", ""))
            kind = "socketio" if made is not None and _called(made) == "SocketIO" else ""
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
        for key, value, line in _assigned(root / name):
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
        text = _text(root / name)
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.search(r"FLASK_APP[\"']?\s*[=:]\s*[\"']?([\w.:()/'\"-]+)", line):
                yield f"{name}, line {number}", match[1].strip("\"'")
            elif match := re.search(
                r"\b(?:gunicorn|waitress-serve|uwsgi)\b.*?[\s\"']([A-Za-z_][\w.]*:[A-Za-z_]\w*(?:\([^)\s]*\))?)",
                line,
            ):
                yield f"{name}, line {number}", match[1]


# The database

_SHAPES = (
    (re.compile(r"(URI|URL|CONNECTION(_?STRING)?|CONN_?STR(ING)?|DSN)$"), "{{ uri }}"),
    (re.compile(r"HOST(NAME)?$"), "{{ host }}"),
    (re.compile(r"PORT$"), "{{ port }}"),
    (re.compile(r"(USER(NAME)?|LOGIN)$"), "{{ username }}"),
    (re.compile(r"(PASS(WORD|WD)?|PWD)$"), "{{ password }}"),
    (re.compile(r"(DB|DBNAME|DATABASE|(DB|DATABASE|MONGO|MONGODB)_?NAME)$"), "{{ database }}"),
)
_ABOUT_MONGO = re.compile(r"MONGO")
_ABOUT_DATABASE = re.compile(r"(^|_)(DB|DATABASE)(_|$)|^DB|DB$")
_URI = re.compile(r"mongodb(?:\+srv)?://[^\s\"'<>]+")


def _variables(
    modules: Sequence[_Module],
    examples: Mapping[str, tuple[str, str]],
    known: Mapping[str, object],
    uses_mongo: bool,
) -> list[Variable]:
    found: dict[str, Variable] = {}
    for name, default, where in _read_names(modules):
        told = f"{default} {examples.get(name, ('', ''))[0]}"
        mongo = _ABOUT_MONGO.search(name) or _URI.search(told)
        if name in known or name in found or not (mongo or (uses_mongo and _ABOUT_DATABASE.search(name))):
            continue
        if "postgres" in told or "mysql" in told or "sqlite" in told:
            continue
        if name == "DATABASE_URL" and not _URI.search(told):
            continue
        template = next((template for shape, template in _SHAPES if shape.search(name)), "")
        if not template and _URI.search(told):
            template = "{{ uri }}"
        if template:
            found[name] = Variable(name, template, where)
    return list(found.values())


def _read_names(modules: Sequence[_Module]) -> Iterator[tuple[str, str, str]]:
    """The environment variables that a project reads: name, default, place."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
                name, default = node.slice, None
            elif isinstance(node, ast.Call) and node.args and _reads_environment(module, node):
                name = node.args[0]
                default = next((each.value for each in node.keywords if each.arg == "default"), None)
                default = node.args[1] if len(node.args) > 1 else default
            else:
                continue
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                shown = default.value if isinstance(default, ast.Constant) else ""
                yield name.value, str(shown or ""), f"{module.file}, line {node.lineno}"


def _reads_environment(module: _Module, call: ast.Call) -> bool:
    """`os.environ.get`, `os.getenv`, and the readers of environs and python-decouple."""
    text = ast.unparse(call.func)
    if text.endswith(("environ.get", "getenv", "environ.setdefault")):
        return True
    first = text.split(".")[0]
    source = module.imports.get(first, "")
    return source.startswith("decouple.") or (
        first == "env" and any(each.startswith(("environs", "environ.")) for each in module.imports.values())
    )


def _fixed(modules: Sequence[_Module]) -> Iterator[str]:
    """Where a client is made with an address that stands in the source, or with none."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _called(node) in ("MongoClient", "AsyncMongoClient"):
                first = (
                    node.args[0]
                    if node.args
                    else next((k.value for k in node.keywords if k.arg == "host"), None)
                )
                if first is None or isinstance(first, ast.Constant):
                    address = "localhost:27017" if first is None else str(getattr(first, "value", ""))
                    yield f"{module.file}, line {node.lineno}: {address}"


def _database(modules: Sequence[_Module], examples: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """The database's name, and where it stands: in an example of the environment, an address, or the source."""
    for name, (value, where) in examples.items():
        if _ABOUT_MONGO.search(name) or _ABOUT_DATABASE.search(name):
            if found := _in_uri(value):
                return found, where
            if _SHAPES[-1][0].search(name) and _is_database(value):
                return value, where
    for module in modules:
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and (found := _in_uri(node.value))
            ):
                return found, f"{module.file}, line {node.lineno}"
    for name, default, where in _read_names(modules):
        if _ABOUT_MONGO.search(name) and _SHAPES[-1][0].search(name) and _is_database(default):
            return default, where
    return _in_source(modules)


def _in_source(modules: Sequence[_Module]) -> tuple[str, str]:
    """The name in `client["shop"]`, `connect("shop")`, `MONGODB_SETTINGS = {"db": "shop"}`."""
    for module in modules:
        clients = {name for name, call in module.apps.items() if _called(call) == "MongoClient"}
        for node in ast.walk(module.tree):
            name: object = None
            if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") in clients:
                name = getattr(node.slice, "value", None)
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in clients:
                name = (
                    None
                    if node.attr in ("close", "admin", "server_info") or node.attr.startswith("get_")
                    else node.attr
                )
            elif isinstance(node, ast.Call) and node.args and _called(node) in ("get_database", "connect"):
                name = getattr(node.args[0], "value", None)
            elif isinstance(node, ast.Dict):
                keys = [getattr(key, "value", None) for key in node.keys]
                if "db" in keys and ({"host", "port"} & set(keys)):
                    name = getattr(node.values[keys.index("db")], "value", None)
            if isinstance(name, str) and _is_database(name):
                return name, f"{module.file}, line {getattr(node, 'lineno', 1)}"
    return "", ""


def _is_database(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name))


def _in_uri(text: str) -> str:
    match = re.search(r"mongodb(?:\+srv)?://[^/\s]+/([A-Za-z0-9_-]{1,63})(?:[?\s\"']|$)", text)
    return match[1] if match and match[1] not in ("admin", "test") else ""


# Other files


def _examples(root: Path) -> dict[str, tuple[str, str]]:
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
        for key, value, line in _assigned(root / name):
            found.setdefault(key, (value, f"{name}, line {line}"))
    return found


def _assigned(file: Path) -> Iterator[tuple[str, str, int]]:
    for number, line in enumerate(_text(file).splitlines(), 1):
        if match := re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", line):
            yield match[1], match[2].strip("\"'"), number


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""
    except OSError:
        return ""
