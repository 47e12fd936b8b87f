"""Slots for tests that run at once: each has a list of environments of its own, and so does not see the others' ports."""

from __future__ import annotations

from pathlib import Path

from provision.core.files import write_json
from provision.settings.ports import BLOCKS, Room, block
from provision.state.slots import Entry, as_file
from tests.support.processes import ports_of_this_worker

OTHERS = Path("/")
"""The folder that stands for what other tests have, in the list."""


def take_share(state: Path) -> None:
    """Leave to a list of environments the blocks of ports that this worker's tests may use anyway.

    Args:
        state: the user's state directory; it has no list yet.
    """
    own = ports_of_this_worker()
    theirs = [n for n in BLOCKS if block(n).ports[0] not in own or block(n).ports[-1] not in own]
    rooms: dict[str, Room] = {f"block-{n}": block(n) for n in theirs}
    write_json(state / "provision" / "slots.json", as_file([Entry(OTHERS, "others", rooms=rooms)]))
