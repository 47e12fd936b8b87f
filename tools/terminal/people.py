"""The seeds of the shop: people who don't exist, and what they ordered. The same ones each time."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PRODUCTS, USERS, ORDERS = 311, 20_000, 50_000
_FIRST = [
    "Ada",
    "Alan",
    "Barbara",
    "Dennis",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "John",
    "Katherine",
    "Margaret",
    "Radia",
    "Tim",
]
_LAST = [
    "Dijkstra",
    "Hamilton",
    "Hopper",
    "Johnson",
    "Kay",
    "Knuth",
    "Lamarr",
    "Liskov",
    "Lovelace",
    "Perlman",
    "Ritchie",
    "Turing",
]


def write(folder: Path) -> None:
    """Write the seeds into a folder, which is made."""
    chance = random.Random(1)
    folder.mkdir()
    with (folder / "10-products.csv").open("w") as file:
        file.write("_id.int32(),title,price.decimal()\n")
        file.writelines(
            f"{number},Tea {number},{chance.randrange(200, 9000) / 100:.2f}\n"
            for number in range(1, PRODUCTS + 1)
        )
    users = [_user(number, chance) for number in range(USERS)]
    orders = (_order(chance.choice(users), chance) for _ in range(ORDERS))
    for name, documents in (("20-users", users), ("30-orders", orders)):
        with (folder / f"{name}.ndjson").open("w") as file:
            file.writelines(json.dumps(document) + "\n" for document in documents)


def _user(number: int, chance: random.Random) -> dict[str, Any]:
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    born = f"{chance.randrange(1971, 2006)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
    return {
        "_id": _id(chance),
        "name": f"{first} {last}",
        "email": f"{first}.{last}.{number}@example.org".lower(),
        "phone": f"+44 20 {chance.randrange(1000, 9999)} {chance.randrange(1000, 9999)}",
        "born": {"$date": f"{born}T00:00:00Z"},
        "street": f"{chance.randrange(1, 200)} {chance.choice(_LAST)} Street",
        "city": "London",
    }


def _order(user: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    return {
        "_id": _id(chance),
        "user_id": user["_id"],
        "product": chance.randrange(1, PRODUCTS + 1),
        "number": chance.randrange(1, 9),
        "sent": chance.random() < 0.9,
    }


def _id(chance: random.Random) -> dict[str, str]:
    return {"$oid": f"{chance.getrandbits(96):024x}"}
