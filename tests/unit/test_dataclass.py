"""Our `dataclass` is that of the standard library in all but the time that it takes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest
from pydantic import TypeAdapter

from provision.core.dataclass import dataclass


@dataclass(frozen=True)
class Ours:
    name: str
    secret: str = field(default="hidden", repr=False)
    note: dict[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Below(Ours):
    port: int = 27017


Theirs = dataclasses.make_dataclass(
    "Ours",
    [
        ("name", str),
        ("secret", str, field(default="hidden", repr=False)),
        ("note", dict[str, int], field(default_factory=dict, compare=False)),
    ],
    frozen=True,
)


@dataclass(frozen=True)
class OfItsOwn:
    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OfItsOwn)

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "it"


@pytest.mark.parametrize(
    "ask",
    [
        lambda made: repr(made("a")),
        lambda made: made("a") == made("a", note={"x": 1}),
        lambda made: made("a") == made("b"),
        lambda made: made("a") == "a",
        lambda made: len({made("a"), made("a"), made("b")}),
        lambda made: dataclasses.asdict(made("a", note={"x": 1})),
        lambda made: dataclasses.asdict(dataclasses.replace(made("a"), secret="s")),
        lambda made: [each.name for each in dataclasses.fields(made)],
        lambda made: made.__match_args__,
        lambda made: copy.deepcopy(made("a")) == made("a"),
        lambda made: dataclasses.asdict(TypeAdapter(made).validate_python({"name": "a", "note": {"x": "1"}})),
    ],
)
def test_it_answers_as_the_library_s_does(ask: Callable[[Any], object]) -> None:
    assert ask(Ours) == ask(Theirs)


@pytest.mark.parametrize("made", [Ours("a"), Below("a"), Theirs("a")])
def test_nothing_of_it_can_be_changed(made: Any) -> None:
    for change in (
        lambda: setattr(made, "name", "b"),
        lambda: setattr(made, "note", {}),
        lambda: setattr(made, "another", 1),
        lambda: delattr(made, "name"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert made.name == "a"


def test_a_class_below_has_its_own_attributes_and_is_no_equal_of_the_one_above() -> None:
    assert Below("a", port=1) != Below("a", port=2)
    assert Below("a") != Ours("a")
    assert repr(Below("a")) == "Below(name='a', note={}, port=27017)"
    assert pickle.loads(pickle.dumps(Below("a", port=1))) == Below("a", port=1)


def test_methods_of_its_own_stay() -> None:
    assert OfItsOwn("a") == OfItsOwn("b")
    assert hash(OfItsOwn("a")) == 1
    assert repr(OfItsOwn("a")) == "it"
    with pytest.raises(dataclasses.FrozenInstanceError):
        OfItsOwn("a").name = "b"  # type: ignore[misc]


def test_one_that_is_not_frozen_is_the_library_s() -> None:
    @dataclass
    class Changing:
        name: str

    made = Changing("a")
    made.name = "b"
    assert made == Changing("b")
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)


@pytest.mark.parametrize(
    "make",
    [
        lambda made: made("a", "s", {"x": 1}),
        lambda made: made(name="a", secret="s"),
        lambda made: made(),
        lambda made: made("a", another=1),
        lambda made: made("a", "s", {}, 1),
        lambda made: made("a", name="b"),
    ],
)
def test_objects_are_made_as_the_library_makes_them(make: Callable[[Any], object]) -> None:
    def outcome(made: Any) -> str:
        try:
            return repr(dataclasses.astuple(make(made)))
        except TypeError as error:
            return str(error)

    @dataclass(frozen=True)
    class New:
        name: str
        secret: str = field(default="hidden", repr=False)
        note: dict[str, int] = field(default_factory=dict, compare=False)

    New.__qualname__ = "Ours"
    assert [outcome(New), outcome(New)] == [outcome(Theirs)] * 2


def test_each_object_has_what_its_factory_makes_and_is_looked_at_when_it_is_made() -> None:
    @dataclass(frozen=True)
    class Checked:
        note: dict[str, int] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if "bad" in self.note:
                raise ValueError("bad")

    assert Checked().note is not Checked().note
    with pytest.raises(ValueError, match="bad"):
        Checked({"bad": 1})


def test_attributes_given_by_name_alone() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Named:
        name: str

    assert Named(name="a").name == "a"
    with pytest.raises(TypeError):
        Named("a")  # type: ignore[misc]
