"""The shape of `invoke status --json`, as docs/status.md has it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from provision.deployments.status import NodeStatus, Status
from provision.mongodb.topology import Role

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "status.md"
STATES = {"running", "degraded", "stopped"}
NODE_STATES = {
    "PAUSED",
    "PRIMARY",
    "SECONDARY",
    "ARBITER",
    "STARTUP",
    "STANDALONE",
    "ROUTER",
    "DOWN",
    "UNREACHABLE",
}


def check_shape(found: dict[str, Any]) -> None:
    """Assert that a status has every documented key, of the documented type."""
    assert {"deployment", "state", "uri", "version", "nodes"} <= set(found)
    assert isinstance(found["deployment"], str)
    assert found["state"] in STATES
    assert found["uri"].startswith("mongodb://")
    assert found["version"] is None or isinstance(found["version"], str)
    assert found["nodes"]
    for node in found["nodes"]:
        assert {"name", "role", "state", "pid", "port"} <= set(node)
        assert isinstance(node["name"], str)
        assert node["role"] in {role.value for role in Role}
        assert node["state"] in NODE_STATES
        assert node["pid"] is None or (isinstance(node["pid"], int) and node["pid"] > 0)
        assert isinstance(node["port"], int)


def examples() -> list[dict[str, Any]]:
    return [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    ]


def test_the_documented_example_has_the_documented_shape() -> None:
    assert examples()
    for example in examples():
        check_shape(example)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "up"},
        {"version": 8},
        {"nodes": []},
        {"nodes": [{"name": "mongod", "role": "member", "state": "PRIMARY", "pid": "1", "port": 1}]},
        {"nodes": [{"name": "mongod", "role": "member", "state": "FINE", "pid": 1, "port": 1}]},
    ],
)
def test_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_shape({**examples()[0], **change})


def test_what_the_code_gives_has_the_documented_keys() -> None:
    import dataclasses

    assert {"deployment", "state", "uri", "version", "nodes"} <= {
        each.name for each in dataclasses.fields(Status)
    }
    assert {"name", "role", "state", "pid", "port"} <= {each.name for each in dataclasses.fields(NodeStatus)}


def test_every_state_and_role_is_documented() -> None:
    text = DOCUMENT.read_text("utf-8")
    for word in (*STATES, *NODE_STATES, *(role.value for role in Role)):
        assert f"`{word}`" in text, word
