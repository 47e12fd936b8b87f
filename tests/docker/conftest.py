"""Tests that need a Docker engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support import capabilities, clusters
from tests.support.clusters import Cluster


@pytest.fixture(scope="session")
def chosen_image(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[str, str]:
    """The image, and what to tell of it; all workers of a run take the same."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    record = shared / "image.json"
    with FileLock(shared / "image.lock"):
        if not record.exists():
            clusters.remove_those_of_dead_runs()
            mongod = capabilities.probe("mongod")
            path = Path(mongod.values["path"]) if mongod.present else None
            record.write_text(json.dumps(clusters.choose_image(path)))
        image, told = json.loads(record.read_text())
    return image, told


@pytest.fixture(scope="session")
def mongo_image(chosen_image: tuple[str, str]) -> str:
    """The image that the tests run against: the official one where it is to be had, else a local one."""
    return chosen_image[0]


@pytest.fixture(autouse=True)
def _tell_image(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    if "mongo_image" in request.fixturenames:
        record_property(capabilities.RAN_AGAINST, request.getfixturevalue("chosen_image")[1])


@pytest.fixture
def make(tmp_path: Path, mongo_image: str) -> Iterator[Callable[..., Cluster]]:
    """Prepares deployments in Docker; all that Docker has of them is removed at the end, however that comes."""
    made: list[Cluster] = []

    def prepare(settings: Mapping[str, Any], name: str = "", **more: Any) -> Cluster:
        root = tmp_path / f"project-{len(made)}"
        cluster = Cluster.make(root, mongo_image, {**settings, **more}, name)
        made.append(cluster)
        return cluster

    try:
        yield prepare
    finally:
        for cluster in made:
            cluster.close()
