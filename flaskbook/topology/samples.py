"""Sample people: enough of them to see a list with pages, or a cluster share them out.

They have no claim on their e-mail address and no password, so nobody can log in as one of them.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from bson import ObjectId

from flaskbook.user.model import User, new_session_key

BATCH = 1000
_INSERT_SECONDS = 20


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST_NAMES = _words(
    "Ada Alan Alma Amina Anders Anita Barbara Bjarne Carla Chidi Claude Dennis Donald Edith Edsger Elif Emmy Evelyn "
    "Fatima Frances Grace Guido Hedy Ida Ines Jean Jorge Juan Karen Katherine Ken Kiran Lars Leila Leslie Linus Lucía "
    "Mahmoud Margaret María Mary Mei Nadia Niklaus Noor Olga Omar Peter Priya Radia Rosa Rózsa Ryan Sara Shafi Sofía "
    "Søren Tariq Tim Tove Valentina Vint Wangari Yukihiro Yuki Zoë"
)
_LAST_NAMES = _words(
    "Abara Allen Almeida Andersen Bartik Becker Berners Blum Borg Castillo Cerf Chen Clarke Conway Dijkstra Dubois Dumas "
    "Eriksen Feinler Fernández Fischer Floyd Goldberg Goldwasser González Haddad Hamilton Hansen Holberton Hopper Ito "
    "Jensen Johnson Kapoor Kaya Keller Khan Knuth Kowalski Lamarr Lamport Larsen Liskov Lovelace Maathai Matsumoto Meyer "
    "Moreau Müller Nakamura Noether Novák Nowak Okafor Olsen Patel Pérez Péter Ritchie Rossi Santos Schmidt Silva Sinoussi "
    "Şahin Tanaka Thompson Torvalds Turing Vaughan Wang Weber Wirth Yamada Yılmaz Zhang Zuse"
)


def sample_people(count: int, chance: random.Random, now: datetime) -> list[dict[str, Any]]:
    """Return documents of the collection ``user``, without ``_id``.

    The same seed gives the same people; they were created within the year before ``now``.
    """
    return [
        {
            "name": {"first_name": chance.choice(_FIRST_NAMES), "last_name": chance.choice(_LAST_NAMES)},
            "email": f"sample-{chance.getrandbits(64):016x}@sample.invalid",
            "password_hash": "!",
            "age": chance.randint(18, 95),
            "created": now - timedelta(seconds=chance.randrange(365 * 24 * 3600)),
        }
        for _ in range(count)
    ]


def add_sample_people(count: int = BATCH, seed: int | None = None) -> int:
    """Insert sample people into the current app's database.

    Returns how many were inserted. The same seed gives the same people; None: others each time.
    """
    people = sample_people(count, random.Random(seed), datetime.now(UTC))  # noqa: S311 (no secret)
    documents = [{"_id": ObjectId(), **person, "session_key": new_session_key()} for person in people]
    collection = User._get_collection()
    with pymongo.timeout(_INSERT_SECONDS):
        inserted = collection.insert_many(documents, ordered=False)
    return len(inserted.inserted_ids)
