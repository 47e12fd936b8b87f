"""Slots for tests that run at once: each has a list of environments of its own, and so does not see the others' ports."""

from __future__ import annotations

import os
from pathlib import Path

from provision.core.files import write_json
from provision.settings.ports import BLOCKS, Room, block
from provision.state.slots import Entry, as_file

OTHERS = Path("/")
"""The folder that stands for what other tests have, in the list."""
_SHARES = 5


def take_share(state: Path, of_docker: bool = False) -> None:
    """Leave to a list of environments the blocks that this worker's tests may use.

    Args:
        state: the user's state directory; it has no list yet.
        of_docker: the last share, for tests with a Docker engine: one of them runs at a time.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = _SHARES - 1 if of_docker else worker % (_SHARES - 1)
    size = len(BLOCKS) // _SHARES
    own = BLOCKS[share * size : (share + 1) * size]
    rooms: dict[str, Room] = {f"block-{n}": block(n) for n in BLOCKS if n not in own}
    write_json(state / "provision" / "slots.json", as_file([Entry(OTHERS, "others", rooms=rooms)]))
