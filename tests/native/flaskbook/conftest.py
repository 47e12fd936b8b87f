"""Applications on a real database, and clients of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo.database import Database

from flaskbook.application import create_app
from flaskbook.database import close

# argon2 as cheap as it goes, and limits that only the tests of limits reach.
TEST_CONFIG: dict[str, Any] = {
    "TESTING": True,
    "ARGON2_TIME_COST": 1,
    "ARGON2_MEMORY_KIB": 8,
    "ARGON2_PARALLELISM": 1,
    "LOGIN_LIMIT_PER_EMAIL_AND_CLIENT": 100_000,
    "LOGIN_LIMIT_PER_EMAIL": 100_000,
    "LOGIN_LIMIT_PER_CLIENT": 100_000,
    "CLAIM_LIMIT_PER_CLIENT": 100_000,
    # Errors become the pages that a user would see.
    "PROPAGATE_EXCEPTIONS": False,
}

ADA: dict[str, Any] = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "age": 36,
    "email": "ada@example.org",
    "password": "analytical engine",
}

MakeApp = Callable[..., Flask]
Register = Callable[..., dict[str, Any]]
PostForm = Callable[..., Any]


@pytest.fixture(scope="session")
def test_config() -> dict[str, Any]:
    """Return the settings of every app here."""
    return dict(TEST_CONFIG)


@pytest.fixture
def make_app(
    mongodb: Any, database: Database[dict[str, Any]], test_config: dict[str, Any]
) -> Iterator[MakeApp]:
    """Return a function that builds an app on this test's database, with settings given as keywords."""
    apps: list[Flask] = []

    def make(**config: Any) -> Flask:
        base = {**test_config, "MONGODB_URI": mongodb.uri, "MONGODB_DATABASE": database.name}
        apps.append(create_app({**base, **config}))
        return apps[-1]

    yield make
    for app in apps:
        close(app)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def ada() -> dict[str, Any]:
    """Return the fields of a sign-up."""
    return dict(ADA)


@pytest.fixture
def register() -> Register:
    """Return a function that signs up and logs in with JSON, Ada unless told otherwise; it returns the own profile."""

    def sign_up_and_log_in(client: FlaskClient, **changes: Any) -> dict[str, Any]:
        person = {**ADA, **changes}
        assert client.post("/sign-up", json=person).status_code == 202
        answer = client.post("/log-in", json={"email": person["email"], "password": person["password"]})
        assert answer.status_code == 200, answer.text
        profile: dict[str, Any] = answer.get_json()
        return profile

    return sign_up_and_log_in


@pytest.fixture
def logged_in_client(app: Flask, register: Register) -> FlaskClient:
    """Return a client in which Ada has signed up and logged in."""
    client = app.test_client()
    register(client)
    return client


@pytest.fixture
def post_form() -> PostForm:
    """Return a function that sends a form as a browser does: with the token from the page that shows the form.

    Its arguments: the client, the form's address, its fields, and the address of that page if it is another one.
    """

    def fetch_and_post(
        client: FlaskClient, address: str, fields: dict[str, Any], page: str | None = None
    ) -> Any:
        found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(page or address).text)
        assert found, "the page has no form"
        return client.post(address, data={**fields, "csrf_token": found.group(1)})

    return fetch_and_post
