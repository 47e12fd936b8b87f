"""What the router answers: each command it knows, in the shape mongos gives it.

Three kinds: answered here (``hello``, ``serverStatus``), relayed to the config servers (users, everything in the
databases admin and config, sharding commands under their internal names) and sent to shards (data).
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
from bson.int64 import Int64
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument

from . import accepts
from . import privileges as rights
from .cluster import Address, Cluster, CommandError, Connection, Shard, Unreachable
from .log import Log
from .wire import PLAIN, Command

VERSION = os.environ.get("ROUTER_STANDIN_VERSION", "6.0.5")
NOTE = "router stand-in for tests"

# Fields of a client's request that mean nothing, or something else, between a router and a shard. A shard's router
# commands must carry no session: mongod 6.0.5 aborts on their transaction number. The cluster time that a client
# knows came through this router from a shard, signed for members of the cluster only.
NOT_FORWARDED = frozenset(
    {"lsid", "txnNumber", "autocommit", "startTransaction", "$db", "$clusterTime",
     "apiVersion", "apiStrict", "apiDeprecationErrors"}
)  # fmt: skip
AT_ROUTER = {"insert": "clusterInsert", "update": "clusterUpdate", "delete": "clusterDelete",
             "find": "clusterFind", "aggregate": "clusterAggregate", "getMore": "clusterGetMore"}  # fmt: skip
STALE = frozenset({13388, 63, 150, 249})  # StaleConfig, StaleShardVersion, StaleEpoch, StaleDbVersion
MAX_CURSORS = 10_000

# Commands that live on the config servers whatever database they are sent to: users and roles.
USER_COMMANDS = frozenset(
    {
        "createUser", "updateUser", "dropUser", "dropAllUsersFromDatabase", "usersInfo", "grantRolesToUser",
        "revokeRolesFromUser", "createRole", "updateRole", "dropRole", "dropAllRolesFromDatabase", "rolesInfo",
        "grantPrivilegesToRole", "revokePrivilegesFromRole", "grantRolesToRole", "revokeRolesFromRole",
        "invalidateUserCache",
    }
)  # fmt: skip
# Relayed to the config servers as they are.
CONFIG_COMMANDS = frozenset(
    {"setFeatureCompatibilityVersion", "getDefaultRWConcern", "setDefaultRWConcern", "getClusterParameter",
     "find", "aggregate", "count", "distinct", "insert", "update", "delete", "findAndModify", "findandmodify",
     "getMore", "killCursors", "listCollections", "listIndexes", "collStats", "collstats", "dbStats", "dbstats",
     "createIndexes", "create", "dropIndexes", "currentOp", "killOp", "fsync", "replSetGetConfig"}
)  # fmt: skip


class CloseClient(Exception):
    """The client's connection must be closed: its log-in was bound to a connection that broke."""


@dataclass
class Session:
    """One client's connection.

    Attributes:
        number: connection id.
        relay: its own connection to the config servers' primary, which carries its log-in.
        privileges: what it may do, None before a log-in.
    """

    number: int
    relay: Connection | None = None
    privileges: rights.Privileges | None = None

    def close(self) -> None:
        """Closes what the session holds."""
        if self.relay is not None:
            self.relay.close()
            self.relay = None


@dataclass
class Counters:
    """What ``serverStatus`` counts."""

    started: float = field(default_factory=time.monotonic)
    current: int = 0
    created: int = 0
    operations: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("insert", "query", "update", "delete", "getmore", "command"), 0
        )
    )


class Router:
    """Answers commands on behalf of a cluster.

    Args:
        cluster: where data and administration go.
        log: for events worth a line.
        stop: called by the command ``shutdown``.
    """

    def __init__(self, cluster: Cluster, log: Log, stop: Callable[[], None]) -> None:
        self.cluster = cluster
        self.log = log
        self.stop = stop
        self.counters = Counters()
        self._lock = threading.Lock()
        # Cursor → the shard member that holds it, and the command that continues it there.
        self._cursors: OrderedDict[int, tuple[Address, str]] = OrderedDict()
        self._max_wire_version = 17
        self._handlers: dict[str, Callable[[Session, Command], Mapping[str, Any] | bytes]] = self._table()

    def _table(self) -> dict[str, Callable[[Session, Command], Mapping[str, Any] | bytes]]:
        table: dict[str, Callable[[Session, Command], Mapping[str, Any] | bytes]] = {
            "hello": self._hello, "isMaster": self._hello, "ismaster": self._hello,
            "ping": self._ok, "endSessions": self._ok, "flushRouterConfig": self._flush, "logRotate": self._ok,
            "isdbgrid": self._is_dbgrid, "buildInfo": self._build_info, "buildinfo": self._build_info,
            "whatsmyuri": self._whats_my_uri, "listCommands": self._list_commands,
            "serverStatus": self._server_status, "hostInfo": self._host_info, "getLog": self._get_log,
            "getCmdLineOpts": self._command_line, "getParameter": self._get_parameter,
            "connPoolStats": self._pool_stats, "shutdown": self._shutdown,
            "saslStart": self._sasl, "saslContinue": self._sasl, "authenticate": self._authenticate,
            "logout": self._logout, "connectionStatus": self._connection_status,
            "listShards": self._list_shards, "getShardMap": self._shard_map,
            "addShard": self._config("_configsvrAddShard", reply=lambda got: {"shardAdded": got["shardAdded"]}),
            "removeShard": self._config("_configsvrRemoveShard"),
            "addShardToZone": self._config("_configsvrAddShardToZone"),
            "removeShardFromZone": self._config("_configsvrRemoveShardFromZone"),
            "updateZoneKeyRange": self._config("_configsvrUpdateZoneKeyRange"),
            "balancerStart": self._config("_configsvrBalancerStart", majority=False),
            "balancerStop": self._config("_configsvrBalancerStop", majority=False),
            "balancerStatus": self._config("_configsvrBalancerStatus", majority=False),
            "balancerCollectionStatus": self._config("_configsvrBalancerCollectionStatus", majority=False),
            "enableSharding": self._enable_sharding, "shardCollection": self._shard_collection,
            "moveChunk": self._move_chunk, "moveRange": self._move_chunk, "split": self._split,
            "movePrimary": self._move_primary,
            "listDatabases": self._list_databases, "listCollections": self._list_collections,
            "listIndexes": self._list_indexes, "create": self._create, "drop": self._drop,
            "dropDatabase": self._drop_database, "renameCollection": self._rename,
            "createIndexes": self._create_indexes, "dropIndexes": self._drop_indexes, "collMod": self._coll_mod,
            "collStats": self._coll_stats, "collstats": self._coll_stats,
            "dbStats": self._db_stats, "dbstats": self._db_stats,
            "insert": self._write, "update": self._write, "delete": self._write,
            "find": self._read, "aggregate": self._read, "getMore": self._get_more,
            "killCursors": self._kill_cursors, "count": self._count, "distinct": self._distinct,
            "findAndModify": self._find_and_modify, "findandmodify": self._find_and_modify,
            "validate": self._validate,
        }  # fmt: skip
        for name in (
            "replSetGetStatus",
            "replSetGetConfig",
            "replSetStepDown",
            "replSetInitiate",
            "replSetReconfig",
        ):
            table[name] = self._not_through_mongos
        for name in ("explain", "mapReduce", "reshardCollection", "refineCollectionShardKey", "startSession",
                     "commitTransaction", "abortTransaction"):  # fmt: skip
            table[name] = self._not_by_standin
        return table

    def start(self) -> None:
        """Learns what must be known before listening. Raises CommandError when the config servers don't answer yet."""
        self.cluster.config.primary(0.2)
        hello = self.cluster.run(self.cluster.config, "admin", {"hello": 1}, read=True)
        self._max_wire_version = int(hello["maxWireVersion"])
        self.cluster.find("shards", {})

    def answer(self, session: Session, command: Command) -> Mapping[str, Any] | bytes:
        """Returns the reply to a command: a document, or one already encoded. Raises CloseClient."""
        self._count_operation(command.name)
        try:
            self._check(session, command)
            self._check_accepted(command)
            if "startTransaction" in command.fields or "txnNumber" in command.fields:
                raise CommandError(20, "IllegalOperation", f"sessions are not served by the {NOTE}")
            if command.name in USER_COMMANDS or (
                command.database in ("admin", "config", "local") and command.name in CONFIG_COMMANDS
            ):
                return self._relay(session, command)
            return self._handlers[command.name](session, command)
        except CommandError as error:
            return error.reply
        except Unreachable as error:
            return CommandError(6, "HostUnreachable", str(error)).reply
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.log(
                "COMMAND",
                21962,
                "Assertion while executing command",
                "E",
                command=command.name,
                error=repr(error),
            )
            return CommandError(9, "FailedToParse", f"{command.name}: {error!r}").reply

    def _count_operation(self, name: str) -> None:
        kind = {"find": "query", "getMore": "getmore"}.get(name, name)
        counted = self.counters.operations
        with self._lock:
            counted[kind if kind in counted else "command"] += 1

    # Rights

    def _check(self, session: Session, command: Command) -> None:
        name = command.name
        known = name in self._handlers or name in USER_COMMANDS or name in CONFIG_COMMANDS
        if not known:
            raise CommandError(59, "CommandNotFound", f"no such command: '{name}'")
        if not self.cluster.options.authenticates or name in rights.OPEN:
            return
        if session.privileges is None:
            raise CommandError(13, "Unauthorized", f"command {name} requires authentication")
        if not self._allowed(session, command):
            self._read_privileges(session)  # a grant may be newer than the log-in
            if not self._allowed(session, command):
                arguments = RawBSONDocument(
                    bson.encode({name: command.fields[name]}), DEFAULT_RAW_BSON_OPTIONS
                )
                raise CommandError(
                    13, "Unauthorized",
                    f"not authorized on {command.database} to execute command {dict(arguments)!r}",
                )  # fmt: skip

    @staticmethod
    def _check_accepted(command: Command) -> None:
        major, minor = (int(part) for part in VERSION.split(".")[:2])
        refusal = accepts.refusal((major, minor), command.name, command.fields, command.database)
        if refusal is not None:
            raise CommandError(refusal.code, refusal.name, refusal.message)

    def _allowed(self, session: Session, command: Command) -> bool:
        held = session.privileges or ()
        name, database = command.name, command.database
        if name in USER_COMMANDS or (database in ("admin", "config", "local") and name in CONFIG_COMMANDS):
            return True  # relayed on the client's own connection: the config server checks
        if name in rights.ON_CONFIG:
            return all(
                rights.allows(held, actions, "config", kept) for kept, actions in rights.ON_CONFIG[name]
            )
        if name in rights.ON_CLUSTER:
            return rights.allows_on_cluster(held, rights.ON_CLUSTER[name])
        if name in rights.ON_NAMESPACE:
            database, collection = self._target(command)
            return rights.allows(held, rights.ON_NAMESPACE[name], database, collection)
        return True

    @staticmethod
    def _target(command: Command) -> tuple[str, str]:
        value = command.fields[command.name]
        if command.name == "getMore":
            value = command.fields.get("collection", "")
        value = value if isinstance(value, str) else ""
        if command.name in ("shardCollection", "moveChunk", "moveRange", "split", "renameCollection"):
            database, _, collection = value.partition(".")
            return database, collection
        if command.name in ("enableSharding", "movePrimary"):
            return value, ""
        return command.database, value

    # Log-in, relayed over one connection per client to the config servers' primary

    def _relay_connection(self, session: Session) -> Connection:
        if session.relay is None:
            seconds_left = time.monotonic() + 15
            while session.relay is None:
                address = self.cluster.config.primary()
                try:
                    session.relay = Connection(address, self.cluster.options, login=False)
                except Unreachable:
                    self.cluster.config.failed(address)
                    if time.monotonic() > seconds_left:
                        raise
        return session.relay

    def _relay(self, session: Session, command: Command) -> Mapping[str, Any] | bytes:
        fields = {name: value for name, value in command.plain.items() if name not in NOT_FORWARDED}
        fields = {**fields, "$db": command.database}
        if session.privileges is None:
            reading = command.name in (
                "find",
                "aggregate",
                "count",
                "distinct",
                "listCollections",
                "usersInfo",
            )
            address, body = self.cluster.call(self.cluster.config, fields, read=reading)
            self._remember(body, address, "getMore")
            return body
        connection = self._relay_connection(session)
        try:
            body = connection.call(fields)
        except Unreachable as error:
            self.cluster.config.failed(connection.address)
            raise CloseClient from error
        reply = RawBSONDocument(body, DEFAULT_RAW_BSON_OPTIONS)
        if not reply.get("ok") and reply.get("code") in (10107, 13435, 91, 189, 11600, 11602):
            self.cluster.config.failed(connection.address)
            raise CloseClient
        return body

    def _sasl(self, session: Session, command: Command) -> Mapping[str, Any]:
        fields = {name: value for name, value in command.plain.items() if name not in NOT_FORWARDED}
        connection = self._relay_connection(session)
        try:
            reply = connection.run(command.database, fields)
        except Unreachable as error:
            self.cluster.config.failed(connection.address)
            raise CloseClient from error
        if reply.get("done"):
            self._read_privileges(session)
            self.log("ACCESS", 20250, "Authentication succeeded", authenticationDatabase=command.database)
        return _without_gossip(reply)

    def _authenticate(self, session: Session, command: Command) -> Mapping[str, Any]:
        raise CommandError(
            2, "BadValue", f"mechanism {command.fields.get('mechanism')} is not served by the {NOTE}"
        )

    def _read_privileges(self, session: Session) -> None:
        connection = self._relay_connection(session)
        try:
            status = connection.run("admin", {"connectionStatus": 1, "showPrivileges": True})
        except Unreachable as error:
            raise CloseClient from error
        session.privileges = status["authInfo"]["authenticatedUserPrivileges"]

    def _logout(self, session: Session, command: Command) -> Mapping[str, Any]:
        session.close()
        session.privileges = None
        return {"ok": 1.0}

    def _connection_status(self, session: Session, command: Command) -> Mapping[str, Any] | bytes:
        if session.privileges is None:
            return {"authInfo": {"authenticatedUsers": [], "authenticatedUserRoles": []}, "ok": 1.0}
        return self._relay(session, command)

    # Answered here

    def _ok(self, session: Session, command: Command) -> Mapping[str, Any]:
        return {"ok": 1.0}

    def _flush(self, session: Session, command: Command) -> Mapping[str, Any]:
        self.cluster.shards(fresh=True)
        return {"flushed": True, "ok": 1.0}

    def _is_dbgrid(self, session: Session, command: Command) -> Mapping[str, Any]:
        return {"isdbgrid": 1, "hostname": socket.gethostname(), "ok": 1.0}

    def _hello(self, session: Session, command: Command) -> Mapping[str, Any]:
        # No topologyVersion: drivers then ask again at intervals and never wait for an answer to come.
        # No logicalSessionTimeoutMinutes: they send no sessions.
        reply: dict[str, Any] = {
            "isWritablePrimary" if command.name == "hello" else "ismaster": True,
            "msg": "isdbgrid",
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "localTime": datetime.now(UTC),
            "connectionId": session.number,
            "minWireVersion": 0,
            "maxWireVersion": self._max_wire_version,
            "helloOk": True,
            "ok": 1.0,
        }
        if "client" in command.fields:
            self.log("NETWORK", 51800, "client metadata", client=f"conn{session.number}")
        asked: dict[str, Any] = {name: command.plain[name] for name in ("saslSupportedMechs", "speculativeAuthenticate")
                 if name in command.plain}  # fmt: skip
        if asked and self.cluster.options.authenticates:
            try:
                greeted = self._relay_connection(session).run("admin", {"hello": 1, **asked})
            except Unreachable as error:
                raise CloseClient from error
            reply.update({name: greeted[name] for name in asked if name in greeted})
        return reply

    def _build_info(self, session: Session, command: Command) -> Mapping[str, Any]:
        return build_info()

    def _whats_my_uri(self, session: Session, command: Command) -> Mapping[str, Any]:
        return {"you": f"conn{session.number}", "ok": 1.0}

    def _list_commands(self, session: Session, command: Command) -> Mapping[str, Any]:
        names = sorted(set(self._handlers) | USER_COMMANDS | CONFIG_COMMANDS)
        return {
            "commands": {name: {"help": NOTE, "requiresAuth": name not in rights.OPEN} for name in names},
            "ok": 1.0,
        }

    def _server_status(self, session: Session, command: Command) -> Mapping[str, Any]:
        counters = self.counters
        uptime = time.monotonic() - counters.started
        return {
            "host": f"{socket.gethostname()}:{self.cluster.options.port}",
            "version": VERSION,
            "process": "mongos",
            "pid": Int64(os.getpid()),
            "uptime": float(int(uptime)),
            "uptimeMillis": Int64(int(uptime * 1000)),
            "uptimeEstimate": Int64(int(uptime)),
            "localTime": datetime.now(UTC),
            "asserts": {"regular": 0, "warning": 0, "msg": 0, "user": 0, "rollovers": 0},
            "connections": {
                "current": counters.current,
                "available": self.cluster.options.max_connections - counters.current,
                "totalCreated": counters.created,
                "active": counters.current,
            },
            "mem": {"bits": 64, **_memory(), "supported": True},
            "opcounters": {name: Int64(count) for name, count in counters.operations.items()},
            "sharding": {"configsvrConnectionString": self._config_string()},
            "ok": 1.0,
        }

    def _host_info(self, session: Session, command: Command) -> Mapping[str, Any]:
        return {
            "system": {
                "hostname": socket.gethostname(),
                "cpuArch": platform.machine(),
                "numCores": os.cpu_count() or 1,
            },
            "os": {"type": platform.system(), "name": platform.platform(), "version": platform.release()},
            "extra": {},
            "ok": 1.0,
        }

    def _get_log(self, session: Session, command: Command) -> Mapping[str, Any]:
        wanted = command.fields["getLog"]
        if wanted == "*":
            return {"names": ["global", "startupWarnings"], "ok": 1.0}
        if wanted not in ("global", "startupWarnings"):
            raise CommandError(96, "OperationFailed", f"No log named '{wanted}'")
        lines = list(self.log.recent) if wanted == "global" else []
        return {"totalLinesWritten": len(lines), "log": lines, "ok": 1.0}

    def _command_line(self, session: Session, command: Command) -> Mapping[str, Any]:
        options = self.cluster.options
        return {"argv": list(options.argv), "parsed": options.parsed, "ok": 1.0}

    def _get_parameter(self, session: Session, command: Command) -> Mapping[str, Any]:
        known: dict[str, Any] = {"quiet": False, "logLevel": 0, "clusterAuthMode": "keyFile",
                                 "tlsMode": self.cluster.options.tls.mode}  # fmt: skip
        chosen = (
            known
            if command.fields["getParameter"] == "*"
            else {k: known[k] for k in command.fields if k in known}
        )
        if not chosen:
            raise CommandError(72, "InvalidOptions", "no option found to get")
        return {**chosen, "ok": 1.0}

    def _pool_stats(self, session: Session, command: Command) -> Mapping[str, Any]:
        return {"numClientConnections": self.counters.current, "numAScopedConnections": 0, "ok": 1.0}

    def _shutdown(self, session: Session, command: Command) -> Mapping[str, Any]:
        self.stop()
        raise CloseClient

    def _not_through_mongos(self, session: Session, command: Command) -> Mapping[str, Any]:
        raise CommandError(
            115, "CommandNotSupported", f"{command.name} is not supported through mongos", info="mongos"
        )

    def _not_by_standin(self, session: Session, command: Command) -> Mapping[str, Any]:
        what = "$changeStream" if command.name == "aggregate" else command.name
        raise CommandError(115, "CommandNotSupported", f"{what} is not served by the {NOTE}")

    # Sharding

    def _config_string(self) -> str:
        options = self.cluster.options
        return f"{options.config_set}/{','.join(f'{host}:{port}' for host, port in options.config_seeds)}"

    def _config(
        self,
        internal: str,
        reply: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        *,
        majority: bool = True,
    ) -> Callable[[Session, Command], Mapping[str, Any]]:
        """Returns a handler that sends a command to the config servers under its internal name.

        `majority`: the command takes, and requires, a write concern; the balancer's refuse one.
        """

        def handler(session: Session, command: Command) -> Mapping[str, Any]:
            self._admin_only(command)
            fields = {internal: command.fields[command.name], **self._arguments(command)}
            got = self.cluster.run_on_config(fields, majority=majority)
            self.cluster.shards(fresh=True)
            return {**(reply(got) if reply else got), "ok": 1.0}

        return handler

    @staticmethod
    def _arguments(command: Command) -> dict[str, Any]:
        """Returns a command's own arguments: without its name and the fields every command may carry."""
        general = NOT_FORWARDED | {command.name, "writeConcern", "readConcern", "maxTimeMS", "comment"}
        return {k: v for k, v in command.plain.items() if k not in general and not k.startswith("$")}

    @staticmethod
    def _admin_only(command: Command) -> None:
        if command.database != "admin":
            raise CommandError(
                13, "Unauthorized", f"{command.name} may only be run against the admin database."
            )

    def _list_shards(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        return {"shards": [dict(shard.document) for shard in self.cluster.shards(fresh=True)], "ok": 1.0}

    def _shard_map(self, session: Session, command: Command) -> Mapping[str, Any]:
        shards = {shard.id: shard.host for shard in self.cluster.shards(fresh=True)}
        return {"map": {"config": self._config_string(), **shards}, "ok": 1.0}

    def _enable_sharding(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        arguments = self._arguments(command)
        primary = {"primaryShardId": arguments["primaryShard"]} if "primaryShard" in arguments else {}
        self.cluster.run_on_config({"_configsvrCreateDatabase": command.fields["enableSharding"], **primary})
        return {"ok": 1.0}

    def _on_primary_shard(self, database: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Runs an internal command on a database's primary shard, which checks that it is still the primary."""
        for _ in range(10):
            known = self.cluster.ensure_database(database)
            versioned = {
                "databaseVersion": known["version"],
                "writeConcern": {"w": "majority", "wtimeout": 60_000},
            }
            try:
                return self.cluster.run(
                    self.cluster.shard(known["primary"]).replica_set, database, {**fields, **versioned}
                )
            except CommandError as error:
                if error.code not in STALE:
                    raise
                stale = error
        raise stale

    def _shard_collection(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        namespace = str(command.fields["shardCollection"])
        database, _, collection = namespace.partition(".")
        if not collection:
            raise CommandError(73, "InvalidNamespace", f"Invalid namespace specified '{namespace}'")
        arguments = self._arguments(command)
        if "key" not in arguments:
            raise CommandError(
                40414, "Location40414", "BSON field 'shardCollection.key' is missing but a required field"
            )
        arguments["shardKey"] = arguments.pop("key")
        self._on_primary_shard(database, {"_shardsvrCreateCollection": collection, **arguments})
        return {"collectionsharded": namespace, "ok": 1.0}

    def _sharded(self, namespace: str) -> dict[str, Any]:
        found = self.cluster.collection(namespace)
        if found is None:
            raise CommandError(118, "NamespaceNotSharded", f"Collection {namespace} is not sharded.")
        return found

    def _chunk(self, namespace: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the chunk that `find` (a shard key), `bounds` or `middle` names."""
        uuid = self._sharded(namespace)["uuid"]
        if "bounds" in arguments:
            low, high = arguments["bounds"]
            query = {"uuid": uuid, "min": low, "max": high}
        else:
            key = arguments.get("find") or arguments.get("middle") or arguments.get("min")
            query = {"uuid": uuid, "min": {"$lte": key}, "max": {"$gt": key}}
        found = self.cluster.find("chunks", query, limit=1)
        if not found:
            raise CommandError(
                117, "ConflictingOperationInProgress", f"no chunk of {namespace} found with the given bounds"
            )
        return found[0]

    def _move_chunk(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        namespace = str(command.fields[command.name])
        arguments = self._arguments(command)
        wanted: dict[str, Any] = {name: arguments[name] for name in ("min", "max") if name in arguments}
        if command.name == "moveChunk":
            chunk = self._chunk(namespace, arguments)
            wanted = {"min": chunk["min"], "max": chunk["max"]}
        target = arguments.get("to", arguments.get("toShard"))
        options: dict[str, Any] = {name: arguments[name] for name in ("secondaryThrottle", "waitForDelete", "forceJumbo")
                   if name in arguments}  # fmt: skip
        if "_waitForDelete" in arguments:
            options["waitForDelete"] = arguments["_waitForDelete"]
        started = time.monotonic()
        self.cluster.run_on_config(
            {
                "_configsvrMoveRange": namespace,
                "toShard": self.cluster.shard(str(target)).id,
                **wanted,
                **options,
            }
        )
        return {"millis": int((time.monotonic() - started) * 1000), "ok": 1.0}

    def _split(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        namespace = str(command.fields["split"])
        arguments = self._arguments(command)
        collection = self._sharded(namespace)
        chunk = self._chunk(namespace, arguments)
        shard = self.cluster.shard(chunk["shard"]).replica_set
        if "middle" in arguments:
            points = [arguments["middle"]]
        else:
            points = self.cluster.run(
                shard, "admin", {"splitVector": namespace, "keyPattern": collection["key"], "min": chunk["min"],
                                 "max": chunk["max"], "force": True}
            )["splitKeys"]  # fmt: skip
        if not points or points[0] == chunk["min"]:
            raise CommandError(93, "CannotSplit", "cannot find a point within the chunk to split it at")
        self.cluster.run(
            shard, "admin", {"_shardsvrSplitChunk": namespace, "from": chunk["shard"], "keyPattern": collection["key"],
                             "min": chunk["min"], "max": chunk["max"], "splitKeys": points,
                             "epoch": collection["lastmodEpoch"], "timestamp": collection["timestamp"]}
        )  # fmt: skip
        return {"ok": 1.0}

    def _move_primary(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        database = str(command.fields["movePrimary"])
        target = self.cluster.shard(str(command.fields["to"]))
        known = self.cluster.database(database)
        if known is None:
            raise CommandError(26, "NamespaceNotFound", f"database {database} not found")
        if known["primary"] != target.id:
            self.cluster.run(
                self.cluster.shard(known["primary"]).replica_set, "admin",
                {"_shardsvrMovePrimary": database, "to": target.id, "databaseVersion": known["version"],
                 "writeConcern": {"w": "majority"}},
            )  # fmt: skip
        return {"ok": 1.0}

    # Catalog

    def _list_databases(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        arguments = self._arguments(command)
        found: dict[str, dict[str, Any]] = {}
        shards = self.cluster.shards(fresh=True)
        for place, replica_set in [("config", self.cluster.config), *((s.id, s.replica_set) for s in shards)]:
            for entry in self.cluster.run(replica_set, "admin", {"listDatabases": 1}, read=True)["databases"]:
                name = entry["name"]
                if name == "local" or ((place == "config") != (name in ("admin", "config"))):
                    continue
                merged = found.setdefault(
                    name, {"name": name, "sizeOnDisk": Int64(0), "empty": True, "shards": {}}
                )
                merged["sizeOnDisk"] = Int64(merged["sizeOnDisk"] + entry["sizeOnDisk"])
                merged["empty"] = merged["empty"] and entry["empty"]
                merged["shards"][place] = Int64(entry["sizeOnDisk"])
        if self.cluster.options.authenticates:
            held = session.privileges or ()
            everything = rights.allows_on_cluster(held, ("listDatabases",))
            if arguments.get("authorizedDatabases") or not everything:
                found = {name: entry for name, entry in found.items() if rights.granted(held, name, "")
                         or any(p["resource"].get("db") == name for p in held)}  # fmt: skip
        databases = [found[name] for name in sorted(found)]
        databases = [entry for entry in databases if _matches(entry, arguments.get("filter"))]
        if arguments.get("nameOnly"):
            return {"databases": [{"name": entry["name"]} for entry in databases], "ok": 1.0}
        total = sum(entry["sizeOnDisk"] for entry in databases)
        return {
            "databases": databases,
            "totalSize": Int64(total),
            "totalSizeMb": Int64(total >> 20),
            "ok": 1.0,
        }

    def _pass(self, shard: Shard, command: Command, versions: Mapping[str, Any] | None = None) -> bytes:
        """Sends a read as it is to a shard's primary and remembers its cursor."""
        fields = {**self._forwarded(command), **(versions or {}), "$db": command.database}
        address, body = self.cluster.call(shard.replica_set, fields, command.sequences, read=True)
        self._remember(body, address, "getMore")
        return body

    def _list_collections(self, session: Session, command: Command) -> Mapping[str, Any] | bytes:
        known = self.cluster.database(command.database)
        if known is None:
            return _empty_cursor(f"{command.database}.$cmd.listCollections")
        return self._pass(self.cluster.shard(known["primary"]), command)

    def _list_indexes(self, session: Session, command: Command) -> Mapping[str, Any] | bytes:
        namespace = f"{command.database}.{command.fields['listIndexes']}"
        owners = self.cluster.owners(namespace)
        if not owners:
            raise CommandError(26, "NamespaceNotFound", f"ns does not exist: {namespace}")
        return self._pass(self.cluster.shard(next(iter(owners))), command)

    def _create(self, session: Session, command: Command) -> Mapping[str, Any]:
        known = self.cluster.ensure_database(command.database)
        shard = self.cluster.shard(known["primary"])
        fields = {k: v for k, v in command.plain.items() if k not in NOT_FORWARDED and k != "$readPreference"}
        return {**self.cluster.run(shard.replica_set, command.database, fields), "ok": 1.0}

    def _drop(self, session: Session, command: Command) -> Mapping[str, Any]:
        if self.cluster.database(command.database) is None:
            return {"info": "database does not exist", "ok": 1.0}
        self._on_primary_shard(command.database, {"_shardsvrDropCollection": command.fields["drop"]})
        return {"ok": 1.0}

    def _drop_database(self, session: Session, command: Command) -> Mapping[str, Any]:
        if self.cluster.database(command.database) is None:
            return {"info": "database does not exist", "ok": 1.0}
        self._on_primary_shard(command.database, {"_shardsvrDropDatabase": 1})
        return {"dropped": command.database, "ok": 1.0}

    def _rename(self, session: Session, command: Command) -> Mapping[str, Any]:
        self._admin_only(command)
        database, _, collection = str(command.fields["renameCollection"]).partition(".")
        self._on_primary_shard(
            database, {"_shardsvrRenameCollection": collection, **self._arguments(command)}
        )
        return {"ok": 1.0}

    def _on_owners(self, command: Command, fields: Mapping[str, Any]) -> dict[Shard, dict[str, Any]]:
        """Runs a command on every shard that holds a part of the collection it names; returns the replies.

        Retried with newer versions while a shard says that the ones sent are stale (its own may be, on first use).
        """
        namespace = f"{command.database}.{fields[next(iter(fields))]}"
        for attempt in range(20):
            try:
                return {
                    (shard := self.cluster.shard(name)): self.cluster.run(
                        shard.replica_set, command.database, {**fields, **versions}
                    )
                    for name, versions in self.cluster.owners(namespace).items()
                }
            except CommandError as error:
                if error.code not in STALE:
                    raise
                stale = error
                time.sleep(0.01 * attempt)
        raise stale

    def _create_indexes(self, session: Session, command: Command) -> Mapping[str, Any]:
        self.cluster.ensure_database(command.database)
        fields = {k: v for k, v in command.plain.items() if k not in NOT_FORWARDED and k != "$readPreference"}
        replies = self._on_owners(command, fields)
        return {"raw": {shard.host: reply for shard, reply in replies.items()}, "ok": 1.0}

    def _drop_indexes(self, session: Session, command: Command) -> Mapping[str, Any]:
        fields = {"_shardsvrDropIndexes": command.fields["dropIndexes"], **self._arguments(command)}
        return {**self._on_primary_shard(command.database, fields), "ok": 1.0}

    def _coll_mod(self, session: Session, command: Command) -> Mapping[str, Any]:
        fields = {"_shardsvrCollMod": command.fields["collMod"], **self._arguments(command)}
        return {**self._on_primary_shard(command.database, fields), "ok": 1.0}

    def _validate(self, session: Session, command: Command) -> Mapping[str, Any]:
        replies = self._on_owners(
            command, {"validate": command.fields["validate"], **self._arguments(command)}
        )
        return {
            "valid": all(reply["valid"] for reply in replies.values()),
            "raw": {shard.host: reply for shard, reply in replies.items()},
            "ok": 1.0,
        }

    def _coll_stats(self, session: Session, command: Command) -> Mapping[str, Any]:
        name = command.fields[command.name]
        namespace = f"{command.database}.{name}"
        sharded = self.cluster.collection(namespace)
        parts = {
            shard.id: {k: v for k, v in reply.items() if k != "ok"}
            for shard, reply in self._on_owners(
                command, {"collStats": name, **self._arguments(command)}
            ).items()
        }  # fmt: skip
        total: dict[str, Any] = {"sharded": sharded is not None, "ns": namespace}
        for key in (
            "size",
            "count",
            "storageSize",
            "totalIndexSize",
            "totalSize",
            "freeStorageSize",
            "numOrphanDocs",
        ):
            total[key] = sum(part.get(key, 0) for part in parts.values())
        total["avgObjSize"] = total["size"] // total["count"] if total["count"] else 0
        total["nindexes"] = max((part.get("nindexes", 0) for part in parts.values()), default=0)
        total["capped"] = any(part.get("capped", False) for part in parts.values())
        sizes: dict[str, int] = {}
        for part in parts.values():
            for index, size in part.get("indexSizes", {}).items():
                sizes[index] = sizes.get(index, 0) + size
        total["indexSizes"] = sizes
        if sharded is None:
            total["primary"] = next(iter(parts), None)
        else:
            total["nchunks"] = len(
                self.cluster.find("chunks", {"uuid": sharded["uuid"]}, projection={"_id": 1})
            )
        return {**total, "shards": parts, "ok": 1.0}

    def _db_stats(self, session: Session, command: Command) -> Mapping[str, Any]:
        fields = {"dbStats": 1, **self._arguments(command)}
        raw = {
            shard.host: self.cluster.run(shard.replica_set, command.database, fields, read=True)
            for shard in self.cluster.shards(fresh=True)
        }
        total: dict[str, Any] = {"raw": raw, "db": command.database}
        for key in ("collections", "views", "objects", "dataSize", "storageSize", "indexes", "indexSize",
                    "totalSize", "fsUsedSize", "fsTotalSize"):  # fmt: skip
            total[key] = sum(part.get(key, 0) for part in raw.values())
        total["avgObjSize"] = total["dataSize"] / total["objects"] if total["objects"] else 0.0
        return {**total, "scaleFactor": 1, "ok": 1.0}

    # Data

    @staticmethod
    def _forwarded(command: Command) -> dict[str, Any]:
        return {name: value for name, value in command.fields.items() if name not in NOT_FORWARDED}

    def _through_a_shard(
        self, command: Command, fields: Mapping[str, Any], *, read: bool
    ) -> tuple[Address, bytes]:
        """Lets a shard's primary route a command. Any shard can: one without a primary is passed over."""
        deadline = time.monotonic() + 15
        while True:
            shards = self.cluster.shards()
            if not shards:
                raise CommandError(70, "ShardNotFound", "No shards found")
            for shard in shards:
                try:
                    # A brief wait as long as another shard may have a primary.
                    shard.replica_set.primary(0.2 if len(shards) > 1 else 15)
                except CommandError as error:
                    last = error
                    continue
                return self.cluster.call(
                    shard.replica_set, {**fields, "$db": command.database}, command.sequences, read=read
                )
            if time.monotonic() > deadline:
                raise last

    def _renamed(self, command: Command) -> dict[str, Any]:
        fields = self._forwarded(command)
        value = fields.pop(command.name)
        return {AT_ROUTER[command.name]: value, **fields}

    def _write(self, session: Session, command: Command) -> bytes:
        _, body = self._through_a_shard(command, self._renamed(command), read=False)
        return body

    def _read(self, session: Session, command: Command) -> Mapping[str, Any] | bytes:
        if not self.cluster.shards():
            return _empty_cursor(f"{command.database}.{command.fields[command.name]}")
        stages = _stages(command)
        if "$changeStream" in stages:  # sent to a shard's router it makes mongod 6.0.5 abort
            return self._not_by_standin(session, command)
        writes = stages & {"$out", "$merge"}
        address, body = self._through_a_shard(command, self._renamed(command), read=not writes)
        self._remember(body, address, "clusterGetMore")
        return body

    def _remember(self, body: bytes, address: Address, continuation: str) -> None:
        cursor = RawBSONDocument(body, DEFAULT_RAW_BSON_OPTIONS).get("cursor")
        if cursor is None or not cursor.get("id"):
            return
        with self._lock:
            self._cursors[int(cursor["id"])] = (address, continuation)
            if len(self._cursors) > MAX_CURSORS:
                self._cursors.popitem(last=False)

    def _get_more(self, session: Session, command: Command) -> bytes:
        identifier = int(command.fields["getMore"])
        with self._lock:
            held = self._cursors.get(identifier)
        if held is None:
            raise CommandError(43, "CursorNotFound", f"Cursor not found (namespace: '{command.database}."
                               f"{command.fields.get('collection')}', id: {identifier}).")  # fmt: skip
        address, continuation = held
        fields = self._forwarded(command)
        del fields["getMore"]
        with self.cluster.pool.borrow(address) as connection:
            body = connection.call({continuation: Int64(identifier), **fields, "$db": command.database})
        reply = RawBSONDocument(body, DEFAULT_RAW_BSON_OPTIONS)
        if not reply.get("ok") or not reply["cursor"]["id"]:
            with self._lock:
                self._cursors.pop(identifier, None)
        return body

    def _kill_cursors(self, session: Session, command: Command) -> Mapping[str, Any]:
        killed: list[Int64] = []
        unknown: list[Int64] = []
        for identifier in command.plain["cursors"]:
            with self._lock:
                held = self._cursors.pop(int(identifier), None)
            (unknown if held is None else killed).append(Int64(identifier))
            if held is not None and held[1] == "getMore":
                fields = {"killCursors": command.fields["killCursors"], "cursors": [Int64(identifier)]}
                with self.cluster.pool.borrow(held[0]) as connection:
                    connection.run(command.database, fields)
        return {
            "cursorsKilled": killed,
            "cursorsNotFound": unknown,
            "cursorsAlive": [],
            "cursorsUnknown": [],
            "ok": 1.0,
        }

    def _aggregated(self, command: Command, pipeline: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns all results of a pipeline over the command's collection."""
        fields = {
            "clusterAggregate": command.fields[command.name],
            "pipeline": pipeline,
            "cursor": {"batchSize": 1000},
        }
        for name in ("collation", "hint", "maxTimeMS", "readConcern", "$readPreference"):
            if name in command.plain:
                fields[name] = command.plain[name]
        address, body = self._through_a_shard(command, fields, read=True)
        documents: list[dict[str, Any]] = []
        while True:
            reply = bson.decode(body, PLAIN)
            if not reply.get("ok"):
                raise CommandError.of(reply)
            cursor = reply["cursor"]
            documents += cursor.get("firstBatch", cursor.get("nextBatch", []))
            if not cursor["id"]:
                return documents
            with self.cluster.pool.borrow(address) as connection:
                body = connection.call({"clusterGetMore": cursor["id"], "collection": fields["clusterAggregate"],
                                        "$db": command.database})  # fmt: skip

    def _count(self, session: Session, command: Command) -> Mapping[str, Any]:
        arguments = command.plain
        if not arguments.get("query") and not arguments.get("limit") and not arguments.get("skip"):
            # From the shards' own counters, as mongos does for an estimate.
            replies = self._on_owners(command, {"count": command.fields["count"]})
            return {"n": sum(reply["n"] for reply in replies.values()), "ok": 1.0}
        if not self.cluster.shards():
            return {"n": 0, "ok": 1.0}
        pipeline: list[Mapping[str, Any]] = [{"$match": arguments.get("query") or {}}]
        if arguments.get("skip"):
            pipeline.append({"$skip": arguments["skip"]})
        if arguments.get("limit"):
            pipeline.append({"$limit": abs(arguments["limit"])})
        found = self._aggregated(command, [*pipeline, {"$count": "n"}])
        return {"n": found[0]["n"] if found else 0, "ok": 1.0}

    def _distinct(self, session: Session, command: Command) -> Mapping[str, Any]:
        if not self.cluster.shards():
            return {"values": [], "ok": 1.0}
        key = str(command.fields["key"])
        path = key.split(".")
        pipeline: list[Mapping[str, Any]] = [{"$match": command.plain.get("query") or {}}]
        # An array on the way stands for its elements.
        pipeline += [{"$unwind": f"${'.'.join(path[: depth + 1])}"} for depth in range(len(path) - 1)]
        pipeline += [
            {"$unwind": {"path": f"${key}", "preserveNullAndEmptyArrays": True}},
            {"$match": {key: {"$exists": True, "$ne": []}}},
            {"$group": {"_id": f"${key}"}},
            {"$sort": {"_id": 1}},
        ]
        return {"values": [found["_id"] for found in self._aggregated(command, pipeline)], "ok": 1.0}

    def _find_and_modify(self, session: Session, command: Command) -> Mapping[str, Any]:
        """Runs on the shard that holds a match; only if none does, an upsert is routed by shard key."""
        self.cluster.ensure_database(command.database)
        namespace = f"{command.database}.{command.fields[command.name]}"
        fields = {"findAndModify": command.fields[command.name], **self._arguments(command)}
        for name in ("writeConcern", "maxTimeMS"):
            if name in command.plain:
                fields[name] = command.plain[name]
        if self.cluster.collection(namespace) is None:
            return {**next(iter(self._on_owners(command, fields).values())), "ok": 1.0}
        upsert = fields.pop("upsert", False)
        reply: Mapping[str, Any] = {"lastErrorObject": {"n": 0, "updatedExisting": False}, "value": None}
        for shard in self.cluster.owners(namespace):
            reply = self._versioned(shard, command.database, namespace, fields)
            if reply["lastErrorObject"]["n"]:
                return {**reply, "ok": 1.0}
        if not upsert:
            return {**reply, "ok": 1.0}
        update = {"q": fields["query"], "u": fields["update"], "upsert": True}
        written = bson.decode(
            self._through_a_shard(command, {"clusterUpdate": command.fields[command.name], "updates": [update]},
                                  read=False)[1], PLAIN
        )  # fmt: skip
        if not written.get("ok"):
            raise CommandError.of(written)
        if written.get("writeErrors"):
            raise CommandError.of({**written["writeErrors"][0], "ok": 0})
        identifier = written["upserted"][0]["_id"]
        value = self._aggregated(command, [{"$match": {"_id": identifier}}])[0] if fields.get("new") else None
        return {
            "lastErrorObject": {"n": 1, "updatedExisting": False, "upserted": identifier},
            "value": value,
            "ok": 1.0,
        }

    def _versioned(
        self, shard: str, database: str, namespace: str, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        for attempt in range(20):
            versions = self.cluster.owners(namespace).get(shard)
            if versions is None:  # its last chunk moved away meanwhile
                return {"lastErrorObject": {"n": 0, "updatedExisting": False}, "value": None}
            try:
                return self.cluster.run(
                    self.cluster.shard(shard).replica_set, database, {**fields, **versions}
                )
            except CommandError as error:
                if error.code not in STALE:
                    raise
                stale = error
                time.sleep(0.01 * attempt)
        raise stale


def build_info() -> dict[str, Any]:
    """Returns the reply to ``buildInfo``; a stand-in says so among its modules."""
    numbers = [int(part) for part in VERSION.split(".")]
    return {
        "version": VERSION,
        "gitVersion": "0" * 40,
        "modules": [NOTE],
        "allocator": "system",
        "versionArray": [*numbers, 0],
        "bits": 64,
        "debug": False,
        "maxBsonObjectSize": 16_777_216,
        "storageEngines": [],
        "ok": 1.0,
    }


def _stages(command: Command) -> set[str]:
    return {str(next(iter(stage), "")) for stage in command.fields.get("pipeline", ())}


def _empty_cursor(namespace: str) -> dict[str, Any]:
    return {"cursor": {"id": Int64(0), "ns": namespace, "firstBatch": []}, "ok": 1.0}


def _without_gossip(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a reply without the cluster time: between members it is signed for members."""
    return {
        name: value for name, value in reply.items() if not name.startswith("$") and name != "operationTime"
    }


def _matches(entry: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Applies the equality filters that drivers send with ``listDatabases``."""
    return all(entry.get(name) == value for name, value in (wanted or {}).items())


def _memory() -> dict[str, int]:
    """Returns this process's memory in MiB as ``serverStatus`` names it; zeros where /proc is not there."""
    try:
        pages = [int(number) for number in Path("/proc/self/statm").read_text().split()[:2]]
    except OSError:
        return {"resident": 0, "virtual": 0}
    size = os.sysconf("SC_PAGE_SIZE")
    return {"resident": pages[1] * size >> 20, "virtual": pages[0] * size >> 20}
