"""Configuration of flaskbook, read when an application is created and never at import.

Later sources win:

1. ``DEFAULTS`` below;
2. the environment: ``MONGODB_URI_FILE`` or ``MONGODB_URI``, ``SECRET_KEY_FILE`` or ``SECRET_KEY``;
3. ``FLASK_…`` variables (``FLASK_PEOPLE_PER_PAGE=50``), parsed by ``Flask.config.from_prefixed_env``;
4. the mapping given to :func:`flaskbook.application.create_app`.

The ``…_FILE`` variants name a file of mode 0600. They are preferred, because the environment of a process can
be listed by its user. No secret has a default.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
from flask import Flask

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        # Names from flaskbook.application.BLUEPRINTS, or None for all of them.
        "BLUEPRINTS": None,
        "MONGODB_URI": "mongodb://127.0.0.1:27017",
        # None: the database named in MONGODB_URI, and "flaskbook" when it names none.
        "MONGODB_DATABASE": None,
        # The longest that one database operation may take, in milliseconds; an outage is answered (503) after it.
        # PyMongo looks for a server every 500 ms, so other than multiples of that are rounded up.
        "MONGODB_TIMEOUT_MS": 1000,
        # None: Secure on every host but plain-http loopback. True or False decides it for all.
        "SESSION_COOKIE_SECURE": None,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        # A name of its own, as cookies are shared between the ports of one host.
        "SESSION_COOKIE_NAME": "flaskbook_session",
        # Bytes. The largest form of ours is a few hundred.
        "MAX_CONTENT_LENGTH": 64 * 1024,
        "MAX_FORM_MEMORY_SIZE": 64 * 1024,
        # How many reverse proxies in front of the app set X-Forwarded-For, -Proto and -Host.
        "TRUSTED_PROXIES": 0,
        "PEOPLE_PER_PAGE": 20,
        # RFC 9106, second recommended option. A changed value rehashes each password at its next log-in.
        "ARGON2_TIME_COST": 3,
        "ARGON2_MEMORY_KIB": 64 * 1024,
        "ARGON2_PARALLELISM": 4,
        # Failed log-ins allowed per window: for one e-mail address from one client; for one e-mail address
        # from everywhere; for one client whatever the address. They count the same for addresses nobody has.
        "LOGIN_LIMIT_PER_EMAIL_AND_CLIENT": 10,
        "LOGIN_LIMIT_PER_EMAIL": 100,
        "LOGIN_LIMIT_PER_CLIENT": 50,
        # Sign-ups and e-mail changes allowed per client and window.
        "CLAIM_LIMIT_PER_CLIENT": 50,
        "LIMIT_WINDOW_SECONDS": 900,
        # /topology tells anybody who reaches the app how its database is built. None: in debug mode only.
        "TOPOLOGY": None,
        # A button on /topology adds a thousand people. None: in debug mode only.
        "SAMPLE_PEOPLE": None,
        # How often per window, for all who ask together.
        "SAMPLE_PEOPLE_LIMIT": 100,
    }
)

_POSITIVE_INTEGERS = (
    "MONGODB_TIMEOUT_MS",
    "PEOPLE_PER_PAGE",
    "ARGON2_TIME_COST",
    "ARGON2_MEMORY_KIB",
    "ARGON2_PARALLELISM",
    "LOGIN_LIMIT_PER_EMAIL_AND_CLIENT",
    "LOGIN_LIMIT_PER_EMAIL",
    "LOGIN_LIMIT_PER_CLIENT",
    "CLAIM_LIMIT_PER_CLIENT",
    "LIMIT_WINDOW_SECONDS",
    "SAMPLE_PEOPLE_LIMIT",
)

_IN_DEBUG_MODE_UNLESS_SET = ("TOPOLOGY", "SAMPLE_PEOPLE")


class SettingsError(click.ClickException):
    """A setting is missing or wrong. Flask's command line shows it as one line, without a traceback."""


def load(app: Flask, config: Mapping[str, Any] | None) -> None:
    """Fill ``app.config`` from all sources."""
    app.config.from_mapping(DEFAULTS)
    for name in ("MONGODB_URI", "SECRET_KEY"):
        value = _from_environment(name)
        if value is not None:
            app.config[name] = value
    app.config.from_prefixed_env()
    if config is not None:
        app.config.from_mapping(config)
    if app.config["SECRET_KEY"] is None and app.testing:
        app.config["SECRET_KEY"] = secrets.token_hex(32)
    for name in _IN_DEBUG_MODE_UNLESS_SET:
        if app.config[name] is None:
            app.config[name] = bool(app.debug)  # FLASK_DEBUG makes it a number
    _check(app.config)


def _from_environment(name: str) -> str | None:
    file_name = os.environ.get(f"{name}_FILE")
    if file_name:
        return _read_secret(f"{name}_FILE", Path(file_name))
    return os.environ.get(name) or None


def _read_secret(variable: str, path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise SettingsError(
                f"{variable} names {path}, which others may read (mode {mode:04o}). Type: chmod 600 {path}"
            )
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{variable} names {path}, which can't be read: {reason}.") from None
    if not value:
        raise SettingsError(
            f"{variable} names {path}, which is empty. To generate a key, type: ./invoke setup"
        )
    return value


def _check(config: Mapping[str, Any]) -> None:
    secret = config["SECRET_KEY"]
    if not secret:
        raise SettingsError(
            "flaskbook needs a secret key to sign sessions, and none is set. "
            "To generate one and start the app, type: ./invoke setup && ./invoke run. "
            "To use your own, set SECRET_KEY_FILE to a file of mode 0600."
        )
    if not isinstance(secret, str | bytes):
        raise SettingsError("SECRET_KEY has to be text: quote it, as in FLASK_SECRET_KEY='\"123\"'.")
    if not isinstance(config["MONGODB_URI"], str):
        raise SettingsError("MONGODB_URI has to be text such as mongodb://127.0.0.1:27017/flaskbook.")
    for name in _POSITIVE_INTEGERS:
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SettingsError(f"{name} is {value!r}. It has to be a whole number, 1 or more.")
    for name in _IN_DEBUG_MODE_UNLESS_SET:
        if not isinstance(config[name], bool):
            raise SettingsError(f"{name} is {config[name]!r}. It has to be true or false.")
    proxies = config["TRUSTED_PROXIES"]
    if not isinstance(proxies, int) or isinstance(proxies, bool) or proxies < 0:
        raise SettingsError(f"TRUSTED_PROXIES is {proxies!r}. It has to be a whole number, 0 or more.")
