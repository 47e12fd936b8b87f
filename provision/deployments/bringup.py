"""From launched nodes to a deployment that takes writes, everything at once that can be.

All nodes start together. Each replica set is initiated with one member as soon as that member listens; routers are
usable as soon as the config servers have a primary; each shard is added as soon as it has one. After the first
acknowledged write the sets get their other members, one by one. The first failure ends it all, except that the cluster
refuses to shard a collection: the rest is brought up, and the refusal is the last word.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from provision.backends.base import Backend
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments.events import Event, Kind
from provision.deployments.identity import dial, dial_or_explain
from provision.mongodb import replica_set as replication
from provision.mongodb import users
from provision.mongodb.membership import LATER
from provision.mongodb.redial import Redialled
from provision.mongodb.sharding import ShardedCollection
from provision.mongodb.topology import Node, ReplicaSet, Topology
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable, Server

T = TypeVar("T")
_POLL_SECONDS = 0.05
_CHECKED_POLL_SECONDS = 0.005
# Ten nodes, with their waits side by side: 50 ms. Each try takes a tenth of what a faster one would save a lone node.
_POLL_SECONDS_PER_NODE = 0.005
_LEAST_POLL_SECONDS = 0.015


class NotSharded(ProvisionError):
    """The deployment is up, and has refused to shard some of its collections as the settings declare.

    Args:
        refusals: why, one for each collection.
    """

    def __init__(self, deployment: str, refusals: Sequence[ProvisionError]) -> None:
        remedies = dict.fromkeys(each.remedy for each in refusals)
        several = len(refusals) > 1
        super().__init__(
            f"sharding {len(refusals)} collections of {deployment}" if several else refusals[0].doing,
            "\n".join(f"{each.doing}: {each.cause}" if several else each.cause for each in refusals)
            + f"\n{deployment} is up and takes writes, and stays up.",
            "\n".join((*remedies, f"Then type: invoke start --on {deployment}")),
        )


class _CancelledError(Exception):
    """Another part has failed: this one stops waiting."""


@dataclass(frozen=True)
class Plan:
    """What a bring-up works on."""

    topology: Topology
    secrets: users.Secrets | None  # who to be, and the users to create; None: no authentication
    app_database: str  # the database on which the app's user has rights
    collections: tuple[ShardedCollection, ...]  # the collections to shard
    initiated: frozenset[str]  # names of the sets that are known to have been initiated before
    timeout: float  # seconds until it gives up


class _NodeEnded(ProvisionError):
    """A node ended in a way that another bring-up gets over."""

    def __init__(self, node: Node, death: ProvisionError) -> None:
        super().__init__(death.doing, death.cause, death.remedy, death.log_lines, death.code)
        self.node = node


class EndedMeanwhile(_NodeEnded):
    """It ran when the bring-up began: it was ending already, or somebody ended it."""


class Unfinished(_NodeEnded):
    """An earlier start of it was cut off as MongoDB made its data files. Nothing is in them."""


class BringUp:
    """One bring-up.

    Args:
        plan: what to work on.
        backend: launches and observes the nodes.
        telling_lines: a node → its last readable log lines.
        death: a node and its exit status → the error that explains it.
        reached: told what was reached, as it is reached.
        say: told what it waits for, where that takes long.
    """

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        telling_lines: Callable[[Node], list[str]],
        death: Callable[[Node, int | None], ProvisionError],
        reached: Callable[[Event], None],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._backend = backend
        self._telling_lines = telling_lines
        self._death = death
        self._reached = reached
        self._say = say
        self._cancelled = threading.Event()
        self._launched: Future[None] | None = None
        self._launching: frozenset[str] = frozenset()  # names of the nodes that it launches
        self._deadline = time.monotonic() + plan.timeout
        self._opened: list[Redialled] = []

    @property
    def launched(self) -> bool:
        """Whether the nodes were launched: from then on they may have become part of something."""
        future = self._launched
        return future is not None and future.done() and not future.cancelled() and future.exception() is None

    def run(self, nodes: Sequence[Node], until_healthy: bool) -> None:
        """Launch nodes and bring the whole topology up.

        Args:
            nodes: those to launch; the others run.
            until_healthy: return when every member is healthy; else when a majority write was acknowledged. Then
                members that the sets do not have yet are left for another bring-up to add.

        Raises:
            NotSharded: all else was done.
            EndedMeanwhile: a node ended that was not launched here.
            Unfinished: a node was launched on data that are not complete.
            ProvisionError: naming the node at fault.
        """
        topology = self._plan.topology
        self._launching = frozenset(node.name for node in nodes)
        workers = 2 * len(topology.all_sets) + len(topology.routers) + 2
        pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="bring-up")
        try:
            checked = threading.Event()
            self._launched = pool.submit(self._backend.launch, nodes, checked.set)
            import bson  # noqa: F401 — while the nodes start, so that the first answer is not waited for

            # Until the launch has seen that the ports are free, what answers there may be somebody else's mongod.
            while not checked.wait(_CHECKED_POLL_SECONDS) and not self._launched.done():
                continue
            if self._launched.done():
                self._launched.result()
            if not topology.is_sharded:
                # A lone set or mongod is brought up right here.
                self._bring_up_unsharded(until_healthy)
            else:
                self._bring_up_sharded(pool, until_healthy)
            self._launched.result()
        except BaseException:
            self._cancelled.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            # Also those that a part had not taken over yet when another part failed.
            for connection in self._opened:
                connection.close()

    def _bring_up_unsharded(self, until_healthy: bool) -> None:
        topology = self._plan.topology
        for node in topology.standalones:
            waiting = self._wait([node])
            with replication.steady(node, self.dial, waiting) as connection:
                self._reached(Event(Kind.LISTENS, node.name))
                replication.prove_writable(connection, None, waiting)
        for each in topology.replica_sets:
            with self._primary(each) as connection:
                waiting = self._wait(each.members)
                replication.prove_writable(connection, each, waiting)
                self._reached(Event(Kind.WRITABLE))
                if len(each.members) > 1 and until_healthy:
                    replication.complete(each, connection, self.dial, waiting)
                    replication.healthy(each, connection, self.dial, waiting)
                    replication.prove_writable(connection, each, waiting)
                    self._reached(Event(Kind.MEMBERS_HEALTHY, each.name))

    def _bring_up_sharded(self, pool: ThreadPoolExecutor, until_healthy: bool) -> None:
        from provision.mongodb import sharding

        topology = self._plan.topology
        assert topology.config is not None  # noqa: S101 — what makes it sharded
        primaries = {each.name: pool.submit(self._primary, each) for each in topology.all_sets}
        routers = [
            pool.submit(self._router, node, primaries[topology.config.name]) for node in topology.routers
        ]
        everything: list[Future[Any]] = [*primaries.values(), *routers]
        self._result(routers[0], everything)
        shards = [
            pool.submit(self._add_shard, each, primaries[each.name], topology.routers[0])
            for each in topology.replica_sets
        ]
        everything += shards
        for future in shards:
            self._result(future, everything)
        waiting = self._wait(topology.routers[:1])
        with replication.steady(topology.routers[0], self.dial, waiting) as router:
            refusals = []
            for collection in self._plan.collections:
                try:
                    if sharding.shard_collection(router, collection):
                        self._reached(Event(Kind.SHARDED, collection.namespace))
                except ProvisionError as refusal:
                    refusals.append(refusal)
            self._prove_through(router, waiting)
            self._reached(Event(Kind.WRITABLE_THROUGH_ROUTER))
            if until_healthy:
                # Not before: while members copy their set's data, a majority takes seconds to acknowledge anything.
                completions = [
                    pool.submit(self._complete, each, primaries[each.name]) for each in topology.all_sets
                ]
                everything += completions
                for future in (*routers, *completions):
                    self._result(future, everything)
                if any(len(each.members) > 1 for each in topology.all_sets):
                    self._prove_through(router, waiting)
                self._reached(Event(Kind.HEALTHY))
        if refusals:
            raise NotSharded(topology.name, refusals)

    def _primary(self, replica_set: ReplicaSet) -> Redialled:
        """Bring a set to its primary, and create the users there. `run` closes the connection, if nobody did."""
        waiting = self._wait(replica_set.members)
        initiated = replica_set.name in self._plan.initiated
        connection = replication.bring_up(replica_set, self.dial, waiting, initiated)
        self._opened.append(connection)
        self._reached(Event(Kind.HAS_PRIMARY, replica_set.name))
        if self._plan.secrets is not None:
            secrets = self._plan.secrets
            try:
                if not self._knows_root(replica_set):
                    users.ensure_users(connection, secrets, self._plan.app_database)
            except CommandFailed as refusal:
                raise ProvisionError(
                    f"creating the users of {replica_set.name}", str(refusal), "Look at `invoke logs`."
                ) from refusal
        return connection

    def _knows_root(self, replica_set: ReplicaSet) -> bool:
        """Whether the users are there with the passwords on record: a user who may log in was created."""
        assert self._plan.secrets is not None  # noqa: S101 — asked only with authentication
        if replica_set.name not in self._plan.initiated:
            return False
        for member in replica_set.members:
            try:
                for user in (self._plan.secrets.root, self._plan.secrets.app):
                    dial(self._backend, self._plan.secrets, member, 5.0, user).close()
                return True
            except NotReachable:
                continue
            except CommandFailed:
                return False
        return False

    def _complete(self, replica_set: ReplicaSet, primary: Future[Redialled]) -> None:
        waiting = self._wait(replica_set.members)
        with self._after(primary) as connection:
            replication.complete(replica_set, connection, self.dial, waiting)
            replication.healthy(replica_set, connection, self.dial, waiting)
        self._reached(Event(Kind.MEMBERS_HEALTHY, replica_set.name))

    def _router(self, node: Node, config_primary: Future[Redialled]) -> None:
        self._after(config_primary)  # the users are there
        replication.listening(node, self.dial, self._wait([node])).close()
        self._reached(Event(Kind.LISTENS, node.name))

    def _add_shard(self, shard: ReplicaSet, primary: Future[Redialled], router: Node) -> None:
        from provision.mongodb import sharding

        self._after(primary)
        waiting = self._wait([router, *shard.members])
        with replication.steady(router, self.dial, waiting) as connection:
            if sharding.add_shard(connection, shard, waiting):
                self._reached(Event(Kind.ADDED, shard.name))

    def _prove_through(self, router: Server, waiting: Wait) -> None:
        """Write one document through the router, and wait for the majority.

        It stays where it is, in a database of the tool's own: to make and drop a collection takes a cluster longer than
        all else that is asked of it here.
        """
        write = {
            "update": "writable",
            "updates": [{"q": {"_id": "writable"}, "u": {"$inc": {"times": 1}}, "upsert": True}],
            "writeConcern": {"w": "majority", "wtimeout": 10_000},
        }

        def attempt() -> bool | None:
            try:
                router.command("provision", write)
            except CommandFailed as refusal:
                if refusal.code in LATER:
                    return None
                raise ProvisionError(
                    "proving that the cluster takes writes",
                    str(refusal),
                    "Look at `invoke logs`.",
                    waiting.log_tail(),
                ) from refusal
            return True

        waiting.until("a majority write through the router", attempt)

    def dial(self, node: Node, timeout: float = 10.0) -> Connection:
        """Connect to a node that is starting, as the user who may do there what bring-up needs."""
        return dial_or_explain(self._backend, self._plan.secrets, node, timeout)

    def _after(self, future: Future[T]) -> T:
        """Another part's result; gives up when that will not come any more."""
        while True:
            try:
                return future.result(_POLL_SECONDS)
            except TimeoutError:
                self._check_cancelled()

    def _result(self, future: Future[T], everything: Sequence[Future[Any]]) -> T:
        """A part's result; whichever part fails first ends the wait."""
        while not future.done():
            done, _ = wait(everything, _POLL_SECONDS, FIRST_EXCEPTION)
            self._raise_first(done)
        self._raise_first([future])
        return future.result()

    def _raise_first(self, futures: Any) -> None:
        for each in futures:
            if (
                each.done()
                and (error := each.exception()) is not None
                and not isinstance(error, _CancelledError)
            ):
                raise error

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise _CancelledError

    def _wait(self, nodes: Sequence[Node]) -> Wait:
        def check_alive() -> None:
            self._check_cancelled()
            if self._launched is not None:
                if not self._launched.done():
                    return
                self._launched.result()
            found = self._backend.observe_all(nodes)
            for node in nodes:
                # Of a node that nobody can look at, nothing is known that would be worth waiting for.
                if (unknown := found[node.name].unknown) is not None:
                    raise unknown
                if found[node.name].ended:
                    death = self._death(node, found[node.name].exit_status)
                    raise death if node.name in self._launching else EndedMeanwhile(node, death)

        tail = functools.partial(self._telling_lines, nodes[0])
        poll = max(_LEAST_POLL_SECONDS, _POLL_SECONDS_PER_NODE * len(self._plan.topology.nodes))
        return Wait(self._deadline, self._plan.timeout, check_alive, tail, poll, self._say)
