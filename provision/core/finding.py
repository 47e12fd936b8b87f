"""What a check finds. Pure data."""

from __future__ import annotations

from enum import StrEnum

from provision.core.dataclass import dataclass


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; an element of the list that ``invoke doctor --json`` prints.

    Args:
        check: what was looked at, short: ``"port 27017"``. Several findings may share it.
        level: ``ok``; ``warning``: worth correcting, `run` works all the same; ``error``: `run` could not work.
        what: what was found, one or two sentences.
        remedy: the command that corrects it on this system, or what to change; may span lines; empty: nothing to do.
    """

    check: str
    level: Level
    what: str
    remedy: str = ""


def ok(check: str, what: str, remedy: str = "") -> Finding:
    """Nothing wrong here; a remedy tells what could still be better."""
    return Finding(check, Level.OK, what, remedy)


def warning(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, what, remedy)


def error(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, Level.ERROR, what, remedy)
