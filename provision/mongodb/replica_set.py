"""Bringing a replica set to the point where its primary takes writes.

https://www.mongodb.com/docs/manual/reference/replication/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provision.errors import ProvisionError
from provision.mongodb.topology import Node, ReplicaSet
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable

_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94
_NOT_PRIMARY_CODES = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})

Dial = Callable[[Node], Connection]


def listening(node: Node, dial: Dial, wait: Wait) -> Connection:
    """Wait until a node accepts connections.

    Args:
        node: the node.
        dial: connects to it.
        wait: how long.

    Returns:
        The open connection; the caller closes it.

    Raises:
        ProvisionError: it died, or did not listen in time.
    """

    def attempt() -> Connection | None:
        try:
            return dial(node)
        except NotReachable:
            return None

    return wait.until(f"{node.name} to listen on port {node.port}", attempt)


def bring_up(replica_set: ReplicaSet, dial: Dial, wait: Wait) -> Connection:
    """Initiate a set where that was never done, and wait until it has a primary that takes writes.

    Follows https://www.mongodb.com/docs/manual/reference/command/replSetInitiate/

    Args:
        replica_set: the set; its nodes are running or starting.
        dial: connects to a node.
        wait: how long.

    Returns:
        A connection to the primary; the caller closes it.

    Raises:
        ProvisionError: a node died, the data belong to another set, or there was no primary in time.
    """
    first = replica_set.members[0]
    connection = listening(first, dial, wait)
    try:
        if not _is_writable(connection):
            _ensure_initiated(replica_set, connection)
        wait.until(f"a primary in replica set {replica_set.name}", lambda: _is_writable(connection) or None)
    except NotReachable as problem:
        connection.close()
        wait.check_alive()
        raise ProvisionError(
            f"bringing up replica set {replica_set.name}",
            f"{first.name} broke the connection: {problem}.",
            "Look at `invoke logs`, then type the command again.",
            wait.log_tail(),
        ) from problem
    except BaseException:
        connection.close()
        raise
    return connection


def prove_writable(connection: Connection, replica_set: ReplicaSet | None, wait: Wait) -> None:
    """Have one write acknowledged by a majority of the members.

    The write is a no-op entry in the oplog, replicated and acknowledged as any other, that leaves no document
    or database behind; a standalone mongod, which has no oplog, journals a document in its own `local` database.

    Args:
        connection: to the primary, or the standalone.
        replica_set: the set, or None for a standalone.
        wait: how long.

    Raises:
        ProvisionError: the write was refused, or not acknowledged in time.
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
            if refusal.code in _NOT_PRIMARY_CODES:
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
        ``PRIMARY``, ``SECONDARY``, ``ARBITER``, ``STANDALONE``, or ``STARTUP`` for a member that is not yet,
        or no longer, in a set.
    """
    if "setName" not in hello:
        return "STARTUP" if hello.get("isreplicaset") else "STANDALONE"
    if hello.get("isWritablePrimary"):
        return "PRIMARY"
    if hello.get("arbiterOnly"):
        return "ARBITER"
    return "SECONDARY" if hello.get("secondary") else "STARTUP"


def _is_writable(connection: Connection) -> bool:
    return bool(connection.command("admin", {"hello": 1}).get("isWritablePrimary"))


def _ensure_initiated(replica_set: ReplicaSet, connection: Connection) -> None:
    first = replica_set.members[0]
    try:
        connection.command(
            "admin",
            {"replSetInitiate": {"_id": replica_set.name, "members": [{"_id": 0, "host": first.address}]}},
        )
    except CommandFailed as refusal:
        if refusal.code != _ALREADY_INITIALIZED:
            raise ProvisionError(
                f"initiating replica set {replica_set.name}", str(refusal), "Look at `invoke logs`."
            ) from refusal
        _adapt_configuration(replica_set, connection)


def _adapt_configuration(replica_set: ReplicaSet, connection: Connection) -> None:
    """Data that were initiated earlier may carry another port or name than the settings have now."""
    doing = f"starting replica set {replica_set.name} on data that are there"
    try:
        config = connection.command("admin", {"replSetGetConfig": 1})["config"]
    except CommandFailed as refusal:
        if refusal.code == _NOT_YET_INITIALIZED:
            raise ProvisionError(
                doing,
                f"The data directory belongs to a replica set of another name than {replica_set.name!r}.",
                "Set `replica_set` in invoke.yaml to the name it had, or use another data directory (paths.data).\n"
                "Nothing has been changed.",
            ) from refusal
        raise
    planned = {member.address for member in replica_set.members}
    present = {member["host"] for member in config["members"]}
    if planned != present and len(planned) == len(present) == 1:
        config["members"][0]["host"] = replica_set.members[0].address
        config["version"] += 1
        connection.command("admin", {"replSetReconfig": config, "force": True})
