"""Masks and rules of `pull`: nothing of a value is left, its type stays, and what was equal is equal."""

from __future__ import annotations

import datetime
import math
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from provision.core.errors import ProvisionError
from provision.data.pulls import metadata, pulling, rules
from provision.data.pulls.masks import KINDS, Kind, Masker
from provision.data.pulls.pulling import Sample

MASKER = Masker(b"k" * 32)
MASKS = [kind for kind in KINDS if kind not in ("keep", "remove")]
PEOPLE = ("Ada Lovelace", "Grace Hopper", "Łukasz Żółć", "王小明先生", "O'Brien-Smith")
SECRETS = (
    *PEOPLE,
    "ada@lovelace.example",
    "12 Analytical Street",
    "+44 20 7946 0958",
    "1815-12-10",
    4_420_794_609_581,
    Int64(7_811_223_344_556_677),
    815.12345,
    Decimal128("99887766.55"),
    datetime.datetime(1815, 12, 10, 7, 30, tzinfo=datetime.UTC),
    ObjectId("0123456789abcdef01234567"),
    Binary(b"0123456789abcdef", 4),
    Regex("^Ada Lovelace$"),
)
PLACES = st.sampled_from(["a", "b", "c", "d.e", "*", "0", "$f"])
VALUES = st.one_of(st.sampled_from(SECRETS), st.none(), st.booleans())
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLACES, inner, max_size=3),
    max_leaves=8,
)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def has_secret(value: Any) -> bool:
    encoded = bson.encode({"": value})
    return any(str(each).encode() in encoded for each in SECRETS if isinstance(each, str)) or any(
        leaf == secret for leaf in leaves(value) for secret in SECRETS
    )


@given(st.dictionaries(PLACES, TREES, max_size=4), st.sampled_from(MASKS))
def test_nothing_of_a_masked_document_is_left(document: dict[str, Any], kind: Kind) -> None:
    made = rules.parse({"collections": {"x": {"**": kind}}}, "").rules("x").masked(document, MASKER)
    assert not has_secret(made)
    before, after = leaves(document), leaves(made)
    assert [type(each) for each in before] == [type(each) for each in after]
    assert [each for each in before if each is None or isinstance(each, bool)] == [
        each for each in after if each is None or isinstance(each, bool)
    ]
    equal = {
        (i, j) for i, a in enumerate(before) for j, b in enumerate(before) if type(a) is type(b) and a == b
    }
    assert all(after[i] == after[j] for i, j in equal)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_two_numbers_never_become_one_and_none_stays(first: int, second: int) -> None:
    one, other = MASKER.mask(first, "number"), MASKER.mask(second, "number")
    assert (one == other) == (first == second)
    assert one != first
    assert len(str(one)) == len(str(first)) or abs(first) < 10
    bson.encode({"": one})


def test_small_numbers_are_permuted() -> None:
    assert sorted(MASKER.mask(n, "number") for n in range(10)) == list(range(10))
    assert sorted(MASKER.mask(n, "number") for n in range(10, 100)) == list(range(10, 100))
    codes = [f"{n:03}" for n in range(1000)]
    assert sorted(MASKER.mask(each, "number") for each in codes) == codes
    assert MASKER.mask(5, "number") == MASKER.mask(Int64(5), "number") == MASKER.mask(5.0, "number")


def test_masks_look_like_what_they_stand_for() -> None:
    assert MASKER.mask("ada@lovelace.example", "email").endswith("@example.com")
    assert len(MASKER.mask("Ada Lovelace", "name").split()) == 2
    phone = MASKER.mask("+44 (20) 7946-0958", "phone")
    assert [each for each in phone if not each.isdigit()] == list("+ () -")
    assert MASKER.mask("1815-12-10", "date").startswith("1815-")
    assert MASKER.mask("1815-12-10", "date") != "1815-12-10"
    assert MASKER.mask("ask Ada", "phone").isascii()
    assert MASKER.mask("", "name") == ""
    day = datetime.datetime(2024, 2, 29)
    assert MASKER.mask(day, "date").year == 2024
    nan: float = MASKER.mask(math.nan, "number")
    assert math.isnan(nan)
    for value in (DatetimeMS(2**62), Timestamp(1, 1), MaxKey(), Code("f"), b"x"):
        bson.encode({"": MASKER.mask(value, "text")})


def test_another_key_gives_other_masks() -> None:
    other = Masker(b"other")
    assert all(other.mask(each, "text") != MASKER.mask(each, "text") for each in SECRETS)


def masked(content: Any, document: dict[str, Any]) -> dict[str, Any]:
    return rules.parse({"collections": {"x": content}}, "").rules("x").masked(document, MASKER)


def test_paths_go_through_documents_and_arrays_and_the_most_exact_rule_wins() -> None:
    document = {
        "addresses": [{"street": "12 Analytical Street", "city": "London"}, {"street": "x"}],
        "a.b": "Ada Lovelace",
        "a": {"b": "Ada Lovelace"},
        "phones": ["1", "2"],
        "home": {"x": "Grace Hopper", "plan": "free"},
        "notes": "n",
        "list": [[{"n": "Ada Lovelace"}]],
    }
    content = {
        "addresses.*.street": "text",
        "a.b": "name",
        "phones": "remove",
        "home": "name",
        "home.plan": "keep",
        "notes": "keep",
        "list.n": "name",
    }
    made = masked(content, document)
    assert [each.get("city") for each in made["addresses"]] == ["London", None]
    assert made["addresses"][0]["street"] != "12 Analytical Street"
    assert made["a.b"] == made["a"]["b"] == MASKER.mask("Ada Lovelace", "name") == made["list"][0][0]["n"]
    assert "phones" not in made
    assert (made["home"]["plan"], made["notes"]) == ("free", "n")
    assert not has_secret(made)
    assert masked({"addresses.street": "text"}, document)["addresses"] == made["addresses"]
    assert masked({"phones.*": "remove"}, document)["phones"] == []
    assert document["phones"] == ["1", "2"]


def test_keys_that_are_values_are_masked_and_so_are_references() -> None:
    made = masked(
        {"by": {"keys": "email"}, "by.*.n": "name", "who": "id"},
        {"by": {"ada@lovelace.example": {"n": "Ada Lovelace"}}, "who": DBRef("user", "Ada Lovelace")},
    )
    assert made["by"] == {
        MASKER.mask("ada@lovelace.example", "email"): {"n": MASKER.mask("Ada Lovelace", "name")}
    }
    assert (made["who"]["$ref"], made["who"]["$id"]) == ("user", MASKER.mask("Ada Lovelace", "id"))


def test_what_refers_to_a_masked_field_gets_its_mask() -> None:
    plan = rules.parse(
        {
            "collections": {"users": {"_id": "email"}, "orders": {"note": "text"}, "log": "keep"},
            "references": {"orders.user": "users._id", "log.order.*.user": "orders.user"},
        },
        "",
    )
    assert plan.rules("orders").kind_at("user") == plan.rules("log").kind_at("order.*.user") == "email"
    assert plan.rules("log").masks
    assert plan.reached(["log"]) == ["log", "orders", "users"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"collections": {"users": {"name": "nam"}}}, "did you mean name"),
        ({"collections": {"users": "name"}}, "can only say keep"),
        ({"collections": {"users": {"_id": "remove"}}}, "every document has an _id"),
        ({"collections": {"users": {"a": {"key": "name"}}}}, "only keys and values"),
        ({"masks": {}}, "only collections and references"),
        ({"references": {"orders": "users._id"}}, "orders.user_id: users._id"),
        (
            {"collections": {"o": {"u": "name"}, "u": {"_id": "id"}}, "references": {"o.u": "u._id"}},
            "they would differ",
        ),
        ({"collections": {"o": {"**": "text"}}, "references": {"o.u": "u._id"}}, "they would differ"),
        ([], "is not a mapping"),
    ],
)
def test_a_mistake_in_the_rules_is_an_error_that_names_its_place(content: Any, why: str) -> None:
    with pytest.raises(ProvisionError, match=why):
        rules.parse(content, "masks.yaml")


def test_rules_that_found_nothing_are_named() -> None:
    found = rules.parse({"collections": {"x": {"name": "name", "emial": "email"}}}, "").rules("x")
    found.masked({"name": "Ada", "email": "ada@lovelace.example"}, MASKER)
    assert found.unused() == ["emial"]


def test_an_index_brings_no_value_along() -> None:
    found = rules.parse(
        {"collections": {"x": {"name": "name", "by": {"keys": "email"}, "gone": "remove"}}}, ""
    ).rules("x")

    def index(name: str, key: dict[str, Any], **options: Any) -> dict[str, Any]:
        return metadata.index({"v": 2, "name": name, "key": key, **options}, "x", found, MASKER)

    assert index("name_1", {"name": 1}, unique=True) == {"name": "name_1", "key": {"name": 1}, "unique": True}
    assert index("ix_x_name_unique", {"name": 1})["name"] == "ix_x_name_unique"
    assert index("for Ada Lovelace", {"name": 1})["name"] == "name_1"
    partial = index(
        "name_1", {"name": 1}, partialFilterExpression={"name": {"$eq": "Ada Lovelace"}, "n": {"$gt": 3}}
    )
    assert partial["partialFilterExpression"] == {
        "name": {"$eq": MASKER.mask("Ada Lovelace", "name")},
        "n": {"$gt": 3},
    }
    mailed = MASKER.mask("ada", "email")
    made = index("by.ada.n_1", {"by.ada.n": 1})
    assert made == {"name": f"by.{mailed}.n_1", "key": {f"by.{mailed}.n": 1}}
    for expression in (
        {"$expr": {"$eq": ["$name", "Ada"]}},
        {"name": {"$regex": "Ada"}},
        {"name": {"x": "Ada"}},
        {"gone": "Ada"},
    ):
        with pytest.raises(metadata.Refused):
            index("name_1", {"name": 1}, partialFilterExpression=expression)
    with pytest.raises(metadata.Refused):
        index("name_1", {"name": 1}, storageEngine={"x": "Ada"})
    options, left_out = metadata.collection_options({"capped": True, "validator": {"name": "Ada"}}, found)
    assert (options, left_out) == ({"capped": True}, ["validator"])


@pytest.mark.parametrize(
    ("text", "sample"), [("", Sample()), ("5%", Sample(0.05)), ("500", Sample(None, 500))]
)
def test_a_sample_is_a_share_or_a_number(text: str, sample: Sample) -> None:
    assert Sample.parse(text) == sample


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-1", "x", "5 %%"])
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ProvisionError, match="a share"):
        Sample.parse(text)


def test_errors_of_the_driver_are_shown_without_secrets() -> None:
    uri = "mongodb://reader:p%40ss@db.example:27017/shop"
    text = pulling.without_secrets(
        ValueError(f"bad {uri}: user reader, p@ss or p%40ss, full error: p@ss"), uri
    )
    assert "p@ss" not in text
    assert "p%40ss" not in text
    assert "reader" not in text
    with pytest.raises(ProvisionError) as raised:
        pulling.connect("mongodb://reader:p@ss@db/shop?x", "PULL_URI", "pulling")
    assert "ss@db" not in raised.value.text()
