"""What an `up` reaches, as data: progress, ``--timings`` and JSON are renderings of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from provision.core.dataclass import dataclass
from provision.mongodb.topology import CONFIG_SET


class Kind(StrEnum):
    """What can be reached."""

    LISTENS = "listens"
    HAS_PRIMARY = "has-primary"
    WRITABLE = "writable"
    ADDED = "added"
    SHARDED = "sharded"
    WRITABLE_THROUGH_ROUTER = "writable-through-router"
    MEMBERS_HEALTHY = "members-healthy"
    HEALTHY = "healthy"


_TEXTS = {
    Kind.LISTENS: "{} listens",
    Kind.HAS_PRIMARY: "{} has a primary",
    Kind.WRITABLE: "majority write acknowledged",
    Kind.ADDED: "{} is added",
    Kind.SHARDED: "{} is sharded",
    Kind.WRITABLE_THROUGH_ROUTER: "majority write acknowledged through the router",
    Kind.MEMBERS_HEALTHY: "all members of {} are healthy",
    Kind.HEALTHY: "every member is healthy",
}
# What can't be reached before which others; where they have a subject each, before those of the same subject.
_AFTER = {
    Kind.WRITABLE: {Kind.HAS_PRIMARY, Kind.LISTENS},
    Kind.SHARDED: {Kind.ADDED},
    Kind.WRITABLE_THROUGH_ROUTER: {Kind.ADDED, Kind.SHARDED},
    Kind.HEALTHY: {Kind.MEMBERS_HEALTHY, Kind.WRITABLE, Kind.WRITABLE_THROUGH_ROUTER},
}


@dataclass(frozen=True)
class Event:
    """Something that was reached."""

    kind: Kind  # what
    subject: str = ""  # the node, replica set or namespace that it is about; empty: the whole deployment

    @property
    def text(self) -> str:
        """It as a person reads it."""
        return _TEXTS[self.kind].format(self.subject)

    def waits_for(self, other: Event) -> bool:
        """Whether it can't be reached before another. Pure."""
        if self.kind is Kind.ADDED:
            return other == Event(Kind.HAS_PRIMARY, self.subject) or other.kind is Kind.LISTENS
        if self.kind is Kind.MEMBERS_HEALTHY:
            return other == Event(Kind.HAS_PRIMARY, self.subject)
        if self.kind is Kind.LISTENS:
            return other == Event(Kind.HAS_PRIMARY, CONFIG_SET)
        return other.kind in _AFTER.get(self.kind, ())


@dataclass(frozen=True)
class Timing:
    """When something was reached, in seconds after `up` began."""

    event: Event
    seconds: float


def critical_path(timings: Sequence[Timing]) -> list[Timing]:
    """Those of an `up`'s timings that determined how long it took, each the last that the next one waited for. Pure."""
    if not timings:
        return []
    path = [max(timings, key=lambda timing: timing.seconds)]
    while before := [
        timing for timing in timings if timing not in path and path[-1].event.waits_for(timing.event)
    ]:
        path.append(max(before, key=lambda timing: timing.seconds))
    return path[::-1]


@dataclass(frozen=True)
class Moment:
    """A timing for display.

    Args:
        what: what was reached.
        seconds: when, after `up` began.
        critical: the whole waited for it.
    """

    what: str
    seconds: float
    critical: bool


def moments(timings: Sequence[Timing]) -> list[Moment]:
    """An `up`'s timings in order, with its critical path marked. Pure."""
    critical = critical_path(timings)
    return [Moment(timing.event.text, timing.seconds, timing in critical) for timing in timings]
