"""What a signal does at a bad moment: it waits while a process is started, and comes once while one is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.core.signals import held, once, repeat_lost
from provision.env import installers, virtualenv


class Told(Exception):
    """The signal's own handler was called."""


@pytest.fixture(autouse=True)
def handled() -> Iterator[None]:
    """SIGTERM raises here, as it does in a task."""

    def tell(number: int, _frame: object) -> None:
        raise Told(number)

    before = signal.signal(signal.SIGTERM, tell)
    yield
    signal.signal(signal.SIGTERM, before)


def send() -> None:
    """A signal to this process, which comes before this returns."""
    signal.raise_signal(signal.SIGTERM)


def test_what_comes_while_signals_are_held_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(Told), held():
        send()
        send()
        done.append("all of the block")
    assert done
    with pytest.raises(Told):
        send()


def test_held_changes_nothing_where_none_comes_and_keeps_the_error_of_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="its own"), held():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with held(), once():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


class Raising:
    """What its finalizer raises is dropped by Python."""

    def __del__(self) -> None:
        send()


@pytest.mark.parametrize("block", [once, contextlib.nullcontext])
def test_a_signal_whose_exit_is_dropped_by_python_comes_again(
    monkeypatch: pytest.MonkeyPatch, block: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: pytest.fail(str(lost)))
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    repeat_lost()
    alarm = signal.getsignal(signal.SIGALRM)
    reached = []
    with pytest.raises(SystemExit) as leaving, block():
        Raising()
        reached.append("what follows")
        threading.Event().wait(60)
        reached.append("the end")
    assert leaving.value.code == 143
    assert reached == ["what follows"]
    assert signal.getsignal(signal.SIGALRM) == alarm


def test_what_else_python_drops_is_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    repeat_lost()
    Raising()  # SIGTERM's handler raises an error of its own
    assert [lost.exc_type for lost in reported] == [Told]


def test_the_second_one_does_not_interrupt_what_the_first_one_has_cleaned_up() -> None:
    done = []
    with pytest.raises(Told), once():
        try:
            send()
        finally:
            send()
            with held():
                send()
            with once():
                send()
            send()
            done.append("all of the clean-up")
    assert done
    with pytest.raises(Told):
        send()


def test_the_one_that_a_block_within_has_seen_counts() -> None:
    done = []
    with pytest.raises(Told), once():
        try:
            with once(), held():
                send()
        finally:
            send()
            done.append("all of the clean-up")
    assert done


def test_other_threads_go_on_as_they_are() -> None:
    def work() -> None:
        with held(), once():
            reached.set()

    reached = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached.is_set()


def test_an_installer_that_is_interrupted_as_it_starts_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[subprocess.Popen[Any]] = []

    class Interrupted(subprocess.Popen[Any]):
        """The signal comes when the process runs, and before whoever starts it knows that."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            send()

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with (tmp_path / "lock").open("w") as lock:
        spec = virtualenv.EnvironmentSpec(tmp_path / "env", (), tmp_path / "lock")
        runner = installers.Runner(spec, lock.fileno())
        with pytest.raises(Told):
            runner.run([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
    assert [each.returncode for each in started] == [-signal.SIGTERM]
