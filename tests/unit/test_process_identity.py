"""A process is known by its boot and its start in ticks; nothing that can't be seen is taken for dead."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from provision.core.errors import ProvisionError
from provision.state import process_identity
from provision.state.process_identity import (
    ProcessIdentity,
    identity_of,
    is_alive,
    is_record,
    is_recorded_alive,
    is_stopped,
    recorded,
    this_process,
    variable_of,
)
from provision.testing.run import Owner, Run, dead_runs, runs
from tests.support.polling import until
from tests.support.processes import listens


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


# Its first thread ends, as that of a mongod does whose other threads still give back their memory.
LEADER_ENDS = """
import ctypes, socket, sys, threading

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="it is Linux that shows such a process as a zombie"
)
def test_a_zombie_whose_threads_still_end_has_not_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADER_ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline())
        identity = identity_of(process.pid)
        assert identity is not None
        until(
            "the leader to be a zombie", lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        )
        assert listens(port)
        assert is_alive(identity)
        assert is_recorded_alive(identity.as_record())
        process.stdin.close()
        process.wait()
        assert not is_alive(identity)


def test_a_process_lives_until_it_has_ended(other: subprocess.Popen[bytes]) -> None:
    identity = identity_of(other.pid)
    assert identity is not None
    assert is_alive(identity)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
    assert not is_alive(identity)
    assert identity_of(other.pid) is None
    other.wait()
    assert not is_alive(identity)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_no_process_has_a_pid_that_means_something_else(pid: int) -> None:
    assert identity_of(pid) is None
    assert not is_alive(ProcessIdentity(pid, "", 0))


def test_another_process_of_the_same_pid_is_another_process() -> None:
    me = this_process()
    assert not is_alive(dataclasses.replace(me, start_ticks=me.start_ticks - 1))
    assert not is_alive(dataclasses.replace(me, boot_id="another-boot"))


def test_a_program_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (sleep) 2 3"
    program.write_text(f"#!{sys.executable}\ninput()\n")
    program.chmod(0o755)
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE) as process:
        try:
            identity = identity_of(process.pid)
            assert identity is not None
            ticks = os.sysconf("SC_CLK_TCK")
            began = psutil.Process(process.pid).create_time() - psutil.boot_time()
            assert identity.start_ticks == pytest.approx(began * ticks, abs=2 * ticks)
        finally:
            process.kill()


@pytest.fixture(params=["/proc", "psutil"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of a process is read from /proc, or, as on macOS, by psutil."""
    if request.param == "psutil":
        monkeypatch.setattr(process_identity, "_has_proc", lambda: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux has /proc")


@pytest.mark.usefixtures("either_way")
def test_a_process_shows_its_environment_as_long_as_it_lives() -> None:
    given = {"MARK": "a=b:c", "EMPTY": "", "NOT_MARK": "x"}
    with subprocess.Popen(
        [sys.executable, "-I", "-c", "print(flush=True); input()"],
        env=given,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # until it is that program, it has our environment
        assert [variable_of(process.pid, name) for name in ("MARK", "EMPTY", "ARK")] == ["a=b:c", "", ""]
        assert not is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        until("it to be stopped", lambda: is_stopped(process.pid))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
        assert variable_of(process.pid, "MARK") is None
        assert not is_stopped(process.pid)
    with pytest.raises(ProcessLookupError):
        variable_of(process.pid, "MARK")
    assert not is_stopped(process.pid)


def test_a_record_names_the_process_that_it_was_made_of() -> None:
    me = this_process()
    assert recorded(me.as_record()) == me
    assert is_record(me.as_record())
    assert is_recorded_alive(me.as_record())


def test_records_of_earlier_versions_are_read() -> None:
    mine = psutil.Process()
    record = {"pid": mine.pid, "created": mine.create_time()}
    assert is_record(record)
    assert recorded(record) == this_process()
    assert not is_recorded_alive({**record, "created": mine.create_time() - 100})


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"pid": "x"},
        {"pid": 1},
        {"pid": 1, "created": "x"},
        {"pid": 1, "start_ticks": 5},
        {"launching": True},
    ],
)
def test_what_is_no_record_of_a_process_names_none(record: dict[str, object]) -> None:
    assert recorded(record) is None
    assert not is_recorded_alive(record)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_without_proc_nothing_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()
    monkeypatch.setattr(process_identity, "_PROC", tmp_path)
    with pytest.raises(ProvisionError, match="/proc is not mounted") as raised:
        is_alive(me)
    assert raised.value.remedy.startswith("mount -t proc proc /proc")
    for ask in (is_stopped, lambda pid: variable_of(pid, "PATH")):
        with pytest.raises(ProvisionError, match="/proc is not mounted"):
            ask(me.pid)


def test_a_run_of_an_earlier_version_is_left_alone_as_long_as_its_pid_is_taken(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    here = Owner.here()
    old = {"host": here.host, "namespace": here.namespace, "pid": other.pid, "created": 1.0}
    owner = Owner.from_json(old)
    assert owner is not None
    assert not owner.is_dead
    other.kill()
    other.wait()
    gone = Owner.from_json(old)
    assert gone is not None
    assert gone.is_dead


def test_a_run_whose_record_can_not_be_read_is_none(tmp_path: Path) -> None:
    for name, content in (
        ("a", "{"),
        ("b", "[]"),
        ("c", '{"pid": 1}'),
        ("d", '{"pid": 1, "start_ticks": 1}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "owner.json").write_text(content)
    assert runs(tmp_path) == []
    assert dead_runs(tmp_path) == []


def test_a_worker_reads_the_identity_of_its_run() -> None:
    run = Run.new()
    assert Run.from_json(run.as_json()).owner == run.owner
