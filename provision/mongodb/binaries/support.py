"""How long MongoDB repairs a series, and what follows where that is over. Pure.

https://www.mongodb.com/legal/support-policy/lifecycles
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from provision.core.errors import ProvisionError
from provision.mongodb.binaries.model import Mongod, Source, numbers

if TYPE_CHECKING:
    from provision.settings.schema import MongodbSettings

# Major version → the last day of its support. The quarterly releases (6.1, 7.3, …) end before that.
_ENDS = {6: date(2025, 7, 31), 7: date(2027, 8, 31), 8: date(2029, 10, 31)}


def end_of_life(version: str, today: date) -> date | None:
    """The day on which a version's support ended; None: it has not."""
    end = _ENDS.get(numbers(version)[0])
    return end if end is not None and end < today else None


def unsupported(mongod: Mongod, settings: MongodbSettings, today: date) -> str | None:
    """What to say of a mongod that nobody asked for and that gets no security fixes; None: nothing.

    `settings`: section `mongodb`. With a source other than ``auto``, its mongod is asked for.
    """
    end = end_of_life(mongod.version, today)
    if end is None or settings.source != "auto" or mongod.source is Source.PATH:
        return None
    return f"MongoDB {mongod.version} gets no security fixes: its support ended on {end.isoformat()}."


def warning(mongod: Mongod, settings: MongodbSettings, today: date) -> str | None:
    """The same, with what to do about it."""
    said = unsupported(mongod, settings, today)
    return said and (
        f"{said} Install MongoDB {settings.version} (`invoke doctor` says how), "
        "then type `invoke setup --find-mongod`. "
        f"To stay with it without this warning, set mongodb.source to {_own_source(mongod)} in invoke.local.yaml."
    )


def refuse_on_hosts(mongod: Mongod | None, settings: MongodbSettings, today: date) -> None:
    """Refuse to put the stand-in from a package index on other hosts when it gets no security fixes.

    Raises ProvisionError: it is one, and nobody asked for it.
    """
    end = end_of_life(mongod.version, today) if mongod else None
    if mongod is None or end is None or settings.source != "auto" or not _is_from_wheel(mongod):
        return
    raise ProvisionError(
        "choosing the mongod that hosts get",
        f"The only one found is MongoDB {mongod.version} from a package index. Its support ended on {end.isoformat()}, "
        "so it gets no security fixes, and hosts open it to a network.",
        f"Install MongoDB {settings.version} here (`invoke doctor` says how), "
        "then type: invoke setup --find-mongod\n"
        "To use it all the same: INVOKE_MONGODB_SOURCE=wheel, or mongodb.source: wheel in invoke.yaml.",
    )


def _is_from_wheel(mongod: Mongod) -> bool:
    """The cache names a wheel's entry so (`wheel.entry_name`)."""
    return mongod.source is Source.WHEEL or "-wheel-" in mongod.path.parent.parent.name


def _own_source(mongod: Mongod) -> str:
    return Source.WHEEL.value if _is_from_wheel(mongod) else mongod.source.value
