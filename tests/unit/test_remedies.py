"""Every command that an error, a document or a help text tells people to type can be typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.parser import Parser, ParserContext

import tasks

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "invoke.yaml",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
# A command: its task, and then words up to where prose, quotation or the shell goes on.
_COMMAND = re.compile(
    r"(?<![\w/.-])(?:(?:\./)?invoke|(?:flaskbook-)?provision) ((?:[a-z][\w.-]*|-[-\w]+)(?: [^\s`'\"|&#;:(),\n]+)*)"
)
_HOLE = "HOLE"


def contexts() -> list[ParserContext]:
    return tasks.namespace.to_contexts()


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the tool's own, with where it stands; a hole stands for what is filled in."""
    files = [ROOT / "tasks.py", *sorted((ROOT / "provision").rglob("*.py"))]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(each.value) if isinstance(each, ast.Constant) else _HOLE for each in node.values]
                yield f"{file.relative_to(ROOT)}:{node.lineno}", "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node.value
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        yield from ((f"{name}:{n}", line) for n, line in enumerate(text.splitlines(), 1))


def commands() -> list[tuple[str, str, list[str]]]:
    """Where each command stands, its task, and its flags."""
    names = {name for context in contexts() for name in (context.name, *context.aliases) if name}
    found = []
    for where, text in texts():
        for match in _COMMAND.finditer(text):
            words = match.group(1).split()
            # Examples of a `tasks.py` of somebody's own have ours below `db`.
            task = words[0].rstrip(".").removeprefix("db.")
            if _HOLE in task or task.startswith("-"):
                continue
            is_command = task in names or "." in task or any(w.startswith("--") for w in words[1:])
            if is_command or match.group(0).startswith("./"):
                flags = [
                    w.split("=")[0].rstrip(".") for w in words[1:] if w.startswith("-") and _HOLE not in w
                ]
                found.append((where, task, flags))
    return found


def test_every_command_that_people_are_told_to_type_has_its_task_and_its_flags() -> None:
    known = {name: context for context in contexts() for name in (context.name, *context.aliases)}
    wrong = []
    for where, task, flags in commands():
        if task not in known:
            wrong.append(f"{where}: there is no task {task}")
            continue
        takes = known[task]
        wrong += [
            f"{where}: {task} has no {flag}"
            for flag in flags
            if flag not in takes.flags and flag not in takes.inverse_flags and flag != "--help"
        ]
    assert wrong == []


def test_the_search_for_commands_finds_those_in_errors_and_in_documents() -> None:
    found = commands()
    assert sum(where.startswith("provision/") for where, _, _ in found) > 50
    assert sum(where.startswith(("README", "docs/")) for where, _, _ in found) > 20


def numeric_flags() -> list[tuple[str, str]]:
    """Every flag of every task that takes a number."""
    return [
        (str(context.name), flag)
        for context in contexts()
        for argument in dict.fromkeys(context.args.values())
        if argument.kind is int and not argument.incrementable
        for flag in [f"--{max(argument.names, key=len).replace('_', '-')}"]
    ]


def test_the_flags_that_take_a_number_are_known_as_such() -> None:
    found = set(numeric_flags())
    expected = {("logs", "--lines"), ("cluster.logs", "--lines"), ("seed", "--users"), ("seed", "--seed")}
    expected |= {("tunnel", "--port"), ("run", "--port"), ("test", "--workers"), ("bench", "--runs")}
    expected |= {("cluster.shard-collection", "--chunks")}
    sizes = ("shards", "members", "arbiters", "config-servers", "routers", "port")
    expected |= {("cluster.up", f"--{name}") for name in sizes}
    assert expected <= found


@pytest.mark.parametrize("value", ["x", "many", "1.5", "", "0x10", "9" * 5000])
@pytest.mark.parametrize(("task", "flag"), numeric_flags())
def test_a_number_that_is_none_is_one_line_with_flag_and_value(task: str, flag: str, value: str) -> None:
    from invoke.exceptions import ParseError

    parser = Parser(contexts=contexts())
    with pytest.raises(ParseError) as error:
        parser.parse_argv([task, flag, value])
    said = str(error.value)
    assert said.startswith(f"error: {flag} {value[:37]}")
    assert "whole number" in said
    assert "\n" not in said
    assert re.search(rf"for example {flag} \d+$", said)
    example = said.rsplit(" ", 1)[1]
    positional = ["shop.order"] if task == "cluster.shard-collection" else []
    parsed = Parser(contexts=contexts()).parse_argv([task, *positional, flag, example])
    assert parsed[0].args[flag.lstrip("-").replace("-", "_")].value == int(example)
