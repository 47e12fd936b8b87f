"""`invoke tunnel`: ports of this machine that lead through SSH to a node, and to the app, of a deployment on hosts.

A connection to such a port becomes a channel of the SSH connection to the host (``direct-tcpip``), which connects
there to loopback. Whoever may open it is whoever may log in on the host, and is on this machine.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from provision import assembly, cluster
from provision.backends.hosts import Hosts
from provision.deployment import Deployment
from provision.errors import ProvisionError
from provision.hosts import deploy, operations
from provision.hosts.link import HostError, Link, Unreachable
from provision.mongodb.topology import LOOPBACK, Node
from provision.settings import Loaded

_BEAT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Opened:
    """What a tunnel leads to; its fields are what ``--json`` prints.

    Args:
        deployment: its name.
        node: the node.
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

    Args:
        link: to the host.
        target: port there.
        port: port here; 0: a free one.

    Raises:
        ProvisionError: the port is taken.
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
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._thread.join()

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
        try:
            # Where the host does not answer, or nothing listens there, the client is told by the closed connection.
            with (
                client,
                contextlib.suppress(HostError, OSError, EOFError),
                contextlib.closing(self._link.channel_to((LOOPBACK, self._target), address)) as channel,
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
            channel.shutdown_write()

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

    An SSH connection that was lost is opened again; connections through it are lost, and clients make new ones.

    Args:
        loaded: the settings in force.
        on: the deployment.
        node: the node to lead to; empty: a router, or the primary.
        port: of this machine; 0: a free one.
        user: ``app`` or ``root``: who the connection string is for.
        opened: told what it leads to.
        say: told when the connection was lost and opened again.
        over: ends it when it is set.

    Raises:
        ProvisionError: it is not on hosts or does not run, or a host does not answer any more.
    """
    doing = f"opening a tunnel to {on}"
    deployment = assembly.deployment(loaded, on)
    if not isinstance(deployment.backend, Hosts):
        raise ProvisionError(
            doing,
            f"Its nodes are on this machine (its back end is {deployment.backend.name}), and need none.",
            f"Type: invoke uri --on {on} --user {user}",
        )
    over = over or threading.Event()
    with contextlib.closing(deployment.backend) as backend, contextlib.ExitStack() as stack:
        chosen = deployment.node(node) if node else _best(deployment, doing)
        if not backend.observe(chosen).running:
            raise cluster.not_running(deployment, doing)
        host = backend.placement[chosen.name]
        links = {host: backend.links[host]}
        forward = stack.enter_context(Forward(links[host], chosen.port, port))
        # Asked once, so that an sshd that forwards nothing is named here.
        links[host].channel_to((LOOPBACK, chosen.port), (LOOPBACK, 0)).close()
        serving = deploy.running_on(loaded, on)
        app = None
        if serving is not None:
            if serving.host not in links:
                links |= stack.enter_context(operations.links(loaded, [serving.host]))
            app = stack.enter_context(Forward(links[serving.host], serving.port))
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
        _watch(list(links.values()), over, say)


def _best(deployment: Deployment, doing: str) -> Node:
    """A router that runs; of a replica set, its primary."""
    if deployment.topology.routers:
        found = next(
            (each for each in deployment.topology.routers if deployment.backend.observe(each).running), None
        )
    else:
        found = deployment.primary()
    if found is None:
        raise cluster.not_running(deployment, doing)
    return found


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


def _watch(links: list[Link], over: threading.Event, say: Callable[[str], None]) -> None:
    """Ask every host now and then whether it is there; one that was lost gets a second chance.

    Raises:
        Unreachable: it does not answer.
    """
    while not over.wait(_BEAT_SECONDS):
        for link in links:
            try:
                link.run(["true"], timeout=_ANSWER_SECONDS)
            except Unreachable as lost:
                say(f"{lost.cause} Connecting again")
                link.run(["true"], timeout=_ANSWER_SECONDS)
                say(f"Connected to {link.host.name} again")
