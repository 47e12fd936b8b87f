"""The test suite's command line. Which tests need what of the machine is the suite's own business (tests/)."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from provision.core.errors import ProvisionError, did_you_mean

PARTS = ("unit", "native", "docker", "hosts", "browser")


def command(root: Path, require: str, only: str, workers: int, arguments: str, reruns: int = 0) -> list[str]:
    """pytest's command line. Pure, but for which parts of the suite are there.

    Args:
        require: comma-separated capabilities whose absence is a failure; empty: none.
        only: comma-separated parts of the suite; empty: all.
        workers: processes to run the tests in; 0: two for each processor, because tests wait more than they compute.
        arguments: more arguments for pytest, as typed in a shell.
        reruns: how often a test that fails is run again. Its first failure is shown, and counted as rerun.

    Raises:
        ProvisionError: there is no such part.
    """
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    for part in wanted:
        if part not in PARTS:
            raise ProvisionError(
                "choosing the tests to run",
                f"There is no part {part!r} of the test suite.",
                f"Name some of {', '.join(PARTS)}{did_you_mean(part, PARTS)}.",
            )
    return [
        sys.executable,
        "-m",
        "pytest",
        # The tests of a file that share what it has started stay in one worker (tests/support/distribution.py).
        *("-n", str(workers or 2 * (os.cpu_count() or 1)), "--dist", "loadfile"),
        *("--durations", "10", "--durations-min", "0.1"),
        *(("--reruns", str(reruns), "--rerun-show-tracebacks") if reruns else ()),
        *(("--require", require) if require else ()),
        *shlex.split(arguments),
        *(f"tests/{part}" for part in wanted if (root / "tests" / part).is_dir()),
    ]


def run(root: Path, command: list[str]) -> NoReturn:
    """Become pytest: its exit status, its last line and its handling of Ctrl-C are the task's."""
    os.chdir(root)
    sys.stdout.flush()
    # pytest's workers are started without the flags of their parent. What they import is compiled once: env/ was made
    # without bytecode.
    left_out = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    os.execve(command[0], command, kept)
