"""What a command found or did: data for `--json`, and the way people see the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError

Data = TypeVar("Data", covariant=True)


@dataclass(frozen=True)
class Result(Generic[Data]):
    """The end of a command. `command` renders it once, as text or as JSON.

    `docs/json/` has the schema of each command's data, made from the type that its function returns.
    """

    data: Data  # what `--json` prints: a dataclass, or a list of them
    show: Callable[[], None]  # prints the same for people
    error: ProvisionError | None = None  # ends the command after the data are shown
    status: int = 0  # exit status where the data themselves are the bad news


def as_text(data: object) -> str:
    """Data as JSON over several lines: dataclasses as objects, and as text what JSON has no type for."""
    return json.dumps(data, indent=2, default=_plain)


def as_line(data: object) -> str:
    """Data as one line of JSON, for programs that go on reading."""
    return json.dumps(data, default=_plain)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str(value)
