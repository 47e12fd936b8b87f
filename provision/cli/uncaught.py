"""What happens to exceptions that leave Invoke: an expected error gets its message and its status, a bug its traceback."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

from provision.core.errors import INTERRUPTED, OUR_BUG, USER_ERROR, ProvisionError
from provision.machine.access import cache_directory, explain

OUR_FAULT = "\nThis is a bug in the tool, not a mistake of yours. Please report it with the lines above."

# What a disk, its permissions or its mount say, wherever a file is touched; the user can correct it.
_MACHINES_FAULT = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EIO,
        errno.ENOTDIR,
        errno.EMFILE,
    }
)

_DISK_REMEDY = "Look at that file and at the disk it is on (df -h), then type the command again."
_DISK_REMEDIES = {
    errno.ENOSPC: "Free space on its disk (df -h shows it), then type the command again.",
    errno.EDQUOT: "Free some of your quota (quota -s shows it), then type the command again.",
    errno.EMFILE: "Allow more open files (ulimit -n 4096), then type the command again.",
}


def install_excepthook() -> None:
    """Give the exceptions that can leave Invoke uncaught their message and exit status.

    A full or unreadable disk can be met at any file: that is the user's to repair, and gets one clear message.
    Everything else is our bug: the traceback is shown, and the status says so.
    """
    sys.excepthook = _report_uncaught


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED)
    if isinstance(error, ProvisionError):
        print(error.text(), file=sys.stderr)  # noqa: T201
        raise SystemExit(error.code)
    if isinstance(error, OSError) and error.errno in _MACHINES_FAULT:
        print(_explain_disk(error).text(), file=sys.stderr)  # noqa: T201
        raise SystemExit(USER_ERROR)
    traceback.print_exception(kind, error, trace)
    print(OUR_FAULT, file=sys.stderr)  # noqa: T201
    raise SystemExit(OUR_BUG)


def _explain_disk(error: OSError) -> ProvisionError:
    doing = f"using {error.filename}" if error.filename else "using a file"
    if error.filename and error.errno in (errno.EACCES, errno.EPERM):
        from provision.settings.paths import project_root

        # Typed elsewhere, `./invoke` says where the search for the project begins.
        following = dict(itertools.pairwise(sys.argv))
        project = project_root(Path(following.get("--search-root", ".")))
        ours = (*(project / name for name in (".state", "env", "data", "log")), cache_directory(os.environ))
        remedy = "Give yourself rights to it, then type the command again."
        cause, remedy = explain(Path(os.fsdecode(error.filename)), ours, remedy)
        return ProvisionError(doing, f"{error.strerror}. {cause}", remedy)
    return ProvisionError(doing, f"{error.strerror}.", _DISK_REMEDIES.get(error.errno or 0, _DISK_REMEDY))
