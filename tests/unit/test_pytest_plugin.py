"""The pytest plugin's pure parts, and what it is shipped with."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from provision.core.errors import ProvisionError
from provision.mongodb.credentials import Credentials
from provision.testing import application, databases
from provision.testing.container import Spec
from provision.testing.fetching import Fetching
from provision.testing.report import SHOWN, log_lines, of_databases
from provision.testing.request import Request, RequestError
from provision.testing.run import Owner, Run

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def entry(seconds: float, message: str) -> str:
    stamp = (NOON + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    return f'{{"t":{{"$date":"{stamp}"}},"s":"I","c":"STORAGE","id":1,"ctx":"main","msg":"{message}"}}'


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def test_a_marker_changes_what_it_names_and_keeps_the_rest() -> None:
    request = Request(auth=True).changed_by((), {"topology": "sharded", "shards": 3})
    assert request == Request(auth=True, topology="sharded", shards=3)


def test_requests_share_a_server_when_they_want_the_same() -> None:
    assert Request(shards=2).key == Request(shards=5).key
    assert Request(topology="sharded", shards=2).key != Request(topology="sharded", shards=5).key
    keys = {
        Request().key,
        Request(standalone=True).key,
        Request(auth=True).key,
        Request(topology="replica-set").key,
        Request(topology="replica-set", members=1).key,
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("arguments", "keywords", "says"),
    [
        (("sharded",), {}, "not 'sharded'"),
        ((), {"topology": "replica-set", "members": 0}, "members is 0"),
        ((), {"members": 3}, "members: a single mongod is one"),
        ((), {"topology": "sharded", "shards": True}, "shards is True"),
        ((), {"topology": "sharded", "standalone": True}, "standalone"),
    ],
)
def test_a_wrong_marker_says_what_is_wrong(
    arguments: tuple[Any, ...], keywords: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(says)):
        Request().changed_by(arguments, keywords)


def test_a_topology_by_marker_takes_precedence_over_the_option_standalone() -> None:
    assert not Request(standalone=True).changed_by((), {"topology": "replica-set"}).standalone


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://h:1", "mongodb://h:1/d"),
        ("mongodb://h:1/", "mongodb://h:1/d"),
        ("mongodb://h:1,g:2/old?replicaSet=rs0", "mongodb://h:1,g:2/d?replicaSet=rs0"),
        ("mongodb://h:1?w=1", "mongodb://h:1/d?w=1"),
        # A user is looked up in the default database unless something else is said.
        ("mongodb://u:p@h:1/old", "mongodb://u:p@h:1/d?authSource=old"),
        ("mongodb://u:p@h:1/", "mongodb://u:p@h:1/d?authSource=admin"),
        ("mongodb://u:p@h:1/?authSource=x", "mongodb://u:p@h:1/d?authSource=x"),
        ("mongodb+srv://u:p%2F@h/", "mongodb+srv://u:p%2F@h/d?authSource=admin"),
    ],
)
def test_a_connection_string_gets_another_database(uri: str, expected: str) -> None:
    assert databases.uri_with(uri, "d") == expected


def test_only_names_made_for_a_run_are_taken_for_its_own() -> None:
    mine = databases.new_name("0123456789ab")
    others = [
        "admin",
        "test",
        "test_0123456789ab",
        f"{mine}x",
        "test_0123456789ab_kept",
        databases.new_name("ba9876543210"),
    ]
    assert databases.of_run("0123456789ab", [*others, mine]) == [mine]


@pytest.mark.parametrize("replica_set", [None, "rs0"])
def test_a_containers_command_and_environment_hold_no_secret(replica_set: str | None) -> None:
    spec = Spec("mongo:8.0", replica_set, Credentials("root", "open sesame"), "keykeykey")
    shown = repr((spec.command(), spec.entry_point(), spec.environment(), spec))
    assert "open sesame" not in shown
    assert "keykeykey" not in shown
    assert b"open sesame" in spec.files().values()
    assert ("--keyFile" in spec.command()) == (replica_set is not None)


def test_a_container_without_users_runs_as_its_image_says() -> None:
    spec = Spec("mongo:8.0", "rs0", None)
    assert spec.entry_point() is None
    assert spec.files() == {}
    assert "--keyFile" not in spec.command()


def test_a_log_of_several_nodes_is_merged_by_time_and_cut_to_the_test() -> None:
    streams = {
        "a": [entry(-5, "before"), entry(1, "one"), entry(3, "three")],
        "node-b": [entry(2, "two"), entry(9, "after")],
    }
    heading, *lines = log_lines(streams, NOON, NOON + timedelta(seconds=4))
    assert heading == "log of the test's 4.0 s:"
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        ("a", "one"),
        ("node-b", "two"),
        ("a", "three"),
    ]


def test_what_happened_to_other_tests_databases_is_left_out_of_a_log() -> None:
    mine, earlier, neighbour = (
        databases.new_name(run) for run in ("0123456789ab", "0123456789ab", "ba9876543210")
    )
    told = [
        f"made {mine}.people",
        f"dropped {earlier}.people",
        f"made {neighbour}.x",
        f"{mine} and {earlier}",
        "ok",
    ]
    assert of_databases(told, {mine}) == [told[0], told[3], told[4]]


def test_of_a_long_log_the_end_is_shown() -> None:
    streams = {"mongod": [entry(n / 100, f"line-{n}") for n in range(SHOWN + 50)]}
    heading, *lines = log_lines(streams, NOON, NOON + timedelta(seconds=60))
    assert f"the last {SHOWN} lines of {SHOWN + 50}" in heading
    assert len(lines) == SHOWN
    assert lines[-1].endswith(f"line-{SHOWN + 49}")


def test_a_quiet_mongod_is_said_to_be_quiet() -> None:
    assert log_lines({"mongod": []}, NOON, NOON) == ["log: nothing was logged during the test"]


def test_this_process_is_alive_and_one_that_had_its_pid_before_is_not() -> None:
    me = Owner.here()
    assert me.process.pid == os.getpid()
    assert not me.is_dead
    before = dataclasses.replace(me.process, start_ticks=me.process.start_ticks - 1)
    assert dataclasses.replace(me, process=before).is_dead


def test_what_runs_on_another_machine_is_never_taken_for_dead() -> None:
    none_has_this_pid = dataclasses.replace(Owner.here().process, pid=2**22 + 1)
    elsewhere = dataclasses.replace(Owner.here(), process=none_has_this_pid, host="another-machine")
    assert not elsewhere.is_dead
    assert dataclasses.replace(elsewhere, host=Owner.here().host).is_dead


def test_a_worker_knows_its_run() -> None:
    run = Run.new()
    assert Run.from_json(run.as_json()) == run


def test_the_packaged_template_is_the_projects() -> None:
    packaged = ROOT / "provision" / "templates" / "mongod.conf.j2"
    assert packaged.read_text(encoding="utf-8") == (ROOT / "mongod.conf.j2").read_text(encoding="utf-8")


def test_the_plugin_is_found_by_pytest_where_the_package_is_installed() -> None:
    assert project()["entry-points"]["pytest11"] == {"provision": "provision.testing.plugin"}


def test_the_packages_bounds_are_those_of_the_requirement_files() -> None:
    listed = {}
    for name in (
        "requirements.in",
        *(f"requirements-{group}.in" for group in ("run", "hosts", "test", "dev")),
    ):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if text := line.partition("#")[0].strip():
                requirement = Requirement(text)
                listed[requirement.name] = requirement.specifier
    described = project()
    wanted = [*described["dependencies"], *chain.from_iterable(described["optional-dependencies"].values())]
    wanted += tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"][
        "flaskbook"
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name == described["name"]:
            assert requirement.extras <= set(described["optional-dependencies"])
        elif requirement.name == "pytest":  # the plugin runs on older ones than our own tests
            assert requirement.specifier == SpecifierSet(">=8")
        elif requirement.name == "invoke":  # a project may have Invoke 3; Fabric keeps ours at 2
            assert requirement.specifier == SpecifierSet(">=2.2.1")
        else:
            assert requirement.specifier == listed[requirement.name], requirement.name


def test_who_runs_an_app_needs_neither_pytest_nor_what_other_hosts_need() -> None:
    described = project()
    needed = {Requirement(text).name for text in described["dependencies"]}
    assert needed.isdisjoint(
        {"pip", "pytest", "fabric", "paramiko", "cryptography", "testcontainers", "flask", "mongoengine"}
    )
    assert set(described["optional-dependencies"]) == {"hosts", "container", "dev"}


def test_app_env_adds_to_the_variables_of_the_app_and_takes_away(tmp_path: Path) -> None:
    known = application.environment([], tmp_path)
    assert "MONGODB_URI" in known
    changed = application.environment(["MONGO_URL={{ uri }}", "MONGODB_URI ="], tmp_path)
    assert changed == {**known, "MONGO_URL": "{{ uri }}", "MONGODB_URI": None}
    for wrong in ("MONGO_URL", "=x", "A B=c"):
        with pytest.raises(ProvisionError, match="is not NAME=VALUE"):
            application.environment([wrong], tmp_path)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_fetch_is_told_once_and_its_progress_only_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    fetching = Fetching(contextlib.nullcontext)
    for done, total in ((0, None), (0, 42_000_000), (21_000_000, 42_000_000), (42_000_000, 42_000_000)):
        fetching.advance(done, total)
    said = stderr.getvalue()
    assert said.count("fetching mongod") == 1
    assert (" 50 % of 42 MB" in said) == terminal
    assert ("100 %" in said) == terminal
