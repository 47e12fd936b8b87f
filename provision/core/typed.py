"""How a person runs a command here: messages are written with `invoke`, and shown as it is typed.

Installed as a package, the tool is typed `provision start`; its tasks under a name in somebody's `tasks.py`, `db.start`.
Standard library only.
"""

from __future__ import annotations

import re
import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

WRAPPER = "PROVISION_WRAPPER"
"""The variable in which `./invoke` says how it was typed, where that was a relative path."""
AS_WRITTEN = "invoke "
_WRITTEN = re.compile(r"(?<![\w./-])(?:\./)?invoke (?=(--?)?[a-z])")
_typed = AS_WRITTEN
_program = "invoke"
_wrapper = ""


def runs_as(program: str, prefix: str = "") -> None:
    """Say how commands are typed in this process: ``"provision"``, or ``"invoke"`` with the prefix ``"db."``."""
    global _typed, _program
    _typed, _program = f"{program} {prefix}", program


def runs_as_wrapper(environ: MutableMapping[str, str]) -> None:
    """Have commands shown as the wrapper was typed, ``./invoke start``; it is taken out of the environment.

    An absolute path is nothing that a person types: then they are shown as they are written.
    """
    global _wrapper
    _wrapper = environ.pop(WRAPPER, "")
    if _wrapper:
        runs_as(shlex.quote(_wrapper))


def hand_on(environ: MutableMapping[str, str]) -> None:
    """Tell the program that this process becomes how the wrapper was typed."""
    if _wrapper:
        environ[WRAPPER] = _wrapper


def as_typed(text: str) -> str:
    """A message with its commands as they are typed here: for ``invoke start``, for example ``provision start``."""
    return text if _typed == AS_WRITTEN else _WRITTEN.sub(_as_typed, text)


def _as_typed(written: re.Match[str]) -> str:
    return f"{_program} " if written[1] else _typed  # what stands before tasks does not stand before flags
