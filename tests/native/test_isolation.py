"""The tool runs apart from the shell and the Pythons around it; the app inherits what its user has exported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import capabilities
from tests.support.clones import Clone, cloned
from tests.support.polling import until

SHOWS_ITS_ENVIRONMENT = """\
import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def home():
    return dict(os.environ)
"""


@pytest.fixture
def of_another_python(tmp_path: Path) -> str:
    """A folder with packages that only another Python can import, as a sourced ROS 2 or a module system leaves it."""
    folder = tmp_path / "python2.7" / "site-packages"
    for name in ("invoke", "rich", "pydantic", "psutil"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('made for Python 2.7')\n")
    return str(folder)


def app_of(clone: Clone) -> None:
    """Have the clone serve an app that shows its environment."""
    folder = clone.root / "shows"
    folder.mkdir()
    (folder / "app.py").write_text(SHOWS_ITS_ENVIRONMENT)
    clone.change_settings(lambda values: values["app"].update(path="shows", factory="app"))


def environment_of_the_app(clone: Clone, **exported: str) -> dict[str, str]:
    running = clone.begin("run", env=exported)
    running.says("Serving app at")
    shown: dict[str, str] = json.loads(clone.get("/")[1])
    return shown


def test_packages_of_another_python_reach_the_app_and_not_the_tool(
    clone: Clone, of_another_python: str
) -> None:
    for task in (("--list",), ("status",), ("doctor", "--json"), ("setup",)):
        clone.succeeds(*task, env={"PYTHONPATH": of_another_python})
    app_of(clone)
    assert environment_of_the_app(clone, PYTHONPATH=of_another_python)["PYTHONPATH"] == of_another_python


@pytest.mark.parametrize("task", ["--list", "status", "start"])
def test_a_pythonhome_of_another_python_does_not_reach_the_tool(clone: Clone, task: str) -> None:
    clone.succeeds(task, env={"PYTHONHOME": "/nowhere"})


def test_what_finishes_an_up_in_the_background_is_isolated_as_well(
    clone: Clone, of_another_python: str
) -> None:
    from provision.env.wrapper import own_command

    # It runs as `up` starts it, and says that there is nothing to wait for.
    done = subprocess.run(
        [*own_command(str(clone.root)), "cluster.wait", "--on", "local"],
        cwd=clone.root,
        env=clone.env({"PYTHONPATH": of_another_python}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "error: waiting for local\n  why:  local is not running." in done.stderr, done.stderr


def test_cdpath_does_not_lead_to_another_folder(clone: Clone) -> None:
    above = clone.root.parent
    done = subprocess.run(
        ["sh", "-c", f"{clone.root.name}/invoke --list"],
        cwd=above,
        env=clone.env({"CDPATH": f".:{above}"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cluster.up" in done.stdout


def test_a_clone_that_git_was_told_to_give_crlf_works(clone: Clone, tmp_path: Path) -> None:
    def git(*arguments: str, cwd: Path) -> None:
        configuration = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        subprocess.run(["git", *configuration, *arguments], cwd=cwd, capture_output=True, check=True)

    shutil.copytree(clone.root, tmp_path / "origin", symlinks=True, ignore=shutil.ignore_patterns(".state"))
    shutil.rmtree(tmp_path / "origin" / "env")
    git("init", "-q", cwd=tmp_path / "origin")
    git("add", "--all", cwd=tmp_path / "origin")
    git("commit", "-q", "-m", "all", cwd=tmp_path / "origin")
    git("clone", "-q", "-c", "core.autocrlf=true", "origin", "windows", cwd=tmp_path)
    text = {".py", ".txt", ".yaml", ".j2", ".html", ".css", ""}
    with_crlf = [
        path.name
        for path in (tmp_path / "windows").rglob("*")
        if path.is_file()
        and ".git" not in path.parts
        and path.suffix in text
        and b"\r\n" in path.read_bytes()
    ]
    assert with_crlf == []
    done = subprocess.run(
        [tmp_path / "windows" / "invoke", "setup", "--dry-run"],
        env=clone.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "virtualenv: would change" in done.stdout


@pytest.fixture(scope="module", params=["1.4.1", "2.0.0"])
def old_invoke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old Invoke that its user installed for an old Python."""
    python = capabilities.probe("old-python").values["path"]
    path = tmp_path_factory.mktemp("old") / "venv"
    subprocess.run([python, "-m", "venv", path], check=True)
    install = [path / "bin" / "python", "-m", "pip", "install", "-q", f"invoke=={request.param}"]
    subprocess.run(install, check=True)
    return path / "bin" / "invoke"


@pytest.mark.needs("index", "old-python")
@pytest.mark.parametrize("question", ["--list", "--help run", "run --help", "--complete -- invoke sta"])
def test_an_old_invoke_hands_questions_over_as_it_does_commands(
    clone: Clone, old_invoke: Path, question: str
) -> None:
    expected = clone.succeeds(*question.split())
    done = subprocess.run(
        [old_invoke, *question.split()],
        cwd=clone.root,
        env=clone.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs("index", "old-python")
def test_completion_by_an_old_invoke_builds_nothing(clone: Clone, old_invoke: Path) -> None:
    shutil.rmtree(clone.root / "env")
    done = subprocess.run(
        [old_invoke, "--complete", "--", "invoke sta"],
        cwd=clone.root,
        env=clone.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (clone.root / "env").exists()


def test_credentials_of_another_database_in_the_shell_do_not_reach_the_app(clone: Clone) -> None:
    app_of(clone)
    shown = environment_of_the_app(clone, MONGODB_USERNAME="theirs", MONGODB_PASSWORD="theirs", OWN="kept")
    # Without authentication both are empty: an app that falls back on a user of its own has none either.
    assert (shown["MONGODB_USERNAME"], shown["MONGODB_PASSWORD"]) == ("", "")
    assert shown["OWN"] == "kept"


def test_a_variable_that_is_null_in_the_settings_is_taken_from_the_app(clone: Clone) -> None:
    app_of(clone)
    clone.change_settings(lambda values: values["app"].setdefault("env", {}).update(STRIPE_KEY=None))
    assert "STRIPE_KEY" not in environment_of_the_app(clone, STRIPE_KEY="live")


@pytest.fixture
def served_by_hand(clone: Clone) -> Iterator[tuple[Clone, Path]]:
    """The clone after `setup`, whose app is served by Flask's own command."""
    clone.succeeds("setup")
    output = clone.root.parent / "by-hand"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [clone.python, "flaskbook/manage.py", "runserver", "--port", str(clone.app_port)],
            cwd=clone.root,
            env=clone.env(),
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        until("the app to answer or end", lambda: clone.get("/")[0] != 0 or process.poll() is not None)
        yield clone, output
    finally:
        process.terminate()
        process.wait()


def test_manage_py_serves_after_setup_with_the_clones_secret_key(served_by_hand: tuple[Clone, Path]) -> None:
    clone, output = served_by_hand
    # The sign-up form needs the secret key for its token, and no database.
    status, page = clone.get("/sign-up")
    assert status == 200, output.read_text()
    assert "csrf_token" in page


def test_python_3_15_and_any_later_one_on_the_path_is_found(tmp_path: Path) -> None:
    for name in ("python3.15", "python3.47", "python3.8", "python3.11-config"):
        (tmp_path / name).symlink_to(sys.executable)
    script = (
        f"import sys; sys.path.insert(0, {str(capabilities.ROOT)!r}); from provision.env import wrapper; "
    )

    def found() -> Path:
        done = subprocess.run(
            [sys.executable, "-c", f"{script}print(wrapper.find_python())"],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip())

    assert found() == tmp_path / "python3.47"
    (tmp_path / "python3.47").unlink()
    (tmp_path / "python3.47").write_text(
        "#!/bin/sh\nexit 127\n"
    )  # a pyenv shim of a version that is not chosen
    (tmp_path / "python3.47").chmod(0o755)
    assert found() == tmp_path / "python3.15"


def test_without_an_index_a_test_of_the_bootstrap_is_skipped_and_the_index_named(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTEST_"))}
    unreachable = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    test = "tests/native/test_bootstrap.py::test_the_first_run_makes_env_and_the_second_changes_nothing"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            test,
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'inner'}",
        ],
        cwd=capabilities.ROOT,
        env={**kept, **unreachable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "index: 1 test needs it" in done.stdout


# ---- users without a passwd entry, and files of another user

WITHOUT_ENTRY = 54321


def as_user(uid: int) -> list[str]:
    return [each.replace(str(capabilities.NOBODY[0]), str(uid)) for each in capabilities.AS_NOBODY]


def given_to(clone: Clone, uid: int) -> None:
    """Give the clone, its home and what is above it to a user."""
    clone.owns_the_tool()
    for path in (clone.home, clone.root, *clone.root.rglob("*")):
        if clone.root / "env" / "lib" not in path.parents:
            os.chown(path, uid, uid, follow_symlinks=False)


@pytest.fixture
def open_clone(mongod_binary: Path) -> Iterator[Clone]:
    """A clone in a folder that every user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="flaskbook-open-") as folder:
        Path(folder).chmod(0o755)
        with cloned(Path(folder), str(mongod_binary)) as made:
            yield made


@pytest.mark.needs("another-user")
@pytest.mark.parametrize("home", ["/", None], ids=["HOME is /", "no HOME"])
def test_a_user_without_a_passwd_entry_gets_a_cache_that_can_be_written(
    open_clone: Clone, home: str | None
) -> None:
    clone = open_clone
    given_to(clone, WITHOUT_ENTRY)
    changes = {"HOME": home, "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None}
    begun = clone.begin("start", command=[*as_user(WITHOUT_ENTRY), *clone.command], env=changes)
    assert begun.ends() == 0, begun.text
    shown = subprocess.run(
        [*as_user(WITHOUT_ENTRY), clone.python, "-I", "-c", CACHE_AND_ITS_RIGHTS, str(clone.root)],
        env=clone.env(changes),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == [str(clone.root / ".state" / "cache"), "0"]
    begun = clone.begin("stop", command=[*as_user(WITHOUT_ENTRY), *clone.command], env=changes)
    assert begun.ends() == 0, begun.text


CACHE_AND_ITS_RIGHTS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from provision.settings.paths import Paths
cache = Paths.of(Path(sys.argv[1]), "data", "log", None).cache
cache.mkdir(parents=True, exist_ok=True)
(cache / "written").write_text("")
print(cache, (cache / "written").stat().st_size)
"""


@pytest.mark.needs("another-user")
def test_files_that_sudo_left_are_named_with_the_commands_that_give_them_back(open_clone: Clone) -> None:
    clone = open_clone
    nobody = capabilities.NOBODY[0]
    given_to(clone, nobody)
    as_oneself = [*as_user(nobody), *clone.command]
    begun = clone.begin("setup", command=as_oneself)
    assert begun.ends() == 0, begun.text
    clone.succeeds("start")  # with sudo
    for task in ("status", "start", "doctor", "clean"):
        begun = clone.begin(task, command=as_oneself)
        assert begun.ends() == 1, begun.text
        assert "belongs to root, and you are nobody" in begun.text
        assert "Traceback" not in begun.text
    commands = begun.text.partition("next: ")[2].splitlines()[:2]
    assert commands[0].strip() == "sudo ./invoke stop"
    assert commands[1].strip().startswith("sudo chown -R nobody ")
    for command in commands:
        typed = ["sh", "-c", command.strip().removeprefix("sudo ")]
        subprocess.run(typed, cwd=clone.root, env=clone.env(), capture_output=True, check=True)
    for task in ("status", "start", "stop"):
        begun = clone.begin(task, command=as_oneself)
        assert begun.ends() == 0, begun.text
