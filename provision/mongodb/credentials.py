"""Who to be on a server. Pure data."""

from __future__ import annotations

from dataclasses import field

from provision.core.dataclass import dataclass


@dataclass(frozen=True)
class Credentials:
    """Who to be on a server."""

    username: str
    password: str = field(repr=False)  # its password; kept out of every representation
    source: str = "admin"  # the database that knows the user
