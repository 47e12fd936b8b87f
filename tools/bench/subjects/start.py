"""`start` beside the floor: mongod started directly and probed on its socket."""

from __future__ import annotations

from pathlib import Path

from tools.bench.lab import Lab, Project
from tools.bench.measure import Bound, Subject

FLOOR = Path(__file__).resolve().parent.parent / "floor.py"
FLOOR_LABEL = "the floor (bench/floor.py: mongod started directly, probed on its socket every 10 ms, PyMongo)"


def floor_config(lab: Lab, project: Project, data: Path, log: Path) -> str:
    """What our own mongod.conf says, for other places and another port: both sides start the same mongod."""
    import yaml

    config = yaml.safe_load(project.paths.node_conf("local", "mongod").read_text(encoding="utf-8"))
    config["storage"]["dbPath"] = str(data)
    config["systemLog"]["path"] = str(log)
    config["net"]["port"] = lab.floor_port
    return str(yaml.safe_dump(config))


def run_floor(lab: Lab, project: Project, emptied: bool) -> tuple[float, int]:
    """Start a mongod by the floor.

    Args:
        lab: where.
        project: whose interpreter and mongod.
        emptied: begin with no data.

    Returns:
        Seconds to the acknowledged majority write, and mongod's pid: it runs still.
    """
    data = lab.emptied("floor") if emptied else lab.folder / "floor"
    data.mkdir(exist_ok=True)
    config = lab.folder / "floor.conf"
    config.write_text(floor_config(lab, project, data, lab.folder / "floor.log"), encoding="utf-8")
    done = lab.run(
        [
            *(str(project.python), str(FLOOR), str(lab.floor_port), str(lab.node.replica_set)),
            *(str(project.mongod.path), "--config", str(config)),
        ],
        project.paths.root,
        node_environment(project),
    )
    return done.seconds, int(done.output)


def node_environment(project: Project) -> dict[str, str]:
    """The variables that this mongod needs on this machine, which a careful user would set as well."""
    from provision.mongodb import binaries

    return dict(binaries.environment(project.mongod.version))


def empty_data(project: Project) -> None:
    """Remove the data and logs of a copy that is not running."""
    import shutil

    for folder in (project.paths.data, project.paths.log):
        for each in folder.iterdir():
            shutil.rmtree(each)


def _ours(lab: Lab, emptied: bool) -> float:
    project = lab.project()
    if emptied:
        empty_data(project)
    done = lab.run(["./invoke", "start"], project.paths.root)
    lab.run(["./invoke", "stop"], project.paths.root)
    return done.seconds


def _theirs(lab: Lab, emptied: bool) -> float:
    seconds, pid = run_floor(lab, lab.project(), emptied)
    lab.end(pid, gently=not emptied)
    return seconds


EMPTIED = Subject(
    "start",
    "./invoke start to its end (a majority write was acknowledged), with an emptied data directory",
    Bound(1.3, "x"),
    lambda lab: _ours(lab, emptied=True),
    lambda lab: _theirs(lab, emptied=True),
    FLOOR_LABEL,
)
USED = Subject(
    "start-used",
    "./invoke start as above, with data that were shut down properly",
    Bound(1.3, "x"),
    lambda lab: _ours(lab, emptied=False),
    lambda lab: _theirs(lab, emptied=False),
    FLOOR_LABEL,
)
