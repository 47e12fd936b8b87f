"""`app.env`: Jinja templates over what is known of the database."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from provision.app.launch import Database, render_environment
from provision.core.errors import ProvisionError
from provision.settings.schema import DEFAULT_APP_ENV

ROOT = Path(__file__).resolve().parents[2]
DATABASE = Database(
    uri="mongodb://127.0.0.1:27017/shop?replicaSet=rs0",
    host="127.0.0.1",
    port=27017,
    database="shop",
    username="",
    password="",
    secret_key_file="/project/.state/secret_key",
    secret_key="0123abcd",
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


def test_without_authentication_an_app_has_an_empty_username_and_password_under_every_name() -> None:
    rendered = render_environment(DEFAULT_APP_ENV, DATABASE)
    names = [name for name in DEFAULT_APP_ENV if "USER" in name or "PASS" in name]
    assert {"MONGODB_USERNAME", "MONGO_USERNAME", "MONGO_USER", "MONGODB_PASSWORD", "MONGO_PASS"} <= set(
        names
    )
    assert {name: rendered[name] for name in names} == dict.fromkeys(names, "")


@pytest.mark.parametrize("name", ["MONGO_DBNAME", "MONGODB_NAME", "MONGO_DB", "MONGO_DATABASE", "DB_NAME"])
def test_the_databases_name_is_there_under_the_names_that_apps_use(name: str) -> None:
    assert render_environment(DEFAULT_APP_ENV, DATABASE)[name] == "shop"


def test_the_secret_key_is_there_as_a_file_and_as_text() -> None:
    rendered = render_environment(DEFAULT_APP_ENV, DATABASE)
    assert (rendered["SECRET_KEY"], rendered["SECRET_KEY_FILE"]) == ("0123abcd", "/project/.state/secret_key")


def test_a_name_that_other_databases_use_too_is_not_among_the_defaults() -> None:
    assert not {"DATABASE_URL", "DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD"} & set(DEFAULT_APP_ENV)


def test_the_table_in_the_docs_has_each_name_once_and_no_other() -> None:
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", text, re.MULTILINE)
    assert sorted(name for name, _ in table) == sorted(DEFAULT_APP_ENV)


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
