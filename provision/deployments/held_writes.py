"""Writes held on several nodes at once, for as long as a copy takes.

`fsync` with a lock belongs to no connection: a mongod stays locked when its client is gone. So a process of its own
waits at a pipe, which ends with the command, however that ends, and unlocks. It holds the deployment's lock on: the next
command comes after it. Were it killed as well, a record says what is locked, and the next command unlocks.

Follows https://www.mongodb.com/docs/manual/reference/command/fsync/
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.mongodb.credentials import Credentials
from provision.mongodb.wire import CommandFailed, Connection, NotReachable, Server

LOCK_SECONDS = 10.0
_TRIES = 3
_RELEASE_SECONDS = 20.0
_POLL_SECONDS = 0.05
_READY = b"ready\n"
_WATCH = "import sys; sys.path.insert(0, sys.argv[1]); from provision.deployments.held_writes import watch; watch()"


@dataclass(frozen=True)
class Target:
    """A node whose writes are held, or the router whose balancer is stopped."""

    host: str
    port: int
    user: Credentials | None  # who to be there
    router: bool = False

    def dial(self) -> Connection:
        """Connect to it. Raises NotReachable, CommandFailed."""
        return Connection(self.host, self.port, LOCK_SECONDS, self.user)

    def as_json(self) -> dict[str, Any]:
        """For the pipe: it has the password."""
        who = [self.user.username, self.user.password, self.user.source] if self.user else None
        return {"host": self.host, "port": self.port, "router": self.router, "user": who}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Target:
        """What `as_json` gave."""
        user = Credentials(*value["user"]) if value["user"] else None
        return cls(value["host"], value["port"], user, value["router"])


@contextlib.contextmanager
def watched(targets: Sequence[Target], lock: int) -> Iterator[None]:
    """Have a process release the targets if this one ends within the block, however.

    `lock`: descriptor of the deployment's lock, which that process holds on.
    Raises OSError: it can't be started.
    """
    package = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _WATCH, package],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),
    ) as watcher:
        assert watcher.stdin is not None and watcher.stdout is not None  # noqa: S101 — pipes
        try:
            watcher.stdin.write(json.dumps([target.as_json() for target in targets]).encode() + b"\n")
            watcher.stdin.flush()
            if watcher.stdout.readline() != _READY:
                raise ProvisionError(
                    "taking a snapshot",
                    "The process that watches over the locks has not begun.",
                    "Type the same again.",
                )
            yield
            watcher.stdin.write(b"done\n")
        finally:
            watcher.stdin.close()  # without `done`, it releases


def watch() -> None:
    """The other process: see `watched`."""
    targets = [Target.of(value) for value in json.loads(sys.stdin.buffer.readline())]
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    if sys.stdin.buffer.readline() != b"done\n":
        release(targets)


def hold(connections: Mapping[str, Server]) -> None:
    """Hold the writes of all nodes at once; all or none.

    A transaction over several shards may wait on one of them for another one that is locked. Then all are let go, and
    it is tried again.

    `connections`: node name → a connection to it, which nothing else uses.
    Raises ProvisionError: one can't be locked, in three tries.
    """
    refusals: dict[str, str] = {}
    for _ in range(_TRIES):
        refusals = {}
        pool = ThreadPoolExecutor(max_workers=len(connections))
        try:
            futures = {
                pool.submit(each.command, "admin", {"fsync": 1, "lock": True}, 600): name
                for name, each in connections.items()
            }
            _, slow = wait(futures, LOCK_SECONDS)
            if not slow and all(future.exception() is None for future in futures):
                return
            # Those that are locked let go what the others wait for; then these are locked, and let go as well.
            for future, name in futures.items():
                if future not in slow and future.exception() is None:
                    unlock(connections[name])
            for future in slow:
                name = futures[future]
                refusals[name] = f"it waited for a transaction for {LOCK_SECONDS:.0f} s"
                if future.exception() is None:
                    unlock(connections[name])
            refusals |= {
                name: str(error) for future, name in futures.items() if (error := future.exception())
            }
        finally:
            pool.shutdown(wait=True)
    raise ProvisionError(
        "holding writes for a snapshot",
        "\n".join(f"{name}: {why}." for name, why in refusals.items()),
        "Let long transactions end, then type the same again.",
    )


def unlock(connection: Server) -> None:
    """Let a node write again. Raises NotReachable, CommandFailed."""
    connection.command("admin", {"fsyncUnlock": 1}, 60)


def release(targets: Sequence[Target]) -> list[str]:
    """Let go whatever of the targets is held; one that has ended holds nothing.

    Returns: Addresses of those that still may be held, because they did not answer in time.
    """
    deadline = time.monotonic() + _RELEASE_SECONDS
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        done = list(pool.map(lambda target: _release(target, deadline), targets))
    return [f"{target.host}:{target.port}" for target, each in zip(targets, done, strict=True) if not each]


def _release(target: Target, deadline: float) -> bool:
    while time.monotonic() < deadline:
        try:
            with target.dial() as connection:
                if target.router:
                    connection.command("admin", {"balancerStart": 1}, 60)
                    return True
                if _let_go(connection):
                    return True
        except NotReachable as error:
            if isinstance(error.__cause__, ConnectionRefusedError):
                return True  # it has ended
        except CommandFailed as refusal:
            if target.router and refusal.code_name == "CommandNotFound":
                return True
        time.sleep(_POLL_SECONDS)
    return False


def _let_go(connection: Connection) -> bool:
    """Unlock until it is not locked, and no lock is on its way."""
    while True:
        found = connection.command("admin", {"currentOp": 1, "command.fsync": 1})
        if not found.get("fsyncLock"):
            return not found["inprog"]
        unlock(connection)
