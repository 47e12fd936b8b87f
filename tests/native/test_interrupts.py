"""Ctrl-C, a closed terminal and a polite kill, at any moment: nothing is left that the command started."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from tests.support.clones import Clone
from tests.support.deployments import deployed
from tests.support.processes import describe

# Moments in seconds, one somewhere in each interval, so that every phase of a command is met.
_DRAW = random.Random(130)
MOMENTS = {
    "run": [_DRAW.uniform(low, low + 0.35) for low in (0.05, 0.4, 0.75, 1.1, 1.45, 1.8, 2.5)],
    "start": [_DRAW.uniform(low, low + 0.2) for low in (0.05, 0.25, 0.45, 0.65, 0.85, 1.05)],
    "setup": [_DRAW.uniform(low, low + 0.15) for low in (0.05, 0.2, 0.35, 0.5)],
}


def pass_time(seconds: float) -> None:
    """Let a command come to some point of its course, whichever that is on this machine."""
    threading.Event().wait(seconds)


def python_was_starting(text: str) -> bool:
    """Whether Python was interrupted before it had come to any program: it says so in words of its own."""
    return f"{os.sep}provision{os.sep}" not in text and (
        "Fatal Python error: init_" in text or "Traceback" in text
    )


@pytest.mark.parametrize("command", ["run", "start", "setup"])
def test_ctrl_c_at_any_moment_leaves_nothing_that_was_started(clone: Clone, command: str) -> None:
    ended = []
    for moment in MOMENTS[command]:
        begun = clone.begin(command)
        pass_time(moment)
        begun.signal_group(signal.SIGINT)
        status = begun.ends()
        what = f"after {moment:.2f} s: status {status}\n{begun.text}"
        left = clone.processes()
        if status == 0:  # it was done before
            assert command != "run", what
            if command == "start":
                clone.stop()
        else:
            assert status in (130, -signal.SIGINT) or python_was_starting(begun.text), what
            assert left == [], f"{what}\n{describe(left)}"
        assert "Traceback" not in begun.text or python_was_starting(begun.text), what
        ended.append(status)
    assert 130 in ended, ended
    clone.succeeds("setup")


@pytest.mark.parametrize("late", ["_remember_initiated", "_record_launch", "started"])
def test_a_ctrl_c_as_the_last_thing_is_noted_takes_back_what_was_started(
    tmp_path: Path, mongod_binary: Path, mongod_version: str, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """MongoDB takes writes already, and the command that started it does not know that yet."""

    def interrupted(*_: object) -> None:
        raise SystemExit(130)

    with deployed(tmp_path, mongod_binary, mongod_version, topology="single") as deployment:
        deployment.down()
        callback = {"started": interrupted} if late == "started" else {}
        if not callback:
            monkeypatch.setattr(deployment, late, interrupted)
        with pytest.raises(SystemExit):
            deployment.up(**callback)
        assert deployment.running(deployment.topology.nodes) == []
        monkeypatch.undo()
        told: list[bool] = []
        deployment.up(started=lambda: told.append(True))
        deployment.up(started=lambda: told.append(True))
        assert told == [True]


def when_all_is_done(clone: Clone, statement: str) -> None:
    """Have the clone's tool run a statement when it has brought a deployment up, and before it notes that."""
    clone.owns_the_tool()
    code = clone.root / "provision" / "deployments" / "deployment.py"
    text = code.read_text()
    late = "            self._note_up(done.uri)\n"
    assert late in text
    code.write_text(text.replace(late, f"            {statement}\n{late}"))


@pytest.mark.parametrize("command", ["start", "restart", "cluster.up --on local"])
def test_a_ctrl_c_when_all_is_done_does_not_say_otherwise(clone: Clone, command: str) -> None:
    """A status of 130 and a MongoDB that runs contradict each other."""
    when_all_is_done(clone, f"import os; os.kill(os.getpid(), {signal.SIGINT:d})")
    assert clone.succeeds(*command.split()).startswith("mongodb://")
    assert clone.status()["state"] == "running"


def test_ctrl_c_ends_the_task_behind_a_start(clone: Clone) -> None:
    begun = clone.begin("start", "logs", "--follow")
    begun.says("Transition to primary complete")
    begun.signal_group(signal.SIGINT)
    assert begun.ends() == 130, begun.text
    assert clone.status()["state"] == "running"


def test_a_second_ctrl_c_ends_what_waits_after_all_is_done(clone: Clone) -> None:
    when_all_is_done(clone, 'say("here it waits"); time.sleep(60)')
    begun = clone.begin("start")
    begun.says("here it waits")
    begun.signal_group(signal.SIGTERM)
    pass_time(0.2)
    begun.signal_group(signal.SIGTERM)
    assert begun.ends() == 143, begun.text


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_polite_kill_or_a_closed_terminal_ends_run_and_all_it_started(
    clone: Clone, number: signal.Signals, status: int
) -> None:
    for to_group in (True, False):
        begun = clone.begin("run")
        begun.says("Serving flaskbook")
        if to_group:
            begun.signal_group(number)
        else:
            begun.process.send_signal(number)
        assert begun.ends() == status, begun.text
        assert "Traceback" not in begun.text
        assert clone.processes() == [], describe(clone.processes())


def test_ctrl_c_twice_still_stops_mongodb(clone: Clone) -> None:
    begun = clone.begin("run")
    begun.says("Serving flaskbook")
    begun.signal_group(signal.SIGINT)
    pass_time(0.05)
    begun.signal_group(signal.SIGINT)
    assert begun.ends() == 130, begun.text
    assert "Traceback" not in begun.text
    assert clone.processes() == [], describe(clone.processes())


def test_ctrl_c_leaves_a_deployment_that_ran_before(clone: Clone) -> None:
    clone.start()
    before = clone.pid()
    for moment in (0.5, 1.0, 1.6):
        begun = clone.begin("run")
        pass_time(moment)
        begun.signal_group(signal.SIGINT)
        assert begun.ends() in (130, -signal.SIGINT), begun.text
        assert [each.pid for each in clone.mongods()] == [before]
        assert len(clone.processes()) == 1, describe(clone.processes())


def test_ctrl_c_ends_the_following_of_a_log(clone: Clone) -> None:
    clone.start()
    following = clone.begin("logs", "--follow")
    following.says("Transition to primary complete")
    following.signal_group(signal.SIGINT)
    assert following.ends() == 130
    assert "Traceback" not in following.text
    assert clone.status()["state"] == "running"
