"""The pure parts of what the pytest plugin offers for test data."""

from __future__ import annotations

import re
from typing import Any

import pytest

from provision.testing.scans import Asked, asked, indexes
from provision.testing.templates import Found, Reset, Stored, Written, reset_of, written

COMMAND = {"op": "c", "ns": "shop.$cmd"}


@pytest.mark.parametrize(
    ("entries", "changes"),
    [
        (
            [{"op": "i", "ns": "shop.people"}, {"op": "d", "ns": "shop.a.b"}],
            Written(frozenset(("people", "a.b"))),
        ),
        ([{"op": "u", "ns": "shop2.people"}, {"op": "n", "ns": ""}], Written()),
        ([{**COMMAND, "o": {"drop": "people"}}], Written(structure=True)),
        ([{"op": "c", "ns": "other.$cmd", "o": {"drop": "people"}}], Written()),
        ([{"op": "i", "ns": "shop.system.views"}], Written(frozenset(("system.views",)), structure=True)),
        ([{"op": "i", "ns": "shop.system.buckets.weather"}], Written(frozenset(("weather",)))),
        (
            [
                {
                    "op": "c",
                    "ns": "admin.$cmd",
                    "o": {
                        "applyOps": [
                            {"op": "u", "ns": "shop.people"},
                            {"op": "i", "ns": "other.people"},
                            {**COMMAND, "o": {"create": "new"}},
                        ]
                    },
                }
            ],
            Written(frozenset(("people",)), structure=True),
        ),
        ([{"op": "i", "ns": "admin.system.users"}], Written(accounts=True)),
        ([{**COMMAND, "o": {"emptycapped": "log"}}], Written(everything=True)),
    ],
)
def test_an_oplog_says_what_was_written(entries: list[dict[str, Any]], changes: Written) -> None:
    assert written(entries, "shop") == changes


def test_only_what_was_changed_is_touched() -> None:
    plain, capped = Stored("collection", {}), Stored("collection", {"capped": True, "size": 4096})
    content = {"a": plain, "b": plain, "renamed": plain, "log": capped}
    known = {"a": 1, "b": 2, "renamed": 3, "log": 4}
    found = {
        "a": Found("collection", {}, 1),
        "b": Found("collection", {}, 2),
        "to": Found("collection", {}, 3),
        "log": Found("collection", capped.options, 4),
        "view": Found("view", {"viewOn": "a"}, None),
    }
    plan = reset_of(content, known, found, Written(frozenset(("b", "log", "to")), structure=True))
    assert plan == Reset(("view", "to", "log"), ("renamed", "log"), ("b",), ("a", "b"))
    unchanged = {name: Found(each.kind, each.options, known[name]) for name, each in content.items()}
    assert reset_of(content, known, unchanged, Written()) == Reset((), (), (), ())


@pytest.mark.parametrize(
    ("filter_", "sort", "keys"),
    [
        ({"a": 1}, {}, [[("a", 1)]]),
        ({"a": {"$gt": 1}, "b": 2}, {"c": -1}, [[("b", 1), ("c", -1), ("a", 1)]]),
        ({"$and": [{"a": 1}, {"b": {"$in": [1, 2]}}]}, {}, [[("a", 1), ("b", 1)]]),
        ({"$or": [{"a": 1}, {"b": {"$ne": 2}}]}, {}, [[("a", 1)], [("b", 1)]]),
        ({"a": re.compile("^x")}, {"a": -1}, [[("a", -1)]]),
        ({"$where": "true"}, {"a": 1}, []),
    ],
)
def test_the_index_that_a_query_lacks(
    filter_: dict[str, Any], sort: dict[str, int], keys: list[list[tuple[str, int]]]
) -> None:
    assert indexes(Asked(filter_, sort)) == keys


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ([{"$match": {"a": 1}}, {"$group": {"_id": 1}}], Asked({"a": 1}, {})),
        ([{"$sort": {"b": 1}}, {"$match": {"a": 1}}], Asked({"a": 1}, {"b": 1})),
        ([{"$project": {"a": 1, "n": {"$size": "$tags"}}}, {"$match": {"a": 1}}], Asked({"a": 1}, {})),
        ([{"$set": {"n.x": 1}}, {"$match": {"n.y": 1}}], Asked({}, {})),
        ([{"$project": {"a": "$b"}}, {"$match": {"a": 1}}], Asked({}, {})),
        ([{"$unset": "c"}, {"$match": {"a": 1}}, {"$sort": {"c": 1}}], Asked({"a": 1}, {})),
        ([{"$group": {"_id": "$a"}}, {"$match": {"_id": 1}}], Asked({}, {})),
    ],
)
def test_what_a_pipeline_asks_a_collection_for(pipeline: list[dict[str, Any]], expected: Asked) -> None:
    assert asked({"aggregate": "c", "pipeline": pipeline}) == expected
