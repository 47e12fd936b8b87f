"""The script behind the GitHub Action, the GitLab snippet and the development container, on a machine with Python alone."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from provision.env.virtualenv import base_executable
from tests.support import processes
from tests.support.clones import ROOT
from tests.support.installed import build_wheel, offline

pytestmark = pytest.mark.needs("index")
SCRIPT = ROOT / "tools" / "ci" / "mongodb.sh"


@pytest.fixture
def job(tmp_path: Path, mongod_binary: Path) -> Iterator[dict[str, str]]:
    """The environment of a job: nothing of this machine but a Python, and a mongod."""
    mark = f"ci-{tmp_path.name}"
    environment = {
        "PATH": f"{Path(base_executable()).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PROVISION_HOME": str(tmp_path / "home"),
        "PROVISION_PACKAGE": str(build_wheel(tmp_path / "wheel")),
        "INVOKE_MONGODB_SOURCE": "path",
        "INVOKE_MONGODB_PATH": str(mongod_binary),
        "MONGODB_PORT": str(processes.free_ports(10)),
        processes.TEST: mark,
        **offline(),
    }
    assert run(environment, "install").returncode == 0
    yield environment
    processes.end(processes.marked(processes.TEST, lambda value: value == mark))


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", SCRIPT, *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_job_gets_a_server_with_users_and_no_log_has_the_password(
    job: dict[str, str], tmp_path: Path
) -> None:
    for name in ("GITHUB_OUTPUT", "GITHUB_ENV"):
        job[name] = str(tmp_path / name)
    done = run(job | {"MONGODB_AUTH": "true"}, "start")
    assert done.returncode == 0, done.stderr
    uri = done.stdout.strip()
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"uri={uri}\n"
    assert (tmp_path / "GITHUB_ENV").read_text() == f"MONGODB_URI={uri}\n"
    with MongoClient(uri) as client:
        assert client["shop"]["orders"].insert_one({}).acknowledged
    password = urlsplit(uri).password
    assert password
    assert f"::add-mask::{password}\n" in done.stderr
    assert done.stderr.count(password) == 1
    with MongoClient(f"mongodb://127.0.0.1:{job['MONGODB_PORT']}") as client, pytest.raises(OperationFailure):
        client["shop"]["orders"].insert_one({})
    assert run(job, "stop").returncode == 0
    assert not processes.marked(processes.TEST, lambda value: value == job[processes.TEST])


def test_a_job_whose_port_is_taken_fails_and_says_so(job: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(job["MONGODB_PORT"]))):
        done = run(job, "start")
    assert done.returncode == 1
    assert "is held by" in done.stderr
    assert done.stdout == ""


def test_an_unknown_command_is_one_clear_error() -> None:
    done = run({"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, "begin")
    assert done.returncode == 1
    assert "mongodb.sh install, start, logs or stop" in done.stderr
