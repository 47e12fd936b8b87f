"""Reads the deployment that an app is connected to, again and again while somebody looks.

One thread per app, started by the first who looks and ended a few seconds after the last one did, asks all nodes
at once and keeps the latest picture. So any number of viewers costs the deployment the same, and a node that
hangs delays nobody: what has not answered within :data:`ROUND_SECONDS` is shown as not answering, and is not asked
again before that question is over.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import pymongo
from flask import Flask, current_app
from pymongo import ReadPreference
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from flaskbook.database import EXTENSION as DATABASE_EXTENSION
from flaskbook.database import Connection
from flaskbook.topology.model import (
    Amount,
    ClusterReading,
    CollectionReading,
    DataReading,
    NodeReading,
    Picture,
    Reading,
    Trouble,
    addresses,
    is_sharded,
    picture,
)

EXTENSION = "flaskbook-topology"

# Together with the second between two questions of a page, a node that was killed shows within three.
ROUND_SECONDS = 1.0
PAUSE_SECONDS = 0.5
# One question to one node.
_NODE_MS = 800
# Counting is not waited for, and may take longer.
_DATA_SECONDS = 5.0
_DATA_EVERY_SECONDS = 1.0
# A page asks every second: a page that has not asked for this long has gone.
IDLE_SECONDS = 5.0
_MORE_ROUNDS_TO_LEARN = 2
_RATE_SECONDS = 3.0
# What was refused is asked again after this long: mongod logs each refusal.
REFUSED_SECONDS = 30.0
_MOST_COLLECTIONS = 50

_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = 18
_NO_SUCH_COLLECTION = 26
_SECTIONS_LEFT_OUT = (
    *(
        "metrics",
        "wiredTiger",
        "tcmalloc",
        "locks",
        "repl",
        "sharding",
        "transactions",
        "flowControl",
        "oplog",
    ),
    *("electionMetrics", "indexBulkBuilder", "indexStats", "shardingStatistics", "logicalSessionRecordCache"),
    *(
        "queryAnalyzers",
        "defaultRWConcern",
        "network",
        "security",
        "mirroredReads",
        "storageEngine",
        "tenantMigrations",
    ),
)

Client = pymongo.MongoClient[dict[str, Any]]


def init_app(app: Flask) -> None:
    """Give ``app`` its watcher. Nothing runs before somebody looks."""
    watcher = Watcher(app.extensions[DATABASE_EXTENSION], app.config["MONGODB_URI"])
    app.extensions[EXTENSION] = watcher
    weakref.finalize(app, watcher.close)


def current_picture() -> Picture:
    """Return the picture of the current app's deployment, at most about two seconds old."""
    watcher: Watcher = current_app.extensions[EXTENSION]
    return watcher.look()


class Watcher:
    """Watches one deployment while somebody looks.

    `connection`: the app's own.
    `uri`: its connection string, for connections to single nodes with the same credentials and TLS.
    """

    def __init__(self, connection: Connection, uri: str) -> None:
        self._connection = connection
        self._uri = uri
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._looked = 0.0
        self._closed = False
        self._latest: Picture | None = None

    def look(self) -> Picture:
        """Return the latest picture; the first one to look waits for one round."""
        with self._changed:
            self._looked = time.monotonic()
            if self._thread is None and not self._closed:
                self._latest = None
                self._thread = threading.Thread(target=self._watch, name="topology-watcher", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._latest is not None or self._closed, 4 * ROUND_SECONDS)
            return self._latest or picture(Reading(0.0, self._connection.database.name, (), {}))

    def close(self) -> None:
        """End watching, at the latest after the round that is going on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _watch(self) -> None:
        try:
            with contextlib.closing(_Rounds(self._connection, self._uri)) as rounds:
                self._publish_until_idle(rounds)
        except _EndingError:
            return
        finally:
            # Whatever ended it, the next one who looks starts another.
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _publish_until_idle(self, rounds: _Rounds) -> None:
        latest = rounds.next()
        # One round learns of the members that the next one asks: nobody is shown half a deployment.
        for _ in range(_MORE_ROUNDS_TO_LEARN):
            if rounds.has_asked_all:
                break
            latest = rounds.next()
        while True:
            with self._changed:
                self._latest = latest
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed, PAUSE_SECONDS)
                if self._closed or time.monotonic() - self._looked > IDLE_SECONDS:
                    self._thread = None
                    return
            latest = rounds.next()


class _EndingError(Exception):
    """The interpreter is ending, and starts no more threads."""


def _answer(asked: Future[Any], question: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        asked.set_result(question(*arguments))
    except BaseException as error:  # noqa: BLE001 (the reader of the answer raises it)
        asked.set_exception(error)


class _Rounds:
    """One stretch of watching: its threads, its connections, and what it has learnt so far."""

    def __init__(self, connection: Connection, uri: str) -> None:
        self._connection = connection
        self._uri = uri
        self._asked: dict[str, Future[Any]] = {}
        self._started: dict[str, float] = {}
        self._guard = threading.Lock()
        self._over = False
        self._clients: dict[str, Client] = {}
        self._without_credentials: set[str] = set()
        self._refused: dict[str, float] = {}
        self._nodes: dict[str, NodeReading] = {}
        self._cluster: ClusterReading | None = None
        self._data: DataReading | None = None
        self._history: deque[Reading] = deque()

    def close(self) -> None:
        """Close all connections; threads end as soon as their question is over."""
        with self._guard:
            self._over = True
            clients = list(self._clients.values())
        for client in clients:
            client.close()

    @property
    def has_asked_all(self) -> bool:
        """Whether every node that has been named was asked."""
        latest = self._reading()
        asked = all(address in latest.nodes for address in addresses(latest))
        return asked and (self._cluster is not None or not is_sharded(latest))

    def next(self) -> Picture:
        """Ask everybody, and return the picture that results."""
        latest = self._reading()
        wanted = addresses(latest)
        waited_for = [self._ask(address, 0.0, self._ask_node, address) for address in wanted]
        if is_sharded(latest):
            waited_for.append(self._ask("the cluster", _DATA_EVERY_SECONDS, self._ask_router))
        counting = self._ask("the data", _DATA_EVERY_SECONDS, self._count, is_sharded(latest))
        wait(waited_for, ROUND_SECONDS)
        for address in wanted:
            self._nodes[address] = self._outcome(address)
        cluster, counted = self._asked.get("the cluster"), counting
        # A router or a count that fails leaves what was known: the nodes' states say what is wrong.
        if cluster is not None and cluster.done() and cluster.exception() is None:
            self._cluster = cluster.result()
        if counted.done() and counted.exception() is None:
            self._data = counted.result()
        latest = self._reading()
        drawn = picture(latest, tuple(self._history))
        self._history.append(latest)
        while latest.at - self._history[0].at > _RATE_SECONDS:
            self._history.popleft()
        return drawn

    def _reading(self) -> Reading:
        known = self._connection.client.topology_description.server_descriptions()
        seeds = tuple(sorted(f"{host}:{port}" for host, port in known))
        return Reading(
            time.monotonic(),
            self._connection.database.name,
            seeds,
            dict(self._nodes),
            self._cluster,
            self._data,
        )

    def _ask(self, key: str, every: float, question: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Put a question in a thread of its own, unless the former one is still open or young."""
        now = time.monotonic()
        former = self._asked.get(key)
        if former is not None and (not former.done() or now - self._started[key] < every):
            return former
        self._started[key] = now
        # Threads that nobody waits for when the app ends, as for those of an executor: one may hang for seconds.
        asked = self._asked[key] = Future()
        thread = threading.Thread(
            target=_answer, args=(asked, question, arguments), name="topology-reader", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            raise _EndingError from None
        return self._asked[key]

    def _outcome(self, address: str) -> NodeReading:
        asked = self._asked[address]
        if asked.done():
            found: NodeReading = asked.result()
            return found
        former = self._nodes.get(address)
        return NodeReading(
            address, time.monotonic(), Trouble.NOT_REACHABLE, known=former.known if former else None
        )

    # One node

    def _ask_node(self, address: str) -> NodeReading:
        former = self._nodes.get(address)
        known = former.known if former else None
        host, _, port = address.rpartition(":")
        if known is None:
            try:
                socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            except OSError:
                return NodeReading(address, time.monotonic(), Trouble.NAME_UNKNOWN)
        try:
            hello = self._hello(address)
        except PyMongoError:
            return NodeReading(address, time.monotonic(), Trouble.NOT_REACHABLE, known=known)
        at = time.monotonic()
        status = counters = None
        if "setName" in hello:
            status = self._more(address, {"replSetGetStatus": 1})
        left_out = dict.fromkeys(_SECTIONS_LEFT_OUT, 0)
        if not hello.get("arbiterOnly"):
            counters = (self._more(address, {"serverStatus": 1, **left_out}) or {}).get("opcounters")
        refused = any(
            f"{address} {command}" in self._refused for command in ("replSetGetStatus", "serverStatus")
        )
        return NodeReading(address, at, None, hello, hello, status, counters, refused)

    def _hello(self, address: str) -> dict[str, Any]:
        try:
            return self._client(address).admin.command("hello")
        except OperationFailure as error:
            if error.code != _AUTHENTICATION_FAILED:
                raise
        # A shard doesn't know the cluster's users. It says hello to anybody.
        self._without_credentials.add(address)
        with self._guard:
            former = self._clients.pop(address, None)
        if former is not None:
            former.close()
        return self._client(address).admin.command("hello")

    def _more(self, address: str, command: dict[str, Any]) -> dict[str, Any] | None:
        """Run a command that needs rights, on one node; None: it can't be read now."""
        key = f"{address} {next(iter(command))}"
        if time.monotonic() - self._refused.get(key, -REFUSED_SECONDS) < REFUSED_SECONDS:
            return None
        try:
            answer = self._client(address).admin.command(command)
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED:
                self._refused[key] = time.monotonic()
            return None
        except PyMongoError:
            return None
        self._refused.pop(key, None)
        return answer

    def _client(self, address: str) -> Client:
        with self._guard:
            if self._over:
                raise ConfigurationError("nobody looks any more")
            found = self._clients.get(address)
            if found is None:
                options = {} if address in self._without_credentials else self._credentials()
                found = self._clients[address] = pymongo.MongoClient(
                    f"mongodb://{address}",
                    connect=False,
                    tz_aware=True,
                    directConnection=True,
                    appname="flaskbook topology",
                    timeoutMS=_NODE_MS,
                    serverSelectionTimeoutMS=_NODE_MS,
                    connectTimeoutMS=_NODE_MS,
                    retryReads=False,
                    serverMonitoringMode="poll",
                    **self._transport(),
                    **options,
                )
            return found

    def _credentials(self) -> dict[str, Any]:
        parsed = parse_uri(self._uri)
        options = self._named(parsed["options"], "auth")
        if parsed["username"] is None:
            return options
        source = (
            {} if "authsource" in {name.lower() for name in options} else {"authSource": parsed["database"]}
        )
        found = {"username": parsed["username"], "password": parsed["password"], **source, **options}
        return {name: value for name, value in found.items() if value is not None}

    def _transport(self) -> dict[str, Any]:
        return self._named(parse_uri(self._uri)["options"], "tls", "ssl", "compressors", "zlib")

    @staticmethod
    def _named(options: Any, *prefixes: str) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name.lower().startswith(prefixes)}

    # The cluster, through its routers

    def _ask_router(self) -> ClusterReading:
        admin = self._connection.client.admin
        if time.monotonic() - self._refused.get("the cluster", -REFUSED_SECONDS) < REFUSED_SECONDS:
            return self._cluster or ClusterReading(refused=True)
        try:
            shards = {each["_id"]: each["host"] for each in admin.command("listShards")["shards"]}
            config = admin.command("getShardMap")["map"].get("config", "")
            pools = admin.command("connPoolStats").get("replicaSets", {})
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            self._refused["the cluster"] = time.monotonic()
            return ClusterReading(refused=True)
        seen = {host["addr"]: host for each in pools.values() for host in each.get("hosts", ())}
        return ClusterReading(shards, config, seen)

    # The app's database

    def _count(self, sharded: bool) -> DataReading:
        with pymongo.timeout(_DATA_SECONDS):
            database = self._connection.database
            listed = database.command(
                {"listCollections": 1, "nameOnly": True, "authorizedCollections": True},
                read_preference=ReadPreference.PRIMARY_PREFERRED,
            )
            names = sorted(
                each["name"]
                for each in listed["cursor"]["firstBatch"]
                if each.get("type") == "collection" and not each["name"].startswith("system.")
            )[:_MOST_COLLECTIONS]
            chunks = self._chunks([f"{database.name}.{name}" for name in names]) if sharded else {}
            collections = []
            for name in names:
                counts = self._documents(name)
                held = None if chunks is None else chunks.get(f"{database.name}.{name}", {})
                places = sorted({*counts, *(held or ())})
                amounts = tuple(
                    Amount(shard, counts.get(shard, 0), held.get(shard, 0) if held else None)
                    for shard in places
                )
                collections.append(CollectionReading(name, None if held is None else bool(held), amounts))
        return DataReading(time.monotonic(), tuple(collections), refused=chunks is None)

    def _documents(self, name: str) -> dict[str, int]:
        collection = self._connection.database[name].with_options(
            read_preference=ReadPreference.PRIMARY_PREFERRED
        )
        try:
            found = list(collection.aggregate([{"$collStats": {"count": {}}}]))
        except OperationFailure as error:
            if error.code == _NO_SUCH_COLLECTION:
                return {}  # dropped since it was listed
            raise
        return {each.get("shard", ""): int(each.get("count", 0)) for each in found}

    def _chunks(self, namespaces: list[str]) -> dict[str, dict[str, int]] | None:
        """Chunks per shard by namespace; None: we may not see them.

        https://www.mongodb.com/docs/manual/reference/config-database/
        """
        if time.monotonic() - self._refused.get("the chunks", -REFUSED_SECONDS) < REFUSED_SECONDS:
            return None
        config = self._connection.client.config
        try:
            # Aggregations throughout: the server counts a find among the operations that the page shows.
            listed = {
                each["uuid"]: each["_id"]
                for each in config.collections.aggregate(
                    [
                        {"$match": {"_id": {"$in": namespaces}, "unsplittable": {"$ne": True}}},
                        {"$project": {"uuid": 1}},
                    ]
                )
            }
            grouped = config.chunks.aggregate(
                [
                    {"$match": {"uuid": {"$in": list(listed)}}},
                    {"$group": {"_id": {"uuid": "$uuid", "shard": "$shard"}, "chunks": {"$sum": 1}}},
                ]
            )
            found: dict[str, dict[str, int]] = {}
            for each in grouped:
                found.setdefault(listed[each["_id"]["uuid"]], {})[each["_id"]["shard"]] = each["chunks"]
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            self._refused["the chunks"] = time.monotonic()
            return None
        return found
