"""Other projects' apps, unchanged: each finds the database where it expects it, in requirements of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.support.clones import Clone, cloned
from tests.support.polling import until
from tests.support.processes import end

FACTORY_READING_MONGO_URI = {
    "settings.py": 'import os\n\nMONGO_URI = os.environ["MONGO_URI"]\n',
    "errors.py": 'class NoSuchThing(Exception):\n    """An error of this app."""\n',
    "app.py": """\
from errors import NoSuchThing
from flask import Flask
from pymongo import MongoClient
import settings


def create_app():
    app = Flask(__name__)
    client = MongoClient(settings.MONGO_URI)

    @app.get("/")
    def home():
        database = client.get_default_database()
        database.visits.insert_one({})
        return {"database": database.name, "visits": database.visits.count_documents({}), "file": settings.__file__}

    return app
""",
}
OBJECT_READING_HOST_PORT_DB = {
    "app.py": """\
import os

from flask import Flask
from pymongo import MongoClient

app = Flask(__name__)
client = MongoClient(os.environ["MONGODB_HOST"], int(os.environ["MONGODB_PORT"]))
database = client[os.environ["MONGODB_DB"]]


@app.get("/")
def home():
    database.visits.insert_one({})
    return {"database": database.name, "visits": database.visits.count_documents({}), "file": __file__}
""",
}
PREFIXED_CONFIGURATION = {
    "shop/__init__.py": """\
from flask import Flask
from pymongo import MongoClient


def create_app(config=None):
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config.from_mapping(config or {})
    database = MongoClient(app.config["MONGO_URI"])[app.config["MONGODB_DB"]]

    @app.get("/")
    def home():
        database.visits.insert_one({})
        given = app.config["MONGODB_SETTINGS"]["host"]
        assert given == app.config["MONGO_URI"], given
        return {"database": database.name, "visits": database.visits.count_documents({}), "file": __file__}

    return app
""",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[Clone]:
    """A clone that keeps its database from test to test."""
    with cloned(tmp_path_factory.mktemp("apps"), str(mongod_binary)) as made:
        yield made


@pytest.fixture
def shared(kept: Clone) -> Iterator[Clone]:
    """The clone, whose database runs and is empty: `run` serves an app on it and leaves it so."""
    if not kept.mongods():
        kept.succeeds("start")
    settings = kept.root / "invoke.yaml"
    before = settings.read_bytes()
    with MongoClient[dict[str, Any]](kept.uri) as client:
        for name in ("theirs", "flaskbook"):
            client.drop_database(name)
    yield kept
    settings.write_bytes(before)
    left = [each for each in kept.processes() if each.name() != "mongod"]
    end(left)
    assert left == []
    assert len(kept.mongods()) == 1


@pytest.mark.parametrize(
    ("files", "factory"),
    [
        (FACTORY_READING_MONGO_URI, "app:create_app"),
        (OBJECT_READING_HOST_PORT_DB, "app:app"),
        (OBJECT_READING_HOST_PORT_DB, "app"),
        (PREFIXED_CONFIGURATION, "shop:create_app"),
    ],
    ids=["factory-MONGO_URI", "object-HOST-PORT-DB", "module-alone", "prefixed-configuration"],
)
def test_an_app_finds_its_database_where_it_expects_it(
    shared: Clone, tmp_path: Path, files: dict[str, str], factory: str
) -> None:
    place = put(tmp_path / "their app", files)
    env: dict[str, str | None] = {
        "INVOKE_APP_PATH": str(place),
        "INVOKE_APP_FACTORY": factory,
        "INVOKE_APP_DATABASE": "theirs",
    }
    running = shared.begin("run", env=env)
    running.says(" at http://127.0.0.1:")
    status, body = shared.get("/")
    assert status == 200, running.text
    answer = json.loads(body)
    assert (answer["database"], answer["visits"]) == ("theirs", 1)
    assert Path(answer["file"]).is_relative_to(place)
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130
    assert {path.name for path in place.rglob("*") if "__pycache__" not in path.parts} == {
        part for name in files for part in Path(name).parts
    }


@pytest.mark.needs("index")
def test_an_app_runs_in_its_own_requirements(clone: Clone, tmp_path: Path) -> None:
    place = put(
        tmp_path / "their app",
        FACTORY_READING_MONGO_URI | {"requirements.txt": "flask<3.1\npymongo>=4.6\nwerkzeug<3.1\n"},
    )
    (place / "app.py").write_text(
        (place / "app.py")
        .read_text()
        .replace('"file": settings.__file__', '"file": __import__("flask").__file__')
    )
    env: dict[str, str | None] = {
        "INVOKE_APP_PATH": str(place),
        "INVOKE_APP_FACTORY": "app:create_app",
        "INVOKE_APP_REQUIREMENTS": "requirements.txt",
    }
    running = clone.begin("run", env=env)
    running.says(" at http://127.0.0.1:")
    answer = json.loads(clone.get("/")[1])
    assert (answer["database"], answer["visits"]) == ("flaskbook", 1)
    assert Path(answer["file"]).is_relative_to(clone.root / ".state" / "app-envs")
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130

    again = clone.begin("run", env=env)
    again.says(" at http://127.0.0.1:")
    assert "requirements" not in again.text, "it is current: nothing is installed"
    again.signal_group(signal.SIGINT)
    assert again.ends() == 130


def test_requirements_that_are_nowhere_are_named(clone: Clone, tmp_path: Path) -> None:
    place = put(tmp_path / "theirs", OBJECT_READING_HOST_PORT_DB)
    said = clone.fails("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_REQUIREMENTS": "needs.txt"})
    assert "needs.txt" in said
    assert str(place) in said
    assert clone.processes() == []


def test_a_variable_of_its_own_is_rendered_and_null_takes_one_away(shared: Clone, tmp_path: Path) -> None:
    place = put(
        tmp_path / "theirs",
        {
            "app.py": "import os\nfrom flask import Flask\napp = Flask(__name__)\n\n\n"
            '@app.get("/")\ndef home():\n    return dict(os.environ)\n'
        },
    )
    shared.change_settings(
        lambda settings: settings["app"].update(
            path=str(place),
            factory="app",
            env={
                "STORE": "{{ host }}:{{ port }}/{{ database }}",
                "MONGO_URL": None,
                "EMPTY": "{{ password }}",
            },
        )
    )
    running = shared.begin("run")
    running.says(" at http://127.0.0.1:")
    found = json.loads(shared.get("/")[1])
    assert found["STORE"] == f"127.0.0.1:{shared.port}/flaskbook"
    assert found["MONGO_URI"] == f"mongodb://127.0.0.1:{shared.port}/flaskbook?replicaSet=rs0"
    assert not {"MONGO_URL", "PROVISION_SERVE", "INVOKE_APP_PORT"} & set(found)
    assert found["EMPTY"] == "", "an app that finds nothing would fall back on a default of its own"
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


ENVIRONMENT = """\
import os
from dotenv import load_dotenv
from flask import Flask

load_dotenv(override=True)
app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]


@app.get("/")
def home():
    return dict(os.environ)
"""


def test_the_apps_own_dotenv_files_do_not_override_its_database_and_a_line_says_so(
    shared: Clone, tmp_path: Path
) -> None:
    place = put(
        tmp_path / "theirs",
        {
            "app.py": ENVIRONMENT,
            ".env": "# theirs\nexport MONGO_URI='mongodb://prod.example/theirs'\nMONGO_PASS=letmein\nCOLOUR=green\n"
            "SECRET_KEY=dev # insecure\n",
            ".flaskenv": "FLASK_RUN_PORT=5999\nMONGO_DB=flaskbook\n",
        },
    )
    running = shared.begin("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": "app"})
    running.says(" at http://127.0.0.1:")
    found = json.loads(shared.get("/")[1])
    assert found["MONGO_URI"] == f"mongodb://127.0.0.1:{shared.port}/flaskbook?replicaSet=rs0"
    assert (found["MONGO_PASS"], found["COLOUR"], found["FLASK_RUN_PORT"]) == ("", "green", "5999")
    key = (shared.root / ".state" / "secret_key").read_text().strip()
    assert found["SECRET_KEY"] == key
    assert key not in running.text
    told = [line for line in running.text.splitlines() if "env sets" in line]
    assert told == [
        "The app's .env sets MONGO_URI, MONGO_PASS, SECRET_KEY; those of this deployment are used (app.env)."
    ]
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


def test_a_name_that_app_env_gives_up_is_that_of_the_apps_own_file(shared: Clone, tmp_path: Path) -> None:
    place = put(tmp_path / "theirs", {"app.py": ENVIRONMENT, ".env": "SECRET_KEY=dev\n"})
    shared.change_settings(
        lambda settings: settings["app"].update(path=str(place), factory="app", env={"SECRET_KEY": None})
    )
    running = shared.begin("run")
    running.says(" at http://127.0.0.1:")
    assert json.loads(shared.get("/")[1])["SECRET_KEY"] == "dev"
    assert "env sets" not in running.text
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


OWN_DEFAULTS = """\
import os
from flask import Flask
from pymongo import MongoClient

app = Flask(__name__)
client = MongoClient(
    os.getenv("MONGO_HOST", "db.example"),
    int(os.getenv("MONGO_PORT", "1")),
    username=os.getenv("MONGO_USER", "admin"),
    password=os.getenv("MONGO_PASS", "letmein"),
)
database = client[os.getenv("MONGO_DBNAME", "theirs")]


@app.get("/")
def home():
    database.visits.insert_one({})
    return {"database": database.name}
"""


def test_an_app_with_a_password_of_its_own_as_default_works_without_authentication(
    shared: Clone, tmp_path: Path
) -> None:
    place = put(tmp_path / "theirs", {"app.py": OWN_DEFAULTS})
    running = shared.begin("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": "app"})
    running.says(" at http://127.0.0.1:")
    assert (shared.get("/")[0], json.loads(shared.get("/")[1])) == (200, {"database": "flaskbook"})
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


SCRIPT = """\
from flask import Flask


def make(name):
    app = Flask(name)

    @app.get("/")
    def home():
        return name

    return app


class Connexion:
    def __init__(self, name):
        self.app = make(name)
        self.calls = 0

    def __call__(self, environ, start_response):
        self.calls += 1
        return self.app(environ, start_response)


wrapped = Connexion("wrapped")
app = make("the script")
app.run(port=1, debug=True)
"""


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("server", "the script"),
        ("server:wrapped", "wrapped"),
        ("server:make('a b')", "a b"),
        ("server.py:make(name='it')", "it"),
    ],
)
def test_a_script_that_runs_itself_is_served_in_each_of_its_shapes_and_reloaded(
    shared: Clone, tmp_path: Path, factory: str, words: str
) -> None:
    place = put(tmp_path / "theirs", {"server.py": SCRIPT})
    running = shared.begin("run", env={"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": factory})
    running.says(" at http://127.0.0.1:")
    assert shared.get("/") == (200, words)
    path = place / "server.py"
    before = path.stat().st_mtime_ns
    path.write_text(SCRIPT.replace("return name", "return name.upper()"))
    os.utime(path, ns=(before + 2_000_000_000, before + 2_000_000_000))
    until(
        "the change to be served",
        lambda: shared.get("/") == (200, words.upper()),
        detail=lambda: running.text,
    )
    assert "Traceback" not in running.text
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


def put(place: Path, files: dict[str, str]) -> Path:
    """Write an app's files."""
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return place
