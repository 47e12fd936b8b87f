"""``--mongodb-versions=7.0,8.0``: the run once for each, in a process of its own, and one summary."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from provision.core.dataclass import dataclass
from provision.core.files import read_json, write_json

VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_KILLED = 3
_COUNTED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
_FAILED = ("failed", "error")


@dataclass(frozen=True)
class Outcome:
    """How the run of one version ended."""

    name: str
    status: int  # pytest's exit status
    counts: str  # ``3 passed, 1 failed``
    failed: tuple[str, ...]  # node ids


def named(text: str) -> list[str]:
    """The versions or paths of a list.

    Raises UsageError: one is named twice, or is neither.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not VERSION.fullmatch(name) and not Path(name).expanduser().is_file():
            raise pytest.UsageError(
                f"--mongodb-versions: {name} is neither a version (8.0 or 8.0.17) nor the path of a mongod"
            )
    if len(set(names)) < len(names):
        raise pytest.UsageError(f"--mongodb-versions={text}: each version once")
    return names


def run(config: pytest.Config, names: Sequence[str], kind: str) -> int:
    """Run pytest for each version, one after the other.

    Returns: The exit status: 0 if each of them has passed.
    """
    if kind == "uri":
        raise pytest.UsageError("--mongodb-versions: the server that --mongodb names has but one version")
    outcomes = []
    for name in names:
        sys.stdout.write(f"\nmongodb: the run with {name}\n")
        sys.stdout.flush()
        with tempfile.TemporaryDirectory(prefix="provision-pytest-outcome-") as folder:
            file = Path(folder) / "outcome.json"
            status = _run(command(config, name, kind, file))
            found = read_json(file) or {}
        outcomes.append(Outcome(name, status, str(found.get("counts", "")), tuple(found.get("failed", ()))))
        if status == pytest.ExitCode.INTERRUPTED:
            break
    sys.stdout.write("\n".join(summary(outcomes, len(names))) + "\n")
    return max(outcome.status for outcome in outcomes)


def command(config: pytest.Config, name: str, kind: str, file: Path) -> list[str]:
    """The command of one version's run: what was typed, with the version."""
    program = Path(sys.argv[0])
    # As it was started: that decides what stands first on Python's path.
    start = [str(program)] if program.is_file() and program.name != "__main__.py" else ["-m", "pytest"]
    typed = [*config.invocation_params.args]
    end = typed.index("--") if "--" in typed else len(typed)
    more = ["--mongodb-versions=", f"--mongodb-outcome={file}"]
    more.append(f"--mongodb-image=mongo:{name}" if kind == "container" else f"--mongod={name}")
    if xml := getattr(config.option, "xmlpath", None):
        path = Path(xml)
        safe = re.sub(r"[^\w.-]+", "-", name).strip("-")
        more.append(f"--junitxml={path.with_name(f'{path.stem}-{safe}{path.suffix}')}")
    return [sys.executable, *start, *map(str, typed[:end]), *more, *map(str, typed[end:])]


def _run(words: Sequence[str]) -> int:
    process = subprocess.Popen(words)
    interrupted = False
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:  # it got that, too, and ends its server
            interrupted = True
    if interrupted:
        return int(pytest.ExitCode.INTERRUPTED)
    return status if status >= 0 else _KILLED


def summary(outcomes: Sequence[Outcome], wanted: int) -> list[str]:
    """One line for each version, and the tests that failed, with the versions they failed with. Pure."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = ["", " MongoDB versions ".center(80, "=")]
    for outcome in outcomes:
        ended = outcome.counts or f"exit status {outcome.status}"
        lines.append(f"{outcome.name:<{width}}  {'passed' if outcome.status == 0 else 'FAILED'}  {ended}")
    tests = {test: None for outcome in outcomes for test in outcome.failed}
    for test in tests:
        lines.append(f"FAILED {test} with {', '.join(each.name for each in outcomes if test in each.failed)}")
    if len(outcomes) < wanted:
        lines.append(f"interrupted: {wanted - len(outcomes)} not run")
    return lines


def record(terminalreporter: Any, file: str) -> None:
    """Write down how this run ended, for the summary of all versions."""
    stats = terminalreporter.stats
    counts = [f"{len(stats[kind])} {kind}" for kind in _COUNTED if stats.get(kind)]
    failed = [report.nodeid for kind in _FAILED for report in stats.get(kind, ())]
    with contextlib.suppress(OSError):
        write_json(Path(file), {"counts": ", ".join(counts), "failed": failed})
