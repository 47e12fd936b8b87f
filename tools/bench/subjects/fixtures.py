"""The pytest plugin: its session's server beside the floor, and a database for each test."""

from __future__ import annotations

from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject
from tools.bench.subjects.start import FLOOR_LABEL, run_floor


def _session(lab: Lab) -> float:
    return _measured(lab, "session")


def _floor(lab: Lab) -> float:
    seconds, pid = run_floor(lab, lab.project(), emptied=True)
    lab.end(pid)
    return seconds


def _databases(lab: Lab) -> float:
    return _measured(lab, "database")


def _resets(lab: Lab) -> float:
    return _measured(lab, "reset")


def _rebuilds(lab: Lab) -> float:
    return _measured(lab, "rebuild")


def _measured(lab: Lab, what: str) -> float:
    project = lab.project()
    command = [str(project.python), "-m", "tools.bench.fixture", what, str(project.mongod.path)]
    return float(lab.run(command, project.paths.root, {"TMPDIR": str(lab.folder)}).output)


SESSION = Subject(
    "test-session",
    "the pytest plugin's fixture mongodb, from the first test's request to a connected client",
    Bound(1.2, "x"),
    _session,
    _floor,
    FLOOR_LABEL,
)
DATABASES = Subject(
    "test-databases",
    "100 times the fixture database, set-up and drop (the median of 100, after writes to two collections), 15 ms each",
    Bound(1.5, "s"),
    _databases,
)
RESET = Subject(
    "test-reset",
    "what 100 tests wait for their database_template (100 times the median): ten collections of 100 documents with two "
    "indexes each, one of them written to",
    Bound(0.5, "x"),
    _resets,
    _rebuilds,
    "drop the collections, make and fill them again",
)
RESET_SECONDS = Subject(
    "test-reset-seconds",
    "the same in seconds; 15 ms each",
    Bound(1.5, "s"),
    _resets,
)
