"""From what was read to a picture of the deployment. Pure: the reading itself is in :mod:`.reading`.

What a node says about itself in ``hello`` needs no rights and gives most of the picture: its state, its set, the
other members and the time of its last write. The rest needs the role ``clusterMonitor``, and the picture says so
where that is missing.

Manual: https://www.mongodb.com/docs/manual/reference/command/hello/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

Document = Mapping[str, Any]

# Reads and writes. "command" is left out: this page itself sends some.
_COUNTED = ("insert", "query", "update", "delete", "getmore")
_THROUGH_THE_ROUTER = "seen through the router"
_CLUSTER_MONITOR = "the role clusterMonitor on the database admin"


class Trouble(StrEnum):
    """Why a node was not heard."""

    NOT_REACHABLE = "does not answer"
    NAME_UNKNOWN = "its name is not known on this machine"


class State(StrEnum):
    """The states of a replica set member, by MongoDB's names, and those of a mongod or mongos of its own.

    https://www.mongodb.com/docs/manual/reference/replica-states/
    """

    STARTUP = "STARTUP"
    PRIMARY = "PRIMARY"
    SECONDARY = "SECONDARY"
    RECOVERING = "RECOVERING"
    STARTUP2 = "STARTUP2"
    UNKNOWN = "UNKNOWN"
    ARBITER = "ARBITER"
    DOWN = "DOWN"
    ROLLBACK = "ROLLBACK"
    REMOVED = "REMOVED"
    STANDALONE = "STANDALONE"
    ROUTER = "ROUTER"


# https://www.mongodb.com/docs/manual/reference/command/replSetGetStatus/ : members[n].state
_BY_NUMBER = {
    0: State.STARTUP,
    1: State.PRIMARY,
    2: State.SECONDARY,
    3: State.RECOVERING,
    5: State.STARTUP2,
    6: State.UNKNOWN,
    7: State.ARBITER,
    8: State.DOWN,
    9: State.ROLLBACK,
    10: State.REMOVED,
}


@dataclass(frozen=True)
class NodeReading:
    """What one node said."""

    address: str  # ``host:port`` it was asked at
    at: float  # when, in seconds of a monotonic clock
    trouble: Trouble | None = None  # why it was not heard; None: it answered
    hello: Document | None = None  # its answer to ``hello``; None with ``trouble``
    # the last ``hello`` it ever gave; with it a node that is down keeps its place
    known: Document | None = None
    status: Document | None = None  # its ``replSetGetStatus``, where it has one and lets us see it
    counters: Document | None = None  # ``opcounters`` of its ``serverStatus``, where it lets us see them
    refused: bool = False  # it answered, and said that our rights are missing for more


@dataclass(frozen=True)
class ClusterReading:
    """What a router said about the cluster."""

    # id of a shard → its connection string, ``set/host:port,host:port``
    shards: Mapping[str, str] = field(default_factory=dict)
    config: str = ""  # that of the config servers; empty: not told
    # address → the router's own view of a member (``connPoolStats``, ``replicaSets.*.hosts``)
    seen: Mapping[str, Document] = field(default_factory=dict)
    refused: bool = False  # rights are missing


@dataclass(frozen=True)
class Amount:
    """How much of a collection is in one place."""

    shard: str  # id of the shard; empty where there are none
    documents: int  # as MongoDB's metadata count them; orphaned documents of a moving chunk are included
    chunks: int | None = None  # None: the collection is not sharded, or we may not see it


@dataclass(frozen=True)
class CollectionReading:
    """A collection of the app's database. ``sharded``: None when we may not see it."""

    name: str
    sharded: bool | None
    amounts: tuple[Amount, ...]


@dataclass(frozen=True)
class DataReading:
    """The collections of the app's database."""

    at: float  # when, in seconds of a monotonic clock
    collections: tuple[CollectionReading, ...]  # in alphabetical order
    refused: bool = False  # rights are missing for the chunks


@dataclass(frozen=True)
class Reading:
    """All that is known at one moment."""

    at: float  # when, in seconds of a monotonic clock
    database: str  # name of the app's database
    seeds: tuple[str, ...]  # the addresses that the driver knows
    nodes: Mapping[str, NodeReading]  # by the address at which each was asked
    cluster: ClusterReading | None = None  # None: no router was heard yet
    data: DataReading | None = None  # None: not read yet


@dataclass(frozen=True)
class Member:
    """A node in the picture."""

    name: str  # ``host:port``, as its set knows it
    state: State  # one of :class:`State`
    lag: float | None = None  # seconds by which it is behind the primary; None: not known or without meaning
    operations: float | None = None  # reads and writes per second; None: not known
    note: str = ""  # what there is to say besides; may be empty


@dataclass(frozen=True)
class Group:
    """Nodes that belong together."""

    name: str  # of the shard or the set
    role: str  # ``routers``, ``config servers``, ``shard``, ``replica set`` or ``standalone``
    members: tuple[Member, ...]  # in a stable order
    # ``ok``, ``degraded`` (some nodes are down), ``down`` (nothing can be written) or ``unknown``
    health: str
    documents: int | None = None  # in the app's database; None: not known or without meaning
    chunks: int | None = None  # likewise


@dataclass(frozen=True)
class Picture:
    """What the page shows."""

    kind: str  # ``sharded cluster``, ``replica set``, ``standalone`` or ``unknown``
    database: str  # name of the app's database
    summary: str  # the picture in words; it changes only when a state does
    operations: float | None  # reads and writes per second as clients send them; None: not known
    groups: tuple[Group, ...]  # routers and config servers before shards
    collections: tuple[CollectionReading, ...]  # of the app's database
    data_age: float | None  # seconds since documents and chunks were counted; None: they were not
    notes: tuple[str, ...]  # what can't be seen, and what would show it


def split_connection_string(text: str) -> tuple[str, tuple[str, ...]]:
    """Split ``set/host:port,host:port`` into the set's name and its addresses."""
    name, _, hosts = text.rpartition("/")
    return name, tuple(host for host in hosts.split(",") if host)


def addresses(reading: Reading) -> tuple[str, ...]:
    """Return whom to ask next: all nodes that the driver, a node or a router has named."""
    named = dict.fromkeys(reading.seeds)
    for node in reading.nodes.values():
        named.update(dict.fromkeys(_hosts(node)))
        named.update(dict.fromkeys(member["name"] for member in (node.status or {}).get("members", ())))
    if reading.cluster:
        for text in (reading.cluster.config, *reading.cluster.shards.values()):
            named.update(dict.fromkeys(split_connection_string(text)[1]))
    return tuple(named)


def is_sharded(reading: Reading) -> bool:
    """Say whether a node that the app connects to is, or was when last heard, a router."""
    return any(
        (reading.nodes[seed].known or {}).get("msg") == "isdbgrid"
        for seed in reading.seeds
        if seed in reading.nodes
    )


def picture(reading: Reading, history: Sequence[Reading] = ()) -> Picture:
    """Draw the picture.

    Rates are taken over all of ``history`` (oldest first), lag against the last.
    """
    if is_sharded(reading):
        kind, groups = "sharded cluster", _sharded(reading, history)
        operations = _total(groups, "routers")
    else:
        groups = _one_set(reading, history)
        kind = groups[0].role if groups[0].members and groups[0].role != "servers" else "unknown"
        operations = _total(groups, groups[0].role)
    return Picture(
        kind=kind,
        database=reading.database,
        summary=_summary(kind, groups),
        operations=operations,
        groups=groups,
        collections=reading.data.collections if reading.data else (),
        data_age=round(reading.at - reading.data.at, 1) if reading.data else None,
        notes=_notes(reading, groups),
    )


def _sharded(reading: Reading, history: Sequence[Reading]) -> tuple[Group, ...]:
    cluster = reading.cluster or ClusterReading()
    routers = tuple(_member(seed, None, reading, history) for seed in sorted(reading.seeds))
    groups = [Group("mongos", "routers", routers, _health(routers))]
    if cluster.config:
        groups.append(_group("config servers", cluster.config, reading, history))
    documents, chunks = _totals(reading.data)
    for shard in sorted({*cluster.shards, *documents}):
        found = _group("shard", cluster.shards.get(shard, ""), reading, history, name=shard)
        groups.append(
            Group(shard, "shard", found.members, found.health, documents.get(shard, 0), chunks.get(shard, 0))
            if reading.data
            else found
        )
    return tuple(groups)


def _one_set(reading: Reading, history: Sequence[Reading]) -> tuple[Group, ...]:
    known = {address: node.known for address, node in reading.nodes.items() if node.known}
    set_name = next((hello["setName"] for hello in known.values() if "setName" in hello), "")
    names = set(reading.seeds)
    if set_name:
        told: set[str] = set()
        for node in reading.nodes.values():
            told.update(_hosts(node))
            told.update(member["name"] for member in (node.status or {}).get("members", ()))
        # A seed may be another name of a member, as with ports that Docker publishes.
        aliases = {address for address, hello in known.items() if hello.get("me", address) != address}
        names = told | (names - aliases)
    members = tuple(_member(name, set_name or None, reading, history) for name in sorted(names, key=_by_port))
    documents = sum(_totals(reading.data)[0].values()) if reading.data else None
    role = "replica set" if set_name else "standalone" if known else "servers"
    title = set_name or ("mongod" if known else "MongoDB")
    return (Group(title, role, members, _health(members), documents),)


def _group(role: str, text: str, reading: Reading, history: Sequence[Reading], name: str = "") -> Group:
    set_name, hosts = split_connection_string(text)
    told = set(hosts)
    for host in hosts:
        if host in reading.nodes:
            told.update(_hosts(reading.nodes[host]))
    members = tuple(_member(host, set_name, reading, history) for host in sorted(told, key=_by_port))
    return Group(name or set_name, role, members, _health(members))


def _member(name: str, set_name: str | None, reading: Reading, history: Sequence[Reading]) -> Member:
    node = _heard_as(name, reading)
    if node is not None and node.hello is not None:
        return Member(
            name,
            _state(node.hello, node.status),
            _lag(node, set_name, reading, history),
            _rate(node, history),
        )
    seen = reading.cluster.seen.get(name) if reading.cluster else None
    if node is not None and node.trouble is Trouble.NAME_UNKNOWN and seen is not None:
        # In Docker the members' names mean something to the router only.
        return Member(name, _seen_state(seen), note=_THROUGH_THE_ROUTER)
    told = _told_by_others(name, reading)
    if node is None:
        return Member(name, told or State.UNKNOWN, note="not asked yet")
    if node.trouble is Trouble.NAME_UNKNOWN:
        return Member(name, told or State.UNKNOWN, note=str(node.trouble))
    return Member(name, State.DOWN, note=str(node.trouble or ""))


def _heard_as(name: str, reading: Reading) -> NodeReading | None:
    """The reading of a member: under its own name, or under the one by which the app reaches it."""
    own = reading.nodes.get(name)
    if own is not None and own.known is not None:
        return own
    for node in reading.nodes.values():
        if node.known is not None and node.known.get("me") == name:
            return node
    return own


def _told_by_others(name: str, reading: Reading) -> State | None:
    for node in reading.nodes.values():
        for member in (node.status or {}).get("members", ()):
            if member["name"] == name:
                return _BY_NUMBER.get(member["state"])
    return None


def _state(hello: Document, status: Document | None) -> State:
    if hello.get("msg") == "isdbgrid":
        return State.ROUTER
    if "setName" not in hello:
        return State.STARTUP if hello.get("isreplicaset") else State.STANDALONE
    if hello.get("isWritablePrimary"):
        return State.PRIMARY
    if hello.get("secondary"):
        return State.SECONDARY
    if hello.get("arbiterOnly"):
        return State.ARBITER
    return _BY_NUMBER.get((status or {}).get("myState", 3), State.RECOVERING)


def _seen_state(seen: Document) -> State:
    if not seen.get("ok"):
        return State.DOWN
    if seen.get("ismaster"):
        return State.PRIMARY
    if seen.get("arbiter"):
        return State.ARBITER
    return State.SECONDARY if seen.get("secondary") else State.RECOVERING


def _lag(
    node: NodeReading, set_name: str | None, reading: Reading, history: Sequence[Reading]
) -> float | None:
    hello = node.hello or {}
    own = _last_write(hello)
    if set_name is None or own is None or not (hello.get("secondary") or hello.get("isWritablePrimary")):
        return None
    if hello.get("isWritablePrimary"):
        return 0.0
    # Compared with what the primary had at the reading before: what it has written since may be on its way, and
    # an idle primary writes every ten seconds, which must not look like a lag of ten.
    for source in (*history[-1:], reading):
        for other in source.nodes.values():
            said = other.hello or {}
            if said.get("isWritablePrimary") and said.get("setName") == set_name:
                written = _last_write(said)
                if written is not None:
                    return max(0.0, (written - own).total_seconds())
    return None


def _last_write(hello: Document) -> datetime | None:
    written = hello.get("lastWrite", {}).get("lastWriteDate")
    return written if isinstance(written, datetime) else None


def _rate(node: NodeReading, history: Sequence[Reading]) -> float | None:
    earlier = history[0].nodes.get(node.address) if history else None
    if earlier is None or earlier.counters is None or node.counters is None or node.at <= earlier.at:
        return None
    done = sum(int(node.counters.get(name, 0)) - int(earlier.counters.get(name, 0)) for name in _COUNTED)
    # Less than before: the node was restarted in between.
    return None if done < 0 else round(done / (node.at - earlier.at), 1)


def _health(members: Iterable[Member]) -> str:
    states = [member.state for member in members]
    if not states or all(state is State.UNKNOWN for state in states):
        return "unknown"
    if not any(state in (State.PRIMARY, State.STANDALONE, State.ROUTER) for state in states):
        return "down"
    well = (State.PRIMARY, State.SECONDARY, State.ARBITER, State.STANDALONE, State.ROUTER)
    return "ok" if all(state in well for state in states) else "degraded"


def _total(groups: Iterable[Group], role: str) -> float | None:
    known = [
        member.operations
        for group in groups
        if group.role == role
        for member in group.members
        if member.operations is not None
    ]
    return round(sum(known), 1) if known else None


def _totals(data: DataReading | None) -> tuple[dict[str, int], dict[str, int]]:
    documents: dict[str, int] = {}
    chunks: dict[str, int] = {}
    for collection in data.collections if data else ():
        for amount in collection.amounts:
            documents[amount.shard] = documents.get(amount.shard, 0) + amount.documents
            chunks[amount.shard] = chunks.get(amount.shard, 0) + (amount.chunks or 0)
    return documents, chunks


def _summary(kind: str, groups: tuple[Group, ...]) -> str:
    members = [(group, member) for group in groups for member in group.members]
    down = [member.name for _, member in members if member.state is State.DOWN]
    if kind == "unknown":
        return f"MongoDB does not answer at {', '.join(down)}." if down else "Nothing is known yet."
    parts = []
    if kind == "sharded cluster":
        shards = [group for group in groups if group.role == "shard"]
        routers = sum(len(group.members) for group in groups if group.role == "routers")
        parts.append(f"Sharded cluster of {_count(len(shards), 'shard')} behind {_count(routers, 'router')}.")
        known = sum(len(group.members) for group in groups if group.role != "routers")
        if known:
            parts.append(_answering(known, [m for g, m in members if g.role != "routers"]))
    elif kind == "replica set":
        parts.append(f"Replica set {groups[0].name}.")
        parts.append(_answering(len(members), [member for _, member in members]))
    else:
        parts.append("A single mongod, not in a replica set.")
    for group in groups:
        primary = [member.name for member in group.members if member.state is State.PRIMARY]
        if group.role == "replica set" and primary:
            parts.append(f"{primary[0]} is its primary.")
        elif group.role in ("replica set", "shard", "config servers") and group.health == "down":
            parts.append(f"{group.name} has no primary: nothing can be written there.")
    if down:
        parts.append(f"Down: {', '.join(down)}.")
    return " ".join(parts)


def _answering(total: int, members: list[Member]) -> str:
    up = sum(member.state not in (State.DOWN, State.UNKNOWN) for member in members)
    return f"{_count(total, 'member')}, all up." if up == total else f"{up} of {total} members are up."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _notes(reading: Reading, groups: tuple[Group, ...]) -> tuple[str, ...]:
    hidden = []
    cluster = reading.cluster
    if cluster and cluster.refused:
        hidden += ["the shards' members", "the config servers", "the chunks"]
    elif reading.data and reading.data.refused:
        hidden.append("the chunks")
    # A shard has no users of its own: only the nodes that the app logs in to can grant it more.
    if any(node.refused for address, node in reading.nodes.items() if not _of_a_shard(address, reading)):
        hidden.append("operations per second")
    notes = []
    if hidden:
        listed = " and ".join(filter(None, (", ".join(hidden[:-1]), hidden[-1])))
        notes.append(f"The app's user may not see {listed}: {_CLUSTER_MONITOR} would show them.")
    if any(member.note == _THROUGH_THE_ROUTER for group in groups for member in group.members):
        notes.append(
            "Members whose names mean nothing on this machine, as in Docker, are seen through the router: "
            "without lag and operations."
        )
    return tuple(notes)


def _of_a_shard(address: str, reading: Reading) -> bool:
    return reading.cluster is not None and address not in reading.seeds


def _hosts(node: NodeReading) -> tuple[str, ...]:
    known = node.known or {}
    return (*known.get("hosts", ()), *known.get("passives", ()), *known.get("arbiters", ()))


def _by_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return (host, int(port)) if port.isdigit() else (address, 0)
