"""Bringing a replica set to the point where its primary takes writes.

https://www.mongodb.com/docs/manual/reference/replication/
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

from provision.core.errors import ProvisionError
from provision.mongodb.membership import ARBITER, LATER, MOST_VOTERS, RECONFIGURE_LATER, add, reconfigure
from provision.mongodb.redial import Redialled
from provision.mongodb.topology import Node, ReplicaSet, Role
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable, Server

_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94  # it has data, and has not read its set's configuration yet
HEALTHY = frozenset({"PRIMARY", "SECONDARY", "ARBITER", "STANDALONE", "ROUTER"})

_STEP_UP_SECONDS = 0.3
# Members learn of each other, and get their votes, at heartbeats: frequent ones while a new set grows, then the default.
# A new member looks for another one to copy from 10 ms after it joined; if it has not heard from it twice by then, it
# waits for a second. A new set's members hear of each other four times in each of these intervals.
_BRING_UP_HEARTBEAT_MS = 20
_DEFAULT_HEARTBEAT_MS = 2000
_SETTLE_MS = 100
_ROLLBACK_SECONDS = (
    10.0  # who has nothing of the present primary after that is behind, and catches up while it serves
)

Dial = Callable[[Node], Connection]


def listening(node: Node, dial: Dial, wait: Wait) -> Connection:
    """Wait until a node accepts connections.

    Returns: The open connection; the caller closes it.
    Raises ProvisionError: it died, or did not listen in time.
    """

    def attempt() -> Connection | None:
        try:
            return dial(node)
        except NotReachable:
            return None

    return wait.until(f"{node.name} to listen on port {node.port}", attempt)


def steady(node: Node, dial: Dial, wait: Wait) -> Redialled:
    """A connection to a node that is opened again whenever it breaks, while the node lives.

    `node`: the node; it listens, or is starting.
    """
    return Redialled(lambda: listening(node, dial, wait), wait, node.name)


def bring_up(replica_set: ReplicaSet, dial: Dial, wait: Wait, initiated: bool) -> Redialled:
    """Initiate a set where that was never done, and wait until it has a primary.

    A set is initiated with its first member alone, which elects itself at once; `complete` adds the others.
    Follows https://www.mongodb.com/docs/manual/reference/command/replSetInitiate/

    Args:
        replica_set: the set; its nodes are running or starting.
        initiated: the set is known to have been initiated before. Then a first member without data is not taken
            for a new set: it waits for the others, and gets its data from them.

    Returns: A connection to whichever member is primary, also later; the caller closes it.
    Raises ProvisionError: a node died, the data belong to another set, or there was no primary in time.
    """
    first = replica_set.members[0]
    if not initiated or len(replica_set.members) == 1:
        with steady(first, dial, wait) as connection:
            if not _hello(connection).get("isWritablePrimary"):
                wait.until(
                    f"replica set {replica_set.name} to be initiated",
                    lambda: _ensure_initiated(replica_set, connection),
                )

    def dial_primary() -> Connection:
        return primary(replica_set, dial, wait, may_initiate=True)

    found = Redialled(dial_primary, wait, f"the primary of {replica_set.name}")
    found.open()
    return found


def primary(replica_set: ReplicaSet, dial: Dial, wait: Wait, may_initiate: bool = False) -> Connection:
    """Wait until one of the members is a primary that takes writes.

    Args:
        may_initiate: initiate the set again once every one of its members answers that it has no data: they were
            deleted behind our back, and no member is left to give them.

    Returns: A connection to it; the caller closes it.
    Raises ProvisionError: a node died, or there was no primary in time.
    """
    open_: dict[str, Connection] = {}
    asked = 0.0

    def attempt() -> Connection | None:
        nonlocal asked
        secondaries: dict[str, dict[str, Any]] = {}
        empty = 0
        for member in replica_set.members:
            if member.arbiter:
                continue
            try:
                connection = open_.get(member.name) or open_.setdefault(member.name, dial(member))
                hello = _hello(connection)
            except (NotReachable, CommandFailed):
                if (broken := open_.pop(member.name, None)) is not None:
                    broken.close()
                continue
            if hello.get("isWritablePrimary"):
                return open_.pop(member.name)
            if hello.get("secondary"):
                secondaries[member.name] = hello
            empty += bool(hello.get("isreplicaset"))
        if may_initiate and empty == sum(not member.arbiter for member in replica_set.members):
            first = replica_set.members[0].name
            try:
                _ensure_initiated(replica_set, open_[first])
            except NotReachable:
                open_.pop(first).close()
            return None
        enough = len(secondaries) > len(replica_set.members) // 2
        if enough and time.monotonic() - asked > _STEP_UP_SECONDS:
            asked = time.monotonic()
            _elect(secondaries, open_)
        return None

    try:
        return wait.until(f"a primary in replica set {replica_set.name}", attempt)
    finally:
        for connection in open_.values():
            connection.close()


def _elect(secondaries: dict[str, dict[str, Any]], connections: dict[str, Connection]) -> None:
    """Have the most recent of a set's secondaries stand for election now.

    A set that was stopped as a whole would wait ten seconds, the election timeout, for a primary that is not
    coming back.
    """

    def recency(name: str) -> tuple[int, int]:
        written = secondaries[name].get("lastWrite", {}).get("opTime", {}).get("ts")
        return (written.time, written.inc) if written is not None else (0, 0)

    name = max(secondaries, key=recency)
    try:
        connections[name].command("admin", {"replSetStepUp": 1})
    except CommandFailed:
        pass  # the others did not vote for it: they elect one in their own time
    except NotReachable:
        connections.pop(name).close()


def complete(replica_set: ReplicaSet, connection: Server, dial: Dial, wait: Wait) -> tuple[str, ...]:
    """Add the planned members that the set does not have yet, one at a time, as MongoDB wants it.

    Follows https://www.mongodb.com/docs/manual/reference/command/replSetReconfig/

    Args:
        replica_set: the set as planned.
        connection: to its primary.

    Returns: Names of the members that were added.
    Raises ProvisionError: a member died or could not be added in time.
    """
    added = []
    for member in replica_set.members:
        config = connection.command("admin", {"replSetGetConfig": 1})["config"]
        if any(each["host"] == member.address for each in config["members"]):
            continue
        listening(member, dial, wait).close()
        if member.arbiter:
            _set_default_write_concern(replica_set, connection)
        kind = ARBITER if member.arbiter else {}
        wait.until(
            f"{member.name} to join {replica_set.name}",
            functools.partial(add, connection, member.address, kind),
        )
        added.append(member.name)
    return tuple(added)


def healthy(replica_set: ReplicaSet, connection: Server, dial: Dial, wait: Wait) -> None:
    """Wait until every member is a primary, a secondary or an arbiter, follows the same primary, and has its vote.

    A primary that was paused says it is one until it hears of the one that was elected since. Then it follows that one,
    and a moment later it rolls back what only it had. A member that was added gets its vote only when the primary has seen
    its data complete; until then, the set could not elect another primary if it lost this one.

    `connection`: to its primary.

    Raises ProvisionError: a member died, or was not healthy in time.
    """
    with contextlib.ExitStack() as opened:
        members = [opened.enter_context(steady(member, dial, wait)) for member in replica_set.members]

        patience = min(time.monotonic() + _ROLLBACK_SECONDS, wait.deadline)

        def agree() -> bool | None:
            hellos = [_hello(each) for each in members]
            followed = {hello.get("primary") for hello in hellos}
            if len(followed) > 1 or None in followed or not all(_well(each) for each in hellos):
                return None
            return len(_terms(hellos)) < 2 or time.monotonic() > patience or None

        for member, direct in zip(replica_set.members, members, strict=True):
            wait.until(
                f"{member.name} to become a healthy member of {replica_set.name}",
                lambda c=direct: _well(_hello(c)) or None,  # type: ignore[misc]
            )
        wait.until(f"the members of {replica_set.name} to follow one primary", agree)
    voters = min(len(replica_set.members), MOST_VOTERS)

    def have_votes() -> bool | None:
        status = connection.command("admin", {"replSetGetStatus": 1})
        return int(status.get("votingMembersCount", voters)) >= voters or None

    wait.until(f"the members of {replica_set.name} to have their votes", have_votes)
    wait.until(f"{replica_set.name} to settle", lambda: _settle(connection))


def _well(hello: dict[str, Any]) -> bool:
    return state(hello) in HEALTHY


def _terms(hellos: Iterable[dict[str, Any]]) -> set[int]:
    """In which primary's time the last write was made that each member has.

    Each primary writes when it is elected. Who has no write of the present one may have to roll back, or is far behind.
    """
    return {
        hello["lastWrite"]["opTime"]["t"]
        for hello in hellos
        if "lastWrite" in hello and not hello.get("arbiterOnly")
    }


def _settle(connection: Server) -> bool | None:
    """Give a set that was brought up the heartbeat that MongoDB has by default.

    The members fetch that configuration at once, but report so at their next heartbeat, which is now rare: that is not
    waited for, as the primary has it on disk.
    """
    config = connection.command("admin", {"replSetGetConfig": 1})["config"]
    if config.get("settings", {}).get("heartbeatIntervalMillis") != _BRING_UP_HEARTBEAT_MS:
        return True
    config["settings"]["heartbeatIntervalMillis"] = _DEFAULT_HEARTBEAT_MS
    config["version"] += 1
    return reconfigure(connection, config, _SETTLE_MS)


def prove_writable(connection: Server, replica_set: ReplicaSet | None, wait: Wait) -> None:
    """Have one write acknowledged by a majority of the members.

    The write is a no-op entry in the oplog, replicated and acknowledged as any other, that leaves no document
    or database behind; a standalone mongod, which has no oplog, journals a document in its own `local` database.

    Args:
        connection: to the primary, or the standalone.
        replica_set: the set, or None for a standalone.

    Raises ProvisionError: the write was refused, or not acknowledged in time.
    """

    def attempt() -> bool | None:
        try:
            if replica_set is None:
                connection.command(
                    "local",
                    {
                        "update": "provision",
                        "updates": [{"q": {"_id": "writable"}, "u": {"_id": "writable"}, "upsert": True}],
                        "writeConcern": {"w": 1, "j": True},
                    },
                )
            else:
                connection.command(
                    "admin",
                    {
                        "appendOplogNote": 1,
                        "data": {"msg": "writable"},
                        "writeConcern": {"w": "majority", "wtimeout": 5000},
                    },
                )
        except CommandFailed as refusal:
            if refusal.code in LATER:
                return None
            raise ProvisionError(
                "proving that the deployment takes writes",
                str(refusal),
                "Look at `invoke logs`.",
                wait.log_tail(),
            ) from refusal
        return True

    wait.until("an acknowledged majority write", attempt)


def state(hello: dict[str, Any]) -> str:
    """A node's state as MongoDB names it, from its answer to `hello`.

    Returns:
        ``PRIMARY``, ``SECONDARY``, ``ARBITER``, ``STANDALONE``, ``ROUTER``, or ``STARTUP`` for a member that is not yet,
        or no longer, in a set.
    """
    if hello.get("msg") == "isdbgrid":
        return "ROUTER"
    if "setName" not in hello:
        return "STARTUP" if hello.get("isreplicaset") else "STANDALONE"
    if hello.get("isWritablePrimary"):
        return "PRIMARY"
    if hello.get("arbiterOnly"):
        return "ARBITER"
    return "SECONDARY" if hello.get("secondary") else "STARTUP"


def _hello(connection: Server) -> dict[str, Any]:
    return connection.command("admin", {"hello": 1})


def _set_default_write_concern(replica_set: ReplicaSet, connection: Server) -> None:
    """An arbiter may make a majority unreachable, so MongoDB wants the default said before it takes one.

    https://www.mongodb.com/docs/manual/reference/command/setDefaultRWConcern/
    """
    bearing = sum(not member.arbiter for member in replica_set.members)
    majority = len(replica_set.members) // 2 + 1
    concern: dict[str, Any] = {"w": "majority" if bearing >= majority else 1}
    connection.command(
        "admin", {"setDefaultRWConcern": 1, "defaultWriteConcern": concern, "writeConcern": {"w": 1}}
    )


def _ensure_initiated(replica_set: ReplicaSet, connection: Server) -> bool | None:
    """Initiate a set with its first member; None: that can't be done now, ask again."""
    first = replica_set.members[0]
    config: dict[str, Any] = {"_id": replica_set.name, "members": [{"_id": 0, "host": first.address}]}
    if first.role is Role.CONFIG:
        config["configsvr"] = True
    if len(replica_set.members) > 1:
        config["settings"] = {"heartbeatIntervalMillis": _BRING_UP_HEARTBEAT_MS}
    try:
        connection.command("admin", {"replSetInitiate": config})
    except CommandFailed as refusal:
        if refusal.code in LATER:
            return None
        if refusal.code != _ALREADY_INITIALIZED:
            raise ProvisionError(
                f"initiating replica set {replica_set.name}", str(refusal), "Look at `invoke logs`."
            ) from refusal
        try:
            _adapt_configuration(replica_set, connection)
        except CommandFailed as problem:
            if problem.code != _NOT_YET_INITIALIZED and problem.code not in RECONFIGURE_LATER:
                raise ProvisionError(
                    f"starting replica set {replica_set.name} on data that are there",
                    str(problem),
                    "Look at `invoke logs`.",
                ) from problem
            return None
    return True


def _adapt_configuration(replica_set: ReplicaSet, connection: Server) -> None:
    """Data that were initiated earlier may carry another port or name than the settings have now."""
    doing = f"starting replica set {replica_set.name} on data that are there"
    config = connection.command("admin", {"replSetGetConfig": 1})["config"]
    if config["_id"] != replica_set.name:
        raise ProvisionError(
            doing,
            f"The data directory belongs to the replica set {config['_id']!r}, not to {replica_set.name!r}. "
            "It is untouched.",
            f"Set `replica_set` in invoke.yaml to {config['_id']}, or use another data directory (paths.data).",
        )
    planned = {member.address for member in replica_set.members}
    present = {member["host"] for member in config["members"]}
    if planned != present and len(planned) == len(present) == 1:
        config["members"][0]["host"] = replica_set.members[0].address
        config["version"] += 1
        connection.command("admin", {"replSetReconfig": config, "force": True})
