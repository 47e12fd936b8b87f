"""Finishes in the background what an `up` that returned early has left: adding members, waiting for their health.

The process inherits the lock of the deployment, so that nobody comes between it and the command that began.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

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
    tool = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    with loaded.paths.finishing_log(deployment).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "provision.finishing", deployment],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=loaded.paths.root,
            env={**os.environ, "PYTHONPATH": f"{tool}{os.pathsep}{inherited}" if inherited else tool},
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
