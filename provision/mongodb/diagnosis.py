"""Why a mongod ended, in words, from its exit status and its log. Pure.

https://www.mongodb.com/docs/manual/reference/exit-codes/
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from provision.mongodb.config import Layout

_NEEDS_OTHER_VERSION = 62


def explain_death(status: int | None, log: Sequence[str], layout: Layout) -> tuple[str, str]:
    """Say why a mongod that was just started is gone.

    Args:
        status: its exit status; negative for a signal; None: not known.
        log: its last raw log lines, oldest first.
        layout: its places.

    Returns:
        The cause, and what to type or change next.
    """
    text = "\n".join(log)
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
