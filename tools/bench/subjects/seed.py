"""`seed` beside a bare `insert_many` of the same people."""

from __future__ import annotations

import json

from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject
from tools.bench.subjects import start

_PEOPLE = 100_000
# The people are made before the clock runs: a bare insert_many is given its documents.
_BARE = """
import sys, time
from pymongo import MongoClient
from provision.data.seed import people
with MongoClient(sys.argv[1]) as client:
    found = client.flaskbook.user
    found.drop()
    documents = list(people(int(sys.argv[2]), 1))
    begun = time.monotonic()
    found.insert_many(documents)
    print(time.monotonic() - begun)
"""


def _seconds(lab: Lab, ours: bool) -> float:
    project = lab.project()
    root, python = project.paths.root, str(project.python)
    start.empty_data(project)
    lab.run(["./invoke", "start"], root)
    try:
        if ours:
            done = lab.run(["./invoke", "seed", "--users", str(_PEOPLE), "--json"], root)
            return float(json.loads(done.output)["seconds"])
        uri = lab.run(["./invoke", "uri"], root).output.strip()
        return float(lab.run([python, "-c", _BARE, uri, str(_PEOPLE)], root).output)
    finally:
        lab.run(["./invoke", "stop"], root)


SUBJECT = Subject(
    "seed",
    f"inserting {_PEOPLE:,} people by ./invoke seed, who are made meanwhile",
    Bound(1.25, "x"),  # 0.8 times the rate
    lambda lab: _seconds(lab, True),
    lambda lab: _seconds(lab, False),
    "a bare insert_many of the same people, made before",
    start.EMPTIED.skip_reason,
)
