"""How an app reads the address of its database, and the database's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from provision.app.discovery.source import Module, called
from provision.core.dataclass import dataclass

MONGO_LIBRARIES = frozenset(
    {"pymongo", "mongoengine", "flask_pymongo", "flask_mongoengine", "motor", "mongokit", "eve"}
)
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


@dataclass(frozen=True)
class Variable:
    """An environment variable that the app reads and that has to do with its database."""

    name: str
    template: str  # what it gets
    where: str


def variables_of(
    modules: Sequence[Module],
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


def _read_names(modules: Sequence[Module]) -> Iterator[tuple[str, str, str]]:
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


def _reads_environment(module: Module, call: ast.Call) -> bool:
    """`os.environ.get`, `os.getenv`, and the readers of environs and python-decouple."""
    text = ast.unparse(call.func)
    if text.endswith(("environ.get", "getenv", "environ.setdefault")):
        return True
    first = text.split(".")[0]
    source = module.imports.get(first, "")
    return source.startswith("decouple.") or (
        first == "env" and any(each.startswith(("environs", "environ.")) for each in module.imports.values())
    )


def fixed_addresses(modules: Sequence[Module]) -> Iterator[str]:
    """Where a client is made with an address that stands in the source, or with none."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and called(node) in ("MongoClient", "AsyncMongoClient"):
                first = (
                    node.args[0]
                    if node.args
                    else next((k.value for k in node.keywords if k.arg == "host"), None)
                )
                if first is None or isinstance(first, ast.Constant):
                    address = "localhost:27017" if first is None else str(getattr(first, "value", ""))
                    yield f"{module.file}, line {node.lineno}: {address}"


def database_of(modules: Sequence[Module], examples: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
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


def _in_source(modules: Sequence[Module]) -> tuple[str, str]:
    """The name in `client["shop"]`, `connect("shop")`, `MONGODB_SETTINGS = {"db": "shop"}`."""
    for module in modules:
        clients = {name for name, call in module.apps.items() if called(call) == "MongoClient"}
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
            elif isinstance(node, ast.Call) and node.args and called(node) in ("get_database", "connect"):
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
