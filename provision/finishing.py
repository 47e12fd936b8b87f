"""Finishes in the background what an `up` that returned early has left: adding members, waiting for their health.

The process inherits the lock of the deployment, so that nobody comes between it and the command that began.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

from provision.launch import isolated_module
from provision.settings import Loaded


def begin(loaded: Loaded, deployment: str, lock: int) -> None:
    """Start it; its output goes to the deployment's `up.log`.

    Args:
        loaded: the settings in force.
        deployment: which deployment.
        lock: descriptor that holds the deployment's lock.

    Raises:
        OSError: it can't be started.
    """
    with loaded.paths.finishing_log(deployment).open("wb") as log:
        child = subprocess.Popen(
            [*isolated_module("provision.finishing"), deployment],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=loaded.paths.root,
            start_new_session=True,
            pass_fds=(lock,),
        )
    with child.stdin as order:  # type: ignore[union-attr]
        order.write(pickle.dumps(loaded))


def main(deployment: str) -> int:
    """Bring the deployment up until it is healthy. The settings come on standard input.

    Returns:
        The exit status.
    """
    from provision import assembly, output
    from provision.display import clock
    from provision.errors import ProvisionError

    output.guard()
    loaded: Loaded = pickle.load(sys.stdin.buffer)  # noqa: S301 — from the command that started this process
    try:
        for notice in assembly.deployment(loaded, deployment).up(clock, clock, holding=True).notices:
            clock(notice)
    except ProvisionError as error:
        clock(error.text())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
