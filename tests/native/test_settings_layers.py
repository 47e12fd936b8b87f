"""The layer of settings for the person, from the command line; and what the remedies say, typed."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from tests.support.clones import Clone


def value_of(clone: Clone, key: str) -> tuple[str, str]:
    """Value and origin of a setting, as `invoke settings` shows them."""
    shown = clone.succeeds("settings", "--key", key, env={"INVOKE_APP_PORT": None})
    _, value, origin = re.split(r"\s{2,}", shown.splitlines()[1].strip())
    return value, origin


def test_the_users_file_and_the_local_one_win_over_the_projects(clone: Clone) -> None:
    (clone.home / ".invoke.yaml").write_text("app: {port: 8001}\n")
    assert value_of(clone, "app.port") == ("8001", "~/.invoke.yaml, line 1")
    (clone.root / "invoke.local.yaml").write_text("app:\n  port: 8002\n")
    assert value_of(clone, "app.port") == ("8002", "invoke.local.yaml, line 2")
    subprocess.run(["git", "init", "-q", str(clone.root)], check=True)
    (clone.root / "mongod.conf.edited").touch()
    for name in ("invoke.local.yaml", "mongod.conf.edited"):
        subprocess.run(["git", "-C", str(clone.root), "check-ignore", "-q", name], check=True)


@pytest.mark.parametrize("task", ["settings", "status", "stop", "doctor"])
def test_a_file_that_is_named_and_missing_stops_every_task(clone: Clone, task: str) -> None:
    said = clone.fails("-f", "missing.yaml", task)
    assert "missing.yaml is not there, and `-f` names it" in said
    said = clone.fails(task, env={"INVOKE_RUNTIME_CONFIG": "missing.yaml"})
    assert "INVOKE_RUNTIME_CONFIG names it" in said


def test_a_broken_file_of_the_user_does_not_keep_the_tasks_from_being_listed(clone: Clone) -> None:
    (clone.home / ".invoke.yaml").write_bytes("app: {port: 8001}\n".encode("utf-16"))
    assert "cluster.up" in clone.succeeds("--list")
    said = clone.fails("settings")
    assert "~/.invoke.yaml, line 1 is UTF-16" in said


def test_the_remedy_for_a_file_in_utf_16_is_typed_and_works(clone: Clone) -> None:
    (clone.home / ".invoke.yaml").write_bytes("app: {port: 8001}\n".encode("utf-16"))
    said = clone.fails("settings")
    command = re.search(r"iconv .*", said)
    assert command is not None
    subprocess.run(["sh", "-c", command.group(0)], cwd=clone.root, env=clone.env(), check=True)
    assert value_of(clone, "app.port")[0] == "8001"


def test_two_variables_that_differ_in_case_do_not_stop_every_command(clone: Clone) -> None:
    clone.change_settings(lambda values: values["app"]["env"].update(http_proxy="x", HTTP_PROXY="y"))
    shown = clone.succeeds("settings", "--key", "app.env")
    assert "app.env.http_proxy" in shown
    assert "app.env.HTTP_PROXY" in shown


def test_a_python_that_yaml_reads_as_another_number_is_said_and_the_remedy_works(clone: Clone) -> None:
    path = clone.root / "invoke.local.yaml"
    path.write_text("app:\n  python: 3.10\n")
    said = clone.fails("settings")
    assert "invoke.local.yaml, line 2: app.python: 3.10 without quotes is read as the number 3.1" in said
    quoted = re.search(r"Quote it: (.*)", said)
    assert quoted is not None
    path.write_text(f"app:\n  {quoted.group(1)}\n")
    assert value_of(clone, "app.python")[0] == "3.10"


@pytest.mark.parametrize(
    "words", ["logs --lines x", "seed --users many", "tunnel --port x", "test --workers x", "-T x status"]
)
def test_a_flag_that_takes_a_number_says_so_in_one_line(clone: Clone, words: str) -> None:
    done = clone.invoke(*words.split())
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "whole number" in done.stderr


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_address_that_is_not_this_machines_is_said_and_the_remedy_works(clone: Clone, host: str) -> None:
    said = clone.fails("run", env={"INVOKE_APP_HOST": host})
    assert f"{host} is not an address of this machine" in said
    assert "is held by" not in said
    remedy = re.search(r"INVOKE_APP_HOST=(\S+) \./invoke run", said)
    assert remedy is not None
    running = clone.begin("run", env={"INVOKE_APP_HOST": remedy.group(1)})
    running.says("Serving ")


def test_the_remedy_for_a_port_of_the_app_that_is_taken_is_typed_and_works(clone: Clone) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", clone.app_port))
        holder.listen()
        said = clone.fails("run")
        command = re.search(r"invoke (run --port \d+)", said)
        assert command is not None
        running = clone.begin(*shlex.split(command.group(1)))
        running.says("Serving ")


def test_the_remedy_for_a_deployment_that_is_stopped_is_typed_and_works(clone: Clone) -> None:
    said = clone.fails("shell", "--eval", "1")
    command = re.search(r"invoke (start --on local)", said)
    assert command is not None
    clone.succeeds(*command.group(1).split())
    assert "1" in clone.succeeds("shell", "--eval", "1", "--python")


@pytest.mark.parametrize("database", ["a+b", "a%41b", "a%20b"])
def test_the_app_gets_the_database_of_its_name(clone: Clone, database: str) -> None:
    from pymongo.uri_parser import parse_uri

    uri = clone.succeeds("uri", "--database", database, env={"INVOKE_APP_DATABASE": database}).strip()
    assert parse_uri(uri)["database"] == database
