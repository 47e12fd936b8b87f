"""`app.factory`: what `flask --app` takes, what is in a wrapper, and what is said of a failure."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.app import loading
from provision.app.failures import Setting, failed, remedy

Put = Callable[..., str]
NUMBERS = itertools.count()
FLASK = "from flask import Flask\n"
FACTORY = (
    FLASK
    + """
def create_app(name="plain", debug=False, *, config=None):
    app = Flask(__name__)
    app.config.update(NAME=name, GIVEN=(debug, config))
    return app
"""
)
# As Flask-SocketIO's SocketIO has it, and as werkzeug's ProxyFix and connexion's FlaskApp have it.
WRAPPERS = """
class WSGI:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        return self.app(environ, start_response)


class Holder:
    def __init__(self, app):
        self.flask_app = app


class Middleware:
    def __init__(self, app):
        self.wsgi_app = app

    def __call__(self, environ, start_response):
        return self.wsgi_app(environ, start_response)


class ASGI:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        pass


class SocketIO:
    server = object()

    def run(self, app):
        pass
"""


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    """Writes a module, and returns its name, which no other test has."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(text: str, name: str = "") -> str:
        name = name or f"shop{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("written", "name", "given"),
    [
        ("", "plain", (False, None)),
        (":create_app", "plain", (False, None)),
        (":create_app()", "plain", (False, None)),
        (":create_app('dev')", "dev", (False, None)),
        (""": create_app( "dev", debug=True, config={'A': [1]} )""", "dev", (True, {"A": [1]})),
        (".py:create_app('dev', True)", "dev", (True, None)),
    ],
)
def test_a_factory_is_called_as_flask_calls_it(
    put: Put, tmp_path: Path, written: str, name: str, given: object
) -> None:
    app = loading.load(put(FACTORY) + written, tmp_path).flask
    assert (app.config["NAME"], app.config["GIVEN"]) == (name, given)


@pytest.mark.parametrize("name", ["app", "application", "shop_of_ours"])
def test_an_app_object_is_found_in_its_module(put: Put, tmp_path: Path, name: str) -> None:
    module = put(f"{FLASK}{name} = Flask(__name__)\n")
    app = loading.load(module, tmp_path)
    assert app.flask is app.wsgi is getattr(sys.modules[module], name)


@pytest.mark.parametrize(
    ("wrapper", "served"), [("WSGI", True), ("Middleware", True), ("Holder", False), ("WSGI(WSGI", True)]
)
@pytest.mark.parametrize("shape", ["object", "factory"])
def test_an_app_comes_out_of_its_wrapper_and_the_wrapper_is_served(
    put: Put, tmp_path: Path, wrapper: str, served: bool, shape: str
) -> None:
    around = f"{wrapper}(Flask(__name__)){')' * wrapper.count('(')}"
    text = f"app = {around}" if shape == "object" else f"def create_app():\n    return {around}"
    app = loading.load(put(f"{FLASK}{WRAPPERS}\n{text}\n"), tmp_path)
    assert type(app.flask).__name__ == "Flask"
    assert (app.wsgi is not app.flask) is served


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("app = 1", "shape", "no Flask app, and no factory"),
        ("from flask import Flask\na = Flask('a')\nb = Flask('b')", "shape", "several Flask apps"),
        ("def create_app():\n    pass", "shape", "gives None, not a Flask app"),
        ("def create_app(name):\n    pass", "shape", "It is defined as create_app(name)"),
        ("def create_app():\n    return SocketIO()", "server", "brings a server of its own"),
        ("def create_app():\n    return ASGI(Flask('a'))", "server", "is an ASGI app"),
    ],
)
def test_what_is_not_an_app_is_said_to_be_something_else(
    put: Put, tmp_path: Path, text: str, kind: str, words: str
) -> None:
    with pytest.raises(loading.NotAnApp, match=words.replace("(", r"\(").replace(")", r"\)")) as found:
        loading.load(put(f"{FLASK}{WRAPPERS}\n{text}\n"), tmp_path)
    assert found.value.kind == kind


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (":", "names no app behind its colon"),
        (":nothing", "There is no nothing in"),
        (":create_app(", "neither a name nor the call"),
        (":create_app(open)", "is not a literal"),
        (":create_app(1, 2, 3)", "It is defined as create_app"),
        (":[1]", "neither a name nor the call"),
    ],
)
def test_a_call_that_flask_would_not_take_is_explained(
    put: Put, tmp_path: Path, written: str, words: str
) -> None:
    with pytest.raises(loading.NotAnApp, match=words):
        loading.load(put(FACTORY) + written, tmp_path)


def test_a_type_error_within_the_factory_is_the_apps_own(put: Put, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="int"):
        loading.load(put("def create_app():\n    int(None)\n"), tmp_path)


def test_an_import_error_within_the_app_is_the_apps_own(put: Put, tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="no_such_name"):
        loading.load(put("from flask import no_such_name\n"), tmp_path)
    with pytest.raises(loading.NotAnApp, match="no module nowhere in"):
        loading.load("nowhere:app", tmp_path)


def test_a_script_beside_a_package_of_its_name_is_loaded_as_the_script(put: Put, tmp_path: Path) -> None:
    name = put("")
    (tmp_path / f"{name}.py").write_text(f"from {name} import create_app\n\napp = create_app('the script')\n")
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(FACTORY)
    assert loading.load(f"{name}.py", tmp_path).flask.config["NAME"] == "the script"
    assert loading.load(f"{name}:create_app", tmp_path).flask.config["NAME"] == "plain"


def test_an_app_run_without_a_guard_does_not_run(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    module = put(f"{FLASK}app = Flask(__name__)\napp.run(port=1)\n")
    assert loading.load(module, tmp_path).flask is sys.modules[module].app


# ---- why it did not start


def why(put: Put, tmp_path: Path, text: str) -> dict[str, Any]:
    with pytest.raises(BaseException) as found:
        loading.load(put(text), tmp_path)
    return loading.reason(found.value, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "kind", "names"),
    [
        ("import os\nos.environ['SHOP_KEY']", "KeyError: 'SHOP_KEY'", "environment", ["SHOP_KEY"]),
        (
            "import os\nint(os.environ.get('SHOP_WORKERS'))",
            "TypeError: int() argument must be a string, a bytes-like object or a real number, not 'NoneType'",
            "environment",
            ["SHOP_WORKERS"],
        ),
        (
            "import os\nif not os.getenv('SHOP_MAIL'):\n    raise RuntimeError('SHOP_MAIL is not set')",
            "RuntimeError: SHOP_MAIL is not set",
            "environment",
            ["SHOP_MAIL"],
        ),
        ("import os\nraise SystemExit('no shop today')", "SystemExit: no shop today", "other", []),
        ("{}['orders']", "KeyError: 'orders'", "other", []),
        (
            "import not_there.at_all",
            "ModuleNotFoundError: No module named 'not_there'",
            "package",
            ["not_there"],
        ),
        ("raise ValueError('one\\n  two')", "ValueError: one two", "other", []),
        (
            "from pymongo.errors import OperationFailure\nraise OperationFailure('Authentication failed.', 18)",
            "pymongo.errors.OperationFailure: Authentication failed., full error: None",
            "auth",
            [],
        ),
        (
            "from pymongo.errors import OperationFailure\n"
            "try:\n    raise OperationFailure('not authorized', 13)\n"
            "except OperationFailure as error:\n    raise RuntimeError('no database') from error",
            "RuntimeError: no database",
            "auth",
            [],
        ),
        (
            "from pymongo.errors import ServerSelectionTimeoutError\nraise ServerSelectionTimeoutError('no answer')",
            "pymongo.errors.ServerSelectionTimeoutError: no answer",
            "address",
            [],
        ),
    ],
)
def test_the_last_line_of_the_traceback_and_what_it_comes_from_are_told(
    put: Put, tmp_path: Path, text: str, line: str, kind: str, names: list[str]
) -> None:
    found = why(put, tmp_path, text + "\n")
    assert (found["kind"], found["names"]) == (kind, names)
    assert found["line"].partition(", full")[0] == line.partition(", full")[0]


def test_a_flask_that_is_too_old_is_named_with_the_oldest_that_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import flask.cli

    monkeypatch.delattr(flask.cli, "load_dotenv")
    with pytest.raises(loading.NotAnApp, match=r"the oldest Flask that is served is 1\.0") as found:
        loading.load("anything", tmp_path)
    assert loading.reason(found.value, tmp_path)["kind"] == "old"


OPEN = Setting("local", False, None)
SECURED = Setting("prod", True, "requirements.txt", ("pa55",))


@pytest.mark.parametrize(
    ("kind", "names", "setting", "words"),
    [
        ("auth", (), OPEN, "Set deployments.local.auth to true"),
        ("auth", (), SECURED, "read its database's address from MONGODB_URI"),
        ("environment", ("A", "B"), OPEN, 'Set A: "…" and B: "…" below app.env'),
        ("shape", (), OPEN, "module:create_app('dev')"),
        ("server", (), OPEN, "Set app.command"),
        ("package", ("redis",), SECURED, "List the package that has redis in requirements.txt"),
        ("package", ("redis",), OPEN, "what declares the app's dependencies"),
        ("flask", (), OPEN, "List flask in"),
        ("old", (), OPEN, "flask>=1.0"),
        ("inside-flask", (), OPEN, "List versions that fit each other"),
        ("module", (), OPEN, "Set app.factory in invoke.yaml to the app's module, and app.path"),
        ("address", (), OPEN, "docs/environment.md"),
        ("command", ("hypercorn",), OPEN, "List the package that brings hypercorn"),
        ("other", (), OPEN, "Correct it"),
    ],
)
def test_the_remedy_is_that_of_the_failure(
    kind: str, names: tuple[str, ...], setting: Setting, words: str
) -> None:
    assert words in remedy(kind, names, setting)


def test_the_reason_comes_first_and_no_secret_is_in_it() -> None:
    reason = {"line": "ValueError: pa55 is no URI", "kind": "other", "names": []}
    error = failed("running shop", "The app ended with status 1.", reason, SECURED)
    assert error.cause == "ValueError: *** is no URI\nThe app ended with status 1."
    assert error.remedy == "Correct it, then type `invoke run` again."
