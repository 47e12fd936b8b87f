"""What runs is compared with what the settings ask for; the remedies are typed as they are printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.support.clones import Clone
from tests.support.processes import free_port, free_ports
from tests.support.router_standin.install import install

PORT = "INVOKE_DEPLOYMENTS_LOCAL_PORT"
SET = "INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET"
AUTH = "INVOKE_DEPLOYMENTS_LOCAL_AUTH"
TOPOLOGY = "INVOKE_DEPLOYMENTS_LOCAL_TOPOLOGY"
CACHE = "INVOKE_DEPLOYMENTS_LOCAL_CACHE_SIZE_GB"


def insert(uri: str) -> None:
    with MongoClient[dict[str, Any]](uri) as client:
        client.test.people.insert_one({"_id": 1})


def count(uri: str) -> int:
    with MongoClient[dict[str, Any]](uri) as client:
        return client.test.people.count_documents({})


def commands(said: str) -> list[str]:
    """The commands of an error's remedy, in order."""
    return re.findall(r"((?:INVOKE_\w+=\S+ )?invoke .*)", said.partition("  next: ")[2])


def typed(clone: Clone, command: str) -> str:
    """Type a command as it was printed.

    Returns:
        Its standard output.
    """
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words if word.startswith("INVOKE_"))
    arguments = [word for word in words if not word.startswith("INVOKE_")]
    assert arguments[0] == "invoke"
    return clone.succeeds(*arguments[1:], env=variables)


@pytest.mark.parametrize("task", ["start", "run"])
def test_another_port_is_named_at_once_and_the_restart_that_is_printed_applies_it(
    clone: Clone, task: str
) -> None:
    insert(clone.succeeds("start").strip())
    mongod = clone.pid()
    port = free_port()
    said = clone.fails(task, env={PORT: str(port)})
    assert f"local runs with port {clone.port}, and the settings ask for port {port}" in said
    assert clone.pid() == mongod
    (restart,) = commands(said)
    assert f":{port}/" in (uri := typed(clone, restart).strip())
    assert count(uri) == 1
    assert len(clone.mongods()) == 1


def test_what_runs_is_shown_and_stopped_however_the_settings_have_changed(clone: Clone) -> None:
    clone.succeeds("start")
    changed = {PORT: str(free_port()), AUTH: "true", SET: "null"}
    done = clone.invoke("status", "--json", env=changed)
    assert '"state": "running"' in done.stdout, done.stdout + done.stderr
    shown = clone.succeeds("status", env=changed)
    assert f"port {clone.port}" in shown
    assert "invoke restart --on local" in shown
    uri = clone.invoke("uri", env=changed)
    assert uri.stdout.strip() == clone.uri
    assert "invoke restart --on local" in uri.stderr
    clone.succeeds("stop", env=changed)
    assert clone.mongods() == []


def test_a_running_set_is_not_renamed_and_its_clients_go_on(clone: Clone) -> None:
    uri = clone.succeeds("start").strip()
    insert(uri)
    for task in ("start", "restart"):
        said = clone.fails(task, env={SET: "other"})
        assert "belongs to the replica set 'rs0', not to 'other'" in said
    assert clone.succeeds("uri", env={SET: "other"}).strip() == uri
    assert count(uri) == 1


def test_a_renaming_that_failed_halfway_is_taken_back(clone: Clone) -> None:
    insert(clone.succeeds("start").strip())
    clone.succeeds("restart", env={SET: "null"})
    said = clone.fails("restart", env={SET: "other"})  # its old name is in its data still
    assert "belongs to the replica set 'rs0', not to 'other'" in said
    assert count(clone.succeeds("start").strip()) == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_the_way_to_rename_a_set_that_is_printed_keeps_its_data(clone: Clone, stopped: bool) -> None:
    insert(clone.succeeds("start").strip())
    if stopped:
        clone.succeeds("stop")
    ways = commands(clone.fails("start", env={SET: "other"}))
    alone, drop, restart, delete = ways
    assert "--delete-data" in delete
    typed(clone, alone)
    typed(clone, drop)
    uri = typed(clone, restart).strip()
    assert "replicaSet=other" in uri
    assert count(uri) == 1


def test_authentication_that_is_switched_off_and_on_is_applied_by_the_restart_that_is_printed(
    clone: Clone,
) -> None:
    clone.succeeds("start", env={AUTH: "true"})
    said = clone.fails("start", env={AUTH: "false"})
    assert "local runs with auth true, and the settings ask for auth false" in said
    (off,) = commands(said)
    insert(typed(clone, off).strip())
    (on,) = commands(clone.fails("start", env={AUTH: "true"}))
    typed(clone, on)
    assert count(clone.succeeds("uri", "--user", "root", env={AUTH: "true"}).strip()) == 1


def test_another_topology_is_refused_while_the_mongod_runs_that_is_ours(clone: Clone) -> None:
    uri = clone.succeeds("start").strip()
    insert(uri)
    for task in ("start", "restart"):
        said = clone.fails(task, env={TOPOLOGY: "replica-set"})
        assert "local runs with topology single, and the settings ask for topology replica-set" in said
        assert "Its data can't follow" in said
        assert "did not start" not in said
    assert count(uri) == 1
    delete = commands(said)[-1]
    typed(clone, f"{delete} --yes")
    assert clone.mongods() == []
    assert clone.succeeds("start", env={TOPOLOGY: "replica-set"}).count("127.0.0.1:") == 3


def test_other_parameters_are_named_and_the_restart_that_is_printed_applies_them(clone: Clone) -> None:
    clone.succeeds("start")
    pid = clone.pid()
    done = clone.invoke("start", env={CACHE: "0.5"})
    assert done.returncode == 0, done.stderr
    assert "cache_size_gb 0.25, and the settings ask for 0.5" in done.stderr
    assert clone.pid() == pid
    assert "cache_size_gb 0.25" in clone.succeeds("status", env={CACHE: "0.5"})
    done = clone.invoke("restart", "--on", "local", env={CACHE: "0.5"})
    assert done.returncode == 0
    assert "ask for" not in done.stderr
    assert "ask for" not in clone.succeeds("status", env={CACHE: "0.5"})
    with MongoClient[dict[str, Any]](clone.uri) as client:
        options = client.admin.command("getCmdLineOpts")["parsed"]
    assert options["storage"]["wiredTiger"]["engineConfig"]["cacheSizeGB"] == 0.5


@pytest.mark.needs("other-mongods")
def test_another_mongod_is_named_and_the_restart_that_is_printed_applies_it(
    clone: Clone, other_mongods: dict[str, Path], mongod_version: str
) -> None:
    clone.succeeds("start")
    later = {"INVOKE_MONGODB_PATH": str(other_mongods["6.0.27"])}
    done = clone.invoke("start", env=later)
    assert done.returncode == 0, done.stderr
    assert f"local runs with mongod {mongod_version}, and the settings ask for mongod 6.0.27" in done.stderr
    command = re.search(r"`invoke (restart --on local)` applies it", done.stderr)
    assert command, done.stderr
    clone.succeeds(*command[1].split(), env=later)
    found = json.loads(clone.succeeds("status", "--json", env=later))
    assert (found["version"], found["notes"]) == ("6.0.27", [])


def test_after_data_were_deleted_by_hand_any_name_may_be_asked_for(clone: Clone) -> None:
    clone.succeeds("start")
    clone.succeeds("stop")
    shutil.rmtree(clone.data)
    assert "replicaSet=other" in clone.succeeds("start", env={SET: "other"})


# ---- flags of cluster.up, and what is printed where they would help


def shrink(clone: Clone) -> None:
    """Make the cluster of the shipped invoke.yaml one that is started in seconds."""
    clone.change_settings(
        lambda settings: settings["deployments"]["cluster"].update(
            members=1, shards=1, config_servers=1, port=free_ports(100)
        )
    )


def test_the_shipped_cluster_is_brought_up_as_a_replica_set_and_says_that_sharding_is_left_out(
    clone: Clone,
) -> None:
    flags = ("--topology", "replica-set", "--backend", "processes", "--port", str(free_ports(50)))
    done = clone.invoke("cluster.up", *flags)
    assert done.returncode == 0, done.stderr
    assert "cluster is a replica set: deployments.cluster.sharding is left out." in done.stderr
    assert done.stdout.strip().endswith("replicaSet=rs0")
    assert json.loads(clone.succeeds("cluster.status", "--json"))["state"] == "running"
    clone.succeeds("cluster.down")


def test_without_docker_the_command_that_is_printed_brings_the_cluster_up(
    clone: Clone, mongod_binary: Path, mongod_version: str
) -> None:
    shrink(clone)
    clone.environment["DOCKER_HOST"] = f"unix://{clone.home}/nobody.sock"
    if not (mongod_binary.parent / "mongos").exists():
        folder = clone.root.parent / "bin"
        folder.mkdir()
        (folder / "mongod").symlink_to(mongod_binary)
        install(folder, mongod_version)
        clone.environment["INVOKE_MONGODB_PATH"] = str(folder / "mongod")
    said = clone.fails("cluster.status")
    (up,) = commands(said)
    typed(clone, up)
    assert json.loads(clone.succeeds("cluster.status", "--json"))["state"] == "running"
    clone.succeeds("cluster.down")


def test_without_mongos_the_replica_set_that_is_printed_comes_up(clone: Clone, mongod_binary: Path) -> None:
    shrink(clone)
    folder = clone.root.parent / "alone"
    folder.mkdir()
    (folder / "mongod").symlink_to(mongod_binary)
    clone.environment["INVOKE_MONGODB_PATH"] = str(folder / "mongod")
    said = clone.fails("cluster.up", "--backend", "processes")
    replica_set = next(each for each in commands(said) if "replica-set" in each)
    typed(clone, replica_set)
    clone.succeeds("cluster.down")
