"""A replica set of three as processes, beside mlaunch of mtools, which the bench installs for itself."""

from __future__ import annotations

import shutil
import sys

from provision.core.errors import ProvisionError
from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject
from tools.bench.subjects.deployments import declare

_PEER = "mtools[mlaunch]==1.7.2"
_SETTINGS = {"topology": "replica-set", "backend": "processes", "members": 3}
_LABEL = "mlaunch init --replicaset --nodes 3 (mtools 1.7.2)"


def _ours(lab: Lab, wait: str) -> float:
    project, name = declare(lab, "set", _SETTINGS)
    root = project.paths.root
    done = lab.run(["./invoke", "cluster.up", "--on", name, "--wait", wait], root)
    lab.run(["./invoke", "cluster.down", "--on", name, "--delete-data", "--yes"], root)
    return done.seconds


def _theirs(lab: Lab) -> float:
    data = lab.emptied("mlaunch-data")
    mlaunch = lab.folder / "mlaunch" / "bin" / "mlaunch"
    project, _ = declare(lab, "set", _SETTINGS)
    done = lab.run(
        [
            *(str(mlaunch), "init", "--replicaset", "--nodes", "3"),
            *("--dir", str(data), "--port", str(lab.floor_port)),
            *("--binarypath", str(project.mongod.path.parent)),
            *("--wiredTigerCacheSizeGB", str(lab.node.cache_size_gb)),
        ],
        lab.folder,
    )
    lab.run([str(mlaunch), "kill", "--dir", str(data)], lab.folder)
    return done.seconds


def _skip_reason(lab: Lab) -> str | None:
    """mlaunch goes into a virtualenv of the lab, gone with it; without an index there is no comparison."""
    folder = lab.folder / "mlaunch"
    if (folder / "bin" / "mlaunch").is_file():
        return None
    try:
        lab.run([sys.executable, "-m", "venv", str(folder)], lab.folder)
        lab.run([str(folder / "bin" / "pip"), "install", "--quiet", _PEER], lab.folder)
    except ProvisionError:
        shutil.rmtree(folder, ignore_errors=True)
        return f"{_PEER} can't be installed from the package index."
    return None


WRITABLE = Subject(
    "set-writable",
    "./invoke cluster.up --wait writable of a replica set of three, to its end (a majority write was acknowledged)",
    Bound(0.35, "x"),
    lambda lab: _ours(lab, "writable"),
    _theirs,
    _LABEL,
    _skip_reason,
)
HEALTHY = Subject(
    "set-healthy",
    "./invoke cluster.up of a replica set of three, until every member is healthy",
    Bound(0.85, "x"),
    lambda lab: _ours(lab, "healthy"),
    _theirs,
    _LABEL,
    _skip_reason,
)
