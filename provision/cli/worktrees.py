"""The first start in a new linked worktree: whether it begins with the data of another one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from provision.core.dataclass import dataclass

if TYPE_CHECKING:
    from provision.cli.session import Session
    from provision.data.first_data import Origin
    from provision.deployments.deployment import Deployment

Say = Callable[[str], None]


@dataclass(frozen=True)
class Beginning:
    """What a start begins with."""

    hint: str = ""  # what to type for other data; empty: nothing
    source: Deployment | None = None  # whose data are copied first

    def put_in_place(self, target: Deployment, say: Say) -> None:
        """Copy the data, if any are: the `up` that follows starts on them, and proves them.

        Raises ProvisionError: they can't be copied; nothing was changed, and the next start decides anew.
        """
        from provision.data import first_data, snapshots

        if self.source is not None:
            snapshots.clone(self.source, target, say=say, start=False)
            first_data.decide(target.paths, target.name, self.source.paths.root)


def beginning(session: Session, on: str) -> Beginning:
    """Decide what a start begins with, by the setting `worktree.data` or by asking; nobody is asked twice.

    Where nobody can answer, nothing is asked, and the deployment begins empty.
    """
    from provision.data import first_data

    choice = session.loaded.settings.worktree.data
    found = None if choice == "empty" else first_data.origin(session.loaded, on)
    if found is None:
        return Beginning()
    later = f"invoke clone --from {found.root} --on {on}"
    if choice == "ask" and (session.quiet or not (sys.stdin.isatty() and sys.stderr.isatty())):
        return Beginning(f"{on} begins empty. To copy the data of {_described(found, None)}: {later}")
    source, size = _source(found.root, on, session.quiet)
    if source is None or size == 0:
        return Beginning()
    if choice == "clone" or _agreed(found, size):
        return Beginning(source=source)
    first_data.decide(session.loaded.paths, on, None)
    return Beginning(f"{on} begins empty. To copy the data later: {later}")


def _source(root: Path, on: str, quiet: bool) -> tuple[Deployment | None, int | None]:
    """The other worktree's deployment and how large it is, as far as that can be told."""
    from provision.cli.session import Session
    from provision.core.errors import ProvisionError
    from provision.data import snapshots

    source = size = None
    with contextlib.suppress(ProvisionError):
        source = Session(root, quiet=quiet).deployment(on)
        size = snapshots.size(source)
    return source, size


def _agreed(found: Origin, size: int | None) -> bool:
    sys.stderr.write(f"Copy the data of {_described(found, size)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _described(found: Origin, size: int | None) -> str:
    """A worktree with its branch and the size of its data: ``/home/ann/shop (main, 84 MB)``."""
    about = [found.branch] if found.branch else []
    about += [] if size is None else [f"{size / 1e6:,.0f} MB"]
    return f"{found.root} ({', '.join(about)})" if about else str(found.root)
