"""`invoke --list` beside a bare Invoke."""

from __future__ import annotations

from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject

_NOTHING = "No tasks found"  # with it Invoke answers --list for an empty tasks file, and leaves with 1


def _ours(lab: Lab) -> float:
    return lab.run(["./invoke", "--list"], lab.project().paths.root).seconds


def _theirs(lab: Lab) -> float:
    folder = lab.emptied("bare")
    (folder / "tasks.py").touch()
    invoke = lab.project().paths.env / "bin" / "invoke"
    with lab.started([str(invoke), "--list"], folder) as process:
        process.wait()
        if process.status != 1 or _NOTHING not in process.output():
            raise process.failure(f"It ended with status {process.status}, and did not say {_NOTHING!r}.")
        return process.seconds


SUBJECT = Subject(
    "list",
    "./invoke --list",
    Bound(1.4, "x"),
    _ours,
    _theirs,
    "env/bin/invoke --list with an empty tasks file",
)
