"""What `status` says of a deployment: read from every node at once, changing nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from provision.backends.base import Backend
from provision.core.dataclass import dataclass
from provision.mongodb import replica_set as replication
from provision.mongodb.topology import Node, Topology
from provision.mongodb.wire import CommandFailed, Connection, NotReachable

Dial = Callable[[Node, float], Connection]
_TIMEOUT = 2.0


@dataclass(frozen=True)
class NodeStatus:
    """One node.

    Args:
        role: ``standalone``, ``member``, ``arbiter``, ``config``, ``shard`` or ``router``.
        state: MongoDB's name for its state (``PRIMARY``, …), ``ROUTER``, ``DOWN``, ``PAUSED``, or ``UNREACHABLE`` for one
            that runs but does not answer, or whose host does not say whether it runs.
        pid: its process id; None when it is down or in a container.
        port: its port on this machine.
        replica_set: its replica set's name; None: none.
        lag: seconds that its data are behind the primary's; None where that has no meaning or is not known.
        memory: resident memory in MB; None: not known.
        version: MongoDB's version; None: not known.
    """

    name: str
    role: str
    state: str
    pid: int | None
    port: int
    replica_set: str | None = None
    lag: float | None = None
    memory: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class ShardStatus:
    """One shard: ``ready`` or ``draining``, and how many chunks it has of all collections."""

    name: str
    state: str
    chunks: int


@dataclass(frozen=True)
class BalancerStatus:
    """The balancer: its mode (``full`` or ``off``), and whether it moves chunks right now."""

    mode: str
    running: bool


@dataclass(frozen=True)
class Status:
    """A deployment; the shape of ``invoke status --json``.

    Args:
        state: ``running`` (every node is well, and it takes writes), ``degraded``, or ``stopped``.
        uri: its connection string without a password, whatever its state.
        version: MongoDB's version; None while nothing answers.
        nodes: every node.
        shards: those of a sharded cluster that answers.
        balancer: that of a sharded cluster that answers.
        notes: what there is to do: how what runs differs from what the settings ask for, a mongod that was started by hand.
    """

    deployment: str
    state: str
    uri: str
    version: str | None
    nodes: tuple[NodeStatus, ...]
    shards: tuple[ShardStatus, ...] | None = None
    balancer: BalancerStatus | None = None
    notes: tuple[str, ...] = ()


def read(topology: Topology, backend: Backend, dial: Dial, uri: str) -> Status:
    """Ask every node."""
    with ThreadPoolExecutor(max_workers=min(32, len(topology.nodes))) as pool:
        nodes = list(pool.map(lambda node: _node(node, backend, dial), topology.nodes))
    lags = _lags(topology, nodes, dial)
    known = tuple(NodeStatus(**{**vars(each), "lag": lags.get(each.name)}) for each in nodes)
    version = next((each.version for each in known if each.version), None)
    shards, balancer = _sharding(topology, known, dial)
    return Status(topology.name, _overall(known), uri, version, known, shards, balancer)


def _node(node: Node, backend: Backend, dial: Dial) -> NodeStatus:
    observed = backend.observe(node)
    state, memory, version = "DOWN" if observed.ended else "UNREACHABLE", None, None
    if observed.running and backend.is_paused(node):
        state = "PAUSED"
    elif not observed.ended:
        # A node may answer although nobody can look at its process.
        try:
            with dial(node, _TIMEOUT) as connection:
                state = replication.state(connection.command("admin", {"hello": 1}))
                version = str(connection.command("admin", {"buildInfo": 1})["version"])
                if not node.arbiter:
                    memory = (
                        connection.command("admin", {"serverStatus": 1, "repl": 0})
                        .get("mem", {})
                        .get("resident")
                    )
        except NotReachable:
            state = "UNREACHABLE"
        except CommandFailed:
            pass
    return NodeStatus(
        node.name, node.role.value, state, observed.pid, node.port, node.replica_set, None, memory, version
    )


def _lags(topology: Topology, nodes: Sequence[NodeStatus], dial: Dial) -> dict[str, float]:
    """How far each secondary is behind, as the set's primary sees it.

    https://www.mongodb.com/docs/manual/reference/command/replSetGetStatus/
    """
    by_name = {node.name: node for node in topology.nodes}
    lags: dict[str, float] = {}
    for each in topology.all_sets:
        leader = next((n for n in nodes if n.replica_set == each.name and n.state == "PRIMARY"), None)
        if leader is None or len(each.members) == 1:
            continue
        try:
            with dial(by_name[leader.name], _TIMEOUT) as connection:
                members = connection.command("admin", {"replSetGetStatus": 1})["members"]
        except (NotReachable, CommandFailed):
            continue
        written = next((m["optimeDate"] for m in members if m["stateStr"] == "PRIMARY"), None)
        names = {node.address: node.name for node in each.members}
        for member in members:
            if written is not None and member["stateStr"] == "SECONDARY" and member["name"] in names:
                lags[names[member["name"]]] = max(0.0, (written - member["optimeDate"]).total_seconds())
    return lags


def _sharding(
    topology: Topology, nodes: Sequence[NodeStatus], dial: Dial
) -> tuple[tuple[ShardStatus, ...] | None, BalancerStatus | None]:
    up = {each.name for each in nodes if each.state == "ROUTER"}
    router = next((node for node in topology.routers if node.name in up), None)
    if router is None:
        return None, None
    from provision.mongodb import sharding

    try:
        with dial(router, 5.0) as connection:
            chunks: dict[str, int] = {}
            for namespace in sharding.sharded_namespaces(connection):
                for shard, count in sharding.chunks_by_shard(connection, namespace).items():
                    chunks[shard] = chunks.get(shard, 0) + count
            listed = sorted(sharding.shards(connection), key=lambda each: str(each["_id"]))
            shards = tuple(
                ShardStatus(
                    each["_id"], "draining" if each.get("draining") else "ready", chunks.get(each["_id"], 0)
                )
                for each in listed
            )
            balancer = sharding.balancer(connection)
            return shards, BalancerStatus(str(balancer["mode"]), bool(balancer["running"]))
    except (NotReachable, CommandFailed):
        return None, None


def _overall(nodes: Sequence[NodeStatus]) -> str:
    if all(node.state == "DOWN" for node in nodes):
        return "stopped"
    healthy = all(node.state in replication.HEALTHY for node in nodes)
    sets = {node.replica_set for node in nodes if node.replica_set}
    with_primary = {node.replica_set for node in nodes if node.state == "PRIMARY"}
    return "running" if healthy and sets <= with_primary else "degraded"
