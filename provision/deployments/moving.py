"""Nodes that go from one host to another while the deployment goes on serving: `hosts.move`, `.drain` and `.spread`.

A member is started at its new place under its old name, joins its set, and gets the data; only then does the old one
step down, leave the set, and end, and its data are deleted. So there is never one copy less than before. What is in hand
is on record, and every step looks first whether it was done: a move that was interrupted is finished by typing it again.

https://www.mongodb.com/docs/manual/tutorial/replace-replica-set-member/
https://www.mongodb.com/docs/manual/tutorial/replace-config-server/
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import TypeVar, cast

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError, did_you_mean
from provision.deployments import assembly, on_hosts
from provision.deployments.deployment import Deployment
from provision.deployments.rolling import check_whole, patiently, resumable, said, waiting_for
from provision.hosts import placement
from provision.hosts.backend import Hosts
from provision.hosts.link import Link, Unreachable
from provision.mongodb import membership
from provision.mongodb.topology import Node, ReplicaSet
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from provision.settings.loading import Loaded
from provision.state import records, remembered
from provision.state.remembered import Move

T = TypeVar("T")
Say = Callable[[str], None]
_END_SECONDS = 60.0
_DIAL_SECONDS = 2.0
_ELECTION_SECONDS = 30.0
_TELL_SECONDS = 5.0
_LOOK_SECONDS = 0.2
# Arbiters: MongoDB takes no second one, so the old one goes first.


@dataclass(frozen=True)
class Moved:
    """What was moved; its fields are what ``--json`` prints.

    Args:
        moves: those that were carried out, or with a dry run would be.
        empty: hosts of the deployment that have no node of it now.
        notices: what you have to do by hand.
        seconds: wall time.
    """

    deployment: str
    moves: tuple[Move, ...]
    empty: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float


def move(loaded: Loaded, on: str, node: str, to: str, say: Say, again: str) -> Moved:
    """Move one node to another host of its deployment. To the host that an interrupted move left: undo that.

    Raises ProvisionError: it can't be moved there, or a step failed.
    """
    doing = f"moving {node} of {on} to {to}"
    with _moving(loaded, on, doing, again, say) as mover:
        mover.current.node(node)
        mover.check_host(to)
        begun = remembered.moves(loaded.paths, on).get(node)
        if begun is not None and to not in (begun.source, begun.target):
            raise ProvisionError(
                doing,
                f"It is being moved from {begun.source} to {begun.target}, and that was interrupted.",
                f"Finish that: invoke hosts.move {node} --to {begun.target} --on {on}\n"
                f"or undo it: invoke hosts.move {node} --to {begun.source} --on {on}",
            )
        if begun is not None and to == begun.source:
            say(f"{node}: stays on {to}; what was begun on {begun.target} is undone")
            return mover.carry_out([Move(node, begun.target, begun.source)])
        if begun is not None:
            return mover.carry_out([begun])
        source = mover.placed[node]
        return mover.carry_out([] if source == to else [Move(node, source, to)])


def place(loaded: Loaded, on: str, placed: Mapping[str, str]) -> None:
    """Put on record which node has its data on which host."""
    records.PLACEMENT.write(loaded.paths, dict(placed), on)


def drain(loaded: Loaded, on: str, host: str, lost: bool, crowd: bool, say: Say, again: str) -> Moved:
    """Move every node of a deployment off a host.

    Args:
        lost: it is gone for good: its members leave their sets unasked, and new ones start elsewhere.
        crowd: go on although members of a set come to share a host that did not.

    Raises:
        ProvisionError: there is no place for them, the host is lost and was not said to be, or is not and was, a set
            has no majority without it, or a step failed.
    """
    doing = f"draining {host} of {on}"
    with _moving(loaded, on, doing, again, say) as mover:
        mover.check_host(host)
        if lost:
            mover.check_lost(host)
            mover.lost = host
        mover.finish_begun()
        moves = placement.drained(mover.current.topology, mover.hosts, mover.placed, host)
        if lost:
            moves = [replace(each, lost=True) for each in moves]
        elif not crowd:
            mover.check_room(moves)
        done = mover.carry_out(moves)
        notices = [
            f"{host} has no node of {on}. Take it out of deployments.{on}.hosts in invoke.yaml: then none comes back."
        ]
        if lost and moves:
            directory = loaded.settings.hosts[host].data_dir
            notices.append(
                f"What is left of them on {host} could not be deleted. Before it is connected again: "
                f"rm -r {directory}/{on} there, and `systemctl disable` its mongodb-{on}-* units if it has any."
            )
        return replace(done, notices=(*done.notices, *notices))


def spread(loaded: Loaded, on: str, dry_run: bool, say: Say, again: str) -> Moved:
    """Move the fewest nodes so that members of a set share a host no more than they must, and hosts are even.

    Raises ProvisionError: it is not on hosts, or a step failed.
    """
    with _moving(loaded, on, f"spreading {on} over its hosts", again, say) as mover:
        if not dry_run:
            mover.finish_begun()
        moves = placement.spread(mover.current.topology, mover.hosts, mover.placed)
        if dry_run:
            return Moved(on, tuple(moves), (), (), 0.0)
        return mover.carry_out(moves)


@contextlib.contextmanager
def _moving(loaded: Loaded, on: str, doing: str, again: str, say: Say) -> Iterator[_Mover]:
    current = on_hosts.deployed(loaded, on)
    mover = _Mover(loaded, on, doing, again, say, current)
    try:
        with current.holding("moving nodes of", say):
            yield mover
    finally:
        mover.close()


@dataclass
class _Mover:
    """Carries moves out, one after another."""

    loaded: Loaded
    name: str
    doing: str  # the work, for errors
    again: str  # the command to type after a failure
    say: Say
    current: Deployment  # the deployment as it is on record
    lost: str | None = None  # a host that is gone for good
    done: list[Move] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def placed(self) -> dict[str, str]:
        """Node name → host name, as it is on record."""
        recorded = records.PLACEMENT.read(self.loaded.paths, self.name)
        return dict(recorded or _backend(self.current).placement)

    @property
    def hosts(self) -> list[str]:
        return list(self.loaded.deployment(self.name).hosts)

    def refresh(self) -> None:
        """See the deployment as it is on record now."""
        links = self._links
        self.current = assembly.deployment(self.loaded, self.name)
        _backend(self.current).links = links

    @property
    def _links(self) -> dict[str, Link]:
        return _backend(self.current).links

    def close(self) -> None:
        _backend(self.current).close()

    def view(self, placed: dict[str, str]) -> Deployment:
        """The deployment with nodes placed like this, over the connections that are open."""
        made = assembly.deployment(self.loaded, self.name, placed)
        _backend(made).links = self._links
        return made

    # What is looked at before anything is changed

    def check_host(self, host: str) -> None:
        if host not in self.hosts:
            raise ProvisionError(
                self.doing,
                f"{host} is not among the hosts of {self.name}: {', '.join(self.hosts)}.",
                f"Name one of them{did_you_mean(host, self.hosts)}, or add it to deployments.{self.name}.hosts.",
            )

    def check_lost(self, host: str) -> None:
        """It does not answer; each set that has a member there has a primary without it, or elects one."""
        with contextlib.suppress(Unreachable):
            self._links[host].run(["true"])
            raise ProvisionError(
                self.doing,
                f"{host} answers. Nothing was changed.",
                f"Move its nodes without --lost: invoke hosts.drain {host} --on {self.name}",
            )
        deadline = time.monotonic() + _ELECTION_SECONDS
        leaderless = [
            each.name
            for each in self.current.topology.all_sets
            if any(self.placed[node.name] == host for node in each.members)
            and not self._is_led(each, host, deadline)
        ]
        if leaderless:
            raise ProvisionError(
                self.doing,
                f"Without {host}, {', '.join(leaderless)} has no majority, and nobody can change who its members are. "
                "Nothing was changed.",
                "Bring its other members up. If they are lost, too, it can only be restored by hand: "
                "https://www.mongodb.com/docs/manual/tutorial/reconfigure-replica-set-with-unavailable-members/",
            )

    def check_room(self, moves: Sequence[Move]) -> None:
        """No set comes to have more members on one host than it has now."""
        topology = self.current.topology
        before = placement.shared(topology, self.placed)
        after = placement.shared(topology, {**self.placed, **{each.node: each.target for each in moves}})
        crowded = [name for name in after if after[name] > before[name]]
        if crowded:
            raise ProvisionError(
                self.doing,
                f"Members of {', '.join(crowded)} would share a host that don't now: one host that fails could take a "
                "majority with it. Nothing was changed.",
                f"Add a host to deployments.{self.name}.hosts first. Or, if that may be: {self.again} --yes",
            )

    def _check_whole(self, moves: Sequence[Move]) -> None:
        """Every node is well, but those on a lost host and those of a move that was interrupted."""
        excused = {node for node, host in self.placed.items() if host == self.lost}
        excused |= remembered.moves(self.loaded.paths, self.name).keys()

        def if_lost() -> str:
            hosts = [host for host in dict.fromkeys(each.source for each in moves) if not self._answers(host)]
            drain = "\nIf {0} is gone for good: invoke hosts.drain {0} --lost --on {1}"
            return "".join(drain.format(host, self.name) for host in hosts)

        check_whole(self.current, self.doing, self.again, excused, advice=if_lost)

    def _answers(self, host: str) -> bool:
        try:
            self._links[host].run(["true"])
        except Unreachable:
            return False
        return True

    def _check_movable(self, moves: Sequence[Move]) -> None:
        alone = [
            node.name for node in self.current.topology.standalones if node.name in {m.node for m in moves}
        ]
        if alone:
            raise ProvisionError(
                self.doing,
                f"{', '.join(alone)} stands alone: no other member could hold its data meanwhile.",
                f"Set deployments.{self.name}.replica_set to a name: a set of one can be moved.",
            )

    def _set_up(self, moves: Sequence[Move]) -> None:
        """The hosts that nodes go to have the binaries, and these run there."""
        links = {host: self._links[host] for host in dict.fromkeys(each.target for each in moves)}
        on_hosts.send_binaries(self.loaded, self.name, links, self.doing, self.say)

    # What is done

    def finish_begun(self) -> None:
        """Finish the moves that were interrupted. What was on its way to a host that is lost stays where it was."""
        begun = [
            Move(each.node, each.target, each.source, lost=True)
            if each.target == self.lost
            else replace(each, lost=each.lost or each.source == self.lost)
            for each in remembered.moves(self.loaded.paths, self.name).values()
        ]
        if begun:
            self.say(f"Finishing what was interrupted: {', '.join(each.node for each in begun)}")
            self.carry_out(begun)

    def carry_out(self, moves: Sequence[Move]) -> Moved:
        """Make moves, one after another; those that have begun are finished."""
        if moves:
            self._check_movable(moves)
            self._check_whole(moves)
            self._set_up(moves)
        for each in moves:
            try:
                self._move(each)
            except ProvisionError as error:
                then = f"It goes on where it was. {each.node} serves on."
                raise resumable(error, self.doing, each.node, self.again, then) from None
            self.done.append(each)
        self.refresh()
        used = set(self.placed.values())
        return Moved(
            self.name,
            tuple(self.done),
            tuple(host for host in self.hosts if host not in used),
            tuple(self._notices()),
            round(time.monotonic() - self.begun, 3),
        )

    def _notices(self) -> Iterator[str]:
        routers = [
            node.name
            for node in self.current.topology.routers
            if node.name in {each.node for each in self.done}
        ]
        if routers:
            yield (
                f"{', '.join(routers)} has another address now. Tell the clients that know no other router: "
                f"`invoke uri --on {self.name}`."
            )

    def _move(self, move: Move) -> None:
        begun = time.monotonic()
        pending = remembered.moves(self.loaded.paths, self.name)
        remembered.record_moves(self.loaded.paths, self.name, {**pending, move.node: move})
        placed = self.placed
        here = self.view({**placed, move.node: move.source})
        there = self.view({**placed, move.node: move.target})
        node = there.node(move.node)
        self.say(f"{move.node}: goes from {move.source} to {move.target}")
        if not there.backend.observe(node).running:
            there.prepare()
            there.launch([node])
        there.until_listening(node)
        if node.replica_set is not None:
            self._change_member(move, here, there)
        place(self.loaded, self.name, {**placed, move.node: move.target})
        if not move.lost:
            old = here.node(move.node)
            here.backend.terminate([old], _END_SECONDS)
            here.backend.remove([old], data=True)
        config = there.topology.config
        if config is not None and node in config.members and there.topology.routers:
            # A running router follows the set by itself: this is for its next start.
            there.prepare()
            _backend(there).send_configuration(
                [router for router in there.topology.routers if self._answers(placed[router.name])]
            )
        left = {
            name: each
            for name, each in remembered.moves(self.loaded.paths, self.name).items()
            if name != move.node
        }
        remembered.record_moves(self.loaded.paths, self.name, left)
        self.say(f"{move.node}: is on {move.target} ({time.monotonic() - begun:.1f} s)")

    def _change_member(self, move: Move, here: Deployment, there: Deployment) -> None:
        """Put the new member in the old one's place in its replica set."""
        old, new = here.node(move.node), there.node(move.node)
        members = here.topology.set_of(old)
        assert members is not None  # noqa: S101 — asked only for members
        others = [node for node in members.members if node != old and self.placed[node.name] != self.lost]
        askable = [*((here, node) for node in others), (there, new), *(() if move.lost else ((here, old),))]

        def with_primary(ask: Callable[[Connection], T | None]) -> Callable[[], T | None]:
            """Ask the primary, whichever that is now; None where there is none, or it has just changed."""

            def attempt() -> T | None:
                connection = self._primary(askable)
                if connection is None:
                    return None
                with connection:
                    try:
                        return ask(connection)
                    except NotReachable:
                        return None
                    except CommandFailed as refusal:
                        if refusal.code in membership.LATER:
                            return None
                        raise

            return attempt

        waiting = waiting_for(there, [new], self.doing)
        with said(self.doing, f"{members.name} does not let {move.node} change its place"):
            is_arbiter = new.arbiter
            if is_arbiter:
                waiting.until(
                    f"{move.node} to leave {members.name}",
                    with_primary(lambda primary: membership.remove(primary, old.address)),
                )

            def join(primary: Connection) -> bool | None:
                if membership.entry_of(primary, new.address) is not None:
                    return True
                like = membership.ARBITER if is_arbiter else membership.entry_of(primary, old.address) or {}
                return membership.add(primary, new.address, like)

            waiting.until(f"{move.node} to join {members.name}", with_primary(join))
            self._until_complete(there, new, [*(node.address for node in others), new.address], with_primary)
            if not is_arbiter:
                if not move.lost:
                    self._step_down(here, old, members.name, askable)
                waiting = waiting_for(there, [new], self.doing)
                waiting.until(
                    f"{move.node} on {move.source} to leave {members.name}",
                    with_primary(lambda primary: membership.remove(primary, old.address)),
                )
                waiting.until(
                    f"{move.node} to have its vote",
                    with_primary(lambda primary: _vote(primary, new.address)),
                )

    def _until_complete(
        self,
        there: Deployment,
        new: Node,
        addresses: Sequence[str],
        with_primary: Callable[
            [Callable[[Connection], membership.Seen | None]], Callable[[], membership.Seen | None]
        ],
    ) -> None:
        """Wait until the new member has all data and its vote; however long that takes, while it goes forward."""
        look = with_primary(membership.look)
        target: tuple[int, int] | None = None
        told = time.monotonic()

        def complete() -> tuple[bool, object]:
            nonlocal target, told
            seen = look()
            if seen is None:
                return False, None
            member = seen.members.get(new.address)
            copied = _copied(there, new)
            if copied and time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                self.say(f"{new.name}: {copied // 2**20} MB copied")
            if member is None or not member.is_well:
                return False, (member, copied)
            target = target or seen.written
            caught_up = new.arbiter or member.written >= target
            return caught_up and not seen.lacks(addresses), (member, seen.voters)

        patiently(f"{new.name} to have all data", complete, waiting_for(there, [new], self.doing))

    def _step_down(
        self, here: Deployment, old: Node, replica_set: str, askable: Sequence[tuple[Deployment, Node]]
    ) -> None:
        try:
            connection = here.dial(old, _DIAL_SECONDS)
        except (NotReachable, CommandFailed):
            return  # it is down, or not a member any more: then it is not a primary
        with connection:
            if not membership.is_primary(connection):
                return
            wait = replace(
                waiting_for(here, [], self.doing),
                deadline=time.monotonic() + _ELECTION_SECONDS,
                log_tail=list,
            )
            others = [(deployment, node) for deployment, node in askable if (deployment, node) != (here, old)]
            membership.hand_over(connection, replica_set, lambda: self._primary(others), wait).close()
        self.say(f"{replica_set}: {old.name} on {_backend(here).placement[old.name]} has stepped down")

    def _is_led(self, members: ReplicaSet, without: str, deadline: float) -> bool:
        """Whether a set has a primary that is not on a host. Waits for an election while a majority is there to hold it."""
        others = [node for node in members.members if self.placed[node.name] != without]
        majority = min(len(members.members), membership.MOST_VOTERS) // 2 + 1
        told = False
        while True:
            connection = self._primary([(self.current, node) for node in others])
            if connection is not None:
                connection.close()
                return True
            if sum(map(self._is_there, others)) < majority or time.monotonic() >= deadline:
                return False
            if not told:
                self.say(f"{members.name}: has no primary yet; waiting for its election")
                told = True
            time.sleep(_LOOK_SECONDS)

    def _is_there(self, node: Node) -> bool:
        with contextlib.suppress(NotReachable, CommandFailed):
            self.current.dial(node, _DIAL_SECONDS).close()
            return True
        return False

    @staticmethod
    def _primary(askable: Sequence[tuple[Deployment, Node]]) -> Connection | None:
        """A connection to whichever of some nodes is primary; None: none is."""
        found = membership.find_primary(
            (node, functools.partial(deployment.dial, node, _DIAL_SECONDS))
            for deployment, node in askable
            if not node.arbiter
        )
        return found[1] if found else None


def _vote(primary: Connection, address: str) -> bool | None:
    """A set has seven votes at most. One that joined as the eighth gets the vote of the member that left."""
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    entry = next(each for each in config["members"] if each["host"] == address)
    voters = sum(each.get("votes", 1) for each in config["members"])
    if entry.get("votes", 1) or voters >= membership.MOST_VOTERS:
        return True
    return membership.give_vote(primary, address, 1)


def _copied(there: Deployment, node: Node) -> int:
    """How many bytes a new member has copied; 0: it does not say.

    https://www.mongodb.com/docs/manual/reference/command/replSetGetStatus/#mongodb-data-replSetGetStatus.initialSyncStatus
    """
    try:
        with there.dial(node, _DIAL_SECONDS) as connection:
            status = connection.command("admin", {"replSetGetStatus": 1})
    except (NotReachable, CommandFailed):
        return 0
    return int(status.get("initialSyncStatus", {}).get("approxTotalBytesCopied", 0))


def _backend(deployment: Deployment) -> Hosts:
    return cast("Hosts", deployment.backend)
