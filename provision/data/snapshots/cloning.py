"""Another deployment's data put into this one, with the addresses of this one in them.

A copy that has the addresses of its original would look for its members among them. So before any node of the clone
starts as a member, each set's copy is opened by a mongod that belongs to no set and listens on a port of its own, and
everything that names an address is rewritten.

Follows https://www.mongodb.com/docs/manual/tutorial/restore-sharded-cluster/
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from provision.core import copying
from provision.core.errors import ProvisionError
from provision.data.snapshots import restoring, taking, versions
from provision.data.snapshots.manifest import sets_of, why_unreadable
from provision.data.snapshots.opened import Opened
from provision.data.snapshots.store import Snapshot, Store
from provision.deployments.deployment import Deployment
from provision.mongodb.topology import ReplicaSet
from provision.mongodb.wire import CommandFailed, Connection

Say = Callable[[str], None]
_REWRITTEN = "clone"
# What is opened belongs to no set or cluster, and has what its journal says it had.
_APART = ("skipShardingConfigurationChecks=true", "disableLogicalSessionCacheRefresh=true", "ttlMonitorEnabled=false")
_RECOVERED = (
    "skipShardingConfigurationChecks=true",
    "recoverFromOplogAsStandalone=true",
    "takeUnstableCheckpointOnShutdown=true",
)


def clone(source: Deployment, target: Deployment, say: Say, start: bool) -> None:
    """See `provision.data.snapshots.clone`."""
    doing = f"cloning {source.name} of {source.paths.root} into {target.name}"
    folders = taking.folders_of(target, doing)
    if source.paths.root == target.paths.root and source.name == target.name:
        raise ProvisionError(doing, "They are the same.", "Name another project's folder: invoke ps lists them.")
    if source.paths.data == target.paths.data:
        raise ProvisionError(
            doing,
            f"Both keep their data in {source.paths.data}.",
            "Unset INVOKE_PATHS_DATA, or give each of them a folder of its own: paths.data in invoke.yaml.",
        )
    if why := _why_other_shape(source, target):
        raise ProvisionError(doing, f"{why} Nothing was changed.", "Give it the same shape in invoke.yaml.")
    snapshot = taking.save(source, f"clone-{secrets.token_hex(4)}", say)
    try:
        with target.holding("cloning into", say) as lock:
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
                _rewrite(snapshot, rewritten, target, doing)
                folders.copy_in(rewritten, restoring.folder_of_each(target))
            except OSError as problem:
                raise taking.disk_error(doing, target.paths.data, problem) from None
            finally:
                store.clear()
            what = f"the clone of {source.paths.root}"
            restoring.swap(target, folders, what, snapshot.manifest.balanced, lock, say, start)
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


def _rewrite(snapshot: Snapshot, folder: Path, target: Deployment, doing: str) -> None:
    """Copy a snapshot's sets to a folder, with the addresses of a deployment in them."""
    files = [snapshot.folder / file.path for file in snapshot.manifest.files]
    copying.copy_files((file, folder / file.relative_to(snapshot.folder)) for file in files)
    for each in target.topology.all_sets:
        opened = Opened(folder, each.name, target, doing)
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
