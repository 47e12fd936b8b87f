"""Another deployment's data put into this one, with the addresses of this one in them.

A copy that has the addresses of its original would look for its members among them. So before any node of the clone
starts as a member, each set's copy is opened by a mongod that belongs to no set and listens on a port of its own, and
everything that names an address is rewritten.

Follows https://www.mongodb.com/docs/manual/tutorial/restore-sharded-cluster/
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.backends.processes import Processes
from provision.backends.registry import in_folders
from provision.core import copying
from provision.core.errors import ProvisionError
from provision.data.snapshots import restoring, taking, versions
from provision.data.snapshots.manifest import sets_of, why_unreadable
from provision.data.snapshots.store import Snapshot, Store
from provision.deployments.deployment import Deployment
from provision.mongodb.topology import LOOPBACK, ReplicaSet
from provision.mongodb.wire import CommandFailed, Connection, NotReachable

Say = Callable[[str], None]
_START_SECONDS = 60.0
_END_SECONDS = 60.0
_POLL_SECONDS = 0.02
_REWRITTEN = "clone"
# What is opened belongs to no set or cluster, and has what its journal says it had.
_APART = ("skipShardingConfigurationChecks=true", "disableLogicalSessionCacheRefresh=true", "ttlMonitorEnabled=false")
_RECOVERED = (
    "skipShardingConfigurationChecks=true",
    "recoverFromOplogAsStandalone=true",
    "takeUnstableCheckpointOnShutdown=true",
)
_PR_SET_PDEATHSIG = 1


def clone(source: Deployment, target: Deployment, say: Say) -> None:
    """See `provision.data.snapshots.clone`."""
    doing = f"cloning {source.name} of {source.paths.root} into {target.name}"
    folders = taking.folders_of(target, doing)
    processes = in_folders(target.backend)
    if processes is None or in_folders(source.backend) is None:
        raise ProvisionError(
            doing,
            "Both have to run as processes of this machine.",
            f"Bring them up so: invoke cluster.up --backend processes --on {target.name}",
        )
    if source.paths.root == target.paths.root and source.name == target.name:
        raise ProvisionError(doing, "They are the same.", "Name another project's folder: invoke ps lists them.")
    if why := _why_other_shape(source, target):
        raise ProvisionError(doing, f"{why} Nothing was changed.", "Give it the same shape in invoke.yaml.")
    snapshot = taking.save(source, f"clone-{secrets.token_hex(4)}", say)
    try:
        with target.holding("cloning into", say):
            restoring.settled(target, say)
            version = versions.of_next_start(target, doing)
            if why := why_unreadable(snapshot.manifest, version):
                raise ProvisionError(doing, f"{why} Nothing was changed.", "Choose another mongod: mongodb.version.")
            target.look(target.topology.nodes).certain(doing)
            target.prepare()
            store = Store(target.paths, target.name)
            try:
                rewritten = store.begin(_REWRITTEN)
                say(f"Rewriting the addresses for {target.name}")
                _rewrite(snapshot, rewritten, target, processes, doing)
                folders.copy_in(rewritten, restoring.folder_of_each(target))
            except OSError as problem:
                raise taking.disk_error(doing, target.paths.data, problem) from None
            finally:
                store.clear()
            restoring.swap(target, folders, f"the clone of {source.paths.root}", snapshot.manifest.balanced, say)
    finally:
        with source.holding("deleting a snapshot of", say):
            Store(source.paths, source.name).delete(snapshot)


def _why_other_shape(source: Deployment, target: Deployment) -> str | None:
    theirs, ours = sets_of(source.topology), sets_of(target.topology)
    for mine, other in zip(ours, theirs, strict=False):
        if (mine.name, mine.role, len(mine.members)) != (other.name, other.role, len(other.members)):
            return (
                f"There, {other.name} has {len(other.members)} members and is a {other.role}; here, {mine.name} has "
                f"{len(mine.members)} and is a {mine.role}."
            )
    if len(theirs) != len(ours):
        return f"It consists of {', '.join(each.name for each in theirs)}; {target.name} of {', '.join(each.name for each in ours)}."
    return None


def _rewrite(snapshot: Snapshot, folder: Path, target: Deployment, processes: Processes, doing: str) -> None:
    """Copy a snapshot's sets to a folder, with the addresses of a deployment in them."""
    files = [snapshot.folder / file.path for file in snapshot.manifest.files]
    copying.copy_files((file, folder / file.relative_to(snapshot.folder)) for file in files)
    for each in target.topology.all_sets:
        opened = _Opened(folder / each.name, folder / f"{each.name}.log", target, processes, doing)
        with opened.running(_RECOVERED):
            pass  # what its oplog has beyond the last checkpoint is applied, and stays
        with opened.running(_APART) as connection:
            _rewrite_set(connection, each, target)
        for name in ("mongod.lock", "diagnostic.data"):
            path = folder / each.name / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _rewrite_set(connection: Connection, replica_set: ReplicaSet, target: Deployment) -> None:
    """Rewrite what names an address in a set's data."""
    from bson import ObjectId

    configuration = _find(connection, "local", "system.replset", {})[0]
    members = sorted(configuration["members"], key=lambda member: int(member["_id"]))
    for member, node in zip(members, replica_set.members, strict=True):
        member["host"] = node.address
    configuration["version"] += 1
    configuration["settings"]["replicaSetId"] = ObjectId()  # a set of its own: the others refuse to speak to it
    _update(connection, "local", "system.replset", {"_id": configuration["_id"]}, configuration)
    topology = target.topology
    if topology.config is None:
        return
    if replica_set is topology.config:
        for shard in topology.replica_sets:
            host = {"$set": {"host": shard.seed_list}}
            _update(connection, "config", "shards", {"_id": shard.name}, host)
        for collection in ("mongos", "lockpings"):
            _delete(connection, "config", collection, {})
    else:
        identity = {"$set": {"configsvrConnectionString": topology.config.seed_list}}
        _update(connection, "admin", "system.version", {"_id": "shardIdentity"}, identity)
        _delete(connection, "admin", "system.version", {"_id": "minOpTimeRecovery"})


def _find(connection: Connection, database: str, collection: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer = connection.command(database, {"find": collection, "filter": query})
    return list(answer["cursor"]["firstBatch"])


def _update(
    connection: Connection, database: str, collection: str, query: Mapping[str, Any], update: Mapping[str, Any]
) -> None:
    answer = connection.command(database, {"update": collection, "updates": [{"q": query, "u": update}]})
    if answer["n"] != 1:
        raise CommandFailed(0, "", f"{database}.{collection} has no document {dict(query)}")


def _delete(connection: Connection, database: str, collection: str, query: Mapping[str, Any]) -> None:
    connection.command(database, {"delete": collection, "deletes": [{"q": query, "limit": 0}]})


class _Opened:
    """A set's data, opened by a mongod that belongs to no set."""

    def __init__(self, data: Path, log: Path, target: Deployment, processes: Processes, doing: str) -> None:
        self._data = data
        self._log = log
        self._target = target
        self._processes = processes
        self._doing = doing

    @contextlib.contextmanager
    def running(self, parameters: Sequence[str]) -> Iterator[Connection]:
        """A connection to it. It ends in order with the block, and with this process in any case.

        Raises ProvisionError: it does not start, refuses a command, or does not end in order.
        """
        node = next(node for node in self._target.topology.nodes if not node.is_router)
        program, environment = self._processes.program(node), self._processes.run_environment
        secrets_ = self._target.secrets()
        key_file = ("--keyFile", str(self._target.paths.key_file(self._target.name))) if secrets_ else ()
        port = _free_port()
        process = subprocess.Popen(
            [
                *(str(program), "--dbpath", str(self._data), "--logpath", str(self._log), "--logappend"),
                *("--bind_ip", LOOPBACK, "--port", str(port), "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"),
                *key_file,
                *(part for parameter in parameters for part in ("--setParameter", parameter)),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **environment}, preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            with self._connected(process, port) as connection:
                yield connection
            process.terminate()
            if process.wait(_END_SECONDS) != 0:
                raise self._failed(f"The mongod that rewrites them ended with status {process.returncode}.")
        except (CommandFailed, NotReachable) as problem:
            raise self._failed(f"{str(problem).rstrip('.')}.") from None
        except subprocess.TimeoutExpired:
            raise self._failed("The mongod that rewrites them does not end.") from None
        finally:
            process.kill()
            process.wait()

    def _connected(self, process: subprocess.Popen[bytes], port: int) -> Connection:
        secrets_ = self._target.secrets()
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                return Connection(LOOPBACK, port, _START_SECONDS, secrets_.system if secrets_ else None)
            except (NotReachable, CommandFailed):
                time.sleep(_POLL_SECONDS)
        raise self._failed("The mongod that rewrites them does not start.")

    def _failed(self, cause: str) -> ProvisionError:
        from provision.mongodb.logs import why_it_died

        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.is_file() else []
        return ProvisionError(
            self._doing, f"{cause} Nothing was changed.", "Type the same again.", why_it_died(lines[-400:])
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """A process that was killed leaves no mongod behind. Linux alone has this."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
