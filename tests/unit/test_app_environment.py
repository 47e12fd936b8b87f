"""`app.env`: Jinja templates over what is known of the database."""

from __future__ import annotations

import json

import pytest

from provision.app.launch import Database, render_environment
from provision.core.errors import ProvisionError
from provision.settings.schema import DEFAULT_APP_ENV

DATABASE = Database(
    uri="mongodb://127.0.0.1:27017/shop?replicaSet=rs0",
    host="127.0.0.1",
    port=27017,
    database="shop",
    username="",
    password="",
    secret_key_file="/project/.state/secret_key",
)


def test_the_defaults_cover_the_common_names() -> None:
    found = render_environment(DEFAULT_APP_ENV, DATABASE)
    assert {found[name] for name in ("MONGO_URI", "MONGODB_URI", "MONGO_URL", "FLASK_MONGO_URI")} == {
        DATABASE.uri
    }
    assert (found["MONGODB_HOST"], found["MONGODB_PORT"], found["MONGODB_DB"]) == (
        "127.0.0.1",
        "27017",
        "shop",
    )
    assert json.loads(str(found["FLASK_MONGODB_SETTINGS"])) == {"host": DATABASE.uri}
    assert found["SECRET_KEY_FILE"] == DATABASE.secret_key_file


def test_what_renders_to_nothing_is_taken_from_the_app() -> None:
    rendered = render_environment(DEFAULT_APP_ENV, DATABASE)
    assert [rendered[name] for name in ("MONGODB_USERNAME", "MONGODB_PASSWORD")] == [None, None]


def test_null_takes_a_variable_from_the_app() -> None:
    assert render_environment({"A": None, "B": "b"}, DATABASE) == {"A": None, "B": "b"}


def test_text_is_not_escaped_as_if_it_were_a_page() -> None:
    assert render_environment({"A": "{{ uri }}&<>"}, DATABASE) == {"A": DATABASE.uri + "&<>"}


@pytest.mark.parametrize(
    ("template", "words"), [("{{ url }}", "'url' is undefined"), ("{{ uri", "unexpected")]
)
def test_a_template_that_will_not_do_is_named(template: str, words: str) -> None:
    with pytest.raises(ProvisionError) as error:
        render_environment({"OWN": template}, DATABASE)
    assert "app.env.OWN" in error.value.cause
    assert words in error.value.cause
    assert "uri, host, port" in error.value.remedy
