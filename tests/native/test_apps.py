"""Other projects' apps, unchanged: each finds the database where it expects it, in requirements of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.clones import Clone

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
    clone: Clone, tmp_path: Path, files: dict[str, str], factory: str
) -> None:
    place = put(tmp_path / "their app", files)
    env: dict[str, str | None] = {
        "INVOKE_APP_PATH": str(place),
        "INVOKE_APP_FACTORY": factory,
        "INVOKE_APP_DATABASE": "theirs",
    }
    running = clone.begin("run", env=env)
    running.says(" at http://127.0.0.1:")
    status, body = clone.get("/")
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


def test_a_variable_of_its_own_is_rendered_and_null_takes_one_away(clone: Clone, tmp_path: Path) -> None:
    place = put(
        tmp_path / "theirs",
        {
            "app.py": "import os\nfrom flask import Flask\napp = Flask(__name__)\n\n\n"
            '@app.get("/")\ndef home():\n    return dict(os.environ)\n'
        },
    )
    clone.change_settings(
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
    running = clone.begin("run")
    running.says(" at http://127.0.0.1:")
    found = json.loads(clone.get("/")[1])
    assert found["STORE"] == f"127.0.0.1:{clone.port}/flaskbook"
    assert found["MONGO_URI"] == f"mongodb://127.0.0.1:{clone.port}/flaskbook?replicaSet=rs0"
    assert not {"MONGO_URL", "EMPTY", "PROVISION_SERVE", "INVOKE_APP_PORT"} & set(found)
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


def put(place: Path, files: dict[str, str]) -> Path:
    """Write an app's files."""
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return place
