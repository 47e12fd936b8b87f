"""The mongod that `setup` chose, remembered with the facts it was accepted with.

Read by every `start`: two stats and one small file, no subprocess, no heavy import.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from provision.mongodb.binaries.model import Choice, Mongod, Source
from provision.state import records

if TYPE_CHECKING:
    from provision.settings.paths import Paths
    from provision.settings.schema import MongodbSettings

FileFacts = tuple[int, int, int]


def recorded(paths: Paths, settings: MongodbSettings, file: Path | None = None) -> Mongod | None:
    """The mongod accepted earlier, if the record still describes it.

    Args:
        settings: section `mongodb`; a record made under other settings does not count.
        file: the record; None: that of this machine's mongod.

    Returns:
        The mongod; None where there is no record, the settings have changed, or the file is no longer the
        one that was run: other size, modification time or inode.
    """
    record = records.MONGOD.load(file or paths.mongod_record)
    if record is None or record.get("settings") != settings_digest(settings):
        return None
    try:
        mongos = Path(record["mongos"]) if record["mongos"] is not None else None
        mongod = Mongod(Path(record["path"]), str(record["version"]), Source(record["source"]), mongos)
        accepted = (record["size"], record["mtime_ns"], record["inode"])
        if file_facts(mongod.path) != accepted or (mongos is not None and not mongos.is_file()):
            return None
    except (KeyError, TypeError, ValueError, OSError):
        return None
    return mongod


def remember(
    choice: Choice, facts: FileFacts, paths: Paths, settings: MongodbSettings, file: Path | None = None
) -> None:
    """Write the record, atomically and for its user alone.

    Args:
        facts: of the binary, read before it was run: a file exchanged meanwhile is not taken for it.
        settings: section `mongodb` as it was when the choice was made.
        file: the record; None: that of this machine's mongod.

    Raises OSError: it cannot be written.
    """
    mongod = choice.mongod
    size, mtime_ns, inode = facts
    paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    records.MONGOD.store(
        file or paths.mongod_record,
        {
            "path": str(mongod.path),
            "version": mongod.version,
            "source": mongod.source.value,
            "mongos": str(mongod.mongos) if mongod.mongos is not None else None,
            "size": size,
            "mtime_ns": mtime_ns,
            "inode": inode,
            "settings": settings_digest(settings),
            "refusals": [{"source": refusal.source.value, "why": refusal.why} for refusal in choice.refusals],
        },
    )


def file_facts(path: Path) -> FileFacts:
    """Size in bytes, modification time in ns, and inode of the file.

    Raises OSError: it is not there.
    """
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def settings_digest(settings: MongodbSettings) -> str:
    """A digest of the settings that decide which mongod is taken; a mirror's password is not readable in it."""
    deciding = [settings.source, settings.path, settings.version, settings.mirror]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()
