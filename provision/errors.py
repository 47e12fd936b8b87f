"""Errors a person can act on, and what happens to those that reach the top.

Every expected failure is a `ProvisionError`. It is an `invoke.Exit`, so Invoke prints it without a traceback
and leaves with its code: 1 for what the user can mend, 130 after Ctrl-C. A traceback means a bug of ours
and leaves with 3.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from invoke.exceptions import Exit

USER_ERROR = 1
OUR_BUG = 3
INTERRUPTED = 130
# What a disk, its permissions or its mount say, wherever a file is touched; the user's to mend.
_MACHINES_FAULT = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EMFILE}
)
OUR_FAULT = "\nThis is a bug in the tool, not a mistake of yours. Please report it with the lines above."


class ProvisionError(Exit):
    """One failure in three parts: what was being done, what stopped it, what to type next.

    Args:
        doing: the work that failed, as a clause: ``"starting mongod on port 27017"``.
        cause: what stopped it, one or more sentences.
        remedy: what to type or change next; may span lines.
        log_lines: the last log lines of the node at fault, shown between cause and remedy.
        code: the exit status of the process.
    """

    def __init__(
        self,
        doing: str,
        cause: str,
        remedy: str,
        log_lines: Sequence[str] = (),
        code: int = USER_ERROR,
    ) -> None:
        self.doing = doing
        self.cause = cause
        self.remedy = remedy
        self.log_lines = tuple(log_lines)
        super().__init__(self.text(), code)

    def text(self) -> str:
        """The message as it is printed: a line each for what failed, why, the log if any, and the remedy."""
        lines = [f"error: {self.doing}", f"  why:  {_indent(self.cause)}"]
        if self.log_lines:
            lines.append("  log:  " + _indent("\n".join(self.log_lines)))
        lines.append(f"  next: {_indent(self.remedy)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The same parts for scripts that asked for JSON."""
        return {
            "error": {
                "doing": self.doing,
                "cause": self.cause,
                "remedy": self.remedy,
                "log": list(self.log_lines),
            }
        }

    def __str__(self) -> str:
        return self.text()


def _indent(text: str) -> str:
    return text.replace("\n", "\n        ")


def install_excepthook() -> None:
    """Give the exceptions that can leave Invoke uncaught their message and exit status.

    Invoke reads `invoke.yaml` and casts ``INVOKE_*`` variables itself, before any task runs, and lets the
    errors of both through. A full or unreadable disk can be met at any file. Both are the user's to mend: one
    clear message. Everything else is our bug: the traceback is shown, and the status says so.
    """
    sys.excepthook = _report_uncaught


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED)
    if _raised_by_invokes_settings(trace):
        from provision.settings import explain_unreadable

        print(explain_unreadable(error).text(), file=sys.stderr)  # noqa: T201
        raise SystemExit(USER_ERROR)
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


def _raised_by_invokes_settings(trace: TracebackType | None) -> bool:
    modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(trace)}
    return bool(modules & {"invoke.config", "invoke.env"}) and "provision.settings" not in modules
