"""What happens to exceptions that leave Invoke: an expected error gets its message and its status, a bug its traceback."""

from __future__ import annotations

import errno
import sys
import traceback
from types import TracebackType

from provision.errors import INTERRUPTED, OUR_BUG, USER_ERROR, ProvisionError

OUR_FAULT = "\nThis is a bug in the tool, not a mistake of yours. Please report it with the lines above."

# What a disk, its permissions or its mount say, wherever a file is touched; the user's to mend.
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
    return ProvisionError(
        f"using {error.filename}" if error.filename else "using a file",
        f"{error.strerror}.",
        "Free space there or give yourself rights to it, then type the command again.",
    )
