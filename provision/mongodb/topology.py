"""What a deployment consists of: pure data. Names and ports are planned here.

A single mongod is a topology of one node. Nothing here knows how a node becomes a running process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from urllib.parse import quote

from provision.core.dataclass import dataclass
from provision.core.numbers import first_numbers
from provision.mongodb.credentials import Credentials

CONFIG_SET = "config"
"""The replica set of the config servers."""
LOOPBACK = "127.0.0.1"


class Role(StrEnum):
    """What a node is in its topology."""

    STANDALONE = "standalone"
    MEMBER = "member"
    ARBITER = "arbiter"
    CONFIG = "config"
    SHARD = "shard"
    ROUTER = "router"


@dataclass(frozen=True)
class NodeOptions:
    """What a node is given of the machine."""

    # WiredTiger's cache, in GB; without it every node would take half of the memory
    cache_size_gb: float = 0.25
    oplog_size_mb: int = 64  # size of a replica set member's oplog, in MB
    journal_commit_interval_ms: int | None = None  # milliseconds between journal commits; None: MongoDB's own
    set_parameter: Mapping[str, bool | int | float | str] = field(default_factory=dict)  # server parameters


@dataclass(frozen=True)
class Node:
    """One mongod or mongos."""

    name: str  # unique in its topology, fit for a file or a container: ``"shard1-2"``
    role: Role  # what it is
    host: str  # the name under which the other nodes and its clients know it
    port: int  # the port it listens on
    replica_set: str | None = None  # name of the replica set it belongs to; None: none
    options: NodeOptions = NodeOptions()  # what it is given of the machine
    config_db: str | None = None  # of a router: ``set/host:port,…`` of the config servers
    arbiter: bool = False  # it votes and holds no data

    @property
    def address(self) -> str:
        """``host:port``, as in a replica set's configuration."""
        return f"{self.host}:{self.port}"

    @property
    def cluster_role(self) -> str | None:
        """`sharding.clusterRole` of a mongod in a sharded cluster: ``configsvr`` or ``shardsvr``."""
        return {Role.CONFIG: "configsvr", Role.SHARD: "shardsvr"}.get(self.role)

    @property
    def is_router(self) -> bool:
        return self.role is Role.ROUTER


@dataclass(frozen=True)
class ReplicaSet:
    """Nodes that hold the same data. The first member is the one that the set is initiated with."""

    name: str
    members: tuple[Node, ...]  # its nodes; no arbiter is first

    @property
    def seed_list(self) -> str:
        """``name/host:port,…``, as `addShard` and `sharding.configDB` take it."""
        return f"{self.name}/{','.join(member.address for member in self.members)}"


@dataclass(frozen=True)
class Topology:
    """A whole deployment."""

    name: str
    standalones: tuple[Node, ...] = ()  # mongods that belong to no replica set
    config: ReplicaSet | None = None  # the config servers of a sharded cluster
    # the replica sets that hold data: the shards of a sharded cluster, or a set of its own
    replica_sets: tuple[ReplicaSet, ...] = ()
    routers: tuple[Node, ...] = ()  # the mongos of a sharded cluster

    @property
    def all_sets(self) -> tuple[ReplicaSet, ...]:
        """Every replica set, the config servers first."""
        return (*((self.config,) if self.config else ()), *self.replica_sets)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, in the order in which they are shown."""
        members = (member for each in self.all_sets for member in each.members)
        return (*self.routers, *self.standalones, *members)

    @property
    def is_sharded(self) -> bool:
        return self.config is not None

    @property
    def seeds(self) -> tuple[Node, ...]:
        """The nodes that clients connect to."""
        if self.is_sharded:
            return self.routers
        return tuple(node for node in self.nodes if not node.arbiter)

    def set_of(self, node: Node) -> ReplicaSet | None:
        """The replica set that a node belongs to."""
        return next((each for each in self.all_sets if node in each.members), None)

    def uri(
        self,
        database: str = "",
        *,
        credentials: Credentials | None = None,
        addresses: Mapping[str, str] | None = None,
        direct: Node | None = None,
        tls_ca: str | None = None,
    ) -> str:
        """A connection string.

        https://www.mongodb.com/docs/manual/reference/connection-string/

        Args:
            database: the default database; empty: none.
            credentials: who to be; None: nobody.
            addresses: node name → ``host:port`` where the clients in question reach it, if not its own address.
            direct: connect to this node alone.
            tls_ca: file of the authority that vouches for its hosts; None: no TLS.
        """
        known = addresses or {}
        nodes = (direct,) if direct else self.seeds
        hosts = ",".join(known.get(node.name, node.address) for node in nodes)
        user, options = "", []
        if credentials is not None:
            user = f"{quote(credentials.username, safe='')}:{quote(credentials.password, safe='')}@"
            options.append(f"authSource={credentials.source}")
        name = None if direct else next((node.replica_set for node in nodes if node.replica_set), None)
        if name:
            options.append(f"replicaSet={name}")
        elif direct or not self.is_sharded:
            options.append("directConnection=true")
        if tls_ca is not None:
            options += ["tls=true", f"tlsCAFile={quote(tls_ca, safe='/')}"]
        return (
            f"mongodb://{user}{hosts}/{quote(database, safe='')}{'?' + '&'.join(options) if options else ''}"
        )


@dataclass(frozen=True)
class Size:
    """How many of each there are."""

    members: int = 1  # data-bearing members of each replica set
    arbiters: int = 0  # arbiters of each replica set of data
    config_servers: int = 1  # members of the config servers' set
    shards: int = 1  # shards of a sharded cluster
    routers: int = 1  # routers of a sharded cluster
    removed_shards: tuple[int, ...] = ()  # numbers that no shard has

    @property
    def shard_numbers(self) -> tuple[int, ...]:
        """The numbers of the shards: the first ones that were not removed."""
        return first_numbers(self.shards, self.removed_shards)


OptionsOf = Callable[[Role], NodeOptions]
HostOf = Callable[[str], str]


def single(name: str, port: int, replica_set: str | None, options: OptionsOf, host: HostOf) -> Topology:
    """Plan one mongod.

    Args:
        replica_set: name of the replica set it forms by itself; None: it stands alone.
        options: role → what a node of it is given.
        host: node name → the name under which others know it.
    """
    role = Role.MEMBER if replica_set else Role.STANDALONE
    node = Node("mongod", role, host("mongod"), port, replica_set, options(role))
    if replica_set is None:
        return Topology(name, standalones=(node,))
    return Topology(name, replica_sets=(ReplicaSet(replica_set, (node,)),))


def replica_set(
    name: str, port: int, set_name: str, size: Size, options: OptionsOf, host: HostOf
) -> Topology:
    """Plan one replica set.

    Args:
        port: the first member's port; the others follow.
        size: `members` and `arbiters` count.
        options: role → what a node of it is given.
        host: node name → the name under which others know it.
    """
    ports = iter(range(port, 65536))
    return Topology(name, replica_sets=(_set(set_name, "member", Role.MEMBER, size, ports, options, host),))


def sharded(name: str, port: int, size: Size, options: OptionsOf, host: HostOf) -> Topology:
    """Plan a sharded cluster. Routers have the first ports, so that adding shards moves nobody's address.

    Args:
        port: the first router's port; 20 ports are kept for routers, 20 for config servers, 50 for each shard.
        size: all of it counts.
        options: role → what a node of it is given.
        host: node name → the name under which others know it.
    """
    config_ports = iter(range(port + 20, port + 40))
    config = _set(
        CONFIG_SET, CONFIG_SET, Role.CONFIG, Size(members=size.config_servers), config_ports, options, host
    )
    shards = tuple(
        _set(
            f"shard{n}",
            f"shard{n}",
            Role.SHARD,
            size,
            iter(range(port + 50 * n, port + 50 * n + 50)),
            options,
            host,
        )
        for n in size.shard_numbers
    )
    routers = tuple(
        Node(
            f"router-{n}",
            Role.ROUTER,
            host(f"router-{n}"),
            port + n - 1,
            options=options(Role.ROUTER),
            config_db=config.seed_list,
        )
        for n in range(1, size.routers + 1)
    )
    return Topology(name, config=config, replica_sets=shards, routers=routers)


def _set(
    name: str, prefix: str, role: Role, size: Size, ports: Iterator[int], options: OptionsOf, host: HostOf
) -> ReplicaSet:
    members = []
    for n in range(1, size.members + size.arbiters + 1):
        node, arbiter = f"{prefix}-{n}", n > size.members
        kind = Role.ARBITER if arbiter and role is Role.MEMBER else role
        members.append(Node(node, kind, host(node), next(ports), name, options(role), arbiter=arbiter))
    return ReplicaSet(name, tuple(members))
