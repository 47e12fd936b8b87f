"""flaskbook under load, beside a bare Flask view that makes the same query."""

from __future__ import annotations

import json

from tools.bench.lab import Lab
from tools.bench.load import Plan, Summary
from tools.bench.measure import Bound, Subject
from tools.bench.subjects import run_app
from tools.bench.subjects.start import run_floor

OURS = "flaskbook.application:create_app"
THEIRS = "tools.bench.bare:app"
_ACCOUNT = {"email": "load@example.org", "password": "a password of the load test"}
PEOPLE = Plan("/people", requests=1000, warm_up=200, connections=4, marker='<a href="/people/', marked=20)
LOG_IN = Plan(
    "/log-in",
    requests=100,
    warm_up=8,
    connections=4,
    body=_ACCOUNT,
)
_SECRET_KEY = "signs the sessions of a load test only"
# Enough for a list of many pages; more of them would not make a page by the index slower.
_SEED = """
import json, sys
from flaskbook.application import create_app
from flaskbook.topology.samples import add_sample_people
from flaskbook.user import account
with create_app().app_context():
    add_sample_people(2000, seed=1)
    account.sign_up(first_name="Load", last_name="Test", age=None, client="", **json.loads(sys.argv[1]))
"""


def load(lab: Lab, app: str, plan: Plan) -> Summary:
    """Serve an app on a new mongod with the sample people, and send it what is planned.

    Args:
        lab: where.
        app: as `flask --app` takes it.
        plan: what to send.

    Raises:
        ProvisionError: the app could not be served, or an answer was wrong.
    """
    project = lab.project()
    root, python = project.paths.root, str(project.python)
    _, pid = run_floor(lab, project, emptied=True)
    uri = f"mongodb://127.0.0.1:{lab.floor_port}/flaskbook?directConnection=true"
    env = {"MONGODB_URI": uri, "SECRET_KEY": _SECRET_KEY}
    try:
        lab.run([python, "-c", _SEED, json.dumps(_ACCOUNT)], root, env)
        port = str(lab.app_port)
        # The server that `invoke run` serves with, and its threads.
        with lab.started([python, "-m", "flask", "--app", app, "run", "--port", port], root, env) as server:
            server.until_ok(lab.app_port, PEOPLE.path)
            done = lab.run([python, "-m", "tools.bench.load", port, plan.as_json()], root)
    finally:
        lab.end(pid)
    return Summary.from_json(done.output)


_PEOPLE_LABEL = "a bare Flask view that makes the same query and shows the same people (bench/bare.py)"
_LOG_IN_LABEL = (
    "a bare Flask view that makes the same queries and verifies the same argon2id hash (bench/bare.py)"
)

PEOPLE_REQUESTS = Subject(
    "people-requests",
    f"{PEOPLE.requests} requests of flaskbook's /people, {PEOPLE.connections} at once, in all "
    f"({PEOPLE.requests} by it: requests per second)",
    Bound(1.25, "x"),
    lambda lab: load(lab, OURS, PEOPLE).seconds,
    lambda lab: load(lab, THEIRS, PEOPLE).seconds,
    _PEOPLE_LABEL,
    run_app.SUBJECT.skip_reason,
)
PEOPLE_P99 = Subject(
    "people-p99",
    f"1000 times the 99th percentile of {PEOPLE.requests} such requests (so in ms for one)",
    Bound(1.25, "x"),
    lambda lab: 1000 * load(lab, OURS, PEOPLE).p99,
    lambda lab: 1000 * load(lab, THEIRS, PEOPLE).p99,
    _PEOPLE_LABEL,
    run_app.SUBJECT.skip_reason,
)
LOG_IN_REQUESTS = Subject(
    "log-in-requests",
    f"{LOG_IN.requests} log-ins by flaskbook's /log-in, {LOG_IN.connections} at once, in all "
    f"({LOG_IN.requests} by it: requests per second)",
    None,  # what limits on guessing cost is shown, not bounded
    lambda lab: load(lab, OURS, LOG_IN).seconds,
    lambda lab: load(lab, THEIRS, LOG_IN).seconds,
    _LOG_IN_LABEL,
    run_app.SUBJECT.skip_reason,
)
LOG_IN_P99 = Subject(
    "log-in-p99",
    f"1000 times the 99th percentile of {LOG_IN.requests} such log-ins (so in ms for one)",
    None,  # what limits on guessing cost is shown, not bounded
    lambda lab: 1000 * load(lab, OURS, LOG_IN).p99,
    lambda lab: 1000 * load(lab, THEIRS, LOG_IN).p99,
    _LOG_IN_LABEL,
    run_app.SUBJECT.skip_reason,
)
