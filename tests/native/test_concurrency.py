"""Two commands at once, and commands that are killed at any point: one waits, the next completes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.clones import Clone, Running, make_clone
from tests.support.polling import until
from tests.support.processes import describe, end

# Where in its course a command is killed, in seconds from its begin: one point in each quarter of a second.
DELAYS = [random.Random(2).uniform(low, low + 0.25) for low in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)]


def kill_after(running: Running, seconds: float) -> None:
    """`kill -9` of the command alone, some time after it began."""
    threading.Event().wait(seconds)
    running.process.kill()
    running.process.wait()


def test_two_starts_at_once_make_one_mongod_and_both_succeed(clone: Clone) -> None:
    clone.set_up()
    both = [clone.begin("start") for _ in range(2)]
    assert [each.ends() for each in both] == [0, 0], [each.text for each in both]
    assert all(clone.uri in each.text for each in both)
    assert len(clone.mongods()) == 1, describe(clone.mongods())
    assert clone.status()["state"] == "running"


def test_two_setups_at_once_both_succeed(clone: Clone) -> None:
    both = [clone.begin("setup") for _ in range(2)]
    assert [each.ends() for each in both] == [0, 0], [each.text for each in both]
    keys = (clone.root / ".state" / "secret_key").read_text()
    assert len(keys.strip()) == 64
    assert " changed " not in clone.succeeds("setup")


def test_four_starts_and_a_stop_at_once_end_in_a_state_that_status_tells(clone: Clone) -> None:
    clone.set_up()
    all_of_them = [
        clone.begin(*command) for command in (["start"], ["start"], ["stop"], ["start"], ["status"])
    ]
    assert [each.ends() for each in all_of_them] == [0] * 5, [each.text for each in all_of_them]
    running = clone.mongods()
    assert clone.status()["state"] == ("running" if running else "stopped")
    assert len(running) <= 1


def test_a_command_that_waits_says_for_whom(clone: Clone) -> None:
    clone.set_up()
    holder = HeldLock(clone.root)
    try:
        waiting = clone.begin("start")
        assert f"Waiting for process {holder.pid} (starting local)" in waiting.says("Waiting for process")
        assert clone.mongods() == []
    finally:
        holder.release()
    assert waiting.ends() == 0, waiting.text


class HeldLock:
    """The deployment's lock, held by another process."""

    def __init__(self, root: Path) -> None:
        program = (
            "import sys\nfrom pathlib import Path\nfrom provision.core.locks import exclusive\n"
            "with exclusive(Path('.state/locks/deployment-local.lock'), 'starting local'):\n"
            "    print('holding', flush=True)\n    sys.stdin.read()\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"holding\n"
        self.pid = self._process.pid

    def release(self) -> None:
        self._process.communicate()


def test_a_killed_start_leaves_a_mongod_that_the_next_start_finds_again(clone: Clone) -> None:
    clone.set_up()
    for delay in DELAYS:
        begun = clone.begin("start")
        kill_after(begun, delay)
        before = {each.pid for each in clone.mongods()}
        clone.succeeds("start")
        after = clone.mongods()
        assert len(after) == 1, (delay, describe(after))
        assert before <= {after[0].pid}, (delay, before, describe(after))
        assert clone.status()["state"] == "running"
        end(after)


def test_a_start_killed_right_after_spawning_never_leads_to_two_mongods(clone: Clone) -> None:
    """The record is not written yet, and mongod has not yet taken its data directory."""
    clone.set_up()
    for _ in range(3):
        begun = clone.begin("start")
        until("mongod to be spawned", clone.mongods)
        begun.process.kill()
        begun.process.wait()
        clone.succeeds("start")
        assert len(clone.mongods()) == 1, describe(clone.mongods())
        assert clone.stop() == ("mongod",)


def test_a_killed_setup_is_completed_by_the_next(clone: Clone) -> None:
    for delay in DELAYS[:5]:
        begun = clone.begin("setup")
        kill_after(begun, delay)
        done = clone.succeeds("setup")
        assert "SECRET_KEY" in done
        assert not any(step.changed for step in clone.set_up()), delay
        secret = clone.root / ".state" / "secret_key"
        assert secret.stat().st_mode & 0o777 == 0o600
        for name in ("mongod.conf", ".state/secret_key", ".state/mongod.json"):
            (clone.root / name).unlink()


@pytest.mark.needs("index")
def test_a_setup_killed_while_it_builds_env_is_completed_by_the_next(
    tmp_path: Path, mongod_binary: Path
) -> None:
    clone = make_clone(tmp_path / "clone", str(mongod_binary), with_env=False)
    by_wrapper = [str(clone.root / "invoke")]
    try:
        begun = clone.begin("setup", command=by_wrapper)
        until("env/ to be begun", lambda: (clone.root / "env").is_dir(), detail=lambda: begun.text)
        os.killpg(begun.process.pid, signal.SIGKILL)
        begun.process.wait()
        again = clone.begin("setup", command=by_wrapper)
        assert again.ends() == 0, again.text
        assert " changed " not in clone.succeeds("setup")
    finally:
        clone.close()


def test_a_killed_stop_is_completed_by_the_next(clone: Clone) -> None:
    clone.start()
    for delay in (0.3, 0.6):
        begun = clone.begin("stop")
        kill_after(begun, delay)
    clone.succeeds("stop")
    assert clone.mongods() == []
    assert clone.status()["state"] == "stopped"
