"""The pytest plugin in projects of their own, on real mongods."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient

from provision.state import slots
from tests.support.plugin_project import ROOT, SIX_LINES, Project
from tests.support.polling import until
from tests.support.router_standin.install import beside, link

# Writes a line of JSON to a file of the project.
TELL = """
    import json, pathlib

    def tell(name, value):
        with pathlib.Path(name).open("a") as file:
            file.write(json.dumps(value) + "\\n")
"""
BLOCKED = """
    import signal
    from tell import tell

    def test_that_does_not_end(database, mongodb):
        database.people.insert_one({"name": "Ada"})
        tell("blocked", {"database": database.name, "server": mongodb.client.address})
        signal.pause()
"""


@pytest.fixture
def project(tmp_path: Path, mongod_binary: Path) -> Iterator[Project]:
    """A project whose mongod has no mongos beside it."""
    (tmp_path / "bin").mkdir()
    link(mongod_binary, tmp_path / "bin" / "mongod")
    made = Project(tmp_path / "project", str(tmp_path / "bin" / "mongod"))
    made.write("tell.py", TELL)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def with_router(project: Project, tmp_path: Path, mongod_binary: Path, mongod_version: str) -> Project:
    """The same with a router."""
    project.mongod = str(beside(mongod_binary, mongod_version, tmp_path / "routed"))
    return project


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path) -> Iterator[str]:
    """The connection string of a server that is none of the projects': another project's run keeps it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "bin").mkdir()
    link(mongod_binary, folder / "bin" / "mongod")
    other = Project(folder / "project", str(folder / "bin" / "mongod"))
    other.write("tell.py", TELL)
    other.write("test_it.py", BLOCKED)
    try:
        host, port = other.tells("blocked", other.begin())["server"]
        yield f"mongodb://{host}:{port}/?replicaSet=rs0"
    finally:
        other.close()


def test_every_test_gets_a_fresh_database_with_transactions_and_nothing_is_left(project: Project) -> None:
    project.write(
        "test_people.py",
        """
        import pytest
        from tell import tell

        @pytest.mark.parametrize("n", range(3))
        def test_insert(database, mongodb, n):
            tell("names", [database.name, mongodb.client.list_database_names()])
            assert database.list_collection_names() == []
            database.people.insert_one({"name": "Ada"})
            database.people.create_index("name")
            database.command("create", "view", viewOn="people")
            database.command("create", "weather", timeseries={"timeField": "at"})

        def test_transactions_work_because_a_single_mongod_is_a_replica_set(database, mongodb):
            assert mongodb.topology == "replica-set"
            database.create_collection("people")
            with mongodb.client.start_session() as session, session.start_transaction():
                database.people.insert_one({"name": "Ada"}, session=session)
            assert database.people.count_documents({}) == 1
        """,
    )
    assert "4 passed" in project.passes("-W", "error")
    listed = [root for root in slots.read() if root.is_relative_to(project.temporary.resolve())]
    assert listed == [], "`ps` would show them as deleted"
    names = [name for name, _ in project.told("names")]
    assert len(set(names)) == 3
    # Each was gone when the next test began.
    assert all(set(names).isdisjoint(seen) for _, seen in project.told("names"))
    assert project.nodes() == []
    assert project.runs() == []


def test_markers_and_fixtures_choose_the_topology(with_router: Project) -> None:
    with_router.write(
        "test_it.py",
        """
        import pytest
        from tell import tell

        def look(database, mongodb):
            database.people.insert_one({"name": "Ada"})
            tell("seen", [mongodb.topology, mongodb.uri.count(",") + 1])

        def test_default(database, mongodb):
            look(database, mongodb)

        @pytest.mark.mongodb(standalone=True)
        def test_standalone(database, mongodb):
            look(database, mongodb)

        @pytest.mark.mongodb(topology="replica-set", members=2)
        def test_replica_set(database, mongodb):
            look(database, mongodb)

        @pytest.mark.mongodb(topology="sharded", shards=1)
        class TestSharded:
            def test_sharded(self, database, mongodb):
                look(database, mongodb)
                assert len(mongodb.client.admin.command("listShards")["shards"]) == 1

        def test_the_fixtures_of_topologies_stand_beside_the_default(mongodb, replica_set, sharded_cluster):
            assert len({each.uri for each in (mongodb, replica_set, sharded_cluster)}) == 3
            members = replica_set.client.admin.command("replSetGetStatus")["members"]
            assert sorted(each["stateStr"] for each in members) == ["PRIMARY", "SECONDARY", "SECONDARY"]
            with sharded_cluster.new_database() as database:
                database.people.insert_one({"name": "Ada"})
            assert database.name not in sharded_cluster.client.list_database_names()
        """,
    )
    assert "5 passed" in with_router.passes()
    assert sorted(with_router.told("seen")) == [
        ["replica-set", 1],
        ["replica-set", 2],
        ["sharded", 1],
        ["standalone", 1],
    ]
    assert with_router.nodes() == []


def test_six_lines_pass_on_a_sharded_cluster(with_router: Project) -> None:
    with_router.write("test_it.py", SIX_LINES)
    assert "topology sharded" in with_router.passes("--topology=sharded")
    assert with_router.nodes() == []


def test_without_a_router_marked_tests_are_skipped_and_named(project: Project) -> None:
    project.write(
        "test_it.py",
        SIX_LINES
        + """
    import pytest

    @pytest.mark.mongodb(topology="sharded")
    def test_sharded(database):
        pass
    """,
    )
    printed = project.passes()
    assert "1 passed, 1 skipped" in printed
    assert "sharded tests did not run" in printed
    assert "there is none beside" in printed
    assert "next: Get both from MongoDB's archive" in printed


def test_without_a_router_a_run_that_wants_one_fails_with_the_reason(project: Project) -> None:
    project.write("test_it.py", SIX_LINES)
    printed = project.fails("--topology=sharded")
    assert "why:  It needs mongos, and there is none beside" in printed
    assert "Traceback" not in printed
    assert "provision/testing" not in printed
    assert project.nodes() == []


def test_workers_share_one_server_and_not_their_databases(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import os
        import pytest
        from tell import tell

        @pytest.mark.parametrize("n", range(6))
        def test_insert(database, mongodb, n):
            database.people.insert_one({"name": "Ada"})
            assert database.people.count_documents({}) == 1
            pid = mongodb.client.admin.command("serverStatus")["pid"]
            tell("seen", [os.environ["PYTEST_XDIST_WORKER"], pid, database.name])
        """,
    )
    project.passes("-n", "2", "--dist", "each", "-W", "error")
    seen = project.told("seen")
    assert {worker for worker, _, _ in seen} == {"gw0", "gw1"}
    assert len({pid for _, pid, _ in seen}) == 1
    assert len({name for _, _, name in seen}) == 12
    assert project.nodes() == []
    assert project.runs() == []


def test_two_runs_at_once_do_not_meet(project: Project) -> None:
    project.write("test_it.py", BLOCKED.replace('"blocked"', '__import__("os").environ["TOLD"]'))
    first, second = project.begin(TOLD="first"), project.begin(TOLD="second")
    one, other = project.tells("first", first), project.tells("second", second)
    assert one["server"] != other["server"]
    assert one["database"] != other["database"]
    first.process.send_signal(signal.SIGINT)
    first.ends()
    assert second.process.poll() is None
    with MongoClient(*other["server"], directConnection=True) as client:
        assert client[other["database"]].people.count_documents({}) == 1
    second.process.send_signal(signal.SIGINT)
    second.ends()
    assert project.nodes() == []
    assert project.runs() == []


def test_what_a_killed_run_left_is_removed_by_the_next_and_nothing_else(project: Project) -> None:
    project.write("test_it.py", BLOCKED.replace('"blocked"', '__import__("os").environ["TOLD"]'))
    killed, living = project.begin(TOLD="killed"), project.begin(TOLD="living")
    project.tells("killed", killed)
    kept = project.tells("living", living)
    killed.process.kill()
    killed.ends()
    assert len(project.nodes()) == 2
    assert len(project.runs()) == 2

    project.write("test_other.py", SIX_LINES)
    project.passes("test_other.py")
    assert len(project.nodes()) == 1
    assert len(project.runs()) == 1
    with MongoClient(*kept["server"], directConnection=True) as client:
        assert client[kept["database"]].people.count_documents({}) == 1


def test_workers_of_a_killed_run_leave_nothing_either(project: Project) -> None:
    project.write("test_it.py", BLOCKED)
    killed = project.begin("-n", "1")
    project.tells("blocked", killed)
    workers = psutil.Process(killed.process.pid).children(recursive=True)
    killed.process.kill()
    killed.ends()
    try:
        project.write("test_other.py", SIX_LINES)
        project.passes("test_other.py")
        assert project.nodes() == []
        assert project.runs() == []
    finally:
        for worker in workers:
            if worker.is_running():
                worker.kill()


def test_a_failed_tests_report_tells_what_mongodb_did_meanwhile(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        def test_before(database):
            database.earlier.insert_one({})

        def test_failing(database):
            database.suspects.insert_one({"name": "Ada"})
            assert database.suspects.find_one()["name"] == "Grace"

        def test_passing(database):
            database.later.insert_one({})
        """,
    )
    printed = project.fails()
    assert "MongoDB (single)" in printed
    assert "rs.status(): running" in printed
    assert "mongod (rs0): PRIMARY" in printed
    logged = printed.partition("log of the test's")[2]
    assert ".suspects" in logged
    assert ".earlier" not in logged
    assert ".later" not in logged


def test_the_report_of_a_replica_set_merges_its_members_logs(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        from pymongo import WriteConcern

        def test_failing(database):
            database.get_collection("suspects", write_concern=WriteConcern(3)).insert_one({})
            database.client.admin.command("fsync")
            assert False
        """,
    )
    printed = project.fails("--topology=replica-set")
    for number in (1, 2, 3):
        assert f"member-{number} (rs0): " in printed
    lines = [
        line for line in printed.partition("log of the test's")[2].splitlines() if line.startswith("member-")
    ]
    assert {line.split()[0] for line in lines} == {"member-1", "member-2", "member-3"}
    times = [" ".join(line.split()[1:3]) for line in lines]
    assert times == sorted(times)


def test_with_authentication_only_its_user_is_let_in(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import pytest
        from pymongo import MongoClient
        from pymongo.errors import OperationFailure

        def test_it(database, mongodb):
            database.people.insert_one({"name": "Ada"})
            with MongoClient(mongodb.uri_for(database.name)) as same:
                assert same.get_default_database().people.count_documents({}) == 1
            with MongoClient(*mongodb.client.address, directConnection=True) as nobody:
                with pytest.raises(OperationFailure):
                    nobody[database.name].people.find_one()
            password = mongodb.uri.partition("root:")[2].partition("@")[0]
            assert len(password) > 20
            assert password not in repr(mongodb)
        """,
    )
    project.passes("--mongodb-auth")


def test_at_a_uri_only_databases_of_ours_are_dropped(project: Project, elsewhere: str) -> None:
    foreign = "test_0123456789ab_not_ours"
    project.write("test_it.py", BLOCKED)
    project.write("test_other.py", SIX_LINES)
    at = f"--mongodb={elsewhere}"
    with MongoClient(elsewhere) as client:
        client[foreign].kept.insert_one({"_id": 1})
        try:
            killed = project.begin(at, "test_it.py")
            left = project.tells("blocked", killed)["database"]
            killed.process.kill()
            killed.ends()
            assert left in client.list_database_names()

            project.passes(at, "test_other.py")
            names = client.list_database_names()
            assert left not in names
            assert foreign in names
            assert len([name for name in names if name.startswith("test_")]) == 2  # and the other run's own
            assert client[foreign].kept.count_documents({}) == 1
            assert project.runs() == []
            assert project.nodes() == []
        finally:
            client.drop_database(foreign)


def test_at_a_uri_a_test_for_another_topology_is_skipped_with_the_reason(
    project: Project, elsewhere: str
) -> None:
    project.write("test_it.py", "def test_it(sharded_cluster):\n    pass\n")
    assert "needs topology sharded: --mongodb names one that is replica-set" in project.passes(
        "-rs", f"--mongodb={elsewhere}"
    ).replace("\n", " ")


def test_a_server_that_does_not_answer_is_named_without_its_password(project: Project) -> None:
    project.write("test_it.py", SIX_LINES)
    printed = project.fails("--mongodb=mongodb://ada:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=200")
    assert "using the MongoDB that --mongodb names" in printed
    assert "hunter2" not in printed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mongodb=sqlite"], "processes, container, or a connection string"),
        (["--mongodb=http://ada:hunter2@host"], "--mongodb=http://host"),
        (["--topology=ring"], "single, replica-set, sharded"),
        (["--topology=sharded", "--mongodb-standalone"], "standalone"),
        (["--topology=sharded", "--mongodb=container"], "runs one node"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(
    project: Project, options: list[str], says: str
) -> None:
    project.write("test_it.py", SIX_LINES)
    printed = project.fails(*options, status=4)
    assert says in printed
    assert "hunter2" not in printed


def test_a_wrong_marker_is_an_error_of_the_collection(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.mongodb(topologie="sharded")
        def test_it(database):
            pass
        """,
    )
    printed = project.fails(status=2)
    assert "takes the keywords topology, shards, members, standalone, auth, not topologie" in printed


def test_flaskbook_is_built_on_the_tests_database(project: Project, elsewhere: str) -> None:
    project.write("pytest.ini", "[pytest]\napp_factory = flaskbook.application:create_app\n")
    project.write(
        "test_it.py",
        """
        def test_pages(client):
            assert client.get("/readyz").status_code == 200

        def test_somebody_is_logged_in(logged_in_client, database):
            assert database.user.count_documents({}) == 1

        def test_nobody_is_there(client, database):
            assert database.user.count_documents({}) == 0
        """,
    )
    project.passes("-W", "error", f"--mongodb={elsewhere}")


def test_another_app_is_built_by_its_own_factory(project: Project, elsewhere: str) -> None:
    project.write(
        "shop.py",
        """
        import os
        from flask import Flask
        from pymongo import MongoClient

        def make(config=None):
            app = Flask(__name__)
            app.config.update(config or {})
            client = MongoClient(os.environ["MONGODB_URI"])
            app.extensions["shop"] = client

            @app.get("/")
            def index():
                orders = client.get_default_database().orders
                orders.insert_one({})
                return str(orders.count_documents({}))

            return app
        """,
    )
    project.write("pytest.ini", "[pytest]\napp_factory = shop:make\n")
    project.write(
        "test_shop.py",
        """
        import pytest

        @pytest.fixture
        def app_config(app_config):
            return {**app_config, "COLOUR": "green"}

        @pytest.mark.parametrize("n", range(2))
        def test_orders_of_another_test_are_not_there(client, app, n):
            assert app.config["TESTING"] and app.config["COLOUR"] == "green"
            assert client.get("/").text == "1"
        """,
    )
    project.passes("-W", "error", f"--mongodb={elsewhere}")


SHAPES = """
    import os
    from flask import Flask

    def make(**given):
        app = Flask(__name__)
        app.config.update(GIVEN=given)
        return app

    def by_name(config_name="dev"):
        return make(config_name=config_name)

    def by_default(config="dev"):
        return make(config=config)

    def by_class(config: "type[Config]" = None):
        return make(config=config)

    def by_address(mongo_uri, debug=False):
        return make(mongo_uri=mongo_uri)

    def by_type(overrides: "dict[str, object] | None" = None):
        return make(overrides=overrides)

    def by_both(settings, *, database_url):
        return make(settings=settings, database_url=database_url)

    def by_stage(stage):
        return make(stage=stage)

    class Wrapper:
        def __init__(self, app):
            self.app = app

    wrapped = Wrapper(make(kind="wrapped"))
    """


def test_only_a_parameter_that_is_a_configuration_gets_one(project: Project, elsewhere: str) -> None:
    project.write("shop.py", SHAPES)
    project.write(
        "test_it.py",
        """
        import pytest

        FACTORIES = {
            "by_name": {"config_name": "dev"},
            "by_name('testing')": {"config_name": "testing"},
            "by_default": {"config": "dev"},
            "by_class": {"config": None},
            "by_address": {"mongo_uri": "URI"},
            "by_type": {"overrides": {"TESTING": True}},
            "by_both": {"settings": {"TESTING": True}, "database_url": "URI"},
            "by_stage(stage='ci')": {"stage": "ci"},
            "wrapped": {"kind": "wrapped"},
        }

        @pytest.fixture(params=FACTORIES, autouse=True)
        def factory(request, monkeypatch):
            # As --app-factory sets it, once for each test.
            monkeypatch.setattr(request.config.option, "provision_app_factory", f"shop:{request.param}")
            return request.param

        def test_it(factory, app, mongodb, database):
            given = {
                name: "URI" if value == mongodb.uri_for(database.name) else value
                for name, value in app.config["GIVEN"].items()
            }
            assert given == FACTORIES[factory]
            assert app.config["TESTING"] is ("TESTING" not in repr(given))
        """,
    )
    assert "9 passed" in project.passes(f"--mongodb={elsewhere}")


def test_a_parameter_that_nothing_is_known_of_is_named_with_what_to_write(
    project: Project, elsewhere: str
) -> None:
    project.write("shop.py", SHAPES)
    project.write("test_it.py", "def test_it(app):\n    pass\n")
    printed = project.fails("--app-factory=shop:by_stage", f"--mongodb={elsewhere}")
    assert "why:  by_stage(stage) needs stage, and nothing says what it is." in printed
    assert """--app-factory="shop:by_stage(stage='…')\"""" in printed
    assert "Traceback" not in printed


def test_an_import_error_of_the_app_is_shown_as_it_is(project: Project, elsewhere: str) -> None:
    project.write("shop.py", "from flask import no_such_name\n")
    project.write("test_it.py", "def test_it(app):\n    pass\n")
    printed = project.fails("--app-factory=shop:make", f"--mongodb={elsewhere}")
    assert "ImportError: cannot import name 'no_such_name' from 'flask'" in printed
    assert "Flask is not installed" not in printed


def test_an_app_run_without_a_guard_does_not_keep_the_tests_waiting(project: Project, elsewhere: str) -> None:
    project.write(
        "shop.py",
        """
        from flask import Flask
        app = Flask(__name__)
        app.run(port=0)
        """,
    )
    project.write("test_it.py", "def test_it(app):\n    assert app.name == 'shop'\n")
    project.passes("--app-factory=shop:app", f"--mongodb={elsewhere}")


def test_an_app_that_is_not_there_is_named(project: Project, elsewhere: str) -> None:
    project.write("test_it.py", "def test_it(app):\n    pass\n")
    printed = project.fails("--app-factory=nowhere:make", f"--mongodb={elsewhere}")
    assert "nowhere" in printed
    assert "--app-factory=module:factory" in printed
    assert "Traceback" not in printed


def test_an_app_that_is_not_named_is_asked_for(project: Project, elsewhere: str) -> None:
    project.write("test_it.py", "def test_it(client):\n    pass\n")
    printed = project.fails(f"--mongodb={elsewhere}")
    assert "why:  No app is named." in printed
    assert "next: pytest --app-factory=module:factory" in printed
    assert "flaskbook" not in printed


def test_a_mongod_that_ends_at_once_is_explained_for_pytest(project: Project, tmp_path: Path) -> None:
    broken = tmp_path / "mongod"
    broken.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || exec {project.mongod} --version\necho broken >&2\nexit 9\n'
    )
    broken.chmod(0o755)
    project.mongod = str(broken)
    project.write("test_it.py", SIX_LINES)
    printed = project.fails()
    assert "error: starting" in printed
    assert "next: Run pytest again." in printed
    assert "invoke" not in printed.partition("error: ")[2]
    assert project.nodes() == []


def test_no_settings_of_a_project_are_read(project: Project) -> None:
    project.write(
        "invoke.yaml", "env: {stage: dev}\napp: {name: shop, factory: [1]}\nmongodb: {path: /nowhere}\n"
    )
    home = project.root.parent / "home"
    home.mkdir()
    (home / ".invoke.yaml").write_text("mongodb: 7\n{")
    project.write(
        "test_it.py",
        """
        import sys

        def test_it(database, mongodb, tmp_path):
            database.people.insert_one({"name": "Ada"})
            assert not {"invoke", "fabric", "pydantic", "rich", "docker"} & sys.modules.keys()
        """,
    )
    project.passes(HOME=str(home), INVOKE_ENV_STAGE="dev", INVOKE_MONGODB_SOURCE="nowhere")


def test_the_apps_environment_and_folder_are_options_of_pytest(project: Project, elsewhere: str) -> None:
    (project.root / "src").mkdir(parents=True, exist_ok=True)
    project.write(
        "src/shop.py",
        """
        import os
        from flask import Flask

        def make():
            app = Flask(__name__)
            app.config["SEEN"] = [os.environ["SHOP_DB"], os.environ.get("MONGODB_DATABASE")]
            return app
        """,
    )
    project.write(
        "pytest.ini",
        """
        [pytest]
        app_factory = shop:make
        app_path = src
        app_env =
            SHOP_DB = {{ database }}@{{ host }}
            MONGODB_DATABASE =
        """,
    )
    project.write(
        "test_shop.py",
        """
        def test_it(app, database):
            assert app.config["SEEN"] == [f"{database.name}@127.0.0.1", None]
        """,
    )
    project.passes(f"--mongodb={elsewhere}")


def test_the_variables_that_invoke_run_sets_are_those_of_the_test(project: Project) -> None:
    """Else the app would write into the database of development."""
    project.write(
        "shop.py",
        """
        import os
        from flask import Flask

        app = Flask(__name__)
        app.config["SEEN"] = [os.environ["SHOP_MONGO"], os.environ["SHOP_DB"], os.environ.get("DB_NAME")]
        """,
    )
    project.write(
        "invoke.yaml", "app:\n  env:\n    SHOP_MONGO: '{{ uri }}'\n    SHOP_DB: wrong\n    DB_NAME:\n"
    )
    project.write("pytest.ini", "[pytest]\napp_factory = shop:app\napp_env = SHOP_DB={{ database }}\n")
    project.write(
        "test_shop.py",
        """
        def test_it(app, database, mongodb):
            assert app.config["SEEN"] == [mongodb.uri_for(database.name), database.name, None]
        """,
    )
    project.passes(SHOP_MONGO="mongodb://127.0.0.1:1/development")


def test_a_wrong_password_is_said_to_be_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "guarded").mkdir()
    guarded = Project(tmp_path / "guarded" / "project", project.mongod, options=("--mongodb-auth",))
    guarded.write("tell.py", TELL)
    guarded.write("test_it.py", BLOCKED)
    project.write("test_it.py", SIX_LINES)
    try:
        host, port = guarded.tells("blocked", guarded.begin())["server"]
        printed = project.fails(f"--mongodb=mongodb://root:hunter2@{host}:{port}/?replicaSet=rs0")
    finally:
        guarded.close()
    assert "The password was refused: root does not log in with it in the database admin." in printed
    assert "next: Correct user and password in --mongodb" in printed
    assert "right to list" not in printed
    assert "hunter2" not in printed


@pytest.fixture(scope="module")
def other_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with other plugins whose fixtures have the names of ours."""
    folder = tmp_path_factory.mktemp("other-plugins")
    packages = [
        "pytest-flask",
        "pytest-mongodb",
        "mongomock",
        "sentinels",
        "pytz",
        "pytest-mongo",
        "mirakuru",
    ]
    packages += ["port-for", "pytest-django", "django", "asgiref", "sqlparse"]
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--no-compile",
            ),
            *("--target", str(folder), *packages),
        ],
        check=True,
    )
    return folder


SHOP = """
    import os
    from flask import Flask
    from pymongo import MongoClient

    def make():
        app = Flask(__name__)

        @app.get("/")
        def index():
            with MongoClient(os.environ["MONGODB_URI"]) as client:
                client.get_default_database().orders.insert_one({})
                return str(client.get_default_database().orders.count_documents({}))

        return app
"""


def with_other_plugins(project: Project, folder: Path) -> dict[str, str]:
    """The environment in which other plugins are there, and none is loaded that is not named."""
    project.write("shop.py", SHOP)
    return {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


@pytest.mark.needs("index")
@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize(
    ("plugin", "name", "theirs"),
    [
        ("pytest_mongodb.plugin", "mongodb", "pytest_mongodb"),
        ("pytest_mongo.plugin", "mongodb", "pytest_mongo."),
        ("pytest_flask.plugin", "client", "pytest_flask"),
        ("pytest_django.plugin", "client", "pytest_django"),
    ],
)
def test_another_plugins_fixture_keeps_its_name_in_whatever_order_they_come(
    project: Project,
    other_plugins: Path,
    plugin: str,
    name: str,
    theirs: str,
    ours_first: bool,
    elsewhere: str,
) -> None:
    environment = with_other_plugins(project, other_plugins)
    project.write(
        "test_it.py",
        f"""
        def test_ours(database, provision_mongodb, provision_client):
            database.people.insert_one({{"name": "Ada"}})
            assert provision_mongodb.client[database.name].people.count_documents({{}}) == 1
            assert provision_client.get("/").text == "1"

        def test_theirs(request):
            module = request._fixturemanager.getfixturedefs({name!r}, request.node)[-1].func.__module__
            assert module.startswith({theirs!r}), module
        """,
    )
    ours = "provision.testing.plugin"
    order = [ours, plugin] if ours_first else [plugin, ours]
    project.named = False
    options = [word for each in order for word in ("-p", each)]
    printed = project.passes(*options, "--app-factory=shop:make", f"--mongodb={elsewhere}", **environment)
    assert f"the fixture {name} is that of {plugin}; ours is provision_{name}" in printed


@pytest.mark.needs("index")
def test_the_live_server_of_pytest_flask_serves_our_app(
    project: Project, other_plugins: Path, elsewhere: str
) -> None:
    environment = with_other_plugins(project, other_plugins)
    project.write(
        "test_it.py",
        """
        import urllib.request

        def test_it(live_server, database, client):
            with urllib.request.urlopen(f"http://{live_server.host}:{live_server.port}/") as answer:
                assert answer.read() == b"1"
            assert database.orders.count_documents({}) == 1
            assert client.get("/").text == "2"
        """,
    )
    options = ["-p", "pytest_flask.plugin", "-o", "live_server_scope=function", "--app-factory=shop:make"]
    project.passes(*options, f"--mongodb={elsewhere}", **environment)


@pytest.mark.needs("index")
@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_the_first_use_on_a_machine_says_that_mongod_is_fetched(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    project = Project(tmp_path / "project")
    project.write("test_it.py", SIX_LINES)
    places = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    try:
        done = project.pytest(*workers, **places)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr.count("mongodb: fetching mongod, once for all projects") == 1
        again = project.pytest(*workers, **places)
        assert "fetching" not in again.stdout + again.stderr
    finally:
        project.close()
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.mark.needs("index")
@pytest.mark.timeout(600)
def test_an_installed_wheel_is_all_that_a_project_needs(tmp_path: Path, mongod_binary: Path) -> None:
    def run(*command: str, **environment: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=400, env={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stdout + done.stderr

    source = tmp_path / "source"
    copied = ("provision", "flaskbook", "pyproject.toml", "README.md", "LICENSE", "mongod.conf.j2")
    source.mkdir()
    run("cp", "-RP", *(str(ROOT / name) for name in copied), str(source))
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--wheel"),
        *("--outdir", str(tmp_path / "dist"), str(source)),
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "virtualenv", str(tmp_path / "env"))
    python = str(tmp_path / "env" / "bin" / "python")
    old_pip = "23.0.1" if sys.version_info < (3, 12) else "23.2"  # the oldest that runs
    there = (f"pip=={old_pip}", "invoke>=3", "pytest==8.0.0")
    pip_install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    run(*pip_install, *there)
    before = {name: version_in(python, name) for name in ("pip", "invoke", "pytest")}
    run(*pip_install, str(wheel))
    assert {name: version_in(python, name) for name in before} == before

    empty = Project(tmp_path / "project", python=python, installed=True)
    empty.write("test_it.py", SIX_LINES)
    # Where mongod comes from is a matter of the machine: the PATH here, a download elsewhere.
    path = os.pathsep.join((str(mongod_binary.parent), "/usr/bin", "/bin"))
    try:
        assert "1 passed" in empty.passes(PATH=path, DOCKER_HOST="tcp://127.0.0.1:1")
        assert empty.nodes() == []
    finally:
        empty.close()


def version_in(python: str, package: str) -> str:
    """The version of a package that an interpreter has."""
    program = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_the_run_ends_its_server_even_when_a_test_ended_it_first(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        def test_kill(database, mongodb):
            database.people.insert_one({})
            mongodb.deployment.kill_node(mongodb.deployment.node())
        """,
    )
    project.passes()
    until("nothing to be left", lambda: not project.nodes() and not project.runs())
