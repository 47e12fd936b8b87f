"""Data that a power cut has made corrupt are named, kept, and repaired by the commands that are printed."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from bson import Binary
from pymongo import MongoClient

from tests.support.clones import Clone
from tests.support.processes import free_port


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


def cut_off(clone: Clone, mongod: Path, people: int = 0) -> None:
    """Bring its data into the state in which a first start leaves them that ends in a certain millisecond."""
    clone.data.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), clone.root.parent / "made.log"
    made = {
        "op": "c",
        "ns": "admin.$cmd",
        "ui": Binary.from_uuid(uuid.uuid4()),
        "o": {"create": "system.version"},
    }
    with subprocess.Popen(
        [mongod, "--dbpath", clone.data, "--port", str(port), "--bind_ip", "127.0.0.1", "--logpath", log],
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True) as client:
                if people:
                    client.test.people.insert_many({"name": "x" * 1000} for _ in range(people))
                client.admin.command("applyOps", [made])
        finally:
            process.terminate()


def test_a_first_start_that_was_cut_off_is_done_anew(clone: Clone, mongod_binary: Path) -> None:
    clone.succeeds("setup")
    cut_off(clone, mongod_binary)
    done = clone.invoke("start")
    assert done.returncode == 0, done.stderr
    assert "The first start of mongod was cut off" in done.stderr
    assert clone.status()["state"] == "running"


@pytest.mark.parametrize("was_up", [True, False], ids=["one that was up", "one with documents"])
def test_data_that_are_not_complete_and_may_hold_something_are_kept(
    clone: Clone, mongod_binary: Path, was_up: bool
) -> None:
    clone.succeeds("setup")
    if was_up:
        clone.succeeds("start")
        clone.succeeds("stop")
    cut_off(clone, mongod_binary, people=0 if was_up else 1000)
    before = {path.name for path in clone.data.glob("collection*")}
    said = clone.fails("start")
    assert "are not complete (exit status 14): MongoDB ended while it was making them." in said
    assert {path.name for path in clone.data.glob("collection*")} >= before
    for command in remedy(said)[1:]:
        type_in(clone, command)
    assert clone.status()["state"] == "running"
