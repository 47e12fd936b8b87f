"""What is decided about restarting and upgrading nodes one after another, without any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from unittest.mock import patch

import pytest

from provision.core.errors import ProvisionError
from provision.deployments import assembly, rolling, upgrade
from provision.deployments.deployment import Deployment
from provision.deployments.status import NodeStatus, Status
from provision.deployments.upgrade import Features
from provision.mongodb.membership import Member, Seen
from provision.mongodb.topology import Topology
from provision.settings.schema import DeploymentSettings


def topology(**settings: object) -> Topology:
    return assembly.plan("some", DeploymentSettings(**settings))  # type: ignore[arg-type]


SHARDED = topology(topology="sharded", shards=2, members=3, config_servers=3, routers=2, port=27100)


def names(planned: Topology) -> set[str]:
    return {node.name for node in planned.nodes}


# In which order


def test_config_servers_come_first_then_shard_after_shard_and_routers_last() -> None:
    groups = rolling.in_order(SHARDED, names(SHARDED))
    assert [[node.name for node in group] for group in groups] == [
        ["config-1", "config-2", "config-3"],
        ["shard1-1", "shard1-2", "shard1-3"],
        ["shard2-1", "shard2-2", "shard2-3"],
        ["router-1"],
        ["router-2"],
    ]


def test_only_what_was_named_is_restarted_in_that_order() -> None:
    groups = rolling.in_order(SHARDED, {"router-2", "shard1-3", "config-1"})
    assert [node.name for group in groups for node in group] == ["config-1", "shard1-3", "router-2"]


def test_a_primary_is_the_last_of_its_set() -> None:
    members = list(SHARDED.replica_sets[0].members)
    first, second, third = members
    assert rolling.next_of(members, first) == second
    assert rolling.next_of([first, third], first) == third
    assert rolling.next_of([first], first) == first
    assert rolling.next_of(members, None) == first


# What is unavailable meanwhile


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"topology": "replica-set", "members": 3}, []),
        ({"topology": "replica-set", "members": 5, "arbiters": 0}, []),
        ({"topology": "replica-set", "members": 9}, []),
        ({"topology": "replica-set", "members": 1}, ["rs0 has one member"]),
        ({"topology": "replica-set", "members": 2}, ["rs0 has 2 members with data, and 2 make a majority"]),
        (
            {"topology": "replica-set", "members": 2, "arbiters": 1},
            ["rs0 has 2 members with data, and 2 make a majority"],
        ),
        ({"topology": "single", "replica_set": None}, ["mongod stands alone"]),
        (
            {"topology": "sharded", "members": 3, "config_servers": 1, "shards": 1, "routers": 1},
            ["config has one member", "router-1 is the only router"],
        ),
    ],
)
def test_what_would_be_unavailable_is_told(settings: dict[str, object], told: list[str]) -> None:
    planned = topology(**settings)
    found = rolling.interruptions(planned, names(planned))
    assert len(found) == len(told)
    assert all(sentence.startswith(beginning) for sentence, beginning in zip(found, told, strict=True))


def test_what_is_not_restarted_is_not_told() -> None:
    planned = topology(topology="sharded", members=3, config_servers=1, routers=1)
    assert rolling.interruptions(planned, {"shard1-1"}) == []


# Whether a set is whole


def seen(states: dict[str, str], voters: int = 3, votes: int = 3) -> Seen:
    return Seen({address: Member(address, state, (9, 1)) for address, state in states.items()}, voters, votes)


def test_a_whole_set_lacks_nothing() -> None:
    assert seen({"a": "PRIMARY", "b": "SECONDARY", "c": "ARBITER"}).lacks(["a", "b", "c"]) == []


def test_what_a_set_lacks_is_named() -> None:
    assert seen({"a": "PRIMARY", "b": "STARTUP2", "c": "SECONDARY"}).lacks(["a", "b"]) == ["b is STARTUP2"]
    assert seen({"a": "PRIMARY"}).lacks(["a", "b"]) == ["b is not a member of it"]
    assert seen({"a": "PRIMARY", "b": "RECOVERING"}).lacks(["a"]) == []
    waiting = seen({"a": "PRIMARY", "b": "SECONDARY"}, voters=1, votes=2)
    assert waiting.lacks(["a", "b"]) == ["only 1 of 2 members vote yet"]


@dataclass(frozen=True)
class Standing:
    """A deployment whose nodes are in these states; of a deployment's abilities it has what is looked at."""

    states: Mapping[str, str]
    topology: Topology = SHARDED
    name: str = "some"

    def status(self) -> Status:
        nodes = tuple(
            NodeStatus(node.name, node.role.value, self.states[node.name], None, node.port)
            for node in self.topology.nodes
        )
        return Status(self.name, "degraded", "", None, nodes)


def ill(excused: set[str], **states: str) -> str:
    """What `check_whole` says of a cluster whose sets are led by their first members, but for these states."""
    led = {node.name: "PRIMARY" if node.name.endswith("-1") else "SECONDARY" for node in SHARDED.nodes}
    routers = {node.name: "ROUTER" for node in SHARDED.routers}
    here = Standing({**led, **routers, **{name.replace("_", "-"): state for name, state in states.items()}})
    try:
        with patch.object(rolling, "_ELECTION_SECONDS", 0):
            rolling.check_whole(
                cast("Deployment", here), "moving", "invoke again", excused, advice=lambda: "\nOr so."
            )
    except ProvisionError as error:
        assert error.remedy == (
            "Make it whole: invoke cluster.up --on some\nOr so.\nThen type it again: invoke again"
        )
        return error.cause
    return ""


def test_a_deployment_is_whole_when_all_nodes_are_well_and_all_sets_are_led() -> None:
    assert ill(set()) == ""
    assert "some is not whole: shard1-2 is DOWN." in ill(set(), shard1_2="DOWN")
    assert "some is not whole: shard2 has no primary." in ill(set(), shard2_1="SECONDARY")
    assert "shard1-1 is UNREACHABLE, shard1 has no primary." in ill(set(), shard1_1="UNREACHABLE")


def test_an_election_is_waited_for() -> None:
    led = {node.name: "PRIMARY" if node.name.endswith("-1") else "SECONDARY" for node in SHARDED.nodes}
    states = {**led, **{node.name: "ROUTER" for node in SHARDED.routers}, "shard2-1": "SECONDARY"}

    class Electing(Standing):
        def status(self) -> Status:
            found = super().status()
            states["shard2-1"] = "PRIMARY"
            return found

    rolling.check_whole(cast("Deployment", Electing(states)), "moving", "invoke again", set())
    assert states["shard2-1"] == "PRIMARY"


def test_an_excused_node_may_be_ill_and_its_set_without_a_primary() -> None:
    assert ill({"shard1-1"}, shard1_1="DOWN") == ""
    assert "whole: shard1-2 is DOWN." in ill({"shard1-1"}, shard1_1="DOWN", shard1_2="DOWN")
    assert "whole: shard2 has no primary." in ill({"shard1-1"}, shard1_1="DOWN", shard2_1="SECONDARY")


# Which version may follow which


@pytest.mark.parametrize(
    ("present", "target", "may"),
    [
        ((6, 0), (6, 0), True),
        ((6, 0), (7, 0), True),
        ((8, 0), (8, 2), True),
        ((8, 0), (8, 3), True),
        ((8, 2), (8, 3), True),
        ((8, 1), (8, 3), False),
        ((8, 0), (9, 0), True),
        ((8, 3), (9, 0), True),
        ((8, 1), (9, 0), False),
        ((8, 2), (9, 0), False),
        ((6, 0), (8, 0), False),
        ((7, 0), (8, 2), False),
        ((7, 0), (6, 0), False),
        ((8, 2), (8, 0), False),
    ],
)
def test_only_the_steps_of_the_manual_are_taken(
    present: tuple[int, int], target: tuple[int, int], may: bool
) -> None:
    assert upgrade.follows(present, target) is may


def planned(
    running: dict[str, str | None], feature: str, to: str, raised: bool = False, changing: bool = False
) -> upgrade.Plan:
    return upgrade.plan("some", running, {"rs0": Features(feature, changing)}, to, raised)


def test_every_node_of_another_version_is_to_be_restarted() -> None:
    assert planned({"a": "7.0.1", "b": "7.0.1"}, "7.0", "8.0.4") == upgrade.Plan(("a", "b"), None)


def test_an_interrupted_upgrade_goes_on_with_those_that_are_left() -> None:
    assert planned({"a": "8.0.4", "b": None, "c": "7.0.1"}, "7.0", "8.0.4").nodes == ("b", "c")


def test_the_same_version_changes_nothing() -> None:
    assert planned({"a": "8.0.4"}, "8.0", "8.0.4", raised=True) == upgrade.Plan((), None)


def test_a_patch_may_be_taken_back() -> None:
    assert planned({"a": "8.0.4"}, "8.0", "8.0.3").nodes == ("a",)


def test_features_are_raised_only_when_told() -> None:
    assert planned({"a": "8.0.4"}, "7.0", "8.0.4").raise_to is None
    assert planned({"a": "8.0.4"}, "7.0", "8.0.4", raised=True).raise_to == "8.0"
    assert planned({"a": "7.0.1"}, "7.0", "8.0.4", raised=True).raise_to == "8.0"


def test_raising_features_that_was_interrupted_is_finished_and_nothing_else_is_begun() -> None:
    assert planned({"a": "8.0.4"}, "7.0", "8.0.4", raised=True, changing=True).raise_to == "8.0"
    with pytest.raises(ProvisionError, match="--feature-compatibility"):
        planned({"a": "8.0.4"}, "7.0", "8.0.5", changing=True)


def test_no_older_major_version_is_gone_back_to() -> None:
    with pytest.raises(ProvisionError, match=r"b runs 8\.0\.4"):
        planned({"a": "7.0.1", "b": "8.0.4"}, "7.0", "7.0.9")


def test_a_major_version_that_is_left_out_is_refused() -> None:
    with pytest.raises(
        ProvisionError, match=r"a version that follows 6\.0 first, with --feature-compatibility: 7\.0"
    ):
        planned({"a": "6.0.5"}, "6.0", "8.0.4")


def test_the_next_major_version_wants_the_features_of_this_one() -> None:
    with pytest.raises(ProvisionError) as caught:
        planned({"a": "7.0.1"}, "6.0", "8.0.4")
    assert caught.value.remedy == "Raise it first: invoke cluster.upgrade --feature-compatibility --on some"


@pytest.mark.parametrize(
    ("current", "to", "image"),
    [
        ("mongo:8.0", "8.0.17", "mongo:8.0.17"),
        ("mongo", "8.2", "mongo:8.2"),
        ("mirror.example:5000/library/mongo:7.0", "8.0", "mirror.example:5000/library/mongo:8.0"),
        ("mongo@sha256:0123", "8.0", "mongo:8.0"),
        ("mongo:7.0", "own/mongo:next", "own/mongo:next"),
    ],
)
def test_a_version_is_a_tag_of_the_image(current: str, to: str, image: str) -> None:
    assert upgrade.image_for(current, to) == image
