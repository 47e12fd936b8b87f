"""Which server a test wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from provision.core.dataclass import dataclass

Topology = Literal["single", "replica-set", "sharded"]
TOPOLOGIES: tuple[Topology, ...] = ("single", "replica-set", "sharded")
SCHEMES = ("mongodb://", "mongodb+srv://")
_MARKER_KEYS = ("topology", "shards", "members", "standalone", "auth")


class RequestError(ValueError):
    """What was asked for contradicts itself or does not exist; the message says what is allowed."""


@dataclass(frozen=True)
class Request:
    """A server."""

    # ``processes``, ``container``, or the connection string of a server that is running
    source: str = "processes"
    topology: Topology = "single"  # ``single``, ``replica-set`` or ``sharded``
    shards: int = 2  # shards of a sharded cluster
    # data-bearing members of a replica set, or of each shard; None: 3, or 1 for each shard
    members: int | None = None
    # a single mongod that is not a replica set; it has no transactions and no change streams
    standalone: bool = False
    auth: bool = False  # it has a root user, whose password is made for this run
    image: str = ""  # Docker image of a container

    @property
    def kind(self) -> Literal["processes", "container", "uri"]:
        """Where it comes from."""
        if self.source == "processes":
            return "processes"
        return "container" if self.source == "container" else "uri"

    @property
    def key(self) -> str:
        """Names the server among those of a run; equal for tests that can share one."""
        parts: list[str] = [self.topology]
        if self.topology == "sharded":
            parts.append(str(self.shards))
        if self.topology != "single":
            parts.append(f"x{self.data_members}")
        if self.standalone:
            parts.append("standalone")
        if self.auth:
            parts.append("auth")
        return "-".join(parts)

    @property
    def data_members(self) -> int:
        """Data-bearing members of each replica set."""
        if self.topology == "single":
            return 1
        if self.members is not None:
            return self.members
        return 3 if self.topology == "replica-set" else 1

    def checked(self) -> Request:
        """The request itself.

        Raises RequestError: it can't be fulfilled by anything.
        """
        if self.source not in ("processes", "container") and not self.source.startswith(SCHEMES):
            raise RequestError(
                f"--mongodb={_without_password(self.source)}: it is processes, container, or a connection string "
                "that begins with mongodb:// or mongodb+srv://"
            )
        if self.topology not in TOPOLOGIES:
            raise RequestError(f"topology {self.topology!r}: it is one of {', '.join(TOPOLOGIES)}")
        for name, value, most in (("shards", self.shards, 20), ("members", self.data_members, 50)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise RequestError(f"{name} is {value!r}: it is a whole number from 1 to {most}")
        if self.topology == "single" and self.members not in (None, 1):
            raise RequestError("members: a single mongod is one; ask for topology replica-set")
        if self.standalone and self.topology != "single":
            raise RequestError(f"standalone: a {self.topology} is none; leave out one of the two")
        if self.kind == "container" and self.topology != "single":
            raise RequestError(
                f"--mongodb=container runs one node, and {self.topology} was asked for: use --mongodb=processes, or give "
                "the connection string of one that is running (`invoke cluster.up` starts one in Docker)"
            )
        return self

    def changed_by(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Request:
        """The request with what a marker ``@pytest.mark.mongodb(...)`` says."""
        unknown = [*map(repr, arguments), *(name for name in keywords if name not in _MARKER_KEYS)]
        if unknown:
            raise RequestError(
                f"@pytest.mark.mongodb takes the keywords {', '.join(_MARKER_KEYS)}, not {', '.join(unknown)}"
            )
        base = self
        if "topology" in keywords and keywords["topology"] != "single" and "standalone" not in keywords:
            base = replace(base, standalone=False)
        return replace(base, **keywords).checked()


def _without_password(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if separator else text
