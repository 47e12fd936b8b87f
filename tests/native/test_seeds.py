"""Seeds and resets on real servers: single, a set and a sharded cluster, each brought up once."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from pymongo import MongoClient
from pymongo.database import Database

from provision.app import seeding
from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.data import database_copy
from provision.data import reset as resetting
from provision.data.program import AppProgram
from provision.data.reset import Migration, ResetDone
from provision.data.seeds import applying
from provision.data.seeds.applying import SeedResult, Target
from provision.data.seeds.files import RECORDS, find
from provision.deployments.deployment import Deployment
from provision.settings.loading import Layer, load
from tests.support.clones import Clone
from tests.support.deployments import deployed

pytestmark = pytest.mark.timeout(300)
SHARDING = {"flaskbook": {"user": {"key": {"country": 1, "_id": 1}, "split": [{"country": "K", "_id": "a"}]}}}


@dataclass
class Lab:
    """A folder of seeds, and the database of a deployment that they fill."""

    deployment: Deployment
    client: MongoClient[dict[str, Any]]
    folder: Path
    said: list[str] = field(default_factory=list)
    variables: dict[str, str | None] = field(default_factory=dict)

    @property
    def database(self) -> Database[dict[str, Any]]:
        return self.client.flaskbook

    @property
    def seeds(self) -> Path:
        return self.folder / "seeds"

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            path = (
                self.folder / name.replace("migration/", "migrations/") if "/" in name else self.seeds / name
            )
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    @property
    def target(self) -> Target:
        return Target(self.deployment, "flaskbook", self.folder / "scratch")

    def program(self) -> AppProgram:
        uri = self.deployment.uri("flaskbook", user="app")
        return AppProgram(Path(sys.executable), self.folder, {"MONGODB_URI": uri, **self.variables})

    def apply(self, force: bool = False) -> dict[str, SeedResult]:
        done = applying.apply(
            self.target, find(self.seeds, self.folder), self.program, force, self.said.append, Silent()
        )
        return {each.file.removeprefix("seeds/"): each for each in done}

    def reset(self, migrate: list[str] | None = None, fresh: bool = False) -> ResetDone:
        return resetting.reset(
            self.target,
            self.folder / "kept",
            find(self.seeds, self.folder),
            Migration.of(migrate, None, self.folder),
            self.program,
            fresh,
            self.said.append,
            Silent(),
        )

    def everything(self) -> dict[str, Any]:
        """Documents, options and indexes of each collection of the database, but for the times of the records."""
        found = {}
        for each in self.database.list_collections():
            name = each["name"]
            if name.startswith("system."):
                continue
            view = each["type"] == "view"
            indexes = [] if view else sorted(map(str, self.database[name].index_information().items()))
            documents = sorted(self.database[name].find(), key=lambda document: str(document["_id"]))
            found[name] = (each["type"], each["options"], indexes, documents)
        return found


@pytest.fixture(scope="module")
def started(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    mongod_binary: Path,
    mongod_version: str,
) -> Iterator[Deployment]:
    settings: dict[str, Any] = {
        "single": {"topology": "single", "auth": True},
        "set": {"topology": "replica-set", "members": 2},
        "sharded": {"topology": "sharded", "members": 1, "shards": 2, "sharding": SHARDING},
    }[getattr(request, "param", "single")]
    with deployed(tmp_path_factory.mktemp("lab"), mongod_binary, mongod_version, **settings) as deployment:
        yield deployment


@pytest.fixture
def lab(started: Deployment, tmp_path: Path) -> Iterator[Lab]:
    with MongoClient[dict[str, Any]](started.uri(user="root")) as client:
        client.drop_database("flaskbook")
        (tmp_path / "seeds").mkdir()
        yield Lab(started, client, tmp_path)


def test_seeds_are_applied_once_and_again_when_they_have_changed(lab: Lab) -> None:
    lab.write(
        **{
            "10-users.ndjson": '{"_id": 1, "name": "Ada"}\n{"_id": 2, "name": "Grace"}\n',
            "20-notes.json": '[{"text": "a"}, {"text": "b"}, {"text": "c"}]',
            "30-places.csv": "_id.int32(),in.city\n1,Lyon\n",
            "40-more.py": "def seed(db):\n    db.more.insert_one({'users': db.users.count_documents({})})\n",
        }
    )
    assert {each.state for each in lab.apply().values()} == {"applied"}
    assert lab.database.more.find_one({}, {"_id": 0}) == {"users": 2}
    assert lab.database.places.find_one() == {"_id": 1, "in": {"city": "Lyon"}}
    before = lab.everything()
    assert {each.state for each in lab.apply().values()} == {"unchanged"}
    assert lab.everything() == before

    lab.database.users.insert_one({"_id": 3, "name": "of the app"})
    lab.write(
        **{
            "10-users.ndjson": '{"_id": 2, "name": "Hopper"}\n',
            "20-notes.json": '[{"text": "b"}, {"text": "c"}]',
        }
    )
    states = {name: each.state for name, each in lab.apply().items()}
    assert states.pop("30-places.csv") == states.pop("40-more.py") == "unchanged"
    assert set(states.values()) == {"applied"}
    assert [each["name"] for each in lab.database.users.find(sort=[("_id", 1)])] == [
        "Ada",
        "Hopper",
        "of the app",
    ]
    assert [each["text"] for each in lab.database.notes.find(sort=[("_id", 1)])] == ["b", "c"], (
        "as the file has them"
    )

    lab.apply(force=True)
    assert lab.database.notes.count_documents({}) == 2
    assert lab.database.more.count_documents({}) == 2, "a program does what it does each time"
    lab.client.drop_database("flaskbook")
    assert {each.state for each in lab.apply().values()} == {"applied"}, "a dropped database gets them again"


def test_nothing_of_a_file_with_a_wrong_line_is_written(lab: Lab) -> None:
    lines = "".join(f'{{"_id": {number}}}\n' for number in range(30_000))
    lab.write(**{"1-a.ndjson": '{"_id": 1}\n', "2-b.ndjson": f'{lines}{{"_id": }}\n', "3-c.json": "{}"})
    with pytest.raises(ProvisionError) as raised:
        lab.apply()
    assert raised.value.cause.startswith("seeds/2-b.ndjson:30001: ")
    assert sorted(lab.database.list_collection_names()) == sorted([RECORDS, "a"])
    lab.write(**{"2-b.ndjson": lines})
    assert {name: each.state for name, each in lab.apply().items()} == {
        "1-a.ndjson": "unchanged",
        "2-b.ndjson": "applied",
        "3-c.json": "applied",
    }
    assert lab.database.b.count_documents({}) == 30_000


def test_a_document_that_the_server_refuses_is_named_by_its_line(lab: Lab) -> None:
    lab.database.users.create_index("email", unique=True)
    lab.write(**{"users.csv": "_id,email\na,x@y.z\nb,u@v.w\nc,x@y.z\n"})
    with pytest.raises(ProvisionError, match=r"seeds/users\.csv:4: E11000 duplicate key"):
        lab.apply()
    assert lab.database[RECORDS].count_documents({}) == 0


def test_the_error_of_a_program_begins_with_its_own_line(lab: Lab) -> None:
    lab.write(**{"10-x.py": "import json\n\n\ndef seed(database):\n    json.loads('{')\n"})
    with pytest.raises(ProvisionError) as raised:
        lab.apply()
    assert raised.value.cause.splitlines()[0].startswith(
        "seeds/10-x.py:5: json.decoder.JSONDecodeError: Expecting"
    )
    assert "run_seed" not in "".join(raised.value.log_lines)
    for source, said in (
        ("def seed(database):\n  return (\n", "seeds/10-x.py:2: SyntaxError"),
        ("def other(database): ...\n", "has no function `def seed(database):`"),
        ("import os\ndef seed(database):\n    os._exit(7)\n", "It ended with status 7"),
        ("import sys\ndef seed(database):\n    sys.exit('no')\n", "seeds/10-x.py:3: SystemExit: no"),
    ):
        lab.write(**{"10-x.py": source})
        with pytest.raises(ProvisionError, match=said.replace("(", r"\(").replace(")", r"\)")):
            lab.apply()


def test_what_mongodump_writes_is_applied_with_its_indexes(lab: Lab) -> None:
    about = {
        "options": {"capped": True, "size": 8192},
        "indexes": [
            {"v": 2, "key": {"_id": 1}, "name": "_id_"},
            {"v": 2, "key": {"a": -1}, "name": "a", "sparse": True},
        ],
    }
    raw = b"".join(bson.encode({"_id": number, "a": bson.Int64(number)}) for number in range(5))
    lab.write(**{"01-log.bson": raw, "01-log.metadata.json": json.dumps(about)})
    lab.apply()
    assert [each["_id"] for each in lab.database.log.find()] == [0, 1, 2, 3, 4]
    assert lab.database.log.options()["capped"] is True
    assert lab.database.log.index_information()["a"]["sparse"] is True


def test_javascript_needs_mongosh_and_says_how_to_get_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(**{"1-x.js": "db.made.insertOne({_id: 1});\n"})
    if shutil.which("mongosh"):
        assert lab.apply()["1-x.js"].state == "applied"
        assert lab.database.made.find_one() == {"_id": 1}
        lab.write(**{"1-x.js": "throw new Error('no');\n"})
        with pytest.raises(ProvisionError, match="mongosh ended with status 1"):
            lab.apply()
    monkeypatch.setenv("PATH", "/nowhere")
    assert lab.apply()["1-x.js"].state == "left out"
    assert "npm install -g mongosh" in lab.said[-1]
    monkeypatch.undo()


MIGRATION = """
import os
from datetime import datetime
from pymongo import MongoClient
database = MongoClient(os.environ["MONGODB_URI"]).get_default_database()
database.users.create_index("email", unique=True)
database.create_collection("log", capped=True, size=100_000)
database.create_collection("old", viewOn="users", pipeline=[{"$match": {"age": {"$gt": 60}}}])
clustered = {"key": {"_id": 1}, "unique": True}
database.create_collection("place", clusteredIndex=clustered, validator={"name": {"$type": "string"}})
database.create_collection("näme.s x", collation={"locale": "de"}).create_index(
    [("t", "text")], collation={"locale": "simple"}
)
database.create_collection("weather", timeseries={"timeField": "at", "metaField": "in"}, expireAfterSeconds=10**9)
database.weather.insert_many([{"_id": n, "at": datetime(2026, 1, 1, n % 24), "in": n % 3, "c": n} for n in range(50)])
database.place.insert_one({"_id": 1, "name": "Lyon"})
database["näme.s x"].insert_one({"_id": "ä", "t": "x"})
"""


def test_the_second_reset_puts_back_what_the_first_has_made_and_touches_nothing_else(lab: Lab) -> None:
    users = "".join(f'{{"_id": {n}, "email": "{n}@x.y", "age": {n % 90}}}\n' for n in range(12_000))
    lab.write(
        **{"users.ndjson": users, "notes.json": '[{"a": 1}, {"a": 2}]', "log.json": '[{"b": 1}, {"b": 2}]'}
    )
    lab.write(**{"migrations/1.py": MIGRATION, "one.csv": "_id\n1\n"})
    command = ["python", "migrations/1.py"]
    lab.client.other.things.insert_one({"_id": 1})
    lab.database.leftover.insert_one({})
    first = lab.reset(command)
    assert (first.restored, first.migrated, first.documents) == (False, True, 12_057)
    assert set(first.collections) == {"users", "notes", "log", "one", "old", "place", "weather", "näme.s x"}
    as_new = lab.everything()

    untouched = lab.reset(command)
    assert (untouched.restored, untouched.collections) == (True, ("weather",)), "dbHash knows no time series"

    def scatter() -> None:
        lab.database.users.update_many({"_id": {"$lt": 10}}, {"$set": {"age": 1}})
        lab.database.users.delete_one({"_id": 20})
        lab.database.users.update_one({"_id": 21}, {"$set": {"email": "20@x.y"}})
        lab.database.notes.update_one({}, {"$rename": {"a": "b"}})

    def drop() -> None:
        lab.database.users.drop()
        lab.database.notes.drop_indexes()
        lab.database.notes.create_index("a")
        lab.database.old.drop()

    def replace() -> None:
        lab.database.users.delete_many({})
        lab.database.log.insert_one({"b": 3})
        lab.database.one.insert_many([{"_id": n} for n in range(100)])
        lab.database.place.delete_many({})
        lab.database.weather.insert_one({"at": datetime(2026, 2, 1), "in": 1})
        lab.database["näme.s x"].drop()

    for change in (scatter, drop, replace, lambda: lab.client.drop_database("flaskbook")):
        change()
        lab.database.extra.insert_one({})
        done = lab.reset(command)
        assert done.restored
        assert done.removed == ("extra",)
        assert lab.everything() == as_new, change
        assert {each.state for each in lab.apply().values()} == {"unchanged"}, "the records are back as well"
    assert lab.client.other.things.find_one() == {"_id": 1}


def test_a_reset_begins_anew_when_a_seed_or_a_migration_has_changed_or_the_copy_is_damaged(lab: Lab) -> None:
    lab.write(**{"a.json": "{}", "migrations/1.py": "1"})
    command = ["python", "migrations/1.py"]
    assert not lab.reset(command).restored
    assert lab.reset(command).restored
    assert not lab.reset(command, fresh=True).restored
    lab.write(**{"a.json": '{"b": 1}'})
    assert not lab.reset(command).restored
    lab.write(**{"migrations/1.py": "2"})
    assert not lab.reset(command).restored
    assert lab.reset(command).restored
    assert not lab.reset(["python", "-c", ""]).restored
    kept = sorted((lab.folder / "kept").iterdir(), key=lambda each: each.stat().st_mtime)
    assert len(kept) == resetting.MOST_KEPT
    for file in kept[-1].glob("*.bson"):
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert not lab.reset(["python", "-c", ""]).restored
    shutil.rmtree(lab.folder / "migrations")
    lab.said.clear()
    lab.reset(["python", "-c", "1"])
    lab.reset(["python", "-c", "1"])
    assert "It can't be known whether the migrations have changed" in lab.said[-1]


def test_nothing_is_dropped_where_a_seed_is_wrong_or_the_migration_leads_elsewhere(lab: Lab) -> None:
    lab.database.mine.insert_one({"_id": 1})
    lab.write(**{"a.ndjson": "{}\n{\n"})
    with pytest.raises(ProvisionError, match=r"seeds/a\.ndjson:2: "):
        lab.reset()
    lab.write(**{"a.ndjson": "{}\n"})
    lab.variables["MONGO_URL"] = "mongodb+srv://me:secret@cluster0.example.net/shop"
    with pytest.raises(ProvisionError, match=r"MONGO_URL .* leads to cluster0\.example\.net") as raised:
        lab.reset(["python", "-c", ""])
    assert "secret" not in str(raised.value)
    assert lab.database.mine.count_documents({}) == 1
    lab.variables.clear()
    with pytest.raises(ProvisionError, match="`python -c 'exit\\(9\\)'` ended with status 9"):
        lab.reset(["python", "-c", "exit(9)"])
    with pytest.raises(ProvisionError, match="no-such-command can't be run"):
        lab.reset(["no-such-command"])
    assert not lab.reset(["python", "-c", ""]).restored
    assert lab.database.list_collection_names() != ["mine"]


@pytest.mark.parametrize("started", ["set", "sharded"], indirect=True)
def test_sets_and_sharded_clusters_are_seeded_and_reset(lab: Lab) -> None:
    countries = ["DE", "FR", "SE", "US"]
    users = "".join(f'{{"_id": "u{n}", "country": "{countries[n % 4]}"}}\n' for n in range(2000))
    lab.write(**{"user.ndjson": users, "notes.json": '[{"a": 1}]'})
    first = lab.reset()
    assert (first.restored, first.documents) == (False, 2001)
    as_new = lab.everything()
    lab.database.user.delete_many({"country": "FR"})
    lab.database.user.insert_one({"_id": "x", "country": "SE"})
    lab.database.extra.insert_one({})
    assert lab.reset().restored
    assert lab.everything() == as_new
    lab.write(**{"user.ndjson": users.replace('"US"}', '"US", "state": "WA"}')})
    assert lab.apply()["user.ndjson"].state == "applied"
    assert lab.database.user.count_documents({"state": "WA"}) == 500
    assert lab.database.user.count_documents({}) == 2000
    if lab.deployment.topology.is_sharded:
        with MongoClient[dict[str, Any]](lab.deployment.uri(user="root")) as client:
            assert client.config.collections.find_one({"_id": "flaskbook.user"})["key"] == {
                "country": 1,
                "_id": 1,
            }  # type: ignore[index]
        counts = {each.name: _count(lab, each.members[0]) for each in lab.deployment.topology.replica_sets}
        assert sum(counts.values()) == 2000


def _count(lab: Lab, node: Any) -> int:
    with MongoClient[dict[str, Any]](lab.deployment.uri(user="root", direct=node)) as client:
        return client.flaskbook.user.count_documents({})


def test_a_database_that_could_not_be_kept_leaves_no_copy(lab: Lab, monkeypatch: Any) -> None:
    lab.write(**{"a.json": "{}"})
    whole: Callable[..., Any] = database_copy.write_atomically

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(database_copy, "write_atomically", full)
    assert not lab.reset().restored
    assert "could not be kept" in lab.said[-1]
    assert list((lab.folder / "kept").iterdir()) == []
    monkeypatch.setattr(database_copy, "write_atomically", whole)
    assert not lab.reset().restored
    assert lab.reset().restored


def test_run_applies_seeds_to_an_empty_database_where_a_setting_asks_for_that(lab: Lab) -> None:
    lab.write(**{"a.json": "[{}, {}]"})

    def run(on_run: bool) -> str:
        layer = Layer("the test", {"app": {"database": "flaskbook"}, "seeds": {"on_run": on_run}})
        loaded = load(lab.folder, [layer], remember=False)
        seeding.on_run(loaded, lab.deployment, lab.program(), lab.said.append)
        return lab.said.pop() if lab.said else ""

    assert run(False) == "The database flaskbook is empty. `invoke seed` fills it from seeds."
    assert run(True) == "The database flaskbook was empty. Applied seeds: 1 of 1 files."
    assert lab.database.a.count_documents({}) == 2
    assert run(True) == run(False) == "", "it is not empty any more"


def test_the_commands_as_a_person_types_them(clone: Clone) -> None:
    seeds = clone.root / "seeds"
    seeds.mkdir()
    (seeds / "10-animals.ndjson").write_text('{"_id": 1}\n{"_id": 2}\n', encoding="utf-8")
    (seeds / "20-more.py").write_text(
        "import flaskbook\n\ndef seed(database):\n    print('from the seed')\n    database.more.insert_one({})\n",
        encoding="utf-8",
    )

    def change(settings: dict[str, Any]) -> None:
        settings["app"]["migrate"] = ["python", "-c", "import os; print('at', os.environ['MONGODB_URI'])"]

    clone.change_settings(change)
    assert "invoke start" in clone.fails("reset", "--yes")
    running = clone.begin("run")
    running.says("The database flaskbook is empty. `invoke seed` fills it from seeds.")
    running.says("Serving")
    first = json.loads(clone.succeeds("seed", "--json"))
    assert [(each["file"], each["state"]) for each in first["seeds"]] == [
        ("seeds/10-animals.ndjson", "applied"),
        ("seeds/20-more.py", "applied"),
    ]
    assert "unchanged" in clone.succeeds("seed")
    assert "people" in clone.succeeds("seed", "--users", "3"), "people stay what they were"
    assert "standard input is not a terminal" in clone.fails("reset")
    assert clone.get("/readyz")[0] == 200
    done = clone.invoke("reset", "--yes", "--json")
    assert f"at {clone.uri.replace('/?', '/flaskbook?')}" in done.stderr
    assert json.loads(done.stdout)["migrated"] is True
    assert json.loads(clone.succeeds("reset", "--yes", "--json"))["restored"] is True
    assert clone.get("/readyz")[0] == 200, "a running app goes on"
    with MongoClient[dict[str, Any]](clone.uri) as client:
        names = set(client.flaskbook.list_collection_names()) - {"health"}
        assert names == {RECORDS, "animals", "more"}
    clone.succeeds("stop")
