"""Waiting says what it waits for, and ends at a deadline."""

from __future__ import annotations

import itertools

import pytest

from provision.core.errors import ProvisionError
from provision.mongodb import waiting
from provision.mongodb.waiting import Wait


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is one second after the one before."""
    seconds = itertools.count()
    monkeypatch.setattr(waiting.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("clock")
def test_what_takes_long_is_said_now_and_then_with_what_mongod_logged_last() -> None:
    said: list[str] = []
    wait = Wait(27.0, 27.0, lambda: None, lambda: ["first", "last"], say=said.append)
    with pytest.raises(ProvisionError, match="waiting for a primary"):
        wait.until("a primary", lambda: None)
    assert said == [
        "Waiting for a primary, for 5 s now.\n  last",
        "Waiting for a primary, for 15 s now.\n  last",
        "Waiting for a primary, for 25 s now.\n  last",
    ]


@pytest.mark.usefixtures("clock")
def test_what_comes_soon_is_not_spoken_of() -> None:
    said: list[str] = []
    answers = iter((None, None, "here"))
    assert Wait(20.0, 20.0, lambda: None, list, say=said.append).until("it", lambda: next(answers)) == "here"
    assert said == []
