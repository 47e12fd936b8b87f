"""What is stored about people, and how it is found.

``user`` may be sharded on ``{_id: "hashed"}``, and MongoDB can't keep another field of a sharded collection unique. So the
uniqueness of e-mail addresses lives in a collection of its own, ``email_claim``, whose ``_id`` is the
address: ``_id`` is unique in any deployment. A claim counts only while its user exists and carries that
address; see :mod:`flaskbook.user.account` for how the two are kept together without transactions, which a
standalone mongod lacks.

The people list is ordered by last name in the order of a dictionary, whatever the case and accents, by the
collation of the index ``people``. A query has to name the same collation (:data:`PEOPLE_COLLATION`) to be
served from it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from bson import ObjectId
from flask_login import UserMixin
from mongoengine import (
    DateTimeField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    ObjectIdField,
    StringField,
)

from flaskbook.database import AppDocument

NAME_LENGTH = 100
EMAIL_LENGTH = 254
AGE_MAX = 150

# https://www.mongodb.com/docs/manual/reference/collation/ : strength 1 compares base letters only.
PEOPLE_COLLATION = {"locale": "en", "strength": 1}
# The greatest character there is to a collation: "mu" + LAST is behind every name that begins with "mu".
_LAST = "\uffff"
_ORDER = [("name.last_name", 1), ("name.first_name", 1), ("_id", 1)]


def _now() -> datetime:
    return datetime.now(UTC)


def new_session_key() -> str:
    """Return a fresh value for ``User.session_key``: every session that carries the former one ends."""
    return secrets.token_hex(16)


class Name(EmbeddedDocument):  # type: ignore[misc]
    """The name of a person, nested in :class:`User`."""

    first_name = StringField(required=True, max_length=NAME_LENGTH)
    last_name = StringField(required=True, max_length=NAME_LENGTH)
    meta: ClassVar[dict[str, Any]] = {"strict": False}


class User(UserMixin, AppDocument):  # type: ignore[misc]
    """A person with an account. ``email`` is normalised, and never part of a public answer."""

    name = EmbeddedDocumentField(Name, required=True)
    email = StringField(required=True, max_length=EMAIL_LENGTH)
    password_hash = StringField(required=True)
    age = IntField(min_value=0, max_value=AGE_MAX)
    created = DateTimeField(required=True, default=_now)
    session_key = StringField(required=True, default=new_session_key)
    meta: ClassVar[dict[str, Any]] = {
        "collection": "user",
        # Fields of a newer version of the app don't break an older one that is still running.
        "strict": False,
        "indexes": [
            {
                "name": "people",
                "fields": ["name.last_name", "name.first_name", "id", "age"],
                "collation": PEOPLE_COLLATION,
            }
        ],
    }

    def get_id(self) -> str:
        """Return what a session keeps of this user: the id, and the key that a changed password replaces."""
        return f"{self.id}.{self.session_key}"

    @classmethod
    def from_session(cls, session_id: str) -> User | None:
        """Return the user whom ``get_id`` described, or None if there is none any more."""
        text, _, key = session_id.partition(".")
        user_id = parse_id(text)
        if user_id is None or not key:
            return None
        found: User | None = cls.objects(id=user_id, session_key=key).first()
        return found


class EmailClaim(AppDocument):
    """Says whose an e-mail address is."""

    email = StringField(primary_key=True, max_length=EMAIL_LENGTH)
    user = ObjectIdField(required=True)
    claimed = DateTimeField(required=True)
    meta: ClassVar[dict[str, Any]] = {"collection": "email_claim", "strict": False}


class Attempts(AppDocument):
    """How often something was tried within a window of time; MongoDB removes it after that."""

    key = StringField(primary_key=True)
    count = IntField(required=True)
    expires = DateTimeField(required=True)
    meta: ClassVar[dict[str, Any]] = {
        "collection": "attempts",
        "strict": False,
        "indexes": [{"name": "expires", "fields": ["expires"], "expireAfterSeconds": 0}],
    }


class Person(NamedTuple):
    """What everybody may see of a user. A tuple, because a page of people makes many."""

    id: str
    first_name: str
    last_name: str
    age: int | None

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Person:
        """Return the public part of a raw document of the collection ``user``; missing names are empty."""
        name = document.get("name") or {}
        return cls(
            str(document["_id"]),
            str(name.get("first_name") or ""),
            str(name.get("last_name") or ""),
            document.get("age"),
        )


@dataclass(frozen=True)
class Position:
    """A place in the order of the people list: just behind the person with these values."""

    last_name: str
    first_name: str
    id: str

    def encode(self) -> str:
        """Return this position as text for a URL."""
        text = json.dumps([self.last_name, self.first_name, self.id], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, token: str) -> Position:
        """Return the position that ``encode`` wrote.

        Raises ValueError: ``token`` isn't one. Only text comes out of it, never a query operator.
        """
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (UnicodeError, binascii.Error, RecursionError, json.JSONDecodeError) as error:
            raise ValueError("not a position") from error
        if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, str) for v in values):
            raise ValueError("not a position")
        last_name, first_name, user_id = values
        (last_name + first_name).encode()  # a lone surrogate is a ValueError: BSON can't hold it
        if parse_id(user_id) is None:
            raise ValueError("not a position")
        return cls(last_name, first_name, user_id)


@dataclass(frozen=True)
class People:
    """One page of the people list. ``following`` is where the next page begins, None on the last one."""

    people: tuple[Person, ...]
    following: Position | None


def parse_id(text: str) -> ObjectId | None:
    """Return the id written as 24 lower-case hexadecimal digits, or None if ``text`` is anything else."""
    return ObjectId(text) if re.fullmatch(r"[0-9a-f]{24}", text) else None


def people_filter(
    last_name: str, min_age: int | None, max_age: int | None, after: Position | None
) -> dict[str, Any]:
    """Return the query for a page of people, served from the index ``people``.

    ``last_name`` is compared as text: nothing in it is special. With a limit, people without an age are left
    out.
    """
    conditions: list[dict[str, Any]] = []
    if last_name:
        conditions.append({"name.last_name": {"$gte": last_name, "$lt": last_name + _LAST}})
    age = {operator: limit for operator, limit in (("$gte", min_age), ("$lte", max_age)) if limit is not None}
    if age:
        conditions.append({"age": age})
    if after is not None:
        conditions += [
            # Bounds the index scan; the alternatives below then pick the exact place among equal last names.
            {"name.last_name": {"$gte": after.last_name}},
            {
                "$or": [
                    {"name.last_name": {"$gt": after.last_name}},
                    {"name.last_name": after.last_name, "name.first_name": {"$gt": after.first_name}},
                    {
                        "name.last_name": after.last_name,
                        "name.first_name": after.first_name,
                        "_id": {"$gt": ObjectId(after.id)},
                    },
                ]
            },
        ]
    if not last_name and after is None:
        # Without it a document without a name (written by hand, say) would head the list, and no page could
        # follow it.
        conditions.append({"name.last_name": {"$gte": ""}})
    return {"$and": conditions}


def find_people(
    *,
    last_name: str = "",
    min_age: int | None = None,
    max_age: int | None = None,
    after: Position | None = None,
    limit: int,
) -> People:
    """Return a page of people, ordered by last name, first name and id."""
    # Raw documents: building a mongoengine object for each row costs more than the query.
    collection = User._get_collection()
    found = collection.find(
        people_filter(last_name, min_age, max_age, after),
        projection={"name.first_name": 1, "name.last_name": 1, "age": 1},
        sort=_ORDER,
        collation=PEOPLE_COLLATION,
        limit=limit + 1,  # one more says whether there is a next page
    )
    people = [Person.from_document(document) for document in found.to_list()]
    following = None
    if len(people) > limit:
        people = people[:limit]
        last = people[-1]
        following = Position(last.last_name, last.first_name, last.id)
    return People(tuple(people), following)


def find_person(person_id: str) -> Person | None:
    """Return the person with this id, or None if nobody has it or it isn't an id."""
    user_id = parse_id(person_id)
    if user_id is None:
        return None
    document = User._get_collection().find_one({"_id": user_id}, {"name": 1, "age": 1})
    return None if document is None else Person.from_document(document)
