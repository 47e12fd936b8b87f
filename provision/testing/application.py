"""The app under test, built by its own factory on a test's database."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from provision.app import loading
from provision.app.launch import Database, Secret, render_environment
from provision.core.errors import ProvisionError
from provision.core.files import write_atomically
from provision.settings.layers import read_layers
from provision.settings.paths import project_root
from provision.settings.schema import AppSettings

if TYPE_CHECKING:
    from flask import Flask

_DOING = "building the app for a test"
_CONFIGURATIONS = frozenset(
    (
        "config",
        "settings",
        "test_config",
        "configuration",
        "mapping",
        "conf",
        "app_config",
        "config_overrides",
    )
)
_ADDRESSES = frozenset(
    f"{prefix}{name}" for prefix in ("", "mongo_", "mongodb_", "db_", "database_") for name in ("uri", "url")
) | {"connection_string"}


def named(factory: str) -> str:
    """The factory that pytest was told.

    Raises ProvisionError: none was named.
    """
    if not factory:
        raise ProvisionError(
            _DOING,
            "No app is named.",
            "pytest --app-factory=module:factory, or app_factory = module:factory in pytest's configuration",
        )
    return factory


def environment(lines: Iterable[str], folder: Path) -> dict[str, str | None]:
    """The templates of the app's environment: those of `invoke run`, and those of `app_env`.

    A line is ``NAME=VALUE``; without a value, the variable is taken away. `folder`: in the project.
    """
    templates = {**AppSettings().env, **_of_project(folder)}
    for line in lines:
        name, separator, value = (part.strip() for part in line.partition("="))
        if not name.isidentifier() or not separator:
            raise ProvisionError(
                _DOING,
                f"app_env in pytest's configuration: {line!r} is not NAME=VALUE.",
                "Write for example: MONGO_URL={{ uri }}",
            )
        templates[name] = value or None
    return templates


def _of_project(folder: Path) -> dict[str, str | None]:
    """What its settings files call `app.env`. An app that ignored them would work on the database of development."""
    found: dict[str, str | None] = {}
    for layer in read_layers(project_root(folder), {"HOME": os.devnull}):
        app = layer.values.get("app")
        env = app.get("env") if isinstance(app, Mapping) and layer.ours_alone else None
        if isinstance(env, Mapping):
            found |= {str(name): None if value is None else str(value) for name, value in env.items()}
    return found


@contextlib.contextmanager
def built(
    factory: str,
    directory: Path,
    templates: Mapping[str, str | None],
    uri: str,
    database: str,
    config: Mapping[str, Any],
    scratch: Path,
) -> Iterator[Flask]:
    """An app on a database, with the environment that `invoke run` gives it.

    An app object is made when its module is imported, so it is the same one, on the same database, in all
    tests of a process; a factory makes a new one each time. `config` is given to a factory whose first parameter is
    a configuration, and set on the app otherwise.
    """
    file, key = scratch / "secret_key", secrets.token_hex(32)
    write_atomically(file, key, 0o600)
    where = _database(uri, database, Secret(str(file), key))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in render_environment(templates, where).items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        patch.syspath_prepend(str(directory))
        with pytest.MonkeyPatch.context() as meanwhile:
            # As the command `flask` has it: Flask ignores an app.run() that stands in the module without a guard.
            meanwhile.setenv("FLASK_RUN_FROM_CLI", "true")
            app = _build(factory, directory, config, uri)
        try:
            yield app
        finally:
            _close(app)


def _database(uri: str, database: str, secret: Secret) -> Database:
    authority = uri.partition("://")[2].partition("/")[0]
    user, _, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    host, _, port = hosts.split(",")[0].rpartition(":")
    return Database(
        uri,
        host or hosts,
        int(port) if port.isdigit() else 27017,
        database,
        unquote(username),
        unquote(password),
        secret.file,
        secret.key,
    )


def _build(factory: str, directory: Path, config: Mapping[str, Any], uri: str) -> Flask:
    given = False

    def call(made_by: Any, name: str) -> Any:
        nonlocal given
        positional, named = _arguments(made_by, name, factory, config, uri)
        given = bool(positional)
        return loading.called(made_by, name, *positional, **named)

    try:
        app: Flask = loading.load(factory, directory, call).flask
    except loading.NotAnApp as error:
        raise ProvisionError(
            _DOING,
            str(error),
            "Name it as flask --app does: pytest --app-factory=module:factory, "
            "or --app-factory=\"module:factory('argument')\"",
        ) from None
    except ModuleNotFoundError as error:
        if error.name != "flask":
            raise
        raise ProvisionError(
            _DOING, "Flask is not installed.", "Install your app's requirements, then run pytest again."
        ) from None
    if not given:
        app.config.update(config)
    return app


def _arguments(
    made_by: Any, name: str, factory: str, config: Mapping[str, Any], uri: str
) -> tuple[list[Any], dict[str, Any]]:
    """What a factory is called with: the configuration, if it takes one, and what it takes by name.

    The first parameter gets the configuration, if it is one by its name or its type. A parameter without a default
    gets the database's address, if it is called as one.

    Raises ProvisionError: it needs something else.
    """
    try:
        parameters = list(inspect.signature(made_by).parameters.values())
    except (TypeError, ValueError):
        return [], {}
    positional = [dict(config)] if parameters and _is_configuration(parameters[0]) else []
    arguments: dict[str, Any] = {}
    for each in parameters[len(positional) :]:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) or each.default is not each.empty:
            continue
        if each.name.lower() not in _ADDRESSES:
            module = factory.partition(":")[0]
            raise ProvisionError(
                _DOING,
                f"{name}{inspect.signature(made_by)} needs {each.name}, and nothing says what it is.",
                f"Write the call: pytest --app-factory=\"{module}:{name}({each.name}='…')\". Or override the fixture "
                "app in your conftest.py.",
            )
        arguments[each.name] = uri
    return positional, arguments


def _is_configuration(parameter: inspect.Parameter) -> bool:
    """By its type, if it has one; else by its name, unless its default is something that no configuration replaces."""
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return False
    kind = parameter.annotation
    written = kind if isinstance(kind, str) else "" if kind is parameter.empty else repr(kind)
    if re.search(r"\b([Dd]ict|(Mutable)?Mapping)\b", written):
        return True
    if written and not re.search(r"\b(Any|object)\b", written):
        return False
    if parameter.name.lower() not in _CONFIGURATIONS:
        return False
    return parameter.default in (parameter.empty, None) or isinstance(parameter.default, Mapping)


def _close(app: Flask) -> None:
    """Close the clients that the app's extensions hold, so that their sockets don't outlive the test."""
    from pymongo import MongoClient

    for extension in list(app.extensions.values()):
        for held in (extension, getattr(extension, "client", None), getattr(extension, "cx", None)):
            if isinstance(held, MongoClient):
                held.close()
