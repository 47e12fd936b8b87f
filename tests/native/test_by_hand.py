"""What a person does by hand with what `setup` has made; each hint is typed as it is printed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clones import Clone, Running
from tests.support.polling import until
from tests.support.processes import free_port, listens


@pytest.fixture
def by_hand(clone: Clone, mongod_binary: Path) -> Iterator[Running]:
    """``mongod -f mongod.conf``, typed after ``./invoke setup``."""
    clone.succeeds("setup")
    running = clone.begin("-f", "mongod.conf", command=[str(mongod_binary)])
    until(
        "mongod to listen",
        lambda: listens(clone.port) or running.process.poll() is not None,
        detail=lambda: running.text,
    )
    yield running
    running.process.terminate()
    running.process.wait()


def test_after_setup_mongod_is_started_by_hand_and_status_says_what_to_type_next(
    clone: Clone, by_hand: Running
) -> None:
    assert by_hand.process.poll() is None, by_hand.text
    shown = clone.succeeds("status")
    assert f"started by hand (process {by_hand.process.pid})" in shown
    hint = re.search(r"kill (\d+); invoke (start --on local)", shown)
    assert hint, shown
    os.kill(int(hint[1]), 15)
    assert by_hand.ends() == 0
    assert clone.succeeds(*hint[2].split()).strip() == clone.uri
    assert "by hand" not in clone.succeeds("status")


def served(clone: Clone, advice: str) -> Running:
    """`manage.py runserver`, when it has printed an advice."""
    running = clone.begin(
        *("flaskbook/manage.py", "runserver", "--port", str(free_port())),
        command=[str(clone.python)],
        env={
            "SECRET_KEY_FILE": str(clone.root / ".state" / "secret_key"),
            "MONGODB_URI": f"mongodb://127.0.0.1:{clone.port}/",
        },
    )
    running.says(advice)
    running.says("Running on")
    running.process.terminate()
    running.process.wait()
    return running


def test_runserver_says_that_a_set_started_by_hand_was_not_initiated(clone: Clone, by_hand: Running) -> None:
    assert by_hand.process.poll() is None, by_hand.text
    said = served(clone, "was never initiated").text
    assert "have the tool start it: ./invoke start" in said


def test_runserver_says_how_a_database_is_started_where_none_answers(clone: Clone) -> None:
    clone.succeeds("setup")
    said = served(clone, "No MongoDB answers").text
    assert f"127.0.0.1:{clone.port}. To start one, type: ./invoke start" in said


def test_setup_and_clean_leave_no_folder_behind(clone: Clone) -> None:
    clone.succeeds("setup")
    assert clone.data.is_dir()
    assert clone.log.parent.is_dir()
    clone.succeeds("clean", "--yes")
    assert not (clone.root / "data").exists()
    assert not (clone.root / "log").exists()


def test_the_hint_of_a_transaction_that_is_too_large_for_the_cache_is_right(clone: Clone) -> None:
    clone.succeeds("start")
    script = (
        "with client.start_session() as s, s.start_transaction():\n"
        "    for n in range(48): db.big.insert_one({'x': 'y' * 2**20}, session=s)\n"
    )
    done = clone.invoke("shell", "--python", "--eval", script)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search("too large|Cache full", done.stderr)
    assert "cache_size_gb" in done.stderr
    clone.change_settings(lambda settings: settings["deployments"]["local"].update(cache_size_gb=1))
    hint = re.search(r"then type: invoke (\w+)", done.stderr)
    assert hint, done.stderr
    clone.succeeds(hint[1])
    clone.succeeds("shell", "--python", "--eval", script)
