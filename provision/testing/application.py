"""The app under test, built by its own factory on a test's database."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provision.app.launch import Database, render_environment
from provision.core.errors import ProvisionError
from provision.core.files import write_atomically
from provision.settings.schema import AppSettings

if TYPE_CHECKING:
    from flask import Flask

_DOING = "building the app for a test"


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


def environment(lines: Iterable[str]) -> dict[str, str | None]:
    """The templates of the app's environment: those that `invoke run` has by default, and those of `app_env`.

    A line is ``NAME=VALUE``; without a value, the variable is taken away.
    """
    templates = dict(AppSettings().env)
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
    tests of a process; a factory makes a new one each time. `config` is given to a factory that takes an
    argument, and set on the app otherwise.
    """
    key = scratch / "secret_key"
    write_atomically(key, secrets.token_hex(32), 0o600)
    hosts = re.sub(r"^.*@", "", uri.partition("://")[2].partition("/")[0])
    host, _, port = hosts.split(",")[0].rpartition(":")
    where = Database(uri, host or hosts, int(port) if port.isdigit() else 27017, database, "", "", str(key))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in render_environment(templates, where).items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        patch.syspath_prepend(str(directory))
        app = _build(factory, config)
        try:
            yield app
        finally:
            _close(app)


def _build(factory: str, config: Mapping[str, Any]) -> Flask:
    try:
        import flask
        from flask.cli import NoAppException, ScriptInfo
    except ImportError:
        raise ProvisionError(
            _DOING, "Flask is not installed.", "Install your app's requirements, then run pytest again."
        ) from None
    module, _, name = factory.partition(":")
    if name.isidentifier():
        found = _attribute(module, name)
        if not isinstance(found, flask.Flask) and callable(found) and _takes_config(found):
            made: Flask = found(dict(config))
            return made
    try:
        app = ScriptInfo(app_import_path=factory).load_app()
    except NoAppException as error:
        raise ProvisionError(
            _DOING, error.format_message(), "Name it: pytest --app-factory=module:factory"
        ) from None
    app.config.update(config)
    return app


def _attribute(module: str, name: str) -> Any:
    """The factory; None where it is not that simple, which Flask explains better."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (module == missing.name or module.startswith(f"{missing.name}.")):
            return None
        raise


def _takes_config(factory: Any) -> bool:
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return False
    return bool(parameters) and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


def _close(app: Flask) -> None:
    """Close the clients that the app's extensions hold, so that their sockets don't outlive the test."""
    from pymongo import MongoClient

    for extension in list(app.extensions.values()):
        for held in (extension, getattr(extension, "client", None), getattr(extension, "cx", None)):
            if isinstance(held, MongoClient):
                held.close()
