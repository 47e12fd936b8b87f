"""A person agrees before anything is deleted."""

from __future__ import annotations

import io
import sys

import pytest

from provision.cli.command import agreed
from provision.core.errors import ProvisionError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "agrees"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_only_a_yes_is_one(
    typed: str, agrees: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert agreed("Remove all this?", "cleaning", yes=False) is agrees
    printed = capsys.readouterr()
    assert printed.err == "Remove all this? [y/N] "
    assert printed.out == ""


def test_where_nobody_can_answer_nothing_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(ProvisionError, match="--yes to agree beforehand, or look"):
        agreed("Remove all this?", "cleaning", yes=False, or_else=", or look")


def test_who_agreed_beforehand_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert agreed("Remove all this?", "cleaning", yes=True)
    assert capsys.readouterr().err == ""
