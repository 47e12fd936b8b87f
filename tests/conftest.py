"""The test harness: what a test needs, what this machine has, and what could therefore not run.

See `tests/support/capabilities.py` for the capabilities, `tests/support/clones.py` for copies of this repository.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from provision.backends import processes as spawned
from tests.support import capabilities, processes
from tests.support.capabilities import Capability
from tests.support.clones import Clone, cloned
from tests.support.distribution import share_of
from tests.support.router_standin.install import real_mongos

# The fixtures `mongodb`, `database`, `replica_set` and `sharded_cluster` are those that this project ships.
pytest_plugins = ["provision.testing.plugin"]

_FOUND = pytest.StashKey[dict[str, Capability]]()
_OWNS_RUN = pytest.StashKey[bool]()
_COULD_NOT_RUN = "could not run here"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="A,B",
        help=f"fail where the machine lacks one of these: {', '.join(capabilities.PROBES)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*capabilities): what a test needs besides what its directory says"
    )
    unknown = _required(config) - set(capabilities.PROBES)
    if unknown:
        raise pytest.UsageError(
            f"--require: {', '.join(sorted(unknown))}: there are {', '.join(capabilities.PROBES)}"
        )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Begun in the background by a shell: what the tests start would ignore Ctrl-C as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        found = {name: Capability(**values) for name, values in config.workerinput["capabilities"].items()}
    else:
        config.stash[_OWNS_RUN] = processes.RUN not in os.environ
        processes.name_this_run()
        processes.end_those_of_dead_runs()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)  # ended politely, it cleans up as at Ctrl-C
        found = {name: capabilities.probe(name) for name in capabilities.needed_by(config.args)}
    config.stash[_FOUND] = found
    for name in {"mongos", "database-tools"} & _required(config):  # something else would take their place
        real = found.setdefault(name, capabilities.probe(name))
        if not real.present:
            raise pytest.UsageError(f"--require {name}: {first_line(real.told)}. Next: {real.remedy}")
    # The tests say themselves which settings they mean: those of the person who runs them end here.
    for name in [name for name in os.environ if name.startswith("INVOKE_")]:
        del os.environ[name]
    # Thousands of commands would each compile every module that they import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # So does their list of environments: nothing that a test brings up is put into it.
    state = tempfile.mkdtemp(prefix="provision-tests-state-")
    os.environ["XDG_STATE_HOME"] = state
    config.add_cleanup(lambda: shutil.rmtree(state, ignore_errors=True))


def pytest_unconfigure(config: pytest.Config) -> None:
    for each in spawned._OUTLIVING:
        each.poll()  # those that tests have killed: Python would say of each that it still runs
    if config.stash.get(_OWNS_RUN, False):
        processes.end_this_run()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    found = node.config.stash[_FOUND]
    node.workerinput["capabilities"] = {name: each.as_dict() for name, each in found.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.support.distribution import Distribution

    return Distribution(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Rewriting the assertions of all test files takes ten seconds: in a new clone, each worker begins with its share."""
    worker = getattr(session.config, "workerinput", {"workerid": "gw0", "workercount": 1})
    for name in share_of(session.config.args, int(worker["workerid"][2:]), worker["workercount"]):
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection says it
            importlib.import_module(name)


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for name in ("mongod", "docker", "browser", "sshd"):
        each = config.stash[_FOUND].get(name)
        if each is not None:
            lines.append(f"{name}: {each.told if each.present else f'none ({first_line(each.told)})'}")
    if router := _router(config):
        lines.append(f"router: {router}")
    return lines


def _router(config: pytest.Config) -> str:
    """What routes in the tests that bring up sharded clusters of processes; empty: none does."""
    mongod = config.stash[_FOUND].get("mongod")
    if mongod is None or not mongod.present:
        return ""
    real = real_mongos(Path(mongod.values["path"]))
    return str(real) if real else "a stand-in (tests/support/router_standin), there is no mongos beside it"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in _needs(item):
        found = item.config.stash[_FOUND].get(name) or item.config.stash[_FOUND].setdefault(
            name, capabilities.probe(name)
        )
        if found.present:
            continue
        item.user_properties.append((_COULD_NOT_RUN, found.as_dict()))
        message = f"needs {name}: {first_line(found.told)}"
        if name in _required(item.config):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lacking: Counter[str] = Counter()
    why: dict[str, dict[str, Any]] = {}
    in_docker: set[str] = set()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == _COULD_NOT_RUN and report.when == "setup":
                    lacking[value["name"]] += 1
                    why[value["name"]] = value
                elif key == capabilities.RAN_AGAINST:
                    in_docker.add(value)
    _tell_what_ran(terminalreporter, config, in_docker)
    if not lacking:
        return
    terminalreporter.section("could not run here", yellow=True)
    for name, count in lacking.most_common():
        told = first_line(why[name]["told"])
        terminalreporter.line(
            f"{name}: {count} test{'s' if count > 1 else ''} need{'' if count > 1 else 's'} it"
        )
        terminalreporter.line(f"    why:  {told}")
        terminalreporter.line(f"    next: {why[name]['remedy']}")


def _tell_what_ran(terminalreporter: Any, config: pytest.Config, in_docker: set[str]) -> None:
    router = _router(config)
    if not router and not in_docker:
        return
    terminalreporter.section("ran against")
    if router:
        mongod = config.stash[_FOUND]["mongod"]
        terminalreporter.line(f"processes: mongod {mongod.told}, router: {router}")
    for told in sorted(in_docker):
        terminalreporter.line(f"containers: {told}")


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def _required(config: pytest.Config) -> set[str]:
    return {name.strip() for name in config.getoption("--require").split(",") if name.strip()}


def _needs(item: pytest.Item) -> Iterator[str]:
    path = item.path
    if path.is_relative_to(capabilities.TESTS):
        yield from capabilities.DIRECTORY_NEEDS.get(path.relative_to(capabilities.TESTS).parts[0], ())
    for mark in item.iter_markers("needs"):
        yield from mark.args


@pytest.fixture(scope="session")
def mongod_binary(pytestconfig: pytest.Config) -> Path:
    """The mongod that the tests run against: the one that the tool takes on this machine."""
    return Path(pytestconfig.stash[_FOUND]["mongod"].values["path"])


@pytest.fixture(scope="session")
def mongod_version(pytestconfig: pytest.Config) -> str:
    """Its version: ``"8.0.17"``."""
    return pytestconfig.stash[_FOUND]["mongod"].values["version"]


@pytest.fixture(scope="session")
def other_mongods() -> dict[str, Path]:
    """Version → a mongod of it: what `.ci/prepare` keeps to upgrade from and to, for tests that need `other-mongods`."""
    found = capabilities.probe("other-mongods").values
    return {version: Path(path) for version, path in found.items()}


@pytest.fixture
def clone(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Clone]:
    """A copy of this repository with an env/, a home directory and ports of its own.

    Whatever runs under its mark at the end of the test is ended; its data are deleted.
    """
    yield from _clone(tmp_path / "one", pytestconfig)


@pytest.fixture
def another_clone(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Clone]:
    """A second one, as another person or another project would have."""
    yield from _clone(tmp_path / "two", pytestconfig)


def _clone(folder: Path, config: pytest.Config) -> Iterator[Clone]:
    folder.mkdir()
    mongod = config.stash[_FOUND].get("mongod")
    with cloned(folder, mongod.values.get("path") if mongod else None) as made:
        yield made
