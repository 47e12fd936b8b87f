"""`setup` where everything is in place."""

from __future__ import annotations

import re
from pathlib import Path

from provision.core.errors import ProvisionError
from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject


def _ours(lab: Lab) -> float:
    root = lab.project().paths.root
    before = _files(root)
    done = lab.run(["./invoke", "setup"], root)
    touched = sorted(str(path) for path, _ in before ^ _files(root))
    steps = [line for line in done.output.splitlines() if re.match(r"\S", line)]
    changed = [line for line in steps if not re.match(r".{14,}? unchanged {4}", line)]
    if changed or touched or not steps:
        raise ProvisionError(
            "measuring ./invoke setup with everything in place",
            "It was to change nothing, but: " + "; ".join([*changed, *touched] or ["it showed no steps"]),
            "Type `invoke setup` twice and compare.",
        )
    return done.seconds


def _files(root: Path) -> set[tuple[Path, int]]:
    """Each file that is not in env/, with its time of change. Python's own byte code does not count."""
    kept = (path for path in root.rglob("*") if path.relative_to(root).parts[0] != "env")
    return {(path, path.stat().st_mtime_ns) for path in kept if path.is_file() and path.suffix != ".pyc"}


SUBJECT = Subject(
    "setup", "./invoke setup with everything in place, changing nothing", Bound(1.0, "s"), _ours
)
