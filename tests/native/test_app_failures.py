"""An app that does not start says why: its own last line first, and the remedy of this failure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.native.test_apps import put
from tests.support.clones import Clone
from tests.support.processes import free_port

FLASK = "from flask import Flask\n\n"
APP = 'app = Flask(__name__)\n\n\n@app.get("/")\ndef home():\n    return "served"\n'


@dataclass(frozen=True)
class Case:
    """An app that fails, and what is said of it."""

    why: str
    remedy: str
    files: dict[str, str]
    factory: str = "app"
    traceback: bool = True


# A `flask` beside the app is imported in place of the one that is installed.
OLD_JINJA = {"flask/__init__.py": "from jinja2 import escape\n", "app.py": FLASK + APP}
OLD_FLASK = {"flask/__init__.py": '__version__ = "0.12.5"\n', "flask/cli.py": "", "app.py": FLASK + APP}
NO_FLASK = {
    "flask.py": 'raise ModuleNotFoundError("No module named \'flask\'", name="flask")\n',
    "app.py": APP,
}
CASES = {
    "an import within Flask": Case("ImportError: cannot import name 'escape' from 'jinja2'", "fit each other", OLD_JINJA),
    "an old Flask": Case(
        "Flask 0.12.5 is installed, and the oldest Flask that is served is 1.0.",
        "List flask>=1.0",
        OLD_FLASK,
        traceback=False,
    ),
    "no Flask": Case("Flask is not installed.", "List flask in", NO_FLASK, traceback=False),
    "a package that is not there": Case(
        "ModuleNotFoundError: No module named 'not_there'",
        "List the package that has not_there",
        {"app.py": FLASK + "import not_there\n"},
    ),
    "a variable that is not there": Case(
        "KeyError: 'SHOP_KEY'", 'Set SHOP_KEY: "…" below app.env', {"app.py": "import os\nos.environ['SHOP_KEY']\n"}
    ),
    "a user where there are none": Case(
        "pymongo.errors.OperationFailure: Authentication failed.",
        "Set deployments.local.auth to true",
        {
            "app.py": FLASK
            + "import os\nfrom pymongo import MongoClient\n"
            + "MongoClient(os.environ['MONGO_URI'], username='admin', password='x').admin.command('ping')\n"
        },
    ),
    "a factory with an argument": Case(
        "TypeError: create_app() missing 1 required positional argument: 'stage'.",
        "module:create_app('dev')",
        {"app.py": FLASK + "def create_app(stage):\n    return Flask(stage)\n"},
        factory="app:create_app",
        traceback=False,
    ),
    "a server of its own": Case(
        "app:socketio gives a app.SocketIO, which brings a server of its own",
        "Set app.command",
        {"app.py": FLASK + "class SocketIO:\n    server = None\n\n    def run(self): ...\n\n\nsocketio = SocketIO()\n"},
        factory="app:socketio",
        traceback=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_reason_comes_first_and_the_remedy_fits_it(clone: Clone, tmp_path: Path, case: Case) -> None:
    place = put(tmp_path / "theirs", case.files)
    done = clone.invoke("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": case.factory})
    assert done.returncode == 1
    assert f"  why:  {case.why}" in done.stderr
    assert case.remedy in done.stderr.partition("  next: ")[2]
    assert ("Traceback (most recent call last)" in done.stderr) is case.traceback
    assert "serve.py" not in done.stderr
    assert "loading.py" not in done.stderr
    assert ("Flask is not installed" in done.stderr) is (case.files is NO_FLASK)
    assert clone.processes() == []


def test_an_address_of_the_apps_own_is_named(clone: Clone, tmp_path: Path) -> None:
    text = (
        f"from pymongo import MongoClient\n"
        f"MongoClient('127.0.0.1', {free_port()}, serverSelectionTimeoutMS=200).admin.command('ping')\n"
    )
    place = put(tmp_path / "theirs", {"app.py": text})
    said = clone.invoke("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": "app"}).stderr
    assert "  why:  pymongo.errors.ServerSelectionTimeoutError: 127.0.0.1" in said
    assert "docs/environment.md" in said.partition("  next: ")[2]


@pytest.mark.parametrize("status", [3, 4])
def test_an_app_that_ends_itself_is_not_started_again(clone: Clone, tmp_path: Path, status: int) -> None:
    """Werkzeug ends with 3 to be started again after a change of the code."""
    place = put(tmp_path / "theirs", {"app.py": f"import sys\nsys.exit({status})\n"})
    done = clone.invoke("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": "app"})
    assert done.returncode == 1
    assert f"SystemExit: {status}" in done.stderr, done.stderr
    assert clone.processes() == []
