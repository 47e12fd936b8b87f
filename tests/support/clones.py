"""Copies of this repository, to run its tasks in as a person would: from a shell, in a directory of their own."""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import importlib.util
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import yaml

from provision.cli.result import as_text
from provision.cli.session import Session
from provision.core.steps import Silent, StepResult, run_steps
from provision.deployments import assembly, setup_steps
from provision.deployments.deployment import Deployment
from provision.env import bootstrap
from provision.settings.layers import read_layers
from provision.settings.loading import load
from provision.state import remembered
from tests.support import processes
from tests.support.polling import until

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 90
_LEFT_OUT = ("tests", "docs", "tools", ".github", ".ci")
# Folders whose files clones share: to make a file takes ten times as long as to link it.
_SHARED = ("provision", "flaskbook", "templates")


@dataclass
class Running:
    """A command that runs, in a process group of its own, as in a terminal.

    Args:
        process: it.
        output: what it prints on standard output and standard error, together.
    """

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str) -> str:
        """Wait until it has printed something.

        Returns:
            All that it has printed.
        """

        def ask() -> bool:
            return text in self.text or self.process.poll() is not None

        until(f"{text!r} to be printed", ask, detail=lambda: self.text)
        assert text in self.text, f"it ended with {self.process.returncode} and printed:\n{self.text}"
        return self.text

    def signal_group(self, number: signal.Signals) -> None:
        """What a terminal does at Ctrl-C (SIGINT) or when it is closed (SIGHUP)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def ends(self) -> int:
        """Wait until it has ended.

        Returns:
            Its exit status; negative for a signal.
        """
        try:
            return self.process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended; it printed:\n{self.text}") from None


@dataclass
class Clone:
    """A copy of the repository.

    Args:
        root: its top folder.
        home: the home directory of the person who works in it.
        port: of the deployment `local`.
        app_port: of the app.
        environment: what every command in it gets.
        prefix: what every command in it is written behind.
    """

    root: Path
    home: Path
    port: int
    app_port: int
    environment: dict[str, str]
    prefix: tuple[str, ...] = ()
    _started: list[Running] = field(default_factory=list)

    def owns_the_tool(self) -> None:
        """Give it the files that clones share for itself, for a test that changes them."""
        for shared in filter(Path.is_dir, (self.root / name for name in (*_SHARED, "env"))):
            copied(shared, shared.with_name("own"))
            shutil.rmtree(shared)
            shared.with_name("own").rename(shared)

    @property
    def python(self) -> Path:
        """The interpreter of its env/."""
        return self.root / "env" / "bin" / "python"

    @property
    def command(self) -> list[str]:
        """What a person types."""
        return [*self.prefix, str(self.root / "invoke")]

    @property
    def data(self) -> Path:
        return self.root / "data" / "local" / "mongod"

    @property
    def log(self) -> Path:
        return self.root / "log" / "local" / "mongod.log"

    @property
    def record(self) -> Path:
        """Where the tool notes which process is its mongod."""
        return self.root / ".state" / "deployments" / "local" / "mongod.json"

    def env(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of a command; None takes a variable away."""
        merged = {**self.environment, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def invoke(
        self, *arguments: str, env: Mapping[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a task to its end.

        Args:
            arguments: as after `./invoke`.
            env: changes to the environment.
        """
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.root,
            env=self.env(env),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if "--json" in arguments and done.stdout:
            from tools import schemas

            task = next(word for word in arguments if word in schemas.adapters())
            assert schemas.differences(task, done.stdout) == ""
        return done

    def succeeds(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> str:
        """Run a task that must succeed.

        Returns:
            Its standard output.
        """
        done = self.invoke(*arguments, env=env)
        assert done.returncode == 0, (
            f"invoke {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def fails(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> str:
        """Run a task that must fail with an error of the user's kind: status 1, three parts, no traceback.

        Returns:
            Its standard error.
        """
        done = self.invoke(*arguments, env=env)
        said = done.stdout + done.stderr
        assert done.returncode == 1, f"invoke {' '.join(arguments)}: {done.returncode}\n{said}"
        assert "Traceback" not in said, said
        assert done.stderr.count("error: ") == 1, said
        assert "  why:  " in done.stderr, said
        assert "  next: " in done.stderr, said
        return done.stderr

    def begin(
        self,
        *arguments: str,
        env: Mapping[str, str | None] | None = None,
        command: list[str] | None = None,
    ) -> Running:
        """Start a task and don't wait for it."""
        output = self.root.parent / f"output-{len(self._started)}"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [*(command or self.command), *arguments],
                cwd=self.root,
                env=self.env(env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(process, output)
        self._started.append(running)
        return running

    def status(self, env: Mapping[str, str | None] | None = None, on: str = "local") -> dict[str, Any]:
        """What `invoke status --json` says, without a command: to begin one takes longer than to answer."""
        from tools import schemas

        text = as_text(self.deployment(on, env).status())
        assert schemas.differences("status", text) == ""
        found: dict[str, Any] = json.loads(text)
        return found

    def deployment(self, name: str, env: Mapping[str, str | None] | None = None) -> Deployment:
        """One of its deployments as a command would have it: to ask it takes a fraction of a command's time."""
        environment = self.env(env)
        layers = read_layers(self.root, environment)
        held = remembered.flags(self.root)
        loaded = load(self.root, layers, environment, remember=False, remembered=held)
        return assembly.deployment(loaded, name)

    def set_up(self, env: Mapping[str, str | None] | None = None) -> list[StepResult]:
        """What `invoke setup` does, without a command, for a test that is about what comes after.

        Returns:
            What became of each step.
        """
        with self._session(env) as session:
            return run_steps(setup_steps.steps(session.load()), Silent())

    def start(self, env: Mapping[str, str | None] | None = None) -> str:
        """What `invoke start` does, without a command, for a test that is about what comes after.

        Returns:
            The connection string.
        """
        with self._session(env) as session:
            return session.ready("local").up().uri

    def stop(self, env: Mapping[str, str | None] | None = None) -> tuple[str, ...]:
        """What `invoke stop` does, without a command.

        Returns:
            Names of the nodes that were stopped.
        """
        with self._session(env) as session:
            return session.deployment("local").down()

    @contextlib.contextmanager
    def _session(self, env: Mapping[str, str | None] | None) -> Iterator[Session]:
        """A command's, with its environment: what is started within the block carries the clone's mark."""
        with (
            mock.patch.dict(os.environ, self.env(env), clear=True),
            mock.patch.object(bootstrap, "ROOT", self.root),
        ):
            yield Session(self.root, quiet=True)

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=rs0"

    def pid(self) -> int:
        """The pid of its mongod, by `status`."""
        pid = self.status()["nodes"][0]["pid"]
        assert isinstance(pid, int)
        return pid

    def mongods(self) -> list[psutil.Process]:
        """Every mongod that was started from here and runs."""
        return [each for each in self.processes() if _runs_mongod(each)]

    def processes(self) -> list[psutil.Process]:
        """Every process that was started from here and runs."""
        mark = self.environment[processes.TEST]
        return processes.marked(processes.TEST, lambda value: value == mark)

    def change_settings(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change invoke.yaml."""
        path = self.root / "invoke.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(values)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")

    def get(self, path: str = "/", port: int | None = None) -> tuple[int, str]:
        """Ask the app.

        Returns:
            Status and body; status 0 where it does not answer, or ends in the middle of its answer.
        """
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            try:
                answer = opener.open(f"http://127.0.0.1:{port or self.app_port}{path}", timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""

    def close(self) -> None:
        """End what still runs and delete what is large."""
        processes.end(self.processes())
        for running in self._started:
            running.process.wait()
        if changed := [path.name for path, state in _linked().items() if _state(path) != state]:
            _pattern.cache_clear()
            _linked.cache_clear()
            raise AssertionError(
                f"{changed}: all clones share them; call owns_the_tool before you change them"
            )
        for large in ("data", "env", ".state/app-envs"):
            shutil.rmtree(self.root / large, ignore_errors=True)


@contextlib.contextmanager
def cloned(
    folder: Path, mongod: str | None, deployments: Mapping[str, dict[str, Any]] | None = None
) -> Iterator[Clone]:
    """A clone with an env/, until the block ends; see `make_clone`.

    Args:
        folder: existing folder for the clone and its person's home.
        deployments: those that its invoke.yaml has besides `local`.
    """
    made = make_clone(folder / "clone", mongod)
    try:
        if deployments:
            made.change_settings(lambda settings: settings["deployments"].update(deployments))
        yield made
    finally:
        made.close()


def make_clone(root: Path, mongod: str | None, with_env: bool = True) -> Clone:
    """Copy this repository's files: what git tracks and what is new and not ignored.

    Args:
        root: where to; its parent is there.
        mongod: the mongod that the clone is to use; None leaves that to the tool.
        with_env: give it an env/, with the packages of the one the tests run in.
    """
    _linked()  # as they are before any test
    copied(_pattern() / "copied", root)
    _link(_pattern() / "linked", root)
    home = root.parent / "home"
    home.mkdir()
    if with_env:
        lend_env(root, shared=True)
    port, app_port = processes.free_port(), processes.free_port()
    return Clone(root, home, port, app_port, make_environment(home, port, app_port, mongod))


@functools.cache
def _pattern() -> Path:
    """What clones are copied from, made once for each worker: to gather its files takes four times as long as to copy it."""
    folder = Path(tempfile.mkdtemp(prefix="flaskbook-pattern-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in _files():
        target = folder / ("linked" if name.split("/")[0] in _SHARED else "copied") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # being renamed by an editor
            shutil.copy2(ROOT / name, target)
            if target.suffix == ".py":
                # To compile takes longer than most commands. Valid in all clones: their files are as old.
                py_compile.compile(str(target), importlib.util.cache_from_source(folder / "linked" / name))
    lender, env = Path(sys.prefix), folder / "env"
    (env / "bin").mkdir(parents=True)
    shutil.copy2(lender / "pyvenv.cfg", env / "pyvenv.cfg")
    for script in (lender / "bin").iterdir():
        shutil.copy2(script, env / "bin" / script.name, follow_symlinks=False)
    (env / "lib").symlink_to(lender / "lib")
    return folder


def copied(source: Path, target: Path) -> None:
    """Copy a directory with all that its files have: times, owners, links."""
    subprocess.run(["cp", "-a", source, target], check=True)


def _link(source: Path, target: Path) -> None:
    """Have the files of a directory in another one without copying them."""
    target.mkdir(exist_ok=True)
    same = source.stat().st_dev == target.stat().st_dev
    subprocess.run(["cp", "-al" if same else "-a", f"{source}/.", target], check=True)


@functools.cache
def _linked() -> dict[Path, tuple[int, int]]:
    """The files that clones share, with their time and owner."""
    folders = [_pattern() / "linked" / name for name in _SHARED] + [_pattern() / "env"]
    return {
        path: _state(path)
        for folder in folders
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and not path.is_dir()
    }


def _state(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_mtime_ns, found.st_uid


@functools.cache
def tracked_files() -> tuple[str, ...]:
    """The files of the repository that git tracks, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(name for name in listed.split("\0") if name and os.path.lexists(ROOT / name))


@functools.cache
def _files() -> tuple[str, ...]:
    return tuple(
        name
        for name in tracked_files()
        if name.split("/")[0] not in _LEFT_OUT and not (ROOT / name).is_symlink()
    )


def lend_env(root: Path, shared: bool = False) -> None:
    """Make env/ with the packages of the virtualenv that the tests run in.

    It has a record of its own; the packages are shared, by a link. Nothing a clone does with it installs anything,
    because its record says that it is current.

    Args:
        shared: other files, too, are those of all clones.
    """
    from provision.env import virtualenv
    from provision.env.bootstrap import project_environment
    from provision.env.groups import GROUPS, RUN

    (_link if shared else copied)(_pattern() / "env", root / "env")
    spec = replace(
        project_environment(root), requirements=tuple(root / name for name in (*RUN, *GROUPS.values()))
    )
    python = _lent_python()
    found = spec.interpreter.stat()
    record = {
        "schema": virtualenv.SCHEMA,
        "state": "complete",
        "path": str(spec.path),
        "configured": spec.python,
        "python": {"version": python.version, "executable": python.executable, "prefix": python.prefix},
        "interpreter": [found.st_size, found.st_mtime_ns],
        "requirements": virtualenv.requirement_digests(spec),
        "packages": sorted(virtualenv.requirement_names(spec)),
        "installer": "uv",
    }
    (spec.path / virtualenv.RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@functools.cache
def _lent_python() -> Any:
    from provision.env import virtualenv

    python = virtualenv.probe(str(_pattern() / "env" / "bin" / "python"))
    assert isinstance(python, virtualenv.Interpreter), python
    return python


def make_environment(home: Path, port: int, app_port: int, mongod: str | None) -> dict[str, str]:
    """This process's environment, with another home and none of what an outer `invoke` or pytest has set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INVOKE_", "PYTEST_", "FLASK_", "MONGO", "WERKZEUG_", "PROVISION_"))
        and name not in ("SECRET_KEY", "SECRET_KEY_FILE", "VIRTUAL_ENV", "PYTHONPATH", "COV_CORE_SOURCE")
    }
    real = Path.home()
    # Package caches and a mirror's address stay those of the person who runs the tests.
    kept.setdefault("XDG_CACHE_HOME", str(real / ".cache"))
    # Settings are not: of their configuration, only what pip and uv read.
    config = Path(kept.get("XDG_CONFIG_HOME") or real / ".config")
    for name in ("pip", "uv"):
        if (config / name).is_dir():
            (home / ".config").mkdir(exist_ok=True)
            (home / ".config" / name).symlink_to(config / name)
    kept["XDG_CONFIG_HOME"] = str(home / ".config")
    kept["XDG_STATE_HOME"] = str(home / ".local" / "state")  # which environments there are
    chosen = {"INVOKE_MONGODB_SOURCE": "path", "INVOKE_MONGODB_PATH": mongod} if mongod else {}
    return {
        **kept,
        **chosen,
        processes.TEST: uuid.uuid4().hex,
        "HOME": str(home),
        "INVOKE_DEPLOYMENTS_LOCAL_PORT": str(port),
        "INVOKE_APP_PORT": str(app_port),
    }


def _runs_mongod(process: psutil.Process) -> bool:
    try:
        return process.name() == "mongod" or Path(process.exe()).name == "mongod"
    except psutil.Error:
        return False
