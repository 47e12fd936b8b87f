"""Standard streams as they are when something about them is wrong."""

from __future__ import annotations

import contextlib
import functools
import os
import pty
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLOSED, FULL, TERMINAL, PIPE, ASCII, LATIN_1 = "closed", "full", "terminal", "pipe", "ascii", "latin-1"
CONDITIONS = (CLOSED, FULL, TERMINAL, PIPE, ASCII, LATIN_1)


@dataclass(frozen=True)
class Streams:
    """Standard streams for a command.

    Args:
        input: descriptor of its standard input; None: this process's.
        output: descriptor of what it prints to; None: likewise.
        prefix: what comes before the command.
    """

    input: int | None
    output: int | None
    prefix: tuple[str, ...] = ()


@contextlib.contextmanager
def streams(condition: str, sink: Path) -> Iterator[Streams]:
    """Standard streams in a condition.

    Args:
        condition: ``closed``: there is none of the three. ``full``: a device that is full. ``terminal``: one that was
            closed, of which the command is told by its writes alone. ``pipe``: one whose reader has gone.
            Otherwise: what is printed goes to a file.
        sink: that file.
    """
    with contextlib.ExitStack() as opened:

        def keep(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        if condition == CLOSED:
            yield Streams(None, None, ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
        elif condition == TERMINAL:
            master, slave = pty.openpty()
            os.close(master)
            yield Streams(keep(slave), slave)
        else:
            if condition == FULL:
                output = os.open("/dev/full", os.O_WRONLY)
            elif condition == PIPE:
                reader, output = os.pipe()
                os.close(reader)
            else:
                output = os.open(sink, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            keep(output)
            yield Streams(keep(os.open(os.devnull, os.O_RDONLY)), output)


def locale(condition: str) -> dict[str, str]:
    """The variables of a locale that has few characters."""
    if condition == ASCII:
        return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    if condition == LATIN_1:
        return {**_latin_1(), "PYTHONIOENCODING": "iso-8859-1"}
    return {}


@functools.cache
def _latin_1() -> dict[str, str]:
    """A German locale in ISO 8859-1, made here; where `localedef` lacks, Python's own encoding must do."""
    folder = Path(tempfile.gettempdir(), f"flaskbook-locale-{os.getuid()}")
    name = "de_DE.ISO-8859-1"
    if not (folder / name).is_dir():
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            subprocess.run(
                ["localedef", "-c", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / name)],
                capture_output=True,
                check=False,
            )
    if not (folder / name).is_dir():
        return {}
    return {"LOCPATH": str(folder), "LC_ALL": name, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
