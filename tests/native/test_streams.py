"""Every task, started at every state, with standard streams that fail it: its work is done or undone, nothing is left.

The table says how each task is started and what becomes of it. A task that starts or stops something meets every
condition at every state. Any other meets each condition at some state and each state under some condition; with
FLASKBOOK_ALL_STREAMS set in the environment, all of them (some ten minutes).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.clones import ROOT, Clone, cloned, lend_env
from tests.support.polling import until
from tests.support.streams import ASCII, CONDITIONS, FULL, LATIN_1, PIPE, TERMINAL, locale, streams

pytestmark = pytest.mark.timeout(600)

NEW, SET_UP, HALF_STARTED, RUNNING = "nothing set up", "set up", "half-started", "running"
STATES = (NEW, SET_UP, HALF_STARTED, RUNNING)
ON = ("--on", "local")


AS_BEFORE = (0, 0, 1, 1)


@dataclass(frozen=True)
class Started:
    """How a task is started, and what becomes of it.

    Args:
        arguments: after its name.
        statuses: its exit status at each of STATES, where its output can be written.
        left: how many mongods run afterwards, at each of STATES.
        prints: it does nothing but print, so that its status is also that of its output.
        silent: states at which it has nothing to print.
        serves: it goes on until Ctrl-C.
        disturbs: states after which the clone is in another one.
        becomes: another program takes its place, whose status is its own.
        environment: variables that it is given besides.
    """

    arguments: tuple[str, ...] = ()
    statuses: tuple[int, int, int, int] = (0, 0, 0, 0)
    left: tuple[int, int, int, int] = AS_BEFORE
    prints: bool = False
    silent: tuple[str, ...] = ()
    serves: bool = False
    disturbs: tuple[str, ...] = ()
    becomes: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def calm(self) -> bool:
        """Whether it can run beside others like it: it starts, stops and removes nothing."""
        return self.left == AS_BEFORE and not self.disturbs and not self.serves

    def status(self, state: str, condition: str) -> int | None:
        """The exit status that is right; None: any."""
        if self.becomes:
            return None
        status = self.statuses[STATES.index(state)]
        if status != 0 or not self.prints or state in self.silent:
            return status
        return {PIPE: 128 + signal.SIGPIPE, TERMINAL: 128 + signal.SIGPIPE, FULL: 1}.get(condition, 0)


UP, DOWN = (1, 1, 1, 1), (0, 0, 0, 0)
# What starts something brings the clone from these states into another; what stops something, from those.
STARTS, STOPS = (NEW, SET_UP, HALF_STARTED), (NEW, HALF_STARTED, RUNNING)
REFUSED = (1, 1, 1, 1)
NEEDS_PRIMARY = (1, 1, 1, 0)
TABLE = {
    "init": Started(statuses=REFUSED),
    "setup": Started(disturbs=(NEW,)),
    "settings": Started(prints=True),
    "render": Started(prints=True),
    "start": Started(left=UP, disturbs=STARTS),
    "stop": Started(left=DOWN, disturbs=STOPS),
    "restart": Started(left=UP, disturbs=STARTS),
    "status": Started(prints=True),
    "logs": Started(prints=True, silent=(NEW, SET_UP)),
    "uri": Started(prints=True),
    "run": Started(statuses=(130, 130, 130, 130), serves=True, disturbs=STARTS),
    "tunnel": Started(ON, REFUSED),
    "shell": Started(("--python", "--eval", "db.user.insert_one({'name': 'Ångström'})"), NEEDS_PRIMARY),
    "tour": Started(statuses=NEEDS_PRIMARY),
    "seed": Started(("--users", "3"), NEEDS_PRIMARY),
    "reset": Started(("--yes",), NEEDS_PRIMARY),
    # A folder that is there: what one state has dumped, the next must not meet.
    "dump": Started(("/dev/null",), REFUSED),
    "load": Started(("/nowhere",), REFUSED),
    "pull": Started(("--collections", "user"), REFUSED),
    "doctor": Started(prints=True),
    "eject": Started(("provision",), REFUSED),
    "ps": Started(prints=True),
    "clean": Started(("--yes",), (0, 0, 1, 1), disturbs=(NEW, SET_UP)),
    "test": Started(("--workers", "1", "--args=--version"), becomes=True),
    "bench": Started(("--list",)),
    # Without a browser: with one it takes its pictures on deployments of its own, for half a minute.
    "screenshots": Started(statuses=REFUSED, environment={"PATH": "/nowhere"}),
    "clone": Started(("--from", "/nowhere", "--yes"), REFUSED),
    "snapshot.save": Started(statuses=NEEDS_PRIMARY),
    "snapshot.list": Started(("--json",), prints=True),
    "snapshot.restore": Started(("none", "--yes"), REFUSED),
    "snapshot.delete": Started(("none", "--yes"), REFUSED),
    "cluster.up": Started(ON, left=UP, disturbs=STARTS),
    "cluster.wait": Started(ON, (1, 1, 0, 0), disturbs=(HALF_STARTED,)),
    "cluster.down": Started(ON, left=DOWN, disturbs=STOPS),
    "cluster.status": Started(ON, prints=True),
    "cluster.distribution": Started(ON, REFUSED, prints=True),
    "cluster.shard-collection": Started(("flaskbook.user", "--key", "_id", *ON), REFUSED),
    "cluster.add-shard": Started(ON, REFUSED),
    "cluster.remove-shard": Started(("shard1", "--yes", *ON), REFUSED),
    "cluster.remove-router": Started(("router-1", *ON), REFUSED),
    "cluster.start": Started(("mongod", *ON), left=UP, disturbs=STARTS),
    "cluster.stop": Started(("mongod", *ON), left=DOWN, disturbs=STOPS),
    "cluster.restart": Started(("mongod", *ON), left=UP, disturbs=STARTS),
    "cluster.upgrade": Started(ON, REFUSED),
    "cluster.kill": Started(("mongod", *ON), left=DOWN, disturbs=STOPS),
    "cluster.pause": Started(("mongod", *ON), (1, 1, 0, 0), disturbs=STOPS),
    "cluster.resume": Started(("mongod", *ON), (1, 1, 0, 0)),
    "cluster.isolate": Started(("mongod", *ON), REFUSED),
    "cluster.heal": Started(ON, REFUSED),
    "cluster.stepdown": Started(("rs0", *ON), REFUSED),
    "cluster.logs": Started(("mongod", *ON), prints=True, silent=(NEW, SET_UP)),
    "cluster.shell": Started(("--python", "--eval", "db.name", *ON), NEEDS_PRIMARY),
    "hosts.check": Started(ON, REFUSED, prints=True),
    "hosts.setup": Started(ON, REFUSED),
    "hosts.plan": Started(("local",), prints=True),
    "hosts.deploy": Started(("local",), REFUSED),
    "hosts.undeploy": Started(("local",), REFUSED),
    "hosts.rotate-certificates": Started(("local",), REFUSED),
    "hosts.move": Started(("mongod", "--to", "elsewhere", *ON), REFUSED),
    "hosts.drain": Started(("elsewhere", *ON), REFUSED),
    "hosts.spread": Started(ON, REFUSED),
}
# What these would leave behind if printing stopped them: every condition, at the states where they stop something.
STOPPING = ("run", "stop", "cluster.down")
ALL = "FLASKBOOK_ALL_STREAMS" in os.environ


def chosen(state: str, condition: str) -> list[str]:
    """The tasks to be started at a state under a condition: all of them come at every state."""
    place = STATES.index(state)
    by_turns = [
        name
        for number, name in enumerate(TABLE)
        if CONDITIONS[(number + place) % len(CONDITIONS)] == condition or ALL
    ]
    broken = condition not in (ASCII, LATIN_1)
    stopping = STOPPING if broken and state == RUNNING else ("run",) if broken and state == SET_UP else ()
    return [*by_turns, *(name for name in stopping if name not in by_turns)]


class Lab:
    """A clone that is brought into a state before a task, as often as tasks leave it in another.

    Args:
        clone: it.
        folder: existing folder for copies of its state.
    """

    def __init__(self, clone: Clone, folder: Path) -> None:
        self.clone = clone
        self._set_up = folder / "set-up"
        self._folder = folder
        self._state = ""

    def reach(self, state: str) -> None:
        """Bring the clone into a state."""
        if state == self._state != NEW:
            return
        clone = self.clone
        self._state = ""
        processes.end(clone.processes())
        for name in (".state", "data", "log", "mongod.conf"):
            _remove(clone.root / name)
        if not clone.python.exists():
            _remove(clone.root / "env")
            lend_env(clone.root)
        if state != NEW:
            self._set_clone_up()
        if state == HALF_STARTED:
            # As a `start` leaves it that is killed at the wrong moment: mongod runs, and its set is not initiated.
            clone.succeeds("cluster.start", "mongod", "--on", "local")
            assert clone.deployment("local").status().nodes[0].state == "STARTUP"
        if state == RUNNING:
            clone.succeeds("start")
        self._state = state

    def forget(self) -> None:
        """It is in no known state: the next task must not suffer from what this one did wrong."""
        self._state = ""

    def _set_clone_up(self) -> None:
        root = self.clone.root
        if not self._set_up.exists():
            self.clone.succeeds("setup")
            self._set_up.mkdir()
            for name in (".state", "data", "log"):
                shutil.copytree(root / name, self._set_up / name)
            shutil.copy2(root / "mongod.conf", self._set_up)
            return
        shutil.copytree(self._set_up, root, dirs_exist_ok=True)

    def run(self, name: str, condition: str) -> tuple[int, str]:
        """Start a task under a condition, and end it by Ctrl-C when it serves.

        Returns:
            Its exit status, and what it could print.
        """
        started = TABLE[name]
        sink = self._folder / f"output of {name}"
        if self._state in started.disturbs:
            self._state = ""
        with streams(condition, sink) as found:
            process = subprocess.Popen(
                [*found.prefix, *self.clone.command, name, *started.arguments],
                cwd=self.clone.root,
                env=self.clone.env({**locale(condition), **started.environment}),
                stdin=found.input,
                stdout=found.output,
                stderr=found.output,
                start_new_session=True,
            )
        if started.serves:
            until("the app to answer", lambda: process.poll() is not None or self.clone.get()[0] == 200)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        status = process.wait(90)
        said = sink.read_text(encoding="latin-1") if sink.exists() else ""
        sink.unlink(missing_ok=True)
        return status, said


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("streams")
    with cloned(folder, str(mongod_binary)) as clone:
        for name in ("tools", "tests/hosts", "tests/support"):  # what `bench` imports
            shutil.copytree(ROOT / name, clone.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        yield Lab(clone, folder)


def test_the_table_says_of_every_task_how_it_is_started(lab: Lab) -> None:
    listing = json.loads(lab.clone.succeeds("--list", "--list-format", "json"))
    names = [each["name"] for each in listing["tasks"]]
    for collection in listing["collections"]:
        names += [f"{collection['name']}.{each['name']}" for each in collection["tasks"]]
    assert sorted(TABLE) == sorted(names)


def test_every_task_is_started_at_every_state_and_under_every_condition_somewhere() -> None:
    cells = {(name, state): 0 for name in TABLE for state in STATES}
    for state in STATES:
        for condition in CONDITIONS:
            for name in chosen(state, condition):
                cells[name, state] += 1
    assert [cell for cell, count in cells.items() if count == 0] == []


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("state", STATES)
def test_every_task_does_its_work_whatever_becomes_of_its_output(
    lab: Lab, state: str, condition: str
) -> None:
    names = chosen(state, condition)
    place = STATES.index(state)
    wrong = []

    def judge(name: str, status: int, said: str) -> None:
        right = TABLE[name].status(state, condition)
        if right is not None and status != right:
            wrong.append(f"{name}: ended with {status}, not with {right}\n{said}")
        for word in ("Traceback", "UnicodeEncodeError", "bug in the tool"):
            if word in said:
                wrong.append(f"{name}: {said}")

    lab.reach(state)
    before = {each.pid for each in lab.clone.processes()}
    calm = [name for name in names if TABLE[name].calm]
    with ThreadPoolExecutor(max_workers=3) as pool:
        for name, (status, said) in zip(
            calm, pool.map(lambda name: lab.run(name, condition), calm), strict=True
        ):
            judge(name, status, said)
    left = lab.clone.processes()
    assert {each.pid for each in left} == before, f"one of {calm} left or ended {processes.describe(left)}"
    for name in names:
        if name not in calm:
            lab.reach(state)
            faults = len(wrong)
            judge(name, *lab.run(name, condition))
            mongods, left = lab.clone.mongods(), lab.clone.processes()
            if len(mongods) != TABLE[name].left[place] or len(left) != len(mongods):
                wrong.append(f"{name}: left {processes.describe(left)}")
            if len(wrong) > faults:
                lab.forget()
    assert not wrong, "\n\n".join(wrong)
