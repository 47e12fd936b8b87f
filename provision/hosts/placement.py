"""Which node runs on which host. Pure: same input, same output.

No two members of a replica set share a host while there are enough hosts: a host that is lost takes no majority with
it. The first members, which become primaries, are spread, and so are routers; then every host gets as many as others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.mongodb.topology import Node, Topology
from provision.state.remembered import Move


@dataclass(frozen=True)
class Placed:
    """One line of a plan.

    Args:
        host: name of its host.
        address: ``host:port`` under which the others and clients know it.
        shares: it is on a host with another member of its set.
    """

    node: str
    host: str
    address: str
    shares: bool


def place(
    topology: Topology, hosts: Sequence[str], before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give every node a host.

    Args:
        topology: the nodes; their addresses don't matter.
        hosts: names of the hosts, in order of preference.
        before: node name → host name of nodes that have their data somewhere: they stay.

    Returns: Node name → host name.
    Raises ProvisionError: there is no host, or a node has its data on a host that is not among them.
    """
    doing = f"placing {topology.name} on hosts"
    settings = f"deployments.{topology.name}.hosts in invoke.yaml"
    if not hosts:
        raise ProvisionError(doing, "It has no hosts.", f"Name some of `hosts:` under {settings}.")
    names = {node.name for node in topology.nodes}
    placed = {node: host for node, host in (before or {}).items() if node in names}
    gone = {node: host for node, host in placed.items() if host not in hosts}
    if gone:
        listed = ", ".join(f"{node} on {host}" for node, host in gone.items())
        raise ProvisionError(
            doing,
            f"These nodes have their data on hosts that it no longer has: {listed}.",
            f"Put {', '.join(sorted(set(gone.values())))} back under {settings}.",
        )
    load = Counter(placed.values())
    leading: Counter[str] = Counter()
    groups: list[Sequence[Node]] = [each.members for each in topology.all_sets]
    groups += [each for each in (topology.routers, topology.standalones) if each]
    for number, group in enumerate(groups):
        here = Counter(placed[node.name] for node in group if node.name in placed)
        # Each group begins with another host, so that equals don't all go to the first one.
        turn = number % len(hosts)
        order = [*hosts[turn:], *hosts[:turn]]
        for index, node in enumerate(group):
            if node.name not in placed:
                leads = leading if index == 0 else Counter[str]()
                best = min(order, key=lambda host, here=here, leads=leads, order=order: (  # type: ignore[misc]
                    here[host], leads[host], load[host], order.index(host)
                ))  # fmt: skip
                placed[node.name] = best
                here[best] += 1
                load[best] += 1
            if index == 0:
                leading[placed[node.name]] += 1
    return placed


def drained(
    topology: Topology, hosts: Sequence[str], placement: Mapping[str, str], leaving: str
) -> list[Move]:
    """The moves that leave a host without nodes: each goes where `place` would put it among the others.

    Args:
        hosts: names of the deployment's hosts, in order of preference.
        placement: node name → host name, as it is.

    Returns: Moves in the topology's order; empty: it has no node.
    Raises ProvisionError: there is no other host.
    """
    staying = {node: host for node, host in placement.items() if host != leaving}
    others = [host for host in hosts if host != leaving]
    if not others:
        raise ProvisionError(
            f"draining {leaving} of {topology.name}",
            "It is the only host: its nodes would have no place to go.",
            f"Add another one first, under `hosts:` and deployments.{topology.name}.hosts in invoke.yaml.",
        )
    after = place(topology, others, staying)
    return [Move(node.name, leaving, after[node.name]) for node in topology.nodes if node.name not in staying]


def spread(topology: Topology, hosts: Sequence[str], placement: Mapping[str, str]) -> list[Move]:
    """The fewest moves after which members of a set share a host no more than they must, and hosts are even.

    Args:
        hosts: names of the deployment's hosts.
        placement: node name → host name, as it is.

    Returns: Moves in the topology's order; empty: it is spread.
    """
    now = dict(placement)
    groups = [tuple(node.name for node in group) for group in _groups(topology)]
    # Every move makes two counts more equal, so this ends.
    while (step := _apart(groups, hosts, now) or _even(groups, hosts, now)) is not None:
        now[step[0]] = step[1]
    return [
        Move(node.name, placement[node.name], now[node.name])
        for node in topology.nodes
        if now[node.name] != placement[node.name]
    ]


def shared(topology: Topology, placement: Mapping[str, str]) -> dict[str, int]:
    """Replica set → how many of its members the host that has most of them has. Pure."""
    return {
        each.name: max(Counter(placement[node.name] for node in each.members).values())
        for each in topology.all_sets
    }


def _apart(
    groups: Sequence[Sequence[str]], hosts: Sequence[str], now: Mapping[str, str]
) -> tuple[str, str] | None:
    """The next move that takes members of a set apart; None: they share hosts no more than they must."""
    load = Counter(now.values())
    for group in groups:
        here = Counter(now[node] for node in group)
        least = min(hosts, key=lambda host, here=here: (here[host], load[host]))  # type: ignore[misc]
        most = max(hosts, key=lambda host, here=here: (here[host], load[host]))  # type: ignore[misc]
        if here[most] - here[least] > 1:
            # The last one: the first, which is most likely the primary, stays.
            return next(node for node in reversed(group) if now[node] == most), least
    return None


def _even(
    groups: Sequence[Sequence[str]], hosts: Sequence[str], now: Mapping[str, str]
) -> tuple[str, str] | None:
    """The next move from a fuller host to an emptier one that brings no members together; None: there is none."""
    load = Counter(now.values())
    pairs = sorted(
        ((source, target) for source in hosts for target in hosts if load[source] - load[target] > 1),
        key=lambda pair: load[pair[1]] - load[pair[0]],
    )
    for source, target in pairs:
        for group in reversed(groups):  # routers, which have no data to be copied, before members
            here = Counter(now[node] for node in group)
            if here[source] > here[target]:
                return next(node for node in reversed(group) if now[node] == source), target
    return None


def _groups(topology: Topology) -> list[Sequence[Node]]:
    """Nodes that stand in for each other, which is why they should be on different hosts."""
    groups: list[Sequence[Node]] = [each.members for each in topology.all_sets]
    return [*groups, *(each for each in (topology.standalones, topology.routers) if each)]


def plan(topology: Topology, placement: Mapping[str, str]) -> list[Placed]:
    """A placement (node name → host name) as it is shown, in the topology's order."""
    together: Counter[tuple[str, str]] = Counter(
        (node.replica_set, placement[node.name]) for node in topology.nodes if node.replica_set
    )
    return [
        Placed(
            node.name,
            placement[node.name],
            node.address,
            node.replica_set is not None and together[node.replica_set, placement[node.name]] > 1,
        )
        for node in topology.nodes
    ]
