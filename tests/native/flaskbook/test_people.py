"""The people list: order, search, age filter, pages, and the index behind it."""

from __future__ import annotations

from typing import Any

import pytest
from bson import ObjectId

from flaskbook.user.model import PEOPLE_COLLATION, Position, find_people, people_filter

JSON = {"Accept": "application/json"}
NAMES = [
    "Müller",
    "mueller",
    "Muller",
    "Mu",
    "Nuñez",
    "de la Cruz",
    "O'Neil",
    "Zhāng",
    "張",
    "M.*",
    "$gt",
    "%_",
]


def insert(database: Any, names: list[str], **fields: Any) -> None:
    documents = [
        {"name": {"first_name": f"F{n}", "last_name": name}, **fields} for n, name in enumerate(names)
    ]
    database["user"].insert_many(documents)


def last_names(client: Any, **query: Any) -> list[str]:
    answer = client.get("/people", query_string=query, headers=JSON)
    assert answer.status_code == 200, answer.text
    return [person["name"]["last_name"] for person in answer.get_json()["people"]]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("mu", ["Mu", "mueller", "Müller", "Muller"]),
        ("MÜL", ["Müller", "Muller"]),
        ("o'", ["O'Neil"]),
        ("zhang", ["Zhāng"]),
        ("m.*", ["M.*"]),
        ("$gt", ["$gt"]),
        ("^m", []),
    ],
)
def test_search_finds_the_beginning_of_last_names(
    client: Any, database: Any, search: str, found: list[str]
) -> None:
    insert(database, NAMES)
    assert last_names(client, last_name=search) == found


def test_age_filter(client: Any, database: Any) -> None:
    for age in (0, 17, 18, 40, 150):
        insert(database, [f"Aged {age:03}"], age=age)
    insert(database, ["Ageless"])
    assert last_names(client) == ["Aged 000", "Aged 017", "Aged 018", "Aged 040", "Aged 150", "Ageless"]
    assert last_names(client, min_age=18) == ["Aged 018", "Aged 040", "Aged 150"]
    assert last_names(client, max_age=17) == ["Aged 000", "Aged 017"]
    assert last_names(client, min_age=17, max_age=18) == ["Aged 017", "Aged 018"]
    assert last_names(client, min_age="", max_age="", last_name="agel") == ["Ageless"]


@pytest.mark.parametrize(
    "query",
    [
        {"min_age": "x"},
        {"min_age": "-1"},
        {"max_age": "151"},
        {"min_age": 5, "max_age": 4},
        {"after": "junk"},
    ],
)
def test_a_wrong_query_is_explained(client: Any, query: dict[str, Any]) -> None:
    assert client.get("/people", query_string=query).status_code == 400
    answer = client.get("/people", query_string=query, headers=JSON)
    assert answer.status_code == 400 and answer.get_json()["error"]["fields"]


def test_pages_show_everybody_once_whatever_the_names(make_app: Any, database: Any) -> None:
    client = make_app(PEOPLE_PER_PAGE=4).test_client()
    insert(database, NAMES + ["Same"] * 9)
    database["user"].insert_many([{"name": {"first_name": "Same", "last_name": "same"}} for _ in range(9)])
    seen, address = [], "/people"
    while address:
        page = client.get(address, headers=JSON).get_json()
        assert len(page["people"]) <= 4
        seen += [person["id"] for person in page["people"]]
        address = page["next"]
    assert len(seen) == len(set(seen)) == len(NAMES) + 18


def test_pages_keep_their_place_when_people_come_and_go(make_app: Any, database: Any) -> None:
    client = make_app(PEOPLE_PER_PAGE=2).test_client()
    insert(database, ["B", "C", "D", "E"])
    following = client.get("/people", headers=JSON).get_json()["next"]
    insert(database, ["A"])
    database["user"].delete_one({"name.last_name": "C"})
    page = client.get(following, headers=JSON).get_json()
    assert [person["name"]["last_name"] for person in page["people"]] == ["D", "E"]


def test_the_list_and_the_search_are_served_from_the_index(app: Any, database: Any) -> None:
    insert(database, [f"Name {n}" for n in range(300)])
    with app.app_context():
        find_people(limit=1)
    after = Position("Name 20", "F20", str(ObjectId()))
    for place in (None, after):
        for search in ("", "name 2"):
            cursor = database["user"].find(
                people_filter(search, None, None, place), collation=PEOPLE_COLLATION
            )
            cursor.sort([("name.last_name", 1), ("name.first_name", 1), ("_id", 1)]).limit(10)
            plan = cursor.explain()
            assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
            assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])
            assert plan["executionStats"]["totalDocsExamined"] <= 40


def test_empty_states(client: Any, database: Any) -> None:
    assert "Nobody is here yet" in client.get("/people").text
    insert(database, ["A"])
    assert "Nobody matches" in client.get("/people?last_name=z").text


def test_a_public_page_shows_no_address(client: Any, register: Any, app: Any) -> None:
    profile = register(app.test_client())
    for headers in ({}, JSON):
        for address in (profile["url"], "/people"):
            answer = client.get(address, headers=headers)
            assert answer.status_code == 200 and "Lovelace" in answer.text
            assert "ada@example.org" not in answer.text


@pytest.mark.parametrize("person_id", ["0" * 24, "x", "0" * 23, "G" * 24, "%00", "[$gt]", "0" * 3000])
def test_nobody_is_found_under_a_wrong_id(client: Any, person_id: str) -> None:
    assert client.get(f"/people/{person_id}").status_code == 404


def test_names_are_escaped_in_pages(client: Any, register: Any) -> None:
    profile = register(client, first_name="<script>alert(1)</script>", last_name='"><img src=x>')
    for address in ("/people", "/profile", "/profile/edit", profile["url"]):
        text = client.get(address).text
        assert "<script" not in text and "<img src=x" not in text


def test_documents_from_elsewhere_do_not_break_the_list(client: Any, database: Any) -> None:
    database["user"].insert_many([{}, {"name": None}, {"name": {"last_name": "Only"}, "shoe_size": 39}])
    assert last_names(client) == ["Only"]


def test_indexes_can_be_created_ahead_of_the_first_use(app: Any, database: Any) -> None:
    for _ in range(2):
        assert app.test_cli_runner().invoke(args=["user", "create-indexes"]).exit_code == 0
    people = database["user"].index_information()["people"]
    assert people["key"][0] == ("name.last_name", 1)
    assert database["attempts"].index_information()["expires"]["expireAfterSeconds"] == 0
