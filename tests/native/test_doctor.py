"""`invoke doctor` over a real mongod: running, crashed, orphaned, and in its way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from provision import doctor
from provision.core.finding import Finding, Level
from provision.core.steps import Silent
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.mongodb import binaries
from provision.settings.loading import Layer, Loaded, load
from tests.support.capabilities import ROOT
from tests.support.clones import Clone, cloned
from tests.support.deployments import foreign_mongod
from tests.support.polling import until
from tests.support.processes import free_port, listens


@dataclass(frozen=True)
class Running:
    """A project whose deployment runs.

    Args:
        loaded: its settings.
        local: the deployment.
    """

    loaded: Loaded
    local: Deployment


def project(root: Path, mongod: Path) -> Loaded:
    """A project with a mongod chosen."""
    shutil.copy(ROOT / "mongod.conf.j2", root)
    values = {
        "mongodb": {"source": "path", "path": str(mongod)},
        "paths": {"cache": "cache"},
        "app": {"port": free_port()},
        "deployments": {"local": {"port": free_port()}},
    }
    found = load(root, [Layer("test", values)], {})
    binaries.find(found.settings.mongodb, found.paths, Silent())
    return found


@pytest.fixture
def loaded(tmp_path: Path, mongod_binary: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """A project of its own; the package index is left alone."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return project(tmp_path, mongod_binary)


@pytest.fixture(scope="module")
def running_once(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[Running]:
    loaded = project(tmp_path_factory.mktemp("running"), mongod_binary)
    deployment = assembly.deployment(loaded, "local")
    yield Running(loaded, deployment)
    deployment.down()


@pytest.fixture
def running(running_once: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """One project for all tests that want its deployment to run: it does, and is on record."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    if not running_once.loaded.paths.node_record("local", "mongod").exists():
        running_once.local.down()
    running_once.local.up()
    return running_once


def about(loaded: Loaded, check: str) -> list[Finding]:
    return [each for each in doctor.examine(loaded) if each.check == check]


def node_port(loaded: Loaded) -> int:
    return loaded.settings.deployments["local"].port


def kill(deployment: Deployment) -> None:
    pid = deployment.status().nodes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("mongod to be dead", lambda: not deployment.backend.observe(deployment.node()).running)


def test_a_running_deployment_is_ok_and_its_port_is_its_own(running: Running) -> None:
    loaded = running.loaded
    (port,) = about(loaded, f"port {node_port(loaded)}")
    assert port.level is Level.OK
    assert "mongod of local, which runs" in port.what
    assert about(loaded, "leftovers") == []


def test_the_mongod_in_use_is_named_with_its_version(
    loaded: Loaded, mongod_version: str, mongod_binary: Path
) -> None:
    (found,) = about(loaded, "mongod")
    assert found.level is Level.OK
    assert mongod_version in found.what
    assert str(mongod_binary) in found.what


def test_a_killed_mongod_is_a_leftover_until_the_start_that_recovers_it(running: Running) -> None:
    loaded, local = running.loaded, running.local
    kill(local)
    (found,) = about(loaded, "leftovers")
    assert found.level is Level.WARNING
    assert "./invoke start recovers" in found.remedy
    local.up()
    assert about(loaded, "leftovers") == []


def test_after_a_clean_stop_nothing_is_left(running: Running) -> None:
    running.local.down()
    assert about(running.loaded, "leftovers") == []


def test_a_mongod_whose_record_was_lost_is_found_and_left_as_it_is(running: Running) -> None:
    loaded, local = running.loaded, running.local
    pid = local.status().nodes[0].pid
    record = loaded.paths.node_record("local", "mongod")
    record.unlink()
    (found,) = about(loaded, "leftovers")
    assert f"process {pid}" in found.what
    assert "./invoke status" in found.remedy
    assert not record.exists()


def test_a_foreign_process_on_the_port_is_named_and_not_touched(loaded: Loaded) -> None:
    with socket.create_server(("127.0.0.1", node_port(loaded))):
        (found,) = about(loaded, f"port {node_port(loaded)}")
        assert listens(node_port(loaded))
    assert found.level is Level.ERROR
    assert f"process {os.getpid()}" in found.what
    assert "INVOKE_DEPLOYMENTS_LOCAL_PORT=" in found.remedy


def test_the_port_offered_instead_is_free(loaded: Loaded) -> None:
    app = loaded.settings.app.port
    with socket.create_server(("127.0.0.1", app)):
        (found,) = about(loaded, f"port {app}")
    offered = int(found.remedy.split("--port ")[1])
    with socket.create_server(("127.0.0.1", offered)):
        assert offered != app


def test_data_in_use_by_a_foreign_mongod_are_an_error(loaded: Loaded, mongod_binary: Path) -> None:
    data = loaded.paths.node_data("local", "mongod")
    data.mkdir(parents=True)
    with foreign_mongod(mongod_binary, data) as foreign:
        (found,) = about(loaded, "data in use")
        assert foreign.poll() is None
    assert found.level is Level.ERROR
    assert f"process {foreign.pid}" in found.what


def test_a_mongod_that_cannot_run_is_an_error_that_says_why(loaded: Loaded, tmp_path: Path) -> None:
    broken = tmp_path / "mongod"
    broken.write_bytes(b"\x7fELF and nothing else")
    broken.chmod(0o755)
    mongodb = replace(loaded.settings.mongodb, path=str(broken))
    changed = replace(loaded, settings=replace(loaded.settings, mongodb=mongodb))
    (found,) = about(changed, "mongod")
    assert found.level is Level.ERROR
    assert str(broken) in found.what


def test_a_configuration_edited_by_hand_is_named(loaded: Loaded) -> None:
    assembly.deployment(loaded, "local").rendering.write()
    conf = loaded.paths.node_conf("local", "mongod")
    assert about(loaded, "configuration") == []
    conf.write_text(conf.read_text() + "# mine\n")
    (found,) = about(loaded, "configuration")
    assert found.level is Level.WARNING
    assert str(conf) in found.what


def test_nothing_is_changed_by_looking(loaded: Loaded) -> None:
    before = {path: path.stat().st_mtime_ns for path in loaded.paths.root.rglob("*")}
    doctor.examine(loaded)
    assert {path: path.stat().st_mtime_ns for path in loaded.paths.root.rglob("*")} == before


def test_the_task_prints_json_of_the_documented_shape_and_ends_with_0(clone: Clone) -> None:
    clone.set_up()
    found = json.loads(clone.succeeds("doctor", "--json", env={"PIP_NO_INDEX": "1"}))
    assert {"python", "virtualenv", "package index", "mongod", "ports", "disk", "memory", "docker"} <= {
        each["check"] for each in found
    }
    for each in found:
        assert set(each) == {"check", "level", "what", "remedy"}
        assert each["level"] in ("ok", "warning", "error")
        assert each["remedy"] or each["level"] == "ok"


def test_the_task_ends_with_1_where_run_could_not_work(clone: Clone) -> None:
    clone.set_up()
    with socket.create_server(("127.0.0.1", clone.app_port)):
        done = clone.invoke("doctor", env={"PIP_NO_INDEX": "1"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"./invoke run --port {clone.app_port + 1}" in done.stdout or "./invoke run --port" in done.stdout


def test_an_app_that_has_outlived_its_run_is_found(clone: Clone) -> None:
    running = clone.begin("run")
    running.says("Serving")
    app = next(each for each in clone.processes() if "serve.py" in " ".join(each.cmdline()))
    app.suspend()  # or it would end with its parent
    # One thread takes the signal and stops the others: on a busy machine the one that watches the parent may run on.
    tasks = Path(f"/proc/{app.pid}/task")
    until(
        "all threads of the app to stand still",
        lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()),
    )
    running.process.kill()
    running.process.wait()
    done = clone.invoke("doctor", "--json", env={"PIP_NO_INDEX": "1"})
    found = [each for each in json.loads(done.stdout) if each["check"] == "leftovers"]
    assert [each["remedy"] for each in found] == [f"kill {app.pid}"]
    app.kill()
    psutil.wait_procs([app], 10)


def test_the_app_of_a_run_that_runs_is_nothing_to_report(clone: Clone) -> None:
    running = clone.begin("run")
    running.says("Serving")
    done = clone.invoke("doctor", "--json", env={"PIP_NO_INDEX": "1"})
    assert [each for each in json.loads(done.stdout) if each["check"] == "leftovers"] == []
    assert "kill" not in done.stdout
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


def test_after_a_crash_the_pid_in_mongod_lock_may_be_that_of_another_clones_mongod(
    loaded: Loaded, mongod_binary: Path, tmp_path: Path
) -> None:
    data = loaded.paths.node_data("local", "mongod")
    data.mkdir(parents=True)
    (tmp_path / "another").mkdir()
    with foreign_mongod(mongod_binary, tmp_path / "another") as another:
        (data / "mongod.lock").write_text(f"{another.pid}\n")
        assert about(loaded, "data in use") == []
        (found,) = about(loaded, "leftovers")
    assert "./invoke start recovers it" in found.remedy


WITHOUT_PROC = (
    *("unshare", "--mount", "--propagation", "private"),
    *("sh", "-euc", 'umount -l /proc; exec "$@"', "sh"),
)


@pytest.fixture(scope="module")
def clone_that_runs(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[Clone]:
    with cloned(tmp_path_factory.mktemp("runs"), str(mongod_binary)) as made:
        yield made


@pytest.mark.needs("mount")
@pytest.mark.parametrize("task", ["stop", "start", "status"])
def test_without_proc_there_is_one_error_and_nothing_is_taken_for_dead(
    clone_that_runs: Clone, task: str
) -> None:
    clone = clone_that_runs
    clone.start()
    (mongod,) = clone.mongods()
    without = replace(clone, prefix=WITHOUT_PROC)
    said = without.fails(task)
    assert "/proc is not mounted" in said
    assert "next: mount -t proc proc /proc" in said
    assert clone.mongods() == [mongod]
    assert clone.pid() == mongod.pid


@pytest.mark.needs("mount")
def test_without_proc_doctor_says_that_and_nothing_else(clone: Clone) -> None:
    clone.set_up()
    done = replace(clone, prefix=WITHOUT_PROC).invoke("doctor", "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (found,) = json.loads(done.stdout)
    assert found["level"] == "error"
    assert "/proc is not mounted" in found["what"]
