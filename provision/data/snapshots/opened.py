"""A set's data, opened by a mongod that belongs to no set: on a port of its own, for as long as something is rewritten."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from provision.backends.folders import OpenedFolder
from provision.backends.registry import in_containers, in_folders
from provision.core.errors import ProvisionError
from provision.deployments.deployment import Deployment
from provision.mongodb.topology import LOOPBACK
from provision.mongodb.wire import CommandFailed, Connection, NotReachable

_START_SECONDS = 60.0
_END_SECONDS = 60.0
_POLL_SECONDS = 0.02


class Opened:
    """A set's data in a folder.

    Args:
        folder: what the set's folder is in; the log is written beside that.
        name: the set's folder.
        target: whose program, or image, and key file are used.
        doing: what errors say was being done.
    """

    def __init__(self, folder: Path, name: str, target: Deployment, doing: str) -> None:
        self._folder = folder
        self._name = name
        self._log = folder / f"{name}.log"
        self._secrets = target.secrets()
        backend = in_containers(target.backend) or in_folders(target.backend)
        if backend is None:
            raise AssertionError("only data here or in volumes are cloned")
        self._opening = backend.open_folder
        self._doing = doing

    @contextlib.contextmanager
    def running(self, parameters: Sequence[str]) -> Iterator[Connection]:
        """A connection to it. It ends in order with the block, and with this process in any case.

        Raises ProvisionError: it does not start, refuses a command, or does not end in order.
        """
        options = (
            *("--logappend", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"),
            *(part for parameter in parameters for part in ("--setParameter", parameter)),
        )
        started = self._opening(self._folder, self._name, options)
        try:
            with self._connected(started) as connection:
                yield connection
            started.end()
            if started.process.wait(_END_SECONDS) != 0:
                raise self._failed(
                    f"The mongod that rewrites them ended with status {started.process.returncode}."
                )
        except (CommandFailed, NotReachable) as problem:
            raise self._failed(f"{str(problem).rstrip('.')}.") from None
        except subprocess.TimeoutExpired:
            raise self._failed("The mongod that rewrites them does not end.") from None
        finally:
            started.remove()

    def _connected(self, started: OpenedFolder) -> Connection:
        deadline = time.monotonic() + _START_SECONDS
        port: int | None = None
        while started.process.poll() is None and time.monotonic() < deadline:
            port = port or started.port()
            try:
                if port is not None:
                    return Connection(LOOPBACK, port, _START_SECONDS, self._secrets.system if self._secrets else None)
            except (NotReachable, CommandFailed):
                pass
            time.sleep(_POLL_SECONDS)
        raise self._failed("The mongod that rewrites them does not start.")

    def _failed(self, cause: str) -> ProvisionError:
        from provision.mongodb.logs import why_it_died

        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.is_file() else []
        return ProvisionError(
            self._doing, f"{cause} Nothing was changed.", "Type the same again.", why_it_died(lines[-400:])
        )
