"""What the pytest plugin's fixtures do, as a process of its own, for the bench.

``python -m tools.bench.fixture session MONGOD`` does what the first test that asks for `mongodb` waits for: it starts
a server and connects to it. It prints the seconds; modules were imported before, as they are while tests are
collected, but for the driver. ``… database MONGOD`` measures the fixture `database` on such a server: it prints the
seconds that 100 databases take to set up and drop, as 100 times the median.
"""

from __future__ import annotations

import sys
import time
from statistics import median

from provision.testing.processes import Binaries, import_ahead
from provision.testing.request import Request
from provision.testing.run import Run
from provision.testing.servers import Server, Servers

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
        sys.stdout.write(f"{TIMES * median(_setup_and_drop(server) for _ in range(TIMES))}")
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


if __name__ == "__main__":
    main(*sys.argv[1:])
