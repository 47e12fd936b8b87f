"""`invoke clean`, over what real mongods leave and over what is not the tool's."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.deployments import assembly
from provision.deployments.setup_steps import SecretKey
from provision.doctor import clean, leftovers, removal
from provision.env.virtualenv import RECORD
from provision.mongodb import binaries
from provision.settings.loading import Layer, Loaded, load
from provision.settings.paths import Paths
from provision.state import records
from tests.support.capabilities import ROOT
from tests.support.clones import Clone, copied
from tests.support.deployments import foreign_mongod
from tests.support.polling import until
from tests.support.processes import free_port

OF_CLONE = {Path(name) for name in ("mongod.conf.j2", "invoke", "requirements-run.txt")}


def project(root: Path, mongod: Path, **deployments: object) -> Loaded:
    """A project of its own, with an env/ of ours as a clone has one, and with a mongod chosen."""
    root.mkdir(exist_ok=True)
    for name in OF_CLONE:
        shutil.copy(ROOT / name, root)
    values = {
        "mongodb": {"source": "path", "path": str(mongod)},
        "paths": {"cache": "../cache"},
        "deployments": {"local": {"port": free_port()}, **deployments},
    }
    found = load(root, [Layer("test", values)], {}, remember=False)
    binaries.find(found.settings.mongodb, found.paths, Silent())
    return found


def unknown(paths: Paths) -> list[str]:
    """Files below .state/ of which `records` does not know whose they are, and what removes them."""
    found = []
    for file in paths.state.rglob("*"):
        place = file.relative_to(paths.state)
        name = place.parts[1] if place.parts[0] == "deployments" and len(place.parts) > 1 else ""
        if file.is_file() and records.kind_of(paths, file, name) is None:
            found.append(str(place))
    return found


@pytest.fixture
def loaded(tmp_path: Path, mongod_binary: Path) -> Loaded:
    return project(tmp_path / "project", mongod_binary)


@pytest.fixture(scope="module")
def used_once(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Loaded:
    """What `used` is made from: a copy of it lies beside it."""
    loaded = project(tmp_path_factory.mktemp("used") / "project", mongod_binary)
    deployment = assembly.deployment(loaded, "local")
    deployment.up()
    with MongoClient[dict[str, Any]](deployment.uri()) as client:
        client.test.people.insert_one({"_id": 1})
    deployment.down()
    SecretKey(loaded).act(Silent())
    venv.create(loaded.paths.env, symlinks=True)
    copied(loaded.paths.root, kept(loaded))
    return loaded


@pytest.fixture
def used(used_once: Loaded) -> Iterator[Loaded]:
    """The project after MongoDB ran in it, with one document, a secret and a virtualenv.

    It stands at the same place for each test: its configuration and its records have absolute paths.
    """
    shutil.rmtree(used_once.paths.root, ignore_errors=True)
    copied(kept(used_once), used_once.paths.root)
    yield used_once
    deployment = assembly.deployment(used_once, "local")
    deployment.backend.kill(deployment.node())


def kept(used: Loaded) -> Path:
    return used.paths.root.with_name("kept")


def everything(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*")}


def whys(planned: clean.CleanPlan) -> dict[Path, str]:
    return {each.path: each.why for each in planned.kept}


def do(loaded: Loaded, **flags: bool) -> clean.CleanPlan:
    planned = clean.plan(loaded, **flags)
    clean.carry_out(planned)
    return planned


def test_with_data_the_project_is_as_it_was_before(used: Loaded) -> None:
    do(used, data=True)
    assert everything(used.paths.root) == OF_CLONE


def test_data_stay_and_a_later_start_finds_them(used: Loaded) -> None:
    planned = do(used)
    assert whys(planned)[used.paths.node_data("local", "mongod")].startswith("data stay")
    assert {path.parts[0] for path in everything(used.paths.root)} == {*map(str, OF_CLONE), "data"}
    binaries.find(used.settings.mongodb, used.paths, Silent())
    deployment = assembly.deployment(used, "local")
    deployment.up()
    try:
        with MongoClient[dict[str, Any]](deployment.uri()) as client:
            assert client.test.people.find_one() == {"_id": 1}
    finally:
        deployment.down()


def test_planning_changes_nothing_and_names_sizes(used: Loaded) -> None:
    before = everything(used.paths.root)
    planned = clean.plan(used, data=True)
    assert everything(used.paths.root) == before
    sizes = {each.path: each.bytes for each in planned.items}
    assert sizes[used.paths.node_data("local", "mongod")] > 1_000_000
    assert planned.bytes == sum(sizes.values())


@pytest.mark.parametrize("data", [False, True])
def test_a_second_clean_has_nothing_to_do(used: Loaded, data: bool) -> None:
    do(used, data=data)
    assert clean.plan(used, data=data).items == ()


def test_a_running_deployment_is_named_and_nothing_is_removed(used: Loaded) -> None:
    planned = clean.plan(used, data=True)
    deployment = assembly.deployment(used, "local")
    deployment.up()
    try:
        kept = [used.paths.secret_key, used.paths.env / "pyvenv.cfg", used.paths.node_conf("local", "mongod")]
        for attempt in (lambda: clean.plan(used, data=True), lambda: clean.carry_out(planned)):
            with pytest.raises(ProvisionError) as refused:
                attempt()
            assert "local runs" in refused.value.cause
            assert "invoke stop" in refused.value.remedy
        assert all(each.is_file() for each in kept)
        assert deployment.status().state == "running"
    finally:
        deployment.down()


def test_a_running_mongod_whose_record_was_lost_is_found_all_the_same(used: Loaded) -> None:
    deployment = assembly.deployment(used, "local")
    deployment.up()
    try:
        used.paths.node_record("local", "mongod").unlink()
        with pytest.raises(ProvisionError, match="local runs"):
            clean.plan(used)
    finally:
        deployment.down()


def test_what_a_killed_mongod_left_is_removed(loaded: Loaded) -> None:
    deployment = assembly.deployment(loaded, "local")
    deployment.up()
    pid = deployment.status().nodes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("mongod to be dead", lambda: not deployment.backend.observe(deployment.node()).running)
    do(loaded, data=True)
    assert everything(loaded.paths.root) == OF_CLONE


def test_a_configuration_edited_by_hand_stays_and_is_named(used: Loaded) -> None:
    conf = used.paths.node_conf("local", "mongod")
    conf.write_text(conf.read_text() + "# mine\n")
    planned = do(used)
    assert whys(planned)[conf] == "it was edited by hand"
    assert conf.read_text().endswith("# mine\n")


def test_a_rendered_configuration_is_known_without_its_record(used: Loaded) -> None:
    shutil.rmtree(used.paths.state)
    do(used)
    assert not used.paths.node_conf("local", "mongod").exists()


def test_foreign_files_among_data_and_logs_stay_and_are_named(used: Loaded) -> None:
    data = used.paths.node_data("local", "mongod")
    foreign = [
        data / "notes.txt",
        data / "journal" / "mine.txt",
        data / "backup" / "collection-0-1.wt",
        data.parent / "other" / "WiredTiger",
        used.paths.data / "photo.jpg",
        used.paths.log / "local" / "notes.log.txt",
    ]
    for file in foreign:
        file.parent.mkdir(exist_ok=True)
        file.write_text("precious")
    planned = do(used, data=True)
    assert [file.read_text() for file in foreign] == ["precious"] * len(foreign)
    assert not (data / "WiredTiger").exists()
    named = set(whys(planned))
    assert all({file, *file.parents} & named for file in foreign)
    assert clean.plan(used, data=True).items == ()


def test_symbolic_links_are_never_followed(used: Loaded, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "journal").mkdir(parents=True)
    for name in ("WiredTiger", "collection-0-1.wt", "journal/WiredTigerLog.1", "mongod.log"):
        (outside / name).write_text("precious")
    before = everything(outside)
    data = used.paths.node_data("local", "mongod")
    shutil.rmtree(data / "journal")
    (data / "journal").symlink_to(outside / "journal")
    (data / "collection-9-9.wt").symlink_to(outside / "collection-0-1.wt")
    shutil.rmtree(used.paths.log / "local")
    (used.paths.log / "local").symlink_to(outside)
    (used.paths.state / "link").symlink_to(outside)
    (used.paths.env / "link").symlink_to(outside)
    planned = do(used, data=True)
    assert everything(outside) == before
    assert (outside / "WiredTiger").read_text() == "precious"
    assert {data / "journal", data / "collection-9-9.wt", used.paths.log / "local"} <= set(whys(planned))
    assert not used.paths.env.exists()


@pytest.mark.parametrize("level", ["node", "deployment"])
def test_a_data_directory_that_is_a_link_is_left(used: Loaded, tmp_path: Path, level: str) -> None:
    data = used.paths.node_data("local", "mongod")
    linked = data if level == "node" else data.parent
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path / "elsewhere")
    planned = do(used, data=True)
    assert everything(tmp_path / "elsewhere") == before
    assert whys(planned)[linked] == "it is a symbolic link"


def test_a_link_put_in_place_after_planning_is_not_followed(used: Loaded, tmp_path: Path) -> None:
    planned = clean.plan(used, data=True)
    data = used.paths.node_data("local", "mongod")
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path / "elsewhere")
    clean.carry_out(planned)
    assert everything(tmp_path / "elsewhere") == before


def test_a_directory_that_holds_no_mongods_data_is_left(loaded: Loaded) -> None:
    data = loaded.paths.node_data("local", "mongod")
    data.mkdir(parents=True)
    (data / "thesis.tex").write_text("precious")
    planned = do(loaded, data=True)
    assert (data / "thesis.tex").read_text() == "precious"
    assert data in whys(planned)


def test_data_in_use_by_a_foreign_mongod_are_left(used: Loaded, mongod_binary: Path) -> None:
    data = used.paths.node_data("local", "mongod")
    planned_before = clean.plan(used, data=True)
    with foreign_mongod(mongod_binary, data) as foreign:
        planned = clean.plan(used, data=True)
        assert "a mongod uses it" in whys(planned)[data]
        with pytest.raises(ProvisionError, match="by now"):
            clean.carry_out(planned_before)
        assert foreign.poll() is None
        assert (data / "WiredTiger").exists()


def test_a_shared_directory_of_data_loses_only_our_deployments(tmp_path: Path, mongod_binary: Path) -> None:
    home = tmp_path / "home-data"
    found = project(tmp_path / "project", mongod_binary)
    values = {"paths": {"data": str(home), "cache": "../cache"}}
    found = load(found.paths.root, [Layer("test", values)], {}, remember=False)
    (home / "local" / "mongod").mkdir(parents=True)
    (home / "local" / "mongod" / "WiredTiger").write_text("")
    (home / "photos" / "mongod").mkdir(parents=True)
    (home / "photos" / "mongod" / "WiredTiger").write_text("another tool's")
    do(found, data=True)
    assert everything(home) == {Path("photos"), Path("photos/mongod"), Path("photos/mongod/WiredTiger")}


def test_keys_of_data_that_stay_stay_with_them(used: Loaded) -> None:
    keys = used.paths.credentials("local"), used.paths.key_file("local")
    for key in keys:
        key.write_text("hush")
    do(used)
    assert all(key.is_file() for key in keys)
    assert not used.paths.secret_key.exists()
    assert clean.plan(used).items == ()
    do(used, data=True)
    assert not used.paths.state.exists()


def test_env_that_is_no_virtualenv_is_left(loaded: Loaded) -> None:
    loaded.paths.env.mkdir()
    (loaded.paths.env / "mine.txt").write_text("precious")
    planned = do(loaded)
    assert whys(planned)[loaded.paths.env] == "it is not a virtualenv"
    assert (loaded.paths.env / "mine.txt").exists()


def test_the_env_of_a_project_that_is_no_clone_of_the_tool_is_its_own(loaded: Loaded) -> None:
    (loaded.paths.root / "invoke").unlink()
    loaded.paths.env.mkdir()
    (loaded.paths.env / "pyvenv.cfg").touch()
    assert loaded.paths.env not in {item.path for item in do(loaded).items}
    assert loaded.paths.env.exists()


def test_interrupted_anywhere_it_can_be_typed_again(used: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, left = removal.remove, 0

    def limited(item: removal.Item) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        remove(item)

    monkeypatch.setattr(removal, "remove", limited)
    while (planned := clean.plan(used, data=True)).items:
        left = 1
        with contextlib.suppress(KeyboardInterrupt):
            clean.carry_out(planned)
        assert clean.plan(used, data=True).items != planned.items
    assert everything(used.paths.root) == OF_CLONE


def test_a_virtualenv_half_removed_is_known_as_ours(used: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    planned = clean.plan(used)
    with monkeypatch.context() as patch:
        patch.setattr(clean.Path, "rmdir", interrupted)
        with pytest.raises(KeyboardInterrupt):
            removal.remove(planned.items[-1])
    (used.paths.env / "left.txt").write_text("of the virtualenv")
    (used.paths.env / RECORD).write_text(json.dumps({"schema": 1, "state": "building"}))
    do(used)
    assert not used.paths.env.exists()


def test_another_command_at_work_is_named_and_nothing_is_removed(used: Loaded) -> None:
    lock = used.paths.lock("deployment-local")
    before = everything(used.paths.root)
    with lock.open("r+") as held:
        held.write("4711 starting local\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ProvisionError, match="4711 starting local"):
            do(used)
    assert everything(used.paths.root) - before <= {Path(".state/bootstrap.lock")}
    assert before <= everything(used.paths.root)


def test_logs_of_a_deployment_that_the_settings_no_longer_name_are_ours(
    tmp_path: Path, mongod_binary: Path
) -> None:
    found = project(tmp_path / "project", mongod_binary, other={"port": free_port()})
    deployment = assembly.deployment(found, "other")
    deployment.up()
    deployment.down()
    without = project(tmp_path / "project", mongod_binary)
    do(without, data=True)
    assert everything(without.paths.root) == OF_CLONE


def test_the_shared_cache_is_left_unless_asked_for(loaded: Loaded) -> None:
    cache = loaded.paths.cache
    ours = cache / "mongodb" / "8.0.17-debian12" / "bin" / "mongod"
    foreign = [cache / "mongodb" / "notes.txt", cache / "browser" / "x"]
    for file in (ours, *foreign):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    do(loaded)
    assert ours.exists()
    do(loaded, cache=True)
    assert not ours.exists()
    assert all(file.exists() for file in foreign)


def test_a_download_that_a_process_runs_from_is_left(loaded: Loaded) -> None:
    ours = loaded.paths.cache / "mongodb" / "8.0.17-debian12" / "bin" / "mongod"
    ours.parent.mkdir(parents=True)
    shutil.copy("/bin/sleep", ours)
    with subprocess.Popen([ours, "60"]) as process:
        try:
            planned = do(loaded, cache=True)
        finally:
            process.kill()
    assert whys(planned)[ours.parent.parent] == f"process {process.pid} runs from it"
    assert ours.exists()


def test_the_task_asks_and_without_a_terminal_removes_nothing(clone: Clone) -> None:
    clone.set_up()
    assert "--yes" in clone.fails("clean")
    assert (clone.root / ".state" / "secret_key").exists()


def test_the_task_shows_what_it_would_remove_as_json_and_then_does(clone: Clone) -> None:
    clone.start()
    clone.stop()
    planned = json.loads(clone.succeeds("clean", "--data", "--dry-run", "--json"))
    assert planned["done"] is False
    assert set(planned) == {"done", "bytes", "items", "kept"}
    assert {str(clone.data), str(clone.root / "env")} <= {each["path"] for each in planned["items"]}
    assert clone.data.exists()
    done = json.loads(clone.succeeds("clean", "--data", "--yes", "--json"))
    assert done["done"] is True
    for name in ("env", "data", "log", ".state", "mongod.conf"):
        assert not (clone.root / name).exists(), name
    assert (clone.root / "tasks.py").exists()


def test_keys_of_data_in_docker_stay_and_the_command_that_removes_both_is_named(
    tmp_path: Path, mongod_binary: Path
) -> None:
    found = project(tmp_path / "project", mongod_binary, cluster={"backend": "docker", "port": free_port()})
    key, record = found.paths.key_file("cluster"), found.paths.deployment("cluster") / "initiated.json"
    key.parent.mkdir(parents=True)
    key.write_text("hush")
    record.write_text('{"replica_sets": ["rs0"]}')
    planned = do(found, data=True)
    assert key.exists()
    assert "invoke cluster.down --on cluster --delete-data" in whys(planned)[record]
    assert clean.plan(found, data=True).items == ()


def test_every_file_that_commands_leave_is_of_a_known_kind(clone: Clone) -> None:
    paths = Paths.of(clone.root, "data", "log", None)
    commands = (
        ("setup",), ("start",), ("status",), ("seed", "--users", "3"), ("reset", "--yes"),
        ("shell", "--python", "--eval", "1"),
        ("uri", "--user", "root"), ("cluster.upgrade", "--feature-compatibility", "--on", "local"), ("stop",),
    )  # fmt: skip
    for command in commands:
        clone.invoke(*command)
        assert unknown(paths) == [], command
    secrets = leftovers.read_secrets(paths)
    assert paths.secret_key in secrets
    assert [file for file, mode in secrets.items() if mode & 0o077] == []
    assert "local" in records.deployments(paths)
