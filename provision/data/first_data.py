"""What a deployment of a new linked worktree begins with: nothing, or the data of another worktree's. Decided once."""

from __future__ import annotations

from dataclasses import replace
from provision.core.dataclass import dataclass
from pathlib import Path

from provision.settings.capabilities import BACKENDS
from provision.settings.loading import Loaded
from provision.settings.paths import Paths
from provision.state import records
from provision.state.checkout import checkout_of, elsewhere
from provision.state.remembered import Extent


@dataclass(frozen=True)
class Origin:
    """Another worktree, whose deployment of the same name has the same shape, and data."""

    root: Path
    branch: str | None


def origin(loaded: Loaded, name: str) -> Origin | None:
    """Whose data the first start of a deployment could begin with: the main worktree's, or those used last.

    None: nothing can be: this is the main worktree, or not the first start, or the decision was made before. Reads a few
    small files.
    """
    paths = loaded.paths
    checkout = checkout_of(paths.root)
    if checkout is None or not checkout.linked:
        return None
    asked = Extent.of(loaded.deployment(name))
    if not BACKENDS[asked.backend].local:
        return None
    if Extent.recorded(paths, name) is not None or records.WORKTREE.read(paths, name) is not None:
        return None
    found = []
    for root in elsewhere(paths.root):
        theirs = Paths.of(root, "data", "log", None)
        extent = Extent.recorded(theirs, name)
        if extent is not None and BACKENDS[extent.backend].local and _shape(extent) == _shape(asked):
            there = checkout_of(root)
            main = there is not None and not there.linked
            found.append((main, theirs.extent_record(name).stat().st_mtime, root, there))
    if not found:
        return None
    _, _, root, there = max(found, key=lambda each: each[:2])
    return Origin(root, there.branch if there else None)


def decide(paths: Paths, name: str, source: Path | None) -> None:
    """Put on record what a deployment begins with: another worktree's data; None: nothing.

    Raises OSError: it can't be written.
    """
    records.WORKTREE.write(paths, {"data": None if source is None else str(source)}, name)


def _shape(extent: Extent) -> Extent:
    """What two deployments have in common whose data fit each other."""
    return replace(extent, backend="", port=0, routers=0, auth=None, tls=None)
