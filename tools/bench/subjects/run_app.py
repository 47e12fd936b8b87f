"""`run` to the first answer of /readyz."""

from __future__ import annotations

from provision.core.errors import INTERRUPTED
from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject
from tools.bench.subjects.start import empty_data, run_floor

_CREATE_APP = "from flaskbook.application import create_app; create_app()"


def _ours(lab: Lab) -> float:
    project = lab.project()
    empty_data(project)
    with lab.started(["./invoke", "run"], project.paths.root) as process:
        seconds = process.until_ok(lab.app_port, "/readyz")
        process.interrupt()
        if process.status != INTERRUPTED:
            raise process.failure(f"After Ctrl-C it ended with status {process.status}.")
    return seconds


def _theirs(lab: Lab) -> float:
    project = lab.project()
    floor, pid = run_floor(lab, project, emptied=True)
    app = lab.run(
        [str(project.python), "-c", _CREATE_APP],
        project.paths.root,
        {
            "MONGODB_URI": f"mongodb://127.0.0.1:{lab.floor_port}/flaskbook",
            "SECRET_KEY_FILE": str(project.paths.secret_key),
        },
    )
    lab.end(pid)
    return floor + app.seconds


def _skip_reason(lab: Lab) -> str | None:
    factory = lab.factory
    if factory != "flaskbook.application:create_app":
        return f"app.factory is {factory}: this figure is about flaskbook."
    return None


SUBJECT = Subject(
    "run",
    "./invoke run to the first 200 of /readyz, set up, with an emptied data directory",
    Bound(1.5, "x"),
    _ours,
    _theirs,
    f'the floor of start, then python -c "{_CREATE_APP}"',
    _skip_reason,
)
