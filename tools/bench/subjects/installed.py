"""The tool as a package, in somebody's project: how soon a command starts, `init`, and a second app's virtualenv."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject

_APP = """import os

from flask import Flask
from pymongo import MongoClient

app = Flask(__name__)
database = MongoClient(os.environ["MONGO_URI"]).get_default_database()
"""
_OTHER_FILES = 5000
_REQUIREMENTS = "flask\npymongo\nrequests\n"


@contextlib.contextmanager
def _installed(lab: Lab) -> Iterator[Path]:
    """The command `provision`, installed from a wheel of the project as it is now."""
    python = sys.executable  # it has virtualenv and pip; a project that only runs has neither
    source, virtualenv = lab.copy("to-install"), lab.folder / "tool"
    lab.run([python, "-m", "virtualenv", "--quiet", "--no-seed", str(virtualenv)], lab.folder)
    lab.run([python, "-m", "pip", "--python", str(virtualenv), "install", "--quiet", str(source)], lab.folder)
    lab.discard(source)
    yield virtualenv / "bin" / "provision"


def _command(lab: Lab) -> str:
    return str(lab.keep("installed", lambda: _installed(lab)))


def _list(lab: Lab) -> float:
    return lab.run([_command(lab), "--list"], lab.folder).seconds


def _list_in_a_clone(lab: Lab) -> float:
    return lab.run(["./invoke", "--list"], lab.project().paths.root).seconds


def _init(lab: Lab) -> float:
    command, folder = _command(lab), lab.emptied("large")
    (folder / "app.py").write_text(_APP, encoding="utf-8")
    for number in range(_OTHER_FILES):
        package = folder / "shop" / f"part{number % 50}"
        package.mkdir(parents=True, exist_ok=True)
        text = f'"""Module {number}."""\n\nimport json\n\n\ndef work(value):\n    return json.dumps([value, {number}])\n'
        (package / f"module{number}.py").write_text(text, encoding="utf-8")
    done = lab.run([command, "init", "--without-git"], folder)
    lab.discard(folder)
    return done.seconds


def _put(folder: Path) -> Path:
    (folder / "app.py").write_text(_APP, encoding="utf-8")
    (folder / "requirements.txt").write_text(_REQUIREMENTS, encoding="utf-8")
    return folder


def _first_app(lab: Lab) -> contextlib.AbstractContextManager[None]:
    """An app that was set up before: packages and mongod are in the caches."""
    folder = _put(lab.emptied("first-app"))
    lab.run([_command(lab), "init", "--without-git"], folder)
    lab.run([_command(lab), "setup"], folder)
    return contextlib.nullcontext()


def _second_app(lab: Lab) -> float:
    lab.keep("first-app", lambda: _first_app(lab))
    folder = _put(lab.emptied("second-app"))
    lab.run([_command(lab), "init", "--without-git"], folder)
    done = lab.run([_command(lab), "setup"], folder)
    lab.discard(folder)
    return done.seconds


def _by_hand(lab: Lab) -> float:
    folder = _put(lab.emptied("by-hand-app"))
    line = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    done = lab.run(["sh", "-e", "-c", line], folder, {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    lab.discard(folder)
    return done.seconds


def _skip_by_hand(lab: Lab) -> str | None:
    if shutil.which("python3", path=lab.environment["PATH"]) is None:
        return "there is no python3 on the PATH to make a virtualenv with by hand."
    return None


COMMAND = Subject(
    "installed",
    "provision --list, installed as a package",
    Bound(1.1, "x"),
    _list,
    _list_in_a_clone,
    "./invoke --list in a clone",
)
INIT = Subject(
    "init",
    f"provision init in a repository of {_OTHER_FILES} Python files",
    Bound(1.0, "s"),
    _init,
)
SECOND_APP = Subject(
    "second-app",
    "provision setup for a second app, with warm caches: all that it needs, its virtualenv included",
    Bound(0.4, "x"),
    _second_app,
    _by_hand,
    "python3 -m venv .venv, and pip install -r requirements.txt with the same warm cache",
    _skip_by_hand,
)
