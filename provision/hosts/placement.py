"""Which node runs on which host. Pure: same input, same output.

No two members of a replica set share a host while there are enough hosts: a host that is lost takes no majority with
it. The first members, which become primaries, are spread, and so are routers; then every host gets as many as others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provision.errors import ProvisionError
from provision.mongodb.topology import Node, Topology


@dataclass(frozen=True)
class Placed:
    """One line of a plan.

    Args:
        node: the node.
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

    Returns:
        Node name → host name.

    Raises:
        ProvisionError: there is no host, or a node has its data on a host that is not among them.
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


def plan(topology: Topology, placement: Mapping[str, str]) -> list[Placed]:
    """A placement as it is shown, in the topology's order.

    Args:
        topology: the nodes, with their addresses.
        placement: node name → host name.
    """
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
