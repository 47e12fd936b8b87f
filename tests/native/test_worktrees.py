"""Every worktree its own: three at once on one machine, with the settings of the project and no port of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient

from provision.state.process_identity import identity_of
from tests.support.clones import Clone, lend_env
from tests.support.polling import until
from tests.support.shares import OTHERS, take_share
from tests.support.terminals import on_terminal

_BRANCHES = ("blue", "green", "red")


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def worktrees(clone: Clone) -> Iterator[list[Clone]]:
    """Three linked worktrees of a clone, each with an env/."""
    _git(clone.root, "init", "--initial-branch", "main")
    _git(clone.root, "add", "--all")
    _git(clone.root, "commit", "--message", "all of it")
    kept = {
        name: value
        for name, value in clone.environment.items()
        if name not in ("INVOKE_DEPLOYMENTS_LOCAL_PORT", "INVOKE_APP_PORT")
    }
    take_share(Path(kept["XDG_STATE_HOME"]))
    made = []
    for branch in _BRANCHES:
        root = clone.root.parent / branch / "work"
        _git(clone.root, "worktree", "add", "-b", branch, str(root))
        for package in (
            "provision",
            "flaskbook",
        ):  # the same once more, with bytecode that is as old as its source
            subprocess.run(["cp", "-a", f"{clone.root / package}/.", root / package], check=True)
        lend_env(root)
        # A mongod whose data are deleted ends by itself, sooner or later.
        data = {"INVOKE_PATHS_DATA": str(root.parent / "data")}
        made.append(replace(clone, root=root, environment={**kept, **data}, _started=[]))
    yield made
    for each in made:
        each.close()
        shutil.rmtree(each.root.parent / "data", ignore_errors=True)


def _listed(clone: Clone) -> dict[str, dict[str, Any]]:
    """Folder → what `ps` says of it."""
    found = {each["folder"]: each for each in json.loads(clone.succeeds("ps", "--json"))}
    del found[str(OTHERS)]
    return found


def _there(uri: str) -> int:
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=10_000) as client:
        client.test.visits.insert_one({"from": "a test"})
        return client.test.visits.count_documents({})


def test_three_worktrees_at_once_and_one_that_is_deleted_leaves_the_others_alone(
    clone: Clone, worktrees: list[Clone]
) -> None:
    begun = [each.begin("start") for each in worktrees]
    for each in begun:
        assert each.ends() == 0, each.text
    uris = [each.succeeds("uri").strip() for each in worktrees]
    assert len(set(uris)) == 3
    assert [_there(uri) for uri in uris] == [1, 1, 1]
    pids = [each.pid() for each in worktrees]

    listed = _listed(worktrees[0])
    assert {folder: each["branch"] for folder, each in listed.items()} == {
        str(each.root): branch for each, branch in zip(worktrees, _BRANCHES, strict=True)
    }
    for each, uri in zip(worktrees, uris, strict=True):
        (there,) = listed[str(each.root)]["deployments"]
        assert (there["name"], there["state"], there["uri"]) == ("local", "running", uri)
        assert listed[str(each.root)]["memory"] > 1_000_000
    assert len({each["slot"] for each in listed.values()}) == 3

    killed, deleted, other = worktrees
    psutil.Process(pids[0]).kill()
    shutil.rmtree(deleted.root)
    until("the killed one to be stopped", lambda: _state(other, killed.root) == "stopped")
    gone = _listed(other)[str(deleted.root)]
    assert gone["gone"]
    assert gone["branch"] == "green"
    assert gone["deployments"][0]["state"] == "running"

    dry = json.loads(other.succeeds("clean", "--gone", "--dry-run", "--json"))
    assert [each["path"] for each in dry["items"]] == [f"process {pids[1]}", str(deleted.root)]
    assert identity_of(pids[1]) is not None
    assert "not a terminal" in other.fails("clean", "--gone")

    assert json.loads(other.succeeds("clean", "--gone", "--yes", "--json"))["done"]
    assert identity_of(pids[1]) is None
    assert set(_listed(other)) == {str(killed.root), str(other.root)}
    assert other.pid() == pids[2]
    assert _there(uris[2]) == 2

    killed.succeeds("start")
    assert killed.succeeds("uri").strip() == uris[0]
    assert _there(uris[0]) == 2
    assert "nothing to remove" in other.succeeds("clean", "--gone")


def _state(clone: Clone, root: Path) -> str:
    return str(_listed(clone)[str(root)]["deployments"][0]["state"])


def test_apps_of_two_worktrees_are_served_at_once_and_end_with_their_folders(worktrees: list[Clone]) -> None:
    serving = [each.begin("run") for each in worktrees[:2]]
    ports = []
    for each in serving:
        address = each.says("(Ctrl-C ends it)").rpartition(" at http://127.0.0.1:")[2]
        ports.append(int(address.partition("/")[0]))
    assert len(set(ports)) == 2
    deleted, other, third = worktrees
    assert [other.get("/readyz", port)[0] for port in ports] == [200, 200]
    listed = _listed(third)
    for each, port in zip(worktrees, ports, strict=False):
        assert listed[str(each.root)]["apps"] == [f"http://127.0.0.1:{port}/"]

    pids = {each.pid for each in deleted.processes() if Path(each.cwd()).is_relative_to(deleted.root)}
    shutil.rmtree(deleted.root)
    third.succeeds("clean", "--gone", "--yes")
    assert serving[0].ends() != 0
    assert [pid for pid in pids if identity_of(pid) is not None] == []
    assert other.get("/readyz", ports[0])[0] == 0
    assert other.get("/readyz", ports[1])[0] == 200
    serving[1].signal_group(signal.SIGINT)
    assert serving[1].ends() == 130
    assert _listed(third)[str(other.root)]["apps"] == []


def test_a_new_worktree_is_asked_once_whether_it_begins_with_the_data_of_another_one(
    worktrees: list[Clone],
) -> None:
    # Their data are where their settings say: a variable would hold for the other worktree, too.
    origin, yes, no = (
        replace(each, environment={**each.environment, "INVOKE_PATHS_DATA": "data"}) for each in worktrees
    )
    origin.succeeds("start")
    _there(origin.succeeds("uri").strip())
    question = f"Copy the data of {origin.root} (blue, "
    delete = ("cluster.down", "--delete-data", "--yes", "--on", "local")

    with on_terminal(no, "cluster.up", "--on", "local") as (process, reader, master):
        reader.reads(question)
        reader.reads("MB)? [y/N] ")
        os.write(master, b"n\n")
        said = reader.rest()
        assert process.wait(60) == 0, said
    assert f"To copy the data later: invoke clone --from {origin.root} --on local" in " ".join(said.split())
    assert _there(no.succeeds("uri").strip()) == 1
    no.succeeds(*delete)
    with on_terminal(no, "start") as (process, reader, _):
        said = reader.rest()
        assert process.wait(60) == 0, said
    assert "Copy the data" not in said
    no.succeeds(*delete)

    with on_terminal(yes, "run") as (process, reader, master):
        reader.reads(question)
        os.write(master, b"y\n")
        reader.reads("(Ctrl-C ends it)")
        assert _there(yes.succeeds("uri").strip()) == 2
        os.write(master, b"\x03")
        said = reader.rest()
        assert process.wait(60) == 130, said
    assert [each["state"] for each in _listed(yes)[str(yes.root)]["deployments"]] == []
    assert _there(origin.succeeds("uri").strip()) == 2
    yes.succeeds(*delete)

    # The setting decides without asking, where nobody has been asked.
    (no.root / ".state" / "deployments" / "local" / "worktree.json").unlink()
    no.succeeds("cluster.up", "--on", "local", env={"INVOKE_WORKTREE_DATA": "clone"})
    assert _there(no.succeeds("uri").strip()) == 3


def test_a_folder_that_was_moved_is_not_taken_for_deleted(worktrees: list[Clone]) -> None:
    moved, other, _ = worktrees
    moved.succeeds("start")
    pid = moved.pid()
    moved.root.rename(moved.root.with_name("elsewhere"))
    done = json.loads(other.succeeds("clean", "--gone", "--yes", "--json"))
    assert not done["done"]
    assert "elsewhere" in done["kept"][0]["why"]
    assert psutil.Process(pid).is_running()


def test_the_settings_say_which_ports_a_worktree_has_and_why(worktrees: list[Clone]) -> None:
    one = worktrees[0]
    values = {each["key"]: each for each in json.loads(one.succeeds("settings", "--json"))}
    port = values["deployments.local.port"]
    assert port["value"] >= 20_000
    assert port["origin"].startswith("slot ")
    assert "linked worktree" in port["origin"]
    key = ("--key", "deployments.local.port")
    as_written = one.succeeds("settings", *key, env={"INVOKE_ISOLATED": "0"})
    assert "27017" in as_written
    fixed = one.succeeds("settings", *key, env={"INVOKE_DEPLOYMENTS_LOCAL_PORT": "28111"})
    assert "28111" in fixed


def test_a_command_works_from_any_folder_of_the_project(clone: Clone) -> None:
    clone.succeeds("start")
    below = clone.root / "provision" / "settings"
    for words in (("uri",), ("status",), ("logs",), ("shell", "--python", "--eval", "db.name")):
        done = subprocess.run(
            [str(Path(os.path.relpath(clone.root / "invoke", below))), *words],
            cwd=below,
            env=clone.env(),
            capture_output=True,
            text=True,
            timeout=90,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert words != ("uri",) or str(clone.port) in done.stdout
    assert not (below / ".state").exists()
