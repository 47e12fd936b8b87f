"""`dump` and `load` beside a bare loop of PyMongo with raw BSON."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject
from tools.bench.subjects import start

_DOCUMENTS = 200_000
# As many bytes as a document of an app has: some 1.7 KB.
_FILL = """
import os, sys
from pymongo import MongoClient
with MongoClient(sys.argv[1]) as client:
    for part in range(2):
        found = client.flaskbook[f"filled{part}"]
        for begin in range(0, int(sys.argv[2]) // 2, 1000):
            found.insert_many([
                {"n": n, "name": f"name {n}", "tags": ["a", "b"], "at": {"x": n / 7}, "text": os.urandom(800).hex()}
                for n in range(begin, begin + 1000)
            ])
        found.create_index("n")
"""
_BARE = """
import sys, time
from pathlib import Path
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
folder = Path(sys.argv[2])
begun = time.monotonic()
with MongoClient(sys.argv[1]) as client:
    options = CodecOptions(document_class=RawBSONDocument)
    source = client.get_database("flaskbook", codec_options=options)
    names = source.list_collection_names()
    for name in names:
        with (folder / name).open("wb") as file:
            for document in source[name].find():
                file.write(document.raw)
    for name in names:
        batch = []
        with (folder / name).open("rb") as file:
            while head := file.read(4):
                batch.append(RawBSONDocument(head + file.read(int.from_bytes(head, "little") - 4)))
                if len(batch) == 1000:
                    client.copy[name].insert_many(batch)
                    batch = []
        if batch:
            client.copy[name].insert_many(batch)
        client.copy[name].create_index("n")
print(time.monotonic() - begun)
"""


@contextlib.contextmanager
def _filled(lab: Lab) -> Iterator[tuple[Path, str]]:
    project = lab.project()
    root = project.paths.root
    start.empty_data(project)
    lab.run(["./invoke", "start"], root)
    try:
        uri = lab.run(["./invoke", "uri"], root).output.strip()
        lab.run([str(project.python), "-c", _FILL, uri, str(_DOCUMENTS)], root)
        yield root, uri
    finally:
        lab.run(["./invoke", "stop"], root)


def _ours(lab: Lab) -> float:
    with _filled(lab) as (root, _):
        target = str(lab.emptied("dumped"))
        dumping = lab.run(["./invoke", "dump", target], root)
        loading = lab.run(["./invoke", "load", target, "--into", "copy"], root)
        return dumping.seconds + loading.seconds


def _theirs(lab: Lab) -> float:
    with _filled(lab) as (root, uri):
        target = str(lab.emptied("dumped"))
        return float(lab.run([str(lab.project().python), "-c", _BARE, uri, target], root).output)


SUBJECT = Subject(
    "dump-and-load",
    f"{_DOCUMENTS:,} documents (340 MB, two collections with an index) by ./invoke dump, then ./invoke load",
    Bound(1.25, "x"),  # 0.8 times the throughput
    _ours,
    _theirs,
    "a bare loop of PyMongo over raw BSON, its own time without the start of Python",
    start.EMPTIED.skip_reason,
)
