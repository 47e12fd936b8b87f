"""What `init` finds in a project, what it writes, and where it writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from provision.app.discovery import look
from provision.cli import init
from provision.core.errors import ProvisionError
from provision.settings.loading import Layer, load
from provision.settings.schema import DEFAULT_APP_ENV

APPS = Path(__file__).resolve().parents[1] / "apps"
OBJECT = "from flask import Flask\nimport pymongo\n\napp = Flask(__name__)\n"
FACTORY = "import flask\n\ndef create_app({}):\n    app = flask.Flask(__name__)\n    return app\n"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def factories(root: Path) -> list[tuple[str, str]]:
    return [(each.factory, each.path) for each in look(root, DEFAULT_APP_ENV).candidates]


@pytest.mark.parametrize(
    ("files", "factory", "path"),
    [
        ({"app.py": OBJECT}, "app:app", "."),
        ({"web/__init__.py": FACTORY.format("")}, "web:create_app", "."),
        ({"web/__init__.py": FACTORY.format("config=None")}, "web:create_app", "."),
        ({"web/__init__.py": "", "web/factory.py": FACTORY.format("")}, "web.factory:create_app", "."),
        ({"backend/main.py": OBJECT}, "main:app", "backend"),
        ({"src/web/__init__.py": FACTORY.format("")}, "web:create_app", "src"),
        ({"src/web/__init__.py": FACTORY.format(""), "setup.py": ""}, "web:create_app", "."),
        (
            {"web/__init__.py": FACTORY.format("name"), "wsgi.py": "from web import create_app\napp = create_app('dev')\n"},
            "wsgi:app",
            ".",
        ),
        (
            {
                "web/__init__.py": FACTORY.format("name"),
                "tasks/go.py": "import os\nfrom web import create_app\ncreate_app(os.getenv('MODE') or 'dev')\n",
            },
            "web:create_app('dev')",
            ".",
        ),
        ({"app.py": OBJECT, "tests/app.py": OBJECT, "examples/app.py": OBJECT}, "app:app", "."),
        ({"app.py": OBJECT, "venv/pyvenv.cfg": "", "venv/lib/other.py": OBJECT}, "app:app", "."),
        ({"app.py": OBJECT, "admin.py": OBJECT, ".flaskenv": "FLASK_APP=admin.py\n"}, "admin:app", "."),
        ({"app.py": OBJECT, "Procfile": "web: gunicorn -w 4 shop.wsgi:application\n"}, "shop.wsgi:application", "."),
        ({"Dockerfile": 'ENV FLASK_APP="web:create_app()"\n', "web.py": OBJECT}, "web:create_app()", "."),
        (
            {"api.py": "import connexion\n\napp = connexion.FlaskApp(__name__)\n"},
            "api:app",
            ".",
        ),
        ({"app.py": "try:\n    from flask import Flask\nfinally:\n    pass\nif 1:\n    app = Flask('x')\n"}, "app:app", "."),
    ],
)  # fmt: skip
def test_the_app_is_found_where_projects_have_it(
    tmp_path: Path, files: dict[str, str], factory: str, path: str
) -> None:
    assert factories(put(tmp_path, files)) == [(factory, path)]


def test_a_factory_whose_argument_nobody_says_is_told(tmp_path: Path) -> None:
    plan = init._plan(put(tmp_path, {"app.py": FACTORY.format("mongo_uri")}), "")
    assert "app:create_app wants arguments (mongo_uri)" in plan.to_do[0]


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ('import os\nimport pymongo\nos.environ["DB_HOST"]\n', {"DB_HOST": "{{ host }}"}),
        ('import os\nos.environ["DB_HOST"]\n', {}),
        ('import os\nos.getenv("MONGO_CONN_STRING")\n', {"MONGO_CONN_STRING": "{{ uri }}"}),
        ('import os\nos.environ.get("APP_STORE", "mongodb://localhost/shop")\n', {"APP_STORE": "{{ uri }}"}),
        ('import os\nimport pymongo\nos.environ.get("DATABASE_URL")\n', {}),
        ('import os\nos.environ.get("DATABASE_URL", "mongodb://localhost/shop")\n', {"DATABASE_URL": "{{ uri }}"}),
        ('import os\nimport pymongo\nos.environ.get("DB_URL", "postgres://localhost/shop")\n', {}),
        ('from decouple import config\nconfig("MONGO_LOGIN")\n', {"MONGO_LOGIN": "{{ username }}"}),
        ('import os\nos.environ["MONGO_URI"]\n', {}),
    ],
)  # fmt: skip
def test_names_of_the_databases_address_are_read_from_the_source(
    tmp_path: Path, source: str, variables: dict[str, str]
) -> None:
    found = look(put(tmp_path, {"app.py": OBJECT.replace("import pymongo\n", "") + source}), DEFAULT_APP_ENV)
    assert {each.name: each.template for each in found.variables} == variables


@pytest.mark.parametrize(
    ("files", "database"),
    [
        ({"app.py": OBJECT + 'client = pymongo.MongoClient("mongodb://localhost:27017/shop?w=1")\n'}, "shop"),
        ({"app.py": OBJECT + "from pymongo import MongoClient\nclient = MongoClient()\ndb = client.shop\n"}, "shop"),
        ({"app.py": OBJECT + 'from pymongo import MongoClient\nclient = MongoClient()\ndb = client["shop"]\n'}, "shop"),
        ({"app.py": OBJECT + 'MONGODB_SETTINGS = {"db": "shop", "host": "localhost"}\n'}, "shop"),
        ({"app.py": OBJECT, ".env.example": "MONGO_DBNAME=shop\n"}, "shop"),
        ({"app.py": OBJECT}, ""),
    ],
)  # fmt: skip
def test_the_databases_name_is_read(tmp_path: Path, files: dict[str, str], database: str) -> None:
    assert look(put(tmp_path, files), DEFAULT_APP_ENV).database == database


def test_the_packages_are_those_that_run_will_install(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"backend/main.py": OBJECT, "backend/requirements.txt": "flask\n", "pyproject.toml": "[tool.ruff]\n"},
    )
    assert "Packages: requirements.txt." in init._plan(tmp_path, "").assumed
    (tmp_path / "backend" / "requirements.txt").unlink()
    assert "Packages: none are declared." in init._plan(tmp_path, "").assumed


def test_an_address_in_the_source_is_told(tmp_path: Path) -> None:
    plan = init._plan(put(tmp_path, {"app.py": OBJECT + "client = pymongo.MongoClient()\n"}), "")
    assert "app.py, line 5: localhost:27017" in plan.to_do[0]


def test_files_that_nobody_can_read_are_passed_over(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"app.py": OBJECT, "broken.py": "from flask import Flask\napp = Flask(", "nul.py": "Flask\0"},
    )
    (tmp_path / "latin.py").write_bytes(b"# Flask \xe9\n")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    assert factories(tmp_path) == [("app:app", ".")]


@pytest.mark.parametrize("name", sorted(each.name for each in APPS.iterdir()))
def test_what_is_written_is_short_and_valid(name: str) -> None:
    plan = init._plan(APPS / name, "")
    assert len(plan.text.splitlines()) <= 15
    load(APPS / name, [Layer("invoke.yaml", yaml.safe_load(plan.text))], {}, remember=False)


def test_the_files_written_are_the_settings_and_what_git_ignores(tmp_path: Path) -> None:
    put(tmp_path, {"app.py": OBJECT, ".gitignore": "*.pyc\n.state/"})
    init._write(tmp_path, init._plan(tmp_path, ""))
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n.state/\n.mongodb/\ninvoke.local.*\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        ".gitignore",
        ".state",
        "app.py",
        "invoke.yaml",
    ]
    assert [each.name for each in (tmp_path / ".state").iterdir()] == ["invoke.schema.json"]


def refused(root: Path, without_git: bool = False, app: str = "") -> ProvisionError:
    """What is said where nothing is done."""
    before = sorted(root.rglob("*"))
    with pytest.raises(ProvisionError) as raised:
        init._check_place(root, without_git)
        init._write(root, init._plan(root, app))
    assert sorted(root.rglob("*")) == before
    return raised.value


def test_a_folder_without_a_flask_app_gets_one_clear_answer(tmp_path: Path) -> None:
    put(tmp_path, {".git/HEAD": "", "main.go": "package main\n", "script.py": "print('Flask')\n"})
    assert "No Flask app was found" in refused(tmp_path).cause


def test_a_folder_with_two_apps_gets_one_clear_answer(tmp_path: Path) -> None:
    put(tmp_path, {".git/HEAD": "", "shop/api.py": OBJECT, "blog/api.py": OBJECT})
    error = refused(tmp_path)
    assert "There are several apps" in error.cause
    assert "shop/api.py, line 4" in error.cause
    assert "invoke init --app blog/api:app" in error.remedy


def test_one_of_several_apps_can_be_named(tmp_path: Path) -> None:
    put(tmp_path, {"shop.py": OBJECT, "blog.py": OBJECT})
    assert "factory: blog:app" in init._plan(tmp_path, "blog:app").text


def test_one_of_several_apps_of_the_same_name_can_be_named(tmp_path: Path) -> None:
    put(tmp_path, {"shop/api.py": OBJECT, "blog/api.py": OBJECT})
    assert "factory: api:app\n  path: shop\n" in init._plan(tmp_path, "shop/api:app").text


def test_settings_that_are_there_stay(tmp_path: Path) -> None:
    put(tmp_path, {".git/HEAD": "", "app.py": OBJECT, "invoke.yaml": "app: {port: 1}\n"})
    assert "has an invoke.yaml already" in refused(tmp_path).cause


def test_a_folder_in_no_repository_gets_one_clear_answer(tmp_path: Path) -> None:
    put(tmp_path, {"app.py": OBJECT})
    assert "git init" in refused(tmp_path).remedy
    init._check_place(tmp_path, True)


def test_a_folder_that_cannot_be_written_to_gets_one_clear_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {".git/HEAD": "", "app.py": OBJECT})
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "can't write" in refused(tmp_path).cause


def test_a_disk_that_fails_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from provision.core import files

    put(tmp_path, {".git/HEAD": "", ".state/x": "", ".gitignore": "*.pyc\n", "app.py": OBJECT})
    written = files.write_atomically

    def fails(path: Path, *rest: object) -> None:
        if path.name == "invoke.yaml":
            raise OSError(28, "No space left on device", str(path))
        written(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "write_atomically", fails)
    with pytest.raises(ProvisionError, match="No space left"):
        init._write(tmp_path, init._plan(tmp_path, ""))
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n"
    assert not (tmp_path / "invoke.yaml").exists()
