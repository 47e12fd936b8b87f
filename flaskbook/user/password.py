"""Passwords: argon2id, with parameters from the app's settings."""

from __future__ import annotations

import secrets
import unicodedata
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from flask import Flask, current_app

EXTENSION = "flaskbook-passwords"


class Passwords:
    """Hashes and verifies for one application."""

    def __init__(self, app: Flask) -> None:
        """Read the ``ARGON2_…`` parameters from the config of ``app``."""
        self._hasher = PasswordHasher(
            time_cost=app.config["ARGON2_TIME_COST"],
            memory_cost=app.config["ARGON2_MEMORY_KIB"],
            parallelism=app.config["ARGON2_PARALLELISM"],
        )

    @cached_property
    def _nobodys_hash(self) -> str:
        return self._hasher.hash(secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """Return the hash to store, which holds its own salt and parameters."""
        return self._hasher.hash(_normalised(password))

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Say whether ``password`` is the one that was hashed.

        Without a hash (there is no such user) the work done is the same, so that the time taken says nothing
        about who has an account.
        """
        nobodys = self._nobodys_hash  # taken in either case: computing it the first time is work too
        try:
            matches = self._hasher.verify(password_hash or nobodys, _normalised(password))
        except (VerificationError, InvalidHashError):
            return False
        return matches and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Say whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)


def passwords() -> Passwords:
    """Return the passwords of the current application."""
    found: Passwords = current_app.extensions[EXTENSION]
    return found


def _normalised(password: str) -> str:
    # Keyboards of different systems write the same accented letter in different code points (NIST SP 800-63B,
    # 3.1.1.2).
    return unicodedata.normalize("NFKC", password)
