"""Numbers of things that come and go, where each keeps its own."""

from __future__ import annotations

import itertools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def first_numbers(count: int, without: Collection[int] = ()) -> tuple[int, ...]:
    """The first so many numbers from 1 on that are not left out."""
    free = (number for number in itertools.count(1) if number not in without)
    return tuple(itertools.islice(free, count))
