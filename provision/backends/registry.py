"""A back end as what it is, for what only one kind can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from provision.backends.base import Backend

if TYPE_CHECKING:
    from provision.backends.docker import Docker
    from provision.backends.processes import Processes


def in_containers(backend: Backend) -> Docker | None:
    """The back end, if its nodes are containers."""
    return cast("Docker", backend) if backend.capabilities.containers else None


def in_folders(backend: Backend) -> Processes | None:
    """The back end, if its nodes are processes whose data are folders of this project."""
    return cast("Processes", backend) if backend.capabilities.keeps_folders else None
