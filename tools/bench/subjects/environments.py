"""`ps` with ten environments on the list."""

from __future__ import annotations

import json
import os
from pathlib import Path

from provision.core.errors import ProvisionError
from provision.core.files import write_json
from provision.settings.paths import Paths
from provision.state import records
from provision.state.process_identity import this_process
from provision.state.slots import DeploymentUp, Entry, NodeUp, as_file
from tools.bench.lab import Lab
from tools.bench.measure import Bound, Subject

_COUNT = 10


def _ours(lab: Lab) -> float:
    root = lab.project().paths.root
    state = lab.emptied("ps")
    entries = [_entry(state / f"shop-{number}", number) for number in range(_COUNT)]
    write_json(state / "provision" / "slots.json", as_file(entries))
    done = lab.run(["./invoke", "ps", "--json"], root, {"XDG_STATE_HOME": str(state)})
    found = [there["state"] for each in json.loads(done.output) for there in each["deployments"]]
    if found != ["running"] * _COUNT:
        raise ProvisionError(
            "measuring ./invoke ps", f"It found {', '.join(found) or 'nothing'}.", "Type `invoke ps`."
        )
    return done.seconds


def _entry(root: Path, number: int) -> Entry:
    """A folder with a branch and a node on record. Which process that is makes no difference to who looks."""
    head = root / ".git" / "HEAD"
    head.parent.mkdir(parents=True)
    head.write_text(f"ref: refs/heads/branch-{number}\n", encoding="ascii")
    process = this_process().as_record()
    paths, port = Paths.of(root, "data", "log", os.devnull), 20_000 + 200 * number
    records.NODE.store(paths.node_record("local", "mongod"), {**process, "port": port})
    up = DeploymentUp("processes", f"mongodb://127.0.0.1:{port}/", (NodeUp("mongod", port, process),))
    return Entry(root, "shop", number, deployments={"local": up})


SUBJECT = Subject("ps", f"./invoke ps with {_COUNT} environments on the list", Bound(0.5, "s"), _ours)
