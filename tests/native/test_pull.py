"""`pull` between two real servers: nothing of a list of people arrives, and what was equal is equal."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from provision.data.pulls import run as pulls
from provision.deployments.deployment import Deployment
from tests.support.clones import Clone
from tests.support.deployments import deployed

PEOPLE = 400
SECRET = "read-only-s3cret"
MASKS = """
collections:
  users:
    _id: email
    name: name
    phone: phone
    born: date
    insurance: number
    addresses.*.street: text
    friends: {keys: email}
    friends.*.since: date
    note: remove
    tags: keep
  orders:
    address: text
    paid_by.name: name
  products: keep
  letters: {"**": text}
references:
  orders.user_id: users._id
  orders.items.*.product: products._id
  letters.user_id: users._id
"""


def mail(number: int) -> str:
    return f"person{number:04}@staging.example"


def name(number: int) -> str:
    return f"Firstname{number:04} Lastname{number:04}"


def user(number: int) -> dict[str, Any]:
    return {
        "_id": mail(number),
        "name": name(number),
        "phone": f"+44 20 {number:04} 5{number:04}77",
        "born": datetime.datetime(1950 + number % 50, 1 + number % 12, 7, 11, 13, number % 60),
        "insurance": 880_000_000_000 + number * 7919,
        "addresses": [{"street": f"{number} Analytical Street", "city": "London"}],
        "friends": {mail((number + 1) % PEOPLE): {"since": datetime.datetime(2020, 1, 1)}},
        "note": f"knows {name(number)}",
        "tags": ["a", number],
    }


def order(number: int) -> dict[str, Any]:
    who = number * 7 % PEOPLE
    return {
        "_id": number,
        "user_id": mail(who),
        "address": f"{who} Analytical Street",
        "paid_by": {"name": name(who)},
        "items": [{"product": f"product-{number % 30}", "n": 1}],
    }


def fill(database: Database[Any]) -> None:
    database.users.insert_many([user(number) for number in range(PEOPLE)])
    database.orders.insert_many([order(number) for number in range(1000)])
    database.products.insert_many([{"_id": f"product-{number}"} for number in range(30)])
    database.letters.insert_one(
        {"user_id": mail(3), "text": f"Dear {name(3)}", "at": datetime.datetime(2020, 5, 5)}
    )
    database.users.create_index(
        "name", name=f"all but {name(1)}", partialFilterExpression={"name": {"$gt": name(1)}}
    )
    database.users.create_index("phone", unique=True)
    database.users.create_index(f"friends.{mail(2)}.since")
    database.orders.create_index([("user_id", 1), ("_id", -1)], name="by_user")
    database.orders.create_index([("_id", "hashed")])
    database.command(
        {"collMod": "users", "validator": {"name": {"$ne": name(5)}}, "validationAction": "warn"}
    )
    database.command({"create": "old", "viewOn": "users", "pipeline": [{"$match": {"name": name(6)}}]})
    database.command({"create": "opted", "collation": {"locale": "en", "strength": 2}})


SECRETS = [
    text
    for number in range(PEOPLE)
    for text in (
        mail(number),
        name(number),
        f"Firstname{number:04}",
        f"{number} Analytical",
        f"{number:04} 5{number:04}77",
    )
]
NUMBERS = {user(number)["insurance"] for number in range(PEOPLE)} | {
    user(number)["born"] for number in range(PEOPLE)
}


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[tuple[Deployment, str]]:
    """A server with users, full of people, and the connection string of one who may only read them."""
    folder = tmp_path_factory.mktemp("source")
    with deployed(folder, mongod_binary, mongod_version, topology="single", auth=True) as deployment:
        with MongoClient[dict[str, Any]](deployment.uri(user="root")) as client:
            fill(client.staging)
            client.admin.command(
                "createUser", "reader", pwd=SECRET, roles=[{"role": "read", "db": "staging"}]
            )
        _, separator, rest = deployment.uri("staging").partition("://")
        mark = "&" if "?" in rest else "?"
        yield deployment, f"mongodb{separator}reader:{SECRET}@{rest}{mark}authSource=admin"


@contextmanager
def read(clone: Clone, database: str = "flaskbook") -> Iterator[Database[Any]]:
    with MongoClient[dict[str, Any]](clone.uri) as client:
        yield client[database]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_a_pull_brings_the_shape_without_the_people(
    clone: Clone, source: tuple[Deployment, str], tmp_path: Path
):
    _, uri = source
    environment = {"PULL_URI": uri}
    (clone.root / "masks.yaml").write_text(MASKS)
    clone.succeeds("start")
    names = "orders,letters,opted"
    done = clone.invoke("pull", "--collections", names, "--sample", "10%", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    told = json.loads(done.stdout)
    found = {each["collection"]: each for each in told["collections"]}
    assert told["unmasked"] == ["opted"]
    assert list(found["orders"]["unused"]) == []
    with read(clone) as database:
        orders, users = list(database.orders.find()), list(database.users.find())
        assert 50 < len(orders) < 200
        # What they refer to came along, and nothing else; what was equal is equal.
        assert {each["user_id"] for each in orders} <= {each["_id"] for each in users}
        assert len(users) == found["users"]["documents"] == found["users"]["referenced"] < PEOPLE
        assert {item["product"] for each in orders for item in each["items"]} == {
            each["_id"] for each in database.products.find()
        }
        named = {each["_id"]: each["name"] for each in users}
        assert all(each["paid_by"]["name"] == named[each["user_id"]] for each in orders)
        streets = {each["_id"]: each["addresses"][0]["street"].split()[0] for each in users}
        assert len(set(streets.values())) > 1
        assert all("note" not in each and each["tags"][0] == "a" for each in users)
        # Nobody is in it.
        for collection in database.list_collection_names():
            for document in database[collection].find():
                assert not NUMBERS & {leaf for leaf in leaves(document) if not isinstance(leaf, str)}, (
                    document
                )
        indexes = database.users.index_information()
        assert indexes["name_1"]["partialFilterExpression"]["name"]["$gt"] != name(1)
        assert "phone_1" in indexes
        assert {"by_user", "_id_hashed"} <= database.orders.index_information().keys()
        assert database.opted.options()["collation"]["strength"] == 2
        assert "the option validator" in found["users"]["left_out"][0]
    clone.succeeds("dump", str(tmp_path / "dump"))
    written = [path for place in (tmp_path / "dump", clone.root / ".state") for path in place.rglob("*")]
    for path in (path for path in written if path.is_file()):
        content = path.read_bytes()
        assert not [secret for secret in [*SECRETS, SECRET] if secret.encode() in content], path
    key = clone.root / ".state" / "mask_key"
    assert key.stat().st_mode & 0o777 == 0o600

    # Another pull has the same documents, which are there already.
    again = clone.invoke("pull", "--collections", names, "--sample", "10%", env=environment)
    assert again.returncode == 1
    assert "documents were there already" in again.stderr
    assert "Nothing was deleted" in clone.fails("pull", "--collections", names, "--drop", env=environment)
    clone.succeeds("pull", "--collections", names, "--sample", "10%", "--drop", "--yes", env=environment)
    with read(clone) as database:
        assert list(database.orders.find(sort=[("_id", 1)])) == sorted(orders, key=lambda each: each["_id"])
        assert sorted(each["_id"] for each in database.users.find()) == sorted(named)


def test_what_cannot_be_pulled_is_one_error_without_secrets(clone: Clone, source: tuple[Deployment, str]):
    deployment, uri = source
    assert "PULL_URI is not set" in clone.fails("pull", "--collections", "users")
    environment = {"PULL_URI": uri}
    assert "is not running" in clone.fails("pull", "--collections", "users", env=environment)
    clone.succeeds("start")
    (clone.root / "masks.yaml").write_text(MASKS)
    for arguments, changes, expected in (
        (("--collections", "user"), {}, "did you mean users"),
        (("--collections", "old"), {}, "is a view"),
        (("--collections", "users", "--database", "admin"), {}, "belongs to the server"),
        (
            ("--collections", "users"),
            {"PULL_URI": uri.replace(SECRET, SECRET + "x")},
            "Authentication failed",
        ),
        (
            ("--collections", "users"),
            {"PULL_URI": f"mongodb://reader:{SECRET}@:x/"},
            "not a connection string",
        ),
        (
            ("--collections", "users"),
            {"PULL_URI": f"{clone.uri.replace('/?', '/flaskbook?')}"},
            "of this deployment itself",
        ),
        (("--collections", "users", "--mask", "missing.yaml"), {}, "missing.yaml"),
    ):
        said = clone.fails("pull", *arguments, env={**environment, **changes})
        assert expected in said, said
        assert SECRET not in said
    with read(clone) as database:
        assert database.list_collection_names() == []
    with MongoClient[dict[str, Any]](uri) as reader, pytest.raises(OperationFailure):
        reader.staging.users.insert_one({})  # the source had given nothing but reading
    assert pulls.source_uri("X", {"X": "y"}) == "y"
    assert os.environ.get("PULL_URI") is None
    assert deployment.running(deployment.topology.nodes)
