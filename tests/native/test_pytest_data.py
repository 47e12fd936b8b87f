"""What the pytest plugin offers for test data, in projects of their own, on real mongods."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient

from tests.support.plugin_project import ROOT, Project
from tests.support.polling import until
from tests.support.router_standin.install import beside, link

TELL = """
    import json, pathlib

    def tell(name, value):
        with pathlib.Path(name).open("a") as file:
            file.write(json.dumps(value) + "\\n")
"""
TEMPLATE = """
    import datetime, pytest
    from tell import tell

    @pytest.fixture(scope="session")
    def database_template():
        def fill(database):
            tell("filled", database.name)
            database.create_collection("people", validator={"age": {"$gte": 0}})
            database.people.create_index("email", unique=True)
            database.people.create_index([("name", 1), ("age", -1)])
            database.people.insert_many([{"_id": n, "email": str(n), "name": "Ada", "age": n} for n in range(3)])
            database.sessions.create_index("at", expireAfterSeconds=3600)
            database.sessions.insert_one({"_id": 1, "at": datetime.datetime.now()})
            database.create_collection("empty")
            database.quiet.insert_many([{"_id": n} for n in range(20)])
            if RICH:
                database.create_collection("journal", capped=True, size=4096)
                database.journal.insert_many([{"_id": n} for n in range(3)])
                database.create_collection("adults", viewOn="people", pipeline=[{"$match": {"age": {"$gt": 1}}}])
                database.create_collection("weather", timeseries={"timeField": "at"})
                database.weather.insert_one({"_id": 1, "at": datetime.datetime(2026, 1, 1), "rain": 3})
        return fill

    @pytest.fixture
    def fingerprint(database):
        def take():
            listed = sorted(database.list_collections(), key=lambda each: each["name"])
            listed = [each for each in listed if not each["name"].startswith("system.")]
            return repr([
                [
                    each["name"], each["type"], each["options"],
                    # The fields of a measurement come in no order.
                    [sorted(document.items()) for document in database[each["name"]].find()],
                    sorted(map(repr, database[each["name"]].list_indexes())) if each["type"] != "view" else [],
                ]
                for each in listed
            ])
        return take
"""
# Each test finds the template, whatever the one before has done.
MISCHIEF = """
    import subprocess, sys
    import pytest
    from tell import tell

    DEEDS = {
        "nothing": "pass",
        "insert": "database.people.insert_one({'email': 'x', 'age': 7})",
        "update": "database.people.update_many({}, {'$set': {'name': 'Bob'}})",
        "delete": "database.people.delete_one({'_id': 0})",
        "same documents in another order": (
            "first = database.people.find_one_and_delete({'_id': 0}); database.people.insert_one(first)"
        ),
        "into the empty one": "database.empty.insert_one({})",
        "a collection and an index of its own": (
            "database.mine.insert_one({}); database.mine.create_index('a'); database.people.create_index('age')"
        ),
        "unique index gone, duplicates in": (
            "database.people.drop_index('email_1'); database.people.insert_many([{'email': '1', 'age': 9}] * 1)"
        ),
        "another index of that name": (
            "database.people.drop_index('email_1'); database.people.create_index('email', name='email_1', sparse=True)"
        ),
        "drop": "database.people.drop()",
        "drop and make again, without what belongs to it": (
            "database.people.drop(); database.people.insert_one({'_id': 0, 'email': '0'})"
        ),
        "rename": "database.people.rename('persons')",
        "swap": "database.people.rename('x'); database.quiet.rename('people'); database.x.rename('quiet')",
        "rename over": "database.empty.rename('people', dropTarget=True)",
        "validator": "database.command('collMod', 'people', validator={}, validationLevel='off')",
        "ttl": "database.command('collMod', 'sessions', index={'name': 'at_1', 'expireAfterSeconds': 1})",
        "everything dropped": "database.client.drop_database(database.name)",
        "profile": "database.command('profile', 2); database.people.find_one(); database.command('profile', 0)",
    }
    TRANSACTIONS = {
        "transaction": (
            "with database.client.start_session() as session, session.start_transaction(): "
            "database.people.delete_many({}, session=session); database.sessions.insert_one({}, session=session)"
        ),
        "a transaction that does not end": (
            "session = database.client.start_session(); session.start_transaction(); "
            "database.quiet.insert_one({}, session=session)"
        ),
    }
    RICH = {
        "view": "database.adults.drop(); database.create_collection('adults', viewOn='quiet')",
        "view changed": "database.command('collMod', 'adults', viewOn='people', pipeline=[])",
        "a view of its own": "database.create_collection('mine', viewOn='people')",
        "capped": "database.journal.insert_one({})",
        "time series made again": (
            "database.weather.drop(); database.create_collection('weather', timeseries={'timeField': 'at'})"
        ),
        "index of a time series": "database.weather.create_index([('rain', 1)])",
        "time series": "import datetime; database.weather.insert_one({'at': datetime.datetime(2026, 1, 2)})",
    }
    if SHARDED:
        # What the stand-in for a router does not do; and documents of several shards come in no order.
        for name in ("rename", "swap", "rename over", "profile", "validator", "ttl", "same documents in another order"):
            del DEEDS[name]
    else:
        DEEDS |= RICH
    if OPLOG:
        DEEDS |= TRANSACTIONS
    OTHER = '''if True:
        import sys, pymongo
        database = pymongo.MongoClient(sys.argv[1]).get_default_database()
        for deed in sys.stdin:
            exec(deed)
            print("done", flush=True)
    '''

    @pytest.fixture(scope="session")
    def app(mongodb):
        # Another process, with a client of its own.
        started = {}

        def do(database, deed):
            command = [sys.executable, "-c", OTHER, mongodb.uri_for(database.name)]
            if database.name not in started:
                started[database.name] = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            process = started[database.name]
            process.stdin.write(deed + "\\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\\n"

        yield do
        for process in started.values():
            process.communicate()

    @pytest.mark.parametrize("deed", DEEDS)
    def test_it(database, app, fingerprint, deed):
        quiet = next(database.list_collections(filter={"name": "quiet"})).get("info", {}).get("uuid")
        tell("seen", [fingerprint(), deed, database.name, str(quiet)])
        app(database, DEEDS[deed])

    def test_the_last(database, fingerprint):
        tell("seen", [fingerprint(), "last", database.name, ""])
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
        for keeper in keepers(made):
            keeper.kill()
        made.close()


def write_template(project: Project, *, oplog: bool, sharded: bool) -> None:
    """The template, and tests that do everything to it."""
    project.write("conftest.py", TEMPLATE.replace("RICH", str(not sharded)))
    project.write("test_it.py", MISCHIEF.replace("SHARDED", str(sharded)).replace("OPLOG", str(oplog)))


def agrees(project: Project) -> None:
    """Each test has found the same, in one database that was filled once."""
    seen = project.told("seen")
    expected = seen[0][0]
    assert "email_1" in expected and "'Ada'" in expected
    before = ["", "the first", *(deed for _, deed, *_ in seen)]
    wrong = [(deed, found) for (found, *_), deed in zip(seen, before[1:], strict=False) if found != expected]
    for deed, found in wrong:
        at = next(n for n, (a, b) in enumerate(zip(found, expected + "\0", strict=False)) if a != b)
        pytest.fail(f"after {deed}: {found[at - 80 : at + 80]!r}, not {expected[at - 80 : at + 80]!r}")
    assert len({name for _, _, name, _ in seen}) == len(project.told("filled")) == 1


@pytest.mark.parametrize("options", [("--mongodb-auth",), ("--mongodb-standalone",)])
def test_each_test_begins_with_the_template_whoever_has_written_what(
    project: Project, options: tuple[str, ...]
) -> None:
    oplog = "--mongodb-standalone" not in options
    write_template(project, oplog=oplog, sharded=False)
    project.passes(*options)
    agrees(project)
    # What was written to by nobody stays as it is.
    kept = [quiet for _, deed, _, quiet in project.told("seen")[1:4]]
    assert len(set(kept)) == 1
    assert project.nodes() == []


def test_a_template_works_on_a_sharded_cluster(
    project: Project, tmp_path: Path, mongod_binary: Path, mongod_version: str
) -> None:
    project.mongod = str(beside(mongod_binary, mongod_version, tmp_path / "routed"))
    write_template(project, oplog=False, sharded=True)
    project.passes("--topology=sharded")
    agrees(project)


def test_a_template_that_is_no_function_is_explained(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def database_template():
            return {"people": []}

        def test_it(database):
            pass
        """,
    )
    printed = project.fails()
    assert "The fixture database_template gave dict. It gives a function that fills a database:" in printed
    assert "Traceback" not in printed


FAILING = """
    import pytest

    @pytest.fixture(scope="session")
    def database_template():
        return lambda database: database.people.insert_one({"_id": "Ada"})

    @pytest.mark.parametrize("n", range(2))
    def test_fails(database, n):
        database.people.insert_one({"_id": n})
        assert database.people.count_documents({}) == 7

    def test_passes(database):
        assert database.people.count_documents({}) == 1
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_failed_tests_database_stays_until_the_projects_next_run(
    project: Project, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    project.write("test_it.py", FAILING)
    printed = project.fails("--mongodb-keep-failed", "--mongodb-auth", *workers)
    assert "2 failed, 1 passed" in printed
    assert "uri:  mongodb://root@127.0.0.1:" in printed
    assert "It stays until the next run of pytest in this project." in printed
    commands = [line.removeprefix("open: ") for line in printed.splitlines() if line.startswith("open: ")]
    assert len(set(commands)) == 2
    # Another project's run leaves it alone.
    other = Project(tmp_path / "other", project.mongod)
    other.write("test_it.py", "def test_it(database):\n    database.people.insert_one({})\n")
    other.passes()
    (node,) = project.nodes()
    for file in project.temporary.glob("*/*/kept/*"):
        password = file.read_text().partition("root:")[2].partition("@")[0]
        assert password and password not in printed
        assert file.stat().st_mode & 0o077 == 0
    for n, command in enumerate(commands):
        ask = "sorted(str(each['_id']) for each in database.people.find())"
        found = subprocess.run(
            command, shell=True, input=ask, capture_output=True, text=True, timeout=60, check=True
        )
        assert f"['{n}', 'Ada']" in found.stdout
    assert node.is_running()
    project.write("test_it.py", "def test_it(database):\n    database.people.insert_one({})\n")
    project.passes("--mongodb-keep-failed")
    assert project.nodes() == []
    assert project.runs() == []


def test_a_failed_tests_database_stays_on_a_server_of_ones_own(project: Project, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    server = Project(tmp_path / "elsewhere" / "project", project.mongod)
    server.write("tell.py", TELL)
    server.write(
        "test_it.py",
        """
        import signal
        from tell import tell

        def test_that_does_not_end(mongodb):
            tell("uri", mongodb.uri)
            signal.pause()
        """,
    )
    try:
        uri = server.tells("uri", server.begin())
        project.write("test_it.py", FAILING)
        project.fails("--mongodb-keep-failed", f"--mongodb={uri}")
        with MongoClient(uri) as client:
            assert len([name for name in client.list_database_names() if name.startswith("test_")]) == 2
            project.write("test_it.py", "def test_it(database):\n    database.people.insert_one({})\n")
            project.passes(f"--mongodb={uri}")
            assert [name for name in client.list_database_names() if name.startswith("test_")] == []
    finally:
        server.close()


SHOP = """
    import os
    from pymongo import MongoClient

    client = MongoClient(os.environ.get("MONGODB_URI", "mongodb://127.0.0.1:1"), connect=False)

    def make():
        from flask import Flask
        app = Flask(__name__)
        with MongoClient(os.environ["MONGODB_URI"]) as first:
            first.get_default_database().people.create_index("email")

        @app.get("/people/<name>")
        def people(name):
            with MongoClient(os.environ["MONGODB_URI"]) as client:
                people = client.get_default_database().people
                people.find_one({"_id": name})
                people.find_one({"email": name})
                list(people.find())
                return str(list(people.find({"name": name, "age": {"$gt": 3}}).sort("born", -1)))

        return app
"""
SCANS = """
    import subprocess, sys
    import pytest

    def test_that_scans(client, database):
        database.people.insert_one({"name": "Ada", "age": 36})
        assert database.people.count_documents({"age": 36}) == 1
        assert "Ada" in client.get("/people/Ada").text

    @pytest.mark.no_table_scan(False)
    def test_that_may(client, database):
        database.people.insert_one({"name": "Ada", "age": 36})
        client.get("/people/Ada")

    def test_with_an_index(client, database):
        database.people.insert_one({"name": "Ada", "age": 36})
        database.people.create_index([("name", 1), ("born", -1), ("age", 1)])
        database.people.update_one({"age": 36}, {"$set": {"seen": True}})
        client.get("/people/Ada")

    def test_of_another_process(database, mongodb):
        database.people.insert_one({"name": "Ada"})
        program = (
            "import sys, pymongo; people = pymongo.MongoClient(sys.argv[1], appname='worker').get_default_database().people;"
            "people.update_many({'name': 'Ada'}, {'$set': {'age': 3}}); people.delete_one({'age': {'$lt': 2}})"
        )
        subprocess.run([sys.executable, "-c", program, mongodb.uri_for(database.name)], check=True)

    def test_that_counts(client, assert_queries):
        with assert_queries(max=4) as sent:
            client.get("/people/Ada")
        assert [query.verb for query in sent] == ["find"] * 4
        with assert_queries(max=3):
            client.get("/people/Ada")
"""


def test_queries_are_counted_and_those_that_read_all_are_named(project: Project) -> None:
    project.write("shop.py", SHOP)
    project.write("pytest.ini", "[pytest]\napp_factory = shop:make\n")
    project.write("test_it.py", SCANS)
    project.write("conftest.py", "import shop\n")  # with a client that is there before all tests
    printed = project.fails("--mongodb-no-table-scan", "-W", "error")
    assert "3 failed, 2 passed" in printed
    assert "error" not in printed.splitlines()[-1]
    scanned, of_other, counted = (
        printed.partition(f"_ {name} _")[2].partition("\n____")[0]
        for name in ("test_that_scans", "test_of_another_process", "test_that_counts")
    )
    assert "find people {'name': 'Ada', 'age': {'$gt': 3}} sort {'born': -1}" in scanned
    assert "sent by: shop.py:20 in people" in scanned
    assert "it lacks: db.people.create_index([('name', 1), ('born', -1), ('age', 1)])" in scanned
    assert scanned.count("it lacks") == 1
    assert of_other.count("sent by: a client of another process (worker)") == 2
    assert "update people {'name': 'Ada'}" in of_other
    assert "it lacks: db.people.create_index([('age', 1)])" in of_other
    assert "4 queries were sent, and at most 3 may be:" in counted
    assert "2. find people {'email': 'Ada'} limit 1" in counted
    assert "shop.py:18 in people" in counted
    project.write("pytest.ini", "[pytest]\napp_factory = shop:make\nmongodb_no_table_scan = true\n")
    assert "3 failed, 2 passed" in project.fails()


def test_a_router_can_not_tell_which_queries_read_all(
    project: Project, tmp_path: Path, mongod_binary: Path, mongod_version: str
) -> None:
    project.mongod = str(beside(mongod_binary, mongod_version, tmp_path / "routed"))
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.no_table_scan
        @pytest.mark.mongodb(topology="sharded", shards=1)
        def test_it(database):
            pass
        """,
    )
    printed = project.fails()
    assert "Queries that read a whole collection can't be told here: a router does not profile." in printed


def test_the_run_is_made_once_for_each_version(project: Project, tmp_path: Path, mongod_binary: Path) -> None:
    other = tmp_path / "other"
    link(mongod_binary, other)
    first, second = project.mongod, str(other)
    project.mongod = ""
    project.write(
        "test_it.py",
        """
        import pytest
        from tell import tell

        def test_that_passes(database, request):
            tell("mongod", request.config.getoption("provision_mongod"))

        @pytest.mark.parametrize("name", ["bin", "other"])
        def test_of_one(database, request, name):
            assert f"/{name}" in request.config.getoption("provision_mongod")
        """,
    )
    printed = project.fails(f"--mongodb-versions={first},{second}", "--junitxml=report.xml", "-n", "1")
    assert project.told("mongod") == [first, second]
    summary = printed.partition(" MongoDB versions ")[2]
    assert summary.count("FAILED  2 passed, 1 failed") == 2
    for mongod, failed in ((first, "other"), (second, "bin")):
        assert f"{mongod} " in summary
        assert f"FAILED test_it.py::test_of_one[{failed}] with {mongod}" in summary
    assert len(list(project.root.glob("report-*.xml"))) == 2
    project.write("pytest.ini", f"[pytest]\nmongodb_versions = {first}, {second}\n")
    printed = project.passes("-k", "passes")
    assert printed.partition(" MongoDB versions ")[2].count("1 passed") == 2
    assert project.nodes() == []
    printed = project.fails("--mongodb-versions=new", status=4)
    assert "new is neither a version (8.0 or 8.0.17) nor the path of a mongod" in printed


def test_a_version_is_taken_as_it_is_named(project: Project, mongod_version: str) -> None:
    project.mongod = mongod_version
    project.write("test_it.py", f"def test_it(mongodb):\n    assert mongodb.version == {mongod_version!r}\n")
    project.passes()
    printed = project.fails("--mongod=3.4")
    assert "Write the version with its patch level, 3.4.0, or the path of a mongod." in printed


def test_a_server_stays_for_the_next_run_and_ends_by_itself(project: Project) -> None:
    project.options = ("--mongodb-reuse",)
    project.write(
        "test_it.py",
        """
        import os, signal
        from tell import tell

        def test_it(database, mongodb):
            database.people.insert_one({})
            listed = [name for name in mongodb.client.list_database_names() if name.startswith("test_")]
            tell("seen", [mongodb.client.address[1], listed, database.name])
            if "BLOCK" in os.environ:
                signal.pause()
        """,
    )
    # Two runs at once begin with nothing there; one is killed.
    blocked = project.begin(BLOCK="1")
    project.passes("-n", "1")
    until("both to have run", lambda: len(project.told("seen")) == 2)
    blocked.process.kill()
    blocked.process.wait()
    project.passes()
    seen = project.told("seen")
    assert len({port for port, *_ in seen}) == 1
    # The killed run's database is gone when the next run begins, and the others have dropped theirs.
    assert seen[2][1] == [seen[2][2]]
    (node,) = project.nodes()
    # A run that is not told to reuse it leaves it alone.
    project.options = ()
    project.passes()
    assert project.told("seen")[3][0] != seen[0][0]
    assert project.nodes() == [node]
    for keeper in keepers(project):
        keeper.terminate()
    until("the server to end", lambda: not project.nodes() and not project.runs())

    project.options = ("--mongodb-reuse", "--mongodb-reuse-idle=0.005")
    project.passes()
    until("the server to end", lambda: not project.nodes() and not project.runs())
    until("its keeper to end", lambda: not keepers(project))


def test_a_run_in_use_is_not_ended_when_its_keeper_dies(project: Project) -> None:
    project.options = ("--mongodb-reuse",)
    project.write(
        "test_it.py",
        """
        import os, pathlib, time

        def test_it(database):
            database.people.insert_one({})
            if "WAIT" in os.environ:
                pathlib.Path("begun").write_text("1")
                while not pathlib.Path("go").exists():
                    time.sleep(0.02)
            assert database.people.count_documents({}) == 1
        """,
    )
    running = project.begin(WAIT="1")
    until("it to begin", (project.root / "begun").exists)
    (keeper,) = keepers(project)
    keeper.kill()
    until("the keeper to end", lambda: not keepers(project))
    project.options = ()
    project.passes()
    (project.root / "go").touch()
    assert running.process.wait(60) == 0, running.text
    project.passes()
    until("nothing to be left", lambda: not project.nodes() and not project.runs())


def keepers(project: Project) -> list[psutil.Process]:
    """The processes that keep servers of a project's runs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            ours = "provision.testing.reuse" in words and str(project.temporary.resolve()) in " ".join(words)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_the_examples_of_the_docs_run(project: Project) -> None:
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    order, template, counting = (part.partition("```")[0] for part in text.split("```python\n")[1:4])
    project.write("conftest.py", template)
    project.write("test_docs.py", f"{order}\n\n{counting}")
    project.write(
        "shop.py",
        """
        import os
        from flask import Flask
        from pymongo import MongoClient

        def make():
            app = Flask(__name__)
            client = MongoClient(os.environ["MONGODB_URI"])
            app.extensions["mongo"] = client

            @app.get("/people")
            def people():
                return sorted(person["email"] for person in client.get_default_database().people.find())

            return app
        """,
    )
    project.write(
        "test_more.py",
        """
        def test_people(client):
            assert client.get("/people").json == ["ada@example.org", "grace@example.org"]
        """,
    )
    assert "3 passed" in project.passes("--app-factory=shop:make")
