"""From readings to a picture, for each kind of deployment and each way in which a part of it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flaskbook.topology.model import (
    Amount,
    ClusterReading,
    CollectionReading,
    DataReading,
    Group,
    Member,
    NodeReading,
    Reading,
    State,
    Trouble,
    addresses,
    picture,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOSTS = ["a:1", "b:2", "c:3"]


def answers(address: str, hello: Mapping[str, Any], **more: Any) -> NodeReading:
    return NodeReading(address, more.pop("at", 10.0), hello=hello, known=hello, **more)


def silent(
    address: str, known: Mapping[str, Any] | None = None, trouble: Trouble = Trouble.NOT_REACHABLE
) -> NodeReading:
    return NodeReading(address, 10.0, trouble, known=known)


def hello_of(address: str, kind: str, written: datetime = NOON, hosts: list[str] = HOSTS) -> dict[str, Any]:
    return {
        "setName": "rs0",
        "hosts": hosts,
        "me": address,
        "isWritablePrimary": kind == "primary",
        "secondary": kind == "secondary",
        "lastWrite": {"lastWriteDate": written},
    }


def trio() -> dict[str, NodeReading]:
    kinds = dict(zip(HOSTS, ("primary", "secondary", "secondary"), strict=True))
    return {address: answers(address, hello_of(address, kind)) for address, kind in kinds.items()}


def reading(nodes: Mapping[str, NodeReading], seeds: tuple[str, ...] = tuple(HOSTS), **more: Any) -> Reading:
    return Reading(more.pop("at", 10.0), "flaskbook", seeds, nodes, **more)


def states(group: Group) -> dict[str, State]:
    return {member.name: member.state for member in group.members}


def test_a_standalone_is_one_node() -> None:
    drawn = picture(reading({"a:1": answers("a:1", {"isWritablePrimary": True})}, ("a:1",)))
    assert drawn.kind == "standalone"
    assert states(drawn.groups[0]) == {"a:1": State.STANDALONE}
    assert (drawn.groups[0].health, drawn.summary) == ("ok", "A single mongod, not in a replica set.")


def test_a_replica_set_shows_each_member_in_its_state() -> None:
    drawn = picture(reading(trio()))
    assert (drawn.kind, drawn.groups[0].name, drawn.groups[0].health) == ("replica set", "rs0", "ok")
    assert states(drawn.groups[0]) == {"a:1": State.PRIMARY, "b:2": State.SECONDARY, "c:3": State.SECONDARY}
    assert drawn.summary == "Replica set rs0. 3 members, all up. a:1 is its primary."


def test_a_member_that_is_killed_keeps_its_place_and_is_named() -> None:
    nodes = trio()
    drawn = picture(reading({**nodes, "b:2": silent("b:2", nodes["b:2"].known)}))
    assert states(drawn.groups[0])["b:2"] is State.DOWN
    assert drawn.groups[0].health == "degraded"
    assert drawn.summary == "Replica set rs0. 2 of 3 members are up. a:1 is its primary. Down: b:2."


def test_a_set_without_a_primary_can_not_be_written() -> None:
    nodes = trio()
    drawn = picture(reading({**nodes, "a:1": silent("a:1", nodes["a:1"].known)}))
    assert drawn.groups[0].health == "down"
    assert "rs0 has no primary: nothing can be written there." in drawn.summary


def test_all_members_down_is_still_the_same_set() -> None:
    drawn = picture(reading({address: silent(address, node.known) for address, node in trio().items()}))
    assert (drawn.kind, drawn.groups[0].name) == ("replica set", "rs0")
    assert set(states(drawn.groups[0]).values()) == {State.DOWN}


def test_a_deployment_that_never_answered_is_unknown() -> None:
    drawn = picture(reading({"a:1": silent("a:1")}, ("a:1",)))
    assert (drawn.kind, drawn.summary) == ("unknown", "MongoDB does not answer at a:1.")


def test_members_are_asked_as_soon_as_one_names_them() -> None:
    hello = {**hello_of("a:1", "primary", hosts=["a:1"]), "passives": ["p:4"], "arbiters": ["x:5"]}
    assert addresses(reading({"a:1": answers("a:1", hello)}, ("a:1",))) == ("a:1", "p:4", "x:5")


def test_an_arbiter_and_a_member_that_recovers_have_their_own_states() -> None:
    nodes = {
        **trio(),
        "b:2": answers("b:2", {**hello_of("b:2", ""), "arbiterOnly": True}),
        "c:3": answers("c:3", hello_of("c:3", ""), status={"myState": 9, "members": []}),
    }
    drawn = picture(reading(nodes))
    assert states(drawn.groups[0]) == {"a:1": State.PRIMARY, "b:2": State.ARBITER, "c:3": State.ROLLBACK}
    assert drawn.groups[0].health == "degraded"


def test_a_seed_that_is_another_name_of_a_member_is_not_a_second_one() -> None:
    hello = {**hello_of("mongo1:27017", "primary", hosts=["mongo1:27017"])}
    nodes = {
        "127.0.0.1:27100": answers("127.0.0.1:27100", hello),
        "mongo1:27017": silent("mongo1:27017", trouble=Trouble.NAME_UNKNOWN),
    }
    drawn = picture(reading(nodes, ("127.0.0.1:27100",)))
    assert states(drawn.groups[0]) == {"mongo1:27017": State.PRIMARY}


def test_a_member_whose_name_is_unknown_here_is_as_the_others_see_it() -> None:
    status = {"myState": 1, "members": [{"name": "b:2", "state": 2}, {"name": "c:3", "state": 8}]}
    nodes = {
        "a:1": answers("a:1", hello_of("a:1", "primary"), status=status),
        "b:2": silent("b:2", trouble=Trouble.NAME_UNKNOWN),
        "c:3": silent("c:3", trouble=Trouble.NAME_UNKNOWN),
    }
    drawn = picture(reading(nodes))
    assert states(drawn.groups[0]) == {"a:1": State.PRIMARY, "b:2": State.SECONDARY, "c:3": State.DOWN}


def test_lag_is_measured_against_what_the_primary_had_a_moment_ago() -> None:
    def at(primary: datetime, secondary: datetime) -> Reading:
        nodes = trio()
        nodes["a:1"] = answers("a:1", hello_of("a:1", "primary", primary))
        nodes["b:2"] = answers("b:2", hello_of("b:2", "secondary", secondary))
        return reading(nodes)

    before = at(NOON, NOON)
    # The idle primary has just written its ten-second mark, which is still on its way.
    drawn = picture(at(NOON + timedelta(seconds=10), NOON), (before,))
    assert drawn.groups[0].members[1].lag == 0
    behind = at(NOON + timedelta(seconds=30), NOON + timedelta(seconds=4))
    drawn = picture(behind, (before, behind))
    assert drawn.groups[0].members[1].lag == 26


def test_operations_are_what_was_counted_in_between() -> None:
    def counted(at: float, insert: int, command: int) -> Reading:
        counters = {"insert": insert, "query": 0, "update": 0, "delete": 0, "getmore": 0, "command": command}
        return reading(
            {"a:1": answers("a:1", hello_of("a:1", "primary"), counters=counters, at=at)}, ("a:1",), at=at
        )

    drawn = picture(counted(12, 300, 900), (counted(10, 100, 0), counted(11, 250, 500)))
    assert drawn.groups[0].members[0].operations == 100
    assert drawn.operations == 100
    assert picture(counted(10, 100, 0)).operations is None
    restarted = picture(counted(12, 3, 0), (counted(10, 100, 0),))
    assert restarted.operations is None


ROUTER = {"msg": "isdbgrid", "isWritablePrimary": True}
CLUSTER = ClusterReading(shards={"s1": "rs0/a:1,b:2,c:3"}, config="cfg/g:9")
DATA = DataReading(
    9.5,
    (
        CollectionReading("attempts", False, (Amount("s1", 5),)),
        CollectionReading("user", True, (Amount("s1", 40, 2), Amount("s2", 60, 3))),
    ),
)


def sharded(**more: Any) -> Reading:
    config = {**hello_of("g:9", "primary", hosts=["g:9"]), "setName": "cfg"}
    nodes = {"r:7": answers("r:7", ROUTER), "g:9": answers("g:9", config), **trio()}
    return reading(nodes, ("r:7",), **{"cluster": CLUSTER, "data": DATA, **more})


def test_a_sharded_cluster_has_its_routers_config_servers_and_shards_with_their_data() -> None:
    drawn = picture(sharded())
    assert drawn.kind == "sharded cluster"
    assert [(g.role, g.name, g.documents, g.chunks) for g in drawn.groups] == [
        ("routers", "mongos", None, None),
        ("config servers", "cfg", None, None),
        ("shard", "s1", 45, 2),
        ("shard", "s2", 60, 3),
    ]
    assert states(drawn.groups[0]) == {"r:7": State.ROUTER}
    assert states(drawn.groups[2])["a:1"] is State.PRIMARY
    assert drawn.summary == "Sharded cluster of 2 shards behind 1 router. 4 members, all up."
    assert (drawn.data_age, drawn.notes) == (0.5, ())


def test_the_members_of_shards_and_config_servers_are_asked() -> None:
    assert set(addresses(sharded())) == {"r:7", "g:9", "a:1", "b:2", "c:3"}


def test_a_router_that_is_down_leaves_the_cluster_as_it_was_last_seen() -> None:
    before = sharded()
    drawn = picture(replace(before, nodes={**before.nodes, "r:7": silent("r:7", ROUTER)}))
    assert drawn.kind == "sharded cluster"
    assert (drawn.groups[0].health, states(drawn.groups[0])) == ("down", {"r:7": State.DOWN})
    assert [group.name for group in drawn.groups] == ["mongos", "cfg", "s1", "s2"]


def test_members_whose_names_only_the_router_knows_are_seen_through_it() -> None:
    seen = {
        "a:1": {"addr": "a:1", "ok": True, "ismaster": True},
        "b:2": {"addr": "b:2", "ok": True, "secondary": True},
        "c:3": {"addr": "c:3", "ok": False},
    }
    whole = sharded(cluster=replace(CLUSTER, seen=seen))
    unknown = {address: silent(address, trouble=Trouble.NAME_UNKNOWN) for address in HOSTS}
    drawn = picture(replace(whole, nodes={**whole.nodes, **unknown}))
    assert drawn.groups[2].members == (
        Member("a:1", State.PRIMARY, note="seen through the router"),
        Member("b:2", State.SECONDARY, note="seen through the router"),
        Member("c:3", State.DOWN, note="seen through the router"),
    )
    assert any("seen through the router" in note for note in drawn.notes)


def test_missing_rights_are_said_with_the_role_that_would_show_the_rest() -> None:
    router = answers("r:7", ROUTER, refused=True)
    bare = DataReading(
        10.0, (CollectionReading("user", None, (Amount("s1", 40), Amount("s2", 60))),), refused=True
    )
    drawn = picture(reading({"r:7": router}, ("r:7",), cluster=ClusterReading(refused=True), data=bare))
    assert [(g.name, g.documents, g.members) for g in drawn.groups[1:]] == [("s1", 40, ()), ("s2", 60, ())]
    assert drawn.notes == (
        "The app's user may not see the shards' members, the config servers, the chunks and operations per second: "
        "the role clusterMonitor on the database admin would show them.",
    )


def test_a_shard_that_refuses_is_no_matter_of_the_apps_user() -> None:
    whole = sharded()
    refusing = {
        address: replace(node, refused=True) for address, node in whole.nodes.items() if address in HOSTS
    }
    assert picture(replace(whole, nodes={**whole.nodes, **refusing})).notes == ()
