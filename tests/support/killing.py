"""Saves and restores that kill themselves before one of their steps, and the marks that tell whose data are there.

A step is whatever changes a file, a record, a volume or a node. Run as a program, this module is where they run: it has
all imported, and forks a process for each.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.core import copying
from provision.data import snapshots
from provision.deployments import assembly, held_writes
from provision.deployments.deployment import Deployment
from provision.mongodb.topology import Node
from provision.settings.loading import Layer, load
from tests.support.polling import until
from tests.support.snapshots import client

ROOT = Path(__file__).resolve().parents[2]


def points(steps: int, wanted: int) -> list[int]:
    """As many as are wanted, the first and the last included."""
    return sorted({1 + round(n * (steps - 1) / (wanted - 1)) for n in range(wanted)})


def wanted(usual: int) -> int:
    """At how many steps of each command to kill it; all tests do it at twenty where SNAPSHOT_KILLS=20 asks for that."""
    return int(os.environ.get("SNAPSHOT_KILLS", usual))


@dataclass
class Killer:
    """Runs commands on a deployment, by name of a snapshot, each in a process of its own."""

    process: subprocess.Popen[str]

    def killed(self, command: str, snapshot: str, step: int = 0) -> int:
        """Run ``save`` or ``restore``; kill it before one of its steps; 0: never.

        One may take fewer steps than the one before it: mongod has fewer files, or ends sooner.

        Returns: How many steps it took, if it was not killed; 0: it was.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, snapshot, step]) + "\n")
        self.process.stdin.flush()
        status, steps, said = json.loads(self.process.stdout.readline())
        if status == -signal.SIGKILL:
            assert step
            return 0
        assert status == 0, said
        assert not 0 < step <= steps, "it was to be killed"
        return int(steps)


@contextlib.contextmanager
def killer(root: Path, values: Mapping[str, Any], name: str) -> Iterator[Killer]:
    """For one deployment of a project with these settings."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.killing", str(root), json.dumps(values), name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        try:
            yield Killer(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _bearing(deployment: Deployment) -> Iterator[tuple[list[Node], Node]]:
    """Each set's members with data, and the one that takes its writes."""
    topology = deployment.topology
    for each in topology.all_sets:
        members = [node for node in each.members if not node.arbiter]
        primary = until(f"a primary of {each.name}", lambda nodes=members: deployment.primary(nodes))  # type: ignore[misc]
        assert primary is not None
        yield members, primary
    for node in topology.standalones:
        yield [node], node


def mark(deployment: Deployment, text: str) -> None:
    """Say in each set, that of the config servers included, which data these are."""
    update = {"q": {"_id": 1}, "u": {"_id": 1, "text": text}, "upsert": True}
    for _, primary in _bearing(deployment):
        with deployment.dial(primary) as connection:
            done = connection.command(
                "admin", {"update": "mark", "updates": [update], "writeConcern": {"w": "majority"}}
            )
            assert done["n"] == 1, done


def marks(deployment: Deployment) -> set[str]:
    """What the members say, all of them; a member may be behind for a moment, so asked until each set is at one."""
    return {
        until(
            f"one mark on {members[0].replica_set}",
            lambda nodes=members: _agreed(deployment, nodes),  # type: ignore[misc]
        )
        for members, _ in _bearing(deployment)
    }


def _agreed(deployment: Deployment, members: list[Node]) -> str:
    found = set()
    for member in members:
        with client(deployment, member) as opened:
            document = opened.admin.mark.find_one() or {}
            found.add(str(document.get("text", "none")))
    return found.pop() if len(found) == 1 else ""


def _serve(deployment: Callable[[], Deployment]) -> None:
    for line in sys.stdin:
        command, snapshot, step = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.close(reading)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            _run(deployment(), command, snapshot, step, writing)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        steps = int(said) if code == 0 else 0
        print(json.dumps([code, steps, said]), flush=True)


def _run(deployment: Deployment, command: str, snapshot: str, last: int, writing: int) -> None:
    counter = itertools.count(1)  # several threads take steps

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if next(counter) == last:
                os.killpg(0, signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, step)

    code = 1
    try:
        for name in ("rename", "mkdir", "replace", "unlink"):
            counted(Path, name)
        for name in ("sync", "copy_file"):
            counted(copying, name)
        for name in ("hold", "unlock"):
            counted(held_writes, name)
        for name in ("launch", "terminate", "_spawn", "_run_on_volumes"):
            if hasattr(type(deployment.backend), name):
                counted(type(deployment.backend), name)
        counted(shutil, "rmtree")
        if command == "save":
            snapshots.save(deployment, snapshot)
        else:
            found = snapshots.find(deployment, snapshot)
            assert found is not None
            snapshots.restore(deployment, found)
        os.write(writing, str(next(counter) - 1).encode())
        code = 0
    except BaseException:
        os.write(writing, traceback.format_exc().encode())
    os._exit(code)


if __name__ == "__main__":
    loaded = load(Path(sys.argv[1]), [Layer("the tests", json.loads(sys.argv[2]))], {}, remember=False)
    _serve(lambda: assembly.deployment(loaded, sys.argv[3]))
