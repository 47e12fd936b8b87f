"""Nodes restarted one after another while the deployment goes on serving: `cluster.restart --rolling`.

Config servers first, then the shards in turn, routers last, as MongoDB's manual has it. One node of the whole deployment
is away at any moment: shards side by side would be done sooner, but a client would meet several elections at once, and
what goes wrong would go wrong on every shard.

https://www.mongodb.com/docs/manual/tutorial/perform-maintence-on-replica-set-members/
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import field
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments import assembly, cluster
from provision.deployments.deployment import Deployment
from provision.deployments.status import Status
from provision.mongodb import membership
from provision.mongodb import replica_set as replication
from provision.mongodb.topology import Node, ReplicaSet, Topology
from provision.mongodb.waiting import POLL_SECONDS, Wait
from provision.mongodb.wire import CommandFailed, NotReachable
from provision.settings.loading import Loaded
from provision.state import records, remembered

Say = Callable[[str], None]
_STOP_SECONDS = 60.0
_ELECTION_SECONDS = 10.0
# Members tell the primary how far they are at heartbeats and with their updates: asking more often tells nothing new.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class HandOver:
    """A primary that gave way to another before it was restarted.

    Args:
        replica_set: name of the set.
        former: name of the node that was primary.
        primary: name of the one that is.
    """

    replica_set: str
    former: str
    primary: str


@dataclass(frozen=True)
class Rolled:
    """What a rolling restart did; its fields are what ``--json`` prints.

    Args:
        restarted: names of the nodes, in the order in which they were restarted.
        handed_over: the primaries that gave way.
        seconds: wall time.
    """

    deployment: str
    restarted: tuple[str, ...]
    handed_over: tuple[HandOver, ...]
    seconds: float


# What is decided, pure


def in_order(topology: Topology, wanted: Collection[str]) -> tuple[tuple[Node, ...], ...]:
    """The nodes to restart in groups, each to be finished before the next: config servers, shards, routers. Pure."""
    groups = [each.members for each in topology.all_sets]
    groups += [(node,) for node in (*topology.standalones, *topology.routers)]
    chosen = (tuple(node for node in group if node.name in wanted) for group in groups)
    return tuple(group for group in chosen if group)


def next_of(remaining: Sequence[Node], primary: Node | None) -> Node:
    """The member to restart next: the primary is the last one. Pure."""
    return next((node for node in remaining if node != primary), remaining[0])


def interruptions(topology: Topology, wanted: Collection[str]) -> list[str]:
    """What can't be served without a gap while these nodes are restarted, a sentence each. Pure."""
    found = []
    for each in topology.all_sets:
        if not any(node.name in wanted for node in each.members):
            continue
        voters = min(len(each.members), membership.MOST_VOTERS)
        bearing = sum(not node.arbiter for node in each.members)
        majority = voters // 2 + 1
        if voters == 1:
            found.append(f"{each.name} has one member: it is unavailable while that restarts.")
        elif min(bearing, voters) - 1 < majority:
            found.append(
                f"{each.name} has {bearing} members with data, and {majority} make a majority: majority writes wait "
                "while one of them restarts."
            )
    for node in topology.standalones:
        if node.name in wanted:
            found.append(f"{node.name} stands alone: it is unavailable while it restarts.")
    if len(topology.routers) == 1 and topology.routers[0].name in wanted:
        found.append(f"{topology.routers[0].name} is the only router: clients wait while it restarts.")
    return found


# What is done


def restart(
    loaded: Loaded, name: str, wanted: Sequence[str], say: Say, again: str, interrupt: bool = False
) -> Rolled:
    """Restart nodes one after another, with the settings as they are now.

    Args:
        wanted: names of the nodes; empty: all.
        again: the command to type after a failure.
        interrupt: go on although a part of it is unavailable for a moment.

    Raises:
        ProvisionError: it is not whole, a part of it would be unavailable, or a node did not come back. Typed again, it
            begins with that node.
    """
    deployment = assembly.deployment(loaded, name)
    nodes = [deployment.node(each).name for each in wanted] or [
        node.name for node in deployment.topology.nodes
    ]
    doing = f"restarting {'all nodes' if not wanted else ', '.join(nodes)} of {name} one after another"
    begun = time.monotonic()
    with deployment.holding("restarting the nodes of", say):
        roll = Roll(deployment, loaded.paths.rolling_record(name), doing, again, say)
        check_settled(loaded, name, doing)
        roll.check_whole()
        check_interruptions(deployment, nodes, doing, again, interrupt)
        deployment.prepare()
        roll.run(nodes)
    return Rolled(name, tuple(roll.restarted), tuple(roll.handed_over), round(time.monotonic() - begun, 3))


def check_settled(loaded: Loaded, name: str, doing: str) -> None:
    """Refuse where a move from one host to another is unfinished.

    Raises ProvisionError: one is.
    """
    for node, move in remembered.moves(loaded.paths, name).items():
        raise ProvisionError(
            doing,
            f"{node} is being moved from {move.source} to {move.target}, and that was interrupted.",
            f"Finish it first: invoke hosts.move {node} --to {move.target} --on {name}",
        )


def check_interruptions(
    deployment: Deployment, nodes: Collection[str], doing: str, again: str, interrupt: bool
) -> None:
    """Refuse where something would be unavailable and nobody agreed to that.

    Raises ProvisionError: something would be.
    """
    found = interruptions(deployment.topology, nodes)
    if found and not interrupt:
        raise ProvisionError(
            doing,
            "\n".join(found) + "\nNothing was changed.",
            f"To go on all the same: {again} --yes",
        )


def check_whole(
    deployment: Deployment,
    doing: str,
    again: str,
    excused: Collection[str],
    may_be_down: bool = False,
    advice: Callable[[], str] = str,
) -> None:
    """Every node is well but the excused ones, and each set without any of them has a primary; changes nothing.

    An election is waited for.

    `may_be_down`: all nodes may be down, if they are excused. `advice`: further lines of the remedy, each after a newline.

    Raises ProvisionError: naming the nodes that are not.
    """
    deadline = time.monotonic() + _ELECTION_SECONDS
    while True:
        status = deployment.status()
        if status.state == "stopped" and not may_be_down:
            raise cluster.not_running(deployment, doing)
        ill = [
            f"{node.name} is {node.state}"
            for node in status.nodes
            if node.state not in replication.HEALTHY and node.name not in excused
        ]
        headless = list(_headless(deployment.topology, status, excused))
        if not ill and not headless:
            return
        if ill or time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    ill += [f"{name} has no primary" for name in headless]
    raise ProvisionError(
        doing,
        f"{deployment.name} is not whole: {', '.join(ill)}. With one more node away, a majority could be lost. "
        "Nothing was changed.",
        f"Make it whole: invoke cluster.up --on {deployment.name}{advice()}\nThen type it again: {again}",
    )


def _headless(topology: Topology, status: Status, excused: Collection[str]) -> Iterator[str]:
    """The sets that have no primary and none of the excused nodes."""
    for each in topology.all_sets:
        names = {node.name for node in each.members}
        led = any(node.state == "PRIMARY" for node in status.nodes if node.name in names)
        if not led and names.isdisjoint(excused):
            yield each.name


def resumable(error: ProvisionError, doing: str, node: str, again: str, then: str) -> ProvisionError:
    """A step's error for one node, with the command that goes on there. `then`: what typing it does, as a sentence."""
    return ProvisionError(
        doing,
        error.cause if node in error.cause else f"{node}: {error.cause}",
        f"{error.remedy}\nThen type it again: {again}\n{then}",
        error.log_lines,
        error.code,
    )


@dataclass
class Roll:
    """One rolling restart. The caller holds the deployment's lock, and has had its configuration rendered."""

    deployment: Deployment  # the deployment, as its nodes should be when they are back
    record: Path  # file that has the node in hand, for the next attempt
    doing: str  # the work, for errors
    again: str  # the command to type after a failure
    say: Say
    restarted: list[str] = field(default_factory=list)
    handed_over: list[HandOver] = field(default_factory=list)

    @property
    def in_hand(self) -> str:
        """The node that an earlier attempt had in hand when it was interrupted; empty: none."""
        return str((records.ROLLING.load(self.record) or {}).get("node") or "")

    def check_whole(self) -> None:
        """Every node is well but the one that an earlier attempt left: `check_whole`."""
        left = self.in_hand
        check_whole(self.deployment, self.doing, self.again, {left}, may_be_down=bool(left))

    def run(self, wanted: Collection[str]) -> None:
        """Restart nodes in order; the one that an earlier attempt left comes first.

        Raises ProvisionError: a set is not whole, or a node did not come back.
        """
        left = self.in_hand
        node = next((each for each in self.deployment.topology.nodes if each.name == left), None)
        if node is not None:
            self.say(f"{left}: it was in hand when an earlier attempt was interrupted")
            if left in wanted or self.deployment.backend.observe(node).ended:
                self._restart(node)
            else:
                self._await(node)
        self._put_down()
        for group in in_order(self.deployment.topology, {*wanted} - {left}):
            remaining = list(group)
            while remaining:
                members = self.deployment.topology.set_of(remaining[0])
                chosen = next_of(remaining, self.deployment.primary(members.members) if members else None)
                self._restart(chosen)
                remaining.remove(chosen)

    def _restart(self, node: Node) -> None:
        begun = time.monotonic()
        backend = self.deployment.backend
        try:
            self._give_way(node)
            records.ROLLING.store(
                self.record, {**(records.ROLLING.load(self.record) or {}), "node": node.name}
            )
            self.say(f"{node.name}: restarting")
            backend.terminate([node], _STOP_SECONDS)
            self.deployment.launch([node])
            self._await(node)
        except ProvisionError as error:
            then = f"It goes on with {node.name}."
            raise resumable(error, self.doing, node.name, self.again, then) from None
        self._put_down()
        self.restarted.append(node.name)
        self.say(f"{node.name}: is back ({time.monotonic() - begun:.1f} s)")

    def _put_down(self) -> None:
        record = {
            key: value for key, value in (records.ROLLING.load(self.record) or {}).items() if key != "node"
        }
        records.ROLLING.store(self.record, record or None)

    def _give_way(self, node: Node) -> None:
        """See that the others of its set are well, and that it is not their primary."""
        members = self.deployment.topology.set_of(node)
        if members is None or len(members.members) == 1:
            return
        others = [each for each in members.members if each != node]
        self._until_well(members, others, node)
        if sum(not each.arbiter for each in others) and self.deployment.primary(members.members) == node:
            with (
                said(self.doing, f"{node.name} would not step down"),
                self.deployment.dial(node) as connection,
            ):
                new = cluster.hand_over(self.deployment, members, connection, node)
            self.handed_over.append(HandOver(members.name, node.name, new.name))
            self.say(f"{members.name}: {new.name} is primary now")

    def _until_well(self, members: ReplicaSet, others: Sequence[Node], but: Node) -> None:
        wait = self._wait(others)
        wanted = [each.address for each in others]

        def well() -> bool | None:
            found = self._look(members)
            if found is None:
                return None
            # Where the one in hand does not answer it has a vote all the same.
            return True if not found.lacks(wanted) else None

        wait.until(f"the other members of {members.name} to be well, so that {but.name} may go", well)

    def _await(self, node: Node) -> None:
        """Wait until a node that was launched does its part again."""
        self.deployment.until_listening(node)
        members = self.deployment.topology.set_of(node)
        if members is None:
            return
        if len(members.members) == 1:
            replication.primary(members, self.deployment.dial, self._wait([node])).close()
            return
        target: tuple[int, int] | None = None

        def caught_up() -> tuple[bool, object]:
            nonlocal target
            found = self._look(members)
            if found is None:
                return False, None
            target = target or found.written
            member = found.members.get(node.address)
            if member is None or not member.is_well:
                return False, member
            return node.arbiter or member.written >= target, member

        patiently(f"{node.name} to catch up with {members.name}", caught_up, self._wait([node]))

    def _look(self, members: ReplicaSet) -> membership.Seen | None:
        """The set as its primary sees it; None: it has none now."""
        with contextlib.suppress(NotReachable, CommandFailed):
            primary = self.deployment.primary(members.members)
            if primary is not None:
                with self.deployment.dial(primary) as connection:
                    return membership.look(connection)
        return None

    def _wait(self, nodes: Sequence[Node]) -> Wait:
        return waiting_for(self.deployment, nodes, self.doing)


def waiting_for(deployment: Deployment, nodes: Sequence[Node], doing: str) -> Wait:
    """How long to wait for nodes, and what makes that pointless.

    `nodes`: they are expected to run meanwhile.
    """

    def check_alive() -> None:
        found = deployment.backend.observe_all(nodes)
        for node in nodes:
            if (unknown := found[node.name].unknown) is not None:
                raise unknown
            if found[node.name].ended:
                raise ProvisionError(
                    doing,
                    f"{node.name} has ended.",
                    f"Look at `invoke logs --on {deployment.name} --node {node.name}`.",
                    deployment.telling_lines(node),
                )

    deadline = time.monotonic() + deployment.patience
    return Wait(
        deadline, deployment.patience, check_alive, lambda: deployment.telling_lines(nodes[0]), _LOOK_SECONDS
    )


def patiently(what: str, attempt: Callable[[], tuple[bool, object]], wait: Wait) -> None:
    """Wait for something that takes as long as it takes, and give up only when it stands still.

    Args:
        what: what is awaited, as a clause.
        attempt: returns whether it is done, and something that changes while it goes forward.
        wait: its seconds are how long it may stand still.

    Raises ProvisionError: it stood still, or can no longer happen.
    """
    last: object = None
    deadline = time.monotonic() + wait.seconds
    while True:
        done, marker = attempt()
        if done:
            return
        wait.check_alive()
        if marker != last:
            last, deadline = marker, time.monotonic() + wait.seconds
        if time.monotonic() >= deadline:
            raise ProvisionError(
                f"waiting for {what}",
                f"Nothing has moved for {wait.seconds:g} s, and the process is still running.",
                "Look at `invoke logs`. A slow machine may need a larger mongodb.start_timeout in invoke.yaml.",
                wait.log_tail(),
            )
        time.sleep(max(wait.poll, POLL_SECONDS))


@contextlib.contextmanager
def said(doing: str, what: str) -> Iterator[None]:
    """Turn a server's refusal, or a broken connection, into an error for people.

    `what`: what the server would not do, as a sentence without its full stop.

    Raises ProvisionError: it refused, or the connection broke.
    """
    try:
        yield
    except (NotReachable, CommandFailed) as refusal:
        raise ProvisionError(
            doing, f"{what}: {str(refusal).rstrip('.')}.", "Look at `invoke logs` of that node."
        ) from None
