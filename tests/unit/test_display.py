"""What a person sees."""

from __future__ import annotations

import io
import json
import sys

import pytest

from provision.cli import display
from provision.cli.result import as_text
from provision.core.steps import StepResult
from tools.terminal.screen import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert display.paint("word", "red", Terminal()) == "\x1b[31mword\x1b[0m"
    assert display.paint("word", "red", io.StringIO()) == "word"
    monkeypatch.setenv("NO_COLOR", "1")
    assert display.paint("word", "red", Terminal()) == "word"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert display.paint("word", "red", Terminal()) == "word"


def test_a_table_is_aligned_and_has_no_trailing_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    display.table(("NAME", "PORT"), [("a", "1"), ("longer", "27017")])
    assert capsys.readouterr().out == "NAME    PORT\na       1\nlonger  27017\n"


def test_notes_do_not_disturb_those_who_read_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    display.note("working")
    display.line("result")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("result\n", "working\n")


def test_one_thing_is_counted_as_one() -> None:
    counted = [display.counted(number, "document") for number in (0, 1, 20_000)]
    assert counted == ["0 documents", "1 document", "20,000 documents"]


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    display.line(as_text({"a": [1, None, "ö"]}))
    assert json.loads(capsys.readouterr().out) == {"a": [1, None, "ö"]}


@pytest.mark.parametrize(
    ("changed", "dry_run", "word"),
    [
        (True, False, "changed"),
        (True, True, "would change"),
        (False, True, "unchanged"),
        (False, False, "unchanged"),
    ],
)
def test_a_step_is_a_line(
    capsys: pytest.CaptureFixture[str], changed: bool, dry_run: bool, word: str
) -> None:
    display.StepLines(timings=True).finished(StepResult("mongod", changed, "why\nand more", 1.234), dry_run)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{'mongod':<14} {word:<12} why (1.23 s)"
    assert second.strip() == "and more"


def test_a_quiet_step_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display.StepLines(quiet=True).finished(StepResult("mongod", True, "why", 0), False)
    assert capsys.readouterr().out == ""


def test_a_program_has_the_terminal_to_itself_between_two_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with display.counting("documents") as progress:
        progress.advance(10, 20)
        assert "documents" in Screen.of(terminal.getvalue().encode()).text()
        progress.pause()
        terminal.write("Created 3 indexes\n")
        progress.advance(20, 20)
    assert Screen.of(terminal.getvalue().encode()).text() == "Created 3 indexes"


def test_a_screen_shows_what_a_terminal_does() -> None:
    written = b"one\r\ntwo\r\n\x1b[2A\x1b[J\x1b[1;32mgreen\x1b[0m plain\r\n\x1b[?25lgone\r\x1b[2Kkept\x1b]133;D;0\x07"
    screen = Screen.of(written)
    assert screen.text() == "green plain\nkept"
    assert screen.ansi() == "\x1b[0m\x1b[1;32mgreen\x1b[0m plain\nkept"
