"""What the pytest plugin's fixtures do, as a process of its own, for the bench.

``python -m tools.bench.fixture session MONGOD`` does what the first test that asks for `mongodb` waits for: it starts
a server and connects to it. It prints the seconds; modules were imported before, as they are while tests are
collected, but for the driver. ``… database MONGOD`` measures the fixture `database` on such a server: it prints the
seconds that 100 databases take to set up and drop, as 100 times the median. ``… reset MONGOD`` measures what a test
waits for whose `database_template` has ten collections, of which the test before has written to one; ``… rebuild
MONGOD`` what it waits for if they are dropped, made and filled again: both as 100 times the median.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from provision.testing.processes import Binaries, import_ahead
from provision.testing.request import Request
from provision.testing.run import Run
from provision.testing.servers import Server, Servers

if TYPE_CHECKING:
    from pymongo.database import Database

TIMES = 100


def main(what: str, argument: str) -> None:
    """Measure one of the two."""
    import_ahead()
    run = Run.new()
    servers = Servers(run, Binaries(argument))
    begun = time.perf_counter()
    try:
        server = servers.get(Request())
        if what == "session":
            sys.stdout.write(f"{time.perf_counter() - begun}")
            return
        trial = {"database": _setup_and_drop, "reset": _reset, "rebuild": _rebuild}[what]
        sys.stdout.write(f"{TIMES * median(trial(server) for _ in range(TIMES))}")
    finally:
        servers.close(end=True)
        run.clear()


def _setup_and_drop(server: Server) -> float:
    """Seconds before and after a test that writes to two collections, one of them with an index."""
    begun = time.perf_counter()
    fixture = server.new_database()
    with fixture as database:
        seconds = time.perf_counter() - begun
        database.people.insert_one({"name": "Ada"})
        database.people.create_index("name")
        database.visits.insert_one({"page": "/"})
        begun = time.perf_counter()
    return seconds + time.perf_counter() - begun


def _fill(database: Database[dict[str, Any]]) -> None:
    """Ten collections of 100 documents, two indexes each."""
    from pymongo import IndexModel

    for number in range(10):
        collection = database[f"things{number}"]
        collection.create_indexes([IndexModel("name"), IndexModel("serial", unique=True)])
        collection.insert_many([{"name": f"thing {n % 7}", "serial": n} for n in range(100)])


def _reset(server: Server) -> float:
    """Seconds before a test; the one before it has written to one collection."""
    begun = time.perf_counter()
    with server.template_database(_fill) as database:
        seconds = time.perf_counter() - begun
        database.things3.insert_one({"name": "new", "serial": -1})
    return seconds


def _rebuild(server: Server) -> float:
    """Seconds to drop the collections, and to make and fill them again."""
    database = server.client["rebuilt"]
    begun = time.perf_counter()
    for name in database.list_collection_names():
        database.drop_collection(name)
    _fill(database)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(*sys.argv[1:])
