"""Which node goes on which host."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.core.errors import ProvisionError
from provision.hosts.placement import place, plan
from provision.mongodb.topology import NodeOptions, Size, Topology, replica_set, sharded


def cluster(shards: int = 2, members: int = 3, config_servers: int = 3, routers: int = 2) -> Topology:
    size = Size(members=members, config_servers=config_servers, shards=shards, routers=routers)
    return sharded("prod", 27300, size, lambda _: NodeOptions(), lambda node: node)


@given(
    shards=st.integers(1, 6),
    members=st.integers(1, 7),
    config_servers=st.integers(1, 5),
    routers=st.integers(1, 5),
    hosts=st.integers(1, 8),
)
def test_members_share_hosts_only_where_there_are_too_few(
    shards: int, members: int, config_servers: int, routers: int, hosts: int
) -> None:
    topology = cluster(shards, members, config_servers, routers)
    names = [f"db{n}" for n in range(hosts)]
    placed = place(topology, names)
    assert set(placed) == {node.name for node in topology.nodes}
    for group in (*(each.members for each in topology.all_sets), topology.routers):
        on = Counter(placed[node.name] for node in group)
        assert max(on.values()) == -(-len(group) // hosts)


@given(shards=st.integers(1, 8), hosts=st.integers(1, 8))
def test_hosts_carry_about_the_same(shards: int, hosts: int) -> None:
    placed = place(cluster(shards), [f"db{n}" for n in range(hosts)])
    load = Counter(placed.values())
    assert max(load.values()) - min(load[f"db{n}"] for n in range(hosts)) <= 2


def test_first_members_which_become_primaries_are_spread() -> None:
    placed = place(cluster(shards=2), ["db1", "db2", "db3"])
    assert len({placed["config-1"], placed["shard1-1"], placed["shard2-1"]}) == 3


@given(shards=st.integers(1, 5), hosts=st.integers(1, 6), more=st.integers(0, 3))
def test_what_has_its_data_somewhere_stays(shards: int, hosts: int, more: int) -> None:
    names = [f"db{n}" for n in range(hosts)]
    before = place(cluster(shards), names)
    after = place(cluster(shards + more), [*(f"new{n}" for n in range(more)), *names], before)
    assert {node: after[node] for node in before} == before


def test_same_input_same_output() -> None:
    assert place(cluster(), ["a", "b", "c"]) == place(cluster(), ["a", "b", "c"])


def test_host_with_data_that_is_taken_away_is_an_error() -> None:
    before = place(cluster(), ["db1", "db2", "db3"])
    with pytest.raises(ProvisionError, match="on db3") as caught:
        place(cluster(), ["db1", "db2"], before)
    assert "Put db3 back" in caught.value.remedy


def test_no_hosts_is_an_error() -> None:
    with pytest.raises(ProvisionError, match="It has no hosts"):
        place(cluster(), [])


def test_plan_marks_members_that_share_a_host() -> None:
    topology = replica_set("rs", 27017, "rs0", Size(members=3), lambda _: NodeOptions(), lambda node: node)
    shown = plan(topology, place(topology, ["db1", "db2"]))
    assert [each.node for each in shown if each.shares] == ["member-1", "member-3"]
    assert not any(each.shares for each in plan(topology, place(topology, ["db1", "db2", "db3"])))
