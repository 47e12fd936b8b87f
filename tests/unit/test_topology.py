"""Names, ports and connection strings are planned: pure data."""

from __future__ import annotations

from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.deployments.assembly import plan
from provision.mongodb.topology import Role
from provision.settings.loading import default_deployments
from provision.settings.schema import DeploymentSettings


def of(**settings: Any) -> DeploymentSettings:
    return DeploymentSettings(backend="processes", **settings)


def test_one_mongod_is_a_replica_set_of_one_by_default() -> None:
    topology = plan("local", default_deployments()["local"])
    assert [(node.name, node.role, node.replica_set) for node in topology.nodes] == [
        ("mongod", Role.MEMBER, "rs0")
    ]
    assert topology.uri() == "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    assert topology.uri("shop") == "mongodb://127.0.0.1:27017/shop?replicaSet=rs0"


def test_without_a_replica_set_it_stands_alone() -> None:
    topology = plan("local", of(topology="single", replica_set=None, port=4000))
    assert [(node.name, node.role, node.replica_set) for node in topology.nodes] == [
        ("mongod", Role.STANDALONE, None)
    ]
    assert topology.all_sets == ()
    assert topology.uri("shop") == "mongodb://127.0.0.1:4000/shop?directConnection=true"


def test_a_replica_sets_members_have_ports_in_a_row_and_arbiters_come_last() -> None:
    topology = plan("set", of(topology="replica-set", replica_set="rs1", port=5000, members=2, arbiters=1))
    assert [(node.port, node.role, node.arbiter) for node in topology.nodes] == [
        (5000, Role.MEMBER, False),
        (5001, Role.MEMBER, False),
        (5002, Role.ARBITER, True),
    ]
    assert topology.uri() == "mongodb://127.0.0.1:5000,127.0.0.1:5001/?replicaSet=rs1"


def test_a_sharded_cluster_is_reached_through_its_routers() -> None:
    topology = plan("c", of(topology="sharded", port=6000, members=3, config_servers=3, shards=2, routers=2))
    assert [node.port for node in topology.routers] == [6000, 6001]
    assert topology.config is not None
    assert [node.port for node in topology.config.members] == [6020, 6021, 6022]
    assert [[node.port for node in shard.members] for shard in topology.replica_sets] == [
        [6050, 6051, 6052],
        [6100, 6101, 6102],
    ]
    assert topology.uri() == "mongodb://127.0.0.1:6000,127.0.0.1:6001/"
    assert all(
        node.config_db == "config/127.0.0.1:6020,127.0.0.1:6021,127.0.0.1:6022" for node in topology.routers
    )


def test_adding_a_shard_moves_nobody() -> None:
    def ports(shards: int) -> dict[str, int]:
        made = plan(
            "c", of(topology="sharded", port=6000, members=1, config_servers=1, shards=shards, routers=1)
        )
        return {node.name: node.port for node in made.nodes}

    two, three = ports(2), ports(3)
    assert two.items() < three.items()


@pytest.mark.parametrize("size", [{"members": 1}, {"members": 3, "arbiters": 1, "shards": 4, "routers": 3}])
def test_names_and_ports_are_unique(size: dict[str, int]) -> None:
    nodes = plan("c", of(topology="sharded", port=20000, **size)).nodes
    assert len({node.name for node in nodes}) == len({node.port for node in nodes}) == len(nodes)


def test_planning_is_pure() -> None:
    settings = of(topology="sharded", port=6000)
    assert plan("c", settings) == plan("c", settings)


def test_ports_beyond_the_last_are_refused() -> None:
    with pytest.raises(ProvisionError, match="65535"):
        plan("c", of(topology="sharded", port=65500))


def test_a_node_is_given_what_its_deployment_has() -> None:
    node = plan(
        "local", of(topology="single", cache_size_gb=0.5, oplog_size_mb=99, set_parameter={"x": 1})
    ).nodes[0]
    assert (node.options.cache_size_gb, node.options.oplog_size_mb, node.options.set_parameter) == (
        0.5,
        99,
        {"x": 1},
    )
