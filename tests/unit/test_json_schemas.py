"""docs/json/: the schema of what each command prints with --json is made from the type that the command returns."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from provision.cli import result, shapes
from provision.cli.result import Result
from provision.core.errors import ProvisionError
from provision.deployments.status import BalancerStatus, NodeStatus, ShardStatus, Status
from provision.settings.schema import INVOKES_SECTIONS, SECTIONS
from tools import schemas

STATUS = Status(
    "cluster",
    "running",
    "mongodb://127.0.0.1:27100/",
    "8.0.17",
    (NodeStatus("router", "router", "ROUTER", None, 27100),),
    (ShardStatus("shard1", "ready", 3),),
    BalancerStatus("full", False),
)


def test_the_schemas_in_docs_are_those_of_the_types() -> None:
    there = {path.name: path.read_text("utf-8") for path in schemas.FOLDER.glob("*.json")}
    assert there == schemas.schemas(), "Type: env/bin/python -m tools.schemas"


def test_every_command_that_has_json_has_a_schema_and_every_schema_covers_failures() -> None:
    import tasks

    def with_json(namespace: object, prefix: str) -> set[str]:
        found = {
            prefix + namespace.transform(task.name)  # type: ignore[attr-defined]
            for task in namespace.tasks.values()  # type: ignore[attr-defined]
            if any("json" in argument.names for argument in task.get_arguments())
        }
        for name, inner in namespace.collections.items():  # type: ignore[attr-defined]
            found |= with_json(inner, f"{prefix}{name}.")
        return found

    assert with_json(tasks.namespace, "") == set(schemas.adapters())
    for name, text in schemas.schemas().items():
        assert "Failure" in json.loads(text)["$defs"], name


def test_what_status_prints_is_what_its_schema_says() -> None:
    assert schemas.differences("status", result.as_text(STATUS)) == ""


@pytest.mark.parametrize(
    "change",
    [{"state": None}, {"nodes": [{}]}, {"more": 1}, {"balancer": {"mode": "full"}}],
)
def test_what_differs_from_the_schema_is_found(change: dict[str, object]) -> None:
    printed = json.dumps({**asdict(STATUS), **change})
    try:
        found = schemas.differences("status", printed)
    except ValueError as error:  # pydantic's
        found = str(error)
    assert found


def test_a_failure_is_what_every_schema_says() -> None:
    printed = json.dumps(ProvisionError("doing", "cause", "remedy", ["line"]).as_json())
    assert schemas.differences("cluster.up", printed) == ""


def test_data_are_printed_with_paths_as_text_and_dataclasses_as_objects() -> None:
    assert json.loads(result.as_text([shapes.Stopped("local", ["mongod"])])) == [
        {"deployment": "local", "stopped": ["mongod"]}
    ]
    assert "\n" not in result.as_line(STATUS)


def test_a_result_that_failed_is_shown_before_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    from provision.cli import command

    error = ProvisionError("a", "b", "c")
    shown: list[str] = []
    ended = Result(shapes.Stopped("local", []), lambda: shown.append("text"), error)
    with pytest.raises(ProvisionError):
        command._render(ended, json=False)
    assert shown == ["text"]
    with pytest.raises(SystemExit) as leaving:
        command._render(ended, json=True)
    assert leaving.value.code == 1
    assert json.loads(capsys.readouterr().out) == {"deployment": "local", "stopped": []}


def test_the_schema_of_invoke_yaml_is_that_of_the_settings() -> None:
    assert schemas.OF_SETTINGS.read_text("utf-8") == schemas.of_settings(), (
        "Type: env/bin/python -m tools.schemas"
    )
    first = (schemas.ROOT / "invoke.yaml").read_text("utf-8").partition("\n")[0]
    assert first == f"# yaml-language-server: $schema={schemas.OF_SETTINGS.relative_to(schemas.ROOT)}"


def test_every_setting_has_a_description_and_no_other_key_is_allowed() -> None:
    schema = json.loads(schemas.of_settings())

    def described(value: dict[str, Any]) -> bool:
        kind = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
        return bool(value.get("description") or kind.get("description"))

    for name, kind in {"invoke.yaml": schema, **schema["$defs"]}.items():
        assert kind["additionalProperties"] is False, name
        assert [key for key, value in kind["properties"].items() if not described(value)] == [], name


def test_the_schema_of_invoke_yaml_has_every_setting_and_its_limits() -> None:
    schema = json.loads(schemas.of_settings())
    assert set(schema["properties"]) == {*SECTIONS, *INVOKES_SECTIONS}
    port = schema["$defs"]["AppSettings"]["properties"]["port"]
    number, word = port["anyOf"]
    assert (number["minimum"], number["maximum"], port["default"]) == (1, 65535, 8000)
    assert word["const"] == "auto"
    source = schema["$defs"]["MongodbSettings"]["properties"]["source"]
    assert source["enum"] == ["auto", "path", "system", "cache", "archive", "wheel"]
    version = schema["$defs"]["MongodbSettings"]["properties"]["version"]["anyOf"]
    assert {kind["type"] for kind in version} == {"string", "number"}
