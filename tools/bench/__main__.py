"""`python -m bench [NAME...]`: the same as `invoke bench`, without Invoke's command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from provision.cli import display
from provision.core.errors import INTERRUPTED, USER_ERROR, ProvisionError
from provision.settings import loading
from tools import bench

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Parse, measure, show.

    Returns:
        The exit status: 0, also where a bound does not hold; 1 where something could not be measured; 130.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=(bench.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which figures (default: all)")
    parser.add_argument("--runs", type=int, default=bench.RUNS, help="measured pairs of each (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, for scripts")
    parser.add_argument("--list", action="store_true", help="say what there is to measure")
    parser.add_argument("--write", action="store_true", help="put the results into docs/benchmarks.md")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        if given.list:
            bench.show_list(given.names)
            return 0
        from invoke.config import Config

        loaded = loading.load(
            ROOT, loading.layers_of(Config(project_location=ROOT), ROOT), os.environ, remember=False
        )
        return bench.show(loaded, given.names, given.runs, given.json, given.write)
    except ProvisionError as error:
        if given.json:
            display.as_json(error.as_json())
        sys.stderr.write(f"{error}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
