"""The development environment of a Flask + MongoDB app: set-up, MongoDB, and the running app."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from invoke.collection import Collection

VERSION = "0.1.0"


def collection() -> Collection:
    """Every task of the tool, for a `tasks.py`: ``ns.add_collection(collection(), "db")`` puts them below ``db``."""
    from provision.cli import collection as tasks

    return tasks()
