"""`invoke tunnel`: ports of this machine that lead through SSH to a node, and to the app, of a deployment on hosts.

A connection to such a port becomes a channel of the SSH connection to the host (``direct-tcpip``), which connects
there to loopback. Those who may open it are those who may log in on the host, and are on this machine.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from provision.app.deploy import rollout
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments import assembly, cluster, on_hosts
from provision.deployments.deployment import Deployment
from provision.hosts.backend import Hosts
from provision.hosts.link import HostError, Link, Unreachable, end_input
from provision.mongodb.topology import LOOPBACK, Node
from provision.settings.loading import Loaded

_BEAT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
# MongoDB holds an election ten seconds after a primary was last heard of, and a router may have to be started.
_OTHER_SECONDS = 30.0
_ELECTED_SECONDS = 15.0
_LOOK_SECONDS = 0.5
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Opened:
    """What a tunnel leads to; its fields are what ``--json`` prints.

    Args:
        host: the host that it is on.
        port: the port of this machine that leads to it.
        uri: the connection string to use here, with the user's password.
        app: address of the app here; None: it is not deployed, or does not run.
    """

    deployment: str
    node: str
    host: str
    port: int
    uri: str
    app: str | None


class Forward:
    """A port of this machine, on loopback, whose connections are made on a host, on its loopback.

    Use it as a context manager.

    `target`: port there.
    `port`: port here; 0: a free one.
    """

    def __init__(self, link: Link, target: int, port: int = 0) -> None:
        self._link = link
        self._target = target
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        try:
            self._listener = socket.create_server((LOOPBACK, port))
        except OSError as problem:
            raise ProvisionError(
                f"opening a tunnel to {link.host.name}",
                f"Port {port} of this machine can't be opened: {problem.strerror}.",
                "Choose another one with --port, or none: then a free one is taken.",
            ) from None
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name=f"tunnel-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # A thread that waits in `accept` is woken by this, and not by closing alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            self._hang_up()
        self._thread.join()

    def lead(self, link: Link, target: int) -> None:
        """Lead somewhere else from now on. Connections that are open are closed: clients make new ones."""
        with self._guard:
            self._link, self._target = link, target
            self._hang_up()

    def _hang_up(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, address), daemon=True).start()

    def _serve(self, client: socket.socket, address: tuple[str, int]) -> None:
        with self._guard:
            self._open.add(client)
            link, target = self._link, self._target
        try:
            # Where the host does not answer, or nothing listens there, the client is told by the closed connection.
            with (
                client,
                contextlib.suppress(HostError, OSError, EOFError),
                contextlib.closing(link.channel_to((LOOPBACK, target), address)) as channel,
            ):
                _pump(client, channel)
        finally:
            with self._guard:
                self._open.discard(client)


def _pump(client: socket.socket, channel: Any) -> None:
    """Copy both ways until both have said all, or either is gone. One thread each way: neither waits for the other."""

    def send() -> None:
        with contextlib.suppress(OSError, EOFError):
            while part := client.recv(_CHUNK_BYTES):
                channel.sendall(part)
            end_input(channel)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        while part := channel.recv(_CHUNK_BYTES):
            client.sendall(part)
        client.shutdown(socket.SHUT_WR)
    finally:
        if channel.closed or not channel.get_transport().is_active():
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        sender.join()


def hold(
    loaded: Loaded,
    on: str,
    node: str = "",
    port: int = 0,
    user: str = "app",
    opened: Callable[[Opened], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    over: threading.Event | None = None,
) -> None:
    """Open a tunnel to a deployment on hosts, and hold it until it is interrupted.

    It follows the primary, or goes on to another router, unless a node was named. An SSH connection that was lost is opened
    again. Connections through it are lost each time, and clients make new ones.

    Without a node it leads to a router, or to the primary; port 0 takes a free one; `user` is ``app`` or
    ``root``.
    """
    doing = f"opening a tunnel to {on}"
    deployment = assembly.deployment(loaded, on)
    hosts = on_hosts.backend_of(deployment)
    if hosts is None:
        raise ProvisionError(
            doing,
            f"Its nodes are on this machine (its back end is {deployment.backend.name}), and need none.",
            f"Type: invoke uri --on {on} --user {user}",
        )
    over = over or threading.Event()
    with contextlib.closing(hosts) as backend, contextlib.ExitStack() as stack:
        chosen = deployment.node(node) if node else _best(deployment, doing)
        if not backend.observe(chosen).running:
            raise cluster.not_running(deployment, doing)
        host = backend.placement[chosen.name]
        link = backend.links[host]
        forward = stack.enter_context(Forward(link, chosen.port, port))
        # Asked once, so that an sshd that forwards nothing is named here.
        link.channel_to((LOOPBACK, chosen.port), (LOOPBACK, 0)).close()
        serving = rollout.running_on(loaded, on)
        apps: list[Link] = []
        app = None
        if serving is not None:
            if serving.host not in backend.links:
                apps.extend(stack.enter_context(on_hosts.links(loaded, [serving.host])).values())
            else:
                apps.append(backend.links[serving.host])
            app = stack.enter_context(Forward(apps[0], serving.port))
        opened(
            Opened(
                on,
                chosen.name,
                host,
                forward.port,
                _uri(loaded, deployment, chosen, forward.port, user),
                f"http://{LOOPBACK}:{app.port}/" if app else None,
            )
        )
        course = _Course(deployment, backend, forward, chosen, over, say)
        while not over.wait(_BEAT_SECONDS):
            for each in apps:
                course.check(each)
            course.keep(follow=not node)


def _best(deployment: Deployment, doing: str) -> Node:
    """A router that runs; of a replica set, its primary. While it runs and has none, that is waited for."""
    deadline = time.monotonic() + _ELECTED_SECONDS
    while (found := _candidate(deployment)) is None:
        if time.monotonic() > deadline or not deployment.running(deployment.topology.seeds):
            raise cluster.not_running(deployment, doing)
        time.sleep(_LOOK_SECONDS)
    return found


def _candidate(deployment: Deployment) -> Node | None:
    """A router that runs; of a replica set, its primary; None: there is none now."""
    if not deployment.topology.routers:
        return deployment.primary(seconds=1.0)
    return next(iter(deployment.running(deployment.topology.routers)), None)


def _uri(loaded: Loaded, deployment: Deployment, node: Node, port: int, user: str) -> str:
    secrets = deployment.secrets()
    if secrets is not None and user not in ("app", "root"):
        raise ProvisionError(
            f"opening a tunnel to {deployment.name}",
            f"There is no user {user!r}.",
            "Type --user app or --user root.",
        )
    authority = assembly.authority(loaded, deployment.name, loaded.deployment(deployment.name))
    return deployment.topology.uri(
        loaded.settings.app.database,
        credentials=secrets.user(user) if secrets else None,
        addresses={node.name: f"{LOOPBACK}:{port}"},
        direct=node,
        tls_ca=str(authority.trusted) if authority else None,
    )


@dataclass
class _Course:
    """Where a tunnel leads, from one look to the next."""

    deployment: Deployment
    backend: Hosts
    forward: Forward  # the port here
    node: Node  # the node that it leads to
    over: threading.Event  # ends the tunnel when it is set
    say: Callable[[str], None]  # told what happens

    def check(self, link: Link) -> None:
        """See that a host is there; one that was lost gets a second chance."""
        try:
            link.run(["true"], timeout=_ANSWER_SECONDS)
        except Unreachable as lost:
            self.say(f"{lost.cause} Connecting again")
            link.run(["true"], timeout=_ANSWER_SECONDS)
            self.say(f"Connected to {link.host.name} again")

    def keep(self, follow: bool) -> None:
        """See that the tunnel leads to where it should."""
        try:
            self.check(self.backend.links[self.backend.placement[self.node.name]])
        except Unreachable as lost:
            if not follow:
                raise
            self.say(f"{lost.cause} Looking for another node of {self.deployment.name}")
            found = self._another()
            if found is None:
                if not self.over.is_set():
                    raise
                return
            self._lead(found)
        else:
            found = self._better() if follow else None
            if found is not None:
                self._lead(found)

    def _better(self) -> Node | None:
        """The node that it should lead to now; None: where it does, or nobody can say."""
        if self.deployment.topology.routers and self.backend.observe(self.node).running:
            return None
        found = _candidate(self.deployment)
        return None if found == self.node else found

    def _another(self) -> Node | None:
        """Another node, once there is one to lead to."""
        deadline = time.monotonic() + _OTHER_SECONDS
        while time.monotonic() < deadline:
            found = _candidate(self.deployment)
            if found is not None and found != self.node:
                return found
            if self.over.wait(_LOOK_SECONDS):
                break
        return None

    def _lead(self, node: Node) -> None:
        host = self.backend.placement[node.name]
        self.node = node
        self.forward.lead(self.backend.links[host], node.port)
        self.say(f"Port {self.forward.port} leads to {node.name} on {host} now")
