"""A pytest plugin: real MongoDB in anybody's tests, started when the first test needs it.

Installed with this package, it is there; a test asks for `database` and gets a fresh one. What the fixtures
`mongodb`, `database`, `replica_set`, `sharded_cluster`, `app`, `client` and `logged_in_client` give is said at
each; `pytest --fixtures` shows it. Each can be overridden in a `conftest.py`, and gives way to a fixture of another
plugin; behind `provision_`, its name always means ours.

It keeps to pytest's options: it reads no settings of a project, and needs nothing that only the tool needs.

The server belongs to one run of pytest: its workers share it, and two runs at once have two. It is stopped when
the run ends; what a killed run has left, the next run removes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provision.testing import queries
from provision.testing.request import TOPOLOGIES, Request, RequestError

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient
    from pymongo.database import Database

    from provision.testing.processes import Binaries
    from provision.testing.reuse import Membership
    from provision.testing.run import Run
    from provision.testing.servers import Server, Servers
    from provision.testing.templates import Fill

_INI = {
    "mongodb": ("processes", "processes, container, or the connection string of a server that is running"),
    "mongodb_topology": ("single", f"one of {', '.join(TOPOLOGIES)}"),
    "mongodb_image": ("mongo:8.0", "Docker image of --mongodb=container"),
    "mongod": ("", "a mongod of your own, mongos is looked for beside it; or a version, 8.0 or 8.0.17"),
    "mongodb_versions": (
        "",
        "run once for each of these, and sum up: 7.0,8.0; a path of a mongod is a version, too",
    ),
    "mongodb_reuse_idle": ("15", "minutes after which a server that --mongodb-reuse has left ends"),
    "app_factory": ("", "the app that the fixture app builds: module:factory"),
    "app_path": ("", "directory that app is imported from (default: pytest's rootdir)"),
}
_FLAGS = {
    "mongodb_auth": "MongoDB has a root user, whose password is made for this run",
    "mongodb_keep_failed": "the database of a failed test stays, until the next run in this project; the report says how to "
    "open it",
    "mongodb_no_table_scan": "a query that reads a whole collection fails its test, as with the marker no_table_scan",
    "mongodb_reuse": "the server stays for the next run, and ends by itself when no run uses it",
    "mongodb_standalone": "a single mongod is not a replica set: no transactions, no change streams",
}
_RUN: pytest.StashKey[Run] = pytest.StashKey()
_SERVERS: pytest.StashKey[Servers] = pytest.StashKey()
_REQUEST = pytest.StashKey[Request]()
_IMPORTING = pytest.StashKey[bool]()
_BEGAN = pytest.StashKey[tuple[datetime, float]]()
"""When a test began: by the clock that logs are written by, and by the monotonic one."""
_DATABASE: pytest.StashKey[tuple[Server, str]] = pytest.StashKey()
"""The database of a test, and its server."""
_SCANS = pytest.StashKey[Callable[[], list[str]]]()
"""Ends the watch for queries that read a whole collection, and says which did."""
_TAKEN = pytest.StashKey[dict[str, str]]()
_MEMBERSHIP: pytest.StashKey[Membership] = pytest.StashKey()
_HOME: pytest.StashKey[Run] = pytest.StashKey()
_WORKER_INPUT = "provision_run"
_WORKER_HOME = "provision_home"
_NO_ROUTER = "needs mongos: "


def pytest_addoption(parser: pytest.Parser) -> None:
    queries.RECORDER.install()  # before a conftest.py makes a client
    group = parser.getgroup("mongodb", "real MongoDB")
    for option, name, shown in (
        ("--mongodb", "mongodb", "processes|container|URI"),
        ("--topology", "mongodb_topology", "|".join(TOPOLOGIES)),
        ("--mongodb-image", "mongodb_image", "IMAGE"),
        ("--mongod", "mongod", "PATH|VERSION"),
        ("--mongodb-reuse-idle", "mongodb_reuse_idle", "MINUTES"),
        ("--mongodb-versions", "mongodb_versions", "VERSION,VERSION"),
        ("--app-factory", "app_factory", "MODULE:FACTORY"),
        ("--app-path", "app_path", "DIRECTORY"),
    ):
        default, told = _INI[name]
        shown_default = f" (ini: {name}; default: {default})" if default else f" (ini: {name})"
        group.addoption(
            option, dest=f"provision_{name}", metavar=shown, default=None, help=told + shown_default
        )
        parser.addini(name, told, default=default)
    group.addoption("--mongodb-outcome", dest="provision_outcome", default="", help=argparse.SUPPRESS)
    parser.addini(
        "app_env",
        "variables of the app's environment, a NAME=VALUE on each line: templates over uri, host, port, database, "
        "username, password, secret_key and secret_key_file",
        type="linelist",
    )
    for name, told in _FLAGS.items():
        group.addoption(
            f"--{name.replace('_', '-')}",
            dest=f"provision_{name}",
            action="store_true",
            default=None,
            help=f"{told} (ini: {name})",
        )
        parser.addini(name, told, type="bool", default=False)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    from provision.testing import short_names
    from provision.testing.run import Run

    config.addinivalue_line(
        "markers",
        "mongodb(topology, shards, members, standalone, auth): the server that the test's mongodb and database are of",
    )
    config.addinivalue_line(
        "markers",
        "no_table_scan(on=True): a query that reads a whole collection of the test's database fails the test; "
        "no_table_scan(False) allows it",
    )
    request = Request(
        source=_option(config, "mongodb"),
        topology=_option(config, "mongodb_topology"),
        standalone=_option(config, "mongodb_standalone"),
        auth=_option(config, "mongodb_auth"),
        image=_option(config, "mongodb_image"),
    )
    try:
        config.stash[_REQUEST] = request.checked()
    except RequestError as wrong:
        raise pytest.UsageError(str(wrong)) from None
    given = getattr(config, "workerinput", {}).get(_WORKER_INPUT)
    config.stash[_RUN] = Run.from_json(given) if given else Run.new(str(config.rootpath))
    if _option(config, "mongodb_reuse"):
        if config.stash[_REQUEST].kind != "processes":
            raise pytest.UsageError(
                "--mongodb-reuse: it is for --mongodb=processes; a server of your own stays anyway"
            )
        _idle_seconds(config)
    # Now that the other plugins are there: their fixtures keep their names, in whatever order they were found.
    config.stash[_TAKEN] = short_names.of_others(config.pluginmanager)
    config.pluginmanager.register(short_names.module_without(config.stash[_TAKEN]), "provision-short-names")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run once for each version, if several are named."""
    listed = str(_option(config, "mongodb_versions"))
    if not listed or config.option.help or config.option.version or hasattr(config, "workerinput"):
        return None
    from provision.testing import versions

    request = Request(source=_option(config, "mongodb"))
    return versions.run(config, versions.named(listed), request.kind)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist which run it belongs to."""
    node.workerinput[_WORKER_INPUT] = node.config.stash[_RUN].as_json()
    home = _home(node.config)
    node.workerinput[_WORKER_HOME] = home.as_json() if home else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """The run is over: workers close their clients, and the process they worked for ends the servers."""
    servers, run = config.stash.get(_SERVERS, None), config.stash.get(_RUN, None)
    owns = not hasattr(config, "workerinput")
    if servers is not None:
        stays = run is not None and (run.kept or config.stash.get(_HOME, None))
        servers.close(end=owns and not stays)
    if _MEMBERSHIP in config.stash:
        config.stash[_MEMBERSHIP].leave()
    if run is None or not owns or not run.folder.is_dir():
        return
    from provision.core.errors import ProvisionError

    if config.stash[_REQUEST].kind == "uri":
        from pymongo.errors import PyMongoError

        from provision.testing import existing

        try:
            existing.drop_databases(config.stash[_REQUEST].source, run)
        except PyMongoError:
            return  # their record stays, and a later run drops them
    if run.kept:
        return  # with its servers; the next run in this project removes it
    try:
        run.clear()
    except ProvisionError as error:
        sys.stderr.write(f"{error}\n")


def pytest_report_header(config: pytest.Config) -> list[str]:
    request = config.stash[_REQUEST]
    source = "a server that is running" if request.kind == "uri" else request.source
    lines = [f"mongodb: {source}, topology {'as it is' if request.kind == 'uri' else request.topology}"]
    lines += [
        f"mongodb: the fixture {name} is that of {plugin}; ours is provision_{name}"
        for name, plugin in sorted(config.stash[_TAKEN].items())
    ]
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A marker chooses another server for its test: `provision_mongodb` is parametrized with it."""
    if "provision_mongodb" not in metafunc.fixturenames:
        return
    request = metafunc.config.stash[_REQUEST]
    if request.kind == "processes" and not metafunc.config.stash.get(_IMPORTING, False):
        metafunc.config.stash[_IMPORTING] = True
        # A server will be started: what that needs is imported while the other tests are collected.
        threading.Thread(target=_import_ahead, daemon=True).start()
    markers = list(metafunc.definition.iter_markers("mongodb"))
    if not markers:
        return
    try:
        for marker in reversed(markers):  # the closest has the last word
            request = request.changed_by(marker.args, marker.kwargs)
    except RequestError as wrong:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {wrong}") from None
    metafunc.parametrize("provision_mongodb", [request], indirect=True, ids=[request.key], scope="session")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEGAN] = datetime.now(UTC), time.monotonic()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose app reads whole collections."""
    result = yield
    if end := item.stash.get(_SCANS, None):
        del item.stash[_SCANS]
        if found := end():
            raise pytest.fail.Exception(
                "\n".join(("a query read a whole collection, for want of an index:", *found)), pytrace=False
            )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add to a failed test's report what MongoDB did meanwhile."""
    report: Any = yield
    if (
        report.failed
        and report.when != "teardown"  # then it is gone
        and _DATABASE in item.stash
        and _option(item.config, "mongodb_keep_failed")
    ):
        report.sections.append(("MongoDB: the test's database stays", _kept(*item.stash[_DATABASE])))
    if report.failed and _BEGAN in item.stash:
        from provision.testing.servers import Server

        end = datetime.now(UTC)
        used = {id(each): each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Server)}
        began, moment = item.stash[_BEGAN]
        for server in used.values():
            begin = max(began, server.ready)  # its start is not the test's doing
            databases = server.databases_since(moment)
            report.sections.append((f"MongoDB ({server.request.key})", _told(server, begin, end, databases)))
    return report  # type: ignore[no-any-return]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what could not run for want of a router, and how to get one."""
    if outcome := terminalreporter.config.getoption("provision_outcome"):
        from provision.testing import versions

        versions.record(terminalreporter, outcome)
    lacking = [
        str(report.longrepr[2]).partition(_NO_ROUTER)[2]
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple) and _NO_ROUTER in str(report.longrepr[2])
    ]
    if lacking:
        terminalreporter.section("sharded tests did not run", yellow=True)
        terminalreporter.line(f"{len(lacking)} skipped: {lacking[0]}")


@pytest.fixture(scope="session")
def provision_mongodb(request: pytest.FixtureRequest) -> Server:
    """A MongoDB that takes writes, shared by all tests of the run: `.uri`, `.client`, `.version`, `.topology`.

    A single-node replica set on a free port, unless ``--mongodb``, ``--topology`` or the test's marker
    ``@pytest.mark.mongodb(topology="sharded", shards=2)`` say otherwise.
    """
    chosen = getattr(request, "param", None)
    return _server(request.config, chosen or request.config.stash[_REQUEST], by_marker=chosen is not None)


@pytest.fixture(scope="session")
def database_template() -> Fill | None:
    """A function that fills an empty database. Override it: each test's `database` then begins with what it put in."""
    return None


@pytest.fixture
def provision_database(
    request: pytest.FixtureRequest, provision_mongodb: Server, database_template: Fill | None
) -> Iterator[Database[dict[str, Any]]]:
    """A fresh database of a name that no other test has, as PyMongo's `Database`; dropped afterwards.

    With `database_template` it holds what that function puts in: it is filled once, and brought back for each test.
    """
    if database_template is not None and not callable(database_template):
        pytest.fail(
            f"The fixture database_template gave {type(database_template).__name__}. It gives a function that fills a "
            "database:\n"
            '@pytest.fixture(scope="session")\n'
            "def database_template():\n"
            "    def fill(database):\n"
            '        database.people.insert_one({"name": "Ada"})\n'
            "    return fill",
            pytrace=False,
        )
    with (
        provision_mongodb.template_database(database_template)
        if database_template
        else provision_mongodb.new_database()
    ) as made:
        request.node.stash[_DATABASE] = provision_mongodb, made.name
        if not _judges_scans(request):
            yield made
            return
        with _watched(request.node, provision_mongodb, made):
            yield made


@pytest.fixture
def assert_queries() -> Callable[..., contextlib.AbstractContextManager[list[queries.Query]]]:
    """``with assert_queries(max=3):`` fails if the block sends more queries to MongoDB, and lists them."""

    @contextlib.contextmanager
    def counting(*, max: int) -> Iterator[list[queries.Query]]:
        __tracebackhide__ = True
        with queries.RECORDER.recording() as sent:
            yield sent
        if len(sent) > max:
            pytest.fail(queries.too_many(sent, max))

    return counting


@pytest.fixture(scope="session")
def provision_replica_set(request: pytest.FixtureRequest) -> Server:
    """A replica set of three members, whatever ``--topology`` says. `.new_database()` gives a database of it."""
    return _special(request.config, "replica-set")


@pytest.fixture(scope="session")
def provision_sharded_cluster(request: pytest.FixtureRequest) -> Server:
    """A sharded cluster of two shards, whatever ``--topology`` says. `.new_database()` gives a database of it."""
    return _special(request.config, "sharded")


@pytest.fixture
def app_config() -> dict[str, Any]:
    """The configuration given to the app's factory. Override it to add to it."""
    return {"TESTING": True}


@pytest.fixture
def provision_app(
    request: pytest.FixtureRequest,
    provision_mongodb: Server,
    provision_database: Database[dict[str, Any]],
    app_config: dict[str, Any],
    tmp_path: Path,
) -> Iterator[Flask]:
    """The Flask app on the test's database, built by ``--app-factory``."""
    from provision.core.errors import ProvisionError
    from provision.testing import application

    config, name = request.config, provision_database.name
    try:
        factory = application.named(_option(config, "app_factory"))
        directory = config.rootpath / Path(_option(config, "app_path")).expanduser()
        templates = application.environment(config.getini("app_env"), config.rootpath)
        uri = provision_mongodb.uri_for(name)
        with application.built(factory, directory, templates, uri, name, app_config, tmp_path) as made:
            yield made
    except ProvisionError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def provision_client(provision_app: Flask) -> FlaskClient:
    """Flask's test client of the app."""
    return provision_app.test_client()


@pytest.fixture
def log_in() -> Callable[[FlaskClient], None]:
    """Signs up and logs in on a client as flaskbook wants it. Override it for another app."""

    def sign_up_and_log_in(client: FlaskClient) -> None:
        user = {"email": "ada@example.org", "password": "analytical engine"}
        person = {"first_name": "Ada", "last_name": "Lovelace", "age": 36, **user}
        for path, fields in (("/sign-up", person), ("/log-in", user)):
            answer = client.post(path, json=fields)
            if not 200 <= answer.status_code < 300:
                pytest.fail(
                    f"{path} answered {answer.status_code}: the app does not log in as flaskbook does. "
                    "Override the fixture log_in in your conftest.py.",
                    pytrace=False,
                )

    return sign_up_and_log_in


@pytest.fixture
def provision_logged_in_client(provision_app: Flask, log_in: Callable[[FlaskClient], None]) -> FlaskClient:
    """A test client in which a user has logged in, by `log_in`."""
    made = provision_app.test_client()
    log_in(made)
    return made


def _special(config: pytest.Config, topology: str) -> Server:
    try:
        chosen = config.stash[_REQUEST].changed_by((), {"topology": topology})
    except RequestError as wrong:
        raise pytest.fail.Exception(str(wrong), pytrace=False) from None
    return _server(config, chosen, by_marker=True)


def _server(config: pytest.Config, chosen: Request, by_marker: bool) -> Server:
    """The run's server of a kind."""
    from provision.core.errors import ProvisionError
    from provision.testing.processes import NoRouter
    from provision.testing.servers import Servers

    try:
        if _SERVERS not in config.stash:
            config.stash[_SERVERS] = Servers(config.stash[_RUN], _binaries(config), _home(config))
        server = config.stash[_SERVERS].get(chosen)
    except NoRouter as error:
        if by_marker:
            raise pytest.skip.Exception(f"{_NO_ROUTER}{error.cause}\nnext: {error.remedy}") from None
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    except ProvisionError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    wanted = chosen.topology if chosen.topology != "single" else server.topology
    if server.topology != wanted:
        pytest.skip(f"needs topology {wanted}: --mongodb names one that is {server.topology}")
    return server


def _home(config: pytest.Config) -> Run | None:
    """The run that the servers belong to, if they stay; joined now if this process has not yet."""
    if not _option(config, "mongodb_reuse"):
        return None
    if _HOME not in config.stash:
        from provision.testing import reuse
        from provision.testing.run import Run

        if given := getattr(config, "workerinput", {}).get(_WORKER_HOME):
            config.stash[_HOME] = Run.from_json(given)
        else:
            servers = f"{_option(config, 'mongod')}"
            config.stash[_MEMBERSHIP] = reuse.join(config.stash[_RUN], servers, _idle_seconds(config))
            config.stash[_HOME] = config.stash[_MEMBERSHIP].home
    return config.stash[_HOME]


def _idle_seconds(config: pytest.Config) -> float:
    text = str(_option(config, "mongodb_reuse_idle"))
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= 10_000:
        raise pytest.UsageError(f"--mongodb-reuse-idle={text}: it is a number of minutes")
    return 60 * minutes


def _import_ahead() -> None:
    from provision.testing import processes

    processes.import_ahead()


def _binaries(config: pytest.Config) -> Binaries:
    from provision.testing.fetching import Fetching
    from provision.testing.processes import Binaries
    from provision.testing.versions import VERSION

    mongod = str(_option(config, "mongod"))
    capture = config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled if capture else contextlib.nullcontext
    named = config.invocation_params.dir / Path(mongod).expanduser()
    if VERSION.fullmatch(mongod) and not named.is_file():
        return Binaries(version=mongod, progress=Fetching(shown))
    return Binaries(str(named) if mongod else "", progress=Fetching(shown))


def _told(server: Server, start: datetime, end: datetime, databases: Container[str]) -> str:
    from provision.testing import report

    try:
        return report.section(server, start, end, databases)
    except Exception as error:  # noqa: BLE001 — it must never hide the failure that it is about
        return f"what MongoDB did could not be read: {type(error).__name__}: {error}"


def _judges_scans(request: pytest.FixtureRequest) -> bool:
    marker = request.node.get_closest_marker("no_table_scan")
    if marker is None:
        return bool(_option(request.config, "mongodb_no_table_scan"))
    return bool(marker.args[0] if marker.args else marker.kwargs.get("on", True))


@contextlib.contextmanager
def _watched(item: pytest.Item, server: Server, database: Database[dict[str, Any]]) -> Iterator[None]:
    """Have the test's queries judged when it is over."""
    from pymongo.errors import OperationFailure

    from provision.testing import scans

    try:
        scans.begin(database)
    except OperationFailure as error:
        pytest.fail(
            "Queries that read a whole collection can't be told here: "
            + ("a router does not profile" if server.topology == "sharded" else str(error))
            + ".\nnext: use --topology=single for this test, or mark it with @pytest.mark.no_table_scan(False).",
            pytrace=False,
        )
    own = str(item.path)
    with queries.RECORDER.recording() as sent:

        def end() -> list[str]:
            return scans.told(
                scans.end(database), sent, lambda file: file == own or Path(file).name == "conftest.py"
            )

        item.stash[_SCANS] = end
        yield
    if _SCANS in item.stash:  # the test failed by itself
        del item.stash[_SCANS]
        scans.end(database)


def _kept(server: Server, database: str) -> str:
    """Keep a failed test's database; how to open it."""
    from provision.testing import report

    try:
        return report.kept(server.uri_for(database), server.keep(database))
    except OSError as error:
        return f"it could not be kept: {error}"


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"provision_{name}")
    return config.getini(name) if given is None else given
