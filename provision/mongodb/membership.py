"""The members of a replica set as its primary sees them, and changing which there are.

https://www.mongodb.com/docs/manual/administration/replica-set-member-configuration/
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from provision.mongodb import replica_set as replication
from provision.mongodb.wire import CommandFailed, Connection

_WELL = frozenset({"PRIMARY", "SECONDARY", "ARBITER"})
# What a member keeps when it goes elsewhere. Its vote it gets when it has the data.
_KEPT = ("priority", "hidden", "tags", "secondaryDelaySecs", "buildIndexes", "arbiterOnly")


@dataclass(frozen=True)
class Member:
    """A member of a replica set as its primary sees it.

    Args:
        address: ``host:port``.
        state: MongoDB's name for its state; ``(not reachable/healthy)`` for one that does not answer.
        written: how far its data go: seconds since 1970, and a count within that second; an arbiter's are zeros.
    """

    address: str
    state: str
    written: tuple[int, int]

    @property
    def is_well(self) -> bool:
        return self.state in _WELL


@dataclass(frozen=True)
class Seen:
    """A replica set as its primary sees it.

    Args:
        members: address → member.
        voters: how many of them vote now.
        votes: how many have a vote in its configuration. A member that was added gets it when its data are complete.
    """

    members: Mapping[str, Member]
    voters: int
    votes: int

    def lacks(self, addresses: Collection[str]) -> list[str]:
        """What keeps the set from being whole, a clause each; empty: it is. Pure.

        Args:
            addresses: of the members that it should have.
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

    Args:
        primary: connection to it.

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


def entry_of(primary: Connection, address: str) -> dict[str, Any] | None:
    """A member's entry in the set's configuration; None: there is none."""
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    return next((each for each in config["members"] if each["host"] == address), None)


def add(primary: Connection, address: str, like: Mapping[str, Any]) -> bool | None:
    """Add a member. It votes when its data are complete, and not before: MongoDB sees to that.

    Follows https://www.mongodb.com/docs/manual/tutorial/expand-replica-set/

    Args:
        primary: connection to the set's primary.
        address: ``host:port`` of the new member, which listens.
        like: entry of the member that it takes the place of.

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
    if (
        not like.get("votes", 1)
        or sum(each.get("votes", 1) for each in config["members"]) >= replication.MOST_VOTERS
    ):
        entry |= {"votes": 0, "priority": 0}
    config["members"].append(entry)
    config["version"] += 1
    return replication.reconfigure(primary, config)


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
    return replication.reconfigure(primary, config)


def give_vote(primary: Connection, address: str, priority: float) -> bool | None:
    """Give a member the vote that it could not have while seven others had theirs.

    Args:
        primary: connection to the set's primary.
        address: of the member.
        priority: what it gets with it.

    Returns: True: it has its vote. None: not now, ask again.
    Raises NotReachable, CommandFailed: it was refused.
    """
    config = primary.command("admin", {"replSetGetConfig": 1})["config"]
    entry = next(each for each in config["members"] if each["host"] == address)
    if entry.get("votes", 1):
        return True
    entry |= {"votes": 1, "priority": priority}
    config["version"] += 1
    return replication.reconfigure(primary, config)


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
