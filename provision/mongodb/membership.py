"""The members of a replica set as its primary sees them, and changing which there are.

https://www.mongodb.com/docs/manual/administration/replica-set-member-configuration/
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from provision.core.dataclass import dataclass
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable, Server

# Not a primary now, shutting down, or being elected: worth asking again.
LATER = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})

# ConfigurationInProgress, NewReplicaSetConfigurationIncompatible (the last one is not yet everywhere), NodeNotFound
# (it does not answer yet), CurrentConfigNotCommittedYet, MaxTimeMSExpired, and a primary that is just being elected.
RECONFIGURE_LATER = frozenset({109, 103, 74, 308, 50}) | LATER
MOST_VOTERS = 7
ARBITER: Mapping[str, Any] = {"arbiterOnly": True, "priority": 0}
_RECONFIG_MS = 5000
_STEP_DOWN_SECONDS = 60
# The primary's data must be elsewhere before it steps down; where none has them within this, it stays.
_CATCH_UP_SECONDS = 10
T = TypeVar("T")
_WELL = frozenset({"PRIMARY", "SECONDARY", "ARBITER"})
# What a member keeps when it goes elsewhere. Its vote it gets when it has the data.
_KEPT = ("priority", "hidden", "tags", "secondaryDelaySecs", "buildIndexes", "arbiterOnly")


@dataclass(frozen=True)
class Member:
    """A member of a replica set as its primary sees it."""

    address: str  # ``host:port``
    state: str  # MongoDB's name for its state; ``(not reachable/healthy)`` for one that does not answer
    # how far its data go: seconds since 1970, and a count within that second; an arbiter's are zeros
    written: tuple[int, int]

    @property
    def is_well(self) -> bool:
        return self.state in _WELL


@dataclass(frozen=True)
class Seen:
    """A replica set as its primary sees it."""

    members: Mapping[str, Member]  # address → member
    voters: int  # how many of them vote now
    # how many have a vote in its configuration. A member that was added gets it when its data are complete
    votes: int

    def lacks(self, addresses: Collection[str]) -> list[str]:
        """What keeps the set from being whole, a clause each; empty: it is. Pure.

        `addresses`: of the members that it should have.
        """
        found = [f"{each} is not a member of it" for each in addresses if each not in self.members]
        found += [
            f"{each.address} is {each.state}"
            for each in self.members.values()
            if each.address in addresses and not each.is_well
        ]
        if not found and self.voters < self.votes:
            found.append(f"only {self.voters} of {self.votes} members vote yet")
        return found

    @property
    def written(self) -> tuple[int, int]:
        """How far the primary's data go."""
        return max(
            (each.written for each in self.members.values() if each.state == "PRIMARY"), default=(0, 0)
        )


def look(primary: Connection) -> Seen:
    """Ask a primary for its set.

    Follows https://www.mongodb.com/docs/manual/reference/command/replSetGetStatus/

    Raises NotReachable, CommandFailed: it does not say.
    """
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    status = primary.command("admin", {"replSetGetStatus": 1})
    votes = sum(each.get("votes", 1) for each in config["members"])
    found = {}
    for each in status["members"]:
        written = getattr(each.get("optime"), "get", lambda _: None)("ts")
        found[each["name"]] = Member(
            each["name"], each["stateStr"], (written.time, written.inc) if written is not None else (0, 0)
        )
    return Seen(found, int(status.get("votingMembersCount", votes)), votes)


def reconfigure(connection: Server, config: dict[str, Any], limit_ms: int = _RECONFIG_MS) -> bool | None:
    """Give a set another configuration.

    Follows https://www.mongodb.com/docs/manual/reference/command/replSetReconfig/

    Args:
        connection: to its primary.
        config: the whole configuration, with its new version.
        limit_ms: how long it may take until a majority of the members has reported it.

    Returns: True: a majority has it. None: not now, or not all in time; read it again, then ask again.
    Raises NotReachable, CommandFailed: it was refused.
    """
    try:
        connection.command("admin", {"replSetReconfig": config, "maxTimeMS": limit_ms})
    except CommandFailed as refusal:
        if refusal.code in RECONFIGURE_LATER:
            return None
        raise
    return True


def entry_of(primary: Connection, address: str) -> dict[str, Any] | None:
    """A member's entry in the set's configuration; None: there is none."""
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    return next((each for each in config["members"] if each["host"] == address), None)


def add(primary: Server, address: str, like: Mapping[str, Any]) -> bool | None:
    """Add a member. It votes when its data are complete, and not before: MongoDB sees to that.

    Follows https://www.mongodb.com/docs/manual/tutorial/expand-replica-set/

    Args:
        address: ``host:port`` of the new member, which listens.
        like: entry of the member that it takes the place of; empty: a new one like any other.

    Returns: True: it is a member. None: not now, ask again.
    Raises NotReachable, CommandFailed: it was refused.
    """
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    if any(each["host"] == address for each in config["members"]):
        return True
    entry: dict[str, Any] = {
        "_id": 1 + max(each["_id"] for each in config["members"]),
        "host": address,
        **{key: like[key] for key in _KEPT if key in like},
    }
    if not like.get("votes", 1) or sum(each.get("votes", 1) for each in config["members"]) >= MOST_VOTERS:
        entry |= {"votes": 0, "priority": 0}
    config["members"].append(entry)
    config["version"] += 1
    return reconfigure(primary, config)


def remove(primary: Connection, address: str) -> bool | None:
    """Take a member out of the set's configuration.

    Follows https://www.mongodb.com/docs/manual/tutorial/remove-replica-set-member/

    Returns: True: it is not a member. None: not now, ask again.
    Raises NotReachable, CommandFailed: it was refused.
    """
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    left = [each for each in config["members"] if each["host"] != address]
    if len(left) == len(config["members"]):
        return True
    config["members"] = left
    config["version"] += 1
    return reconfigure(primary, config)


def give_vote(primary: Connection, address: str, priority: float) -> bool | None:
    """Give a member the vote that it could not have while seven others had theirs.

    `priority`: what it gets with it.

    Returns: True: it has its vote. None: not now, ask again.
    Raises NotReachable, CommandFailed: it was refused.
    """
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    entry = next(each for each in config["members"] if each["host"] == address)
    if entry.get("votes", 1):
        return True
    entry |= {"votes": 1, "priority": priority}
    config["version"] += 1
    return reconfigure(primary, config)


def feature_version(primary: Connection) -> tuple[str, bool]:
    """The feature compatibility version of a mongod, and whether changing it was interrupted.

    Follows https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/
    """
    answer = primary.command("admin", {"getParameter": 1, "featureCompatibilityVersion": 1})
    document = answer["featureCompatibilityVersion"]
    return str(document["version"]), "targetVersion" in document


def is_primary(connection: Connection) -> bool:
    """Whether a node says that it takes writes."""
    try:
        return bool(connection.command("admin", {"hello": 1}).get("isWritablePrimary"))
    except CommandFailed:
        return False


def find_primary(candidates: Iterable[tuple[T, Callable[[], Connection]]]) -> tuple[T, Connection] | None:
    """The first of some nodes that is primary, with an open connection to it; None: none of them is.

    `candidates`: each with what connects to it.
    """
    for node, dial in candidates:
        try:
            connection = dial()
        except (NotReachable, CommandFailed):
            continue
        try:
            if is_primary(connection):
                return node, connection
        except NotReachable:
            pass
        connection.close()
    return None


def hand_over(primary: Connection, replica_set: str, elected: Callable[[], T | None], wait: Wait) -> T:
    """Have a primary step down, once another member has its writes, and wait for the new one.

    Follows https://www.mongodb.com/docs/manual/reference/command/replSetStepDown/

    `elected`: returns the new primary; None: there is none yet.

    Raises:
        NotReachable: the connection broke.
        CommandFailed: it refused; it stays primary.
        ProvisionError: no other member was elected in time.
    """
    command = {"replSetStepDown": _STEP_DOWN_SECONDS, "secondaryCatchUpPeriodSecs": _CATCH_UP_SECONDS}
    primary.command("admin", command, timeout=_CATCH_UP_SECONDS + 10.0)
    return wait.until(f"a new primary in {replica_set}", elected)
