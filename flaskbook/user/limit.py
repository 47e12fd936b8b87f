"""Rate limits, counted in the database so that all processes and hosts share them.

An attempt is counted before it is examined, so parallel attempts can't slip through, and taken back when it
succeeds. Nothing here looks at whether an e-mail address has an account: a limit is reached in the same way
for any text.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import current_app
from pymongo import ReturnDocument
from werkzeug.exceptions import TooManyRequests

from flaskbook.user.model import Attempts


@dataclass(frozen=True)
class Limit:
    """At most ``maximum`` attempts of this ``kind`` and ``subject`` in one window."""

    kind: str
    subject: str
    maximum: int


def log_in_limits(email: str, client: str) -> tuple[Limit, ...]:
    """Return the limits on trying a password for ``email`` (normalised) from the address ``client``."""
    config = current_app.config
    return (
        Limit("log-in", f"{email}\n{client}", config["LOGIN_LIMIT_PER_EMAIL_AND_CLIENT"]),
        Limit("log-in-email", email, config["LOGIN_LIMIT_PER_EMAIL"]),
        Limit("log-in-client", client, config["LOGIN_LIMIT_PER_CLIENT"]),
    )


def claim_limits(client: str) -> tuple[Limit, ...]:
    """Return the limits on asking for an e-mail address, at sign-up or later, from the address ``client``."""
    return (Limit("claim", client, current_app.config["CLAIM_LIMIT_PER_CLIENT"]),)


def count(limits: tuple[Limit, ...]) -> tuple[str, ...]:
    """Count one attempt against each limit.

    Returns what to hand to :func:`take_back` if the attempt succeeds. Raises TooManyRequests with the seconds
    to wait.
    """
    window = current_app.config["LIMIT_WINDOW_SECONDS"]
    number, elapsed = divmod(time.time(), window)
    expires = datetime.fromtimestamp((number + 1) * window, UTC)
    collection = Attempts._get_collection()
    keys = tuple(_key(limit, int(number)) for limit in limits)
    for limit, key in zip(limits, keys, strict=True):
        document = collection.find_one_and_update(
            {"_id": key},
            {"$inc": {"count": 1}, "$setOnInsert": {"expires": expires}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if document is not None and document["count"] > limit.maximum:
            wait = int(window - elapsed) + 1
            minutes = -(-wait // 60)
            raise TooManyRequests(
                f"That was tried too often. Please wait {minutes} minute{'s' if minutes > 1 else ''}.",
                retry_after=wait,
            )
    return keys


def take_back(keys: tuple[str, ...]) -> None:
    """Uncount a successful attempt, so that only failures use limits up."""
    Attempts._get_collection().update_many({"_id": {"$in": list(keys)}}, {"$inc": {"count": -1}})


def _key(limit: Limit, number: int) -> str:
    # A digest, so that addresses which never had an account here aren't kept.
    digest = hashlib.sha256(limit.subject.encode()).hexdigest()
    return f"{limit.kind}:{number}:{digest}"
