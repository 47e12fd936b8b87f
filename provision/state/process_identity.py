"""Which process it is: its pid, with what no other process that had this pid shares.

A pid is given away again, and the time at which a process began moves with every step of the clock (NTP, a virtual
machine that resumes). On Linux the boot's id and the start in clock ticks since that boot never move. Every record of
a process holds the three: of nodes, of test runs, of what serves the app. `hosts.units` does the same on other machines.

macOS keeps the moment of the start as it was, and psutil reads it.

Nothing here takes a process for dead that it can't see: a machine without /proc is an error, and a process that
exists and is hidden (``hidepid``) counts as alive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys" / "kernel" / "random" / "boot_id"
# The fields of /proc/PID/stat after the program's name, which may itself hold blanks and brackets: proc(5).
_STATE, _THREADS, _START_TICKS = 0, 17, 19
_ENDED = ("Z", "X")
# Where a moment stands for the ticks: in hundredths of a second, two seconds.
_SAME_MOMENT = 200
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.04
# What records held before they held ticks: seconds since 1970.
_SAME_SECOND = 0.05


@dataclass(frozen=True)
class ProcessIdentity:
    """One process."""

    pid: int  # its process id
    boot_id: str  # the boot of the machine that it belongs to; empty: the system does not tell
    # when it began, in clock ticks since that boot; on macOS in hundredths of a second since 1970
    start_ticks: int

    def as_record(self) -> dict[str, Any]:
        """For a record as JSON."""
        return asdict(self)


def require_processes(doing: str = "looking at which processes run") -> None:
    """Make sure that this machine shows its processes.

    Raises ProvisionError: it does not: nothing could be told to run, or not to.
    """
    if not _has_proc():
        return
    try:
        (_PROC / "self" / "stat").read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        cause = "/proc is not mounted" if missing else f"/proc can't be read: {error.strerror}"
        raise ProvisionError(
            doing,
            f"{cause}. Without it, a process that runs can't be told from one that has ended.",
            "mount -t proc proc /proc (as root), then type the command again.",
        ) from None


def identity_of(pid: int) -> ProcessIdentity | None:
    """The process that has a pid now; None: none has, or it is dead and not yet reaped.

    Raises ProvisionError: this machine does not show its processes.
    """
    if pid <= 0:  # to kill(2), these are groups of processes
        return None
    start_ticks = _started_by_proc(pid) if _has_proc() else _started_by_psutil(pid)
    return None if start_ticks is None else ProcessIdentity(pid, _boot_id(), start_ticks)


def this_process() -> ProcessIdentity:
    """The one that asks.

    Raises ProvisionError: this machine does not show its processes.
    """
    identity = identity_of(os.getpid())
    if identity is None:
        raise AssertionError("a process that runs has an identity")
    return identity


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; one that exists and can't be looked at counts as alive.

    Raises ProvisionError: this machine does not show its processes.
    """
    now = identity_of(identity.pid)
    if now is None:
        return _is_hidden(identity.pid)
    if identity.boot_id and now.boot_id and identity.boot_id != now.boot_id:
        return False
    return abs(identity.start_ticks - now.start_ticks) <= (0 if _has_proc() else _SAME_MOMENT)


def signalled(
    identities: Iterable[ProcessIdentity], timeout: float, *signals: signal.Signals
) -> list[ProcessIdentity]:
    """Send signals to processes, and wait for them to end. One that nobody has reaped has ended.

    Args:
        timeout: seconds to wait at most.
        signals: each is sent in turn, if the process still runs.

    Returns: Those that still run.
    Raises PermissionError: one is another user's.
    Raises ProvisionError: this machine does not show its processes.
    """
    left = list(identities)
    for identity in left:
        with contextlib.suppress(ProcessLookupError):
            for number in signals:
                if is_alive(identity):
                    os.kill(identity.pid, number)
    deadline, pause = time.monotonic() + timeout, _SHORTEST_PAUSE
    while (left := [each for each in left if is_alive(each)]) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return left


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a record names a process: by its identity, or by its start as earlier versions did."""
    return isinstance(record.get("pid"), int) and ("start_ticks" in record or "created" in record)


def recorded(record: Mapping[str, Any]) -> ProcessIdentity | None:
    """The process that a record names.

    Args:
        record: it has the fields of `ProcessIdentity`, or, from an earlier version, ``pid`` and ``created``. That
            moment moves with the clock, so such a record only serves while the clock stands.

    Returns: None: the record names none, or is of an earlier version and its process is gone.
    Raises ProvisionError: this machine does not show its processes.
    """
    try:
        if "start_ticks" in record:
            return ProcessIdentity(int(record["pid"]), str(record["boot_id"]), int(record["start_ticks"]))
        pid, created = int(record["pid"]), float(record["created"])
    except (KeyError, TypeError, ValueError):
        return None
    identity = identity_of(pid)
    return identity if identity is not None and _began(pid, created) else None


def is_recorded_alive(record: Mapping[str, Any]) -> bool:
    """Whether the process that a record names still runs.

    Raises ProvisionError: this machine does not show its processes.
    """
    identity = recorded(record)
    return identity is not None and is_alive(identity)


def is_stopped(pid: int) -> bool:
    """Whether a process is there, and is stopped by SIGSTOP.

    Raises ProvisionError: this machine does not show its processes.
    """
    if _has_proc():
        fields = _fields(pid)
        return fields is not None and fields[_STATE] == "T"
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False


def variable_of(pid: int, name: str) -> str | None:
    """What a variable was in a process's environment when it began.

    Returns: Empty: it has none of that name. None: that is not shown, as of another user's process, or of a zombie.
    Raises ProcessLookupError: no process has this pid.
    Raises ProvisionError: this machine does not show its processes.
    """
    if not _has_proc():
        return _variable_by_psutil(pid, name)
    try:
        shown = (_PROC / str(pid) / "environ").read_bytes()
    except PermissionError:
        return None
    except OSError:
        shown = b""
    if not shown:
        fields = _fields(pid)
        if fields is None:
            raise ProcessLookupError(pid)
        return None if fields[_STATE] in _ENDED else ""
    start = f"{name}=".encode()
    return next(
        (os.fsdecode(each[len(start) :]) for each in shown.split(b"\0") if each.startswith(start)), ""
    )


def _variable_by_psutil(pid: int, name: str) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.environ().get(name, ""))
    except psutil.NoSuchProcess:
        raise ProcessLookupError(pid) from None
    except (psutil.Error, OSError):
        return None


def _has_proc() -> bool:
    return sys.platform == "linux"


def _fields(pid: int) -> list[str] | None:
    """What /proc tells of a process after its program's name; None: no process has this pid."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        require_processes()
        return None
    return text.rpartition(")")[2].split()


def _boot_id() -> str:
    if not _has_proc():
        return ""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # a service that is shown /proc's processes alone
        return ""


def _started_by_proc(pid: int) -> int | None:
    fields = _fields(pid)
    if fields is None:
        return None
    # While other threads of it still end, a zombie has its ports and files: a large mongod for a tenth of a second.
    ended = fields[_STATE] in _ENDED and int(fields[_THREADS]) <= 1
    return None if ended else int(fields[_START_TICKS])


def _started_by_psutil(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.Error:
        return None


def _is_hidden(pid: int) -> bool:
    """Whether a process has this pid and is another user's, which a system may not show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not (_PROC / str(pid)).exists()
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _began(pid: int, created: float) -> bool:
    import psutil

    try:
        return abs(float(psutil.Process(pid).create_time()) - created) < _SAME_SECOND
    except psutil.Error:
        return False
