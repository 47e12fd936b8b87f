"""`eject` of a deployment in Docker: its compose file runs the same volumes without the tool."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from provision.core.errors import ProvisionError
from provision.deployments.ejection import eject
from tests.support.clusters import Cluster, docker


@pytest.fixture
def single(tmp_path: Path, mongo_image: str) -> Iterator[Cluster]:
    made = Cluster.make(tmp_path / "project", mongo_image, {"topology": "single"})
    try:
        made.deployment.up()
        yield made
    finally:
        made.close()


def test_compose_alone_goes_on_with_the_data(single: Cluster, tmp_path: Path) -> None:
    with single.client("root") as client:
        client["flaskbook"]["user"].insert_one({"_id": "kept"})
    uri = single.deployment.uri(user="root")
    folder = tmp_path / "plain"
    files = eject(single.load(), single.deployment, folder, {"MONGODB_URI": uri, "EMPTY": None})
    assert set(files) == {each.name for each in folder.iterdir()}
    assert {"compose.yaml", "keyfile", ".env"} <= set(files)
    single.deployment.down(remove=True)
    subprocess.run(["docker", "compose", "up", "-d"], cwd=folder, check=True, capture_output=True)
    try:
        with MongoClient(uri, serverSelectionTimeoutMS=60_000) as client:
            assert client["flaskbook"]["user"].find_one() == {"_id": "kept"}
    finally:
        subprocess.run(["docker", "compose", "down"], cwd=folder, check=True, capture_output=True)
    assert "containers" not in single.left()


def test_a_folder_in_use_gets_nothing(single: Cluster, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "mine").touch()
    with pytest.raises(ProvisionError, match="is not empty"):
        eject(single.load(), single.deployment, tmp_path / "plain", {})
    assert docker("ps", "-q").strip()
