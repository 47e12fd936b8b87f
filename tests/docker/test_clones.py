"""A clone in Docker: beside its original, with the same data, and neither ever speaks to the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from provision.data import snapshots
from tests.support.clusters import SMALL, Cluster
from tests.support.snapshots import client, hashes, held

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory, mongo_image: str) -> Iterator[tuple[Cluster, Cluster]]:
    """An original and a cluster for its clone. Nothing is started."""
    folder = tmp_path_factory.mktemp("clones")
    settings = {**SMALL, "sharding": {"flaskbook": {"user": {"key": {"_id": "hashed"}}}}}
    made = [Cluster.make(folder / name, mongo_image, settings) for name in ("original", "clone")]
    try:
        yield made[0], made[1]
    finally:
        for each in made:
            each.close()


def addresses(cluster: Cluster) -> set[str]:
    return {node.address for node in cluster.deployment.topology.nodes}


def known(cluster: Cluster) -> set[str]:
    """Every address that its sets' configurations name, its list of shards and its shards' identities."""
    deployment, told = cluster.deployment, list[Any]()
    for node in deployment.topology.nodes:
        if not node.is_router:
            with deployment.dial(node) as connection:
                told += [
                    connection.command("admin", {"replSetGetConfig": 1}),
                    connection.command("config", {"find": "shards"}),
                    connection.command("admin", {"find": "system.version"}),
                ]
    return set(re.findall(r"[\w.-]+:\d{4,5}", repr(told)))


def logged(cluster: Cluster) -> str:
    """The logs of all its nodes."""
    backend = cluster.deployment.backend
    return "\n".join(
        line for node in cluster.deployment.topology.nodes for line in backend.log_tail(node, 100_000)
    )


def test_original_and_clone_run_side_by_side_and_never_speak_to_each_other(
    clusters: tuple[Cluster, Cluster],
) -> None:
    original, copy = clusters
    original.deployment.up()
    with client(original.deployment) as opened:
        opened.flaskbook.user.insert_many({"_id": n, "name": f"name {n}"} for n in range(500))
        opened.flaskbook.user.create_index("name")
        opened.flaskbook.command("createUser", "ann", pwd="secret", roles=["read"])
    of_original, containers = hashes(original.deployment), original.identities()
    assert snapshots.size(original.deployment) > 100_000
    assert snapshots.size(copy.deployment) == 0
    snapshots.clone(
        original.deployment, copy.deployment, start=False
    )  # as the first start in a worktree does it
    copy.deployment.up()
    assert hashes(copy.deployment) == of_original
    assert original.identities() == containers
    assert held(original.deployment) == []
    assert snapshots.every(original.deployment) == []
    for cluster, text in ((original, "original"), (copy, "clone")):
        with client(cluster.deployment) as opened:
            opened.flaskbook.user.insert_many({"_id": f"{text} {n}"} for n in range(100))
    for cluster, mine in ((original, "original"), (copy, "clone")):
        with client(cluster.deployment) as opened:
            assert opened.flaskbook.user.count_documents({}) == 600
            assert opened.flaskbook.user.find_one({"_id": f"{mine} 0"}) is not None
            assert opened.flaskbook.command("usersInfo", "ann")["users"]
    for cluster, other in ((original, copy), (copy, original)):
        members = {node.address for node in cluster.deployment.topology.nodes if not node.is_router}
        assert known(cluster) == members
        log = logged(cluster)
        assert "Listening on" in log
        assert [address for address in addresses(other) if address in log] == []
