"""What is done to a running deployment: shards come and go, nodes fail and recover, primaries step down."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from provision.backends.registry import in_containers
from provision.core.errors import ProvisionError, did_you_mean
from provision.core.locks import exclusive
from provision.deployments import assembly
from provision.deployments.bringup import NotSharded
from provision.deployments.deployment import Deployment, Up
from provision.deployments.events import Event
from provision.mongodb import membership, sharding
from provision.mongodb.sharding import ShardedCollection, ShardShare
from provision.mongodb.topology import Node, ReplicaSet
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from provision.settings.loading import Loaded
from provision.state import remembered
from provision.state.remembered import Flag

Say = Callable[[str], None]
Reached = Callable[[Event], None]
Started = Callable[[], None]
_ELECTION_SECONDS = 30.0
_DRAIN_POLL_SECONDS = 0.25
_STALLED_SECONDS = 60.0
_LEAST_MOVE = "reshardingMinimumOperationDurationMillis"


def up(
    loaded: Loaded,
    name: str,
    typed: Mapping[str, str],
    say: Say,
    reached: Reached,
    until_healthy: bool = True,
    started: Started = lambda: None,
) -> Up:
    """Bring a deployment up with flags, which then hold for the later commands on it.

    Args:
        typed: key of the deployment's settings → the flag as typed, with its value.
        until_healthy: as for `Deployment.up`, and so is `started`.

    Raises:
        NotSharded: it is up, but for a collection that could not be sharded; the flags hold.
        ProvisionError: it could not be brought up; the flags are then forgotten again.
    """
    settings = loaded.deployment(name)
    flags = {key: Flag(getattr(settings, key), f"cluster.up {text}") for key, text in typed.items()}
    return _up_with(loaded, name, flags, say, reached, until_healthy, started)


def add_shard(loaded: Loaded, name: str, say: Say, reached: Reached, started: Started) -> Up:
    """Add one more shard to a sharded cluster.

    Raises ProvisionError: it is not sharded, or the shard could not be brought up.
    """
    extent = _extent(loaded, name, "adding a shard to")
    # A number that was removed stays unused: what some client or log calls shard1 is always the same shard.
    shards = (*extent.shards, max(extent.shards) + 1)
    return _up_with(loaded, name, _shard_flags(shards, "cluster.add-shard"), say, reached, True, started)


def _up_with(
    loaded: Loaded,
    name: str,
    flags: Mapping[str, Flag],
    say: Say,
    reached: Reached,
    until_healthy: bool,
    started: Started,
) -> Up:
    with resizing(loaded, name, say):
        before = remembered.remember(loaded.paths, name, flags)
        try:
            changed = with_flags(loaded, name, flags)
            return assembly.deployment(changed, name).up(say, reached, until_healthy, started=started)
        except NotSharded:
            raise  # it is up with these flags
        except BaseException:
            remembered.restore(loaded.paths, name, before)
            raise


def with_flags(loaded: Loaded, name: str, flags: Mapping[str, Flag]) -> Loaded:
    """The settings as they are once a deployment is given flags. Pure."""
    from dataclasses import replace

    changed = replace(loaded.deployment(name), **{key: flag.value for key, flag in flags.items()})
    deployments = {**loaded.settings.deployments, name: changed}
    return replace(loaded, settings=replace(loaded.settings, deployments=deployments))


def resizing(loaded: Loaded, name: str, say: Say) -> contextlib.AbstractContextManager[int]:
    """One command at a time changes how large a deployment should be."""
    return exclusive(loaded.paths.lock(f"size-{name}"), f"changing the size of {name}", say)


def _extent(loaded: Loaded, name: str, doing: str) -> remembered.Extent:
    recorded = remembered.Extent.recorded(loaded.paths, name)
    extent = recorded or remembered.Extent.of(loaded.deployment(name))
    if extent is None or extent.topology != "sharded":
        raise ProvisionError(
            f"{doing} {name}",
            "It is not a sharded cluster.",
            "Name one that is, with --on; `invoke settings --key deployments` lists them.",
        )
    return extent


def _shard_flags(shards: Sequence[int], typed: str) -> dict[str, Flag]:
    return {
        "shards": Flag(len(shards), typed),
        "removed_shards": Flag(remembered.gaps(shards), typed),
    }


# Shards


def remove_shard(loaded: Loaded, name: str, shard: str, say: Say) -> None:
    """Drain a shard, take it out of the cluster, and delete its nodes with their data.

    Interrupted, it goes on where it was when it is called again. Follows
    https://www.mongodb.com/docs/manual/tutorial/remove-shards-from-cluster/

    Raises ProvisionError: there is no such shard, it is the last one, or the cluster refused.
    """
    doing = f"removing shard {shard} from {name}"
    extent = _extent(loaded, name, f"removing shard {shard} from")
    with resizing(loaded, name, say):
        deployment = assembly.deployment(loaded, name)
        with routed(deployment, doing) as router:
            present = [str(each["_id"]) for each in sharding.shards(router)]
            planned = [each.name for each in deployment.topology.replica_sets]
            if shard not in {*present, *planned}:
                raise ProvisionError(
                    doing,
                    f"The cluster's shards are {', '.join(sorted(present))}.",
                    f"Name one of them{did_you_mean(shard, present)}.",
                )
            if {*present} <= {shard}:
                raise ProvisionError(
                    doing,
                    "It is the last shard: its data would have no place to go.",
                    f"Add another one first: invoke cluster.add-shard --on {name}",
                )
            if shard in present:
                try:
                    _drain(deployment, router, shard, say, doing)
                except CommandFailed as refusal:
                    raise ProvisionError(
                        doing, str(refusal), "Correct that, then type it again: it goes on where it was."
                    ) from None
        nodes = next((each.members for each in deployment.topology.replica_sets if each.name == shard), ())
        if nodes:
            from dataclasses import replace

            number = int(shard.removeprefix("shard"))
            left = tuple(n for n in extent.shards if n != number)
            remembered.remember(loaded.paths, name, _shard_flags(left, f"cluster.remove-shard {shard}"))
            deployment.remove_nodes(nodes, replace(extent, shards=left), f"removing {shard} of")


def _drain(deployment: Deployment, router: Connection, shard: str, say: Say, doing: str) -> None:
    """Have the balancer move everything off a shard, and move the databases that have their primary there."""
    if sharding.balancer(router)["mode"] == "off":
        raise ProvisionError(
            doing,
            "The balancer is off, and it is what moves the chunks.",
            "Switch it on: invoke cluster.shell --eval 'sh.startBalancer()'",
        )
    told, since = "", time.monotonic()
    draining = sharding.Drain(router, shard)
    while (answer := draining.ask())["state"] != "completed":
        remaining = answer.get("remaining", {})
        # Databases and unsharded collections stay where they are until they are told to go.
        for namespace in answer.get("collectionsToMove", ()):
            say(f"{shard}: moving {namespace}")
            target = _emptiest(router, shard)
            with moved_at_once(deployment):
                router.command("admin", {"moveCollection": namespace, "toShard": target}, timeout=3600)
        if not int(remaining.get("chunks", 0)) and answer["state"] == "ongoing":
            for database in answer.get("dbsToMove", ()):
                target = _emptiest(router, shard)
                say(f"{shard}: moving database {database} to {target}")
                _move_primary(router, database, target)
        text = (
            f"{shard}: draining, {int(remaining.get('chunks', 0))} chunks and {int(remaining.get('dbs', 0))} databases to go"
            if remaining
            else f"{shard}: draining has begun"
        )
        if text != told:
            say(text)
            told, since = text, time.monotonic()
        elif time.monotonic() - since > _STALLED_SECONDS:
            say(f"{shard}: nothing has moved for {_STALLED_SECONDS:g} s; the config servers' log says why")
            since = time.monotonic()
        if int(remaining.get("jumboChunks", 0)):
            raise ProvisionError(
                doing,
                f"{int(remaining['jumboChunks'])} of its chunks are too large to be moved.",
                "Refine their shard key or clear the flag, then type it again:\n"
                "https://www.mongodb.com/docs/manual/tutorial/clear-jumbo-flag/",
            )
        time.sleep(_DRAIN_POLL_SECONDS)
    say(f"{shard}: drained")


@contextlib.contextmanager
def moved_at_once(deployment: Deployment) -> Iterator[None]:
    """Let collections be moved as fast as they can for the length of the block, on a deployment for development.

    MongoDB lets each move last five minutes at least, so that clients can retry their writes. The primary of the config
    servers leads a move, and keeps that time. A deployment on hosts has clients that matter: it keeps MongoDB's time.
    """
    config = deployment.topology.config
    leader = deployment.primary(config.members) if config and deployment.backend.capabilities.local else None
    if leader is None:
        yield
        return
    with deployment.dial(leader) as connection:
        before = connection.command("admin", {"getParameter": 1, _LEAST_MOVE: 1})[_LEAST_MOVE]
        connection.command("admin", {"setParameter": 1, _LEAST_MOVE: 0})
        try:
            yield
        finally:
            with contextlib.suppress(NotReachable, CommandFailed):  # a leader that is gone has it no longer
                connection.command("admin", {"setParameter": 1, _LEAST_MOVE: before})


def _move_primary(router: Connection, database: str, target: str) -> None:
    """Follows https://www.mongodb.com/docs/manual/reference/command/movePrimary/"""
    router.command(
        "admin", {"movePrimary": database, "to": target, "writeConcern": {"w": "majority"}}, timeout=3600
    )


def _emptiest(router: Connection, leaving: str) -> str:
    """The shard with the fewest databases, of those that stay."""
    counted = {
        str(each["_id"]): 0
        for each in sharding.shards(router)
        if each["_id"] != leaving and not each.get("draining")
    }
    found = router.command("config", {"find": "databases", "projection": {"primary": 1}, "batchSize": 10_000})
    for each in found["cursor"]["firstBatch"]:
        if each.get("primary") in counted:
            counted[each["primary"]] += 1
    return min(sorted(counted), key=lambda name: counted[name])


def remove_router(loaded: Loaded, name: str, router: str, say: Say) -> None:
    """Stop and remove the last router; the others keep their numbers.

    Raises ProvisionError: it is not the last one, or the only one.
    """
    from dataclasses import replace

    doing = f"removing {router} from {name}"
    extent = _extent(loaded, name, f"removing {router} from")
    last = f"router-{extent.routers}"
    if router != last or extent.routers == 1:
        raise ProvisionError(
            doing,
            "A cluster needs one."
            if extent.routers == 1
            else f"Routers are counted, and {last} is the last one.",
            f"To stop it for a while: invoke cluster.stop {router} --on {name}"
            if extent.routers == 1
            else f"Name that one: invoke cluster.remove-router {last} --on {name}",
        )
    with resizing(loaded, name, say):
        deployment = assembly.deployment(loaded, name)
        remembered.remember(
            loaded.paths, name, {"routers": Flag(extent.routers - 1, f"cluster.remove-router {router}")}
        )
        fewer = replace(extent, routers=extent.routers - 1)
        deployment.remove_nodes([deployment.node(router)], fewer, f"removing {router} of")


def parse_key(text: str) -> dict[str, int | str]:
    """A shard key as typed: ``"country:1,_id:hashed"``; a field without a kind is ranged.

    Raises ProvisionError: it is not a shard key.
    """
    key: dict[str, int | str] = {}
    for part in text.split(","):
        before, colon, after = part.rpartition(":")
        field, kind = (before.strip(), after.strip()) if colon else (part.strip(), "1")
        if not re.fullmatch(r"[^$\s][^\s]*", field) or kind not in ("1", "hashed") or field in key:
            raise ProvisionError(
                f"reading the shard key {text!r}",
                f"{part.strip()!r} is not a field of one.",
                "Write field:1 or field:hashed, with commas between: --key 'country:1,_id:hashed'",
            )
        key[field] = 1 if kind == "1" else "hashed"
    return key


def shard_collection(deployment: Deployment, wanted: ShardedCollection) -> bool:
    """Shard a collection. One that has documents gets the index that its key needs.

    Follows https://www.mongodb.com/docs/manual/reference/command/shardCollection/

    Returns: Whether it was sharded now; False: it was, by this key.
    Raises ProvisionError: it is sharded by another key, or the cluster refused.
    """
    doing = f"sharding {wanted.namespace}"
    database, _, collection = wanted.namespace.partition(".")
    if not database or not collection:
        raise ProvisionError(
            doing, f"{wanted.namespace!r} is not a namespace.", "Write database.collection: flaskbook.user"
        )
    with routed(deployment, doing) as router:
        try:
            has_documents = router.command(database, {"find": collection, "limit": 1})["cursor"]["firstBatch"]
            if has_documents and sharding.entry(router, wanted.namespace) is None:
                name = "_".join(f"{field}_{kind}" for field, kind in wanted.key.items())
                index: dict[str, Any] = {"key": dict(wanted.key), "name": name}
                if wanted.unique and set(wanted.key) != {"_id"}:
                    index["unique"] = True
                if dict(wanted.key) != {"_id": 1}:
                    router.command(database, {"createIndexes": collection, "indexes": [index]}, timeout=3600)
        except CommandFailed as refusal:
            raise ProvisionError(
                doing, str(refusal), "Choose another key, or correct the documents."
            ) from None
        return sharding.shard_collection(router, wanted)


def shard_key(deployment: Deployment, namespace: str) -> dict[str, Any] | None:
    """The key that a collection is sharded by; None: it is not sharded."""
    if not deployment.topology.is_sharded:
        return None
    with routed(deployment, f"reading the shard key of {namespace}") as router:
        present = sharding.entry(router, namespace)
    return dict(present["key"]) if present else None


def shard_again(deployment: Deployment, namespace: str, key: Mapping[str, Any]) -> None:
    """Shard a collection that was dropped: as the settings say, if they say it by this key; else by the key alone.

    Raises ProvisionError: as `shard_collection`.
    """
    declared = {each.namespace: each for each in deployment.collections}.get(namespace)
    same = declared is not None and dict(declared.key) == dict(key)
    wanted = declared if declared is not None and same else ShardedCollection(namespace, dict(key))
    shard_collection(deployment, wanted)


def distribution(deployment: Deployment, namespace: str = "") -> dict[str, list[ShardShare]]:
    """Documents, bytes and chunks of collections on each shard.

    `namespace`: ``database.collection``; empty: every sharded collection.

    Returns: Namespace → each shard's share.
    Raises ProvisionError: there is no such collection, or the cluster does not answer.
    """
    doing = f"reading the distribution of {namespace or deployment.name}"
    with routed(deployment, doing) as router:
        known = sharding.sharded_namespaces(router)
        try:
            return {
                each: sharding.distribution(router, each) for each in ([namespace] if namespace else known)
            }
        except CommandFailed as refusal:
            raise ProvisionError(
                doing,
                "There is no such collection." if "not found" in refusal.message else f"{refusal.message}.",
                f"The sharded collections are: {', '.join(known) or 'none'}{did_you_mean(namespace, known)}.",
            ) from None


@contextlib.contextmanager
def routed(deployment: Deployment, doing: str) -> Iterator[Connection]:
    """A connection to a router that answers, as a user who may manage the cluster.

    Raises ProvisionError: the deployment has no router, or none answers.
    """
    if not deployment.topology.is_sharded:
        raise ProvisionError(
            doing,
            f"{deployment.name} is not a sharded cluster.",
            "Name one that is, with --on; `invoke settings --key deployments` lists them.",
        )
    for node in deployment.topology.routers:
        try:
            connection = deployment.dial(node)
        except (NotReachable, CommandFailed):
            continue
        with connection:
            try:
                yield connection
            except NotReachable as problem:
                raise ProvisionError(
                    doing,
                    f"{node.name} broke the connection: {problem}.",
                    f"Look at it: invoke status --on {deployment.name}",
                ) from None
        return
    raise not_running(deployment, doing)


def not_running(deployment: Deployment, doing: str) -> ProvisionError:
    """The error for work on a deployment that does not answer."""
    look = deployment.look(deployment.topology.nodes)
    running = look.running
    if not running:
        try:
            look.certain(doing)
        except ProvisionError as unknown:
            return unknown
    return ProvisionError(
        doing,
        f"{deployment.name} {'does not answer' if running else 'is not running'}.",
        f"Look at it: invoke status --on {deployment.name}"
        if running
        else f"Start it: invoke start --on {deployment.name}",
    )


def uri(deployment: Deployment, database: str, audience: str, node: str, user: str) -> str:
    """A connection string for an audience.

    Args:
        database: the default database; empty: none.
        audience: ``host``, ``container`` or ``direct``.
        node: of ``direct``, the node; empty: the first that clients connect to.
        user: ``app`` or ``root``, with its password; empty: nobody.

    Raises ProvisionError: an argument is not known, or nobody of that audience could reach it.
    """
    doing = f"making a connection string of {deployment.name}"
    if audience not in ("host", "container", "direct"):
        raise ProvisionError(doing, f"--for {audience} is not known.", "Use host, container or direct.")
    if user not in ("", "app", "root"):
        raise ProvisionError(doing, f"--user {user} is not known.", "Its users are app and root.")
    if node and audience == "host":
        audience = "direct"
    if audience == "container" and not deployment.backend.capabilities.containers:
        raise ProvisionError(
            doing,
            "Its nodes are processes that listen on loopback, which no container reaches.",
            f"Make one for this machine: invoke uri --for host --on {deployment.name}\n"
            f"Or set deployments.{deployment.name}.backend in invoke.yaml to docker.",
        )
    direct = None
    if audience == "direct":
        direct = deployment.node(node) if node else deployment.topology.seeds[0]
        audience = "host"
    elif node:
        direct = deployment.node(node)
    return deployment.uri(database, user=user or None, audience=audience, direct=direct)


# Nodes


def nodes(deployment: Deployment, names: str) -> list[Node]:
    """The nodes of a comma-separated list.

    Raises ProvisionError: one is unknown, or none is named.
    """
    named = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    wanted = [deployment.node(name) for name in named]
    if not wanted:
        raise ProvisionError(
            f"looking up nodes of {deployment.name}",
            "You named none.",
            f"Its nodes are {', '.join(node.name for node in deployment.topology.nodes)}.",
        )
    return wanted


def start(deployment: Deployment, wanted: Sequence[Node]) -> list[str]:
    """Start nodes that are down, and wait until they answer.

    Returns: Names of those that were started.
    Raises ProvisionError: one can't be started, or died.
    """
    look = deployment.look(wanted)
    look.certain(f"starting {_names(wanted)} of {deployment.name}")
    missing = look.ended
    if missing:
        deployment.start_nodes(missing)
    for node in missing:
        deployment.until_listening(node)
    return [node.name for node in missing]


def stop(deployment: Deployment, wanted: Sequence[Node], say: Say) -> list[str]:
    """Stop nodes. A primary hands over first, so that its set goes on without waiting for an election.

    Returns: Names of those that were stopped.
    Raises ProvisionError: nobody can say whether one runs; nothing was stopped.
    """
    look = deployment.look(wanted)
    look.certain(f"stopping {_names(wanted)} of {deployment.name}")
    running = look.running
    for node in running:
        members = deployment.topology.set_of(node)
        others = [each for each in members.members if each not in running] if members else []
        if members and sum(not each.arbiter for each in others) and len(others) > len(members.members) // 2:
            with contextlib.suppress(NotReachable, CommandFailed), deployment.dial(node, 2.0) as connection:
                if connection.command("admin", {"hello": 1}).get("isWritablePrimary"):
                    say(
                        f"{members.name}: {hand_over(deployment, members, connection, node).name} is primary now"
                    )
        deployment.stop_node(node)
    return [node.name for node in running]


def kill(deployment: Deployment, wanted: Sequence[Node]) -> list[str]:
    """End nodes as a crash would.

    Returns: Names of those that ran.
    Raises ProvisionError: nobody can say whether one runs; none was ended.
    """
    look = deployment.look(wanted)
    look.certain(f"killing {_names(wanted)} of {deployment.name}")
    running = look.running
    for node in running:
        deployment.kill_node(node)
    return [node.name for node in running]


def pause(deployment: Deployment, wanted: Sequence[Node], paused: bool) -> list[str]:
    """Freeze nodes, or let them go on; returns their names.

    Raises ProvisionError: one does not run.
    """
    with deployment.holding("pausing nodes of" if paused else "resuming nodes of"):
        for node in wanted:
            deployment.backend.pause(node, paused)
    return [node.name for node in wanted]


def isolate(deployment: Deployment, wanted: Sequence[Node], isolated: bool) -> list[str]:
    """Cut nodes off their network, or connect them again (Docker only).

    Returns: Names of those for which that changed anything.
    Raises ProvisionError: they are processes, or one does not run.
    """
    backend = in_containers(deployment.backend)
    if backend is None:
        raise ProvisionError(
            f"{'isolating' if isolated else 'connecting'} nodes of {deployment.name}",
            f"The nodes of {deployment.name} are processes: they have no network of their own to be cut off.",
            f"Freeze one instead: invoke cluster.pause {deployment.node().name} --on {deployment.name}\n"
            f"Or set deployments.{deployment.name}.backend in invoke.yaml to docker.",
        )
    with deployment.holding("cutting off nodes of" if isolated else "connecting nodes of"):
        return [node.name for node in wanted if backend.isolate(node, isolated)]


def step_down(deployment: Deployment, name: str) -> tuple[Node, Node]:
    """Have the primary of a replica set step down, and wait for the new one.

    Follows https://www.mongodb.com/docs/manual/reference/command/replSetStepDown/

    Returns: The former primary and the new one.
    Raises ProvisionError: there is no such set, no primary, nobody to take over, or no new primary in time.
    """
    doing = f"stepping down the primary of {name}"
    sets = {each.name: each for each in deployment.topology.all_sets}
    if name not in sets:
        raise ProvisionError(
            doing,
            f"The replica sets of {deployment.name} are: {', '.join(sets) or 'none'}.",
            f"Name one of them{did_you_mean(name, sets)}.",
        )
    members = sets[name]
    if sum(not member.arbiter for member in members.members) < 2:
        raise ProvisionError(
            doing,
            "It has one member that holds data: nobody could take over.",
            f"Give it more: invoke cluster.up --members 3 --on {deployment.name}",
        )
    former = deployment.primary(members.members)
    if former is None:
        raise ProvisionError(doing, "It has no primary.", f"Look at it: invoke status --on {deployment.name}")
    try:
        with deployment.dial(former) as connection:
            return former, hand_over(deployment, members, connection, former)
    except (NotReachable, CommandFailed) as refusal:
        raise ProvisionError(
            doing, f"{refusal}.", f"Look at it: invoke status --on {deployment.name}"
        ) from None


def hand_over(deployment: Deployment, members: ReplicaSet, connection: Connection, former: Node) -> Node:
    """As `membership.hand_over`, among the nodes of a deployment; returns the new primary."""

    def elected() -> Node | None:
        found = deployment.primary(members.members)
        return found if found != former else None

    wait = Wait(time.monotonic() + _ELECTION_SECONDS, _ELECTION_SECONDS, lambda: None, list)
    return membership.hand_over(connection, members.name, elected, wait)


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)
