"""Shows an `up` while it goes on, on standard error: a line for each node on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from provision.cli.display import colourful, note, paint, state
from provision.deployments.deployment import Deployment
from provision.deployments.events import Event
from provision.mongodb import replica_set as replication
from provision.mongodb.topology import Node, Topology
from provision.mongodb.wire import CommandFailed, Connection, NotReachable

_REDRAW_SECONDS = 0.2
_ASK_SECONDS = 0.5


class UpProgress:
    """Shows what an `up` starts and reaches; nothing where there is nothing to start.

    Args:
        dial: connects to a node as nobody, with a timeout in seconds.
        quiet: show nothing, because the result goes out as JSON to a program.
    """

    def __init__(
        self, topology: Topology, dial: Callable[[Node, float], Connection], quiet: bool = False
    ) -> None:
        self._nodes = topology.nodes
        self._dial = dial
        self._quiet = quiet
        self._begun = time.monotonic()
        self._starting = False
        self._states = {node.name: "starting" for node in self._nodes}
        self._drawn = 0
        self._last = ""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._live = len(self._nodes) > 1 and colourful(sys.stderr) and _room() > len(self._nodes) + 2

    @classmethod
    def of(cls, deployment: Deployment, quiet: bool = False) -> Self:
        """Show a deployment's."""
        return cls(deployment.topology, deployment.dial_unnamed, quiet)

    def say(self, text: str) -> None:
        """Show what is going on; from the first line on, progress is shown, too."""
        if self._quiet:
            return
        with self._lock:
            self._erase()
            note(text)
            self._starting = True
            if self._live and self._thread is None:
                self._thread = threading.Thread(target=self._watch, daemon=True, name="progress")
                self._thread.start()

    def reached(self, event: Event) -> None:
        """Show what was reached."""
        if self._quiet or not self._starting:
            return
        text = f"{time.monotonic() - self._begun:6.2f} s  {event.text}"
        if self._live:
            self._last = text
        else:
            note(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._erase()

    def _watch(self) -> None:
        while not self._over.wait(_REDRAW_SECONDS):
            for node in self._nodes:
                if self._over.is_set():
                    return
                self._states[node.name] = self._ask(node)
            with self._lock:
                self._erase()
                self._draw()

    def _ask(self, node: Node) -> str:
        """A node's own word for its state; it needs no log-in to be asked for that."""
        try:
            with self._dial(node, _ASK_SECONDS) as connection:
                return replication.state(connection.command("admin", {"hello": 1}))
        except (NotReachable, CommandFailed):
            return "starting"

    def _draw(self) -> None:
        width = max(len(node.name) for node in self._nodes)
        lines = [f"  {node.name:<{width}}  {_coloured(self._states[node.name])}" for node in self._nodes]
        lines.append(paint(self._last, "dim", sys.stderr))
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")
            sys.stderr.flush()
            self._drawn = 0


def _coloured(word: str) -> str:
    return paint(word, "yellow", sys.stderr) if word == "starting" else state(word, sys.stderr)


def _room() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines
    except OSError:
        return 0
