"""Clones that are started at the same moment on the same ports: exactly one may win.

``python -m tests.support.racing --backend processes --rounds 50 --clones 2,4,8`` runs as many rounds as you like and
prints a line for each; `tests/native/test_same_port.py` and `tests/docker/test_same_port.py` run a few.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tests.support.clones import Clone, make_clone
from tests.support.processes import free_port

# What an error says of a port that somebody else has.
HOLDS = ("is held by", "holds port")


@dataclass(frozen=True)
class Round:
    """One start of all clones at once.

    Args:
        statuses: their exit statuses, by clone.
        said: what each of them printed.
        found: the documents that the winner's database holds: names of the clones that wrote there.
        seconds: until all had ended.
    """

    statuses: tuple[int, ...]
    said: tuple[str, ...]
    found: tuple[str, ...]
    seconds: float

    @property
    def winners(self) -> list[int]:
        return [number for number, status in enumerate(self.statuses) if status == 0]

    @property
    def faults(self) -> list[str]:
        """What was wrong; empty: nothing."""
        wrong = []
        if len(self.winners) != 1:
            wrong.append(f"{len(self.winners)} clones succeeded")
        for number, status in enumerate(self.statuses):
            text = self.said[number]
            if status not in (0, 1) or "Traceback" in text:
                wrong.append(f"clone {number} ended with {status}:\n{text}")
            elif status == 1 and not any(words in text for words in HOLDS):
                wrong.append(f"clone {number} does not say who holds the port:\n{text}")
        expected = tuple(str(number) for number in self.winners)
        if self.found != expected:
            wrong.append(f"the winner's database has the documents of {self.found}, and {expected} won")
        return wrong


def race(clones: Sequence[Clone], start: Sequence[str], uri: str) -> Round:
    """Start all clones at once. Each that succeeds writes a document that names it, as its app would.

    Args:
        clones: set up, and stopped.
        start: the task that starts them.
        uri: where a clone that succeeded would write.
    """
    begun = time.monotonic()
    running = [clone.begin(*start) for clone in clones]
    statuses = tuple(each.ends() for each in running)
    seconds = time.monotonic() - begun
    found: list[str] = []
    winners = [number for number, status in enumerate(statuses) if status == 0]
    if winners:
        client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=20_000)
        with closing(client):
            people = client["racing"]["people"]
            for number in winners:
                people.insert_one({"clone": str(number)})
            found = sorted(str(each["clone"]) for each in people.find())
            client.drop_database("racing")
    return Round(statuses, tuple(each.text for each in running), tuple(found), seconds)


def processes(folder: Path, count: int, mongod: str | None) -> list[Clone]:
    """Clones whose `local` has the same port, set up."""
    port = free_port()
    clones = []
    for number in range(count):
        (folder / str(number)).mkdir()
        clone = make_clone(folder / str(number) / "clone", mongod)
        clone.port = port
        clone.environment["INVOKE_DEPLOYMENTS_LOCAL_PORT"] = str(port)
        clone.succeeds("setup")
        clones.append(clone)
    return clones


def containers(folder: Path, count: int, mongod: str | None, image: str) -> list[Clone]:
    """Clones whose `local` is a container of the same name and port, set up."""
    clones = processes(folder, count, mongod)
    for clone in clones:
        clone.environment["INVOKE_DEPLOYMENTS_LOCAL_BACKEND"] = "docker"
        clone.environment["INVOKE_MONGODB_IMAGE"] = image
        clone.environment["INVOKE_DEPLOYMENTS_LOCAL_AUTH"] = "false"  # the winner writes without a password
    return clones


def rounds(clones: Sequence[Clone], count: int, tell: Callable[[Round], None]) -> None:
    """Run some rounds; after each, the winner is stopped."""
    uri = f"mongodb://127.0.0.1:{clones[0].port}/?directConnection=true"
    for _ in range(count):
        done = race(clones, ("start",), uri)
        tell(done)
        for number in done.winners:
            clones[number].succeeds("cluster.down", "--on", "local", "--delete-data", "--yes")


def close(clones: Sequence[Clone]) -> None:
    """Take down what a failed round has left, and delete the clones' data."""
    for clone in clones:
        clone.invoke("cluster.down", "--on", "local", "--delete-data", "--yes")
        clone.close()


def main() -> int:
    """Run the rounds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("processes", "docker"), default="processes")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clones", default="2,4,8")
    parser.add_argument("--mongod", default=None)
    parser.add_argument("--image", default="mongo:8.0")
    chosen = parser.parse_args()
    failed = 0
    for count in map(int, chosen.clones.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="racing-"))
        clones: list[Clone] = []
        faults: list[str] = []
        times: list[float] = []

        def tell(done: Round, faults: list[str] = faults, times: list[float] = times) -> None:
            faults += done.faults
            times.append(done.seconds)
            sys.stdout.write(f"{done.seconds:6.2f} s  winners {done.winners}  {done.faults or 'ok'}\n")
            sys.stdout.flush()

        try:
            if chosen.backend == "docker":
                clones = containers(folder, count, chosen.mongod, chosen.image)
            else:
                clones = processes(folder, count, chosen.mongod)
            rounds(clones, chosen.rounds, tell)
        finally:
            close(clones)
            shutil.rmtree(folder, ignore_errors=True)
        failed += len(faults)
        median = sorted(times)[len(times) // 2] if times else 0.0
        sys.stdout.write(
            f"{chosen.backend}, {count} clones, {len(times)} rounds: {len(faults)} faults, median {median:.2f} s\n"
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
