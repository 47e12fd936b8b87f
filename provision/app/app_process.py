"""The app's process: started behind a gate that opens when the database is up, and ended with what it started."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.settings.schema import AppSettings
from provision.state.process_identity import this_process

FACTORY_SCRIPT = Path(__file__).with_name("serve.py")
COMMAND_SCRIPT = Path(__file__).with_name("serve_command.py")
_STOP_SECONDS = 5.0
_REPORT_BYTES = 65536


def name_of(settings: AppSettings) -> str:
    """What messages call the app: its command, or its factory."""
    return shlex.join(_filled_in(settings)) if settings.command else settings.factory


def command_of(settings: AppSettings, python: Path) -> list[str]:
    """`app.command` with its placeholders filled in; ``python`` is the interpreter of the app's virtualenv."""
    words = _filled_in(settings)
    return [str(python), *words[1:]] if words[0] in ("python", "python3") else words


def _filled_in(settings: AppSettings) -> list[str]:
    return [
        word.replace("{port}", str(settings.port)).replace("{host}", settings.host)
        for word in settings.command or ()
    ]


class AppProcess:
    """One run of the app's process.

    `python`: interpreter with the app's packages.
    `skip`: directories in which no change of a file starts a command again.
    """

    def __init__(
        self,
        python: Path,
        directory: Path,
        settings: AppSettings,
        listener: socket.socket,
        reloaded: bool,
        skip: Sequence[Path] = (),
    ) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            reader, self._gate = _pipe(theirs, ours)
            self._reports, report = _pipe(ours, theirs)
            os.set_blocking(self._reports, False)
            order: dict[str, Any] = {
                "reload": settings.reload,
                "gate": reader,
                "report": report,
                # For `doctor`, which finds the app by this order: whose it is.
                "owner": this_process().as_record(),
            }
            passed: tuple[int, ...] = (reader, report)
            if settings.command:
                order |= {
                    "command": command_of(settings, python),
                    "bin": str(python.parent),
                    "skip": [str(each) for each in skip],
                }
                program = [sys.executable, "-I", str(COMMAND_SCRIPT)]
            else:
                order |= {
                    "factory": settings.factory,
                    "host": settings.host,
                    "port": settings.port,
                    "debug": settings.debug,
                    "socket": listener.fileno(),
                    "reloaded": reloaded,
                }
                passed = (*passed, listener.fileno())
                program = [str(python), str(FACTORY_SCRIPT)]
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("INVOKE_")}
            self.process = subprocess.Popen(
                program,
                cwd=directory,
                env={**inherited, "PROVISION_SERVE": json.dumps(order)},
                pass_fds=passed,
                # A signal for our process group must not end a command's runner before the command.
                start_new_session=bool(settings.command),
            )
            self._ours = ours.pop_all()

    _text = b""

    def let_in(self, variables: Mapping[str, str | None]) -> None:
        """Open the gate, and hand the app its environment through it: no process listing shows that."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, json.dumps(variables).encode() + b"\n")

    def reason(self) -> dict[str, Any] | None:
        """What stopped it, as `provision.app.loading` and `serve_command.py` tell it; None: they told nothing."""
        return next((each for each in reversed(self._told()) if "line" in each), None)

    def end(self) -> None:
        """End it, if it has not ended, and what a command has started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.returncode < 0:  # it could not end the command itself
            groups = [each["group"] for each in self._told() if "group" in each]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                for group in groups[-1:]:
                    os.killpg(group, signal.SIGKILL)
        self._ours.close()

    def _told(self) -> list[dict[str, Any]]:
        """All that it has reported; it has ended."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reports, _REPORT_BYTES):
                self._text += part
        lines = self._text.splitlines()
        return [json.loads(line) for line in lines if line.endswith(b"}")]


def _pipe(reads: contextlib.ExitStack, writes: contextlib.ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    reads.callback(os.close, reader)
    writes.callback(os.close, writer)
    return reader, writer
