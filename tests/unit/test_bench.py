"""The bench: what it makes of its measurements, and that it leaves nothing behind. No test looks at the clock."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import psutil
import pytest

from provision.core.errors import ProvisionError
from provision.settings.loading import Loaded
from provision.settings.paths import Paths
from provision.settings.schema import Settings
from tools import bench
from tools.bench.lab import MARK, Lab, free_ports
from tools.bench.load import Plan, Summary, WrongAnswerError, percentile, send
from tools.bench.measure import Bound, Result, Spread, Subject, measure
from tools.bench.report import BEGIN, COLUMNS, END, Machine, Report, replace_between, write_into
from tools.bench.subjects import ALL

MACHINE = Machine("2026-11-23T08:00:00+00:00", "Linux 6.1 x86_64", "", 2, "3.12.1", "8.0.17", 0.1, 0.4)


class FakeLab:
    """Records which trials ran, and hands out their seconds."""

    def __init__(self) -> None:
        self.trials: list[str] = []
        self.resets = 0

    def trial(self, name: str, seconds: list[float]) -> Callable[[Lab], float]:
        left = iter(seconds)

        def run(_lab: Lab) -> float:
            self.trials.append(name)
            return next(left)

        return run

    def reset(self) -> None:
        self.resets += 1


def invoke_help(task: str) -> str:
    """What `invoke --help TASK` prints."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", "--help", task],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout


def subject(bound: Bound | None = None, **given: Any) -> Subject:
    return dataclasses.replace(
        Subject("start", "./invoke start", bound, lambda _: 1.0, lambda _: 1.0, "the floor"), **given
    )


def measured(**given: Any) -> Result:
    return measure(
        cast("Subject", given.pop("subject")), cast("Lab", given.pop("lab")), busy=lambda: 3.0, **given
    )


def test_ours_and_theirs_alternate_and_the_warm_up_is_not_counted() -> None:
    lab = FakeLab()
    result = measured(
        lab=lab,
        subject=subject(
            ours=lab.trial("A", [9.0, 1.0, 2.0, 3.0]), theirs=lab.trial("B", [8.0, 2.0, 2.0, 2.0])
        ),
        runs=3,
    )
    assert lab.trials == ["A", "B"] * 4
    assert (result.ours, result.theirs) == ((1.0, 2.0, 3.0), (2.0, 2.0, 2.0))


def test_what_a_subject_found_besides_is_asked_after_the_last_run_and_shown() -> None:
    lab = FakeLab()
    found = subject(ours=lab.trial("A", [9.0, 1.0]), theirs=None, note=lambda _: f"after {len(lab.trials)}")
    result = measured(lab=lab, subject=found, runs=1)
    assert result.note == "after 2"
    assert "start: after 2" in list(Report(MACHINE, 1, (result,)).notes())


def test_ratios_are_formed_pair_by_pair() -> None:
    # A machine that became slow half-way: the medians' ratio would be 2, that of every pair is 1.
    result = Result(subject(), ours=(1.0, 2.0, 2.0), theirs=(1.0, 2.0, 2.0))
    assert result.ratios == (1.0, 1.0, 1.0)
    assert Result(subject(), ours=(1.0, 4.0), theirs=(2.0, 1.0)).ratios == (0.5, 4.0)


def test_a_spread_is_least_median_and_greatest() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(1.0, 2.0, 5.0)
    assert Spread.of([1.0, 2.0, 3.0, 9.0]).median == 2.5


@pytest.mark.parametrize(("ours", "holds"), [((1.3, 1.3, 9.0), True), ((1.31, 1.31, 0.1), False)])
def test_a_bound_on_the_ratio_is_held_against_its_median(ours: tuple[float, ...], holds: bool) -> None:
    assert Result(subject(Bound(1.3, "x")), ours, (1.0, 1.0, 1.0)).holds is holds


def test_a_bound_in_seconds_is_held_against_our_own_median() -> None:
    alone = subject(Bound(1.0, "s"), theirs=None)
    assert Result(alone, (0.9, 1.0, 5.0)).holds is True
    assert Result(alone, (0.9, 1.1, 5.0)).holds is False
    assert Result(alone, (0.9,)).ratios == ()


def test_without_a_bound_or_a_result_nothing_is_claimed() -> None:
    assert Result(subject(None), (1.0,), (1.0,)).holds is None
    assert Result(subject(Bound(1.0, "s")), skipped="no Docker").holds is None
    assert Result(subject(Bound(1.0, "s")), error="it broke").holds is None


def test_a_subject_that_can_not_be_measured_here_is_skipped_with_its_reason() -> None:
    lab = FakeLab()
    skipped = subject(ours=lab.trial("A", []), skip_reason=lambda _: "mlaunch is not installed")
    result = measured(lab=lab, subject=skipped, runs=5)
    assert (lab.trials, result.skipped) == ([], "mlaunch is not installed")


def test_a_failing_trial_becomes_a_result_and_what_it_left_is_ended() -> None:
    def fails(_lab: Lab) -> float:
        raise ProvisionError("measuring ./invoke start", "It ended with status 1.\nlast line", "Look.")

    lab = FakeLab()
    result = measured(lab=lab, subject=subject(Bound(1.3, "x"), ours=fails), runs=5)
    assert result.error == "measuring ./invoke start: It ended with status 1.\nlast line"
    assert lab.resets == 1
    report = Report(MACHINE, 5, (result,))
    assert report.failed
    assert report.rows()[0][-1] == "failed"
    assert "start: failed: measuring ./invoke start: It ended with status 1." in list(report.notes())


def test_a_busy_machine_and_values_far_apart_are_called_noise() -> None:
    quiet = Result(subject(), (1.0, 1.1), (1.0, 1.1), busy=(2.0, 4.0))
    assert quiet.noise == ()
    assert Result(subject(), (1.0, 1.1), busy=(40.0, 60.0)).noise == ("other processes used 50 % of the CPU",)
    assert Result(subject(), (1.0, 2.0), (1.0, 1.0)).noise == ("ours lie far apart",)


def test_the_table_shows_bound_and_verdict_beside_each_figure() -> None:
    holding = Result(subject(Bound(1.3, "x")), (1.0, 1.2, 1.1), (1.0, 1.0, 1.0))
    missing = Result(subject(Bound(1.0, "s"), theirs=None), (1.5, 1.5, 1.5), busy=(90.0,))
    skipped = Result(subject(Bound(0.4, "x")), skipped="no python3")
    rows = Report(MACHINE, 3, (holding, missing, skipped)).rows()
    assert rows[0] == (
        "start", "1.10 s (1.00–1.20)", "1.00 s (1.00–1.00)", "1.10 × (1.00–1.20)", "≤ 1.3 ×", "yes"
    )  # fmt: skip
    assert rows[1] == ("start", "1.50 s (1.50–1.50)", "–", "–", "≤ 1.0 s", "NO (noisy)")
    assert rows[2] == ("start", "–", "–", "–", "≤ 0.4 ×", "skipped")
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_notes_name_the_machine_and_call_few_runs_a_try() -> None:
    few, enough = (list(Report(MACHINE, runs, ()).notes()) for runs in (bench.RUNS - 1, bench.RUNS))
    assert "a try, not a result" in few[-2]
    assert "a try" not in enough[-2]
    for fact in ("2 cores", "mongod 8.0.17", "load average 0.1 before, 0.4 after"):
        assert fact in enough[-1]


def test_help_and_documentation_say_of_the_exit_status_what_bench_does(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    misses = Result(subject(Bound(1.3, "x")), (2.0,), (1.0,))
    assert misses.holds is False
    statuses = []
    for result in (misses, Result(subject(), error="mongod ended")):
        report = Report(MACHINE, 5, (result,))
        monkeypatch.setattr(bench, "run", lambda *_, report=report: report)
        statuses.append(bench.measured(loaded, (), 5).status)
    assert statuses == [0, 1]
    root = Path(__file__).parents[2]
    page = " ".join((root / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    assert "could not be measured is (exit status 1)" in page
    told = " ".join(invoke_help("bench").split())
    assert "Exits with 1 if a figure could not be measured." in told
    assert "A bound that is missed is shown, and is not a failure." in told


def test_json_carries_samples_ratios_and_verdicts() -> None:
    result = Result(subject(Bound(1.3, "x")), (1.0, 3.0), (1.0, 2.0), busy=(1.0, 2.0))
    found = json.loads(json.dumps(Report(MACHINE, 2, (result,)).as_json()))
    assert found["runs"] == 2
    assert found["machine"]["cores"] == 2
    (one,) = found["results"]
    assert one["bound"] == {"at_most": 1.3, "unit": "x"}
    assert one["ours"] == {"min": 1.0, "median": 2.0, "max": 3.0, "samples": [1.0, 3.0]}
    assert one["ratio"]["samples"] == [1.0, 1.5]
    assert (one["holds"], one["skipped"], one["error"]) == (True, None, None)
    assert one["note"] is None
    (skipped,) = Report(MACHINE, 2, (Result(subject(), skipped="why"),)).as_json()["results"]
    assert (skipped["ours"], skipped["holds"], skipped["skipped"]) == (None, None, "why")


def test_markdown_has_a_row_for_each_figure_and_escapes_bars() -> None:
    lines = Report(MACHINE, 5, (Result(subject(name="a|b"), (1.0,), (1.0,)),)).markdown().splitlines()
    assert lines[1].count("|") == len(COLUMNS) + 1
    assert lines[2].startswith("| a\\|b | 1.00 s")


def test_results_are_written_between_the_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    report = Report(MACHINE, 5, ())
    write_into(document, report)
    assert document.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{report.markdown()}\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_document_without_both_markers_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="markers"):
        replace_between(text, "new")
    document = tmp_path / "benchmarks.md"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(ProvisionError, match="markers"):
        write_into(document, Report(MACHINE, 5, ()))
    assert document.read_text(encoding="utf-8") == text


def test_the_documentation_explains_every_subject_and_has_room_for_the_results() -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert replace_between(text, "x") != text
    for each in ALL:
        assert f"`{each.name}`" in text
        assert each.bound is None or str(each.bound) in text


def test_every_subject_has_a_bound_that_its_measurements_can_be_held_against() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    for each in ALL:
        if each.name in (
            "log-in-requests",
            "log-in-p99",
            "hosts-1",
            "hosts-3",
            "hosts-6",
        ):  # shown for information
            assert each.bound is None
            continue
        assert each.bound is not None
        assert (each.bound.unit == "x") == (each.theirs is not None) == bool(each.theirs_label)


def test_subjects_are_chosen_by_name_and_an_unknown_name_lists_them() -> None:
    assert [each.name for each in bench.choose(["start", "list"])] == ["list", "start"]
    assert bench.choose([]) == list(ALL)
    with pytest.raises(ProvisionError, match=r"'strat'[\s\S]*setup-fresh"):
        bench.choose(["strat"])


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    root = tmp_path / "project"
    for folder in ("env/bin", "data", "log", ".state", ".git", "provision/__pycache__", ".ruff_cache"):
        (root / folder).mkdir(parents=True)
        (root / folder / "file").write_text(folder, encoding="utf-8")
    (root / "mongod.conf").touch()
    (root / "mongod.conf.j2").touch()
    (root / "tasks.py").touch()
    return Loaded(Settings(), Paths.of(root, "data", "log", str(tmp_path / "cache")), {})


@pytest.fixture
def lab(loaded: Loaded) -> Iterator[Lab]:
    with Lab(loaded, lambda _: None) as entered:
        yield entered


def python(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(lines)]


DAEMON = (
    "import subprocess, sys",
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)",
    "print(child.pid, flush=True)",
)


def test_a_copy_holds_what_a_clone_would(lab: Lab) -> None:
    copy = lab.copy("clone")
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == [
        "mongod.conf.j2",
        "provision",
        "tasks.py",
    ]


def test_leaving_the_lab_ends_what_was_started_there_and_removes_it(loaded: Loaded) -> None:
    with Lab(loaded, lambda _: None) as lab:
        pid = int(lab.run(python(*DAEMON), lab.folder).output)
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert list((loaded.paths.state / "bench").iterdir()) == []


def test_what_a_killed_bench_left_is_removed_by_the_next(loaded: Loaded) -> None:
    left = loaded.paths.state / "bench" / "left"
    left.mkdir(parents=True)
    with (
        subprocess.Popen(
            python("import time", "print('runs', flush=True)", "time.sleep(600)"),
            env={**os.environ, MARK: str(left)},
            stdout=subprocess.PIPE,
        ) as orphan,
    ):
        assert orphan.stdout is not None
        assert (
            orphan.stdout.readline() == b"runs\n"
        )  # a process that is only just made shows no environment yet
        with Lab(loaded, lambda _: None):
            assert orphan.poll() == -signal.SIGKILL
            assert not left.exists()


def test_processes_of_others_are_not_touched(loaded: Loaded) -> None:
    with subprocess.Popen(python("import time; time.sleep(600)")) as foreign:
        try:
            with Lab(loaded, lambda _: None) as lab:
                lab.reset()
            assert foreign.poll() is None
        finally:
            foreign.kill()


def test_a_process_that_fails_is_an_error_with_what_it_printed(lab: Lab) -> None:
    with pytest.raises(ProvisionError, match=r"status 3 instead of 0[\s\S]*no mongod here"):
        lab.run(python("import sys", "print('no mongod here')", "sys.exit(3)"), lab.folder)
    with pytest.raises(ProvisionError, match="No such file"):
        lab.run(["./not-there"], lab.folder)


def test_the_measured_processes_never_get_the_users_data_or_ports(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOKE_PATHS_DATA", "/srv/mongodb")
    monkeypatch.setenv("MONGODB_URI", "mongodb://production.example/")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    with Lab(loaded, lambda _: None) as lab:
        environment = lab.environment
        ports = {environment["INVOKE_APP_PORT"], environment["INVOKE_DEPLOYMENTS_LOCAL_PORT"]}
    assert (environment["INVOKE_PATHS_DATA"], environment["INVOKE_PATHS_LOG"]) == ("data", "log")
    assert ports.isdisjoint({"8000", "27017"})
    assert "MONGODB_URI" not in environment
    assert "PYTHONPATH" not in environment


def test_waiting_for_an_answer_ends_when_the_process_does(lab: Lab) -> None:
    (port,) = free_ports(1)
    with (
        lab.started(python("raise SystemExit('import failed')"), lab.folder) as process,
        pytest.raises(ProvisionError, match="import failed"),
    ):
        process.until_ok(port, "/readyz")


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


class Answers(BaseHTTPRequestHandler):
    """A server that keeps connections open, and counts what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        self._answer(200 if self.path == "/people" else 500)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(f"POST {self.path} {body}")
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"a-a-")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is to be said."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(Answers, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([float(n) for n in range(1000, 0, -1)], 99) == 990.0
    assert percentile([float(n) for n in range(1, 101)], 99) == 99.0
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([7.0], 99) == 7.0


def test_a_load_sends_just_as_many_requests_as_planned(answers: int) -> None:
    plan = Plan("/people", requests=10, warm_up=3, connections=4, marker="a-", marked=2)
    assert plan.shares(10) == [3, 3, 2, 2]
    assert Plan.from_json(plan.as_json()) == plan
    summary = send(answers, plan, plan.requests)
    assert summary.requests == 10
    assert Answers.asked == ["GET /people"] * 10
    assert 0 < summary.p99 <= summary.seconds
    send(answers, Plan("/log-in", 1, 0, 1, body={"email": "a"}), 1)
    assert Answers.asked[-1] == 'POST /log-in {"email": "a"}'


@pytest.mark.parametrize(
    ("path", "marked", "message"), [("/broken", 2, "answered with 500"), ("/people", 3, "'a-' 3 times")]
)
def test_a_wrong_answer_under_load_is_no_figure(answers: int, path: str, marked: int, message: str) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        send(answers, Plan(path, 4, 0, 2, marker="a-", marked=marked), 4)


def test_a_summary_holds_all_requests() -> None:
    assert Summary.of([0.1, 0.3, 0.2], 0.4) == Summary(3, 0.4, 0.3)
    assert Summary.from_json('{"requests": 3, "seconds": 0.4, "p99": 0.3}') == Summary(3, 0.4, 0.3)


def test_programs_in_strings_name_modules_that_are_there() -> None:
    named = re.compile(
        r"(?:from|import) ((?:provision|tools|flaskbook)[\w.]*)|^((?:tools|flaskbook)\.[\w.]+)(?::\w+)?$"
    )
    found = {
        match[1] or match[2]
        for path in (Path(__file__).parents[2] / "tools").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in named.finditer(node.value)
    }
    assert {"provision.data.seed", "tools.bench.load", "tools.bench.bare", "tools.bench.fixture"} <= found
    assert [name for name in sorted(found) if importlib.util.find_spec(name) is None] == []
