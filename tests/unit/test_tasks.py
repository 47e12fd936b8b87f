"""The tasks as `invoke --list` and `invoke --help` show them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("docker", "fabric", "pymongo", "rich", "pydantic", "jinja2", "psutil", "requests", "pooch")


def asked(*arguments: str) -> str:
    """What Invoke answers to a question about the tasks; no task runs."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("INVOKE_")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names() -> list[str]:
    listing = json.loads(asked("--list", "--list-format=json"))

    def walk(collection: dict[str, object], prefix: str) -> list[str]:
        found = [prefix + str(each["name"]) for each in collection["tasks"]]  # type: ignore[attr-defined, index]
        for inner in collection["collections"]:  # type: ignore[attr-defined]
            found += walk(inner, f"{prefix}{inner['name']}.")
        return found

    return walk(listing, "")


@functools.cache
def helps() -> dict[str, str]:
    """Task → what `--help` answers to it: one program asks them all, as to begin one takes longer than to answer."""
    program = (
        "import contextlib, io, json, sys\nfrom invoke.main import program\nfound = {}\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "        program.run(['invoke', '--help', name], exit=False)\n"
        "    found[name] = said.getvalue()\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_the_tasks_that_the_readme_names_are_there() -> None:
    wanted = {
        "setup",
        "settings",
        "render",
        "start",
        "stop",
        "restart",
        "status",
        "logs",
        "uri",
        "run",
        "test",
    }
    assert wanted <= set(names())


def test_every_task_says_what_it_is_for() -> None:
    listing = json.loads(asked("--list", "--list-format=json"))
    assert [each["name"] for each in listing["tasks"] if not each["help"]] == []


def test_every_flag_of_every_task_is_explained() -> None:
    unexplained = []
    for name, shown in helps().items():
        options = shown.split("Options:")[1]
        if options.strip() == "none":
            continue
        unexplained += [
            f"{name}: {line.strip()}"
            for line in options.splitlines()
            if line.strip().startswith("-") and len(line.strip().split("   ")) < 2
        ]
    assert unexplained == []


@pytest.mark.parametrize("typed", ["dump --help", "load -h", "load dump --help"])
def test_help_may_stand_behind_a_task_that_takes_a_name(typed: str) -> None:
    done = subprocess.run([ROOT / "invoke", *typed.split()], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == asked("--help", typed.split()[0])


def test_a_flag_that_is_not_there_is_never_taken_for_a_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "snapshot.save", "--bogus"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "No idea what '--bogus' is." in done.stderr


# What they print is not a result of theirs: a program's output, a log, the lines of a prompt.
SPEAK_FOR_OTHERS = {"run", "test", "shell", "cluster.shell", "logs", "cluster.logs"}


def test_every_task_that_has_a_result_gives_it_as_json() -> None:
    without = {name for name, shown in helps().items() if "--json" not in shown}
    assert without == SPEAK_FOR_OTHERS


@pytest.mark.parametrize("argument", ["--list", "--help", "--version"])
def test_a_question_imports_nothing_heavy(argument: str) -> None:
    program = (
        "import sys\nsys.argv = ['invoke', sys.argv[1]]\nfrom invoke.main import program\n"
        "try:\n    program.run()\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, argument], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("typed", "why", "remedy"),
    [
        ("runn", "No idea what 'runn' is (did you mean run?).", "invoke --list"),
        ("run --prot 3", "No idea what '--prot' is (did you mean --port?).", "invoke --help run"),
        ("settings app.port", "No idea what 'app.port' is.", "invoke --help settings"),
        ("snapshot.save --nope", "No idea what '--nope' is.", "invoke --help snapshot.save"),
        ("help", "No idea what 'help' is (did you mean --help?).", "invoke --list"),
        ("--jsno", "No idea what '--jsno' is.", "invoke --help\n"),
    ],
)
def test_what_is_mistyped_is_named_with_what_comes_close(typed: str, why: str, remedy: str) -> None:
    done = subprocess.run([ROOT / "invoke", *typed.split()], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert remedy in done.stderr.partition("next: ")[2]
