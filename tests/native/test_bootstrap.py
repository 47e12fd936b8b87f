"""The bootstrap on a small clone, with real virtualenvs, uv, pip and Invoke."""

from __future__ import annotations

import base64
import fcntl
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.env import bootstrap, declared, generations, installers, virtualenv
from tests.support.capabilities import AS_NOBODY, NOBODY

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    "__init__",
    "machine/access",
    "core/output",
    "env/wrapper",
    "cli/entry",
    "cli/uncaught",
    "cli/interrupts",
    "core/dataclass",
    "core/errors",
    "env/bootstrap",
    "env/virtualenv",
    "env/installers",
    "env/python_setting",
    "env/settings_files",
    "env/requirements_files",
    "env/groups",
    "settings/layers",
    "cli/light",
    "cli/program",
    "cli/numeric_flags",
    "core/locks",
    "core/signals",
    "core/text",
    "core/typed",
]
BASE = getattr(sys, "_base_executable", sys.executable)
TASKS = """\
from provision.env import bootstrap
bootstrap.ensure_environment()
import json, os, sys
from invoke import task

@task
def setup(c, dry_run=False):
    steps = [[s.name, s.changed, s.why] for s in bootstrap.take_report()]
    print(json.dumps({"prefix": sys.prefix, "cwd": os.getcwd(), "steps": steps}))

@task
def far(c, dry_run=False):
    try:
        bootstrap.need("hosts")
    except bootstrap.BootstrapError as error:
        sys.exit(str(error))
    import sortedcontainers
    print("far", os.environ.get("PROVISION_GROUPS"))
"""


@dataclass(frozen=True)
class Clone:
    """A clone with the bootstrap, a task that says where it runs, and two small requirements files."""

    root: Path
    environment: dict[str, str]

    @property
    def env(self) -> Path:
        return self.root / "env"

    @property
    def record(self) -> dict[str, object]:
        found = json.loads((self.env / ".provision.json").read_text())
        assert isinstance(found, dict)
        return found

    def start(
        self, *arguments: str, program: Path | None = None, cwd: Path | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(program or self.root / "invoke"), *arguments],
            cwd=cwd or self.root,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, program: Path | None = None, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, program=program, cwd=cwd, **variables)
        out, err = process.communicate(timeout=110)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def setup(
        self, program: Path | None = None, cwd: Path | None = None, **variables: str
    ) -> dict[str, bool]:
        """Run `setup`, check that it ran in env/ and left it complete, and return what changed."""
        done = self.run("setup", program=program, cwd=cwd, **variables)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["prefix"] == str(self.env), done.stderr
        assert said["cwd"] == str(cwd or self.root)
        assert self.record["state"] == "complete"
        return {name: changed for name, changed, _ in said["steps"]}

    def tree(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self.root.rglob("*"):
            if "__pycache__" not in path.parts:
                stat = path.lstat()
                found[str(path.relative_to(self.root))] = (stat.st_size, stat.st_mtime_ns)
        return found


def pinned(*names: str) -> str:
    text = "".join(file.read_text() for file in sorted(ROOT.glob("requirements*.txt")))
    found = [re.findall(rf"(?m)^{name}==.*(?:\n +--hash.*)*", text)[0] for name in names]
    return "\n".join(found) + "\n"


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    root = tmp_path / "clone"
    (root / "provision").mkdir(parents=True)
    shutil.copy(ROOT / "invoke", root / "invoke")
    rooms = sorted({module.partition("/")[0] for module in MODULES if "/" in module})
    for name in [
        *(f"{module}.py" for module in MODULES),
        *(f"{room}/__init__.py" for room in rooms),
        "env/uv.txt",
    ]:
        (root / "provision" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "provision" / name, root / "provision" / name)
    (root / "tasks.py").write_text(TASKS)
    (root / "requirements.txt").write_text(pinned("iniconfig"))
    (root / "requirements-run.txt").write_text(pinned("invoke"))
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VIRTUAL_ENV", "PYTEST", "INVOKE"))
    }
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = os.pathsep.join([str(Path(BASE).parent), *os.environ["PATH"].split(os.pathsep)])
    return Clone(root, {**kept, "HOME": str(home), "XDG_CACHE_HOME": cache, "PATH": path})


@pytest.fixture(scope="session")
def uv() -> str:
    """The uv the bootstrap itself would use: on the PATH, or fetched from the index into this user's cache."""
    runner = installers.Runner(virtualenv.EnvironmentSpec(Path("/nowhere"), (), Path("/nowhere")), 1)
    python = virtualenv.probe(BASE)
    assert isinstance(python, virtualenv.Interpreter)
    tool = installers.available(runner, python)[0]
    assert isinstance(tool, installers.Uv)
    return tool.program


def until(condition: Callable[[], bool], what: str, process: subprocess.Popen[str]) -> None:
    """Wait for what a process does; it may end at once when it has done it."""
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        threading.Event().wait(0.002)
    if not condition():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"waited for {what}; it said: {process.communicate()}")


def fake_uv(folder: Path, uv: str, on_install: str) -> dict[str, str]:
    """Put a uv first on the PATH that runs a shell line at `pip install` and the real uv otherwise."""
    folder.mkdir()
    program = folder / "uv"
    program.write_text(f'#!/bin/sh\nif [ "$1 $2" = "pip install" ]; then\n{on_install}\nfi\nexec {uv} "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{Path(BASE).parent}{os.pathsep}{os.environ['PATH']}"}


def without_uv(tmp_path: Path) -> dict[str, str]:
    """Variables under which no uv is on the PATH and none can be stored."""
    home = tmp_path / "other-home"
    home.mkdir()
    (home / "Library").write_text("")
    (home / ".cache").write_text("")
    folders = [str(Path(BASE).parent), *os.environ["PATH"].split(os.pathsep)]
    path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "uv").exists())
    return {"XDG_CACHE_HOME": str(home / ".cache"), "HOME": str(home), "PATH": path}


@pytest.mark.needs("index")
def test_the_first_run_makes_env_and_the_second_changes_nothing(clone: Clone) -> None:
    assert clone.setup() == {"virtualenv": True, "requirements": True}
    before = clone.tree()
    assert clone.setup() == {}
    assert clone.tree() == before
    done = clone.run("setup")
    assert done.stderr == ""


@pytest.mark.needs("index")
def test_env_is_made_with_pip_where_uv_cannot_be_had(clone: Clone, tmp_path: Path) -> None:
    variables = without_uv(tmp_path)
    assert clone.setup(**variables) == {"virtualenv": True, "requirements": True}
    assert clone.record["installer"] == "pip"
    (clone.root / "requirements.txt").write_text("")
    assert clone.setup(**variables) == {"virtualenv": False, "requirements": True}
    assert not list(clone.env.glob("lib/*/site-packages/iniconfig"))


@pytest.mark.needs("index")
@pytest.mark.needs("another-user")
@pytest.mark.parametrize("home", ["/", None], ids=["HOME is /", "no HOME"])
def test_env_is_made_for_a_user_without_a_passwd_entry(clone: Clone, home: str | None) -> None:
    user = 54321
    with tempfile.TemporaryDirectory(prefix="flaskbook-open-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "clone"
        shutil.copytree(clone.root, root)
        for path in (root, *root.rglob("*")):
            os.chown(path, user, user)
        environment = {**clone.environment, "HOME": home or ""}
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", *(() if home else ("HOME",))):
            environment.pop(name, None)
        become = [each.replace(str(NOBODY[0]), str(user)) for each in AS_NOBODY]
        done = subprocess.run(
            [*become, root / "invoke", "setup"],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert str(Clone(root, environment).record["installer"]).startswith("uv ")


@pytest.mark.needs("index")
def test_pip_takes_over_where_uv_fails(clone: Clone, tmp_path: Path, uv: str) -> None:
    variables = fake_uv(tmp_path / "bin", uv, "echo it broke >&2; exit 2")
    assert clone.setup(**variables) == {"virtualenv": True, "requirements": True}
    assert clone.record["installer"] == "pip"


@pytest.mark.needs("index")
def test_it_runs_from_anywhere_and_hands_the_arguments_on(clone: Clone, tmp_path: Path) -> None:
    clone.setup(cwd=tmp_path)
    assert clone.setup(cwd=clone.root / "provision") == {}
    done = clone.run("--no-such-flag")
    assert "--no-such-flag" in done.stderr
    assert done.returncode != 0


@pytest.mark.needs("index")
def test_changed_requirements_are_installed_and_only_what_was_dropped_is_removed(clone: Clone) -> None:
    clone.setup()
    packages = next(clone.env.glob("lib/*/site-packages"))
    (packages / "mine.py").write_text("kept = True\n")
    (clone.root / "requirements.txt").write_text(pinned("sortedcontainers"))
    assert clone.setup(program=clone.env / "bin" / "invoke") == {"virtualenv": False, "requirements": True}
    assert (packages / "sortedcontainers").is_dir()
    assert not (packages / "iniconfig").exists()
    assert (packages / "mine.py").exists()


@pytest.mark.needs("index")
def test_a_group_is_installed_when_a_command_first_needs_it_and_stays(clone: Clone) -> None:
    (clone.root / "requirements-hosts.txt").write_text(pinned("sortedcontainers"))
    clone.setup()
    packages = next(clone.env.glob("lib/*/site-packages"))
    assert not (packages / "sortedcontainers").exists()

    dry = clone.run("far", "--dry-run")
    assert dry.returncode == 1
    assert "./invoke setup --group hosts" in dry.stderr
    assert not (packages / "sortedcontainers").exists()

    first = clone.run("far")
    assert first.stdout == "far None\n", first.stderr
    assert "Work with other hosts needs packages that `run` does not" in first.stderr
    again = clone.run("far")
    assert (again.stdout, again.stderr) == ("far None\n", "")

    # It stays where the packages that `run` needs change, where env/ is made again, and where that is interrupted.
    (clone.root / "requirements.txt").write_text(pinned("iniconfig", "filelock"))
    assert clone.setup() == {"virtualenv": False, "requirements": True}
    assert (packages / "sortedcontainers").exists()
    (clone.env / ".provision.json").write_text(json.dumps({**clone.record, "state": "building"}))
    assert clone.setup() == {"virtualenv": True, "requirements": True}
    assert (packages / "sortedcontainers").exists()


@pytest.mark.needs("index")
def test_a_python_that_was_upgraded_in_place_rebuilds_env(clone: Clone) -> None:
    clone.setup()
    record = clone.record
    python = record["python"]
    assert isinstance(python, dict)
    text = json.dumps({**record, "python": {**python, "version": "3.11.0a1"}, "interpreter": [1, 2]})
    (clone.env / ".provision.json").write_text(text)
    assert clone.setup() == {"virtualenv": True, "requirements": True}


@pytest.mark.needs("index")
def test_a_python_that_has_vanished_rebuilds_env(clone: Clone) -> None:
    clone.setup()
    (clone.env / "bin" / "python").unlink()
    (clone.env / "bin" / "python").symlink_to("/no/such/python")
    assert clone.setup() == {"virtualenv": True, "requirements": True}


@pytest.mark.needs("index")
def test_a_moved_clone_rebuilds_env(clone: Clone) -> None:
    clone.setup()
    moved = Clone(clone.root.rename(clone.root.with_name("moved")), clone.environment)
    assert moved.setup() == {"virtualenv": True, "requirements": True}


@pytest.mark.needs("index")
@pytest.mark.parametrize("form", ["path", "name", "version"])
def test_env_python_picks_the_interpreter(clone: Clone, tmp_path: Path, form: str) -> None:
    clone.setup()
    named = tmp_path / "bin" / "python-for-flaskbook"
    named.parent.mkdir()
    named.symlink_to(BASE)
    value = {"path": str(named), "name": named.name, "version": f"'3.{sys.version_info[1]}'"}[form]
    (clone.root / "invoke.yaml").write_text(f"env:\n  python: {value}\n")
    path = f"{named.parent}{os.pathsep}{clone.environment['PATH']}"
    # From inside env/: its own interpreter must not be the one that deletes it.
    inside = clone.env / "bin" / "invoke"
    assert clone.setup(program=inside, PATH=path) == {"virtualenv": True, "requirements": True}
    assert clone.record["configured"] == value.strip("'")
    assert clone.setup(PATH=path) == {}


@pytest.mark.parametrize("value", ["3.99", "no-such-python", "/no/such/python", "too-old", "not-a-python"])
def test_an_env_python_that_does_not_serve_is_one_error_and_makes_nothing(
    clone: Clone, tmp_path: Path, value: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    answer = {"executable": "/old", "version": "3.8.1", "prefix": "/", "ensurepip": True}
    for name, text in (("too-old", f"echo '{json.dumps(answer)}'"), ("not-a-python", "exit 3")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{clone.environment['PATH']}"
    done = clone.run("setup", INVOKE_ENV_PYTHON=value, PATH=path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: finding a Python")
    assert value in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not clone.env.exists()


def test_a_directory_that_is_no_virtualenv_is_never_touched(clone: Clone) -> None:
    clone.env.mkdir()
    (clone.env / "thesis.txt").write_text("years of work")
    done = clone.run("setup")
    assert done.returncode == 1
    assert "is not a virtualenv" in done.stderr
    assert [path.name for path in clone.env.iterdir()] == ["thesis.txt"]


@pytest.mark.needs("index")
def test_a_virtualenv_made_by_hand_is_adopted(clone: Clone) -> None:
    subprocess.run([BASE, "-m", "venv", "--without-pip", clone.env], check=True)
    (clone.env / "mine").write_text("")
    assert clone.setup() == {"virtualenv": False, "requirements": True}
    assert (clone.env / "mine").exists()


@pytest.mark.parametrize("arguments", ["setup --dry-run", "-R setup", "-eR setup"])
def test_a_dry_run_without_env_says_what_would_be_made_and_makes_nothing(
    clone: Clone, arguments: str
) -> None:
    before = clone.tree()
    done = clone.run(*arguments.split())
    assert done.returncode == 0
    assert "virtualenv: would change" in done.stdout
    assert "requirements: would change" in done.stdout
    assert clone.tree() == before


def test_a_dry_run_without_env_leaves_no_compiled_modules(clone: Clone) -> None:
    clone.environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = clone.run("setup", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [str(path) for path in clone.root.rglob("__pycache__")] == []


@pytest.mark.needs("index")
@pytest.mark.parametrize("program", ["invoke", "env/bin/invoke"])
def test_a_dry_run_with_stale_requirements_reports_and_changes_nothing(clone: Clone, program: str) -> None:
    clone.setup()
    (clone.root / "requirements.txt").write_text(pinned("sortedcontainers"))
    if program == "env/bin/invoke":
        # It imports Invoke before anything of ours could say that this is a dry run.
        clone.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = clone.tree()
    done = clone.run("setup", "--dry-run", program=clone.root / program)
    assert done.returncode == 0, done.stderr
    steps = {name: (changed, why) for name, changed, why in json.loads(done.stdout)["steps"]}
    assert steps["virtualenv"][0] is False
    assert steps["requirements"] == (True, "requirements.txt changed")
    assert clone.tree() == before


def built(clone: Clone, name: str) -> bool:
    return {
        "record": (clone.env / ".provision.json").exists(),
        "python": (clone.env / "bin" / "python").exists(),
        "package": bool(list(clone.env.glob("lib/*/site-packages/invoke"))),
        "scripts": (clone.env / "bin" / "invoke").exists(),
    }[name]


@pytest.mark.needs("index")
@pytest.mark.parametrize("whole_group", [False, True], ids=["wrapper", "wrapper and uv"])
@pytest.mark.parametrize("point", ["record", "python", "package", "scripts"])
def test_a_kill_at_any_point_is_made_good_by_the_next_run(
    clone: Clone, point: str, whole_group: bool
) -> None:
    process = clone.start("setup")
    until(lambda: built(clone, point), point, process)
    os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
    process.communicate()
    clone.setup()
    assert clone.setup() == {}
    assert {"iniconfig", "invoke"} <= {path.name for path in clone.env.glob("lib/*/site-packages/*")}


@pytest.mark.needs("index")
def test_a_kill_while_requirements_change_is_made_good_by_the_next_run(
    clone: Clone, tmp_path: Path, uv: str
) -> None:
    clone.setup()
    (clone.root / "requirements.txt").write_text(pinned("sortedcontainers"))
    variables = fake_uv(tmp_path / "bin", uv, f"touch {tmp_path}/reached; exec sleep 60")
    process = clone.start("setup", **variables)
    until((tmp_path / "reached").exists, "the install", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert clone.record["state"] == "building"
    assert clone.setup() == {"virtualenv": True, "requirements": True}


@pytest.mark.needs("index")
def test_a_uv_that_outlives_a_killed_run_is_waited_for(clone: Clone, tmp_path: Path, uv: str) -> None:
    wait = f"touch {tmp_path}/reached; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    process = clone.start("setup", **fake_uv(tmp_path / "bin", uv, wait))
    until((tmp_path / "reached").exists, "the install", process)
    process.kill()
    process.communicate()
    second = clone.start("setup")
    assert second.stderr is not None
    assert "Waiting for process" in second.stderr.readline()
    (tmp_path / "go").touch()
    second.communicate(timeout=100)
    assert second.returncode == 0
    assert clone.setup() == {}


@pytest.mark.needs("index")
def test_two_at_once_both_succeed_and_one_builds(clone: Clone) -> None:
    processes = [clone.start("setup") for _ in range(2)]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("Making env/" in err for _, err in outputs) == 1


@pytest.mark.needs("index")
def test_one_that_waits_says_for_whom(clone: Clone) -> None:
    lock = clone.root / ".state" / "bootstrap.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        held.write(f"{os.getpid()}\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        process = clone.start("setup")
        assert process.stderr is not None
        assert f"Waiting for process {os.getpid()}" in process.stderr.readline()
    process.communicate(timeout=100)
    assert process.returncode == 0


@pytest.mark.needs("index")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_ends_its_children_and_leaves_nothing(
    clone: Clone, tmp_path: Path, uv: str, sent: signal.Signals, code: int
) -> None:
    variables = fake_uv(
        tmp_path / "bin", uv, f"echo $$ > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/child; exec sleep 60"
    )
    process = clone.start("setup", **variables)
    until((tmp_path / "child").exists, "the install", process)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)
    assert not clone.env.exists()


def test_an_unreachable_index_is_one_error_without_its_password(clone: Clone) -> None:
    index = "http://me:secret@127.0.0.1:9/simple"
    done = clone.run(
        "setup", PIP_INDEX_URL=index, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="", PIP_NO_CACHE_DIR="1"
    )
    assert done.returncode == 1
    assert "error: installing the requirements of env/" in done.stderr
    assert "package index is reachable" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not clone.env.exists()


@pytest.mark.needs("index")
def test_files_other_than_the_pinned_ones_are_refused(clone: Clone) -> None:
    lines = (clone.root / "requirements.txt").read_text().splitlines()
    (clone.root / "requirements.txt").write_text(f"{lines[0]}\n    --hash=sha256:{'0' * 64}\n")
    done = clone.run("setup")
    assert done.returncode == 1
    assert "hash" in done.stderr.lower()
    assert not clone.env.exists()


def test_a_place_that_cannot_be_written_is_one_error(clone: Clone) -> None:
    (clone.root / ".state").write_text("a file where a directory belongs")
    done = clone.run("setup")
    assert done.returncode == 1
    assert done.stderr.startswith("error: making the virtualenv env/")
    assert ".state" in done.stderr
    assert not clone.env.exists()


class Index(http.server.BaseHTTPRequestHandler):
    """A simple index of one directory of wheels that wants a password."""

    wheels: Path
    asked: list[str]
    index: http.server.ThreadingHTTPServer

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"me:secret").decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=index")
            self.end_headers()
            return
        self.asked.append(self.path)
        name = self.path.rstrip("/").split("/")[-1]
        if name.endswith(".whl"):
            body, kind = (self.wheels / name).read_bytes(), "application/octet-stream"
        else:
            found = [file.name for file in self.wheels.glob(f"{name}-*.whl")]
            body, kind = (
                "".join(f'<a href="/files/{file}">{file}</a>' for file in found).encode(),
                "text/html",
            )
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def private_index(clone: Clone, tmp_path: Path) -> Iterator[type[Index]]:
    files = [f"-r{clone.root / name}" for name in ("requirements.txt", "requirements-run.txt")]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp_path / "wheels", *files],
        check=True,
    )
    handler = type("Handler", (Index,), {"wheels": tmp_path / "wheels", "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.index = server
        threading.Thread(target=server.serve_forever, daemon=True).start()
        conf = Path(clone.environment["HOME"]) / ".config" / "pip" / "pip.conf"
        conf.parent.mkdir(parents=True)
        conf.write_text(f"[global]\nindex-url = http://me:secret@127.0.0.1:{server.server_port}/simple\n")
        yield handler
        server.shutdown()


@pytest.mark.needs("index")
def test_uv_installs_from_the_index_that_pip_is_configured_for(
    clone: Clone, tmp_path: Path, uv: str, private_index: type[Index]
) -> None:
    variables = fake_uv(tmp_path / "bin", uv, ":")
    environment = {k: v for k, v in clone.environment.items() if not k.startswith(("PIP_", "UV_"))}
    config = str(Path(environment["HOME"]) / ".config")
    Clone(clone.root, environment).setup(
        **variables, XDG_CONFIG_HOME=config, UV_CACHE_DIR=str(tmp_path / "uv")
    )
    assert str(clone.record["installer"]).startswith("uv ")
    assert any(path.endswith(".whl") for path in private_index.asked)


@pytest.mark.needs("index")
def test_a_fresh_clone_is_set_up_offline_from_warm_caches(
    clone: Clone, tmp_path: Path, uv: str, private_index: type[Index]
) -> None:
    variables = fake_uv(tmp_path / "bin", uv, ":")
    environment = {k: v for k, v in clone.environment.items() if not k.startswith(("PIP_", "UV_"))}
    variables["XDG_CONFIG_HOME"] = str(Path(environment["HOME"]) / ".config")
    variables["UV_CACHE_DIR"] = str(tmp_path / "uv")
    Clone(clone.root, environment).setup(**variables)
    fresh = Clone(tmp_path / "fresh", environment)
    shutil.copytree(clone.root, fresh.root, symlinks=True, ignore=shutil.ignore_patterns(".state"))
    shutil.rmtree(fresh.env)
    private_index.index.shutdown()
    private_index.index.server_close()
    done = fresh.run("setup", **variables)
    assert done.returncode == 0, done.stderr
    assert "trying again offline, with the packages in its cache" in done.stderr
    assert fresh.record["installer"] == f"{clone.record['installer']} offline"


@pytest.mark.needs("index")
def test_settings_of_projects_and_other_virtualenvs_do_not_lead_uv_astray(
    clone: Clone, tmp_path: Path
) -> None:
    (clone.root / "uv.toml").write_text('index-url = "http://127.0.0.1:9/simple"\n')
    other = tmp_path / "other"
    clone.setup(
        VIRTUAL_ENV=str(other),
        UV_PROJECT_ENVIRONMENT=str(other),
        UV_PYTHON="3.8",
        UV_EXCLUDE_NEWER="2001-01-01",
    )
    assert str(clone.record["installer"]).startswith("uv ")
    assert not other.exists()


@pytest.fixture(scope="module", params=["invoke>=2.2,<3", "invoke>=3"], ids=["Invoke 2", "Invoke 3"])
def foreign_invoke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Invoke that the user installed."""
    path = tmp_path_factory.mktemp("foreign") / "venv"
    # venv would compile the whole of pip.
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", "--python", BASE, path], check=True)
    install = ("install", "--quiet", "--disable-pip-version-check", "--no-compile")
    subprocess.run([path / "bin" / "python", "-m", "pip", *install, request.param], check=True)
    return path / "bin" / "invoke"


@pytest.mark.needs("index")
def test_a_users_invoke_lists_without_building_and_runs_in_env(clone: Clone, foreign_invoke: Path) -> None:
    for question in ("--list", "--help", "--version"):
        done = clone.run(question, program=foreign_invoke)
        assert done.returncode == 0, done.stderr
    assert not clone.env.exists()
    assert clone.setup(program=foreign_invoke, cwd=clone.root / "provision") == {
        "virtualenv": True,
        "requirements": True,
    }
    assert clone.setup(program=foreign_invoke) == {}


@pytest.mark.needs("index")
def test_another_projects_requirements_get_a_virtualenv_of_their_own(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "requirements.txt").write_text("-r base.txt\n")
    (app / "base.txt").write_text("iniconfig\n")

    def ensure() -> generations.Generation:
        needed = declared.find(app)
        assert needed is not None
        return generations.ensure(bootstrap.app_environment(tmp_path / "env", needed, tmp_path / "app.lock"))

    assert [step.changed for step in ensure().steps] == [True, True]
    assert [step.changed for step in ensure().steps] == [False, False]
    (app / "base.txt").write_text("sortedcontainers\n")
    made = ensure()
    assert [step.changed for step in made.steps] == [True, True]
    subprocess.run([made.interpreter, "-c", "import sortedcontainers"], check=True)
    gone = subprocess.run([made.interpreter, "-c", "import iniconfig"], capture_output=True, check=False)
    assert gone.returncode != 0
