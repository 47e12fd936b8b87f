"""Commands are shown as they are typed, and nothing else is changed for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from provision.cli import command
from provision.core import typed


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    typed.runs_as("invoke")
    typed.runs_as_wrapper({})


@pytest.mark.parametrize(
    ("wrapper", "shown"),
    [
        ("./invoke", "Type: ./invoke start"),
        ("../invoke", "Type: ../invoke start"),
        ("../my app/invoke", "Type: '../my app/invoke' start"),
        (r"../a\d/invoke", r"Type: '../a\d/invoke' start"),
    ],
)
def test_a_command_is_shown_as_the_wrapper_was_typed(wrapper: str, shown: str) -> None:
    environ = {typed.WRAPPER: wrapper, "HOME": "/home/ada"}
    typed.runs_as_wrapper(environ)
    assert environ == {"HOME": "/home/ada"}
    assert typed.as_typed("Type: invoke start") == shown
    handed: dict[str, str] = {}
    typed.hand_on(handed)
    assert handed == {typed.WRAPPER: wrapper}


def test_a_flag_has_no_prefix() -> None:
    typed.runs_as("invoke", "db.")
    assert (
        typed.as_typed("invoke --list, invoke start, invoke -l")
        == "invoke --list, invoke db.start, invoke -l"
    )


def test_in_json_values_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    typed.runs_as("provision")
    data = [
        {
            "key": "app.command",
            "value": ["invoke web"],
            "why": "changed by `invoke setup`",
            "notes": ["invoke up"],
        }
    ]
    command._print_json(data)
    assert json.loads(capsys.readouterr().out) == [
        {
            "key": "app.command",
            "value": ["invoke web"],
            "why": "changed by `provision setup`",
            "notes": ["provision up"],
        }
    ]
