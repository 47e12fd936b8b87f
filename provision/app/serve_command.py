"""Runs an app's own server, `app.command`. A script, started by `provision.app.launch`; never imported.

It runs in the tool's interpreter and needs the standard library alone. The command and what it starts are one session:
it ends as a whole, before it is started again because a file changed, and with this process and its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 4.0  # our parent waits five, and then ends us
_REST_SECONDS = 0.5  # for what the command has started, once it has ended itself
_WATCHED = frozenset(
    (
        ".py",
        ".html",
        ".htm",
        ".jinja",
        ".jinja2",
        ".j2",
        ".xml",
        ".toml",
        ".yaml",
        ".yml",
        ".cfg",
        ".ini",
        ".env",
    )
)
_WATCHED_NAMES = frozenset((".env", ".flaskenv"))
_SKIPPED = frozenset(("node_modules", "__pycache__"))
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Wait at the gate, run the command, and again after each change, until it ends or its parent does."""
    order = json.loads(os.environ.pop("PROVISION_SERVE"))
    over = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent says when the command ends
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    os.set_inheritable(order["report"], False)
    os.set_inheritable(order["gate"], False)
    with os.fdopen(order["gate"], "rb", buffering=0, closefd=False) as gate:
        line = gate.readline()
    if not line:  # it closed: there will be no database
        return 0
    threading.Thread(target=_end_with_parent, args=(order["gate"], over), daemon=True).start()
    environment = _environment(order, json.loads(line))
    again = False
    while not over.is_set():
        before = Files.now(order) if order["reload"] else None
        process = _start(order, environment)
        if process is None:
            return 127
        try:
            status = _follow(process, before, order, over)
        finally:
            _end(process)
        if status is not None:
            if status == 0 or not again or before is None:
                return status
            print(  # noqa: T201
                f"The app ended with status {status}. It is started again when a file changes.",
                file=sys.stderr,
                flush=True,
            )
            while not over.wait(_LOOK_SECONDS) and Files.now(order) == before:
                pass
        again = True
    return 0


def _environment(order: dict[str, Any], variables: dict[str, str | None]) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name not in variables}
    found |= {name: value for name, value in variables.items() if value is not None}
    found["PATH"] = os.pathsep.join(filter(None, (order["bin"], found.get("PATH", os.defpath))))
    found["VIRTUAL_ENV"] = str(Path(order["bin"]).parent)
    return found


def _start(order: dict[str, Any], environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
    try:
        process = subprocess.Popen(
            order["command"],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_this_process if sys.platform == "linux" else None,
        )
    except OSError as problem:
        line = f"{order['command'][0]} can't be run: {problem.strerror}."
        _report(order, {"line": line, "kind": "command", "names": [order["command"][0]]})
        return None
    _report(order, {"group": process.pid})
    return process


def _end_with_this_process() -> None:
    """https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html"""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _report(order: dict[str, Any], told: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(order["report"], json.dumps(told).encode() + b"\n")


def _follow(
    process: subprocess.Popen[bytes], before: Files | None, order: dict[str, Any], over: threading.Event
) -> int | None:
    """The command's status once it has ended by itself; None: a file has changed, or all is over."""
    look = time.monotonic() + _LOOK_SECONDS
    while not over.wait(_POLL_SECONDS):
        status = process.poll()
        if status is not None:
            return status if status >= 0 else 128 - status
        if before is None or time.monotonic() < look:
            continue
        began = time.monotonic()
        changed = Files.now(order).differ_from(before)
        # A large tree is looked at less often: a tenth of the time, at most.
        look = time.monotonic() + max(_LOOK_SECONDS, 9 * (time.monotonic() - began))
        if changed:
            print(f"{changed} changed: the app is started again.", file=sys.stderr, flush=True)  # noqa: T201
            return None
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and all that it has started."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
        deadline = time.monotonic() + _REST_SECONDS
        while _signal(process, 0) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Whether the command's group was there to be told."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_with_parent(gate: int, over: threading.Event) -> None:
    """A parent that was killed can't end its app: the gate's closing does."""
    while os.read(gate, 1):
        pass
    over.set()


class Files(dict[str, int]):
    """The files of an app that are watched, with the time of their last change in nanoseconds."""

    @classmethod
    def now(cls, order: dict[str, Any]) -> Files:
        """As they are now, below the current directory, without virtualenvs and what the order leaves out."""
        return cls(_watched(str(Path.cwd()), frozenset(order["skip"])))

    def differ_from(self, other: Files) -> str:
        """One that changed, came or went, as a path; empty if none did."""
        return next((path for path in {**other, **self} if self.get(path) != other.get(path)), "")


def _watched(folder: str, skipped: frozenset[str]) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                hidden = entry.name.startswith(".") or entry.name in _SKIPPED
                if not hidden and entry.path not in skipped:
                    yield from _watched(entry.path, skipped)
            elif os.path.splitext(entry.name)[1] in _WATCHED or entry.name in _WATCHED_NAMES:  # noqa: PTH122
                yield entry.path, entry.stat().st_mtime_ns
        except OSError:  # it went in between
            continue


if __name__ == "__main__":
    sys.exit(main())
