"""Data that a power cut has made corrupt are named, kept, and repaired by the commands that are printed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.support.clones import Clone


def remedy(said: str) -> list[str]:
    """The lines of an error's remedy, as they are typed."""
    return [line.strip() for line in said.partition("  next: ")[2].splitlines()]


def type_in(clone: Clone, command: str) -> None:
    """Type a line of a remedy in the clone, in a shell."""
    bin_ = clone.root.parent / "path"
    bin_.mkdir(exist_ok=True)
    if not (bin_ / "invoke").exists():
        (bin_ / "invoke").symlink_to(clone.root / "invoke")
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=clone.root,
        env=clone.env({"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def findings(clone: Clone) -> dict[str, dict[str, str]]:
    found = json.loads(clone.invoke("doctor", "--json").stdout)
    return {each["check"]: each for each in found}


@pytest.fixture
def emptied(clone: Clone) -> Path:
    """The data directory of a set with one document, whose turtle file is empty."""
    with MongoClient[dict[str, Any]](clone.succeeds("start").strip()) as client:
        client.test.people.insert_one({"_id": 1})
    clone.succeeds("stop")
    (clone.data / "WiredTiger.turtle").write_bytes(b"")
    return clone.data


@pytest.mark.usefixtures("emptied")
def test_corrupt_data_are_named_and_repaired_by_the_commands_that_are_printed(clone: Clone) -> None:
    assert findings(clone)["data"]["level"] == "error"
    said = clone.fails("start")
    assert f"The data files in {clone.data} are corrupt" in said
    assert (clone.data / "WiredTiger.turtle").read_bytes() == b""
    found = findings(clone)["data"]
    assert f"{clone.data} are corrupt" in found["what"]
    lines = remedy(said)
    assert [line.strip() for line in found["remedy"].splitlines()][-2:] == lines[-2:]
    other = lines.index(next(line for line in lines if line.startswith("Or put back")))
    for command in lines[1:other]:
        type_in(clone, command)
    with MongoClient[dict[str, Any]](clone.succeeds("uri").strip()) as client:
        assert client.admin.command("hello")["setName"] == "rs0"
        assert client.test.people.count_documents({}) == 1
    assert "data" not in findings(clone)
    assert clone.data.with_name("mongod.corrupt").is_dir()


def test_corrupt_data_are_set_aside_by_the_command_that_is_printed(clone: Clone, emptied: Path) -> None:
    *_, aside, start = remedy(clone.fails("start"))
    type_in(clone, aside)
    type_in(clone, start)
    assert clone.status()["state"] == "running"
    assert (emptied.with_name("mongod.corrupt") / "WiredTiger.turtle").read_bytes() == b""
    assert "data" not in findings(clone)
