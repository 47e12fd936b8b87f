"""Several `invoke run` on one deployment: the last one that ends stops what one of them has started.

Each of them holds a shared lock, which the kernel drops with its process. A node that ends while an app runs on it is
named where the app's output is seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from provision.core.errors import ProvisionError
from provision.core.locks import exclusive, is_held
from provision.deployments.deployment import Deployment
from provision.settings.paths import Paths

_LOOK_SECONDS = 1.0
_LOOK_SECONDS_FAR = 5.0  # where each look is a command of Docker's, or a question over SSH


class Run:
    """This `run`, among others on the same deployment.

    `paths`: where locks and records are.
    `say`: shows one line.
    """

    def __init__(self, paths: Paths, deployment: str, say: Callable[[str], None]) -> None:
        self._paths = paths
        self._deployment = deployment
        self._say = say
        with self._one_at_a_time("starting"):
            self._descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def started(self, keep: bool) -> None:
        """Note that this one has started the deployment."""
        if not keep:
            self._paths.run_record(self._deployment).touch(mode=0o600)

    def ends(self, stop: Callable[[], object], keep: bool) -> None:
        """Have the deployment stopped, if one of the `run` has started it and this one is the last."""
        with self._one_at_a_time("stopping"):
            os.close(self._descriptor)
            record = self._paths.run_record(self._deployment)
            if not record.exists():
                return
            if self._others():
                self._say(f"{self._deployment} goes on: another `invoke run` uses it. The last one stops it.")
                return
            record.unlink()
            if not keep:
                stop()

    def _others(self) -> bool:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def _lock(self) -> Path:
        return self._paths.lock(f"run-{self._deployment}")

    def _one_at_a_time(self, doing: str) -> contextlib.AbstractContextManager[int]:
        return exclusive(
            self._paths.lock(f"runs-{self._deployment}"), f"{doing} a run of {self._deployment}", self._say
        )


@contextlib.contextmanager
def told_of_deaths(deployment: Deployment, say: Callable[[str], None]) -> Iterator[None]:
    """For the length of the block, say which nodes have ended, once each.

    `say` is called from a thread.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(deployment, say, ended), daemon=True, name="deaths").start()
    try:
        yield
    finally:
        ended.set()


def _watch(deployment: Deployment, say: Callable[[str], None], ended: threading.Event) -> None:
    backend, nodes = deployment.backend, deployment.topology.nodes
    seconds = _LOOK_SECONDS if backend.capabilities.quick_to_observe else _LOOK_SECONDS_FAR
    told: set[str] = set()
    lock = deployment.paths.lock(f"deployment-{deployment.name}")
    while not ended.wait(seconds):
        if is_held(lock):  # a command is at work on it, which may have ended them: a restart, a restore
            continue
        try:
            observed = backend.observe_all(nodes)
        except (ProvisionError, OSError):  # it can't be asked now, which says nothing of the nodes
            continue
        for node in nodes:
            found = observed[node.name]
            if found.running:
                told.discard(node.name)
            elif node.name not in told and not ended.is_set():
                told.add(node.name)
                status = found.exit_status
                how = (
                    "" if status is None else f" (signal {-status})" if status < 0 else f" (status {status})"
                )
                with contextlib.suppress(OSError):
                    say(
                        f"{node.name} of {deployment.name} has ended{how}. `invoke logs --on {deployment.name} "
                        f"--node {node.name}` says why, `invoke start --on {deployment.name}` starts it again."
                    )
