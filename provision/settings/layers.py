"""What stands in the settings files, line by line. `provision.env.settings_files` says which files there are."""

from __future__ import annotations

import functools
import os
from dataclasses import field, replace
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.env.settings_files import SUFFIXES, file_at, home_folder, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from provision.core.errors import ProvisionError

    KeyPath = tuple[str, ...]

RUNTIME_VARIABLE = "INVOKE_RUNTIME_CONFIG"
RUNTIME_CONFIG = "runtime_config"
"""Under which key of a task's `invoke.Config` stands what ``-f`` names."""
START = "start_folder"
"""Under which key stands the folder that the project is looked for from."""
DOING = "reading the settings"


@dataclass(frozen=True)
class Fault:
    """What is wrong with one place in a file, although the file can be read."""

    path: KeyPath  # the keys that lead there
    cause: str  # what is wrong, without file and line
    remedy: str  # what to write instead


@dataclass(frozen=True)
class Layer:
    """One place that settings come from."""

    origin: str  # how a person names it: ``"invoke.yaml"``, ``"INVOKE_APP_PORT"``
    values: Mapping[str, Any]  # nested mapping, as the file has it
    ours_alone: bool = True  # False for files other projects share, whose unknown top-level keys are theirs
    # keys → the line that they stand in; positions in lists are keys
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    # keys → how a value is written that YAML took for something other than text
    written: Mapping[KeyPath, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()  # what is wrong with it


def read_layers(root: Path, environ: Mapping[str, str], runtime: str | None = None) -> list[Layer]:
    """All settings files, lowest first."""
    layers = []
    for place in places(root, environ):
        path = file_at(place)
        if path is not None:
            layers.append(_read(path, shortened(path, root, environ), place.ours_alone))
    named = environ.get(RUNTIME_VARIABLE) or None if runtime is None else runtime
    if named is not None:
        by = "`-f`" if runtime is not None else RUNTIME_VARIABLE
        remedy = "Leave `-f` out, or name a file that is there." if runtime is not None else ""
        remedy = remedy or f"Type `unset {RUNTIME_VARIABLE}`, or set it to a file that is there."
        path = Path(os.path.expanduser(named))  # noqa: PTH111 — takes a user that is not known
        if not named or not path.exists():
            raise _error(f"{named or 'A file without a name'} is not there, and {by} names it.", remedy)
        if path.suffix not in SUFFIXES:
            suffixes = ", ".join(SUFFIXES)
            raise _error(
                f"{named}, which {by} names, does not say by its name what it is written in.",
                f"Name a file that ends with one of these: {suffixes}.",
            )
        layer = _read(path.absolute(), shortened(path.absolute(), root, environ), True)
        layers.append(_too_late(layer, f"{by} is read"))
    return layers


def _too_late(layer: Layer, moment: str) -> Layer:
    """A layer that `python_setting` does not look at must not set `env.python`: it would say nothing."""
    env = layer.values.get("env")
    if not isinstance(env, dict) or env.get("python") is None:
        return layer
    cause = f"env/ is made before {moment}"
    remedy = "Set env.python in invoke.local.yaml, or for once: INVOKE_ENV_PYTHON=3.12 ./invoke setup"
    return replace(layer, faults=(*layer.faults, Fault(("env", "python"), cause, remedy)))


def shortened(path: Path, root: Path, environ: Mapping[str, str]) -> str:
    """A file as messages name it: from the project's top folder or from the user's home, if it is there."""
    for folder, prefix in ((root, ""), (home_folder(environ), "~/")):
        if folder is not None and folder in path.parents:
            return prefix + str(path.relative_to(folder))
    return str(path)


def _error(cause: str, remedy: str) -> ProvisionError:
    from provision.core.errors import ProvisionError

    return ProvisionError(DOING, cause, remedy)


def _read(path: Path, origin: str, ours_alone: bool) -> Layer:
    """Read a file, once for each of its states."""
    try:
        found = path.stat()
    except OSError as problem:
        raise _unreadable(origin, problem) from None
    return _read_once(path, origin, ours_alone, found.st_mtime_ns, found.st_size)


def _unreadable(origin: str, problem: OSError) -> ProvisionError:
    return _error(
        f"{origin} cannot be read: {problem.strerror}.",
        f"Type: ls -l {origin}   # and make it a readable file",
    )


@functools.lru_cache(maxsize=32)
def _read_once(path: Path, origin: str, ours_alone: bool, _mtime_ns: int, _size: int) -> Layer:
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise _unreadable(origin, problem) from None
    text = _decoded(data, origin)
    read = {".json": _read_json, ".py": _read_python}.get(path.suffix, _read_yaml)
    layer = read(text, origin, ours_alone)
    from provision.core.errors import shown

    if not isinstance(layer.values, dict):
        raise _error(
            f"{located(origin, _first_line(text))} holds {shown(layer.values)}, not sections with keys.",
            "Write it like the invoke.yaml that comes with the project: `section:`, then indented `key: value`.",
        )
    return layer


def _first_line(text: str) -> int:
    """The line that the content begins in."""
    lines = text.splitlines()
    return next((n for n, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] != "#"), 1)


def located(origin: str, line: int | None) -> str:
    """A place in a file, as messages name it."""
    return origin if line is None else f"{origin}, line {line}"


def _decoded(data: bytes, origin: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise _error(
            f"{located(origin, 1)} is UTF-16 or binary, and settings are UTF-8 text.",
            f"Save it as UTF-8. For UTF-16: iconv -f UTF-16 -t UTF-8 {origin} > utf8 && mv utf8 {origin}",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise _error(
            f"{located(origin, line)}: byte 0x{data[problem.start]:02x} is not UTF-8, and settings are UTF-8 text.",
            f"Save it as UTF-8. For Latin-1: iconv -f LATIN1 -t UTF-8 {origin} > utf8 && mv utf8 {origin}",
        ) from None


def _invalid(origin: str, line: int | None, language: str, problem: object) -> ProvisionError:
    where = f"line {line} of {origin}" if line else origin
    return _error(
        f"{located(origin, line)}: not valid {language}: {problem}.",
        f"Correct {where}, then type the command again.",
    )


def _read_yaml(text: str, origin: str, ours_alone: bool) -> Layer:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        seen = _Seen()
        if node is not None:
            seen.visit(node, (), ())
        if seen.endless is not None:
            raise _invalid(origin, seen.endless, "YAML for settings", "it contains itself")
        values = {} if node is None else loader.construct_document(node)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None) or getattr(problem, "context_mark", None)
        position = getattr(problem, "position", None)
        line = mark.line + 1 if mark else None if position is None else text.count("\n", 0, position) + 1
        reason = getattr(problem, "problem", None) or getattr(problem, "reason", None) or problem
        raise _invalid(origin, line, "YAML", reason) from None
    except ValueError as problem:  # a date that no calendar has
        raise _invalid(origin, None, "YAML", problem) from None
    finally:
        loader.dispose()
    values = {} if values is None else values
    return Layer(origin, values, ours_alone, seen.lines, seen.written, tuple(seen.faults))


class _Seen:
    """What a YAML document's nodes say that its values don't: lines, how things are written, keys that stand twice."""

    _TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
    _BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.written: dict[KeyPath, str] = {}
        self.faults: list[Fault] = []
        self.endless: int | None = None  # the line of a node that contains itself

    def visit(self, node: Any, path: KeyPath, above: tuple[int, ...]) -> None:
        """Go through a node and those below it."""
        if id(node) in above:
            self.endless = node.start_mark.line + 1
            return
        above = (*above, id(node))
        if node.id == "mapping":
            self._visit_mapping(node, path, above)
        elif node.id == "sequence":
            for number, each in enumerate(node.value):
                self.lines[(*path, str(number))] = each.start_mark.line + 1
                self.visit(each, (*path, str(number)), above)
        elif node.tag != self._TEXT:
            self.written[path] = node.value

    def _visit_mapping(self, node: Any, path: KeyPath, above: tuple[int, ...]) -> None:
        for key, value in node.value:
            if (
                key.tag == self._MERGE
            ):  # first, for a mapping's own keys win over those that it takes from others
                for each in value.value if value.id == "sequence" else [value]:
                    self.visit(each, path, above)
        own: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == self._MERGE:
                continue
            name, line = str(key.value), key.start_mark.line + 1
            at = (*path, name)
            if name in own:
                cause = f"it stands in line {own[name]} already"
                self.faults.append(Fault(at, cause, f"Keep one of the two lines with {name}."))
            if key.tag in (self._BOOL, self._NULL):
                quoted = f'Quote it: "{name}":'
                self.faults.append(Fault(at, f"YAML does not read {name} as text", quoted))
            own[name] = self.lines[at] = line
            self.visit(value, at, above)


def _read_json(text: str, origin: str, ours_alone: bool) -> Layer:
    import json

    try:
        values = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as problem:
        raise _invalid(origin, problem.lineno, "JSON", problem.msg) from None
    try:
        seen = _read_yaml(text, origin, ours_alone)  # most of JSON is YAML, which tells the lines
    except Exception:  # noqa: BLE001 — then without lines
        return Layer(origin, values, ours_alone)
    return Layer(origin, values, ours_alone, seen.lines, seen.written, seen.faults)


def _read_python(text: str, origin: str, ours_alone: bool) -> Layer:
    import ast
    import types

    names: dict[str, Any] = {"__name__": "settings", "__file__": origin}
    try:
        tree = ast.parse(text)
        exec(compile(tree, origin, "exec"), names)  # noqa: S102 — a settings file in Python is run: that is what it is for
    except SyntaxError as problem:
        raise _invalid(origin, problem.lineno, "Python", problem.msg) from None
    except Exception as problem:  # noqa: BLE001 — whatever the file raises
        trace, line = problem.__traceback__, None
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == origin else line
            trace = trace.tb_next
        raise _error(
            f"{located(origin, line)} ended with {type(problem).__name__}: {problem}.",
            f"Correct line {line} of {origin}, then type the command again.",
        ) from None
    values = {
        name: value
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    layer = Layer(origin, values, ours_alone, dict(_python_lines(tree)))
    return _too_late(layer, "settings in Python are read")


def _python_lines(tree: Any) -> Iterator[tuple[KeyPath, int]]:
    import ast

    def within(value: ast.expr, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
        if isinstance(value, ast.Dict):
            for key, each in zip(value.keys, value.values):  # noqa: B905 — read by old Pythons, too
                if isinstance(key, ast.Constant):
                    yield (*path, str(key.value)), key.lineno
                    yield from within(each, (*path, str(key.value)))

    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield (statement.targets[0].id,), statement.lineno
            yield from within(statement.value, (statement.targets[0].id,))
