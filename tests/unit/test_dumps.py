"""Files of dumps: their names, their metadata, and the documents in them."""

from __future__ import annotations

import gzip
import io
from datetime import UTC, datetime
from pathlib import Path

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.core.errors import ProvisionError
from provision.data.dumps import folder, framing, mongorestore, reading
from provision.data.dumps.folder import Metadata
from provision.data.dumps.framing import DumpDamaged

NAMES = st.text("".join(map(chr, range(1, 128))) + "éß漢😀", min_size=1, max_size=250)
VALUES = st.one_of(st.integers(-5, 5), st.text("aé\0", max_size=8), st.none())
DOCUMENTS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=8)


@given(NAMES)
def test_a_file_name_leads_back_to_its_collection(name: str) -> None:
    stem = folder.stem(name)
    assert len((stem + ".metadata.json.gz").encode()) <= 255
    assert "/" not in stem
    if not folder.is_cut(stem):
        assert folder.collection_name(stem) == name
    for ending, kind in ((".bson", "data"), (".metadata.json", "metadata")):
        assert folder.split(stem + ending) == (stem, kind, False)
        assert folder.split(stem + ending + ".gz") == (stem, kind, True)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        # From mongorestore's own test data.
        ("cafés", "caf%C3%A9s"),
        # As Go's url.PathEscape does.
        ("a/b", "a%2Fb"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("a;b,c?d#e", "a%3Bb%2Cc%3Fd%23e"),
        ("a.b-c_d~e$f&g+h:i=j@k", "a.b-c_d~e$f&g+h:i=j@k"),
        ("a'b(c)*!", "a%27b%28c%29%2A%21"),
    ],
)
def test_names_are_escaped_as_mongodump_does(name: str, stem: str) -> None:
    assert folder.stem(name) == stem


def test_a_name_that_is_too_long_is_cut_as_mongodump_does() -> None:
    name = (
        "aVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVery"
        "VeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryVeryLongCollectionName"
        "ConsistingOfExactlyTwoHundredAndFiftyNineCharacters"
    )
    assert folder.stem(name).endswith("LongCollectionNameC%24Ax2lHbMK_bh19s4f_JCieskppac")
    assert folder.is_cut(folder.stem(name))


def test_metadata_are_written_as_mongodump_writes_them() -> None:
    metadata = Metadata(
        "foo_ts",
        "timeseries",
        {"timeseries": {"bucketMaxSpanSeconds": 3600, "timeField": "ts", "metaField": "meta"}},
        [{"v": 2, "key": {"ts": 1, "meta.device": 1}, "name": "ts_1_meta.device_1"}],
    )
    # From mongorestore's own test data.
    assert folder.as_text(metadata) == (
        '{"options":{"timeseries":{"bucketMaxSpanSeconds":{"$numberInt":"3600"},"timeField":"ts","metaField":"meta"}},'
        '"indexes":[{"v":{"$numberInt":"2"},"key":{"ts":{"$numberInt":"1"},"meta.device":{"$numberInt":"1"}},'
        '"name":"ts_1_meta.device_1"}],"collectionName":"foo_ts","type":"timeseries"}'
    )


def test_metadata_come_back_as_they_were() -> None:
    options = {
        "validator": {
            "name": {"$regex": "^a", "$options": "i"},
            "code": Regex("^b", "i"),
            "age": {"$gte": Int64(2**40), "$lt": 1.0, "$type": "int"},
            "day": {"$lt": datetime(2024, 1, 1, tzinfo=UTC)},
            "more": [
                ObjectId(),
                Decimal128("1.10"),
                MinKey(),
                MaxKey(),
                Timestamp(1, 2),
                Binary(b"x", 5),
                None,
            ],
            "f": Code("function() {}"),
        },
        "collation": {"locale": "de"},
    }
    indexes = [
        {"v": 2, "key": {"b": 1, "a": -1.0}, "name": "é", "partialFilterExpression": {"a": {"$exists": True}}}
    ]
    metadata = Metadata("é", "collection", options, indexes, "5fa8904aa1b543b0bcc9f789192cc92c")
    read = folder.from_text(folder.as_text(metadata), "")
    assert bson.encode({"o": read.options, "i": read.indexes}) == bson.encode({"o": options, "i": indexes})
    assert (read.name, read.kind, read.uuid) == (metadata.name, metadata.kind, metadata.uuid)
    assert [list(index["key"]) for index in read.indexes] == [["b", "a"]]


def test_metadata_of_an_old_mongodump_are_understood() -> None:
    old = '{"options":{},"indexes":[{"v":1,"key":{"_id":1},"name":"_id_","ns":"db.foo"}]}'
    read = folder.from_text(old, "foo")
    assert (read.name, read.kind, read.indexes[0]["key"]) == ("foo", "collection", {"_id": 1})
    assert folder.from_text("", "empty") == Metadata("empty")


def framed(content: bytes, chunk: int) -> list[bytes]:
    class Slowly(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            return super().read(chunk)

    found = list(framing.batches(Slowly(content), Path("x.bson")))
    at = 0
    for batch in found:
        assert content[batch.offset : batch.offset + batch.size] == b"".join(batch.documents)
        at = batch.offset + batch.size
    assert at == len(content)
    return [document for batch in found for document in batch.documents]


@given(DOCUMENTS, st.integers(1, 100))
def test_documents_come_out_of_a_file_as_they_went_in(documents: list[dict[str, object]], chunk: int) -> None:
    encoded = [bson.encode(each) for each in documents]
    assert framed(b"".join(encoded), chunk) == encoded
    assert framing.count(b"".join(encoded)) == len(encoded)


@settings(max_examples=200)
@given(DOCUMENTS.filter(bool), st.data())
def test_a_file_that_is_cut_off_is_an_error_that_names_the_document(
    documents: list[dict[str, object]], data: st.DataObject
) -> None:
    encoded = [bson.encode(each) for each in documents]
    whole = b"".join(encoded)
    cut = data.draw(st.integers(1, len(whole) - 1))
    starts = [sum(map(len, encoded[:n])) for n in range(len(encoded) + 1)]
    if cut in starts:
        assert framed(whole[:cut], 7) == encoded[: starts.index(cut)]
        return
    with pytest.raises(DumpDamaged, match="ends within a document") as raised:
        framed(whole[:cut], 7)
    assert raised.value.offset == max(start for start in starts if start < cut)
    assert "x.bson" in raised.value.text()


@pytest.mark.parametrize("length", [-1, 0, 4, framing.LARGEST + 1])
def test_an_impossible_length_is_an_error_that_names_its_place(length: int) -> None:
    good = bson.encode({"a": 1})
    with pytest.raises(DumpDamaged, match="can't be") as raised:
        framed(good + length.to_bytes(4, "little", signed=True) + good, 4096)
    assert raised.value.offset == len(good)


def test_a_compressed_file_that_is_damaged_or_cut_off_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(bson.encode({"a": "b" * 1000}) * 100)
    for name, content in (
        ("cut.bson.gz", packed[:-20]),
        ("changed.bson.gz", packed[:60] + b"\xff" * 20 + packed[80:]),
        ("plain.bson.gz", bson.encode({"a": 1})),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DumpDamaged, match=name), framing.opened(tmp_path / name) as (file, _):
            list(framing.batches(file, tmp_path / name))


def dump_of(root: Path, *files: str) -> Path:
    for each in files:
        (root / each).parent.mkdir(parents=True, exist_ok=True)
        (root / each).write_bytes(b"")
    return root


def test_what_belongs_to_the_server_is_left_out_and_named(tmp_path: Path) -> None:
    dump_of(tmp_path, "admin/system.users.bson", "shop/orders.bson", "shop/system.profile.bson")
    dump_of(tmp_path, "shop/$admin.system.users.bson", "shop/system.js.bson", "oplog.bson", "prelude.json")
    found = reading.contents(tmp_path)
    assert sorted(each.namespace for each in found.collections) == ["shop.orders", "shop.system.js"]
    assert len(found.left_out) == 4
    assert [each.namespace for each in reading.contents(tmp_path / "shop").collections] == [
        each.namespace for each in found.collections
    ]


def test_what_the_dump_has_not_is_an_error_that_names_what_it_has(tmp_path: Path) -> None:
    found = reading.contents(dump_of(tmp_path, "shop/orders.bson", "shop/users.bson", "other/x.bson"))
    for database, only, into, expected in (
        ("shopp", (), "", "did you mean shop"),
        ("", ("order",), "", "did you mean orders"),
        ("", (), "one", "can't all go into one"),
        ("shop", (), "admin", "belongs to the server"),
    ):
        with pytest.raises(ProvisionError, match=expected):
            reading.chosen(found, database, only, into, "loading")
    (chosen,) = reading.chosen(found, "shop", ["users"], "test", "loading")
    assert chosen.namespace == "test.users"


def test_a_folder_without_a_dump_is_an_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ProvisionError, match="Name the folder that was dumped into"):
            reading.contents(place)


def test_an_archive_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    archive = bytes.fromhex("8199e26d") + b"rest"
    for name, content, expected in (
        ("plain", archive, "plain"),
        ("packed", gzip.compress(archive), "gzip"),
        ("other", b"\0" * 20, None),
        ("other.gz", gzip.compress(b"text"), None),
        ("cut.gz", gzip.compress(archive)[:9], None),
        ("empty", b"", None),
    ):
        (tmp_path / name).write_bytes(content)
        assert mongorestore.recognise(tmp_path / name) == expected, name
