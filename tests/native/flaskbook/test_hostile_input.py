"""Whatever is sent to a form or a JSON endpoint: never a 500, never a query operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flaskbook.application import create_app
from flaskbook.database import close

BOUNDED = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FORMS = {
    "/sign-up": ("first_name", "last_name", "age", "email", "password"),
    "/log-in": ("email", "password"),
    "/profile/edit": ("first_name", "last_name", "age"),
    "/account/email": ("email", "password"),
    "/account/password": ("current_password", "password"),
    "/account/delete": ("password",),
    "/log-out": (),
}

OPERATOR = {"$gt": ""}
text = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "\0", "\ud800", "a@b.c", "$gt", "1_0", "٣", "+5", "-0", "9" * 5000, "x" * 300, "\u202e"]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)
field_names = st.sampled_from(
    [*{name for names in FORMS.values() for name in names}, "$where", "email[$gt]", "_id"]
)


@pytest.fixture
def tokenless_client(make_app: Any) -> FlaskClient:
    """Return a client of an app that asks for no CSRF token, so that what is sent reaches the forms."""
    client: FlaskClient = make_app(WTF_CSRF_ENABLED=False).test_client()
    return client


@pytest.fixture(scope="module")
def app_of_the_file(mongodb: Any, test_config: dict[str, Any]) -> Iterator[Flask]:
    """An app with a database of its own, for tests after which it is as before."""
    with mongodb.new_database() as database:
        app = create_app({**test_config, "MONGODB_URI": mongodb.uri, "MONGODB_DATABASE": database.name})
        yield app
        close(app)


@pytest.fixture
def logged_in_again(app_of_the_file: Flask, register: Any) -> FlaskClient:
    """Return a client of it in which Ada has just logged in."""
    client = app_of_the_file.test_client()
    register(client)
    return client


def acceptable(answer: Any) -> None:
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("address", FORMS)
def test_an_operator_where_text_belongs_is_refused(
    logged_in_client: Any, database: Any, address: str
) -> None:
    before = list(database["user"].find())
    for name in FORMS[address]:
        for value in (OPERATOR, [OPERATOR], [], ["a"], True, 1.5):
            answer = logged_in_client.post(address, json={name: value})
            assert answer.status_code == 400 and "error" in answer.get_json()
    assert logged_in_client.post(address, json={"$where": "1"}).status_code == 400
    assert list(database["user"].find()) == before


def test_log_in_with_an_operator_for_a_password_fails(client: Any, ada: Any) -> None:
    client.post("/sign-up", json=ada)
    assert client.post("/log-in", json={"email": ada["email"], "password": OPERATOR}).status_code == 400
    assert client.post("/log-in", json={"email": OPERATOR, "password": ada["password"]}).status_code == 400


@pytest.mark.parametrize("address", FORMS)
def test_an_operator_in_a_form_array_is_refused(
    logged_in_client: Any, post_form: Any, database: Any, address: str
) -> None:
    before = list(database["user"].find())
    for name in (*FORMS[address], "email"):
        fields = {f"{name}[$gt]": "", f"{name}[]": "a"}
        assert post_form(logged_in_client, address, fields, page="/profile").status_code == 400
    assert list(database["user"].find()) == before


def test_an_operator_in_a_query_string_is_refused(client: Any) -> None:
    for query in ("last_name[$gt]=", "min_age[$gt]=1", "$where=1", "after[$gt]="):
        assert client.get(f"/people?{query}").status_code == 400


@pytest.mark.parametrize("address", FORMS)
@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "1",
        "[" * 30_000,
        '{"a":' * 10_000,
        '{"age": ' + "1" * 5000 + "}",
    ],
    ids=lambda body: f"{body[:6]}-{len(body)}",
)
def test_malformed_json_is_a_400(logged_in_again: Any, address: str, body: str) -> None:
    answer = logged_in_again.post(address, data=body.encode(), content_type="application/json")
    assert answer.status_code == 400 and answer.get_json()["error"]["status"] == 400


def test_bytes_that_are_not_utf8_are_a_400(client: Any) -> None:
    answer = client.post("/log-in", data=b'{"email": "\xff"}', content_type="application/json")
    assert answer.status_code == 400


def test_too_large_a_body_is_a_413(client: Any, ada: Any) -> None:
    answer = client.post("/sign-up", json={**ada, "first_name": "x" * 100_000})
    assert answer.status_code == 413 and answer.get_json()["error"]["status"] == 413
    assert client.post("/sign-up", data={"first_name": "x" * 100_000}).status_code == 413


@pytest.mark.parametrize(
    "change",
    [
        {"first_name": "A\0da"},
        {"first_name": "\ud800"},
        {"last_name": "x" * 101},
        {"last_name": "   "},
        {"last_name": "\u202eevil"},
        {"age": -1},
        {"age": 151},
        {"age": "1_0"},
        {"age": "٣"},
        {"age": 10**30},
        {"email": "a@b@c"},
        {"email": "a@" + "b" * 300},
        {"email": "a\0@example.org"},
        {"password": "too short"},
        {"password": "x" * 257},
        {"password": "long enough\0"},
        {"password": "long enough\ud800"},
    ],
    ids=str,
)
def test_a_wrong_value_is_named_in_both_formats(
    client: Any, ada: Any, post_form: Any, database: Any, change: dict[str, Any]
) -> None:
    field = next(iter(change))
    answer = client.post("/sign-up", json={**ada, **change})
    assert answer.status_code == 400 and field in answer.get_json()["error"]["fields"]
    if "\ud800" not in str(change[field]):  # can't be written in a form at all
        page = post_form(client, "/sign-up", {**ada, **change})
        assert page.status_code == 400 and f'id="{field}-error"' in page.text
    assert database["user"].count_documents({}) == 0


@BOUNDED
@given(address=st.sampled_from([*FORMS]), body=st.one_of(values, st.dictionaries(field_names, values)))
def test_any_json_is_answered(logged_in_client: Any, address: str, body: Any) -> None:
    acceptable(logged_in_client.post(address, data=json.dumps(body), content_type="application/json"))


@BOUNDED
@given(address=st.sampled_from([*FORMS]), data=st.data())
def test_any_text_in_json_fields_is_answered_and_stored_as_text(
    logged_in_client: Any, database: Any, address: str, data: Any
) -> None:
    body = {name: data.draw(st.one_of(text, st.integers(-5, 200)), label=name) for name in FORMS[address]}
    acceptable(logged_in_client.post(address, data=json.dumps(body), content_type="application/json"))
    for user in database["user"].find():
        assert isinstance(user["name"]["last_name"], str) and isinstance(user["email"], str)
        assert isinstance(user.get("age", 0), int)


@BOUNDED
@given(
    fields=st.dictionaries(st.one_of(field_names, st.text(max_size=10)), text),
    address=st.sampled_from([*FORMS]),
)
def test_any_form_is_answered(tokenless_client: Any, address: str, fields: dict[str, str]) -> None:
    encodable = {
        key.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
        for key, value in fields.items()
    }
    acceptable(tokenless_client.post(address, data=encodable))


@BOUNDED
@given(
    body=st.binary(max_size=200),
    content_type=st.sampled_from(
        [
            "application/json",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
            "text/plain",
            "application/x+json",
            "",
        ]
    ),
)
def test_any_bytes_are_answered(tokenless_client: Any, body: bytes, content_type: str) -> None:
    for address in FORMS:
        acceptable(tokenless_client.post(address, data=body, content_type=content_type))


@BOUNDED
@given(
    query=st.dictionaries(
        st.one_of(st.sampled_from(["last_name", "min_age", "max_age", "after", "next"]), st.text(max_size=8)),
        text,
    ),
    address=st.sampled_from(["/people", "/log-in", "/"]),
)
def test_any_query_string_is_answered(client: Any, query: dict[str, str], address: str) -> None:
    from urllib.parse import urlencode

    acceptable(client.get(f"{address}?{urlencode(query, errors='surrogatepass')}"))


@BOUNDED
@given(values=values)
def test_any_position_is_answered(client: Any, values: Any) -> None:
    import base64

    raw = json.dumps([values, values, "0" * 24]).encode()
    token = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    acceptable(client.get("/people", query_string={"after": token}))
