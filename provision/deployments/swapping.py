"""A deployment's data swapped for others: recorded, so that the next command completes the swap, or goes back.

The phases: ``forward``: the nodes are stopped, and the new data come into place; they are not proved. ``back``: they are
refused, and what was there comes back. ``keep``: a majority write has proved them, and what was there becomes the undo.
Nothing is ever deleted of what was there before the new data are proved.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from provision.backends.folders import DataFolders
from provision.core.dataclass import dataclass
from provision.mongodb.topology import Node
from provision.settings.paths import Paths
from provision.state import records

FORWARD, BACK, KEEP = "forward", "back", "keep"


@dataclass(frozen=True)
class Swap:
    """A swap that has begun."""

    what: str  # the new data, as messages name them: ``"snapshot clean"``
    nodes: tuple[str, ...]  # names of the nodes whose data are swapped
    had: tuple[str, ...]  # those that had data before
    initiated: tuple[str, ...]  # the replica sets that were known to have been initiated before
    balanced: bool = False  # in the new data the balancer is off, and belongs on
    phase: str = FORWARD


def pending(paths: Paths, deployment: str) -> Swap | None:
    """The swap that has begun and is not completed."""
    record = records.SWAP.read(paths, deployment)
    if record is None:
        return None
    return Swap(
        str(record["what"]),
        tuple(record["nodes"]),
        tuple(record["had"]),
        tuple(record["initiated"]),
        bool(record["balanced"]),
        str(record["phase"]),
    )


def record(paths: Paths, deployment: str, swap: Swap) -> Swap:
    """Note how far a swap has come. The caller holds the deployment's lock.

    Raises OSError: it can't be written.
    """
    records.SWAP.write(paths, asdict(swap), deployment)
    return swap


def settle(paths: Paths, deployment: str, folders: DataFolders, nodes: tuple[Node, ...]) -> Swap | None:
    """Complete the renames of a swap that was cut off. None of its nodes has run since.

    Returns: The swap where the new data are in place and not proved; None: there is none.
    Raises OSError, ProvisionError: the folders can't be renamed.
    """
    swap = pending(paths, deployment)
    if swap is None:
        return None
    swapped = [node for node in nodes if node.name in swap.nodes]
    if swap.phase == FORWARD:
        folders.forward(swapped)
        return swap
    if swap.phase == BACK:
        folders.back(swapped, swap.had)
        initiated: dict[str, Any] | None = {"replica_sets": list(swap.initiated)} if swap.initiated else None
        records.INITIATED.write(paths, initiated, deployment)
    else:
        folders.keep(swapped)
    records.SWAP.write(paths, None, deployment)
    return None


def go_on(
    paths: Paths, deployment: str, folders: DataFolders, nodes: tuple[Node, ...], swap: Swap, phase: str
) -> None:
    """Enter the last phase of a swap, and complete it. For `BACK`, none of its nodes runs."""
    record(paths, deployment, replace(swap, phase=phase))
    settle(paths, deployment, folders, nodes)
