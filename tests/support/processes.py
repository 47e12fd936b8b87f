"""Processes that tests start: marked in their environment, so that none outlives its test or a killed run.

Every test run has a name that says which process it is (pid, boot, and start in ticks since the boot); the processes
it starts inherit it. The next run ends those of runs that are over. A test that starts processes gives them a mark of
its own too, and ends by it whatever is left.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import psutil

from provision.backends.processes import port_holder
from provision.mongodb.topology import LOOPBACK
from provision.state.process_identity import (
    ProcessIdentity,
    identity_of,
    is_alive,
    signalled,
    this_process,
    variable_of,
)

RUN = "FLASKBOOK_TEST_RUN_OF"
TEST = "FLASKBOOK_TEST"
_OF_A_WORKER = 1500
_SINGLES = 500
_GIVEN: deque[int] = deque(maxlen=_SINGLES // 2)
_BLOCKS: deque[range] = deque(maxlen=3)


def name_this_run() -> str:
    """Give this process, and all that it starts, the name of its run; keep the one that an outer run gave."""
    me = this_process()
    return os.environ.setdefault(RUN, f"{me.pid}:{me.boot_id}:{me.start_ticks}")


def marked(variable: str, accept: Callable[[str], bool]) -> list[psutil.Process]:
    """This user's running processes whose environment has the variable with a value that is accepted."""
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, ProcessLookupError):
            value = variable_of(pid, variable)
            if value and pid != os.getpid() and accept(value):
                found.append(psutil.Process(pid))
    return found


def end(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    found = [identity_of(process.pid) for process in processes]
    signalled([each for each in found if each is not None], 10, signal.SIGKILL)


def end_those_of_dead_runs() -> int:
    """End what a killed run left behind.

    Returns:
        How many processes.
    """
    leftovers = marked(RUN, lambda run: not _lives(run))
    end(leftovers)
    return len(leftovers)


def end_this_run() -> None:
    """End what this run has started and not ended: what an interrupted test left behind."""
    run = os.environ.pop(RUN)
    end(marked(RUN, lambda value: value == run))


def _lives(run: str) -> bool:
    try:
        pid, boot_id, start_ticks = run.split(":")
        return is_alive(ProcessIdentity(int(pid), boot_id, int(start_ticks)))
    except ValueError:
        return False


def describe(processes: list[psutil.Process]) -> list[str]:
    """Their command lines, for assertions."""
    lines = []
    for process in processes:
        with suppress(psutil.Error):
            lines.append(f"{process.pid}: {' '.join(process.cmdline())}")
    return lines


def listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A loopback port that nobody listens on, in a range of this worker's own.

    None is given again by this process before some hundred others were.
    """
    first = _first_port()
    for _ in range(200):
        port = random.randrange(first, first + _SINGLES)
        if port not in _GIVEN and port_holder(LOOPBACK, port) is None:
            _GIVEN.append(port)
            return port
    raise AssertionError(f"no free port between {first} and {first + _SINGLES}")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on, in a range of this worker's own.

    They are not those of the blocks before, as long as there is room: a fixture may have them still.
    """
    begin, end = _first_port() + _SINGLES, _first_port() + _OF_A_WORKER
    for attempt in range(200):
        first = random.randrange(begin, end - count + 1)
        overlaps = any(first < block.stop and block.start < first + count for block in _BLOCKS)
        wanted = (port for base in range(first, first + count, 50) for port in range(base, base + 23))
        if (attempt > 100 or not overlaps) and all(port_holder(LOOPBACK, port) is None for port in wanted):
            _BLOCKS.append(range(first, first + count))
            return first
    raise AssertionError(f"no {count} free ports from {begin} on")


def ports_of_this_worker() -> range:
    """All ports that tests in this process may use."""
    return range(_first_port(), _first_port() + _OF_A_WORKER)


def _first_port() -> int:
    """Each worker of a run has ports of its own, so that none takes a port that another has just been given.

    They lie below those that the system hands to outgoing connections.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 20000 + _OF_A_WORKER * (int(worker) % 8 if worker.isdigit() else 0)
