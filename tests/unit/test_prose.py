"""What people read in the sources: docstrings keep their shape."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import prose

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for place in ("tasks.py", "provision", "flaskbook", "tools", "tests")
    for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
)


def docstrings(source: str) -> Iterator[tuple[int, list[str]]]:
    """Every docstring's first line number and its lines, without the indentation that all of them share."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text.split("\n")


def strays(lines: list[str]) -> Iterator[int]:
    """The places of lines that are indented in the midst of a paragraph: after plain text, and no item of a list."""
    for place in range(1, len(lines)):
        line, before = lines[place], lines[place - 1]
        opens = (
            not before.strip() or before.rstrip().endswith(":") or before.lstrip().startswith(("- ", "* "))
        )
        item = line.lstrip().startswith(("- ", "* "))
        if line.startswith(" ") and not before.startswith(" ") and not opens and not item:
            yield place


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_paragraph_of_a_docstring_is_torn_by_stray_indentation(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{first + place}: {lines[place]}"
        for first, lines in docstrings(path.read_text(encoding="utf-8"))
        for place in strays(lines)
    ]
    assert found == []


def test_stray_indentation_is_noticed_and_lists_are_not() -> None:
    assert list(strays(["One.", "", "Two goes", "    on here."])) == [3]
    assert list(strays(["One.", "", "Args:", "    a: b", "- two", "  goes on"])) == []


@pytest.mark.parametrize(
    "line",
    [
        "It is to be made.",
        "None can be had, nor is one to be had.",
        "Whoever comes next waits.",
        "Mend it; what mends it is below.",
        "That will do.",
        "It is no virtualenv.",
    ],
)
def test_a_phrase_that_the_style_forbids_is_found_with_its_line(line: str) -> None:
    assert [number for number, _ in prose.found_in(f"fine\n{line}")][:1] == [2]


@pytest.mark.parametrize(
    "line",
    ["There is no mongod.", "It is no longer there.", "It recommends that.", "What `up` does", "to be"],
)
def test_plain_words_are_left_alone(line: str) -> None:
    assert list(prose.found_in(line)) == []


def test_nothing_that_people_read_has_a_phrase_that_the_style_forbids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = prose.main([])
    assert (status, capsys.readouterr().out) == (0, "")


def test_the_style_has_ten_rules_and_twenty_pairs() -> None:
    text = (ROOT / "docs" / "style.md").read_text(encoding="utf-8")
    assert "\n10. " in text
    assert len(text.partition("## Before and after")[2].strip().splitlines()) >= 2 + 20
