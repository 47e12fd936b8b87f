"""Finishes in the background what an `up` that returned early has left: adding members, waiting for their health.

The process inherits the lock of the deployment, so that nobody comes between it and the command that began.
"""

from __future__ import annotations

import datetime
import pickle
import subprocess
import sys

from provision.env.wrapper import isolated_module
from provision.settings.loading import Loaded


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
            [*isolated_module("provision.deployments.finishing"), deployment],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=loaded.paths.root,
            start_new_session=True,
            pass_fds=(lock,),
        )
    with child.stdin as order:  # type: ignore[union-attr]
        order.write(pickle.dumps(loaded))


def _log(text: str) -> None:
    """One line with the time of day."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
    print(f"{now}  {text}", flush=True)  # noqa: T201


def main(deployment: str) -> int:
    """Bring the deployment up until it is healthy. The settings come on standard input.

    Returns:
        The exit status.
    """
    from provision.core import output
    from provision.core.errors import ProvisionError
    from provision.deployments import assembly

    output.guard()
    loaded: Loaded = pickle.load(sys.stdin.buffer)  # noqa: S301 — from the command that started this process
    try:
        for notice in (
            assembly.deployment(loaded, deployment)
            .up(_log, lambda event: _log(event.text), holding=True)
            .notices
        ):
            _log(notice)
    except ProvisionError as error:
        _log(error.text())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
