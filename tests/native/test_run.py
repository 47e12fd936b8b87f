"""`invoke run`: the app is served, reloaded, and ended; MongoDB is left as it was before."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.data import snapshots
from tests.support.clones import Clone, Running, cloned
from tests.support.polling import until
from tests.support.processes import describe, end, free_port

APP = """\
from flask import Flask


def create_app():
    app = Flask(__name__)

    @app.get("/")
    def home():
        return "first"

    return app
"""


@pytest.fixture(scope="module")
def clone_that_runs(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[Clone]:
    with cloned(tmp_path_factory.mktemp("runs"), str(mongod_binary)) as made:
        yield made


@pytest.fixture
def started(clone_that_runs: Clone) -> Iterator[Clone]:
    """A clone in which MongoDB runs before `run`, and afterwards; it is one for all tests that need that."""
    clone_that_runs.start()
    yield clone_that_runs
    mongods = clone_that_runs.mongods()
    end([each for each in clone_that_runs.processes() if each not in mongods])
    shutil.rmtree(clone_that_runs.root / "small", ignore_errors=True)


def serving(clone: Clone, *arguments: str, env: dict[str, str | None] | None = None) -> Running:
    """`invoke run`, when it has printed the app's address."""
    running = clone.begin("run", *arguments, env=env)
    running.says(" at http://127.0.0.1:")
    return running


def small_app(clone: Clone, text: str = APP) -> dict[str, str | None]:
    """Put an app of a few lines into the clone.

    Returns:
        The environment that has `run` serve it.
    """
    (clone.root / "small").mkdir()
    (clone.root / "small" / "small.py").write_text(text)
    return {"INVOKE_APP_FACTORY": "small:create_app", "INVOKE_APP_PATH": "small"}


def interrupt(running: Running, number: signal.Signals = signal.SIGINT) -> int:
    """What Ctrl-C does: the whole process group is told.

    Returns:
        The exit status.
    """
    running.signal_group(number)
    return running.ends()


def test_one_command_serves_flaskbook_on_a_real_database_and_leaves_nothing_running(clone: Clone) -> None:
    running = serving(clone)
    assert clone.get("/readyz")[0] == 200
    assert clone.get("/healthz")[0] == 200
    assert f"Serving flaskbook.application:create_app at http://127.0.0.1:{clone.app_port}/" in running.text
    assert clone.status()["state"] == "running"
    assert interrupt(running) == 130
    assert "Traceback" not in running.text
    assert clone.processes() == [], describe(clone.processes())


def test_keep_leaves_mongodb_running(clone: Clone) -> None:
    env = small_app(clone)
    assert interrupt(serving(clone, "--keep", env=env)) == 130
    assert clone.status()["state"] == "running"
    assert [each.name() for each in clone.processes()] == ["mongod"]


def test_a_deployment_that_ran_before_runs_on_afterwards(started: Clone) -> None:
    env = small_app(started)
    before = started.pid()
    assert interrupt(serving(started, env=env)) == 130
    assert started.pid() == before


def test_a_second_run_beside_the_first_leaves_the_first_its_database(clone: Clone) -> None:
    env = small_app(clone)
    first = serving(clone, env=env)
    port = free_port()
    second = serving(clone, "--port", str(port), env=env)
    assert clone.get("/", port=port) == (200, "first")
    assert interrupt(second) == 130
    assert clone.status()["state"] == "running"
    assert clone.get("/") == (200, "first")
    assert interrupt(first) == 130
    assert clone.processes() == [], describe(clone.processes())


def test_a_change_of_the_code_is_served_and_a_syntax_error_is_survived(clone: Clone) -> None:
    env = small_app(clone)
    running = serving(clone, env=env)
    code = clone.root / "small" / "small.py"
    assert clone.get("/") == (200, "first")

    save(code, APP.replace("first", "second"))
    until("the change to be served", lambda: clone.get("/") == (200, "second"), detail=lambda: running.text)

    save(code, "def create_app(:\n")
    until("the error to be answered", lambda: clone.get("/")[0] == 500, detail=lambda: running.text)
    assert "SyntaxError" in running.text
    assert running.process.poll() is None
    assert clone.status()["state"] == "running"

    save(code, APP.replace("first", "third"))
    until(
        "the correction to be served", lambda: clone.get("/") == (200, "third"), detail=lambda: running.text
    )
    assert interrupt(running) == 130
    assert clone.processes() == [], describe(clone.processes())


def save(path: Path, text: str) -> None:
    """Save as an editor does. The clock of a file system may be coarser than a test is fast."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 2_000_000_000, before + 2_000_000_000))


def test_no_reload_means_one_process_that_does_not_watch(started: Clone) -> None:
    clone = started
    env = small_app(clone) | {"INVOKE_APP_RELOAD": "false", "INVOKE_APP_DEBUG": "false"}
    running = serving(clone, env=env)
    # Werkzeug says with which reloader it restarts; without one it does not.
    assert "Debugger is active" not in running.text
    listing = clone.succeeds("settings", "--key", "app.reload", env=env)
    assert listing.splitlines()[1].split() == ["app.reload", "False", "environment", "INVOKE_APP_RELOAD"]
    save(clone.root / "small" / "small.py", APP.replace("first", "second"))
    # What would be served after a reload is asked for in a new run; this one must still be the old.
    other = serving(clone, "--port", str(port := free_port()), env=env)
    assert clone.get("/", port=port) == (200, "second")
    assert clone.get("/") == (200, "first")
    interrupt(other)
    interrupt(running)


def test_the_apps_port_held_by_another_process_is_named_and_nothing_is_started(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.app_port)):
        said = clone.fails("run", env=small_app(clone))
    assert f"Port {clone.app_port} is held by" in said
    assert f"(process {os.getpid()})" in said
    assert f"invoke run --port {clone.app_port + 1}" in said
    assert clone.processes() == []


@pytest.mark.parametrize("before", ["stopped", "running"])
def test_an_app_that_fails_to_import_shows_its_own_traceback_and_leaves_mongodb_as_it_was(
    request: pytest.FixtureRequest, before: str
) -> None:
    clone: Clone = request.getfixturevalue("started" if before == "running" else "clone")
    env = small_app(clone, "import flask\n\nraise RuntimeError('the wiring is wrong')\n")
    done = clone.invoke("run", env=env)
    assert done.returncode == 1
    assert 'small.py", line 3, in <module>' in done.stderr
    assert "RuntimeError: the wiring is wrong" in done.stderr
    assert "bug in the tool" not in done.stderr
    assert "error: running small:create_app" in done.stderr
    assert clone.status()["state"] == before
    assert len(clone.processes()) == (1 if before == "running" else 0), describe(clone.processes())


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("nowhere:create_app", "nowhere"),
        ("small:no_such_factory", "no_such_factory"),
        ("small:", "small"),
    ],
)
def test_a_factory_that_is_not_there_is_named(clone: Clone, factory: str, words: str) -> None:
    env = small_app(clone) | {"INVOKE_APP_FACTORY": factory}
    done = clone.invoke("run", env=env)
    assert done.returncode == 1
    assert words in done.stderr
    assert "error: running" in done.stderr
    assert clone.processes() == []


def test_an_app_path_that_is_no_directory_is_named_before_anything_is_started(clone: Clone) -> None:
    said = clone.fails("run", env={"INVOKE_APP_PATH": "nowhere"})
    assert str(clone.root / "nowhere") in said
    assert clone.processes() == []


def test_a_host_that_is_not_this_machines_is_named(clone: Clone) -> None:
    said = clone.fails("run", env=small_app(clone) | {"INVOKE_APP_HOST": "192.0.2.1"})
    assert "192.0.2.1" in said
    assert clone.processes() == []


def test_an_app_that_ends_by_itself_ends_run_with_its_word(clone: Clone) -> None:
    env = small_app(clone, "import os\nos._exit(7)\n")
    done = clone.invoke("run", env=env)
    assert done.returncode == 1
    assert "The app ended with status 7" in done.stderr
    assert clone.processes() == []


def test_an_undefined_name_in_the_apps_environment_is_named(clone: Clone) -> None:
    env = small_app(clone)
    clone.change_settings(lambda settings: settings["app"]["env"].update(OWN_URI="{{ url }}"))
    said = clone.fails("run", env=env)
    assert "OWN_URI" in said
    assert "'url' is undefined" in said
    assert clone.processes() == []


def test_the_secret_key_is_handed_over_as_a_file(started: Clone) -> None:
    clone = started
    text = APP.replace(
        'return "first"', 'import os; return open(os.environ["SECRET_KEY_FILE"]).read().strip()'
    )
    running = serving(clone, env=small_app(clone, text))
    assert clone.get("/")[1] == (clone.root / ".state" / "secret_key").read_text().strip()
    interrupt(running)


def test_an_app_without_a_readiness_page_is_ready_when_it_answers(started: Clone) -> None:
    running = serving(started, env=small_app(started))
    assert "Serving small:create_app" in running.text
    interrupt(running)


def test_an_app_that_never_is_ready_is_served_all_the_same_and_said_to_be(clone: Clone) -> None:
    text = APP.replace(
        '@app.get("/")', '@app.get("/readyz")\n    def no():\n        return "no", 503\n\n    @app.get("/")'
    )
    running = clone.begin("run", env=small_app(clone, text))
    until("the app to answer", lambda: clone.get("/") == (200, "first"), detail=lambda: running.text)
    assert interrupt(running) == 130
    assert clone.processes() == [], describe(clone.processes())


def test_mongodb_is_stopped_although_the_app_does_not_want_to_end(clone: Clone) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + APP
    running = serving(clone, env={**small_app(clone, stubborn), "INVOKE_APP_RELOAD": "false"})
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 143
    assert clone.processes() == [], describe(clone.processes())


def test_a_second_signal_does_not_keep_an_app_alive_that_does_not_want_to_end(clone: Clone) -> None:
    stubborn = (
        "import pathlib, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('told').touch())\n" + APP
    )
    running = serving(clone, env={**small_app(clone, stubborn), "INVOKE_APP_RELOAD": "false"})
    running.process.send_signal(signal.SIGINT)
    until("the app to be told", (clone.root / "small" / "told").exists, detail=lambda: running.text)
    running.process.send_signal(signal.SIGINT)
    assert running.ends() == 130, running.text
    assert clone.processes() == [], describe(clone.processes())


def test_a_run_killed_without_mercy_leaves_no_app_and_the_next_run_works(clone: Clone) -> None:
    env = small_app(clone)
    first = serving(clone, env=env)
    first.process.kill()
    first.process.wait()
    until(
        "the app to end", lambda: [each.name() for each in clone.processes()] == ["mongod"],
        detail=lambda: str(describe(clone.processes())),
    )  # fmt: skip
    second = serving(clone, env=env)
    assert clone.get("/") == (200, "first")
    assert len(clone.mongods()) == 1
    interrupt(second)


# ---- several runs, and a database that ends under one


def test_the_last_of_several_runs_stops_mongodb_and_the_others_say_that_it_goes_on(clone: Clone) -> None:
    first, second = serving(clone), serving(clone, "--port", str(port := free_port()))
    assert interrupt(first) == 130
    assert "local goes on: another `invoke run` uses it" in first.text
    assert clone.get("/readyz", port)[0] == 200
    assert interrupt(second) == 130
    assert "Stopping local (mongod)" in second.text
    assert clone.processes() == [], describe(clone.processes())


def test_what_a_killed_run_has_started_is_stopped_by_the_last_one(clone: Clone) -> None:
    env = small_app(clone)
    first, second = serving(clone, env=env), serving(clone, "--port", str(free_port()), env=env)
    first.process.kill()
    first.ends()
    assert interrupt(second) == 130
    assert clone.mongods() == []


def test_no_run_stops_what_start_has_started(started: Clone) -> None:
    clone = started
    env = small_app(clone)
    first, second = serving(clone, env=env), serving(clone, "--port", str(free_port()), env=env)
    assert interrupt(first) == 130
    assert interrupt(second) == 130
    assert clone.status()["state"] == "running"


def test_a_mongod_that_dies_under_run_is_told_and_the_command_that_is_printed_starts_it(clone: Clone) -> None:
    running = serving(clone)
    clone.mongods()[0].kill()
    assert "mongod of local has ended (signal 9)" in running.says("has ended")
    assert "`invoke start --on local` starts it again" in running.text
    clone.succeeds("start", "--on", "local")
    until("the app to reach it again", lambda: clone.get("/readyz")[0] == 200, detail=lambda: running.text)
    assert interrupt(running) == 130
    assert clone.status()["state"] == "running"


def test_a_mongod_that_another_command_starts_anew_is_no_death(clone: Clone) -> None:
    running = serving(clone)
    snapshots.save(clone.deployment("local"), "one")
    clone.succeeds("snapshot.restore", "one", "--yes")
    clone.succeeds("restart")
    clone.mongods()[0].kill()
    assert running.says("has ended").count("has ended") == 1
    assert interrupt(running) == 130
