"""Ports of a folder's own, for `port: auto`: which there are, and how one folder's deployments share them. Pure.

A slot is a block of 200 ports, below those that the system hands out and beside MongoDB's usual ones. The app has the
first port of its folder's block, and the deployments follow in the order in which they are declared. What has a room keeps
it, so that a folder's addresses are the same every day. A deployment that needs more than is left gets blocks of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Protocol

from provision.core.dataclass import dataclass
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings

FIRST = 20_000
BLOCK = 200
END = 32_768  # Linux hands out ports from here on
APP = "app."  # the app's name among those of deployments, which have no dot
_MONGODBS = range(27_017, 27_401)  # what people and other tools give to MongoDB

BLOCKS = tuple(
    number
    for number in range((END - FIRST) // BLOCK)
    if not set(_MONGODBS) & set(range(FIRST + BLOCK * number, FIRST + BLOCK * (number + 1)))
)
"""The numbers of all blocks, which are those of the slots."""


@dataclass(frozen=True)
class Room:
    """Ports that follow each other, kept for the app or for one deployment."""

    first: int
    count: int

    @property
    def ports(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def blocks(self) -> set[int]:
        """The blocks that it has ports of."""
        return set(range(block_of(self.first), block_of(self.ports[-1]) + 1))

    def meets(self, other: Room) -> bool:
        """Whether they share a port."""
        return self.first < other.first + other.count and other.first < self.first + self.count


@dataclass(frozen=True)
class Need:
    """A port that may be one of the folder's own."""

    count: int  # how many follow it, itself included
    usual: int | None  # what it is without a slot; None: `auto` was asked for


@dataclass(frozen=True)
class Request:
    """What the settings of a project would take from a slot."""

    paths: Paths
    needs: Mapping[str, Need]  # `APP`, then the deployments in the order in which they are declared


@dataclass(frozen=True)
class Grant:
    """What a folder was given."""

    slot: int
    project: str  # the project's name, for Docker
    why: str  # why it has a slot without having asked for one
    ports: Mapping[str, int]  # of those needs that are met by the slot
    stays: Mapping[str, int]  # of those whose data are elsewhere, and can't follow


class Grants(Protocol):
    """Who gives ports to a folder."""

    def __call__(self, request: Request) -> Grant | None:
        """The folder's ports; None: it has those that its settings name."""


class NoRoom(Exception):
    """There are not enough free ports that follow each other; the text names whose they would be."""


def block_of(port: int) -> int:
    """The number of the block that a port is in, or would be in."""
    return (port - FIRST) // BLOCK


def block(number: int) -> Room:
    """All ports of a block."""
    return Room(FIRST + BLOCK * number, BLOCK)


def room_needed(settings: DeploymentSettings) -> int:
    """How many ports a deployment's topology takes at most; a sharded cluster has room for shards that are added."""
    if settings.topology == "single":
        return 1
    if settings.topology == "replica-set":
        return 50
    numbers = settings.shards + len(settings.removed_shards)
    return -(-50 * (numbers + 1) // BLOCK) * BLOCK


def free_slot(taken: Container[int], usable: Callable[[int], bool], rooms: Iterable[Room] = ()) -> int:
    """A slot that nobody has.

    Args:
        taken: the blocks that others have.
        usable: block → whether its ports are free.
        rooms: where the folder's data have their addresses already; their block comes first.

    Raises NoRoom: all slots are taken.
    """
    known = [block_of(each.first) for each in rooms if block_of(each.first) in BLOCKS]
    for number in known:
        if number not in taken:
            return number
    for number in BLOCKS:
        if number not in taken and usable(number):
            return number
    raise NoRoom("")


def lay_out(
    slot: int,
    needed: Mapping[str, int],
    kept: Mapping[str, Room],
    taken: Container[int],
    usable: Callable[[int], bool],
) -> dict[str, Room]:
    """The rooms of everything in a folder: those that it has, and those that it needs beside them.

    Args:
        slot: the folder's own block.
        needed: name → how many ports it takes, in the order in which they are laid out.
        kept: the rooms it has, also of what its settings no longer name.
        taken: the blocks that others have.
        usable: block → whether its ports are free.

    Raises NoRoom: naming what has no room.
    """
    rooms: dict[str, Room] = {}
    for name, room in kept.items():
        if room.count >= needed.get(name, 0) and not any(room.meets(each) for each in rooms.values()):
            rooms[name] = room
    for name, count in needed.items():
        if name not in rooms:
            rooms[name] = _place(slot, name, count, kept.get(name), rooms, taken, usable)
    return rooms


def _place(
    slot: int,
    name: str,
    count: int,
    before: Room | None,
    rooms: Mapping[str, Room],
    taken: Container[int],
    usable: Callable[[int], bool],
) -> Room:
    own = {slot}.union(*(each.blocks for each in rooms.values()), before.blocks if before else ())

    def fits(room: Room) -> bool:
        return not any(room.meets(each) for each in rooms.values()) and all(
            number in own or (number in BLOCKS and number not in taken and usable(number))
            for number in room.blocks
        )

    if before is not None and fits(larger := Room(before.first, count)):
        return larger
    start = block(slot).first
    gaps = [start, *(each.first + each.count for each in rooms.values() if slot in each.blocks)]
    for first in sorted(gaps):
        room = Room(first, count)
        if room.blocks == {slot} and fits(room):
            return room
    for number in (*(each for each in BLOCKS if each > slot), *(each for each in BLOCKS if each < slot)):
        if fits(room := Room(block(number).first, count)):
            return room
    raise NoRoom(name)
