"""Commands on a terminal of their own, as a person types them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator, Mapping

from tests.support.clones import Clone


class Reader:
    """Reads what a command prints, until it stops to: it closes its end, or only takes no more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    def reads(self, text: str) -> None:
        """Read on until a text has come."""
        while text not in self.text:
            try:
                part = os.read(self._descriptor, 4096)
            except OSError:  # a terminal that its last program has left
                part = b""
            assert part, f"it ended before {text!r} came:\n{self.text}"
            self.text += part.decode(errors="replace")

    def rest(self) -> str:
        """Read on until it has ended; all that it printed."""
        with contextlib.suppress(OSError):
            while part := os.read(self._descriptor, 4096):
                self.text += part.decode(errors="replace")
        return self.text

    def close(self) -> None:
        os.close(self._descriptor)


@contextlib.contextmanager
def on_terminal(
    clone: Clone, *arguments: str, ignores_hangup: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Reader, int]]:
    """A command on a terminal of its own, which hangs up on it when it is closed.

    Args:
        clone: where.
        arguments: after `./invoke`.
        ignores_hangup: as under `nohup`.
        env: changes to its environment.

    Yields:
        The process, what reads the terminal, and the terminal's other end.
    """
    master, slave = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [*clone.command, *arguments],
        cwd=clone.root,
        env=clone.env({"TERM": "xterm", **(env or {})}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(slave)
    try:
        yield process, Reader(master), master
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.close(master)
