"""Indexes as the server lists them, and as it takes them. Pure.

https://www.mongodb.com/docs/manual/reference/command/createIndexes/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What the server gives back of an index, and does not take.
NOT_TAKEN = frozenset({"v", "ns", "clustered"})


def comes_by_itself(listed: Mapping[str, Any]) -> bool:
    """Whether a new collection has this index already. It may have others on `_id`: a hashed one, to be sharded by."""
    return dict(listed["key"]) == {"_id": 1} or bool(listed.get("clustered"))


def without_collation(options: Mapping[str, Any]) -> dict[str, Any]:
    """What an index has to say that has no collation of its own: without it, it gets that of its collection."""
    return {"collation": {"locale": "simple"}} if "collation" in options else {}


def to_create(options: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The indexes that a collection with these options lacks when it is new, as createIndexes takes them.

    `listed`: its indexes, as listIndexes and mongodump's metadata have them.
    """
    return [
        {**without_collation(options), **{name: value for name, value in each.items() if name not in NOT_TAKEN}}
        for each in listed
        if not comes_by_itself(each)
    ]
