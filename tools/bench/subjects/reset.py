"""The second `reset` beside the first: what is put back beside what is dropped, migrated and seeded."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tools.bench.lab import Lab, Project
from tools.bench.measure import Bound, Subject
from tools.bench.subjects import start

_PEOPLE, _ORDERS, _PRODUCTS = 20_000, 50_000, 2_000
_WORDS = (
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
)
_MIGRATION = """
import os
from pymongo import MongoClient
database = MongoClient(os.environ["MONGODB_URI"]).get_default_database()
database.people.create_index("email", unique=True)
database.orders.create_index([("person", 1), ("at", -1)])
database.orders.create_index("status")
database.products.create_index("sku", unique=True)
"""
# What a person does to the data of a development environment in a morning: something in each collection.
_CHANGES = """
import sys
from pymongo import MongoClient
with MongoClient(sys.argv[1]) as client:
    database = client.flaskbook
    ids = [each["_id"] for each in database.people.find({}, {"_id": 1}).limit(200)]
    database.people.update_many({"_id": {"$in": ids}}, {"$set": {"active": None}})
    database.orders.insert_many([{"person": each, "status": "new"} for each in ids])
    database.products.delete_many({"sku": {"$lt": "p11"}})
    database.visits.insert_one({"page": "/"})
"""
_SEEDS = "bench-seeds"
_ENVIRONMENT = {
    "INVOKE_SEEDS_DIR": _SEEDS,
    "INVOKE_APP_MIGRATE": json.dumps(["python", f"{_SEEDS}/_migrate.py"]),
    "INVOKE_APP_MIGRATIONS": json.dumps([f"{_SEEDS}/_migrate.py"]),
}


def _write(folder: Path) -> None:
    """Seeds of some 28 MB, the same each time."""
    chance = random.Random(1)
    folder.mkdir()
    (folder / "_migrate.py").write_text(_MIGRATION, encoding="utf-8")

    def oid(kind: int, number: int) -> dict[str, str]:
        return {"$oid": f"{kind:08x}{number:016x}"}

    def words(count: int) -> str:
        return " ".join(chance.choices(_WORDS, k=count))

    at = {"$date": "2026-05-01T10:00:00Z"}
    with (folder / "10-people.ndjson").open("w", encoding="utf-8") as file:
        for number in range(_PEOPLE):
            person = {
                "_id": oid(1, number),
                "email": f"{number}@example.org",
                "created": at,
                "bio": words(20),
            }
            file.write(
                json.dumps({**person, "name": {"first": words(1), "last": words(1)}, "active": True}) + "\n"
            )
    with (folder / "20-orders.ndjson").open("w", encoding="utf-8") as file:
        for number in range(_ORDERS):
            lines = [
                {"sku": f"p{chance.randrange(_PRODUCTS)}", "n": 1, "price": chance.random()} for _ in range(4)
            ]
            order = {
                "_id": oid(2, number),
                "person": oid(1, chance.randrange(_PEOPLE)),
                "at": at,
                "lines": lines,
            }
            total = {"$numberDecimal": f"{chance.randrange(10_000)}.50"}
            file.write(json.dumps({**order, "total": total, "status": words(1)}) + "\n")
    with (folder / "30-products.csv").open("w", encoding="utf-8") as file:
        file.write("sku,title,price.double(),stock.int32()\n")
        file.writelines(
            f"p{number},{words(4)},{chance.random()},{chance.randrange(90)}\n" for number in range(_PRODUCTS)
        )


@contextlib.contextmanager
def _seeded(lab: Lab) -> Iterator[Project]:
    """The lab's copy with seeds, and its deployment up."""
    project = lab.project()
    if not (folder := project.paths.root / _SEEDS).exists():
        _write(folder)
    lab.run(["./invoke", "start"], project.paths.root)
    try:
        yield project
    finally:
        lab.run(["./invoke", "stop"], project.paths.root)


def _first(lab: Lab) -> float:
    with _seeded(lab) as project:
        return lab.run(["./invoke", "reset", "--fresh", "--yes"], project.paths.root, _ENVIRONMENT).seconds


def _second(lab: Lab) -> float:
    with _seeded(lab) as project:
        root = project.paths.root
        lab.run(["./invoke", "reset", "--yes"], root, _ENVIRONMENT)
        uri = lab.run(["./invoke", "uri"], root).output.strip()
        lab.run([str(project.python), "-c", _CHANGES, uri], root)
        return lab.run(["./invoke", "reset", "--yes"], root, _ENVIRONMENT).seconds


SUBJECT = Subject(
    "reset-again",
    f"the second ./invoke reset, of {_PEOPLE + _ORDERS + _PRODUCTS:,} documents, after each collection was written to",
    Bound(0.25, "x"),
    _second,
    _first,
    "the first ./invoke reset: drops, migrates, seeds and keeps the database",
    start.EMPTIED.skip_reason,
)
