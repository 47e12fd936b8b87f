"""Connections to the cluster's members, their replica sets, and what the config servers say about data.

A replica set's primary is found by asking its members, and asked for again whenever one fails: a failover is waited
out for a bounded time, as mongos does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument

from . import wire
from .options import Options, parse_address

Address = tuple[str, int]

CONNECT_SECONDS = 2.0
# mongos's defaultFindReplicaSetHostTimeoutMS.
FIND_PRIMARY_SECONDS = 15.0
# Errors that say "not I, and nothing was done": a command may be sent again after them, whatever it is.
NOT_DONE = frozenset({10107, 13435})  # NotWritablePrimary, NotPrimaryNoSecondaryOk
# Errors of a member that stops or steps down: what it was doing is unknown, so only reads are sent again.
INTERRUPTED = frozenset({91, 189, 11600, 11602, 10058})
HOST_UNREACHABLE = 6


class CommandError(Exception):
    """A command failed; `reply` is the error document as a server would send it."""

    def __init__(self, code: int, code_name: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.code = code
        self.reply: dict[str, Any] = {
            "ok": 0.0,
            "errmsg": message,
            "code": code,
            "codeName": code_name,
            **extra,
        }

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> CommandError:
        """Returns the error in a server's reply, every field of it kept."""
        error = cls(
            int(reply.get("code", 1)),
            str(reply.get("codeName", "InternalError")),
            str(reply.get("errmsg", "")),
        )
        error.reply = {name: value for name, value in reply.items() if not name.startswith("$")}
        return error


class Unreachable(Exception):
    """A member can't be reached, or the connection broke. `sent`: it may have got, and carried out, the command."""

    def __init__(self, address: Address, reason: object, *, sent: bool) -> None:
        super().__init__(f"{address[0]}:{address[1]}: {reason}")
        self.sent = sent


class Connection:
    """One connection to one member, logged in as the cluster itself if the cluster authenticates.

    Args:
        address: ("host", port).
        options: how to encrypt and authenticate.
        login: False leaves the connection anonymous, for a client's own log-in to be relayed on.
    Raises:
        Unreachable: nothing listens there, or the member refuses the log-in.
    """

    _salted: dict[tuple[bytes, int], bytes] = {}  # noqa: RUF012  (shared on purpose: 15,000 rounds of HMAC each)

    def __init__(self, address: Address, options: Options, *, login: bool = True) -> None:
        self.address = address
        try:
            plain = socket.create_connection(address, timeout=CONNECT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _notice_dead_peers(plain)
            context = options.tls.client_context()
            self.socket = context.wrap_socket(plain, server_hostname=address[0]) if context else plain
            self.socket.settimeout(None)
        except OSError as error:
            raise Unreachable(address, error, sent=False) from error
        if login and options.authenticates:
            try:
                self._log_in(options)
            except (CommandError, Unreachable) as error:
                self.close()
                raise Unreachable(address, f"log-in failed: {error}", sent=False) from error

    def call(self, fields: Mapping[str, Any], sequences: Iterable[tuple[str, bytes]] = ()) -> bytes:
        """Sends a command and returns the encoded reply. Raises Unreachable."""
        message = wire.encode_msg(fields, sequences)
        try:
            self.socket.sendall(message)
            _, opcode, payload = wire.read_message(self.socket)
            return wire.reply_body(opcode, payload)
        except (OSError, EOFError, wire.ProtocolError) as error:
            raise Unreachable(self.address, error or "connection closed", sent=True) from error

    def run(self, database: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a command and returns the decoded reply. Raises Unreachable, CommandError."""
        reply = bson.decode(self.call({**fields, "$db": database}), wire.PLAIN)
        if not reply.get("ok"):
            raise CommandError.of(reply)
        return reply

    def is_stale(self) -> bool:
        """True if the peer closed an idle connection: a server never speaks first."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        return bool(readable)

    def close(self) -> None:
        """Closes the connection; never fails."""
        with suppress(OSError):
            self.socket.close()

    def _log_in(self, options: Options) -> None:
        if options.x509:
            self.run("$external", {"authenticate": 1, "mechanism": "MONGODB-X509"})
            return
        nonce = base64.b64encode(secrets.token_bytes(24)).decode()
        first = f"n=__system,r={nonce}"
        start = self.run(
            "local", {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": f"n,,{first}".encode(),
                      "options": {"skipEmptyExchange": True}}
        )  # fmt: skip
        challenge = bytes(start["payload"]).decode()
        parts = dict(part.split("=", 1) for part in challenge.split(","))
        salt, rounds = base64.b64decode(parts["s"]), int(parts["i"])
        if not parts["r"].startswith(nonce):
            raise CommandError(18, "AuthenticationFailed", "the server answered with another nonce")
        salted = self._salted.get((salt, rounds))
        if salted is None:
            salted = hashlib.pbkdf2_hmac("sha256", str(options.key).encode(), salt, rounds)
            self._salted[(salt, rounds)] = salted
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        last = f"c=biws,r={parts['r']}"
        message = f"{first},{challenge},{last}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        payload = f"{last},p={base64.b64encode(proof).decode()}".encode()
        end = self.run(
            "local", {"saslContinue": 1, "conversationId": start["conversationId"], "payload": payload}
        )
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        expected = base64.b64encode(hmac.digest(server_key, message, "sha256")).decode()
        if bytes(end["payload"]).decode() != f"v={expected}":
            raise CommandError(18, "AuthenticationFailed", "the server does not know the key")


def _notice_dead_peers(connection: socket.socket) -> None:
    """Lets a read end within some ten seconds when the peer's network is cut, which sends no reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 4),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 10_000),
    ):
        if option := getattr(socket, name, None):  # macOS lacks some of them
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Pool:
    """Idle connections by member. A connection is used by one thread at a time and given back after success only."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._idle: dict[Address, deque[Connection]] = {}

    @contextmanager
    def borrow(self, address: Address) -> Iterator[Connection]:
        """Yields a connection to `address`. Raises Unreachable."""
        connection = self._take(address)
        try:
            yield connection
        except Unreachable:
            connection.close()
            self.forget(address)
            raise
        except CommandError:
            self._give_back(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def forget(self, address: Address) -> None:
        """Closes the idle connections to a member that failed."""
        with self._lock:
            idle = self._idle.pop(address, deque())
        for connection in idle:
            connection.close()

    def _take(self, address: Address) -> Connection:
        while True:
            with self._lock:
                idle = self._idle.get(address)
                connection = idle.pop() if idle else None
            if connection is None:
                return Connection(address, self._options)
            if not connection.is_stale():
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            self._idle.setdefault(connection.address, deque()).append(connection)


class ReplicaSet:
    """A replica set and the member that is believed to be its primary."""

    def __init__(self, name: str, seeds: Iterable[Address], pool: Pool) -> None:
        self.name = name
        self._pool = pool
        self._lock = threading.Lock()
        self._members: tuple[Address, ...] = tuple(seeds)
        self._primary: Address | None = None

    def learn(self, seeds: Iterable[Address]) -> None:
        """Adds members that the config servers name."""
        with self._lock:
            self._members = tuple(dict.fromkeys((*self._members, *seeds)))

    def primary(self, seconds: float = FIND_PRIMARY_SECONDS) -> Address:
        """Returns the primary's address, waiting at most `seconds` for one. Raises CommandError (133)."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                known = self._primary
            if known is not None:
                return known
            found = self._ask_members()
            if found is not None:
                with self._lock:
                    self._primary = found
                return found
            if time.monotonic() >= deadline:
                raise CommandError(
                    133,
                    "FailedToSatisfyReadPreference",
                    f'Could not find host matching read preference {{ mode: "primary" }} for set {self.name}',
                )
            time.sleep(0.05)

    def failed(self, address: Address) -> None:
        """Says that `address` is not, or no more, the primary."""
        with self._lock:
            if self._primary == address:
                self._primary = None

    def hosts(self) -> list[str]:
        """Returns the data-bearing members, as the primary names them; none where nobody knows the primary."""
        try:
            with self._pool.borrow(self.primary(0)) as connection:
                hello = connection.run("admin", {"hello": 1})
        except (Unreachable, CommandError):
            return []
        return list(hello.get("hosts", ())) if hello.get("isWritablePrimary") else []

    def _ask_members(self) -> Address | None:
        asked: set[Address] = set()
        waiting = deque(self._members)
        while waiting:
            address = waiting.popleft()
            if address in asked:
                continue
            asked.add(address)
            try:
                with self._pool.borrow(address) as connection:
                    hello = connection.run("admin", {"hello": 1})
            except (Unreachable, CommandError):
                continue
            if hello.get("setName") != self.name:
                continue
            self.learn(parse_address(host) for host in hello.get("hosts", ()))
            if hello.get("isWritablePrimary"):
                return address
            if primary := hello.get("primary"):
                waiting.appendleft(parse_address(primary))
        return None


@dataclass(frozen=True)
class Shard:
    """A shard as config.shards describes it."""

    id: str
    host: str
    replica_set: ReplicaSet = field(compare=False)
    document: Mapping[str, Any] = field(compare=False)


class Cluster:
    """The sharded cluster behind the router."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.pool = Pool(options)
        self.config = ReplicaSet(options.config_set, options.config_seeds, self.pool)
        self._lock = threading.Lock()
        self._sets: dict[str, ReplicaSet] = {}
        self._shards: tuple[Shard, ...] = ()
        self._shards_read = float("-inf")

    # Sending

    def call(
        self,
        replica_set: ReplicaSet,
        fields: Mapping[str, Any],
        sequences: Iterable[tuple[str, bytes]] = (),
        *,
        read: bool = False,
        seconds: float = FIND_PRIMARY_SECONDS,
    ) -> tuple[Address, bytes]:
        """Runs a command on a set's primary, following a failover.

        Args:
            fields: the command, "$db" included.
            read: it changes nothing, so it is sent again even if it may have been carried out.
            seconds: how long a failover is waited for.
        Returns:
            the member that answered, and its encoded reply (which may be an error).
        Raises:
            CommandError: no primary in time, or the connection broke under a write (HostUnreachable, as mongos).
        """
        deadline = time.monotonic() + seconds
        while True:
            address = replica_set.primary(max(0.0, deadline - time.monotonic()))
            try:
                with self.pool.borrow(address) as connection:
                    body = connection.call(fields, sequences)
            except Unreachable as error:
                replica_set.failed(address)
                if (error.sent and not read) or time.monotonic() >= deadline:
                    raise CommandError(HOST_UNREACHABLE, "HostUnreachable", str(error)) from error
                continue
            code = _error_code(body)
            if code in NOT_DONE or (read and code in INTERRUPTED):
                replica_set.failed(address)
                if time.monotonic() < deadline:
                    time.sleep(0.02)  # a member that has just stepped down still names itself for a moment
                    continue
            elif code in INTERRUPTED:
                replica_set.failed(address)
            return address, body

    def run(
        self, replica_set: ReplicaSet, database: str, fields: Mapping[str, Any], *, read: bool = False
    ) -> dict[str, Any]:
        """Runs a command on a set's primary and returns the decoded reply. Raises CommandError."""
        _, body = self.call(replica_set, {**fields, "$db": database}, read=read)
        reply = bson.decode(body, wire.PLAIN)
        if not reply.get("ok"):
            raise CommandError.of(reply)
        return {
            name: value
            for name, value in reply.items()
            if not name.startswith("$") and name not in ("operationTime", "lastCommittedOpTime")
        }

    def run_on_config(self, fields: Mapping[str, Any], *, majority: bool = True) -> dict[str, Any]:
        """Runs an administrative command on the config servers, acknowledged by their majority."""
        concern = {"writeConcern": {"w": "majority", "wtimeout": 60_000}} if majority else {}
        return self.run(self.config, "admin", {**fields, **concern})

    # What the config servers know

    def find(self, collection: str, query: Mapping[str, Any], **more: Any) -> list[dict[str, Any]]:
        """Returns documents of a collection of the config database (all of them: batches are followed)."""
        command = {"find": collection, "filter": query, "readConcern": {"level": "majority"}, **more}
        cursor = self.run(self.config, "config", command, read=True)["cursor"]
        documents = list(cursor["firstBatch"])
        while cursor["id"]:
            cursor = self.run(self.config, "config", {"getMore": cursor["id"], "collection": collection})[
                "cursor"
            ]
            documents += cursor["nextBatch"]
        return documents

    def shards(self, *, fresh: bool = False) -> tuple[Shard, ...]:
        """Returns the shards in the order of their names; read again after a second, or at once if `fresh`."""
        with self._lock:
            if self._shards and not fresh and time.monotonic() - self._shards_read < 1:
                return self._shards
        documents = self.find("shards", {}, sort={"_id": 1})
        found = []
        with self._lock:
            for document in documents:
                name, _, hosts = str(document["host"]).partition("/")
                seeds = [parse_address(host) for host in hosts.split(",")]
                replica_set = self._sets.setdefault(name, ReplicaSet(name, seeds, self.pool))
                replica_set.learn(seeds)
                found.append(Shard(str(document["_id"]), str(document["host"]), replica_set, document))
            self._shards = tuple(found)
            self._shards_read = time.monotonic()
            return self._shards

    def note_members(self) -> None:
        """Writes down the members that a shard's set has by now: addShard named those of that moment.

        A router watches the sets, and keeps config.shards up to date; shards find each other by it.

        Raises:
            CommandError: the config servers have no primary, or refuse.
        """
        for shard in self.shards(fresh=True):
            hosts = shard.replica_set.hosts()
            present = shard.host.partition("/")[2].split(",")
            if hosts and set(hosts) != set(present):
                update = {
                    "q": {"_id": shard.id, "host": shard.host},
                    "u": {"$set": {"host": f"{shard.replica_set.name}/{','.join(hosts)}"}},
                }
                self.run(
                    self.config,
                    "config",
                    {"update": "shards", "updates": [update], "writeConcern": {"w": "majority"}},
                )

    def shard(self, identifier: str) -> Shard:
        """Returns a shard by name or by connection string. Raises CommandError (70)."""
        for shard in self.shards(fresh=True):
            if identifier in (shard.id, shard.host):
                return shard
        raise CommandError(70, "ShardNotFound", f"Shard {identifier} not found")

    def database(self, name: str) -> dict[str, Any] | None:
        """Returns what config.databases says of a database, None if there is none."""
        found = self.find("databases", {"_id": name})
        return found[0] if found else None

    def ensure_database(self, name: str) -> dict[str, Any]:
        """Returns what config.databases says of a database, creating it on a shard if there is none."""
        found = self.database(name)
        if found is None:
            self.run_on_config({"_configsvrCreateDatabase": name})
            found = self.database(name)
        if found is None:
            raise CommandError(26, "NamespaceNotFound", f"database {name} not found")
        return found

    def collection(self, namespace: str) -> dict[str, Any] | None:
        """Returns what config.collections says of a sharded collection, None if it is not sharded."""
        found = self.find("collections", {"_id": namespace})
        return found[0] if found else None

    def owners(self, namespace: str) -> dict[str, dict[str, Any]]:
        """Returns, for each shard that holds a part of a collection, the version to send along with commands.

        With the version a shard leaves out documents that it only still, or not yet, holds; without, it would
        answer for them. For an unsharded collection: its database's primary shard and no version; for a database
        that does not exist: nothing.
        """
        sharded = self.collection(namespace)
        if sharded is None:
            database = self.database(namespace.partition(".")[0])
            return {str(database["primary"]): {}} if database else {}
        latest: dict[str, Any] = {}
        for chunk in self.find("chunks", {"uuid": sharded["uuid"]}, projection={"shard": 1, "lastmod": 1}):
            shard = str(chunk["shard"])
            latest[shard] = max(latest.get(shard, chunk["lastmod"]), chunk["lastmod"])
        return {
            shard: {"shardVersion": {"e": sharded["lastmodEpoch"], "t": sharded["timestamp"], "v": version}}
            for shard, version in sorted(latest.items())
        }


def _error_code(body: bytes) -> int:
    """Returns the error code of an encoded reply, 0 for success."""
    reply = RawBSONDocument(body, DEFAULT_RAW_BSON_OPTIONS)
    return 0 if reply.get("ok") else int(reply.get("code", 1))
