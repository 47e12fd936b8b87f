"""Which nodes are moved where: decided without any host."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.doctor import clean
from provision.hosts import placement
from provision.mongodb.topology import Topology
from provision.settings.loading import Layer, load
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings
from provision.state import remembered
from provision.state.remembered import Move


def topology(**settings: object) -> Topology:
    return assembly.plan("some", DeploymentSettings(**{"backend": "hosts", **settings}))  # type: ignore[arg-type]


SET = topology(topology="replica-set", members=3)
SHARDED = topology(topology="sharded", shards=2, members=3, config_servers=3, routers=1, port=27100)


def after(placed: Mapping[str, str], moves: Sequence[Move]) -> dict[str, str]:
    return {**placed, **{each.node: each.target for each in moves}}


def is_spread(planned: Topology, placed: Mapping[str, str], hosts: Sequence[str]) -> bool:
    groups = [each.members for each in planned.all_sets]
    for group in groups:
        here = [Counter(placed[node.name] for node in group)[host] for host in hosts]
        if max(here) - min(here) > 1:
            return False
    load = [Counter(placed.values())[host] for host in hosts]
    return max(load) - min(load) <= 1


def test_a_drained_host_keeps_no_node_and_no_two_members_meet() -> None:
    placed = placement.place(SHARDED, ["db1", "db2", "db3"])
    moves = placement.drained(SHARDED, ["db1", "db2", "db3", "db4"], placed, "db1")
    assert {each.node for each in moves} == {node for node, host in placed.items() if host == "db1"}
    assert all(each.source == "db1" for each in moves)
    assert placement.shared(SHARDED, after(placed, moves)) == {"config": 1, "shard1": 1, "shard2": 1}


def test_an_empty_host_is_drained_already() -> None:
    assert (
        placement.drained(SET, ["a", "b", "c", "d"], {"member-1": "a", "member-2": "b", "member-3": "c"}, "d")
        == []
    )


def test_the_only_host_cannot_be_drained() -> None:
    with pytest.raises(ProvisionError, match="It is the only host"):
        placement.drained(SET, ["a"], dict.fromkeys(("member-1", "member-2", "member-3"), "a"), "a")


def test_what_is_spread_stays() -> None:
    placed = placement.place(SHARDED, ["a", "b", "c"])
    assert placement.spread(SHARDED, ["a", "b", "c"], placed) == []


def test_members_that_share_a_host_are_taken_apart_and_the_first_stays() -> None:
    placed = {"member-1": "a", "member-2": "b", "member-3": "a"}
    assert placement.spread(SET, ["a", "b", "c"], placed) == [Move("member-3", "a", "c")]


def test_a_new_host_gets_its_share_and_no_more() -> None:
    placed = placement.place(SHARDED, ["a", "b", "c"])
    moves = placement.spread(SHARDED, ["a", "b", "c", "d"], placed)
    found = after(placed, moves)
    assert {each.target for each in moves} == {"d"}
    assert is_spread(SHARDED, found, ["a", "b", "c", "d"])
    assert len(moves) == 2  # ten nodes: two, two, three and three


@pytest.mark.parametrize("hosts", [["a", "b"], ["a", "b", "c"]])
def test_no_fewer_moves_would_do(hosts: list[str]) -> None:
    """Every placement of a small cluster, against every other one that is spread."""
    small = topology(topology="sharded", shards=1, members=2, config_servers=1, routers=1)
    nodes = [node.name for node in small.nodes]
    every = [
        dict(zip(nodes, combined, strict=True)) for combined in itertools.product(hosts, repeat=len(nodes))
    ]
    spread = [each for each in every if is_spread(small, each, hosts)]
    for placed in every:
        moves = placement.spread(small, hosts, placed)
        assert is_spread(small, after(placed, moves), hosts), placed
        fewest = min(sum(placed[node] != each[node] for node in nodes) for each in spread)
        assert len(moves) == fewest, placed


def test_moves_that_have_begun_are_remembered_until_there_are_none(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", "cache")
    assert remembered.moves(paths, "some") == {}
    begun = {"member-1": Move("member-1", "a", "b", lost=True)}
    remembered.record_moves(paths, "some", begun)
    assert remembered.moves(paths, "some") == begun
    remembered.record_moves(paths, "some", {})
    assert not paths.moving_record("some").exists()


def test_clean_leaves_what_is_needed_for_nodes_that_are_on_hosts(tmp_path: Path) -> None:
    chosen = {"deployments": {"prod": {"backend": "hosts", "hosts": [], "topology": "replica-set"}}}
    loaded = load(tmp_path, [Layer("the test", chosen)], {}, remember=False)
    needed = [
        loaded.paths.placement("prod"),
        loaded.paths.ca_certificate("prod"),
        loaded.paths.ca_key("prod"),
        loaded.paths.credentials("prod"),
    ]
    needed[0].parent.mkdir(parents=True)
    for each in needed:
        each.write_text("{}")
    planned = clean.plan(loaded)
    assert {each.path for each in planned.kept} >= {*needed}
    assert all({*needed} <= each.spared for each in planned.items if each.path == loaded.paths.state)
    needed[0].unlink()
    assert loaded.paths.ca_key("prod") not in {each.path for each in clean.plan(loaded).kept}
