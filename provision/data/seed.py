"""Realistic people in bulk, as flaskbook stores them (`flaskbook.user.model`): people without an account."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from provision.core.dataclass import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from provision.deployments.deployment import Deployment
from provision.core.steps import Progress
from provision.data.connection import connected

if TYPE_CHECKING:
    from pymongo.collection import Collection

COLLECTION = "user"
_BATCH = 5_000
# While the server takes one batch, the next one is made and encoded.
_IN_FLIGHT = 2
_NO_AGE = 0.05
_LATEST = datetime(2026, 1, 1, tzinfo=UTC)
_DAYS = 5 * 365

_FIRST_NAMES = """
Ada Adam Aisha Alejandro Alice Amara Amir Ana Anders Andrea Anna Antonio Aoife Arjun Astrid Ayşe Barbara
Beatriz Ben Camille Carlos Charlotte Chen Chiara Claire Daniel David Deborah Diego Dmitri Edsger Elena Elif
Elizabeth Emil Emma Erik Esther Fatima Felix Fiona Francesca Frances Gabriel George Giulia Grace Hana Hans
Hannah Haruto Hassan Helen Henrik Hiroshi Ibrahim Ines Ingrid Isabel Ivan Jack Jakub James Jan Jean Jin João
John José Juan Julia Kai Karen Katherine Kofi Kwame Lars Laura Lea Leila Leon Lina Linda Liu Louis Lucas
Lucía Luis Lukas Magdalena Maja Manuel Margaret Maria Marie Mario Mark Marta Martin Mary Mateo Maya Mei
Michael Miguel Mila Mohammed Moritz Nadia Naomi Natalia Nia Nils Noah Nora Olga Oliver Olivia Omar Oscar
Pablo Patricia Paul Pedro Peter Petra Pierre Priya Rachel Radia Rafael Rania Robert Rosa Ruth Ryan Sakura
Samuel Sara Sebastian Sienna Simon Sofia Sophie Stefan Susan Sven Tariq Thandiwe Theo Thomas Tim Tomás
Valentina Victor Wei William Yara Yuki Yusuf Zanele Zoe Zofia
"""
_LAST_NAMES = """
Abara Adams Ahmed Allen Almeida Andersen Bauer Becker Bell Berg Bianchi Brown Byrne Campbell Castro Chen
Clark Cohen Costa Cruz Dahl Das Davies Davis Diallo Diaz Dijkstra Dubois Edwards Evans Fernández Fischer
Fontaine Fraser Garcia Gomes González Goldberg Green Gupta Haddad Hall Hansen Harris Hassan Hernández Hill
Hoffmann Hopper Horvat Hughes Ibrahim Inoue Ito Ivanov Jackson Jansen Jensen Johansson Johnson Jones Kaplan
Kaur Kelly Khan Kim King Klein Koch Kovács Kowalski Kumar Lambert Larsen Laurent Lee Lefebvre Lehmann Levy
Lewis Li Lin Lindberg Liu Lopez Lovelace Marino Martin Martínez Mbeki Meyer Miller Mitchell Moore Moreau
Moreno Morgan Morris Müller Murphy Mwangi Nakamura Nguyen Nielsen Novák Nowak O'Brien Okafor Okoye Olsen
Ortiz Osei Øverland Park Patel Pereira Pérez Perlman Peters Petrov Phillips Popescu Ramos Rao Reyes Ricci
Roberts Robinson Rodríguez Romano Rossi Russo Ryan Sánchez Santos Sato Schmidt Schneider Schulz Scott Şahin
Sharma Silva Singh Smith Sokolov Sousa Suzuki Svensson Takahashi Tanaka Taylor Thomas Thompson Torres Turing
Turner Van-Dijk Vargas Vogel Walker Wang Weber White Williams Wilson Wolf Wood Wright Yamamoto Yang Yılmaz
Young Zhang Zhao Zimmermann
"""


@dataclass(frozen=True)
class Seeded:
    """What was inserted.

    Args:
        namespace: ``database.collection``.
        inserted: number of people.
        dropped: the people that were there before were dropped.
        seconds: how long inserting them took.
    """

    namespace: str
    inserted: int
    dropped: bool
    seconds: float

    @property
    def rate(self) -> float:
        """People per second."""
        return self.inserted / self.seconds if self.seconds else 0.0


def people(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """People, the same for the same seed. Pure.

    Names are frequent and rare as in life; ages are those of adults, and some keep theirs to themselves.

    The same seed gives the same people.
    """
    return itertools.chain.from_iterable(_batches(count, seed))


def _batches(count: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    # Not for secrets: the same people again are what is wanted.
    chance = random.Random(seed)  # noqa: S311
    first_names, last_names = _FIRST_NAMES.split(), _LAST_NAMES.split()
    first = _frequencies(len(first_names), chance)
    last = _frequencies(len(last_names), chance)
    ages: list[int | None] = [*range(18, 95)]
    age_weights = [1.0 if age is not None and age < 65 else 0.4 for age in ages]
    age_weights.append(sum(age_weights) * _NO_AGE)
    ages.append(None)
    days = [_LATEST - timedelta(days=back, seconds=7919 * back % 86400) for back in range(_DAYS)]
    made = 0
    while made < count:
        size = min(_BATCH, count - made)
        rows = zip(
            chance.choices(first_names, cum_weights=first, k=size),
            chance.choices(last_names, cum_weights=last, k=size),
            chance.choices(ages, age_weights, k=size),
            chance.choices(days, k=size),
            strict=True,
        )
        yield [
            {"name": {"first_name": given, "last_name": family}, "created": created}
            if age is None
            else {"name": {"first_name": given, "last_name": family}, "age": age, "created": created}
            for given, family, age, created in rows
        ]
        made += size


def _frequencies(count: int, chance: random.Random) -> list[float]:
    """Cumulative weights that fall off as names' do, in random order."""
    weights = [1 / (rank + 10) for rank in range(count)]
    chance.shuffle(weights)
    return list(itertools.accumulate(weights))


def seed(
    deployment: Deployment, database: str, count: int, number: int, drop: bool, progress: Progress
) -> Seeded:
    """Insert people into the app's database.

    With `drop`, the collection is dropped first; it is sharded and indexed again as it was.
    """
    doing = f"seeding {database}.{COLLECTION} of {deployment.name}"
    with connected(deployment, doing, "invoke seed", deployment.uri(database, user="app")) as client:
        collection = client[database][COLLECTION]
        if drop:
            _drop(deployment, collection)
        begun = time.monotonic()
        _insert(collection, count, number, progress)
        return Seeded(f"{database}.{COLLECTION}", count, drop, time.monotonic() - begun)


def _insert(collection: Collection[Any], count: int, number: int, progress: Progress) -> None:
    done = 0
    pending: set[Future[int]] = set()
    pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="seed")
    try:
        for batch in _batches(count, number):
            if len(pending) >= _IN_FLIGHT:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                done += sum(each.result() for each in finished)
                progress.advance(done, count)
            pending.add(pool.submit(_insert_batch, collection, batch))
        for future in pending:
            done += future.result()
            progress.advance(done, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _insert_batch(collection: Collection[Any], batch: list[dict[str, Any]]) -> int:
    return len(collection.insert_many(batch, ordered=False).inserted_ids)


def _drop(deployment: Deployment, collection: Collection[Any]) -> None:
    """Drop the collection and make it anew as it was: its shard key, and its indexes."""
    indexes = [each for each in collection.list_indexes() if each["name"] != "_id_"]
    from provision.deployments import cluster

    key = cluster.shard_key(deployment, collection.full_name)
    collection.drop()
    if key is not None:
        cluster.shard_again(deployment, collection.full_name, key)
    present = {each["name"] for each in collection.list_indexes()} if key is not None else set()
    again = [
        {k: v for k, v in each.items() if k not in ("v", "ns")}
        for each in indexes
        if each["name"] not in present
    ]
    if again:
        collection.database.command({"createIndexes": collection.name, "indexes": again})
