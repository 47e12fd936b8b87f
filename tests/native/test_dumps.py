"""`dump` and `load` on a real server: what comes back is what was there, byte for byte."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, TEXT, MongoClient
from pymongo.database import Database

from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.data.dumps import reading, transfer, writing
from provision.data.dumps.framing import DumpDamaged
from provision.data.dumps.reading import LoadedCollection
from provision.deployments import cluster
from tests.support import capabilities
from tests.support.clones import Clone
from tests.support.deployments import deployed
from tests.support.processes import free_ports

EVERY_TYPE: dict[str, Any] = {
    "double": 1.5,
    "nan": float("nan"),
    "string": "Ångström 漢字 \0 😀",
    "object": {"a.b": 1, "$c": {"": None}},
    "array": [1, [2, {"x": []}]],
    "binary": Binary(b"\0\xff", 0),
    "uuid": Binary(bytes(range(16)), 4),
    "old_uuid": Binary(bytes(range(16)), 3),
    "encrypted": Binary(b"x", 6),
    "user_defined": Binary(b"x", 128),
    "id": ObjectId("0123456789abcdef01234567"),
    "bool": True,
    "date": datetime(2024, 2, 29, 12, tzinfo=UTC),
    "null": None,
    "regex": Regex("^a.*", "imx"),
    "code": Code("function() { return 1 }"),
    "scoped_code": Code("x", {"x": 1}),
    "int": 1,
    "timestamp": Timestamp(4, 2),
    "long": Int64(1),
    "decimal": Decimal128("-1.10E+3"),
    "min": MinKey(),
    "max": MaxKey(),
    "reference": DBRef("user", 1),
}
NAMES = (
    "a.b.c",
    "with space",
    "Ünïcödé 漢字",
    "a/b",
    "50%",
    "x" * 180,
    "x" * 178 + "/y",
    "system.js",
    "tab\t",
    "A",
    "q?*[",
)
STRANGE_FIELDS = ({"$price": 1, "a.b": {"$gt": 1}}, {"": ""}, {"_id": {"a": 1, "b.c": 2}}, {"_id": None})


@dataclass(frozen=True)
class Content:
    """All of a database that a dump has to bring along."""

    documents: dict[str, list[bytes]]  # collection → its documents, in no order, but those of a capped one
    options: dict[str, tuple[str, bytes]]  # collection → its kind and options
    indexes: dict[str, list[bytes]]


def content(database: Database[Any]) -> Content:
    documents, options, indexes = {}, {}, {}
    for listed in database.list_collections():
        name, kind = listed["name"], listed["type"]
        if name in ("system.views", "system.profile"):
            continue
        options[name] = kind, bson.encode(listed["options"])
        if kind == "view":
            continue
        indexes[name] = sorted(bson.encode(each) for each in database[name].list_indexes())
        if kind == "collection":
            found = [bytes(each.raw) for each in raw(database, name)]
            documents[name] = found if listed["options"].get("capped") else sorted(found)
    return Content(documents, options, indexes)


def raw(database: Database[Any], name: str) -> list[RawBSONDocument]:
    options: Any = database.codec_options.with_options(document_class=RawBSONDocument)
    return list(database.get_collection(name, codec_options=options).find())


def document_of(size: int, number: int) -> dict[str, Any]:
    """A document of so many bytes."""
    return {"_id": number, "x": b"\xab" * (size - len(bson.encode({"_id": number, "x": b""})))}


def fill(database: Database[Any]) -> None:
    database.types.insert_one({"_id": 1, **EVERY_TYPE})
    database.types.insert_many([{key: value} for key, value in EVERY_TYPE.items()])
    # Dates that Python does not have.
    database.types.insert_one({"_id": 2, "date": DatetimeMS(2**62), "early": DatetimeMS(-(2**62))})
    database.large.insert_many([document_of(16 * 1024 * 1024, n) for n in range(3)])
    for number, name in enumerate(NAMES):
        database[name].insert_many([{"_id": f"{number}"}, {"_id": f"{number}-2"}])
    for number in range(200):
        database[f"many{number:03}"].insert_one({"_id": number})
    database.strange.insert_many(list(STRANGE_FIELDS))
    database.create_collection("empty")
    database.create_collection("capped", capped=True, size=1_000_000, max=50)
    database.capped.insert_many([{"n": n} for n in range(70, 0, -1)])
    database.create_collection("german", collation={"locale": "de", "strength": 1})
    database.german.insert_many([{"name": name} for name in ("Äpfel", "Zebra", "ähnlich")])
    database.german.create_index("name", unique=False)
    database.german.create_index([("name", ASCENDING)], name="bytes", collation={"locale": "simple"})
    # The document is older than the validator, which would refuse it.
    database.validated.insert_one({"age": "unknown"})
    database.command(
        {
            "collMod": "validated",
            "validator": {"age": {"$type": "int"}, "name": {"$regex": "^[A-Z]", "$options": "i"}},
            "validationLevel": "moderate",
        }
    )
    database.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
    database.clustered.insert_many([{"_id": n} for n in range(5)])
    indexed = database.indexed
    indexed.insert_many(
        [{"a": n, "t": f"text {n}", "place": [n, n], "at": datetime(2030, 1, 1)} for n in range(9)]
    )
    both = {"key": {"a": 1, "b.c": -1.0}, "name": "both", "unique": True}
    database.command({"createIndexes": "indexed", "indexes": [both]})
    indexed.create_index([("t", TEXT)], default_language="german", weights={"t": 3})
    indexed.create_index([("place", "2dsphere")], sparse=True)
    indexed.create_index("at", expireAfterSeconds=10**9)
    indexed.create_index([("a", "hashed")])
    indexed.create_index([("_id", "hashed")])
    indexed.create_index([("$**", 1)], wildcardProjection={"a": 1})
    indexed.create_index("z", hidden=True, partialFilterExpression={"z": {"$gt": Int64(5), "$exists": True}})
    database.create_collection(
        "weather", timeseries={"timeField": "at", "metaField": "m", "granularity": "minutes"}
    )
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    database.weather.insert_many(
        [{"at": begin + timedelta(minutes=7 * n), "m": {"place": n % 3}, "t": n / 2} for n in range(500)]
    )
    database.weather.create_index([("m.place", 1), ("at", 1)])
    database.command(
        {"create": "grown", "viewOn": "above", "pipeline": [{"$match": {"name": {"$regex": "^A"}}}]}
    )
    database.command(
        {"create": "above", "viewOn": "validated", "pipeline": [{"$match": {"age": {"$gt": Int64(3)}}}]}
    )
    database.command(
        {"create": "sorted", "viewOn": "german", "pipeline": [], "collation": {"locale": "de", "strength": 1}}
    )


@pytest.fixture(scope="module")
def client(mongodb: Any) -> MongoClient[Any]:
    connected: MongoClient[Any] = mongodb.client
    return connected


@pytest.fixture(scope="module")
def source(client: MongoClient[Any]) -> Iterator[Database[Any]]:
    """A database with something of everything."""
    name = f"dumps-{os.getpid()}"
    fill(client[name])
    yield client[name]
    client.drop_database(name)


@pytest.fixture
def target(client: MongoClient[Any], source: Database[Any]) -> Iterator[Database[Any]]:
    name = f"{source.name}-loaded"
    yield client[name]
    client.drop_database(name)


def dump(database: Database[Any], folder: Path, *only: str, compressed: bool = False) -> None:
    writing.dump(database.client, folder, database.name, only, compressed, Silent())


def load(folder: Path, into: Database[Any], *only: str, drop: bool = False) -> list[LoadedCollection]:
    found = reading.contents(folder)
    wanted = reading.chosen(found, "", only, into.name, "loading")
    return reading.load(into.client, wanted, drop, Silent(), "loading")


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_what_is_loaded_is_what_was_dumped_byte_for_byte(
    source: Database[Any], target: Database[Any], tmp_path: Path, compressed: bool
):
    dump(source, tmp_path / "dump", compressed=compressed)
    done = load(tmp_path / "dump", target)
    before, after = content(source), content(target)
    assert after.options == before.options
    assert after.indexes == before.indexes
    assert after.documents == before.documents
    assert list(target.weather.find(sort=[("at", 1)])) == list(source.weather.find(sort=[("at", 1)]))
    assert sum(each.duplicates for each in done) == 0
    assert {each.namespace.partition(".")[2] for each in done} == set(before.options) - {
        "system.buckets.weather"
    }
    files = list((tmp_path / "dump" / source.name).iterdir())
    assert all(path.name.endswith((".bson.gz", ".metadata.json.gz")) == compressed for path in files)
    assert {path.name for path in tmp_path.iterdir()} == {"dump"}, "something was left"


def test_a_second_load_inserts_nothing_and_counts_what_was_there(
    source: Database[Any], target: Database[Any], tmp_path: Path
):
    dump(source, tmp_path / "dump", "german", "indexed")
    load(tmp_path / "dump", target)
    target.german.delete_many({"name": "Zebra"})
    target.german.update_many({}, {"$set": {"changed": True}})
    german, indexed = load(tmp_path / "dump" / source.name, target)
    assert (german.documents, german.duplicates, german.kept) == (1, 2, True)
    assert (indexed.documents, indexed.duplicates) == (0, 9)
    assert target.german.count_documents({"changed": True}) == 2
    dropped, _ = load(tmp_path / "dump", target, drop=True)
    assert (dropped.documents, dropped.duplicates, dropped.dropped) == (3, 0, True)
    assert target.german.count_documents({"changed": True}) == 0


def test_a_view_is_not_loaded_into_a_collection(source: Database[Any], target: Database[Any], tmp_path: Path):
    dump(source, tmp_path / "dump", "above", "german")
    target.above.insert_one({})
    with pytest.raises(ProvisionError, match="is a view in the dump, and a collection on the server"):
        load(tmp_path / "dump", target)
    assert target.list_collection_names() == ["above"]
    load(tmp_path / "dump", target, drop=True)
    assert (
        target.command({"listCollections": 1, "filter": {"name": "above"}})["cursor"]["firstBatch"][0]["type"]
        == "view"
    )


def test_damage_is_one_error_that_names_file_and_place_and_tells_what_was_loaded(
    source: Database[Any], target: Database[Any], tmp_path: Path
):
    dump(source, tmp_path / "dump", "german", "indexed")
    file = tmp_path / "dump" / source.name / "indexed.bson"
    whole = file.read_bytes()
    first = int.from_bytes(whole[:4], "little")
    inside = bytearray(whole)
    inside[first + 4] = 0x77  # no type of BSON
    for content, offset in ((whole[:-3], None), (bytes(inside), first), (whole[:first] + b"\xff" * 9, first)):
        file.write_bytes(content)
        with pytest.raises(DumpDamaged) as raised:
            load(tmp_path / "dump", target, drop=True)
        assert str(file) in raised.value.text()
        assert offset in (None, raised.value.offset)
        told = {
            name: int(number) for name, number in re.findall(r"\.(\w+) \((\d) documents", raised.value.cause)
        }
        counted = {name: target[name].count_documents({}) for name in ("german", "indexed")}
        assert told == {name: number for name, number in counted.items() if number}, raised.value.cause
    file.chmod(0)
    file.unlink()
    file.mkdir()  # can't be read, also by root
    (tmp_path / "dump" / source.name / "german.bson").unlink()
    (done, _) = load(tmp_path / "dump", target, drop=True)
    assert done.documents == 0


def test_a_dump_that_fails_leaves_nothing(
    source: Database[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ProvisionError, match="is there, and is not an empty folder"):
        dump(source, tmp_path / "taken")
    with pytest.raises(ProvisionError, match="did you mean"):
        writing.dump(source.client, tmp_path / "new", source.name + "x", (), False, Silent())
    with pytest.raises(ProvisionError, match="no collection nothing"):
        dump(source, tmp_path / "new", "nothing")
    (tmp_path / ".new.partial-999999999").mkdir()  # of a dump that was killed

    def fail(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "count", fail)
    with pytest.raises(ProvisionError, match="Nothing is left of the dump"):
        dump(source, tmp_path / "new")

    def interrupt(_: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "count", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dump(source, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}


@pytest.mark.needs("mount")
def test_a_full_disk_is_one_error_and_leaves_nothing(source: Database[Any], tmp_path: Path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(ProvisionError, match="No space left on device") as raised:
            dump(source, tmp_path / "dump")
        assert "Free some space" in raised.value.remedy
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# Written byte for byte as mongodump 100.x writes them: an index on a collation, a view, a time series.
FIXTURE = {
    "foo.metadata.json": (
        '{"options":{"collation":{"locale":"en_US","strength":{"$numberInt":"2"}}},"indexes":[{"v":{"$numberInt":"2"},'
        '"key":{"_id":{"$numberInt":"1"}},"name":"_id_","collation":{"locale":"en_US","strength":{"$numberInt":"2"}}},'
        '{"v":{"$numberInt":"2"},"key":{"_fts":"text","_ftsx":{"$numberInt":"1"}},"name":"example_text",'
        '"weights":{"name":{"$numberInt":"1"}},"default_language":"english","language_override":"language",'
        '"textIndexVersion":{"$numberInt":"3"},"collation":{"locale":"simple"}},{"v":{"$numberInt":"2"},'
        '"key":{"a":{"$numberDouble":"-1.0"}},"name":"a_-1","ns":"test.foo","expireAfterSeconds":{"$numberLong":"60"}}],'
        '"uuid":"5fa8904aa1b543b0bcc9f789192cc92c","collectionName":"foo","type":"collection"}'
    ),
    "caf%C3%A9s.metadata.json": '{"indexes":[],"collectionName":"cafés","type":"collection"}',
    "fooView.metadata.json": (
        '{"options":{"viewOn":"foo","pipeline":[{"$match":{"n":{"$numberInt":"1"}}}],'
        '"collation":{"locale":"en_US","strength":{"$numberInt":"2"}}},"indexes":[],"collectionName":"fooView","type":"view"}'
    ),
}


def test_files_as_mongodump_writes_them_are_loaded(target: Database[Any], tmp_path: Path):
    for name, text in FIXTURE.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "foo.bson").write_bytes(bytes.fromhex("15000000105f69640001000000106e000100000000"))
    (tmp_path / "caf%C3%A9s.bson").write_bytes(b"")
    (tmp_path / "prelude.json").write_text('{"ServerVersion":"6.0.5","ToolVersion":"100.12.0"}')
    load(tmp_path, target)
    assert list(target.foo.find()) == [{"_id": 1, "n": 1}]
    assert list(target.fooView.find()) == [{"_id": 1, "n": 1}]
    assert set(target.list_collection_names()) == {"foo", "cafés", "fooView", "system.views"}
    assert set(target.foo.index_information()) == {"_id_", "example_text", "a_-1"}


def test_dumps_are_exchanged_with_mongodump_and_mongorestore(
    mongodb: Any, source: Database[Any], target: Database[Any], tmp_path: Path
):
    """With the real tools where they are installed; else the files of the test before this one stand in for them."""
    dump(source, tmp_path / "ours")
    if not capabilities.probe("database-tools").present:
        ours = (tmp_path / "ours" / source.name / "german.metadata.json").read_text(encoding="utf-8")
        assert list(json.loads(ours)) == ["options", "indexes", "uuid", "collectionName", "type"]
        return
    before, uri = content(source), f"--uri={mongodb.uri}"
    theirs = tmp_path / "theirs"
    subprocess.run(["mongodump", uri, f"--db={source.name}", f"--out={theirs}"], check=True)
    for name in ("german", "weather", "sorted"):
        file = f"{name}.metadata.json"
        written = [
            json.loads((place / source.name / file).read_text("utf-8"))
            for place in (theirs, tmp_path / "ours")
        ]
        assert written[0] == written[1]
    load(theirs, target)
    assert content(target) == before
    source.client.drop_database(target.name)
    renamed = [f"--nsFrom={source.name}.*", f"--nsTo={target.name}.*", "--bypassDocumentValidation"]
    subprocess.run(["mongorestore", uri, *renamed, str(tmp_path / "ours")], check=True)
    assert content(target) == before


MONGORESTORE = """#!/bin/sh
for each in "$@"; do
    printf '%s\\n' "$each"
    case $each in --config=*) stat -c %a "${each#--config=}"; cat "${each#--config=}";; esac
done > "$RECORD"
echo "2026-01-01T00:00:00 7 document(s) restored successfully. 0 document(s) failed to restore." >&2
"""


def test_the_commands_dump_and_load_a_deployment_that_has_users(clone: Clone, tmp_path: Path):
    clone.change_settings(lambda settings: settings["deployments"]["local"].update(auth=True))
    clone.succeeds("start")
    clone.succeeds("seed", "--users", "300")
    dumped = json.loads(clone.succeeds("dump", "out", "--gzip", "--json"))
    assert [(each["namespace"], each["documents"]) for each in dumped["collections"]] == [
        ("flaskbook.user", 300)
    ]
    assert "is not an empty folder" in clone.fails("dump", "out")
    loaded = json.loads(clone.succeeds("load", "out", "--into", "copy", "--json"))
    assert (loaded["documents"], loaded["duplicates"]) == (300, 0)
    second = clone.invoke("load", "out")
    assert second.returncode == 1
    assert "300 documents were there already" in second.stderr
    assert "Nothing was deleted" in clone.fails("load", "out", "--drop")
    assert json.loads(clone.succeeds("load", "out", "--drop", "--yes", "--json"))["documents"] == 300

    (clone.root / "archive").write_bytes(gzip.compress(bytes.fromhex("8199e26d")))
    said = clone.fails("load", "archive", env={"PATH": "/usr/bin:/bin"})
    assert "mongodump --out dump" in said
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mongorestore").write_text(MONGORESTORE)
    (tmp_path / "bin" / "mongorestore").chmod(0o755)
    record = tmp_path / "record"
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "RECORD": str(record)}
    restored = json.loads(
        clone.succeeds("load", "archive", "--only", "a*b", "--database", "shop", "--json", env=environment)
    )
    assert (restored["by"], restored["documents"]) == ("mongorestore", 7)
    config, mode, content, *others = record.read_text().splitlines()
    password = clone.succeeds("uri", "--user", "root").partition("@")[0].rpartition(":")[2]
    assert mode == "600"
    assert content.startswith("uri: ") and password in content
    assert password not in " ".join([config, *others])
    assert {"--gzip", "--nsInclude=shop.a\\*b", "--nsExclude=admin.*"} <= set(others)
    assert not Path(config.removeprefix("--config=")).exists()


def test_a_sharded_collection_that_is_dropped_and_loaded_is_sharded_again(
    tmp_path: Path, mongod_binary: Path, mongod_version: str
):
    sharded = {"shop": {"orders": {"key": {"_id": "hashed"}}}}
    with deployed(
        tmp_path,
        mongod_binary,
        mongod_version,
        topology="sharded",
        shards=2,
        members=1,
        config_servers=1,
        port=free_ports(200),
        sharding=sharded,
    ) as deployment:
        with MongoClient[dict[str, Any]](deployment.uri(user="root")) as client:
            client.shop.orders.insert_many([{"_id": n} for n in range(200)])
            client.shop.orders.create_index("n")
        dump = transfer.dump(deployment, tmp_path / "dump", "", (), False, Silent())
        assert [(each.namespace, each.documents) for each in dump.collections] == [("shop.orders", 200)]
        planned = transfer.plan(tmp_path / "dump", "", (), "")
        done = transfer.load(
            deployment, tmp_path / "dump", planned, "", (), "", True, Silent(), lambda _: None
        )
        assert (done.documents, done.duplicates) == (200, 0)
        shares = cluster.distribution(deployment, "shop.orders")["shop.orders"]
        assert len(shares) == 2
        assert sum(each.documents for each in shares) == 200
        assert all(each.documents for each in shares)
