"""The seeds of the shop: people who don't exist, and what they ordered. The same ones each time."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PRODUCTS, USERS, ORDERS = 311, 20_000, 50_000
_FIRST = "Ada Alan Barbara Dennis Edsger Frances Grace Hedy John Katherine Margaret Radia Tim".split()
_LAST = "Dijkstra Hamilton Hopper Johnson Kay Knuth Lamarr Liskov Lovelace Perlman Ritchie Turing".split()


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
    with (folder / "20-users.ndjson").open("w") as file:
        file.writelines(json.dumps(_user(number, chance)) + "\n" for number in range(USERS))
    with (folder / "30-orders.ndjson").open("w") as file:
        file.writelines(json.dumps(_order(number, chance)) + "\n" for number in range(ORDERS))


def _user(number: int, chance: random.Random) -> dict[str, Any]:
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    born = f"{chance.randrange(1940, 2006)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
    return {
        "_id": _id(1, number),
        "name": f"{first} {last}",
        "email": f"{first}.{last}.{number}@example.org".lower(),
        "phone": f"+44 20 {chance.randrange(1000, 9999)} {chance.randrange(1000, 9999)}",
        "born": {"$date": f"{born}T00:00:00Z"},
        "street": f"{chance.randrange(1, 200)} {chance.choice(_LAST)} Street",
        "city": "London",
    }


def _order(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "_id": _id(2, number),
        "user_id": _id(1, chance.randrange(USERS)),
        "product": chance.randrange(1, PRODUCTS + 1),
        "number": chance.randrange(1, 9),
        "sent": chance.random() < 0.9,
    }


def _id(kind: int, number: int) -> dict[str, str]:
    return {"$oid": f"{kind:08x}{number:016x}"}
