"""A clock that steps, for some processes of this machine; the machine's own clock is left alone.

    python -m tests.support.stepping_clock -- COMMAND [ARGUMENT ...]

runs a command under a clock that steps by a second and by an hour, forth and back, once a second. In a mount namespace
of its own, a file lies over /proc/stat whose boot time moves with the steps, as the kernel's does: psutil computes
from it when a process began. A small library (`stepping_clock.c`, by LD_PRELOAD) moves the time that programs are told;
libfaketime does not serve, because under it `time.sleep` of Python 3.11 fails.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

OFFSETS = (1, 0, -1, 0, 3600, 0, -3600, 0)
"""Seconds by which the clock is off, one after the other."""
_STEP_SECONDS = 1.0
_STAT = Path("/proc/stat")
_SOURCE = Path(__file__).with_name("stepping_clock.c")
_UNDER = 'mount --bind "$1" /proc/stat && shift && exec "$@"'


class SteppingClock:
    """A clock.

    Args:
        folder: existing folder, for the library and for what it shares with the processes.
    """

    def __init__(self, folder: Path) -> None:
        self._library = folder / "stepping_clock.so"
        self._offset, self._stat = folder / "offset", folder / "stat"
        self._offset.write_bytes(bytes(8))
        self._stat.touch()
        build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl", "-lpthread"]
        subprocess.run(build, check=True, capture_output=True, text=True)
        self.step_to(0)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is written behind to run under this clock."""
        return (
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-euc", _UNDER, "sh", str(self._stat)),
            *("env", f"LD_PRELOAD={self._library}", f"STEPPING_CLOCK_FILE={self._offset}"),
        )

    def step_to(self, offset: int) -> None:
        """Set the clock, for all that run under it.

        Args:
            offset: seconds by which it is ahead of the machine's.
        """
        moved = re.sub(
            rb"^btime (\d+)$",
            lambda found: b"btime %d" % (int(found.group(1)) + offset),
            _STAT.read_bytes(),
            flags=re.MULTILINE,
        )
        # In place: what is mounted is this file, whatever gets its name. Readers never see half of it.
        with self._stat.open("r+b", buffering=0) as file:
            file.write(moved)
            file.truncate(len(moved))
        with self._offset.open("r+b", buffering=0) as file:
            file.write(offset.to_bytes(8, sys.byteorder, signed=True))

    @contextlib.contextmanager
    def stepping(self, seconds: float = _STEP_SECONDS) -> Iterator[None]:
        """Step once every so many seconds, as long as the block runs."""
        over = threading.Event()

        def step() -> None:
            count = 0
            while not over.wait(seconds):
                self.step_to(OFFSETS[count % len(OFFSETS)])
                count += 1

        thread = threading.Thread(target=step)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def run(command: Sequence[str]) -> int:
    """Run a command under a stepping clock.

    Returns:
        Its exit status, as a shell has it.
    """
    with tempfile.TemporaryDirectory(prefix="flaskbook-clock-") as folder:
        clock = SteppingClock(Path(folder))
        with clock.stepping(), subprocess.Popen([*clock.prefix, *command]) as process:

            def forward(number: int, _frame: FrameType | None) -> None:
                process.send_signal(number)

            signal.signal(signal.SIGTERM, forward)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command, too
            status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["--"]:
        given = given[1:]
    if not given:
        sys.exit("usage: python -m tests.support.stepping_clock -- COMMAND [ARGUMENT ...]")
    sys.exit(run(given))
