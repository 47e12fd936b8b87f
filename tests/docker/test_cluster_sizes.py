"""Clusters and replica sets of other sizes, side by side, growing."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from pymongo import MongoClient

from tests.support.clusters import SMALL, Cluster, docker
from tests.support.polling import until

pytestmark = pytest.mark.timeout(300)
Make = Callable[..., Cluster]


def test_two_smallest_clusters_run_side_by_side(make: Make) -> None:
    one, other = make(SMALL), make(SMALL)
    for number, cluster in enumerate((one, other)):
        cluster.deployment.up()
        with cluster.client() as client:
            client["flaskbook"]["who"].insert_one({"_id": number})
    assert sorted(one.states().values()) == ["PRIMARY", "PRIMARY", "ROUTER"]
    for number, cluster in enumerate((one, other)):
        with cluster.client() as client:
            assert [each["_id"] for each in client["flaskbook"]["who"].find()] == [number]
    one.deployment.down(delete_data=True)
    assert one.left() == {}
    assert other.deployment.status().state == "running"


def test_three_shards_grow_to_four_and_a_second_router(make: Make) -> None:
    sharding = {"flaskbook": {"user": {"key": {"_id": "hashed"}, "chunks": 12}}}
    cluster = make(SMALL, shards=3, sharding=sharding)
    cluster.deployment.up()
    with cluster.client() as client:
        client["flaskbook"]["user"].insert_many([{"_id": n} for n in range(300)])
    assert all(cluster.count_on(f"shard{n}", "flaskbook", "user") > 30 for n in (1, 2, 3))

    before = cluster.identities()
    cluster.settings |= {"shards": 4, "routers": 2}
    assert set(cluster.deployment.up().started) == {"shard4-1", "router-2"}
    status = cluster.deployment.status()
    assert status.state == "running"
    assert [shard.name for shard in status.shards or ()] == ["shard1", "shard2", "shard3", "shard4"]
    assert before.items() <= cluster.identities().items()

    # With two routers, a client goes on when one of them dies.
    with cluster.client() as client:
        users = client["flaskbook"]["user"]
        assert users.count_documents({}) == 300
        deployment = cluster.deployment
        deployment.kill_node(deployment.node("router-1"))
        until("the other router to answer", lambda: _answers(users.count_documents))
    assert set(cluster.deployment.up().started) == {"router-1"}


def _answers(count: Callable[[dict[str, object]], int]) -> bool:
    from pymongo.errors import PyMongoError

    try:
        return count({}) == 300
    except PyMongoError:
        return False


def test_replica_set_grows_from_one_member_to_three(make: Make) -> None:
    cluster = make({"topology": "replica-set", "members": 1})
    cluster.deployment.up()
    with cluster.client() as client:
        client["flaskbook"]["user"].insert_one({"_id": 1})
    cluster.settings["members"] = 3
    assert set(cluster.deployment.up().started) == {"member-2", "member-3"}
    assert sorted(cluster.states().values()) == ["PRIMARY", "SECONDARY", "SECONDARY"]
    for number in (1, 2, 3):
        member = cluster.node(f"member-{number}")
        with cluster.deployment.dial(member) as connection:
            found = connection.command(
                "flaskbook", {"find": "user", "$readPreference": {"mode": "secondary"}}
            )
            assert [each["_id"] for each in found["cursor"]["firstBatch"]] == [1], member.name

    # The URI for programs on this machine leads to a primary, whether or not this machine resolves *.localhost.
    uri = cluster.deployment.uri("flaskbook", user="app")
    assert ("directConnection=true" in uri) is not _resolves("member-1.localhost")
    with MongoClient(uri, serverSelectionTimeoutMS=20_000) as client:
        client["flaskbook"]["user"].insert_one({"_id": 2})
    for_containers = cluster.deployment.uri("flaskbook", audience="container")
    assert f"member-1.localhost:{cluster.settings['port']}" in for_containers
    assert "replicaSet=" in for_containers


def _resolves(name: str) -> bool:
    try:
        return socket.gethostbyname(name) == "127.0.0.1"
    except OSError:
        return False


def test_single_nodes_stop_and_start(make: Make) -> None:
    cluster = make(SMALL)
    deployment = cluster.deployment
    deployment.up()
    before = cluster.identities()
    shard = deployment.node("shard1-1")
    deployment.stop_node(shard)
    assert cluster.states()["shard1-1"] == "DOWN"
    deployment.start_node(shard)
    until("it to be primary again", lambda: cluster.states()["shard1-1"] == "PRIMARY")
    after = cluster.identities()
    assert {name for name in before if before[name] != after[name]} == {"shard1-1"}


def test_volumes_deleted_behind_its_back_make_a_new_cluster(make: Make) -> None:
    cluster = make(SMALL)
    cluster.deployment.up()
    cluster.deployment.down(remove=True)
    docker("volume", "rm", *cluster.left()["volumes"])
    cluster.deployment.up()
    assert cluster.deployment.status().state == "running"
