"""The default cluster in Docker, ten containers, beside a bare `docker compose` on the same file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

from provision.core.errors import ProvisionError
from tools.bench.lab import Lab, Project
from tools.bench.measure import Bound, Subject
from tools.bench.subjects.deployments import declare, docker, docker_is_missing, remove_from_docker

_SETTINGS = {
    "topology": "sharded",
    "backend": "docker",
    "members": 3,
    "config_servers": 3,
    "shards": 2,
    "routers": 1,
    "sharding": {"flaskbook": {"user": {"key": {"_id": "hashed"}}}},
}
_CACHE_GB = "0.25"  # the default deployment's
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def _cluster(lab: Lab) -> Iterator[tuple[Project, str]]:
    """The deployment without containers or data, and without them again at the end."""
    project, name = declare(lab, "cluster", _SETTINGS)
    try:
        yield project, name
    finally:
        remove_from_docker(name)


def _compose(name: str) -> list[str]:
    file = f".state/deployments/{name}/compose.yaml"
    return ["docker", "compose", "--project-directory", ".", "-f", file]


def _up(lab: Lab, project: Project, name: str, *arguments: str) -> float:
    return lab.run(["./invoke", "cluster.up", "--on", name, *arguments], project.paths.root).seconds


def _bare_up(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        if not (project.paths.deployment(name) / "compose.yaml").is_file():
            _up(lab, project, name)  # renders what is mounted
            remove_from_docker(name)
        return lab.run([*_compose(name), "up", "-d"], project.paths.root).seconds


def _writable(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        seconds = _up(lab, project, name, "--wait", "writable")
        # Waits for what goes on in the background.
        lab.run(["./invoke", "cluster.down", "--on", name, "--delete-data", "--yes"], project.paths.root)
        return seconds


def _healthy(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        return _up(lab, project, name)


def _second_up(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        _up(lab, project, name)
        return _up(lab, project, name)


def _down(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        _up(lab, project, name)
        return lab.run(["./invoke", "cluster.down", "--on", name], project.paths.root).seconds


def _bare_down(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        _up(lab, project, name)
        return lab.run([*_compose(name), "down", "-t", "0"], project.paths.root).seconds


def _memory(lab: Lab) -> float:
    with _cluster(lab) as (project, name):
        _up(lab, project, name)
        return _resident_mb(docker("ps", "-q", "--filter", f"label=provision.deployment={name}").split())


def _memory_of_ten(lab: Lab) -> float:
    single = docker("run", "-d", "--rm", lab.image, "mongod", "--wiredTigerCacheSizeGB", _CACHE_GB).strip()
    try:
        deadline = time.monotonic() + _START_SECONDS
        while "Waiting for connections" not in docker("logs", single) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return 10 * _resident_mb([single])
    finally:
        docker("rm", "-fv", single)


def _resident_mb(containers: list[str]) -> float:
    import psutil

    total = 0
    for each in json.loads(docker("inspect", *containers)):
        process = psutil.Process(each["State"]["Pid"])
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    if not total:
        raise ProvisionError("measuring memory", "The containers run no process here.", "Use a local engine.")
    return total / 2**20


WRITABLE = Subject(
    "cluster-writable",
    "./invoke cluster.up --wait writable (a majority write through the router), nothing there but the image",
    Bound(2.5, "x"),
    _writable,
    _bare_up,
    "docker compose up -d on the same file",
    docker_is_missing,
)
HEALTHY = Subject(
    "cluster-healthy",
    "./invoke cluster.up until every member of the ten containers is healthy",
    Bound(12.0, "s"),
    _healthy,
    skip_reason=docker_is_missing,
)
SECOND_UP = Subject(
    "cluster-up-again",
    "./invoke cluster.up on the running cluster, changing nothing",
    Bound(2.0, "s"),
    _second_up,
    skip_reason=docker_is_missing,
)
DOWN = Subject(
    "cluster-down",
    "./invoke cluster.down, after everything was flushed to disk",
    Bound(1.5, "x"),
    _down,
    _bare_down,
    "docker compose down -t 0, which kills them",
    docker_is_missing,
)
MEMORY = Subject(
    "cluster-memory",
    "resident memory of the default cluster right after cluster.up, all ten containers",
    Bound(1.15, "x"),
    _memory,
    _memory_of_ten,
    "ten times one idle mongod with the same cache setting",
    docker_is_missing,
    "MB",
)
