"""The installed tool in other people's projects: `provision init && provision run`, each app unchanged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import Decimal128
from pymongo import MongoClient

from tests.support import processes
from tests.support.clones import Clone, make_environment
from tests.support.installed import APPS, Project, install, offline

pytestmark = pytest.mark.needs("index")  # once, to fill the local one
NewProject = Callable[[str], Project]
# Those that `init` alone does not suffice for, and what it tells you to add.
ALONE = [
    "app-object", "dotenv", "editable", "factory-with-arguments", "git-url", "hashes", "mongoengine-settings", "own-names",
    "pipfile", "pkg-resources", "poetry", "script", "script-without-guard", "socketio", "src-layout", "utf-16",
    "uv-lock", "wrapper",
]  # fmt: skip


@pytest.fixture
def new_project(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path
) -> Iterator[NewProject]:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    made: list[Project] = []

    def make(name: str) -> Project:
        place = tmp_path / str(len(made)) / name
        if (APPS / name).is_dir():
            shutil.copytree(APPS / name, place)
        else:
            place.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", place], check=True)
        home = tmp_path / f"home-{len(made)}"
        home.mkdir()
        port, app_port = processes.free_port(), processes.free_port()
        environment = make_environment(home, port, app_port, str(mongod_binary)) | offline()
        made.append(Project(place, home, port, app_port, environment, tool=install(shared)))
        return made[-1]

    yield make
    for project in made:
        project.close()


def visits(project: Clone) -> tuple[str, int]:
    """One more visit: the database's name, and how many there are now."""
    status, body = project.get("/")
    assert status == 200, body
    answer = json.loads(body)
    return answer["database"], answer["visits"]


def serves(project: Project, database: str) -> None:
    """It runs, reads and writes its database, and ends at Ctrl-C."""
    running = project.begin("run")
    running.says(" at http://127.0.0.1:")
    assert visits(project) == (database, 1), running.text
    assert visits(project) == (database, 2)
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130, running.text
    assert project.mongods() == []


@pytest.mark.parametrize("name", ALONE)
def test_init_and_run_serve_an_app_unchanged(new_project: NewProject, name: str) -> None:
    project = new_project(name)
    if name == "git-url":
        requirements = project.root / "requirements.txt"
        text = requirements.read_text(encoding="utf-8")
        requirements.write_text(text.replace("{GREETINGS}", str(greetings(project.home))), encoding="utf-8")
    before = sorted(
        path.relative_to(project.root) for path in project.root.rglob("*") if ".git" not in path.parts
    )
    done = json.loads(project.succeeds("init", "--json"))
    assert len((project.root / "invoke.yaml").read_text(encoding="utf-8").splitlines()) <= 15
    database = next(line.split()[-1] for line in done["text"].splitlines() if line.startswith("  database:"))
    serves(project, database)
    project.succeeds("clean", "--data", "--yes")
    after = [path.relative_to(project.root) for path in project.root.rglob("*") if ".git" not in path.parts]
    left = {str(each) for each in after if each not in before and "__pycache__" not in each.parts}
    assert {each for each in left if "egg-info" not in each} == {"invoke.yaml", ".gitignore"}


OLD_PYTHONS = sorted(
    path
    for pattern in (
        ".pyenv/versions/3.8.*/bin/python3.8",
        "../usr/bin/python3.8",
        "../usr/local/bin/python3.8",
    )
    for path in Path.home().glob(pattern)
)


if OLD_PYTHONS:  # only where there is one

    def test_an_app_of_flask_1_runs_on_an_old_python(new_project: NewProject) -> None:
        project = new_project("old-flask")
        project.succeeds("init")
        project.change_settings(lambda settings: settings["app"].update(python=str(OLD_PYTHONS[0])))
        serves(project, "old-flask")


def greetings(folder: Path) -> Path:
    """A repository with a package in it."""
    place = folder / "greetings"
    place.mkdir()
    (place / "greetings.py").write_text("def hello():\n    return 'hello'\n", encoding="utf-8")
    (place / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='greetings', version='1.0', py_modules=['greetings'])\n",
        encoding="utf-8",
    )
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *author, "-C", place, *command], check=True)
    return place


def test_a_project_with_tasks_of_its_own_has_ours_beside_them(new_project: NewProject) -> None:
    project = new_project("app-object")
    project.succeeds("init")
    (project.root / "tasks.py").write_text(
        "from invoke import Collection, task\n"
        "from provision import collection\n\n"
        "@task\ndef mine(c):\n    print('mine')\n\n"
        "@task\ndef broken(c):\n    raise ValueError('theirs')\n\n"
        "ns = Collection(mine, broken)\nns.add_collection(collection(), 'db')\n",
        encoding="utf-8",
    )
    invoke = project.tool / "bin" / "invoke"

    def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [invoke, *arguments],
            cwd=project.root,
            env=project.env(),
            capture_output=True,
            text=True,
            check=False,
        )

    assert typed("mine", "db.start").returncode == 0
    assert json.loads(typed("db.status", "--json").stdout)["state"] == "running"
    wrong = typed("db.start", "--on", "other")
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    stopped = typed("db.stop")
    assert (stopped.returncode, stopped.stdout) == (0, "local: stopped mongod\n")
    shell = typed("db.shell", "--eval", "1")
    assert "invoke db.start --on local" in shell.stderr, shell.stderr
    theirs = typed("broken")
    assert "ValueError: theirs" in theirs.stderr
    assert "bug in the tool" not in theirs.stderr


def test_a_database_is_seeded_and_reset_to_what_the_projects_own_files_say(new_project: NewProject) -> None:
    project = new_project("app-object")
    for name, text in {
        "seeds/10-teas.ndjson": '{"_id": 1, "name": "Assam"}\n{"_id": 2, "name": "Ceylon"}\n',
        "seeds/20-orders.csv": "_id.int32(),tea.int32(),price.decimal()\n7,1,4.50\n",
        "seeds/30-visits.py": "import app\n\n\ndef seed(database):\n    app.home()\n",
        "migrate.py": "import app\n\napp.database.teas.create_index('name', unique=True)\nprint('migrated')\n",
    }.items():
        (project.root / name).parent.mkdir(exist_ok=True)
        (project.root / name).write_text(text, encoding="utf-8")
    project.succeeds("init")
    migrate = {"migrate": ["python", "migrate.py"], "migrations": ["migrate.py"]}
    project.change_settings(lambda settings: settings["app"].update(migrate))
    project.succeeds("start")
    with MongoClient[dict[str, Any]](project.uri) as client:
        first = json.loads(project.succeeds("reset", "--yes", "--json"))
        database = client[first["database"]]

        def state() -> dict[str, Any]:
            names = ("teas", "orders", "visits")
            found = {
                name: list(database[name].find({}, {"_id": 0} if name == "visits" else None).sort("_id"))
                for name in names
            }
            return found | {"indexes": sorted(database["teas"].index_information())}

        as_new = {
            "teas": [{"_id": 1, "name": "Assam"}, {"_id": 2, "name": "Ceylon"}],
            "orders": [{"_id": 7, "tea": 1, "price": Decimal128("4.50")}],
            "visits": [{}],
            "indexes": ["_id_", "name_1"],
        }
        assert (first["restored"], first["migrated"], state()) == (False, True, as_new)
        database["teas"].delete_one({"_id": 1})
        database["visits"].insert_one({})
        second = json.loads(project.succeeds("reset", "--yes", "--json"))
        assert (second["restored"], sorted(second["collections"]), state()) == (
            True,
            ["teas", "visits"],
            as_new,
        )
        with (project.root / "seeds" / "10-teas.ndjson").open("a", encoding="utf-8") as seeds:
            seeds.write('{"_id": 3, "name": "Darjeeling"}\n')
        seeded = json.loads(project.succeeds("seed", "--json"))
        assert [each["state"] for each in seeded["seeds"]] == ["applied", "unchanged", "unchanged"]
        assert state() == as_new | {"teas": [*as_new["teas"], {"_id": 3, "name": "Darjeeling"}]}


def test_commands_work_from_any_folder_of_the_project_and_in_none_outside(new_project: NewProject) -> None:
    project = new_project("own-names")
    assert "next: Go to your project, or set up the app in this folder: provision init" in project.fails(
        "start"
    )
    named = project.tool / "bin" / "flaskbook-provision"  # what `uvx` runs
    done = subprocess.run(
        [named, "start"], cwd=project.root, env=project.env(), capture_output=True, text=True, check=False
    )
    assert "in this folder: uvx flaskbook-provision init" in done.stderr
    assert [each.name for each in project.root.glob(".state*")] == []
    project.succeeds("init")
    project.succeeds("start")
    inside = project.root / "shop"
    for command in (["uri"], ["status"], ["logs"], ["shell", "--eval", "1"]):
        done = subprocess.run(
            [*project.command, *command],
            cwd=inside,
            env=project.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    project.succeeds("stop")


def test_what_is_missing_of_the_tool_itself_is_named_with_how_it_was_installed(
    new_project: NewProject,
) -> None:
    project = new_project("app-object")
    project.succeeds("init")
    said = project.fails("setup", "--group", "hosts")
    assert "pip install 'flaskbook-provision[hosts]'" in said
    assert "provision" in project.succeeds("--help")
