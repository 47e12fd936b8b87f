"""A shell in a pseudo-terminal, and somebody who types into it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from provision.core.errors import ProvisionError

COLUMNS, _LINES = 100, 50
_PATIENCE_SECONDS = 300
# The shell says where a prompt begins, with the status of the last command, as terminals know it (OSC 133).
_ENDED = re.compile(rb"\x1b\]133;D;(\d+)\x07")
_QUESTION = b"[y/N] "
_PROMPT = r"\[\e[1;32m\]\w\[\e[0m\]$ "


class Shell:
    """Bash, of COLUMNS columns; `shown` is what it has written."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.shown = b""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            told = {"PS1": _PROMPT, "PROMPT_COMMAND": r"printf '\033]133;D;%s\007' $?"}
            shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
            os.execvpe("bash", shell, {**environment, **told})
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, COLUMNS, 0, 0))
        self._until_prompt([])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGHUP)
        os.close(self._terminal)
        os.waitpid(self._pid, 0)

    def type(self, command: str, *answers: str) -> None:
        """Type a command, and an answer to each of its questions. It has to succeed."""
        os.write(self._terminal, f"{command}\n".encode())
        status = self._until_prompt(list(answers))
        if status:
            raise ProvisionError(
                "taking pictures of the terminal",
                f"`{command}` exited with {status}: {self.shown.decode(errors='replace')}",
                "Correct that.",
            )

    def unseen(self, command: str) -> None:
        """The same, outside the picture; it stays in its folder."""
        shown = self.shown
        self.type(command)
        self.shown = shown

    def _until_prompt(self, answers: list[str]) -> int:
        """Read until the shell asks for the next command; returns the status of the last one."""
        begin = len(self.shown)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            ended = _ENDED.search(self.shown, begin)
            if ended and self.shown.endswith(b"$ "):
                return int(ended[1])
            if answers and self.shown.endswith(_QUESTION):
                os.write(self._terminal, f"{answers.pop(0)}\n".encode())
            if select.select([self._terminal], [], [], 1)[0]:
                self.shown += os.read(self._terminal, 65536)
        raise ProvisionError(
            "taking pictures of the terminal",
            f"The shell did not come back: {self.shown.decode(errors='replace')}",
            "Type the same commands by hand.",
        )
