"""The tour of MongoDB, on a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from provision.cli.tour import STAGES, Stage, StageResult, run_tour
from provision.core.errors import ProvisionError
from tests.support.processes import free_port

# Tells the name of the scratch database, and sees to it that there is one.
NAME = Stage("Name", "Names the database.", "db.t.insert_one({})\ndb.name", "db.getName()")


@pytest.fixture(scope="module")
def client(mongodb: Any) -> MongoClient[Any]:
    connected: MongoClient[Any] = mongodb.client
    return connected


@pytest.fixture(scope="module")
def results(client: MongoClient[Any]) -> dict[str, Any]:
    """Title → value of every stage of the tour."""
    return {result.stage.title: result.value for result in run_tour(client, lambda _: None)}


def last_names(documents: list[dict[str, Any]]) -> list[str]:
    return [document["last_name"] for document in documents]


def stages_of(plan: dict[str, Any]) -> list[str]:
    return [plan["stage"], *(stages_of(plan["inputStage"]) if "inputStage" in plan else [])]


def test_the_tour_goes_through_all_first_steps(results: dict[str, Any]):
    assert list(results) == [stage.title for stage in STAGES]


def test_insert_gives_every_document_an_id(results: dict[str, Any]):
    assert results["Insert"]["acknowledged"] is True
    assert len(set(results["Insert"]["inserted_ids"])) == 3


def test_find_all_finds_all(results: dict[str, Any]):
    assert last_names(results["Find all"]) == ["Lovelace", "Hopper", "Turing"]
    assert [each["_id"] for each in results["Find all"]] == results["Insert"]["inserted_ids"]


def test_find_by_last_name_finds_one(results: dict[str, Any]):
    assert last_names(results["Find by last name"]) == ["Hopper"]


def test_the_index_turns_a_collection_scan_into_an_index_scan(results: dict[str, Any]):
    assert stages_of(results["See how it was found"]) == ["COLLSCAN"]
    assert results["Create an index"] == "last_name_1"
    assert stages_of(results["See what the index does"]) == ["FETCH", "IXSCAN"]


def test_a_new_attribute_needs_no_other_schema(results: dict[str, Any]):
    assert results["Insert with a new attribute"]["languages"] == ["FORTRAN", "English"]
    assert all("languages" not in each for each in results["Find all"])


def test_a_nested_document_is_found_by_what_it_holds(results: dict[str, Any]):
    assert results["Nested document"]["name"] == {"first_name": "Annie", "last_name": "Easley"}


def test_age_below_40_leaves_the_others_out(results: dict[str, Any]):
    assert [each["age"] for each in results["Age below 40"]] == [28, 36]


def test_set_changes_one_field_and_keeps_the_others(results: dict[str, Any]):
    (before,) = (each for each in results["Find all"] if each["last_name"] == "Lovelace")
    assert results["Update with $set"] == {**before, "age": 37}


def test_the_database_is_gone_afterwards(client: MongoClient[Any]):
    there: list[bool] = []

    def look(result: StageResult) -> None:
        there.append(result.value in client.list_database_names())

    (result,) = run_tour(client, look, stages=[NAME])
    assert there == [True]
    assert result.value not in client.list_database_names()


def test_every_tour_has_a_database_of_its_own(client: MongoClient[Any]):
    first, second = (run_tour(client, lambda _: None, stages=[NAME])[0].value for _ in range(2))
    assert first != second


def test_results_are_shown_as_they_come_with_a_pause_between(client: MongoClient[Any]):
    events: list[object] = []
    run_tour(client, lambda result: events.append(result.number), lambda: events.append("pause"), STAGES[:3])
    assert events == [1, "pause", 2, "pause", 3]


def test_what_is_shown_is_what_ran(client: MongoClient[Any]):
    mine = Stage("Add", "Sums.", "db.sums.insert_one({'_id': 1})\n1 + 1", "1 + 1")
    (result,) = run_tour(client, lambda _: None, stages=[mine])
    assert result.value == 2
    assert "    db.sums.insert_one({'_id': 1})\n    1 + 1" in result.text()
    assert result.text().endswith("Result:\n    2")


def test_every_result_has_a_text_and_a_json_form(client: MongoClient[Any]):
    for result in run_tour(client, lambda _: None):
        form = json.loads(json.dumps(result.as_json()))
        assert list(form) == ["number", "title", "lesson", "python", "mongosh", "result"]
        assert form["result"] is not None
        assert max(map(len, result.text().splitlines())) <= 120
    assert form["result"]["_id"].keys() == {"$oid"}


@pytest.mark.parametrize(
    ("python", "raised"), [("1 / 0", ZeroDivisionError), ("db.t.find({'$no': 1})", ProvisionError)]
)
def test_the_database_is_gone_when_a_stage_fails(
    client: MongoClient[Any], python: str, raised: type[Exception]
):
    shown: list[StageResult] = []
    with pytest.raises(raised):
        run_tour(client, shown.append, stages=[NAME, Stage("Fail", "Failing.", python, ""), STAGES[0]])
    assert [result.number for result in shown] == [1]
    assert shown[0].value not in client.list_database_names()


def test_a_refused_stage_is_named(client: MongoClient[Any]):
    with pytest.raises(
        ProvisionError, match=r"(?s)stage 1 of the tour \(Fail\).*unknown top level operator: \$no"
    ):
        run_tour(client, lambda _: None, stages=[Stage("Fail", "Failing.", "db.t.find({'$no': 1})", "")])


@pytest.mark.parametrize("interrupted_in", ["show", "pause"])
def test_the_database_is_gone_after_ctrl_c(client: MongoClient[Any], interrupted_in: str):
    shown: list[StageResult] = []

    def show(result: StageResult) -> None:
        shown.append(result)
        if interrupted_in == "show":
            raise KeyboardInterrupt

    def pause() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tour(client, show, pause, [NAME, *STAGES])
    assert len(shown) == 1
    assert shown[0].value not in client.list_database_names()


def test_a_second_ctrl_c_does_not_keep_the_database(
    client: MongoClient[Any], monkeypatch: pytest.MonkeyPatch
):
    shown: list[StageResult] = []
    dropped: list[str] = []
    drop = client.drop_database

    def impatient(name: str) -> None:
        dropped.append(name)
        if len(dropped) == 1:
            raise KeyboardInterrupt
        drop(name)

    monkeypatch.setattr(client, "drop_database", impatient)
    with pytest.raises(KeyboardInterrupt):
        run_tour(client, shown.append, stages=[NAME])
    assert dropped == [shown[0].value] * 2
    assert shown[0].value not in client.list_database_names()


def test_a_server_that_is_gone_is_an_error_that_names_what_stays_behind():
    with (
        MongoClient("127.0.0.1", free_port(), serverSelectionTimeoutMS=50) as nobody,
        pytest.raises(ProvisionError, match=r"(?s)tour_[0-9a-f]{12}.*client\.drop_database") as caught,
    ):
        run_tour(nobody, lambda _: None)
    assert isinstance(caught.value.__cause__, PyMongoError)


def test_other_databases_are_left_alone(client: MongoClient[Any]):
    client["tour_of_mine"].t.insert_one({"_id": 1})
    try:
        run_tour(client, lambda _: None)
        assert client["tour_of_mine"].t.find_one() == {"_id": 1}
    finally:
        client.drop_database("tour_of_mine")
