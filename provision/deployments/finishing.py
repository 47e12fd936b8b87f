"""Finishes in the background what an `up` that returned early has left: adding members, waiting for their health.

`cluster.wait` does it, as it would for a person. It inherits the lock of the deployment, so that nobody comes between
it and the command that began.
"""

from __future__ import annotations

import os
import subprocess

from provision.env.wrapper import own_command
from provision.settings.loading import Loaded

_HELD = "PROVISION_HOLDS_LOCK"


def begin(loaded: Loaded, deployment: str, lock: int) -> None:
    """Start `cluster.wait`; its output goes to the deployment's `up.log`.

    `lock`: descriptor that holds the deployment's lock.
    Raises OSError: it can't be started.
    """
    root = loaded.paths.root
    with loaded.paths.finishing_log(deployment).open("wb") as log:
        subprocess.Popen(
            [*own_command(str(root)), "cluster.wait", "--on", deployment],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=root,
            env={**os.environ, _HELD: deployment},
            start_new_session=True,
            pass_fds=(lock,),
        )


def holds_lock(deployment: str) -> bool:
    """Whether this process has inherited the lock of a deployment."""
    return os.environ.get(_HELD) == deployment
