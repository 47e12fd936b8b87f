"""Snapshots of the default cluster in Docker: one moment of all shards, put back into the volumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.data import snapshots
from tests.support.clusters import DEFAULT, SMALL, Cluster
from tests.support.load import writing
from tests.support.snapshots import client, hashes, held

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory, mongo_image: str) -> Iterator[Cluster]:
    cluster = Cluster.make(tmp_path_factory.mktemp("snapshots") / "project", mongo_image, DEFAULT)
    try:
        cluster.deployment.up()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, mongo_image: str) -> Iterator[Cluster]:
    """A set of one member."""
    settings = {**SMALL, "topology": "replica-set"}
    cluster = Cluster.make(tmp_path_factory.mktemp("snapshots") / "project", mongo_image, settings)
    try:
        cluster.deployment.up()
        yield cluster
    finally:
        cluster.close()


def config(cluster: Cluster) -> dict[str, Any]:
    """Shards, sharded collections, chunks and zones of a cluster, and its users."""
    with client(cluster.deployment) as opened:
        found = opened.config
        (users,) = list(found.collections.find({"_id": "flaskbook.user"}))
        return {
            "user": users,
            "shards": list(found.shards.find({}, {"topologyTime": 0})),
            "chunks": list(found.chunks.find({"uuid": users["uuid"]})),
            "zones": list(found.tags.find()),
            "indexes": sorted(opened.flaskbook.user.index_information()),
            "ann": opened.flaskbook.command("usersInfo", "ann")["users"],
        }


def test_all_of_a_moment_comes_back_into_the_default_cluster(default: Cluster) -> None:
    with client(default.deployment) as opened:
        opened.flaskbook.user.insert_many({"_id": n, "name": f"name {n}"} for n in range(2000))
        opened.flaskbook.user.create_index("name")
        opened.flaskbook.command("createUser", "ann", pwd="secret", roles=["read"])
        opened.admin.command("addShardToZone", "shard1", zone="near")
    with writing(default.deployment.uri(user="root")) as acknowledged:
        before = list(acknowledged)
        taken = snapshots.save(default.deployment, "moment")
        begun = acknowledged[-1] + 1  # the one whose answer is awaited now may be in it
    assert held(default.deployment) == []
    of_moment = config(default)
    with client(default.deployment) as opened:
        opened.flaskbook.user.delete_many({"_id": {"$lt": 1000}})
        opened.flaskbook.user.drop_index("name_1")
        opened.flaskbook.command("dropUser", "ann")
        opened.admin.command("removeShardFromZone", "shard1", zone="near")
    later = hashes(default.deployment)
    snapshots.restore(default.deployment, taken)
    with client(default.deployment) as opened:
        there = {each["_id"] for each in opened.flaskbook.load.find()}
        assert opened.flaskbook.user.count_documents({}) == 2000
    assert set(before) <= there, "an acknowledged write is missing"
    assert max(there) <= begun, "it has a write that began after it was taken"
    assert config(default) == of_moment
    restored = hashes(default.deployment)
    snapshots.undo(default.deployment)
    assert hashes(default.deployment) == later
    # The data, the volumes and the containers may be gone: the snapshot is the project's.
    default.deployment.down(delete_data=True)
    snapshots.restore(default.deployment, taken)
    assert hashes(default.deployment) == restored
    assert config(default) == of_moment


# Kills itself before one of the actions on the volumes, or before the nodes are started.
_CUT_OFF = """
import os, signal, sys
from pathlib import Path
from provision.backends.docker import Docker
from provision.backends.volumes import FoldersInVolumes
from provision.data import snapshots
from tests.support.clusters import Cluster
cluster = Cluster(Path(sys.argv[1]), sys.argv[2], sys.argv[3], eval(sys.argv[4]))
steps = 0
def counted(owner, name):
    original = getattr(owner, name)
    def step(*args, **kwargs):
        global steps
        steps += 1
        if steps == int(sys.argv[5]):
            os.killpg(0, signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, step)
for name in ("_run_on_volumes", "launch", "terminate"):
    counted(Docker, name)
snapshots.restore(cluster.deployment, snapshots.find(cluster.deployment, "old"))
print(steps)
"""


def mark(cluster: Cluster, text: str) -> None:
    with client(cluster.deployment) as opened:
        opened.flaskbook.mark.replace_one({"_id": 1}, {"text": text}, upsert=True)


def marked(cluster: Cluster) -> str:
    with client(cluster.deployment) as opened:
        found = opened.flaskbook.mark.find_one()
        assert found is not None
        return str(found["text"])


def test_a_restore_that_is_killed_is_completed_or_undone_by_the_next_up(small: Cluster) -> None:
    mark(small, "old")
    taken = snapshots.save(small.deployment, "old")

    def cut_off(step: int) -> subprocess.CompletedProcess[str]:
        arguments = [str(small.root), small.image, small.name, repr(small.settings), str(step)]
        return subprocess.run(
            [sys.executable, "-c", _CUT_OFF, *arguments],
            cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True, text=True, timeout=120, start_new_session=True,
        )  # fmt: skip

    whole = cut_off(0)
    assert whole.returncode == 0, whole.stderr
    seen = set()
    for step in range(1, int(whole.stdout.split()[-1]) + 1):
        mark(small, "new")
        assert cut_off(step).returncode == -signal.SIGKILL
        small.deployment.up()
        seen.add(marked(small))
        snapshots.restore(small.deployment, taken)
        assert marked(small) == "old"
    assert seen == {"old", "new"}


def test_a_byte_that_is_not_as_it_was(small: Cluster) -> None:
    mark(small, "new")
    taken = snapshots.save(small.deployment, "damaged")
    file = next(each for each in sorted(taken.folder.rglob("collection-*.wt")) if each.stat().st_size > 5000)
    content = bytearray(file.read_bytes())
    content[4500] ^= 1
    file.write_bytes(content)
    before = small.identities()
    with pytest.raises(ProvisionError, match="is damaged"):
        snapshots.restore(small.deployment, taken)
    assert small.identities() == before
    assert marked(small) == "new"
