"""Which files hold settings, in which order.

Lowest first: ``/etc/invoke.yaml``, the project's ``invoke.yaml``, then the person's own ``~/.invoke.yaml``,
``~/.config/flaskbook/invoke.yaml`` and, for this clone alone, ``invoke.local.yaml``; last the file that ``invoke -f`` or
``INVOKE_RUNTIME_CONFIG`` names. The nearer to the person who types and to the moment, the later a file is read, and the
later one wins. Each may end with ``.yaml``, ``.yml``, ``.json`` or ``.py``, as Invoke has it.

Nothing but the standard library is needed: `python_setting` asks before env/ is made.
"""

from __future__ import annotations

import os
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.machine.access import base_directory, home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIXES = (".yaml", ".yml", ".json", ".py")
FOLDER = "flaskbook"


@dataclass(frozen=True)
class Place:
    """Where a settings file may be."""

    stem: Path  # its path without the suffix
    ours_alone: bool  # False for files other projects share, whose unknown top-level keys are theirs


def places(root: Path, environ: Mapping[str, str]) -> list[Place]:
    """Where settings files may be, lowest first."""
    home, config = home_folder(environ), base_directory(environ, "XDG_CONFIG_HOME", ".config")
    found = [Place(Path("/etc/invoke"), False), Place(root / "invoke", True)]
    if home is not None:
        found.append(Place(home / ".invoke", False))
    if config is not None:
        found.append(Place(config / FOLDER / "invoke", True))
    return [*found, Place(root / "invoke.local", True)]


def file_at(place: Place) -> Path | None:
    """The settings file of a place: the first suffix that is there; None: there is none."""
    for suffix in SUFFIXES:
        path = place.stem.with_name(place.stem.name + suffix)
        if os.path.lexists(path):
            return path
    return None


def home_folder(environ: Mapping[str, str]) -> Path | None:
    """The user's home directory; None: none that can be used."""
    home = home_directory(environ)
    return home if home is not None and home.is_absolute() else None
