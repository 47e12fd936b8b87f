"""Why a mongod ended, in words, from its exit status and its log. Pure.

https://www.mongodb.com/docs/manual/reference/exit-codes/
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from provision.core.dataclass import dataclass
from provision.mongodb.config import Layout
from provision.mongodb.logs import last_run

_NEEDS_OTHER_VERSION = 62


# WT_PANIC and WT_TRY_SALVAGE: https://source.wiredtiger.com/develop/error_handling.html
_CORRUPT = re.compile(
    r"-31804\b|-31809\b|due to data corruption|starting MongoDB with --repair|An incomplete repair"
)


# https://www.mongodb.com/docs/manual/reference/command/setFeatureCompatibilityVersion/
_UNFINISHED = "missing featureCompatibilityVersion document"


@dataclass(frozen=True)
class Salvage:
    """What can be done about data that are corrupt depends on these."""

    deployment: str
    here: bool  # the data are in a directory of this machine
    mongod: str  # the binary that repairs them
    others: bool  # other members of its replica set hold the same data
    replica_set: str | None  # name of the set that it forms; None: it stands alone


def is_corrupt(log: Sequence[str]) -> bool:
    """Whether a mongod's last run has found its data corrupt, from its last raw log lines. Pure."""
    return _CORRUPT.search("\n".join(last_run(log))) is not None


def is_unfinished(log: Sequence[str]) -> bool:
    """Whether a mongod's last run found data that an earlier one was making when it ended. Pure.

    `log`: its last raw lines.
    """
    return _UNFINISHED in "\n".join(last_run(log))


def _explain_unfinished(data: str, salvage: Salvage, how: str) -> tuple[str, str]:
    on = f" --on {salvage.deployment}"
    cause = f"The data files in {data} are not complete{how}: MongoDB ended while it was making them."
    if salvage.here:
        aside = shlex.quote(f"{data}.unfinished")
        return cause, (
            f"Set them aside, and they are made anew:\nmv {shlex.quote(data)} {aside}\ninvoke cluster.up{on}"
        )
    return cause, (
        f"If it was never up on them, they hold nothing. Delete them, and they are made anew:\n"
        f"invoke cluster.down --delete-data{on}\ninvoke cluster.up{on}"
    )


def explain_corruption(data: str, salvage: Salvage, how: str = "") -> tuple[str, str]:
    """Say that data are corrupt, and what can be done. Pure.

    https://www.mongodb.com/docs/manual/tutorial/recover-data-following-unexpected-shutdown/

    Args:
        data: the data directory, as its mongod sees it.
        how: how mongod ended, as an addition to the sentence.
    """
    cause = (
        f"The data files in {data} are corrupt{how}: a disk that failed, a power cut, or files that were changed by hand. "
        "They are kept as they are."
    )
    on = f" --on {salvage.deployment}"
    anew = f"invoke cluster.down --delete-data{on}"
    if not salvage.here:
        return cause, f"Put back a backup of them, or start anew without them: {anew}"
    folder, aside = shlex.quote(data), shlex.quote(f"{data}.corrupt")
    if salvage.others:
        return cause, (
            "The other members have the same data. Set these aside, and they are copied from the others:\n"
            f"mv {folder} {aside}\ninvoke cluster.up{on}"
        )
    steps = [
        "Keep a copy, then have mongod repair what can be repaired:",
        f"cp -a {folder} {aside}",
        f"{shlex.quote(salvage.mongod)} --dbpath {folder} --repair",
    ]
    if salvage.replica_set is None:
        steps.append(f"invoke start{on}")
    else:
        # Repaired data may not be a member's: the set is made anew of them.
        null = f"INVOKE_DEPLOYMENTS_{salvage.deployment.upper().replace('-', '_')}_REPLICA_SET=null"
        steps += [
            f"{null} invoke start{on}",
            f"{null} invoke shell{on} --python --eval 'client.drop_database(\"local\")'",
            f"invoke restart{on}",
        ]
    steps += [
        "Or put back a backup; or set them aside, and start without them:",
        f"mv {folder} {aside}",
        f"invoke start{on}",
    ]
    return cause, "\n".join(steps)


def explain_death(
    status: int | None, log: Sequence[str], layout: Layout, salvage: Salvage | None = None
) -> tuple[str, str]:
    """Say why a mongod that was just started is gone.

    Args:
        status: its exit status; negative for a signal; None: not known.
        log: its last raw log lines, oldest first.

    Returns: The cause, and what to type or change next.
    """
    text = "\n".join(last_run(log))
    how = _ending(status)
    if (
        status == _NEEDS_OTHER_VERSION
        or "UPGRADE PROBLEM" in text
        or re.search(r"unsupported WiredTiger (source )?file version", text)
    ):
        return (
            f"The data files in {layout.data} were written by a version of MongoDB that this mongod can't read{how}. "
            "They are untouched.",
            "Start them with the version that wrote them (mongodb.path or mongodb.version in invoke.yaml), or use "
            "another\ndata directory (paths.data). https://www.mongodb.com/docs/manual/release-notes/",
        )
    if "DBPathInUse" in text or "Unable to lock the lock file" in text:
        return (
            f"Another mongod uses the data directory {layout.data}{how}.",
            "Stop that one (`invoke doctor` names it), or use another data directory (paths.data).",
        )
    # mongod doesn't say why it could not write to its log; it gets that far only where the file could be opened.
    log_failed = "Writing to log file failed" in text
    if log_failed or "No space left on device" in text or "ENOSPC" in text:
        return (
            f"The disk that holds {layout.log if log_failed else layout.data} is full{how}.",
            "Free some space, then type the command again; acknowledged writes are kept.",
        )
    if "Address already in use" in text:
        return (
            f"Its port was taken by another process in this moment{how}.",
            "Type the command again: it names the process.",
        )
    if "Permission denied" in text or "EACCES" in text:
        return (
            f"It may not read or write one of its files{how}.",
            f"Give yourself rights to {layout.data} and {layout.log}.",
        )
    if salvage is not None and is_unfinished(log):
        return _explain_unfinished(layout.data, salvage, how)
    if salvage is not None and is_corrupt(log):
        return explain_corruption(layout.data, salvage, how)
    if status in (-4, 132):
        return (
            "It used an instruction that this processor does not have: mongod 5 and later need AVX.",
            "Use a machine (or a virtual machine's processor type) with AVX; `invoke doctor` shows what this one has.",
        )
    if status in (-9, 137):
        return (
            f"It was killed{how}, perhaps because memory ran out.",
            "Free memory or give the node a smaller cache (cache_size_gb), then type the command again.",
        )
    return (
        f"mongod ended at once{how}.",
        "The lines above say why; `invoke logs` has all of them, `invoke doctor` checks this machine.",
    )


def _ending(status: int | None) -> str:
    if status is None:
        return ""
    return f" (signal {-status})" if status < 0 else f" (exit status {status})"
