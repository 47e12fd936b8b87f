"""The machine's clock steps (NTP, a virtual machine that resumes): nothing that runs is taken for dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from tests.support.clones import Clone
from tests.support.plugin_project import SIX_LINES, Project
from tests.support.stepping_clock import OFFSETS, SteppingClock

pytestmark = pytest.mark.needs("stepping-clock")

TELL = """
    import json, pathlib, time

    def tell(name, value):
        with pathlib.Path(name).open("a") as file:
            file.write(json.dumps(value) + "\\n")

    def wait_for(name):
        while not pathlib.Path(name).exists():
            time.sleep(0.02)
"""
LONG = """
    from tell import tell, wait_for

    def test_long(database, mongodb):
        database.people.insert_one({"name": "Ada"})
        tell("blocked", {"database": database.name, "server": mongodb.client.address})
        wait_for("go")
        assert database.people.count_documents({}) == 1
"""
LATE = """
    from tell import tell, wait_for

    def test_that_asks_late(request):
        tell("begun", True)
        wait_for("go")
        database = request.getfixturevalue("database")
        database.people.insert_one({"name": "Ada"})
"""


@pytest.fixture
def clock(tmp_path: Path) -> SteppingClock:
    (tmp_path / "clock").mkdir()
    return SteppingClock(tmp_path / "clock")


@pytest.fixture
def project(tmp_path: Path, mongod_binary: Path, clock: SteppingClock) -> Iterator[Project]:
    """A project whose tests run under the clock."""
    made = Project(tmp_path / "project", str(mongod_binary), prefix=clock.prefix)
    made.write("tell.py", TELL)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def stepped(clone: Clone, clock: SteppingClock) -> Clone:
    """A clone whose commands run under the clock."""
    clone.prefix = clock.prefix
    return clone


def test_under_the_clock_a_process_began_at_another_moment(clock: SteppingClock) -> None:
    """What the other tests rest on."""
    program = f"import psutil, time; print(psutil.Process({os.getpid()}).create_time(), time.time())"
    seen = []
    for offset in (0, 3600):
        clock.step_to(offset)
        told = subprocess.run(
            [*clock.prefix, sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout
        seen.append([float(word) for word in told.split()])
    (began, now), (began_later, now_later) = seen
    assert began_later - began == pytest.approx(3600, abs=1.5)
    assert 3600 <= now_later - now < 7200


def test_a_second_run_of_pytest_leaves_the_first_ones_mongod_alone(
    project: Project, clock: SteppingClock
) -> None:
    project.write("test_long.py", LONG)
    project.write("test_short.py", SIX_LINES)
    first = project.begin("test_long.py")
    kept = project.tells("blocked", first)
    for offset in sorted({*OFFSETS}):
        clock.step_to(offset)
        project.passes("test_short.py")
        assert len(project.nodes()) == 1
        with MongoClient(*kept["server"], directConnection=True) as client:
            assert client[kept["database"]].people.count_documents({}) == 1
    project.write("go", "")
    assert first.ends() == 0, first.text
    assert project.nodes() == []
    assert project.runs() == []


@pytest.mark.parametrize("offset", [-1, 3600])
def test_a_worker_that_asks_late_is_given_its_mongod(
    project: Project, clock: SteppingClock, offset: int
) -> None:
    project.write("test_late.py", LATE)
    run = project.begin("-n", "1")
    project.tells("begun", run)
    clock.step_to(offset)
    project.write("go", "")
    assert run.ends() == 0, run.text
    assert project.nodes() == []
    assert project.runs() == []


def test_two_runs_with_workers_pass_while_it_steps(project: Project, clock: SteppingClock) -> None:
    project.write(
        "test_it.py",
        """
        import pytest, time

        @pytest.mark.parametrize("n", range(12))
        def test_insert(database, n):
            database.people.insert_one({"name": "Ada"})
            time.sleep(0.25)
            assert database.people.count_documents({}) == 1
        """,
    )
    with clock.stepping(0.2):
        both = [project.begin("-n", "2"), project.begin("-n", "2")]
        assert [run.ends() for run in both] == [0, 0], "\n".join(run.text for run in both)
    assert project.nodes() == []
    assert project.runs() == []


def test_a_deployment_is_known_stopped_and_never_started_twice(stepped: Clone, clock: SteppingClock) -> None:
    stepped.succeeds("start")
    (mongod,) = stepped.mongods()
    for offset in sorted({*OFFSETS}):
        clock.step_to(offset)
        assert stepped.pid() == mongod.pid
        assert json.loads(stepped.succeeds("start", "--json"))["started"] == []
        assert leftovers(stepped) == []
        assert stepped.mongods() == [mongod]
    stepped.succeeds("stop")
    assert stepped.mongods() == []


def test_run_serves_while_it_steps_and_ends_what_it_started(stepped: Clone, clock: SteppingClock) -> None:
    with clock.stepping(0.2):
        running = stepped.begin("run")
        running.says("Serving")
        assert stepped.get("/readyz")[0] == 200
        assert leftovers(stepped) == []
        assert "Nothing was removed" in stepped.fails("clean", "--data", "--yes")
        assert stepped.get("/readyz")[0] == 200
        running.signal_group(signal.SIGINT)
        assert running.ends() == 130
    assert stepped.processes() == []


def leftovers(clone: Clone) -> list[str]:
    """What doctor takes for left over, or in the way."""
    done = clone.invoke("doctor", "--json", env={"PIP_NO_INDEX": "1"})
    return [
        each["what"]
        for each in json.loads(done.stdout)
        if each["level"] != "ok"
        and (each["check"] in ("leftovers", "data in use") or "port" in each["check"])
        and " of cluster, and held by"
        not in each["what"]  # another test may have the default ports of a cluster
    ]
