"""Seeds as files: which there are, in which order, what is read from them, and what is said of a line that is wrong."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import json_util
from hypothesis import given
from hypothesis import strategies as st

from provision.core.errors import ProvisionError
from provision.data.program import AppProgram
from provision.data.reset import Migration
from provision.data.seeds.files import digest_of_all, find
from provision.data.seeds.parsing import Spool, documents, metadata


def write(folder: Path, **files: str | bytes) -> Path:
    """Files below seeds/, by their names."""
    seeds = folder / "seeds"
    seeds.mkdir(exist_ok=True)
    for name, content in files.items():
        path = seeds / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return seeds


def read(folder: Path, name: str, content: str | bytes) -> list[dict[str, Any]]:
    """What is read from one file."""
    (seed,) = find(write(folder, **{name: content}), folder)
    return [bson.decode(each.raw) for each in documents(seed)]


def wrong(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(ProvisionError) as raised:
        read(folder, name, content)
    return raised.value.cause


def test_files_are_applied_by_their_number_and_then_by_name(tmp_path: Path) -> None:
    names = [
        "users.json",
        "10-orders.csv",
        "9-orders.ndjson",
        "9_a.py",
        "items.js",
        "2024-01-x.jsonl",
        "z.bson.gz",
    ]
    folder = write(tmp_path, **dict.fromkeys(names, ""), **{"README.md": "", "_helper.py": "", ".keep": ""})
    (folder / "images").mkdir()
    found = find(folder, tmp_path)
    assert [(each.key, each.collection) for each in found] == [
        ("9-orders.ndjson", "orders"),
        ("9_a.py", ""),
        ("10-orders.csv", "orders"),
        ("2024-01-x.jsonl", "01-x"),
        ("items.js", ""),
        ("users.json", "users"),
        ("z.bson.gz", "z"),
    ]
    assert find(tmp_path / "nowhere", tmp_path) == []


@pytest.mark.parametrize("name", ["users.xlsx", "10-.json", "system.users.json", "a$b.csv"])
def test_a_file_that_no_seed_is_read_from_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProvisionError, match="seeds/" + name.replace("$", r"\$")):
        find(write(tmp_path, **{name: ""}), tmp_path)


def test_what_stands_beside_a_collection_of_mongodump_is_no_seed(tmp_path: Path) -> None:
    indexes = [{"v": 2, "key": {"_id": 1}, "name": "_id_"}, {"v": 2, "key": {"a": 1}, "name": "a_1"}]
    about = json.dumps({"options": {"capped": True, "size": {"$numberInt": "4096"}}, "indexes": indexes})
    folder = write(
        tmp_path,
        **{"a%24b.bson": "", "users.bson.gz": gzip.compress(b""), "prelude.json": "{}"},
        **{"users.metadata.json.gz": gzip.compress(about.encode())},
    )
    with pytest.raises(ProvisionError, match=r"'a\$b' is not a collection's name"):
        find(folder, tmp_path)
    (folder / "a%24b.bson").unlink()
    (users,) = find(folder, tmp_path)
    assert metadata(users) == ({"capped": True, "size": 4096}, indexes)
    before = users.digest()
    (folder / "users.metadata.json.gz").write_bytes(gzip.compress(b"{}"))
    assert users.digest() != before


def test_an_index_keeps_an_expression_of_its_filter(tmp_path: Path) -> None:
    index = {"v": 2, "key": {"a": 1}, "name": "a_1", "partialFilterExpression": {"a": {"$regex": "^x"}}}
    about = json.dumps({"indexes": [index]})
    (users,) = find(write(tmp_path, **{"users.bson": "", "users.metadata.json": about}), tmp_path)
    assert metadata(users) == ({}, [index])


def test_a_digest_follows_contents_names_and_nothing_else(tmp_path: Path) -> None:
    first = digest_of_all(find(write(tmp_path, **{"1-a.json": "[]", "b.json": "{}"}), tmp_path))
    (tmp_path / "seeds" / "b.json").touch()
    assert digest_of_all(find(tmp_path / "seeds", tmp_path)) == first
    (tmp_path / "seeds" / "1-a.json").rename(tmp_path / "seeds" / "2-a.json")
    second = digest_of_all(find(tmp_path / "seeds", tmp_path))
    assert second != first
    assert digest_of_all(find(write(tmp_path, **{"b.json": "{ }"}), tmp_path)) not in (first, second)


def test_extended_json_gives_the_types_that_it_names(tmp_path: Path) -> None:
    line = (
        '{"_id": {"$oid": "64b7f3c2a1b2c3d4e5f60718"}, "at": {"$date": "2024-05-01T10:00:00Z"}, '
        '"n": {"$numberLong": "5"}, "d": {"$numberDecimal": "1.10"}, "in": [{"b": {"$numberInt": "3"}}], "$set": 1}'
    )
    document = read(tmp_path, "x.ndjson", f"\ufeff{line}\n\n   \n")[0]
    assert document["at"] == datetime(2024, 5, 1, 10, tzinfo=UTC).replace(tzinfo=None)
    assert document["d"] == bson.Decimal128("1.10")
    assert isinstance(document["n"], bson.Int64)
    assert document["in"] == [{"b": 3}]
    assert document["$set"] == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text() | st.floats(allow_nan=False)
    | st.binary().map(bson.Binary) | st.builds(bson.ObjectId, st.binary(min_size=12, max_size=12))
    | st.integers(-(2**63), 2**63 - 1).map(bson.Int64),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(min_size=1, max_size=5).filter(lambda key: "\0" not in key and key[0] != "$"), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_what_is_written_as_extended_json_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    wanted = [{"_id": number, "v": value} for number, value in enumerate(values)]
    options = json_util.CANONICAL_JSON_OPTIONS
    lines = "\n".join(json_util.dumps(each, json_options=options) for each in wanted)
    array = json_util.dumps(wanted, json_options=options, indent=1)
    folder = tmp_path_factory.mktemp("seeds")
    for name, content in (("a.ndjson", lines), ("a.json", array)):
        (seed,) = find(write(folder, **{name: content}), folder)
        assert [each.raw for each in documents(seed)] == [bson.encode(each) for each in wanted]
        seed.path.unlink()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.ndjson", '{"a": 1}\n\n{"a": }\n', "seeds/x.ndjson:3: Expecting value, at column 7."),
        ("x.ndjson", '{"a": 1} {"a": 2}\n', "seeds/x.ndjson:1: Something follows the document, at column 10."),
        ("x.ndjson", '{}\n[1]\n', "seeds/x.ndjson:2: Here is an array, where a document is expected: {…}."),
        ("x.ndjson", '{}\n{"_id": {"$oid": "zz"}}\n', "seeds/x.ndjson:2: This is not Extended JSON: 'zz' is not a valid"),
        ("x.ndjson", '{"_id": 1}\n{"_id": 2}\n{"_id": 1.0}\n', "seeds/x.ndjson:3: The document in line 1 has the same _id."),
        ("x.ndjson", b'{}\n{"a": "\xe4"}\n', "seeds/x.ndjson:2: This is not UTF-8: byte 0xe4."),
        ("x.ndjson", '{"a": 99999999999999999999}\n', "seeds/x.ndjson:1: "),
        ("x.json", '[\n {"a": 1},\n {"a": {"$date": "soon"}}\n]', "seeds/x.json:3: In the document that begins here: "),
        ("x.json", '[\n {"a": 1}\n {"a": 2}]', "seeds/x.json:3: Expected a comma, or ] at the end of the array."),
        ("x.json", '[{"a": 1},\n', "seeds/x.json:2: Expecting value"),
        ("x.json", '{"a": 1}\n{"a": 2}\n', "seeds/x.json:2: Something follows the end of the data."),
        ("x.json", '[{},\n3]', "seeds/x.json:2: Here is a number"),
        ("x.csv", "a,b.int32()\n1,2\n1\n", "seeds/x.csv:3: It has 1 cells, and the header has 2."),
        ("x.csv", 'a,b.int32()\n"1\n2",2\n1,two\n', "seeds/x.csv:4: b: 'two' is not a value of int32()."),
        ("x.csv", "a,b.int32()\n1,3000000000\n", "seeds/x.csv:2: b: '3000000000' is not a value of int32()."),
        ("x.csv", "a.integer()\n", "seeds/x.csv:1: a.integer(): there is no type integer()."),
        ("x.csv", "a,a\n", "seeds/x.csv:1: The header has a twice."),
        ("x.csv", "a,a.b\n", "seeds/x.csv:1: a is a field and a document with a.b."),
        ("x.csv", 'a\n"1\n', "seeds/x.csv:2: This is not CSV: unexpected end of data."),
        ("x.bson", bson.encode({"a": 1}) + b"\x05\0", "seeds/x.bson, document 2: This is not BSON"),
        ("x.bson", bson.encode({"a": 1})[:-3], "seeds/x.bson, document 1: The file ends in the middle"),
        ("x.bson.gz", gzip.compress(bson.encode({"a": 1}), mtime=0)[:-9], "seeds/x.bson.gz, document "),
        ("x.bson.gz", b"text", "seeds/x.bson.gz, document 1: The compressed file is damaged"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    assert wrong(tmp_path, name, content).startswith(said)


def test_a_document_that_is_too_large_is_named(tmp_path: Path) -> None:
    large = json.dumps({"a": "x" * 17_000_000})
    assert wrong(tmp_path, "x.ndjson", f"{{}}\n{large}\n").startswith(
        "seeds/x.ndjson:2: This document has 17,000,"
    )


def test_a_header_gives_the_types_of_csv(tmp_path: Path) -> None:
    header = "code,n.int32(),l.int64(),d.double(),m.decimal(),yes.boolean(),b.binary(hex),g.auto(),"
    header += "at.date(02/01/2006 15:04),iso.date(),in.city"
    rows = "007,5,6,1.5,1.10,true,00ff,12,24/12/2024 18:30,2024-01-02T03:04:05+01:00,Lyon\n,,,,,,,,,,"
    full, blank = read(tmp_path, "x.csv", f"{header}\n{rows}\n")
    del full["_id"], blank["_id"]
    assert full == {
        "code": "007",
        "n": 5,
        "l": 6,
        "d": 1.5,
        "m": bson.Decimal128("1.10"),
        "yes": True,
        "b": b"\x00\xff",
        "g": 12,
        "at": datetime(2024, 12, 24, 18, 30),
        "iso": datetime(2024, 1, 2, 2, 4, 5),
        "in": {"city": "Lyon"},
    }
    assert isinstance(full["l"], bson.Int64)
    assert blank == {"code": "", "in": {"city": ""}}


def test_bson_is_read_byte_by_byte(tmp_path: Path) -> None:
    raw = bson.encode({"_id": 1, "a": [bson.Timestamp(1, 2), bson.Regex("x", "i"), bson.MinKey()]})
    (seed,) = find(write(tmp_path, **{"x.bson.gz": gzip.compress(raw + raw[:])}), tmp_path)
    assert next(documents(seed)).raw == raw


def test_documents_without_an_id_get_the_same_one_each_time_in_the_order_of_the_file(tmp_path: Path) -> None:
    first = read(tmp_path, "5-x.ndjson", '{"a": 1}\n{"a": 2}\n{"_id": 7}\n{"a": 3}\n')
    second = read(tmp_path, "5-x.ndjson", '{"a": 1}\n{"a": 4}\n')
    ids = [each["_id"] for each in first]
    assert [each["_id"] for each in second] == ids[:2]
    assert ids[2] == 7
    assert ids[0] < ids[1] < ids[3] < bson.ObjectId()
    (tmp_path / "seeds" / "5-x.ndjson").unlink()
    assert read(tmp_path, "6-x.ndjson", "{}")[0]["_id"] != ids[0]
    (tmp_path / "seeds" / "6-x.ndjson").unlink()
    raw = bson.encode({"a": 1})
    dumped = read(tmp_path, "x.bson", raw + raw)
    assert [each["a"] for each in dumped] == [1, 1]
    assert dumped[0]["_id"] != dumped[1]["_id"]


def test_what_waits_for_writing_is_as_it_was_read(tmp_path: Path) -> None:
    lines = "".join(f'{{"_id": {number}}}\n\n' for number in range(2500))
    (seed,) = find(write(tmp_path, **{"x.ndjson": lines}), tmp_path)
    told: list[int] = []
    spool = Spool(seed, tmp_path / "scratch", told.append)
    for _ in range(2):
        batches = list(spool.batches(1000, 1 << 20))
        assert [len(batch) for batch in batches] == [1000, 1000, 500]
        assert [each.line for each in batches[0][:3]] == [1, 3, 5]
        assert bson.decode(batches[2][-1].raw) == {"_id": 2499}
    assert (spool.count, told) == (2500, [1000, 2000])
    spool.close()


def test_migrations_are_found_by_name_or_by_the_settings(tmp_path: Path) -> None:
    for place in ("shop/migrations", "venv/lib/migrations", "other"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1.py").write_text("1", encoding="utf-8")
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    found = Migration.of(["flask", "migrate"], None, tmp_path)
    assert found.files == (tmp_path / "shop" / "migrations" / "1.py",)
    assert found.known
    named = Migration.of(["flask", "migrate"], ["other"], tmp_path)
    assert named.files == (tmp_path / "other" / "1.py",)
    before = named.digest
    (tmp_path / "other" / "1.py").write_text("2", encoding="utf-8")
    assert named.digest != before
    assert Migration.of(["make"], ["other"], tmp_path).digest != named.digest
    assert not Migration.of(["make"], None, tmp_path / "other").known
    assert Migration.of(None, None, tmp_path).known
    with pytest.raises(ProvisionError, match=r"app\.migrations names"):
        Migration.of(["make"], ["gone"], tmp_path)


@pytest.mark.parametrize(
    ("address", "elsewhere"),
    [
        ("mongodb://localhost:27017/shop", None),
        ("mongodb://127.0.0.1/shop", None),
        ("mongodb://app:p%40ss@127.0.0.1:27017,[::1]:27018/?replicaSet=rs0", None),
        ('{"host": "mongodb://127.0.0.1:27019/shop"}', "127.0.0.1:27019"),
        ("mongodb+srv://me:secret@cluster0.example.net/shop", "cluster0.example.net:27017"),
        ("", None),
    ],
)
def test_an_address_of_another_server_is_noticed(address: str, elsewhere: str | None) -> None:
    program = AppProgram(
        Path("/env/bin/python"), Path(), {"MONGODB_URI": address, "ANALYTICS_URI": "mongodb://other.example"}
    )
    found = dict(program.elsewhere("mongodb://127.0.0.1:27017,127.0.0.1:27018/?replicaSet=rs0"))
    assert found.get("MONGODB_URI") == elsewhere
    assert "ANALYTICS_URI" not in found
