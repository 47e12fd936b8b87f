"""How a person runs a command here: messages are written with `invoke`, and shown as it is typed.

Installed as a package, the tool is typed `provision start`; its tasks under a name in somebody's `tasks.py`, `db.start`.
Standard library only.
"""

from __future__ import annotations

import re

AS_WRITTEN = "invoke "
_WRITTEN = re.compile(r"(?<![\w./-])(?:\./)?invoke (?=[a-z])")
_typed = AS_WRITTEN


def runs_as(program: str, prefix: str = "") -> None:
    """Say how commands are typed in this process: ``"provision"``, or ``"invoke"`` with the prefix ``"db."``."""
    global _typed
    _typed = f"{program} {prefix}"


def as_typed(text: str) -> str:
    """A message with its commands as they are typed here: for ``invoke start``, for example ``provision start``."""
    return text if _typed == AS_WRITTEN else _WRITTEN.sub(_typed, text)
