"""The test harness itself: what a machine lacks is named, counted, and a failure where it is required."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from tests.support import capabilities, processes
from tests.support.distribution import share_of, unit_of
from tests.support.processes import free_port, free_ports, listens

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["tests/unit"], set()),
        (["tests/unit/test_harness.py::test_x"], set()),
        (
            ["tests/native"],
            {
                "mongod",
                "index",
                "mount",
                "another-user",
                "mongosh",
                "other-mongods",
                "stepping-clock",
                "old-python",
            },
        ),
        (["tests/browser/test_x.py"], {"browser", "mongod"}),
        (["tests/hosts"], {"sshd", "namespaces", "mongod", "index", "systemd"}),
        # Where these are missing, something else takes their place.
        (["tests"], set(capabilities.PROBES) - {"mongos", "database-tools"}),
        (["."], set(capabilities.PROBES) - {"mongos", "database-tools"}),
    ],
)
def test_only_what_the_chosen_tests_need_is_looked_for(
    arguments: list[str], needs: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert set(capabilities.needed_by(arguments)) == needs


def test_every_capability_that_a_directory_needs_can_be_probed() -> None:
    assert {need for needs in capabilities.DIRECTORY_NEEDS.values() for need in needs} <= set(
        capabilities.PROBES
    )


def suite(*arguments: str, mongod: Path = Path("/nowhere/mongod")) -> subprocess.CompletedProcess[str]:
    """The Docker tests, on a machine that has no Docker, and no mongod but the one that is given."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "INVOKE_", "FLASKBOOK_"))
    }
    environment |= {
        "PATH": "/nowhere",
        "INVOKE_MONGODB_SOURCE": "path",
        "INVOKE_MONGODB_PATH": str(mongod),
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/docker", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_could_not_run_is_named_with_its_reason_and_remedy_and_the_summary_comes_last() -> None:
    done = suite()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "docker: none (docker is not installed)" in done.stdout
    section = done.stdout.split("could not run here")[1]
    assert "why:  docker is not installed" in section
    assert "next: bash .ci/prepare" in section
    assert "skipped" in done.stdout.strip().splitlines()[-1]
    assert " passed" not in done.stdout.strip().splitlines()[-1]


def test_what_is_required_fails() -> None:
    done = suite("--require", "docker")
    assert done.returncode == 1
    assert "needs docker: docker is not installed" in done.stdout
    assert "skipped" not in done.stdout.strip().splitlines()[-1]


def test_an_unknown_requirement_is_refused() -> None:
    done = suite("--require", "dokcer")
    assert done.returncode == 4
    assert "dokcer" in done.stderr


def test_a_run_that_requires_a_real_mongos_is_refused_where_the_stand_in_would_route(tmp_path: Path) -> None:
    mongod = tmp_path / "mongod"
    mongod.write_text("#!/bin/sh\necho 'db version v8.0.17'\n")
    mongod.chmod(0o755)
    done = suite("--require", "mongos", mongod=mongod)
    assert done.returncode == 4
    assert "the stand-in would serve" in done.stderr
    assert "INVOKE_MONGODB_SOURCE=archive" in done.stderr


def test_a_free_port_is_free() -> None:
    port = free_port()
    assert not listens(port)
    assert port < 32768


def test_no_port_is_given_to_two_workers_nor_to_a_node_and_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    # What this worker was given before, for servers that may still run, leaves less room.
    monkeypatch.setattr(processes, "_BLOCKS", deque(maxlen=3))
    given: dict[int, str] = {}
    for worker in ("gw0", "gw1", "gw2", "gw3", "gw7"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        for ports in (
            *((free_port(),) for _ in range(40)),
            *(range(first := free_ports(300), first + 300) for _ in "ab"),
        ):
            for port in ports:
                assert given.setdefault(port, worker) == worker
                assert port < 32768
        assert len({port for port, owner in given.items() if owner == worker}) == 640


@pytest.mark.parametrize("file", ["tests/docker/test_cluster.py", "tests/hosts/test_link.py"])
def test_tests_that_share_a_fixture_of_their_file_stay_in_one_worker(file: str) -> None:
    assert unit_of(f"{file}::test_x") == unit_of(f"{file}::test_y[a]") == file


def test_tests_that_share_nothing_go_to_any_worker_that_is_free() -> None:
    one, other = (f"tests/unit/test_locks.py::test_x[{parameter}]" for parameter in ("a", "a::b"))
    assert (unit_of(one), unit_of(other)) == (one, other)


def test_the_shares_of_a_runs_workers_are_all_its_files_once() -> None:
    arguments = ["tests/unit/flaskbook", "tests/unit/test_harness.py::test_it", "tests/unit/test_harness.py"]
    shares = [share_of(arguments, worker, 3) for worker in range(3)]
    files = [
        *(ROOT / "tests" / "unit" / "flaskbook").glob("test_*.py"),
        ROOT / "tests" / "unit" / "test_harness.py",
    ]
    assert sorted(name for share in shares for name in share) == sorted(
        f"{'.'.join(file.relative_to(ROOT).parent.parts)}.{file.stem}" for file in files
    )
    assert share_of(arguments, 0, 1) == []
