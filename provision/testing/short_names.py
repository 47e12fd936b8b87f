"""The plugin's fixtures under short names: `provision_database` is `database`, and so on.

A name that another plugin has, or that a `conftest.py` defines, is theirs; what is built here does not depend on those,
and the long name leads to it in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient
    from pymongo.database import Database

    from provision.testing.servers import Server


@pytest.fixture(scope="session")
def mongodb(provision_mongodb: Server) -> Server:
    """A MongoDB that takes writes, shared by all tests of the run: `.uri`, `.client`, `.version`, `.topology`."""
    return provision_mongodb


@pytest.fixture
def database(provision_database: Database[dict[str, Any]]) -> Database[dict[str, Any]]:
    """A fresh database of a name that no other test has, as PyMongo's `Database`; dropped afterwards."""
    return provision_database


@pytest.fixture(scope="session")
def replica_set(provision_replica_set: Server) -> Server:
    """A replica set of three members, whatever ``--topology`` says. `.new_database()` gives a database of it."""
    return provision_replica_set


@pytest.fixture(scope="session")
def sharded_cluster(provision_sharded_cluster: Server) -> Server:
    """A sharded cluster of two shards, whatever ``--topology`` says. `.new_database()` gives a database of it."""
    return provision_sharded_cluster


@pytest.fixture
def app(provision_app: Flask) -> Flask:
    """The Flask app that ``--app-factory`` names, on the test's database."""
    return provision_app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Flask's test client of the app."""
    return app.test_client()


@pytest.fixture
def logged_in_client(app: Flask, log_in: Callable[[FlaskClient], None]) -> FlaskClient:
    """A test client in which a user has logged in, by `log_in`."""
    made = app.test_client()
    log_in(made)
    return made


NAMES = ("mongodb", "database", "replica_set", "sharded_cluster", "app", "client", "logged_in_client")


def of_others(pluginmanager: pytest.PytestPluginManager) -> dict[str, str]:
    """The short names that other plugins have: name → the plugin."""
    taken: dict[str, str] = {}
    for plugin in pluginmanager.get_plugins():
        if getattr(plugin, "__file__", "").endswith("conftest.py"):
            continue  # it overrides ours as it is, and may ask for what it overrides
        for attribute, value in vars(plugin).items() if isinstance(plugin, ModuleType) else ():
            name = _fixture_name(attribute, value)
            if name in NAMES:
                taken[name] = pluginmanager.get_name(plugin) or plugin.__name__
    return taken


def module_without(taken: dict[str, str]) -> ModuleType:
    """A plugin of those that nobody else has."""
    module = ModuleType("provision's fixtures under short names", __doc__)
    for name in NAMES:
        if name not in taken:
            setattr(module, name, globals()[name])
    return module


def _fixture_name(attribute: str, value: object) -> str | None:
    """The name that pytest knows a fixture by; None: it is none."""
    for marker in (
        "_fixture_function_marker",
        "_pytestfixturefunction",
    ):  # pytest 8.4 and later, and earlier ones
        try:
            found = getattr(value, marker, None)
        except Exception:  # noqa: BLE001 — a plugin's objects may do anything when they are asked
            return None
        if type(found).__name__ == "FixtureFunctionMarker":
            return str(getattr(found, "name", None) or attribute)
    return None
