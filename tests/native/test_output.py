"""What is printed never stops the work: pipes whose reader has gone, terminals that were closed or stopped, full disks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.support.clones import Clone
from tests.support.polling import until
from tests.support.processes import describe
from tests.support.streams import ASCII, CLOSED, FULL, LATIN_1, PIPE, TERMINAL, locale, streams
from tests.support.terminals import Reader, on_terminal

SERVING = "Serving flaskbook"
READER_GONE = 128 + signal.SIGPIPE


@contextlib.contextmanager
def piped(
    clone: Clone, *arguments: str, command: list[str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Reader]]:
    """A command whose standard output and standard error are a pipe."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*(command or clone.command), *arguments],
        cwd=clone.root,
        env=clone.env(),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
    )
    os.close(writer)
    try:
        yield process, Reader(reader)
    finally:
        process.kill()
        process.wait()


def under(
    condition: str, clone: Clone, *arguments: str, error: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a task whose standard output is in a condition; its standard error can be read."""
    with streams(condition, clone.root.parent / "output") as found:
        return subprocess.run(
            [*found.prefix, *clone.command, *arguments],
            cwd=clone.root,
            env=clone.env(locale(condition)),
            stdin=found.input,
            stdout=found.output,
            stderr=subprocess.PIPE if error is None else error,
            timeout=90,
            check=False,
        )


def test_a_pipe_whose_reader_has_gone_does_not_keep_run_from_stopping_mongodb(clone: Clone) -> None:
    with piped(clone, "run") as (process, reader):
        reader.reads(SERVING)
        reader.close()  # `./invoke run | tee log`: Ctrl-C ends `tee`, too
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    assert clone.processes() == [], describe(clone.processes())


def test_an_invoke_that_is_called_by_itself_stops_mongodb_too(clone: Clone) -> None:
    clone.succeeds("setup")
    invoke = [str(clone.python), "-m", "invoke"]
    with piped(clone, "run", command=invoke) as (process, reader):
        reader.reads(SERVING)
        reader.close()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    assert clone.processes() == [], describe(clone.processes())


def test_a_closed_terminal_does_not_keep_run_from_stopping_mongodb(clone: Clone) -> None:
    with on_terminal(clone, "run") as (process, reader, _):
        reader.reads(SERVING)
        reader.close()
        assert process.wait(60) == 129
    assert clone.processes() == [], describe(clone.processes())


def test_under_nohup_run_goes_on_when_its_terminal_is_closed(clone: Clone) -> None:
    with on_terminal(clone, "run", ignores_hangup=True) as (process, reader, _):
        reader.reads(SERVING)
        reader.close()
        assert clone.get("/readyz")[0] == 200
        assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 143
    assert clone.processes() == [], describe(clone.processes())


def test_a_terminal_that_was_stopped_does_not_keep_run_from_stopping_mongodb(clone: Clone) -> None:
    with on_terminal(clone, "run") as (process, reader, master):
        reader.reads(SERVING)
        os.write(master, b"\x13")  # Ctrl-S
        process.terminate()
        assert process.wait(60) == 143
    assert clone.processes() == [], describe(clone.processes())


def test_a_pipe_that_nobody_empties_does_not_keep_run_from_stopping_mongodb(clone: Clone) -> None:
    with piped(clone, "run") as (process, reader):
        reader.reads(SERVING)
        full = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(full, b"x" * 4096):
                pass
        os.close(full)
        process.terminate()
        assert process.wait(60) == 143
    assert clone.processes() == [], describe(clone.processes())


@pytest.mark.parametrize("condition", [CLOSED, FULL, TERMINAL, PIPE])
def test_a_page_that_prints_is_served_whatever_becomes_of_the_output(clone: Clone, condition: str) -> None:
    app = clone.root / "printing.py"
    app.write_text(
        "from flask import Flask\n"
        "def create_app():\n"
        "    app = Flask(__name__)\n"
        "    @app.get('/')\n"
        "    def page():\n"
        "        print('a page', flush=True)\n"
        "        return 'served'\n"
        "    return app\n",
        encoding="utf-8",
    )
    clone.change_settings(
        lambda settings: settings["app"].update(factory="printing:create_app", reload=False)
    )
    with streams(condition, clone.root.parent / "output") as found:
        process = subprocess.Popen(
            [*found.prefix, *clone.command, "run"],
            cwd=clone.root,
            env=clone.env(),
            stdin=found.input,
            stdout=found.output,
            stderr=found.output,
            start_new_session=True,
        )
    try:
        until("the page", lambda: process.poll() is not None or clone.get() == (200, "served"))
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert clone.processes() == [], describe(clone.processes())


def test_no_file_or_connection_takes_the_place_of_a_closed_descriptor(clone: Clone) -> None:
    command = [*clone.command, "run"]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command],
        cwd=clone.root,
        env=clone.env(),
        start_new_session=True,
    )
    try:
        until("the app", lambda: process.poll() is not None or clone.get("/readyz")[0] == 200)
        for each in clone.processes():
            if each.name() != "mongod":  # its output goes to its log
                opened = [os.path.realpath(f"/proc/{each.pid}/fd/{number}") for number in (0, 1, 2)]
                assert opened == ["/dev/null"] * 3, each.cmdline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("condition", [CLOSED, FULL, TERMINAL, PIPE])
def test_env_is_made_whatever_becomes_of_the_output(clone: Clone, condition: str, tmp_path: Path) -> None:
    shutil.rmtree(clone.root / "env")
    with streams(condition, tmp_path / "output") as found:
        done = subprocess.run(
            [*found.prefix, *clone.command, "setup"],
            cwd=clone.root,
            env=clone.env(),
            stdin=found.input,
            stdout=found.output,
            stderr=found.output,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0
    assert (
        json.loads((clone.root / "env" / ".provision.json").read_text(encoding="utf-8"))["state"]
        == "complete"
    )
    assert clone.succeeds("status").startswith("local: stopped")


def test_the_status_is_that_of_the_work_and_a_lost_result_is_told(clone: Clone) -> None:
    started = under(FULL, clone, "start")
    assert started.returncode == 0, started.stderr
    assert b"error: writing to standard output\n  why:  No space left on device." in started.stderr
    assert clone.status()["state"] == "running"
    for condition in (PIPE, TERMINAL, CLOSED):
        assert under(condition, clone, "start").returncode == 0
    assert under(PIPE, clone, "stop").returncode == 0
    assert clone.processes() == []


def test_a_command_that_only_prints_fails_with_its_output(clone: Clone) -> None:
    clone.succeeds("setup")
    for command in (["uri"], ["settings"], ["--list"], ["--help"]):
        done = under(FULL, clone, *command)
        assert done.returncode == 1, command
        assert b"error: writing to standard output\n  why:  No space left on device." in done.stderr
        assert b"Traceback" not in done.stderr
        for condition in (PIPE, TERMINAL):
            done = under(condition, clone, *command)
            assert (done.returncode, done.stderr) == (READER_GONE, b""), (command, condition)
        done = under(CLOSED, clone, *command, error=subprocess.DEVNULL)
        assert done.returncode == 0


def test_following_a_log_ends_with_its_reader_while_nothing_is_logged(clone: Clone) -> None:
    clone.succeeds("start")
    with piped(clone, "logs", "--follow") as (process, reader):
        reader.reads("Transition to primary complete")
        # Nothing more is logged from now on; a lull is what the command must not wait out.
        clone.mongods()[0].suspend()
        reader.close()
        assert process.wait(60) == READER_GONE
        clone.mongods()[0].resume()
    with piped(clone, "cluster.logs", "--all", "--follow", "--on", "local") as (process, reader):
        reader.reads("Transition to primary complete")
        reader.close()
        assert process.wait(60) == READER_GONE


@pytest.mark.parametrize("condition", [ASCII, LATIN_1])
def test_characters_that_the_locale_lacks_are_replaced(clone: Clone, condition: str) -> None:
    clone.succeeds("start")
    with MongoClient[dict[str, Any]](clone.uri, appname="Ängström ✓") as client:
        client.admin.command("ping")
    for command in (["doctor"], ["logs", "--lines", "400"], ["logs", "--raw", "--lines", "400"], ["status"]):
        done = under(condition, clone, *command)
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
    under(condition, clone, "logs", "--raw", "--lines", "400")
    assert b"ngstr" in (clone.root.parent / "output").read_bytes()


@pytest.mark.parametrize("condition", [ASCII, LATIN_1])
def test_the_shell_prints_json_that_can_be_read_in_any_locale(clone: Clone, condition: str) -> None:
    clone.succeeds("start")
    under(condition, clone, "shell", "--python", "--eval", "{'name': '\\u00c5sa \\u2713'}")
    assert json.loads((clone.root.parent / "output").read_text(encoding="latin-1")) == {"name": "Åsa ✓"}


def test_an_error_at_the_python_prompt_keeps_the_prompt(clone: Clone) -> None:
    clone.succeeds("start")
    with on_terminal(clone, "shell", "--python") as (process, reader, master):
        reader.reads(">>> ")
        os.write(master, b"1/0\n")
        reader.reads("ZeroDivisionError: division by zero")
        os.write(master, b"print(6 * 7, 'still here')\n")
        # The next prompt, too: an end of input that is typed between two prompts is lost, as the terminal changes.
        reader.reads("42 still here\r\n>>> ")
        os.write(master, b"\x04")
        assert process.wait(60) == 0, reader.text
        assert "bug in the tool" not in reader.text


def test_a_debugged_app_that_is_ended_at_any_moment_leaks_no_semaphore(clone: Clone) -> None:
    app = clone.root / "spawning.py"
    app.write_text(
        "import multiprocessing\n"
        # As it is by default from Python 3.14 on; there a named semaphore has to be cleaned up after.
        "multiprocessing.set_start_method('forkserver', force=True)\n"
        "from flask import Flask\n"
        "def create_app():\n"
        "    return Flask(__name__)\n",
        encoding="utf-8",
    )
    clone.change_settings(
        lambda settings: settings["app"].update(
            factory="spawning:create_app", reload=False, debug=True, ready_path="/"
        )
    )
    running = clone.begin("run")
    until("the app to answer", lambda: running.process.poll() is not None or clone.get()[0] == 404)
    (app_process,) = [each for each in clone.processes() if "serve.py" in " ".join(each.cmdline())]
    app_process.kill()
    assert running.ends() == 1, running.text
    until("all to be gone", lambda: not clone.processes())
    assert "leaked semaphore" not in running.text


@pytest.mark.parametrize(
    ("folder", "typed", "told"),
    [
        ("", "./invoke", "./invoke start"),
        ("flaskbook", "../invoke", "../invoke start"),
        ("", "", "invoke start"),
    ],
)
def test_an_error_names_the_next_command_as_this_one_was_typed(
    clone: Clone, folder: str, typed: str, told: str
) -> None:
    done = subprocess.run(
        [typed or str(clone.root / "invoke"), "shell"],
        cwd=clone.root / folder,
        env=clone.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"  next: Start it: {told} --on local\n" in done.stderr, done.stderr
