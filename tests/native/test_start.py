"""`invoke start`, with a real mongod."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from pymongo import MongoClient

from tests.support.clones import Clone, cloned
from tests.support.polling import until
from tests.support.processes import describe, free_port, listens


@dataclass(frozen=True)
class Started:
    """A clone that was bare when somebody typed `invoke start` in it.

    Args:
        clone: it.
        printed: what that printed on standard output.
    """

    clone: Clone
    printed: str


@pytest.fixture(scope="module")
def started_once(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: os.PathLike[str]
) -> Iterator[Started]:
    with cloned(tmp_path_factory.mktemp("started"), str(mongod_binary)) as clone:
        yield Started(clone, clone.succeeds("start"))


@pytest.fixture
def started(started_once: Started) -> Started:
    """One for all tests that look at what was started. They leave it as they find it, and it runs well."""
    started_once.clone.start()
    return started_once


def test_a_bare_clone_is_started_by_start_alone(started: Started) -> None:
    clone = started.clone
    assert started.printed.strip() == clone.uri
    found = clone.status()
    assert (found["state"], found["nodes"][0]["state"]) == ("running", "PRIMARY")


def test_standard_output_holds_the_uri_alone(started: Started) -> None:
    uri = started.printed.strip()
    with MongoClient(uri) as client:
        assert client.admin.command("hello")["isWritablePrimary"]


def test_a_second_start_changes_nothing(started: Started) -> None:
    clone = started.clone
    before = clone.pid()
    assert json.loads(clone.succeeds("start", "--json"))["started"] == []
    assert clone.pid() == before
    assert len(clone.mongods()) == 1


def test_a_mongod_that_was_still_ending_is_started_again(clone: Clone) -> None:
    """As after a command that asked it to end and was killed then. Frozen, it ends only when `start` lets it go on."""
    clone.start()
    before = clone.pid()
    mongod = psutil.Process(before)
    mongod.suspend()
    mongod.terminate()
    done = clone.invoke("start")
    assert done.returncode == 0, done.stderr
    assert "was ending, and is started again" in done.stderr
    assert clone.pid() != before
    assert clone.status()["state"] == "running"


def test_transactions_and_change_streams_work_by_default(started: Started) -> None:
    with MongoClient[dict[str, Any]](started.printed.strip()) as client:
        people = client.test.people
        people.drop()
        people.insert_one({"_id": 1, "n": 0})
        with client.start_session() as session, session.start_transaction():
            people.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
            people.insert_one({"_id": 2}, session=session)
            session.abort_transaction()
        assert list(people.find()) == [{"_id": 1, "n": 0}]
        with people.watch() as changes:
            people.insert_one({"_id": 3})
            assert next(changes)["documentKey"] == {"_id": 3}


def test_replica_set_null_gives_a_standalone(clone: Clone) -> None:
    uri = clone.succeeds("start", env={"INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET": "null"}).strip()
    assert uri == f"mongodb://127.0.0.1:{clone.port}/?directConnection=true"
    with MongoClient[dict[str, Any]](uri) as client:
        assert "setName" not in client.admin.command("hello")
        client.test.people.insert_one({"_id": 1})
    node = clone.status({"INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET": "null"})["nodes"][0]
    assert (node["role"], node["state"], node["replica_set"]) == ("standalone", "STANDALONE", None)


def test_a_changed_port_takes_the_replica_set_and_its_data_along(clone: Clone) -> None:
    with MongoClient[dict[str, Any]](clone.start()) as client:
        client.test.people.insert_one({"_id": 1})
    clone.stop()
    port = free_port()
    uri = clone.succeeds("start", env={"INVOKE_DEPLOYMENTS_LOCAL_PORT": str(port)}).strip()
    assert f":{port}/" in uri
    with MongoClient[dict[str, Any]](uri) as client:
        assert client.test.people.count_documents({}) == 1


def test_a_changed_replica_set_name_is_explained_and_changes_nothing(clone: Clone) -> None:
    clone.start()
    clone.stop()
    said = clone.fails("start", env={"INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET": "other"})
    assert "belongs to the replica set 'rs0', not to 'other'" in said
    assert clone.mongods() == []
    assert clone.start() == clone.uri


def test_data_of_a_standalone_are_made_a_replica_set(clone: Clone) -> None:
    alone = {"INVOKE_DEPLOYMENTS_LOCAL_REPLICA_SET": "null"}
    with MongoClient[dict[str, Any]](clone.start(alone)) as client:
        client.test.people.insert_one({"_id": 1})
    clone.stop(alone)
    with MongoClient[dict[str, Any]](clone.succeeds("start").strip()) as client:
        assert client.admin.command("hello")["setName"] == "rs0"
        assert client.test.people.count_documents({}) == 1


def test_a_data_path_in_the_home_directory_works(clone: Clone) -> None:
    clone.succeeds("start", env={"INVOKE_PATHS_DATA": "~/mongo data", "INVOKE_PATHS_LOG": "~/mongo log"})
    assert (clone.home / "mongo data" / "local" / "mongod" / "WiredTiger").is_file()
    assert (clone.home / "mongo log" / "local" / "mongod.log").is_file()
    assert not (clone.root / "data").exists()


def test_server_parameters_of_the_settings_are_in_force(clone: Clone) -> None:
    clone.change_settings(
        lambda settings: settings["deployments"]["local"].update(
            set_parameter={"ttlMonitorSleepSecs": 7, "notablescan": True}
        )
    )
    with MongoClient(clone.succeeds("start").strip()) as client:
        found = client.admin.command({"getParameter": 1, "ttlMonitorSleepSecs": 1, "notablescan": 1})
    assert (found["ttlMonitorSleepSecs"], found["notablescan"]) == (7, True)


def test_it_listens_on_loopback_alone_with_the_configured_cache_and_oplog(started: Started) -> None:
    with MongoClient(started.printed.strip()) as client:
        options = client.admin.command("getCmdLineOpts")["parsed"]
        oplog = client.local.command("collStats", "oplog.rs")["maxSize"]
    assert options["net"]["bindIp"] == "127.0.0.1"
    assert options["storage"]["wiredTiger"]["engineConfig"]["cacheSizeGB"] == 0.25
    assert oplog == 64 * 1024 * 1024


def test_timings_name_what_was_reached(clone: Clone) -> None:
    lines = clone.succeeds("start", "--timings").splitlines()
    assert [line.split(" s  ")[1] for line in lines[:-1]] == [
        "rs0 has a primary",
        "majority write acknowledged",
    ]
    assert lines[-1] == clone.uri


def test_mongod_runs_on_when_its_terminal_is_interrupted(started: Started) -> None:
    mongod = started.clone.mongods()[0]
    assert os.getsid(mongod.pid) == mongod.pid


def test_restart_gives_a_new_process_and_keeps_the_data(clone: Clone) -> None:
    with MongoClient[dict[str, Any]](clone.start()) as client:
        client.test.people.insert_one({"_id": 1})
    before = clone.pid()
    with MongoClient[dict[str, Any]](clone.succeeds("restart").strip()) as client:
        assert client.test.people.count_documents({}) == 1
    assert clone.pid() != before
    assert len(clone.mongods()) == 1, describe(clone.mongods())


def test_the_rendered_configuration_works_by_hand(clone: Clone, mongod_binary: os.PathLike[str]) -> None:
    clone.set_up()
    (clone.root / "data" / "local" / "mongod").mkdir(parents=True, exist_ok=True)
    (clone.root / "log" / "local").mkdir(parents=True, exist_ok=True)
    by_hand = clone.begin("-f", "mongod.conf", command=[str(mongod_binary)])
    try:
        until("mongod to listen", lambda: listens(clone.port), detail=lambda: by_hand.text)
    finally:
        by_hand.process.terminate()
    assert by_hand.ends() == 0


def test_an_unknown_deployment_is_one_error_that_names_those_there_are(clone: Clone) -> None:
    said = clone.fails("start", "--on", "locl")
    assert "'locl'" in said
    assert "local" in said
    assert "did you mean local?" in said


def test_an_environment_of_mongod_is_inherited_but_carries_no_secret(clone: Clone) -> None:
    clone.set_up()
    clone.succeeds("start")
    secret = (clone.root / ".state" / "secret_key").read_text().strip()
    mongod = clone.mongods()[0]
    assert secret not in " ".join(mongod.environ().values())
    assert secret not in " ".join(mongod.cmdline())


@pytest.mark.skipif(shutil.which("ss") is None, reason="asks ss")
def test_no_other_address_than_loopback_is_listened_on(started: Started) -> None:
    clone = started.clone
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[3] for line in listening.splitlines() if f":{clone.port} " in line} == {
        f"127.0.0.1:{clone.port}"
    }


@pytest.mark.parametrize("flag", ["-R", "--dry", "-eR"])
def test_a_dry_run_of_a_task_that_has_none_does_nothing(clone: Clone, flag: str) -> None:
    assert "It has none" in clone.fails(flag, "start")
    assert clone.processes() == []
    assert "would change" in clone.succeeds(flag, "setup")
    assert not clone.data.exists()
    clone.succeeds(flag, "status")
