"""What can go wrong with MongoDB, with real processes: each fault is named at once, and mended by the next start."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from tests.support.capabilities import AS_NOBODY, NOBODY
from tests.support.clones import Clone, lend_env
from tests.support.mounts import mounted
from tests.support.polling import until
from tests.support.processes import describe, end, free_port, listens

SLEEPER = ["sleep", "600"]


@contextmanager
def somebody_elses_process(clone: Clone) -> Iterator[psutil.Process]:
    """A process that the tool did not start and must not touch."""
    process = subprocess.Popen(SLEEPER)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def digest(path: Path) -> str:
    """In pieces: to get room for a journal of 100 MB takes longer than its digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- a port that is taken


def test_a_port_held_by_another_process_is_named_with_its_holder_and_not_touched(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.port)) as held:
        said = clone.fails("start")
        assert f"Port {clone.port} is held by" in said
        assert f"(process {os.getpid()})" in said
        with socket.create_connection(("127.0.0.1", clone.port)):
            held.accept()[0].close()
    assert clone.mongods() == []


def test_a_foreign_mongod_on_the_port_is_named_and_not_taken_for_ours(
    clone: Clone, mongod_binary: Path, tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = clone.begin(
        "--nounixsocket", "--dbpath", str(tmp_path / "foreign"), "--port", str(clone.port), "--bind_ip", "127.0.0.1",
        command=[str(mongod_binary)],
    )  # fmt: skip
    until("the foreign mongod to listen", lambda: listens(clone.port), detail=lambda: foreign.text)
    said = clone.fails("start")
    assert f"mongod (process {foreign.process.pid})" in said
    assert clone.status()["state"] == "stopped"
    assert "was not running" in clone.succeeds("stop")
    assert foreign.process.poll() is None


def test_the_ports_remedy_works_as_it_is_printed(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.port)):
        said = clone.fails("start")
        variable = f"INVOKE_DEPLOYMENTS_LOCAL_PORT={clone.port + 1}"
        assert variable in said
        name, _, value = variable.partition("=")
        assert f":{clone.port + 1}/" in clone.succeeds("start", env={name: value})


# ---- kill -9


def test_every_acknowledged_majority_write_survives_a_kill_of_mongod(clone: Clone) -> None:
    uri = clone.start()
    mongod = clone.mongods()[0]
    acknowledged: list[int] = []

    def write() -> None:
        with MongoClient[dict[str, Any]](uri, retryWrites=False, serverSelectionTimeoutMS=1000) as client:
            rows = client.test.get_collection("rows", write_concern=WriteConcern("majority"))
            with suppress(PyMongoError):
                while True:
                    rows.insert_one({"_id": len(acknowledged)})
                    acknowledged.append(len(acknowledged))

    writer = threading.Thread(target=write)
    writer.start()
    until("some writes to be acknowledged", lambda: len(acknowledged) > 50)
    end([mongod])
    writer.join()
    assert clone.status()["state"] == "stopped"

    with MongoClient[dict[str, Any]](clone.succeeds("start").strip()) as client:
        there = {row["_id"] for row in client.test.rows.find()}
    assert set(acknowledged) <= there
    assert clone.pid() != mongod.pid


def test_status_and_stop_tell_the_truth_after_a_kill(clone: Clone) -> None:
    clone.start()
    end(clone.mongods())
    found = clone.status()
    assert (found["state"], found["nodes"][0]["state"], found["nodes"][0]["pid"]) == ("stopped", "DOWN", None)
    assert "was not running" in clone.succeeds("stop")


# ---- records of processes


def record_a_process(clone: Clone, pid: int, created: float) -> None:
    clone.record.parent.mkdir(parents=True, exist_ok=True)
    clone.record.write_text(json.dumps({"pid": pid, "created": created, "mongod": "x", "port": clone.port}))


def test_a_stale_record_whose_pid_is_another_process_is_never_signalled(clone: Clone) -> None:
    clone.set_up()
    with somebody_elses_process(clone) as other:
        record_a_process(clone, other.pid, other.create_time() - 3600)
        assert clone.status()["state"] == "stopped"
        assert "was not running" in clone.succeeds("stop")
        record_a_process(clone, other.pid, other.create_time() - 3600)
        clone.succeeds("start")
        assert clone.pid() != other.pid
        clone.succeeds("restart")
        clone.succeeds("stop")
        assert other.is_running()
        assert other.status() != psutil.STATUS_ZOMBIE


def test_a_record_that_fits_a_process_which_is_no_mongod_of_ours_does_not_get_it_signalled(
    clone: Clone,
) -> None:
    """A restored backup or a clock set back: pid and start time fit, and still it is not what we started."""
    clone.set_up()
    with somebody_elses_process(clone) as other:
        record_a_process(clone, other.pid, other.create_time())
        assert "was not running" in clone.succeeds("stop")
        assert other.is_running()
        assert other.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1, "created": 0}', "\0\0\0"])
def test_a_damaged_record_reads_as_none(clone: Clone, content: str) -> None:
    clone.record.parent.mkdir(parents=True, exist_ok=True)
    clone.record.write_text(content)
    assert clone.status()["state"] == "stopped"


def test_a_mongod_whose_record_was_lost_is_found_again(clone: Clone) -> None:
    clone.start()
    before = clone.pid()
    clone.record.unlink()
    assert clone.status()["state"] == "running"
    clone.record.unlink(missing_ok=True)
    clone.succeeds("start")
    assert [each.pid for each in clone.mongods()] == [before]
    clone.record.unlink()
    assert "stopped mongod" in clone.succeeds("stop")
    assert clone.mongods() == []


# ---- directories


def test_a_data_path_that_is_a_file_is_one_error_and_the_file_is_untouched(clone: Clone) -> None:
    (clone.root / "data").write_text("mine")
    assert str(clone.root / "data") in clone.fails("start")
    assert "paths.data" in clone.fails("setup")
    assert (clone.root / "data").read_text() == "mine"


@pytest.mark.needs("mount")
def test_a_read_only_data_directory_is_named_before_anything_is_started(clone: Clone, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=16m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = clone.fails("start", env={"INVOKE_PATHS_DATA": str(disk)})
    assert str(disk) in said
    assert "paths.data" in said
    assert clone.mongods() == []


@pytest.mark.needs("another-user")
def test_a_data_directory_of_another_user_is_named_before_anything_is_started(
    clone: Clone,
) -> None:
    clone.set_up()
    clone.owns_the_tool()
    # pytest's own directories are closed to other users.
    with tempfile.TemporaryDirectory(prefix="flaskbook-test-") as open_to_all:
        Path(open_to_all).chmod(0o755)
        theirs = Path(open_to_all) / "data"
        theirs.mkdir(mode=0o700)
        moved = Path(open_to_all) / "clone"
        shutil.move(clone.root, moved)
        clone.root = moved
        shutil.rmtree(moved / "env")
        lend_env(moved)
        for path in (moved, *moved.rglob("*")):
            os.chown(path, *NOBODY, follow_symlinks=False)
        begun = clone.begin(
            "start",
            command=[*AS_NOBODY, *clone.command],
            env={"INVOKE_PATHS_DATA": str(theirs), "HOME": open_to_all},
        )
        assert begun.ends() == 1, begun.text
        assert str(theirs) in begun.text
        assert f"{theirs} belongs to root, and you are nobody" in begun.text
        assert str(theirs) in begun.text.partition("next:")[2]
        assert "Traceback" not in begun.text
        assert clone.mongods() == []


# ---- data that mongod refuses


def test_data_of_an_incompatible_version_are_explained_and_untouched(clone: Clone) -> None:
    clone.start()
    clone.stop()
    # What the storage engine of a later MongoDB would have noted about its files.
    noted = clone.data / "WiredTiger.turtle"
    text = noted.read_text()
    assert "version=(major=1,minor=1)" in text
    noted.write_text(text.replace("version=(major=1,minor=1)", "version=(major=9,minor=1)"))
    before = contents(clone.data)

    said = clone.fails("start")

    assert (
        f"The data files in {clone.data} were written by a version of MongoDB that this mongod can't read"
        in said
    )
    assert "unsupported WiredTiger" in said.split("  log:  ")[1]
    assert contents(clone.data) == before
    assert clone.mongods() == []


# ---- mongod dying


def test_a_mongod_that_dies_at_start_is_reported_with_its_last_words_and_nothing_is_left(
    clone: Clone,
) -> None:
    clone.change_settings(
        lambda settings: settings["deployments"]["local"].update(set_parameter={"noSuchParameter": 1})
    )
    # A timeout that could not be waited for here: the error has to come from its death.
    said = clone.fails("start", env={"INVOKE_MONGODB_START_TIMEOUT": "3600"})
    assert "noSuchParameter" in said.split("  log:  ")[1]
    assert "(exit status 2)" in said or "(exit status 1)" in said
    assert clone.mongods() == []
    assert not clone.record.exists()


def test_a_mongod_that_dies_before_it_can_log_is_reported_with_what_it_printed(
    clone: Clone, tmp_path: Path
) -> None:
    script = tmp_path / "mongod"
    script.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'db version v8.0.0'; exit 0; }\n"
        "echo 'the sky is falling' >&2\nexit 9\n"
    )
    script.chmod(0o755)
    said = clone.fails(
        "start", env={"INVOKE_MONGODB_PATH": str(script), "INVOKE_MONGODB_START_TIMEOUT": "3600"}
    )
    assert "the sky is falling" in said
    assert "(exit status 9)" in said


def serving(clone: Clone) -> list[psutil.Process]:
    """The mongods of a clone, without one that is only asked for its version."""
    found = []
    for process in clone.mongods():
        with suppress(psutil.Error):
            if "--config" in process.cmdline():
                found.append(process)
    return found


def test_a_mongod_killed_while_starting_is_reported(clone: Clone) -> None:
    begun = clone.begin("start", env={"INVOKE_MONGODB_START_TIMEOUT": "3600"})
    first = until("mongod to be there", lambda: serving(clone))[0]
    os.kill(first.pid, signal.SIGKILL)
    status = begun.ends()
    # It may have been ready just before.
    assert status in (0, 1)
    if status:
        assert "signal 9" in begun.text
        assert "Traceback" not in begun.text
    assert clone.mongods() == []
    clone.succeeds("start")


def test_a_mongod_that_answers_too_late_is_reported_and_not_left_behind(clone: Clone) -> None:
    said = clone.fails("start", env={"INVOKE_MONGODB_START_TIMEOUT": "0.001"})
    assert "within 0.001 s" in said
    assert clone.mongods() == []
    clone.succeeds("start")


def test_a_suspended_mongod_is_shown_as_paused_and_stop_ends_it_once_it_goes_on(clone: Clone) -> None:
    clone.start()
    mongod = clone.mongods()[0]
    mongod.suspend()
    try:
        found = clone.status()
        assert (found["state"], found["nodes"][0]["state"]) == ("degraded", "PAUSED")
    finally:
        mongod.resume()
    clone.succeeds("stop")
    assert clone.mongods() == []


# ---- a full disk


def fill(disk: Path) -> Path:
    """Fill a file system to its last byte."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return filler


@pytest.mark.needs("mount")
def test_a_disk_too_small_for_a_database_is_named_and_nothing_is_left_running(
    clone: Clone, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "size=128k") as disk:
        said = clone.fails(
            "start", env={"INVOKE_PATHS_DATA": str(disk), "INVOKE_MONGODB_START_TIMEOUT": "3600"}
        )
        # mongod says so itself, or dies of it, as it comes.
        assert f"The disk that holds {disk}" in said or "No space left on device" in said
        assert clone.mongods() == []


@pytest.mark.needs("mount")
def test_a_disk_that_runs_full_costs_no_acknowledged_write(clone: Clone, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=96m") as disk:
        env: dict[str, str | None] = {"INVOKE_PATHS_DATA": str(disk)}
        acknowledged = 0
        with MongoClient[dict[str, Any]](clone.start(env), timeoutMS=20_000, retryWrites=False) as client:
            rows = client.test.get_collection("rows", write_concern=WriteConcern("majority"))
            rows.insert_one({"_id": -1})
            filler = fill(disk)
            with suppress(PyMongoError):
                while clone.mongods():
                    rows.insert_one({"_id": acknowledged, "pad": os.urandom(500_000)})
                    acknowledged += 1
        until("mongod to have ended", lambda: not clone.mongods())
        said = clone.fails("start", env=env)
        assert f"The disk that holds {disk}" in said
        filler.unlink()
        with MongoClient[dict[str, Any]](clone.succeeds("start", env=env).strip()) as client:
            assert client.test.rows.count_documents({}) >= acknowledged + 1
        clone.stop(env)


@pytest.mark.needs("mount")
def test_a_full_disk_under_the_logs_is_named(clone: Clone, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        (disk / "local").mkdir()
        fill(disk)
        said = clone.fails("start", env={"INVOKE_PATHS_LOG": str(disk)})
        assert f"The disk that holds {disk}/local is full." in said
        assert "paths.log" in said
        assert clone.mongods() == []


@pytest.mark.needs("mount")
def test_a_full_disk_under_the_records_is_one_error_and_no_mongod_is_left(
    clone: Clone, tmp_path: Path
) -> None:
    clone.set_up()
    state, kept = clone.root / ".state", tmp_path / "kept"
    shutil.move(state, kept)
    with mounted(state, "size=256k"):
        shutil.copytree(kept, state, dirs_exist_ok=True)
        fill(state)
        said = clone.fails("start")
        assert "No space left on device" in said
        assert clone.mongods() == [], describe(clone.mongods())


# ---- a data directory in use


def test_two_deployments_on_one_data_directory_are_explained(clone: Clone, mongod_binary: Path) -> None:
    clone.data.mkdir(parents=True)
    other = free_port()
    by_hand = clone.begin(
        "--nounixsocket", "--dbpath", str(clone.data), "--port", str(other), "--bind_ip", "127.0.0.1",
        command=[str(mongod_binary)],
    )  # fmt: skip
    until("mongod to listen", lambda: listens(other), detail=lambda: by_hand.text)
    said = clone.fails("start")
    assert f"Another mongod uses the data directory {clone.data}" in said
    assert by_hand.process.poll() is None


def test_stop_ends_mongod_cleanly(clone: Clone) -> None:
    clone.start()
    clone.succeeds("stop")
    # A mongod that was killed leaves its pid in there.
    assert (clone.data / "mongod.lock").read_text() == ""
