"""Listens, gives each client a thread, and stops at once when told to."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

from . import wire
from .cluster import Cluster, CommandError, Unreachable
from .commands import VERSION, CloseClient, Router, Session
from .log import Log
from .options import Options

WATCH_SECONDS = 2.0  # between looks at which members the shards have


class Server:
    """One router: listening sockets and client threads, bounded by the options' ``max_connections``."""

    def __init__(self, options: Options, log: Log) -> None:
        self.options = options
        self.log = log
        self.router = Router(Cluster(options), log, self._shut_down)
        self._listeners: list[socket.socket] = []
        self._tls = options.tls.server_context()
        # The interpreter itself writes to this pipe when a signal arrives. A handler in Python would not run while
        # the main thread sleeps in a system call that the signal came just too early to interrupt.
        self._told_to_stop, self._tell_to_stop = os.pipe()
        os.set_blocking(self._tell_to_stop, False)
        self._places = threading.BoundedSemaphore(options.max_connections)
        self._lock = threading.Lock()

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT. Returns the exit status: 0, or 48 when an address is taken."""
        signal.set_wakeup_fd(self._tell_to_stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.log("CONTROL", 4615611, "MongoDB starting", pid=os.getpid(), port=self.options.port,
                 host=socket.gethostname(), standin=True)  # fmt: skip
        self.log("CONTROL", 23403, "Build Info", buildInfo={"version": VERSION})
        if self.options.ignored:
            self.log(
                "CONTROL", 1, "Options without effect in this stand-in", "W", options=self.options.ignored
            )
        if self.options.pid_file:
            self.options.pid_file.write_text(f"{os.getpid()}\n")
        self._await_config_servers()
        try:
            if not self._stop_within(0):
                self._listen()
        except OSError as error:
            self.log("CONTROL", 20568, "Error setting up listener", "E",
                     error=f"SocketException: Address already in use: {error}")  # fmt: skip
            return 48
        threading.Thread(target=self._watch, name="replica-set-monitor", daemon=True).start()
        self._stop_within(None)
        self._clean_up()
        return 0

    def _watch(self) -> None:
        while not self._stop_within(WATCH_SECONDS):
            with suppress(CommandError, Unreachable):  # next time, then
                self.router.cluster.note_members()

    def _stop_within(self, seconds: float | None) -> bool:
        """Waits for the order to stop, at most `seconds` (None: as long as it takes); True if it came."""
        return bool(select.select([self._told_to_stop], [], [], seconds)[0])

    def _await_config_servers(self) -> None:
        reason = ""
        while not self._stop_within(0.05):
            try:
                self.router.start()
                return
            except (CommandError, Unreachable) as error:
                if str(error) != reason:
                    reason = str(error)
                    self.log("SHARDING", 22739, "Waiting for the config servers", "W", error=reason)

    def _listen(self) -> None:
        for address in self.options.bind:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, self.options.port))
            self._serve(listener, address)
        if path := self._socket_file():
            with suppress(FileNotFoundError):
                path.unlink()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(path))
            path.chmod(0o700)
            self._serve(listener, str(path))
        self.log(
            "NETWORK",
            23016,
            "Waiting for connections",
            port=self.options.port,
            ssl="on" if self._tls else "off",
        )

    def _socket_file(self) -> Path | None:
        folder = self.options.unix_socket_dir
        return folder / f"mongodb-{self.options.port}.sock" if folder else None

    def _serve(self, listener: socket.socket, address: str) -> None:
        listener.listen(128)
        self._listeners.append(listener)
        self.log("NETWORK", 23015, "Listening on", address=address)
        threading.Thread(target=self._accept, args=(listener,), name="listener", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, peer = listener.accept()
            except OSError:
                return  # closed by the clean-up
            if not self._places.acquire(blocking=False):
                self.log(
                    "NETWORK", 22942, "Connection refused because there are too many open connections", "W"
                )
                client.close()
                continue
            counters = self.router.counters
            with self._lock:
                counters.created += 1
                counters.current += 1
            session = Session(counters.created)
            remote = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and peer else "local"
            threading.Thread(
                target=self._client, args=(client, remote, session), name=f"conn{session.number}", daemon=True
            ).start()

    def _client(self, client: socket.socket, remote: str, session: Session) -> None:
        self.log("NETWORK", 22943, "Connection accepted", remote=remote, connectionId=session.number)
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client = self._encrypted(client)
            while True:
                command = wire.parse_command(*wire.read_message(client))
                reply = self.router.answer(session, command)
                if not command.silent:
                    client.sendall(wire.encode_reply(command, reply))
        except (EOFError, CloseClient):
            pass
        except (OSError, wire.ProtocolError) as error:
            self.log(
                "NETWORK",
                22989,
                "Error reading from or writing to the client",
                remote=remote,
                error=str(error),
            )
        finally:
            client.close()
            session.close()
            with self._lock:
                self.router.counters.current -= 1
            self._places.release()
            self.log("NETWORK", 22944, "Connection ended", remote=remote, connectionId=session.number)

    def _encrypted(self, client: socket.socket) -> socket.socket:
        if self._tls is None:
            return client
        client.settimeout(10)
        greets_with_tls = client.recv(1, socket.MSG_PEEK) == b"\x16"
        if not greets_with_tls and self.options.tls.mode == "requireTLS":
            raise ssl.SSLError("The server is configured to only allow SSL connections")
        if greets_with_tls:
            client = self._tls.wrap_socket(client, server_side=True)
        client.settimeout(None)
        return client

    def _shut_down(self) -> None:
        os.write(self._tell_to_stop, b"\0")

    def _clean_up(self) -> None:
        started = time.monotonic()
        for listener in self._listeners:
            listener.close()
        for path in (self._socket_file() if self._listeners else None, self.options.pid_file):
            if path is not None:
                path.unlink(missing_ok=True)
        self.log(
            "CONTROL", 23138, "Shutting down", exitCode=0, millis=int((time.monotonic() - started) * 1000)
        )
