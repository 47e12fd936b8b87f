"""Shows the logs of nodes: one as it is, several merged by time behind their names."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from provision.cli import display
from provision.core import output
from provision.deployments.deployment import Deployment
from provision.mongodb.logs import merge, paint, readable, render
from provision.mongodb.topology import Node

_GATHER_SECONDS = 0.3


def show(deployment: Deployment, nodes: Sequence[Node], lines: int, follow: bool, raw: bool) -> None:
    """Print logs.

    Args:
        lines: how many of the last lines of each.
        raw: of one node, the JSON as it is.
    """
    with output.ends_with_reader() if follow else contextlib.nullcontext():
        _show(deployment, nodes, lines, follow, raw)


def _show(deployment: Deployment, nodes: Sequence[Node], lines: int, follow: bool, raw: bool) -> None:
    colour = display.colourful(sys.stdout)
    if len(nodes) == 1:
        found = deployment.log(nodes[0], lines, follow)
        for each in found if raw else render(found, colour):
            display.line(each)
            if output.ended():
                return
        return
    order = {node.name: place for place, node in enumerate(nodes)}
    width = max(map(len, order))
    batches = (
        _following(deployment, nodes, lines)
        if follow
        else iter([{node.name: deployment.log(node, lines, follow=False) for node in nodes}])
    )
    for batch in batches:
        for name, entry in merge(batch):
            text = entry if isinstance(entry, str) else paint(entry) if colour else readable(entry)
            display.line(display.prefixed(f"{name:<{width}}", text, order[name]))
            if output.ended():
                return


def _following(deployment: Deployment, nodes: Sequence[Node], lines: int) -> Iterator[dict[str, list[str]]]:
    """The lines that have come since the last look, by node, until interrupted; at first the last ones of each."""
    arriving: queue.Queue[tuple[str, str]] = queue.Queue()

    def read(node: Node) -> None:
        for line in deployment.log(node, lines, follow=True):
            arriving.put((node.name, line))

    for node in nodes:
        threading.Thread(target=read, args=(node,), daemon=True, name=f"log of {node.name}").start()
    while True:
        batch: dict[str, list[str]] = {}
        name, line = arriving.get()
        until = time.monotonic() + _GATHER_SECONDS
        batch.setdefault(name, []).append(line)
        # Nodes write at the same time: what came within a moment is put in order.
        while (left := until - time.monotonic()) > 0:
            try:
                name, line = arriving.get(timeout=left)
            except queue.Empty:
                break
            batch.setdefault(name, []).append(line)
        yield batch
