"""A run's servers: the first worker that needs one starts it, the others connect to it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.dataclass import dataclass
from provision.testing import databases
from provision.testing.request import Request
from provision.testing.run import Run

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

    from provision.deployments.deployment import Deployment
    from provision.testing.processes import Binaries
    from provision.testing.templates import Copy, Fill, Template

_RESET_SECONDS = 30
_TEMPLATES = 8
"""At most so many databases of templates are kept for tests to come."""
_CLOSE_SECONDS = 2
Logs = Callable[[datetime], Mapping[str, list[str]]]
"""The moment from which on they are of interest → node → its raw log lines; lines from before may be among them."""


@dataclass(frozen=True)
class Found:
    """A server that takes writes."""

    uri: str = field(repr=False)  # its connection string, with password and without a database
    logs: Logs  # reads its nodes' logs
    deployment: Deployment | None = None  # of nodes that are processes; None: of others
    ours: bool = True  # it was started for this run and ends with it


@dataclass
class _Pooled:
    """A template and the database that tests have had of it, one after the other."""

    template: Template
    copy: Copy | None  # None: the next test gets a new one

    def brought_back(self) -> Copy | None:
        """The database as a test wants it; None: there is none, or it can't be brought back."""
        import pymongo
        from pymongo.errors import PyMongoError

        if self.copy is None:
            return None
        try:
            with pymongo.timeout(_RESET_SECONDS):
                self.copy.reset()
        except PyMongoError:  # a transaction that a test has left open holds it, or its primary is gone
            return None
        return self.copy


@dataclass(frozen=True)
class Server:
    """What the fixtures `mongodb`, `replica_set` and `sharded_cluster` give a test.

    All tests of a run share it: take a database of your own (`database`, or `new_database`), and leave its nodes
    alone.
    """

    # its connection string, without a database. It holds a password where there is one.
    uri: str = field(repr=False)
    client: MongoClient[dict[str, Any]] = field(repr=False)  # a PyMongo client connected to it
    version: str  # MongoDB's version: ``"8.0.17"``
    # ``standalone``, ``replica-set`` or ``sharded``: what clients see. A single mongod is a replica set
    # of one member unless something else was asked for.
    topology: str
    request: Request = field(repr=False)  # what was asked for
    # its nodes, where they are processes of this run; None: in a container, or at a given URI
    deployment: Deployment | None = field(repr=False)
    ready: datetime = field(repr=False)  # when this process had it
    _run: Run = field(repr=False)
    _found: Found = field(repr=False)
    _ended: dict[str, float] = field(repr=False, default_factory=dict)
    """Each database that this process has made → when its test was over, on the monotonic clock; inf: not yet."""
    _kept: set[str] = field(repr=False, default_factory=set)
    _pooled: dict[Fill, _Pooled] = field(repr=False, default_factory=dict)

    def uri_for(self, database: str) -> str:
        """The connection string with a default database."""
        return databases.uri_with(self.uri, database)

    @contextlib.contextmanager
    def new_database(self) -> Iterator[Database[dict[str, Any]]]:
        """A fresh, uniquely named database, dropped at the end of the block."""
        database = self.client[databases.new_name(self._run.id)]
        self._ended[database.name] = math.inf
        try:
            yield database
        finally:
            try:
                if database.name not in self._kept:
                    databases.drop(database, self.topology == "sharded", abandon=self._found.ours)
            finally:
                self._ended[database.name] = time.monotonic()

    @contextlib.contextmanager
    def template_database(self, fill: Fill) -> Iterator[Database[dict[str, Any]]]:
        """A database that holds what `fill` puts into an empty one; for one test at a time.

        `fill` is called once in this process. Its database stays for the next test, and is brought back when that
        begins.
        """
        copy = self._copy_of(fill)
        name = copy.database.name
        self._ended[name] = math.inf
        try:
            yield copy.database
        finally:
            self._ended[name] = time.monotonic()
            if name in self._kept and fill in self._pooled:
                self._pooled[fill].copy = None

    def keep(self, database: str) -> Path:
        """Let a test's database stay after the test and the run.

        Returns: A file of the user's with its connection string, which may hold a password.
        """
        self._kept.add(database)
        return self._run.keep(database, self.uri_for(database))

    def _copy_of(self, fill: Fill) -> Copy:
        from provision.testing.templates import Copy, Template

        sharded = self.topology == "sharded"
        pooled = self._pooled.pop(fill, None)
        copy = pooled.brought_back() if pooled is not None else None
        if copy is None:
            database = self.client[databases.new_name(self._run.id)]
            if pooled is None:
                fill(database)
                pooled = _Pooled(Template.of(database, sharded), None)
                copy = Copy(database, pooled.template, sharded)
                copy.adopt()
            else:
                copy = Copy(database, pooled.template, sharded)
                copy.build()
            pooled.copy = copy
        if pooled is not None:
            self._pooled[fill] = pooled  # the last one is the last to go
        self._forget_templates(_TEMPLATES)
        return copy

    def _forget_templates(self, kept: int) -> None:
        for fill in [*self._pooled][: max(0, len(self._pooled) - kept)]:
            copy = self._pooled.pop(fill).copy
            if copy is not None:
                databases.drop(copy.database, self.topology == "sharded", abandon=self._found.ours)

    def databases_since(self, moment: float) -> frozenset[str]:
        """The databases of this process's tests that were there at a moment, or have been made since.

        The moment is in seconds of the monotonic clock.
        """
        return frozenset(name for name, ended in self._ended.items() if ended >= moment)

    def end(self, last: bool) -> None:
        """Drop the templates' databases where the server stays after the run; `last`: no worker needs it any more."""
        from pymongo.errors import PyMongoError

        if not (last and self._found.ours):
            with contextlib.suppress(PyMongoError):  # the run drops what is left
                self._forget_templates(0)

    def logs(self, since: datetime) -> Mapping[str, list[str]]:
        """Each node's raw log lines, from a moment on; lines from before it may be among them."""
        return self._found.logs(since)


class Servers:
    """The servers that this process has asked for.

    `run`: the run that uses them.
    `binaries`: finds mongod.
    `home`: the run they belong to, and end with, if that is another one.
    """

    def __init__(self, run: Run, binaries: Binaries, home: Run | None = None) -> None:
        self._run = run
        self._home = home
        self._binaries = binaries
        self._known: dict[str, Server] = {}

    @property
    def known(self) -> tuple[Server, ...]:
        """Those that were asked for so far."""
        return tuple(self._known.values())

    def get(self, request: Request) -> Server:
        """The run's server of that kind, started now if nobody has.

        Raises ProvisionError: there is none, and none can be downloaded.
        """
        if request.key not in self._known:
            with (self._home or self._run).starting(request.key) as folder:
                found = self._obtain(request, folder)
                server = self._connect(request, found)
                if self._home is not None:
                    from provision.testing import reuse

                    reuse.drop_abandoned(server.client, self._home)
            self._known[request.key] = server
        return self._known[request.key]

    def close(self, end: bool) -> None:
        """Close the clients.

        With `end`, end the nodes that this process has started, too; else they stay for the other workers.
        """
        import pymongo

        for server in self._known.values():
            server.end(end)
            # It ends its sessions on the server, and would wait half a minute for one that a test has ended.
            with pymongo.timeout(_CLOSE_SECONDS):
                server.client.close()
            if end and server.deployment is not None:
                for node in server.deployment.topology.nodes:
                    server.deployment.backend.kill(node)
        self._known.clear()

    def _obtain(self, request: Request, folder: Path) -> Found:
        # pymongo is imported by each of them while the server starts.
        if request.kind == "processes":
            from provision.testing import processes

            found = processes.obtain(request, folder, self._home or self._run, self._binaries)
            return replace(found, ours=self._home is None)
        if request.kind == "container":
            from provision.testing import container

            return container.obtain(request, folder, self._run)
        from provision.testing import existing

        return existing.obtain(request, folder, self._run)

    def _connect(self, request: Request, found: Found) -> Server:
        from pymongo import MongoClient

        client: MongoClient[dict[str, Any]] = MongoClient(found.uri, appname="pytest")
        hello = client.admin.command("hello")
        kind = (
            "sharded"
            if hello.get("msg") == "isdbgrid"
            else "replica-set"
            if "setName" in hello
            else "standalone"
        )
        version = str(client.server_info()["version"])
        ready = datetime.now(UTC)
        return Server(found.uri, client, version, kind, request, found.deployment, ready, self._run, found)
