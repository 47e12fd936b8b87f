"""Brings a topology up on a back end, reads its status, takes it down."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from provision.backends.base import Backend
from provision.errors import ProvisionError
from provision.files import read_json, write_json
from provision.locks import exclusive
from provision.mongodb import replica_set as replication
from provision.mongodb.topology import Node, Topology
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from provision.paths import Paths

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
        uri: the connection string, proved by a majority write.
        timings: what was reached when.
    """

    deployment: str
    started: tuple[str, ...]
    uri: str
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class NodeStatus:
    """One node as `status` shows it.

    Args:
        name: its name.
        role: ``standalone`` or ``member``.
        state: MongoDB's name for its state (``PRIMARY``, …), ``DOWN``, or ``UNREACHABLE`` for a process that runs but
            does not answer.
        pid: its process id, None when it is down.
        port: its port.
    """

    name: str
    role: str
    state: str
    pid: int | None
    port: int


@dataclass(frozen=True)
class Status:
    """A deployment as `status` shows it; the shape of ``invoke status --json``.

    Args:
        deployment: its name.
        state: ``running`` (takes writes), ``degraded`` (some nodes run, or none takes writes), ``stopped``.
        uri: its connection string, whatever its state.
        version: MongoDB's version; None while nothing runs.
        nodes: every node.
    """

    deployment: str
    state: str
    uri: str
    version: str | None
    nodes: tuple[NodeStatus, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Deployment:
    """A topology on a back end.

    Args:
        topology: what it consists of.
        backend: what its nodes run on.
        paths: where its records are.
        template: text of ``mongod.conf.j2``.
        start_timeout: seconds until `up` gives up.
    """

    def __init__(
        self, topology: Topology, backend: Backend, paths: Paths, template: str, start_timeout: float = 60.0
    ) -> None:
        self.topology = topology
        self.backend = backend
        self._paths = paths
        self._template = template
        self._start_timeout = start_timeout

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

    def uri(self, database: str = "") -> str:
        """The connection string for programs on this machine."""
        return self.topology.uri(database)

    def is_running(self) -> bool:
        """Whether every node's process runs."""
        return all(self.backend.observe(node).running for node in self.topology.nodes)

    def render(self, node: Node) -> str:
        """The text of a node's configuration.

        Raises:
            ProvisionError: the template can't be rendered.
        """
        from provision.mongodb.config import render

        return render(node, self.backend.layout(node), self._template)

    def drifted(self) -> dict[str, str]:
        """Which nodes' configuration on disk is not what would be rendered now; changes nothing.

        Returns:
            Node name → why: ``"is missing"``, ``"was edited by hand"``, ``"is older than the settings"``.

        Raises:
            ProvisionError: the template can't be rendered.
        """
        before = read_json(self._rendered) or {}
        drifted = {}
        for node in self.topology.nodes:
            recipe, present = self._recipe(node), self._present(node)
            recorded = before.get(node.name)
            if recorded == [recipe, present] or present == _digest(self.render(node)):
                continue
            if not present:
                drifted[node.name] = "is missing"
            elif recorded is not None and recorded[1] != present:
                drifted[node.name] = "was edited by hand"
            else:
                drifted[node.name] = "is older than the template or the settings"
        return drifted

    def configure(self) -> list[str]:
        """Render what has changed since it was last rendered. A file edited by hand is kept as ``.edited``.

        Returns:
            Names of the nodes whose configuration was written.

        Raises:
            ProvisionError: the template can't be rendered.
        """
        before = read_json(self._rendered) or {}
        record, written = {}, []
        for node in self.topology.nodes:
            recipe, present = self._recipe(node), self._present(node)
            recorded = before.get(node.name)
            if recorded != [recipe, present]:
                text = self.render(node)
                path = self._paths.node_conf(self.name, node.name)
                if present not in ("", _digest(text), recorded[1] if recorded else ""):
                    path.replace(path.with_name(path.name + ".edited"))
                if self.backend.configure(node, text):
                    written.append(node.name)
                present = _digest(text)
            record[node.name] = [recipe, present]
        if record != before:
            write_json(self._rendered, record)
        return written

    @property
    def _rendered(self) -> Path:
        return self._paths.deployment(self.name) / "rendered.json"

    def _recipe(self, node: Node) -> str:
        """Digest of all that a node's configuration is made from: no rendering is needed to see that it is current."""
        return _digest(f"{self._template}\0{node!r}\0{self.backend.layout(node)!r}")

    def _present(self, node: Node) -> str:
        try:
            return _digest(self._paths.node_conf(self.name, node.name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return ""

    def up(self, say: Callable[[str], None] = lambda _: None) -> Up:
        """Start what is not running, and return when a majority write was acknowledged.

        Args:
            say: told what is being waited for.

        Raises:
            ProvisionError: naming the node at fault, with its last log lines.
        """
        begun = time.monotonic()
        timings: list[Timing] = []

        def reached(what: str) -> None:
            timings.append(Timing(what, time.monotonic() - begun))

        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"starting {self.name}", say):
            self.configure()
            nodes = self.topology.nodes
            missing = tuple(node.name for node in nodes if not self.backend.observe(node).running)
            try:
                if missing:
                    say(f"Starting {self.name} ({', '.join(missing)})")
                    self.backend.launch(nodes)
                    reached("processes started")
                self._bring_up(reached)
            except BaseException:
                # What this call started and could not bring up is not left half-started.
                self.backend.terminate([node for node in nodes if node.name in missing], _STOP_SECONDS)
                raise
        return Up(self.name, missing, self.uri(), tuple(timings))

    def down(self, say: Callable[[str], None] = lambda _: None) -> tuple[str, ...]:
        """Stop every node that runs. Data stay.

        Returns:
            Names of the nodes that were stopped.
        """
        with exclusive(self._paths.lock(f"deployment-{self.name}"), f"stopping {self.name}", say):
            running = [node for node in self.topology.nodes if self.backend.observe(node).running]
            if running:
                say(f"Stopping {self.name} ({', '.join(node.name for node in running)})")
            self.backend.terminate(self.topology.nodes, _STOP_SECONDS)
        return tuple(node.name for node in running)

    def status(self) -> Status:
        """Read the state of every node; changes nothing."""
        nodes, version = [], None
        for node in self.topology.nodes:
            observed = self.backend.observe(node)
            state = "DOWN"
            if observed.running:
                try:
                    with self._dial(node, 1.0) as connection:
                        state = replication.state(connection.command("admin", {"hello": 1}))
                        version = version or str(connection.command("admin", {"buildInfo": 1})["version"])
                except (NotReachable, CommandFailed):
                    state = "UNREACHABLE"
            nodes.append(NodeStatus(node.name, node.role.value, state, observed.pid, node.port))
        return Status(self.name, _overall(nodes), self.uri(), version, tuple(nodes))

    def log(self, node: Node, lines: int, follow: bool) -> Iterator[str]:
        """A node's raw log lines.

        Args:
            node: whose.
            lines: how many of the last ones.
            follow: go on with each new one.
        """
        return self.backend.follow_log(node, lines) if follow else iter(self.backend.log_tail(node, lines))

    def _bring_up(self, reached: Callable[[str], None]) -> None:
        for node in self.topology.standalones:
            wait = self._wait([node])
            with replication.listening(node, self._dial, wait) as connection:
                reached(f"{node.name} listens")
                replication.prove_writable(connection, None, wait)
        for each in self.topology.replica_sets:
            wait = self._wait(each.members)
            with replication.bring_up(each, self._dial, wait) as connection:
                reached(f"{each.name} has a primary")
                replication.prove_writable(connection, each, wait)
        reached("majority write acknowledged")

    def _dial(self, node: Node, timeout: float = 10.0) -> Connection:
        host, port = self.backend.address(node)
        return Connection(host, port, timeout)

    def _wait(self, nodes: Sequence[Node]) -> Wait:
        def check_alive() -> None:
            for node in nodes:
                observed = self.backend.observe(node)
                if not observed.running:
                    raise self._death(node, observed.exit_status)

        return Wait(
            time.monotonic() + self._start_timeout,
            self._start_timeout,
            check_alive,
            lambda: self._telling_lines(nodes[0]),
        )

    def _telling_lines(self, node: Node) -> list[str]:
        from provision.mongodb.logs import why_it_died

        return why_it_died(self.backend.log_tail(node, _LOG_LINES))

    def _death(self, node: Node, status: int | None) -> ProvisionError:
        from provision.mongodb.diagnosis import explain_death

        cause, remedy = explain_death(
            status, self.backend.log_tail(node, _LOG_LINES), self.backend.layout(node)
        )
        return ProvisionError(
            f"starting mongod {node.name} of {self.name} on port {node.port}",
            cause,
            remedy,
            self._telling_lines(node),
        )


def _overall(nodes: Sequence[NodeStatus]) -> str:
    if all(node.state == "DOWN" for node in nodes):
        return "stopped"
    takes_writes = any(node.state in ("PRIMARY", "STANDALONE") for node in nodes)
    healthy = all(node.state in ("PRIMARY", "SECONDARY", "STANDALONE", "ARBITER") for node in nodes)
    return "running" if takes_writes and healthy else "degraded"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
