"""Writes docs/json/: the JSON schema of what each command prints with --json, made from the type that it returns; and
the schema of invoke.yaml, made from the settings, which comes with the tool.

`python -m tools.schemas` writes them; a test compares them with the types, and each test that reads a command's JSON
compares that with its schema.
"""

from __future__ import annotations

import ast
import json
import sys
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from invoke.collection import Collection
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from provision.settings.validation import json_schema

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "json"
OF_SETTINGS = ROOT / "provision" / "settings" / "invoke.schema.json"


def commands() -> dict[str, Callable[..., Any]]:
    """Name of each command that has a result → the function behind it."""
    import tasks

    def walk(namespace: Collection, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        for task in namespace.tasks.values():
            body = task.body.__wrapped__
            if body.__annotations__["return"] != "None":
                yield prefix + namespace.transform(task.name), body
        for name, inner in namespace.collections.items():
            yield from walk(inner, f"{prefix}{name}.")

    return dict(sorted(walk(tasks.namespace, "")))


def type_of(body: Callable[..., Any]) -> Any:
    """The type of the data that a command's function returns: what stands in the brackets of its `Result`."""
    result = typing.get_type_hints(body, names_in(sys.modules[body.__module__]))["return"]
    return typing.get_args(result)[0]


def names_in(module: ModuleType) -> dict[str, Any]:
    """What a module's annotations can name: also what it imports for the type checker alone, because that is slow."""
    names = dict(vars(module))
    for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), str(module.__file__), "exec"), names)
    return names


@cache
def adapters() -> dict[str, TypeAdapter[Any]]:
    """Name of a command → what it prints, a failure included."""
    from provision.app.tunnel import Opened
    from provision.cli import shapes

    vars(shapes).update(names_in(shapes))

    types = {name: type_of(body) for name, body in commands().items()}
    types["tunnel"] = Opened  # the one command that prints its result first and then goes on
    return {name: TypeAdapter(shape | shapes.Failure) for name, shape in types.items()}


def schemas() -> dict[str, str]:
    """Name of a file in docs/json/ → its text."""
    return {
        f"{name}.schema.json": json.dumps(
            {
                "$schema": GenerateJsonSchema.schema_dialect,
                "title": f"invoke {name} --json",
                **adapter.json_schema(mode="serialization"),
            },
            indent=2,
        )
        + "\n"
        for name, adapter in adapters().items()
    }


def of_settings() -> str:
    """The schema of invoke.yaml."""
    return json.dumps(json_schema(), indent=2) + "\n"


def differences(command: str, printed: str) -> str:
    """What is wrong with JSON that a command has printed; empty: it is as its schema says, with no other keys."""
    adapter = adapters().get(command)
    if adapter is None:
        return f"docs/json/ has no schema for {command}"
    found = json.loads(printed)
    again = adapter.dump_python(adapter.validate_json(printed), mode="json")
    return "" if again == found else f"{command}: printed {found}, and its type gives {again}"


def main() -> None:
    """Write the files, and remove those of commands that are gone."""
    FOLDER.mkdir(exist_ok=True)
    texts = schemas()
    for stale in {path.name for path in FOLDER.glob("*.json")} - texts.keys():
        (FOLDER / stale).unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    OF_SETTINGS.write_text(of_settings(), encoding="utf-8")


if __name__ == "__main__":
    main()
