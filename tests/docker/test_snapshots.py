"""Snapshots of the default cluster in Docker: one moment of all shards, put back into the volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.data import snapshots
from tests.support.clusters import DEFAULT, SMALL, Cluster
from tests.support.killing import killer, mark, marks, points, wanted
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
    with writing(default.deployment.uri(user="root"), dense=True) as load:
        before = list(load.acknowledged)
        taken = snapshots.save(default.deployment, "moment")
        begun = load.acknowledged[-1] + 1  # the one whose answer is awaited now may be in it
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


@pytest.mark.parametrize(("which", "usual"), [("small", 6), ("default", 2)])
def test_a_restore_that_is_killed_is_completed_or_undone_by_the_next_up(
    request: pytest.FixtureRequest, which: str, usual: int
) -> None:
    cluster: Cluster = request.getfixturevalue(which)
    cluster.deployment.up()
    mark(cluster.deployment, "old")
    taken = snapshots.save(cluster.deployment, "old")
    seen = set()
    with killer(cluster.root, cluster.values(), cluster.name) as running:
        steps = running.killed("restore", "old")
        for step in points(steps, wanted(usual)):
            mark(cluster.deployment, "new")
            if fewer := running.killed("restore", "old", step):
                mark(cluster.deployment, "new")
                assert running.killed("restore", "old", fewer) == 0
            cluster.deployment.up()
            (found,) = marks(cluster.deployment)
            seen.add(found)
            if found == "new":
                snapshots.restore(cluster.deployment, taken)  # as when it is typed again
            assert marks(cluster.deployment) == {"old"}
    assert seen == {"old", "new"}
    snapshots.delete(cluster.deployment, taken)


@pytest.mark.parametrize(("which", "usual"), [("small", 4), ("default", 2)])
def test_a_save_that_is_killed_leaves_no_half_snapshot_and_no_lock(
    request: pytest.FixtureRequest, which: str, usual: int
) -> None:
    cluster: Cluster = request.getfixturevalue(which)
    cluster.deployment.up()
    mark(cluster.deployment, "new")
    with killer(cluster.root, cluster.values(), cluster.name) as running:
        steps = running.killed("save", "again")
        for step in points(steps, wanted(usual)):
            removed(cluster)
            if fewer := running.killed("save", "again", step):
                removed(cluster)
                assert running.killed("save", "again", fewer) == 0
            cluster.deployment.up()  # a majority write is acknowledged: nothing is locked
            removed(cluster)
            snapshots.save(cluster.deployment, "again")
            assert held(cluster.deployment) == []
    assert [
        each for each in cluster.deployment.paths.snapshots(cluster.name).iterdir() if each.name[0] == "."
    ] == []
    assert marks(cluster.deployment) == {"new"}
    removed(cluster)


def removed(cluster: Cluster) -> None:
    """See that there is no snapshot `again`."""
    found = snapshots.find(cluster.deployment, "again")
    if found is not None:
        snapshots.delete(cluster.deployment, found)


def test_a_byte_that_is_not_as_it_was(small: Cluster) -> None:
    mark(small.deployment, "new")
    taken = snapshots.save(small.deployment, "damaged")
    file = next(each for each in sorted(taken.folder.rglob("collection-*.wt")) if each.stat().st_size > 5000)
    content = bytearray(file.read_bytes())
    content[4500] ^= 1
    file.write_bytes(content)
    before = small.identities()
    with pytest.raises(ProvisionError, match="is damaged"):
        snapshots.restore(small.deployment, taken)
    assert small.identities() == before
    assert marks(small.deployment) == {"new"}
