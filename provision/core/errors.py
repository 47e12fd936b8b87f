"""Errors a person can act on, and what happens to those that reach the top.

Every expected failure is a `ProvisionError`. It is a plain exception, and knows nothing of who shows it: of a command,
`uncaught` prints it and ends with its status, and the pytest plugin fails the test with it.
The status is 1 for what the user can change, 130 after Ctrl-C. A traceback means a bug of ours and leaves with 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from provision.core.text import indent
from provision.core.typed import as_typed

USER_ERROR = 1
OUR_BUG = 3
INTERRUPTED = 130


class ProvisionError(Exception):
    """One failure in three parts: what was being done, what stopped it, what to type next.

    `doing`: the work that failed, as a clause: ``"starting mongod on port 27017"``.
    `cause`: what stopped it, one or more sentences.
    `remedy`: what to type or change next; may span lines.
    `log_lines`: the last log lines of the node at fault, shown between cause and remedy.
    `code`: the exit status of the process.
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
        self.code = code
        super().__init__(doing, cause, remedy, self.log_lines, code)

    def text(self) -> str:
        """The message as it is printed: a line each for what failed, why, the log if any, and the remedy."""
        lines = [f"error: {self.doing}", f"  why:  {indent(as_typed(self.cause))}"]
        if self.log_lines:
            lines.append("  log:  " + indent("\n".join(self.log_lines)))
        lines.append(f"  next: {indent(as_typed(self.remedy))}")
        return "\n".join(lines)

    def parts(self) -> dict[str, Any]:
        """The message in parts: `doing`, `cause` and `remedy` are text, `log` is a list of lines."""
        return {
            "doing": self.doing,
            "cause": as_typed(self.cause),
            "remedy": as_typed(self.remedy),
            "log": list(self.log_lines),
        }

    def as_json(self) -> dict[str, object]:
        """The same parts for scripts that asked for JSON."""
        return {"error": self.parts()}

    def __str__(self) -> str:
        return self.text()


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint at the known name that a mistyped one is close to, in brackets; empty if there is none."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def shown(value: Any) -> str:
    """A given value as errors show it, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class PackagesMissing(ProvisionError):
    """A group of packages is not installed. Raised before anything was changed: the command may begin anew with them.

    `group`: ``hosts``, ``test`` or ``dev``.
    `doing`: the work that needs them.
    """

    def __init__(self, group: str, doing: str) -> None:
        self.group = group
        super().__init__(
            doing,
            f"It needs the packages of the group {group}, which are not installed here.",
            f"./invoke setup --group {group}",
        )
