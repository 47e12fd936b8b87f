"""`app.command`: an app with a server of its own is served, restarted when a file changes, and ended with all it started."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.native.test_apps import put
from tests.native.test_run import interrupt, save
from tests.support.clones import Clone, Running
from tests.support.polling import until
from tests.support.processes import describe

# A server that is not Flask's, with a helper of its own, as an app with websockets has it.
SERVER = """\
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pymongo import MongoClient

helper = subprocess.Popen(["sleep", "1000"])
database = MongoClient(os.environ["MONGO_URI"]).get_default_database()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        database.visits.insert_one({})
        body = json.dumps({
            "text": "first",
            "python": sys.executable,
            "path": os.environ["PATH"],
            "environment": dict(os.environ),
            "arguments": sys.argv[1:],
            "helper": helper.pid,
            "long": "x" * 5_000_000,  # who hangs up before its end has the server print a traceback
        }).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer((sys.argv[sys.argv.index("--host") + 1], port), Handler).serve_forever()
"""
COMMAND = ["python", "server.py", "--host", "{host}", "--port", "{port}", "{other}"]


def commanded(
    clone: Clone, files: dict[str, str] | None = None, command: list[str] | None = None, **app: Any
) -> Path:
    """Have the clone serve an app of these files by a command; its place."""
    place = put(clone.root / "theirs", files or {"server.py": SERVER})
    clone.change_settings(
        lambda settings: settings["app"].update(
            path="theirs", factory="none:none", command=command or COMMAND, **app
        )
    )
    return place


def serving(clone: Clone) -> Running:
    running = clone.begin("run")
    running.says(" at http://127.0.0.1:")
    return running


def answer(clone: Clone) -> dict[str, Any]:
    status, body = clone.get("/")
    assert status in (0, 200)
    found: dict[str, Any] = json.loads(body) if status else {}
    return found


def test_it_is_served_on_the_database_in_the_apps_environment_and_ends_with_all_it_started(
    clone: Clone,
) -> None:
    commanded(clone)
    running = serving(clone)
    assert "Serving python server.py --host" in running.text
    found = answer(clone)
    assert found["arguments"] == ["--host", "127.0.0.1", "--port", str(clone.app_port), "{other}"]
    assert Path(found["python"]).samefile(clone.python)
    assert found["path"].split(os.pathsep)[0] == str(clone.python.parent)
    environment = found["environment"]
    assert environment["MONGO_HOST"] == "127.0.0.1"
    assert environment["SECRET_KEY"] == (clone.root / ".state" / "secret_key").read_text().strip()
    assert not {"PROVISION_SERVE", "INVOKE_APP_PORT", "FLASK_RUN_FROM_CLI"} & set(environment)
    secret = environment["SECRET_KEY"]
    assert [each for each in clone.processes() if secret in " ".join(each.cmdline())] == []
    assert psutil.pid_exists(found["helper"])
    assert interrupt(running) == 130
    assert "Traceback" not in running.text
    assert clone.processes() == [], describe(clone.processes())


def test_a_change_below_its_path_starts_it_again_and_one_that_fails_waits_for_the_next(clone: Clone) -> None:
    place = commanded(clone)
    put(place / "templates", {"page.html": "one"})
    put(place / ".venv", {"pyvenv.cfg": "", "lib.py": ""})
    running = serving(clone)
    first = answer(clone)["helper"]
    save(place / ".venv" / "lib.py", "changed = 1\n")
    save(place / "server.py", SERVER.replace('"first"', '"second"'))
    until(
        "the change to be served", lambda: answer(clone).get("text") == "second", detail=lambda: running.text
    )
    assert f"{place / 'server.py'} changed: the app is started again." in running.text
    assert "lib.py" not in running.text
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE

    save(place / "server.py", "raise SystemExit(4)\n")
    running.says("The app ended with status 4. It is started again when a file changes.")
    assert running.process.poll() is None

    save(place / "server.py", SERVER.replace('"first"', '"third"'))
    until(
        "the correction to be served",
        lambda: answer(clone).get("text") == "third",
        detail=lambda: running.text,
    )
    helper = answer(clone)["helper"]
    save(place / "templates" / "page.html", "two")
    until(
        "a template to start it again",
        lambda: answer(clone).get("helper", helper) != helper,
        detail=lambda: running.text,
    )
    assert interrupt(running) == 130
    assert clone.processes() == [], describe(clone.processes())


def test_without_reload_no_change_starts_it_again(clone: Clone) -> None:
    place = commanded(clone, reload=False)
    running = serving(clone)
    save(place / "server.py", SERVER.replace('"first"', '"second"'))
    with pytest.raises(AssertionError):
        until("a restart", lambda: answer(clone)["text"] == "second", seconds=3)
    assert interrupt(running) == 130


@pytest.mark.parametrize("killed", ["run", "its process group"])
def test_a_run_killed_without_mercy_leaves_nothing_of_it(clone: Clone, killed: str) -> None:
    commanded(clone)
    running = serving(clone)
    if killed == "run":
        running.process.kill()
    else:
        running.signal_group(signal.SIGKILL)
    running.process.wait()
    until(
        "the command and its helper to end",
        lambda: [each.name() for each in clone.processes()] == ["mongod"],
        detail=lambda: str(describe(clone.processes())),
    )


def test_a_killed_runner_takes_the_command_with_it(clone: Clone) -> None:
    commanded(clone)
    running = serving(clone)
    runner = next(each for each in clone.processes() if "serve_command.py" in " ".join(each.cmdline()))
    runner.send_signal(signal.SIGKILL)
    assert running.ends() == 1
    assert "The app ended with status -9" in running.text
    until(
        "all of it to end", lambda: clone.processes() == [], detail=lambda: str(describe(clone.processes()))
    )


def test_one_that_ignores_sigterm_is_ended_all_the_same(clone: Clone) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
    commanded(clone, {"server.py": stubborn})
    assert interrupt(serving(clone)) == 130
    assert clone.processes() == [], describe(clone.processes())


def test_its_port_is_looked_at_before_anything_is_started(clone: Clone) -> None:
    commanded(clone)
    with socket.create_server(("127.0.0.1", clone.app_port)):
        said = clone.fails("run")
    assert f"Port {clone.app_port} is held by" in said
    assert "serving python server.py" in said
    assert clone.processes() == []


@pytest.mark.parametrize("status", [3, 5])
def test_one_that_ends_by_itself_is_not_started_again(clone: Clone, status: int) -> None:
    commanded(clone, {"server.py": f"print('once')\nraise SystemExit({status})\n"})
    done = clone.invoke("run")
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("once") == 1
    assert "error: running python server.py" in done.stderr
    assert f"The app ended with status {status}" in done.stderr
    assert clone.processes() == []


def test_a_program_that_is_not_there_is_named(clone: Clone) -> None:
    commanded(clone, command=["no-such-server", "{port}"])
    done = clone.invoke("run")
    assert done.returncode == 1
    assert "  why:  no-such-server can't be run: No such file or directory." in done.stderr
    assert "List the package that brings no-such-server" in done.stderr
