"""What a deployment consists of: pure data. Names and ports are planned here.

A single mongod is a topology of one node. Nothing here knows how a node becomes a running process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

LOOPBACK = "127.0.0.1"


class Role(StrEnum):
    """What a node is in its topology."""

    STANDALONE = "standalone"
    MEMBER = "member"


@dataclass(frozen=True)
class NodeOptions:
    """What a node is given of the machine.

    Args:
        cache_size_gb: WiredTiger's cache, in GB; without it every node would take half of the memory.
        oplog_size_mb: size of a replica set member's oplog, in MB.
        set_parameter: server parameters.
    """

    cache_size_gb: float = 0.25
    oplog_size_mb: int = 64
    set_parameter: Mapping[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """One mongod.

    Args:
        name: unique in its topology, fit for a file name: ``"mongod"``.
        role: what it is.
        host: the name under which the other nodes and its clients know it.
        port: the port it listens on.
        replica_set: name of the replica set it belongs to; None: none.
        options: what it is given of the machine.
    """

    name: str
    role: Role
    host: str
    port: int
    replica_set: str | None = None
    options: NodeOptions = NodeOptions()

    @property
    def address(self) -> str:
        """``host:port``, as in a replica set's configuration."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ReplicaSet:
    """Nodes that hold the same data. The first member is the one that the set is initiated with."""

    name: str
    members: tuple[Node, ...]


@dataclass(frozen=True)
class Topology:
    """A whole deployment.

    Args:
        name: the deployment's name.
        standalones: mongods that belong to no replica set.
        replica_sets: the replica sets.
    """

    name: str
    standalones: tuple[Node, ...] = ()
    replica_sets: tuple[ReplicaSet, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, in the order in which they are shown."""
        return (*self.standalones, *(member for each in self.replica_sets for member in each.members))

    @property
    def seeds(self) -> tuple[Node, ...]:
        """The nodes that clients connect to."""
        return self.nodes

    def uri(self, database: str = "", addresses: Mapping[str, str] | None = None) -> str:
        """The connection string of the deployment.

        https://www.mongodb.com/docs/manual/reference/connection-string/

        Args:
            database: the default database; empty: none.
            addresses: node name → ``host:port`` where clients reach it, if not the node's own address.
        """
        known = addresses or {}
        hosts = ",".join(known.get(node.name, node.address) for node in self.seeds)
        name = next((node.replica_set for node in self.seeds if node.replica_set), None)
        options = f"?replicaSet={name}" if name else "?directConnection=true"
        return f"mongodb://{hosts}/{database}{options}"


def single(name: str, port: int, replica_set: str | None, options: NodeOptions) -> Topology:
    """Plan one mongod on this machine.

    Args:
        name: the deployment's name.
        port: its port.
        replica_set: name of the replica set it forms by itself; None: it stands alone.
        options: what it is given of the machine.
    """
    role = Role.MEMBER if replica_set else Role.STANDALONE
    node = Node("mongod", role, LOOPBACK, port, replica_set, options)
    if replica_set is None:
        return Topology(name, standalones=(node,))
    return Topology(name, replica_sets=(ReplicaSet(replica_set, (node,)),))
