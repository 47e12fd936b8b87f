"""Brings a topology up on a back end, reads its status, takes it down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision import status as reading
from provision.backends.base import Backend
from provision.bringup import BringUp, Plan, dial
from provision.errors import ProvisionError
from provision.files import read_json, write_json
from provision.locks import exclusive
from provision.mongodb import users
from provision.mongodb.sharding import ShardedCollection
from provision.mongodb.topology import Node, Topology
from provision.mongodb.wire import Connection, Credentials
from provision.paths import Paths
from provision.rendering import Rendering
from provision.status import Status

_STOP_SECONDS = 30.0
_LOG_LINES = 400


@dataclass(frozen=True)
class Timing:
    """When something was reached, in seconds after `up` began."""

    what: str
    seconds: float


@dataclass(frozen=True)
class Up:
    """What `up` did.

    Args:
        deployment: its name.
        started: names of the nodes that it started; empty: all were running.
        uri: the connection string without a password, proved by a majority write.
        timings: what was reached when.
        notices: what was found and left as it is.
    """

    deployment: str
    started: tuple[str, ...]
    uri: str
    timings: tuple[Timing, ...]
    notices: tuple[str, ...] = ()


class Deployment:
    """A topology on a back end.

    Args:
        topology: what it consists of.
        backend: what its nodes run on.
        paths: where its records are.
        template: text of ``mongod.conf.j2``.
        start_timeout: seconds until `up` gives up.
        auth: it has a key file and users.
        app_database: the database on which the app's user has rights.
        collections: the collections that `up` shards.
    """

    def __init__(
        self,
        topology: Topology,
        backend: Backend,
        paths: Paths,
        template: str,
        start_timeout: float = 60.0,
        *,
        auth: bool = False,
        app_database: str = "flaskbook",
        collections: tuple[ShardedCollection, ...] = (),
    ) -> None:
        self.topology = topology
        self.backend = backend
        self.rendering = Rendering(topology, backend, paths, template)
        self._paths = paths
        self._start_timeout = start_timeout
        self._auth = auth
        self._app_database = app_database
        self._collections = collections

    @property
    def name(self) -> str:
        return self.topology.name

    def node(self, name: str = "") -> Node:
        """The node of that name; with no name, the first.

        Raises:
            ProvisionError: there is none.
        """
        nodes = {node.name: node for node in self.topology.nodes}
        if not name:
            return self.topology.nodes[0]
        if name not in nodes:
            raise ProvisionError(
                f"looking up node {name!r} of {self.name}",
                f"Its nodes are {', '.join(nodes)}.",
                "Name one of them.",
            )
        return nodes[name]

    def secrets(self) -> users.Secrets | None:
        """Its secrets; None where it has no authentication, or was never up."""
        return users.existing(self._paths, self.name) if self._auth else None

    def uri(
        self,
        database: str = "",
        *,
        user: str | None = None,
        audience: str = "host",
        direct: Node | None = None,
    ) -> str:
        """A connection string.

        Args:
            database: the default database; empty: none.
            user: ``app`` or ``root``, with its password; None: nobody.
            audience: ``host``: programs on this machine; ``container``: containers in its network.
            direct: this node alone.

        Raises:
            ProvisionError: it has users, and was never up.
        """
        credentials: Credentials | None = None
        if self._auth and user is not None:
            secrets = self.secrets()
            if secrets is None:
                raise ProvisionError(
                    f"looking up the password of {user} on {self.name}",
                    "Its users are created when it is first up.",
                    f"Type `invoke start --on {self.name}` first.",
                )
            credentials = secrets.user(user)
        seeds = (direct,) if direct else self.topology.seeds
        addresses = None
        if audience == "host" and not self.backend.advertised_names_resolve(seeds):
            addresses = {node.name: "{}:{}".format(*self.backend.address(node)) for node in seeds}
            if not self.topology.is_sharded and direct is None:
                # The driver would go on to names that this machine can't resolve.
                direct = self._primary() or seeds[0]
        return self.topology.uri(database, credentials=credentials, addresses=addresses, direct=direct)

    def is_running(self) -> bool:
        """Whether every node's process runs."""
        return all(self.backend.observe(node).running for node in self.topology.nodes)

    def prepare(self) -> list[str]:
        """Render configuration and generate secrets, where that was not done; starts nothing.

        Returns:
            Names of the nodes whose configuration was written.
        """
        if self._auth:
            users.ensure(self._paths, self.name)
        return self.rendering.write()

    def up(
        self,
        say: Callable[[str], None] = lambda _: None,
        reached: Callable[[str], None] = lambda _: None,
        until_healthy: bool = True,
    ) -> Up:
        """Start what is not running, and return when the whole is healthy and a majority write was acknowledged.

        Args:
            say: told what is going on.
            reached: told what has been reached, from any thread.
            until_healthy: False: return as soon as a majority write was acknowledged.

        Raises:
            ProvisionError: naming the node at fault, with its last log lines.
        """
        begun = time.monotonic()
        timings: list[Timing] = []
        guard = threading.Lock()

        def note(what: str) -> None:
            with guard:
                timings.append(Timing(what, time.monotonic() - begun))
                reached(what)

        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"starting {self.name}", say):
            self.prepare()
            nodes = self.topology.nodes
            missing = [node for node in nodes if not self.backend.observe(node).running]
            if missing:
                say(f"Starting {self.name} ({_names(missing)})")
            plan = Plan(
                self.topology,
                self.secrets(),
                self._app_database,
                self._collections,
                frozenset(self._initiated()),
                self._start_timeout,
            )
            try:
                BringUp(plan, self.backend, self._telling_lines, self._death, note).run(
                    missing, until_healthy
                )
            except BaseException:
                self._undo(missing)
                raise
            self._remember_initiated()
        return Up(
            self.name,
            tuple(node.name for node in missing),
            self.uri(),
            tuple(sorted(timings, key=lambda each: each.seconds)),
            tuple(self._notices()),
        )

    def down(
        self,
        say: Callable[[str], None] = lambda _: None,
        *,
        remove: bool = False,
        delete_data: bool = False,
    ) -> tuple[str, ...]:
        """Stop every node that runs. Data stay, unless they are to be deleted.

        Args:
            say: told what is going on.
            remove: remove what the nodes ran in, too (containers and their network).
            delete_data: delete their data; implies `remove`.

        Returns:
            Names of the nodes that were stopped.
        """
        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"stopping {self.name}", say):
            running = [node for node in self.topology.nodes if self.backend.observe(node).running]
            if running:
                say(f"Stopping {self.name} ({_names(running)})")
            self.backend.terminate(self.topology.nodes, _STOP_SECONDS)
            if remove or delete_data:
                self.backend.remove(self.topology.nodes, delete_data)
            if delete_data:
                self._initiated_record.unlink(missing_ok=True)
        return tuple(node.name for node in running)

    def start_node(self, node: Node) -> None:
        """Start one node and leave the rest of the deployment as it is.

        Raises:
            ProvisionError: it can't be launched.
        """
        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"starting {node.name}"):
            self.prepare()
            self.backend.launch([node])

    def stop_node(self, node: Node) -> None:
        """Stop one node as its operator would (SIGTERM)."""
        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"stopping {node.name}"):
            self.backend.terminate([node], _STOP_SECONDS)

    def kill_node(self, node: Node) -> None:
        """End one node as a crash would (SIGKILL)."""
        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"killing {node.name}"):
            self.backend.kill(node)

    def status(self) -> Status:
        """Read the state of every node; changes nothing."""
        return reading.read(self.topology, self.backend, self.dial, self.uri())

    def dial(self, node: Node, timeout: float = 10.0) -> Connection:
        """A direct connection to a node, as whoever may manage it.

        Raises:
            NotReachable: it does not answer.
            CommandFailed: it refused the credentials.
        """
        return dial(self.backend, self.secrets(), node, timeout)

    def log(self, node: Node, lines: int, follow: bool) -> Iterator[str]:
        """A node's raw log lines.

        Args:
            node: whose.
            lines: how many of the last ones.
            follow: go on with each new one.
        """
        return self.backend.follow_log(node, lines) if follow else iter(self.backend.log_tail(node, lines))

    def _undo(self, started: Sequence[Node]) -> None:
        """What a failed `up` started is not left half-started."""
        self.backend.terminate(started, _STOP_SECONDS)
        if len(started) == len(self.topology.nodes):
            self.backend.remove(started, data=False)

    def _primary(self) -> Node | None:
        from provision.mongodb.wire import CommandFailed, NotReachable

        for node in self.topology.seeds:
            try:
                with self.dial(node, 1.0) as connection:
                    if connection.command("admin", {"hello": 1}).get("isWritablePrimary"):
                        return node
            except (NotReachable, CommandFailed):
                continue
        return None

    @property
    def _initiated_record(self) -> Path:
        return self._paths.initiated_record(self.name)

    def _initiated(self) -> list[str]:
        return list((read_json(self._initiated_record) or {}).get("replica_sets", ()))

    def _remember_initiated(self) -> None:
        names = sorted({*self._initiated(), *(each.name for each in self.topology.all_sets)})
        if names != self._initiated():
            write_json(self._initiated_record, {"replica_sets": names})

    def _notices(self) -> Iterator[str]:
        """Where the deployment is larger than its settings: `up` never takes members or shards away."""
        from provision.mongodb import sharding
        from provision.mongodb.wire import CommandFailed, NotReachable

        if not self.topology.is_sharded:
            return
        planned = {each.name for each in self.topology.replica_sets}
        try:
            with self.dial(self.topology.routers[0]) as router:
                present = {str(each["_id"]) for each in sharding.shards(router)}
        except (NotReachable, CommandFailed):
            return
        for extra in sorted(present - planned):
            yield (
                f"{extra} is a shard of the cluster and not in the settings. It was left as it is: "
                f"`invoke cluster.remove-shard {extra} --on {self.name}` drains and removes it."
            )

    def _telling_lines(self, node: Node) -> list[str]:
        from provision.mongodb.logs import why_it_died

        return why_it_died(self.backend.log_tail(node, _LOG_LINES))

    def _death(self, node: Node, status: int | None) -> ProvisionError:
        from provision.mongodb.diagnosis import explain_death

        log = self.backend.log_tail(node, _LOG_LINES)
        cause, remedy = explain_death(status, log, self.backend.layout(node))
        kind = "mongos" if node.is_router else "mongod"
        return ProvisionError(
            f"starting {kind} {node.name} of {self.name} on port {node.port}",
            cause,
            remedy,
            self._telling_lines(node),
        )


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)
