"""`setup` and `start` from nothing, beside the same by hand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject
from tools.bench.subjects.start import FLOOR, floor_config, node_environment

_BY_HAND = """
virtualenv=$1 floor=$2 mongod=$3 port=$4 set=$5 config=$6
"$virtualenv" -p python3 env
env/bin/pip install -r requirements.txt -r requirements-run.txt
mkdir -p data log
printf '%s' "$config" > mongod.conf
env/bin/python "$floor" "$port" "$set" "$mongod" --config mongod.conf
"""


def _ours(lab: Lab) -> float:
    clone = lab.copy("fresh")
    done = lab.run(["sh", "-e", "-c", "./invoke setup && ./invoke start"], clone)
    lab.run(["./invoke", "stop"], clone)
    lab.discard(clone)
    return done.seconds


def _theirs(lab: Lab) -> float:
    project = lab.project()
    clone = lab.copy("by-hand")
    done = lab.run(
        [
            *("sh", "-e", "-c", _BY_HAND, "by-hand"),
            str(Path(sys.executable).with_name("virtualenv")),
            str(FLOOR),
            str(project.mongod.path),
            str(lab.floor_port),
            str(lab.node.replica_set),
            floor_config(lab, project, clone / "data", clone / "log" / "mongod.log"),
        ],
        clone,
        {**node_environment(project), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    lab.end(int(done.output.split()[-1]))
    lab.discard(clone)
    return done.seconds


def _skip_reason(lab: Lab) -> str | None:
    if shutil.which("python3", path=lab.environment["PATH"]) is None:
        return "there is no python3 on the PATH to make a virtualenv with by hand."
    return None


SUBJECT = Subject(
    "setup-fresh",
    "./invoke setup && ./invoke start in a fresh clone, with warm caches (packages, mongod)",
    Bound(0.4, "x"),
    _ours,
    _theirs,
    "virtualenv -p python3 env, pip install -r requirements.txt -r requirements-run.txt, mkdir, "
    "writing mongod.conf, and the floor of start",
    _skip_reason,
)
