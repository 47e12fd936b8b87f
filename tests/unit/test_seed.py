"""The people that `seed` makes."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from flaskbook.user.model import AGE_MAX, NAME_LENGTH, Person
from provision.data.seed import people


def test_the_same_seed_gives_the_same_people() -> None:
    assert list(people(6000, 7)) == list(people(6000, 7))


def test_another_seed_gives_other_people() -> None:
    assert list(people(100, 7)) != list(people(100, 8))


@pytest.mark.parametrize("count", [0, 1, 4999, 5000, 5001, 12_345])
def test_as_many_as_asked_for_are_made(count: int) -> None:
    assert sum(1 for _ in people(count, 1)) == count


def test_the_app_shows_them_as_it_shows_its_own_people() -> None:
    for document in people(2000, 1):
        person = Person.from_document({"_id": "x", **document})
        assert 0 < len(person.first_name) <= NAME_LENGTH
        assert 0 < len(person.last_name) <= NAME_LENGTH
        assert person.age is None or 18 <= person.age <= AGE_MAX


def test_nobody_has_an_account() -> None:
    assert not {"email", "password_hash"} & {key for document in people(100, 1) for key in document}


def test_some_keep_their_age_to_themselves() -> None:
    without = sum("age" not in document for document in people(5000, 1))
    assert 100 < without < 500


def test_names_are_frequent_and_rare_as_in_life() -> None:
    counted = Counter(document["name"]["last_name"] for document in people(20_000, 1))
    assert len(counted) > 150
    assert counted.most_common(1)[0][1] > 5 * min(counted.values())


def test_the_first_people_come_before_all_are_made() -> None:
    assert len(list(islice(people(10**9, 1), 10))) == 10
