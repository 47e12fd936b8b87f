"""`snapshot.save` and `snapshot.restore` beside copying the same files and starting on them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.bench.lab import Lab, Project
from tools.bench.measure import Bound, Subject
from tools.bench.subjects import start

_DOCUMENTS = 200_000
# Random text, so that compression leaves 350 MB of it.
_FILL = """
import os, sys
from pymongo import MongoClient
with MongoClient(sys.argv[1]) as client:
    found, count = client.bench.documents, int(sys.argv[2])
    if found.estimated_document_count() != count:
        found.drop()
        for begun in range(0, count, 2000):
            found.insert_many({"_id": n, "text": os.urandom(850).hex()} for n in range(begun, begun + 2000))
        client.admin.command("fsync")
"""


def _started(lab: Lab) -> Project:
    """A project whose deployment runs, with the documents."""
    project = lab.project()
    root = project.paths.root
    lab.run(["./invoke", "start"], root)
    uri = lab.run(["./invoke", "uri"], root).output.strip()
    lab.run([str(project.python), "-c", _FILL, uri, str(_DOCUMENTS)], root)
    # Without the journal of the filling, which is larger than the data.
    lab.run(["./invoke", "stop"], root)
    lab.run(["./invoke", "start"], root)
    return project


def _ours(lab: Lab) -> float:
    project = _started(lab)
    root = project.paths.root
    try:
        save = lab.run(["./invoke", "snapshot.save", "bench"], root).seconds
        return save + lab.run(["./invoke", "snapshot.restore", "bench", "--yes"], root).seconds
    finally:
        lab.run(["./invoke", "snapshot.delete", "bench", "--yes"], root)
        lab.run(["./invoke", "stop"], root)
        shutil.rmtree(project.paths.node_data("local", ".undo"), ignore_errors=True)


def _theirs(lab: Lab) -> float:
    project = _started(lab)
    root = project.paths.root
    data, seconds = project.paths.node_data("local", "mongod"), 0.0
    for copy in (data.with_name("first"), data.with_name("second")):
        lab.run(["./invoke", "stop"], root)
        seconds += lab.run(["sh", "-c", f"cp -r '{data}' '{copy}' && sync -f '{copy}'"], root).seconds
        seconds += lab.run(["./invoke", "start"], root).seconds
        shutil.rmtree(copy)
    lab.run(["./invoke", "stop"], root)
    return seconds


def _reflinked(lab: Lab) -> float:
    data = lab.project().paths.data
    with _sharing_blocks(lab, data):
        return _ours(lab)


@contextlib.contextmanager
def _sharing_blocks(lab: Lab, data: Path) -> Iterator[None]:
    """An XFS of its own in the place of the data folder, which is as it was afterwards."""
    image = lab.folder / "xfs.img"
    with image.open("wb") as file:
        file.truncate(4 << 30)
    lab.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], lab.folder)
    data.mkdir(parents=True, exist_ok=True)
    lab.run(["mount", "-o", "loop", str(image), str(data)], lab.folder)
    try:
        yield
    finally:
        lab.run(["umount", str(data)], lab.folder)
        image.unlink()


def _no_xfs(lab: Lab) -> str | None:
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        return "it mounts an XFS: it needs root and mkfs.xfs (Debian: apt-get install xfsprogs)"
    return start.EMPTIED.skip_reason(lab)


SUBJECT = Subject(
    "snapshot",
    f"saving and restoring a snapshot of {_DOCUMENTS:,} documents (350 MB), with checksums, to a majority write on it",
    Bound(1.3, "x"),
    _ours,
    _theirs,
    "the files copied to the disk by cp, and one start of the deployment, twice",
    start.EMPTIED.skip_reason,
)
REFLINKED = Subject(
    "snapshot-reflink",
    f"saving and restoring a snapshot of {_DOCUMENTS:,} documents (350 MB) on a file system that shares blocks (XFS)",
    Bound(2.0, "s"),
    _reflinked,
    skip_reason=_no_xfs,
)
