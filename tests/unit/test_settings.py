"""Typed settings: layers, origins, and one clear error for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.core.errors import ProvisionError
from provision.settings.loading import Layer, Loaded, load

ROOT = Path(__file__).resolve().parents[2]


def loaded(
    *layers: tuple[str, Any],
    environ: dict[str, str] | None = None,
    flags: dict[str, tuple[str, Any]] | None = None,
) -> Loaded:
    return load(Path("/project"), [Layer(*each) for each in layers], environ or {}, flags, remember=False)


def refused(*layers: tuple[str, Any], environ: dict[str, str] | None = None) -> ProvisionError:
    with pytest.raises(ProvisionError) as error:
        loaded(*layers, environ=environ)
    return error.value


def origin(found: Loaded, key: str) -> str:
    return next(each.origin for each in found.values() if each.key == key)


def test_invoke_yaml_equals_the_codes_defaults_but_for_what_is_flaskbooks() -> None:
    file = yaml.safe_load((ROOT / "invoke.yaml").read_text(encoding="utf-8"))
    assert file["app"].pop("factory") == "flaskbook.application:create_app"
    assert file["app"].pop("database") == "flaskbook"
    assert list(file["deployments"]["cluster"].pop("sharding")) == ["flaskbook"]
    assert loaded(("invoke.yaml", file)).settings == loaded().settings
    assert "flaskbook" not in repr(loaded().settings)


def test_every_key_of_invoke_yaml_has_a_comment() -> None:
    lines = (ROOT / "invoke.yaml").read_text(encoding="utf-8").splitlines()
    uncommented = []
    explained = False
    for line in lines:
        text = line.strip()
        if not text:
            explained = False
        elif text.startswith("#"):
            explained = True
        elif not explained and ":" in text and line.startswith(" "):
            # A comment speaks for the keys below it, up to an empty line.
            uncommented.append(line)
    assert uncommented == []


def test_every_default_is_in_invoke_yaml() -> None:
    file = yaml.safe_load((ROOT / "invoke.yaml").read_text(encoding="utf-8"))
    missing = []
    for each in loaded().values():
        at: Any = file
        for key in each.key.split("."):
            if not isinstance(at, dict) or key not in at:
                missing.append(each.key)
                break
            at = at[key]
    # Keys of a deployment that does not use them are left out.
    assert [key for key in missing if not key.startswith("deployments.")] == []


def test_every_setting_is_described() -> None:
    assert [each.key for each in loaded().values() if not each.description] == []


def test_later_layers_win_and_each_value_knows_its_origin() -> None:
    found = loaded(
        ("one", {"app": {"port": 1, "host": "a"}}),
        ("two", {"app": {"port": 2}}),
        environ={"INVOKE_APP_DATABASE": "three"},
        flags={"app.ready_path": ("--ready", "/four")},
    )
    app = found.settings.app
    assert (app.port, app.host, app.database, app.ready_path) == (2, "a", "three", "/four")
    assert [origin(found, f"app.{key}") for key in ("port", "host", "database", "ready_path", "reload")] == [
        "two",
        "one",
        "environment INVOKE_APP_DATABASE",
        "flag --ready",
        "default",
    ]


@pytest.mark.parametrize(("text", "value"), [("false", False), ("0", False), ("no", False), ("true", True)])
def test_booleans_of_the_environment_are_what_they_say(text: str, value: bool) -> None:
    assert loaded(environ={"INVOKE_APP_RELOAD": text}).settings.app.reload is value


@pytest.mark.parametrize("text", ["", "null"])
def test_null_in_the_environment_is_null_where_a_setting_may_be(text: str) -> None:
    found = loaded(environ={"INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET": text})
    assert found.settings.deployments["local"].replica_set is None


def test_a_version_that_yaml_takes_for_a_number_is_text() -> None:
    assert loaded(("f", {"env": {"python": 3.12}})).settings.env.python == "3.12"


def test_the_apps_environment_keeps_its_defaults_when_some_are_named() -> None:
    env = loaded(("f", {"app": {"env": {"OWN": "{{ uri }}", "MONGO_URL": None}}})).settings.app.env
    assert (env["OWN"], env["MONGO_URL"], env["MONGO_URI"]) == ("{{ uri }}", None, "{{ uri }}")


def test_the_environment_may_set_the_apps_variables() -> None:
    assert loaded(environ={"INVOKE_APP_ENV_MONGO_URI": "x"}).settings.app.env["MONGO_URI"] == "x"


def test_a_list_in_the_environment_is_written_as_in_a_file() -> None:
    app = loaded(
        environ={"INVOKE_APP_GROUPS": "[dev]", "INVOKE_APP_COMMAND": '["python", "serve.py", "{port}"]'}
    ).settings.app
    assert (app.groups, app.command) == (["dev"], ["python", "serve.py", "{port}"])
    with pytest.raises(ProvisionError, match=r"INVOKE_APP_COMMAND.*must be a list"):
        loaded(environ={"INVOKE_APP_COMMAND": '["python'})


def test_another_projects_sections_in_a_shared_file_are_none_of_our_business() -> None:
    found = load(
        Path("/p"), [Layer("~/.invoke.yaml", {"other": 1, "run": {"echo": True}}, False)], {}, remember=False
    )
    assert found.settings == loaded().settings


def test_invokes_own_sections_are_left_alone() -> None:
    assert loaded(("f", {"run": {"echo": True}, "tasks": {"dedupe": False}})).settings == loaded().settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"app": {"prot": 1}}, ["f: app.prot", "no such setting", "did you mean port?"]),
        ({"ap": {}}, ["f: ap", "did you mean app?"]),
        ({"app": {"port": "abc"}}, ["f: app.port", "'abc'", "it must be a whole number", "port the app listens on"]),
        ({"app": {"port": 0}}, ["f: app.port", "0", "greater than or equal to 1"]),
        ({"app": {"reload": "maybe"}}, ["f: app.reload", "'maybe'"]),
        ({"mongodb": {"source": "x"}}, ["f: mongodb.source", "'auto'", "'wheel'"]),
        ({"mongodb": {"version": "8"}}, ["f: mongodb.version", "must match"]),
        ({"mongodb": None}, ["f: mongodb", "section"]),
        ({"deployments": {"Local": {}}}, ["deployments.Local"]),
        ({"deployments": {"local": {"port": 1, "prot": 2}}}, ["f: deployments.local.prot"]),
        (["a"], ["f", "sections with keys"]),
        ("text", ["f", "sections with keys"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_file(values: Any, words: list[str]) -> None:
    text = refused(("f", values)).text()
    assert [word for word in words if word not in text] == [], text


def test_a_variable_that_all_but_names_a_setting_is_an_error() -> None:
    text = refused(environ={"INVOKE_APP_PROT": "1"}).text()
    assert "INVOKE_APP_PROT" in text
    assert "did you mean INVOKE_APP_PORT?" in text


def test_other_invoke_variables_are_left_alone() -> None:
    assert loaded(environ={"INVOKE_RUN_ECHO": "1", "INVOKE_SOMETHING": "x"}).settings == loaded().settings


def test_all_that_is_wrong_is_named_at_once() -> None:
    cause = refused(("f", {"app": {"port": "x", "prot": 1}}), ("g", {"mongodb": {"source": "y"}})).cause
    assert len(cause.splitlines()) == 3
    assert "g: mongodb.source" in cause


def test_an_unknown_deployment_names_those_there_are() -> None:
    with pytest.raises(ProvisionError) as error:
        loaded().deployment("locl")
    assert "local" in error.value.cause
    assert "did you mean local?" in error.value.remedy


def test_accepted_settings_are_remembered_and_give_the_same(tmp_path: Path) -> None:
    (tmp_path / ".state").mkdir()
    layers = [Layer("f", {"app": {"port": "8123"}, "deployments": {"own": {"port": 9}}})]
    first = load(tmp_path, layers, {})
    assert any((tmp_path / ".state").iterdir())
    second = load(tmp_path, layers, {})
    assert first == second
    assert second.settings.app.port == 8123
    for record in (tmp_path / ".state").iterdir():
        record.write_text('{"digest": 1}')
    assert load(tmp_path, layers, {}) == first


def test_without_remembering_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / ".state").mkdir()
    load(tmp_path, [], {}, remember=False)
    assert list((tmp_path / ".state").iterdir()) == []
