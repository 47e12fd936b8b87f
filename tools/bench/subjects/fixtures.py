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
