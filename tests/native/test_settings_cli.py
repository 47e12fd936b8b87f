"""Settings as a person writes them: in files, in the environment, as flags. One clear error for what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.clones import Clone


def listed(
    clone: Clone, *arguments: str, env: dict[str, str | None] | None = None
) -> dict[str, dict[str, Any]]:
    """`invoke settings --json`, by key."""
    found = json.loads(clone.succeeds(*arguments, "settings", "--json", env=env))
    return {each["key"]: each for each in found}


def test_every_value_says_where_it_came_from(clone: Clone, tmp_path: Any) -> None:
    (clone.home / ".invoke.yaml").write_text("app:\n  ready_path: /from-home\nother: {tool: 1}\n")
    own = tmp_path / "own.yaml"
    own.write_text("paths: {log: ~/logs}\n")
    found = listed(clone, "-f", str(own))
    ready = found["app.ready_path"]
    assert (ready["value"], ready["origin"], ready["line"]) == ("/from-home", "~/.invoke.yaml", 2)
    assert found["app.database"]["origin"] == "invoke.yaml"
    assert found["paths.log"]["origin"] == str(own)
    assert found["app.port"]["origin"] == "environment INVOKE_APP_PORT"
    assert all(each["description"] for each in found.values())


def test_false_in_the_environment_is_false(clone: Clone) -> None:
    assert listed(clone, env={"INVOKE_APP_RELOAD": "false"})["app.reload"]["value"] is False
    assert listed(clone, env={"INVOKE_APP_RELOAD": "true"})["app.reload"]["value"] is True


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("INVOKE_APP_PORT", "abc", ["app.port", "'abc'", "whole number"]),
        ("INVOKE_MONGODB_START_TIMEOUT", "soon", ["mongodb.start_timeout", "'soon'", "number"]),
        ("INVOKE_APP_PROT", "1", ["INVOKE_APP_PROT", "no such setting", "INVOKE_APP_PORT"]),
    ],
)
def test_a_wrong_environment_variable_is_one_error_that_names_it(
    clone: Clone, variable: str, value: str, words: list[str]
) -> None:
    said = clone.fails("settings", env={variable: value})
    assert variable in said
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("app: {prot: 1}", ["invoke.yaml, line 1: app.prot", "did you mean port?", "Allowed in app:"]),
        ("apps: {port: 1}", ["invoke.yaml, line 1: apps", "did you mean app?"]),
        ("app: {port: many}", ["invoke.yaml, line 1: app.port", "'many'", "whole number"]),
        ("app: 3", ["invoke.yaml, line 1: app", "section"]),
        ("- a\n- b", ["invoke.yaml", "sections"]),
    ],
)
def test_a_wrong_file_is_one_error_that_names_file_key_and_what_is_allowed(
    clone: Clone, text: str, words: list[str]
) -> None:
    (clone.root / "invoke.yaml").write_text(text + "\n")
    said = clone.fails("settings", env={"INVOKE_APP_PORT": None, "INVOKE_DEPLOYMENTS_LOCAL_PORT": None})
    assert [word for word in words if word not in said] == [], said


def test_all_that_is_wrong_is_named_at_once(clone: Clone) -> None:
    (clone.root / "invoke.yaml").write_text("app: {port: x, reload: 7}\nmongodb: {source: y}\n")
    said = clone.fails("settings", env={"INVOKE_APP_PORT": None, "INVOKE_MONGODB_SOURCE": None})
    assert [key for key in ("app.port", "app.reload", "mongodb.source") if key not in said] == []


@pytest.mark.parametrize(
    ("text", "place"), [("app: {port: 1", "line 2"), ("app:\n\tport: 1", "line 2"), ("a: b: c", "line 1")]
)
def test_invalid_yaml_is_one_error_with_its_line(clone: Clone, text: str, place: str) -> None:
    (clone.root / "invoke.yaml").write_text(text + "\n")
    said = clone.fails("settings")
    assert "invoke.yaml, " + place in said
    assert "not valid YAML" in said


def test_a_wrong_key_in_the_users_own_file_names_that_file(clone: Clone) -> None:
    (clone.home / ".invoke.yaml").write_text("app: {prot: 1}\n")
    assert "~/.invoke.yaml, line 1: app.prot" in clone.fails("settings")
    (clone.home / ".invoke.yaml").write_text("app: {port\n")
    assert "~/.invoke.yaml, line" in clone.fails("settings")


def test_a_wrong_key_in_a_file_given_by_flag_names_that_file(clone: Clone, tmp_path: Any) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("mongodb: {sauce: auto}\n")
    said = clone.fails("-f", str(own), "settings")
    assert f"{own}, line 1: mongodb.sauce" in said
    own.write_text("mongodb: {\n")
    assert f"{own}" in clone.fails("-f", str(own), "settings")


def test_a_flag_wins_over_the_environment_and_is_named_when_wrong(clone: Clone) -> None:
    said = clone.fails("run", "--port", "70000")
    assert "--port" in said
    assert "app.port" in said
    assert "65535" in said


def test_settings_without_an_environment_are_those_of_the_file(clone: Clone) -> None:
    bare = {name: None for name in clone.environment if name.startswith("INVOKE_")}
    found = listed(clone, env=bare)
    assert {each["origin"] for each in found.values()} <= {"invoke.yaml", "default"}
    assert found["app.port"]["value"] == 8000


def test_a_mistake_in_the_settings_stops_every_task_before_it_does_anything(clone: Clone) -> None:
    clone.change_settings(lambda settings: settings["app"].update(colour="blue"))
    for task in ("setup", "start", "stop", "status", "run"):
        assert "app.colour" in clone.fails(task)
    assert not (clone.root / "data").exists()
