"""A deployment that tests share one after another: it is made anew where it is not as it was at first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.hosts.backend import Hosts
from provision.state import remembered
from tests.hosts.conftest import Project, project_on
from tests.hosts.lab import Lab


class Standing:
    """A project on hosts, with its deployment up.

    Args:
        hosts: the hosts; other projects may be on them between two tests, once this one was cleared away.
        folder: where projects are made.
        mongod: the binary that they use, with a router beside it.
    """

    def __init__(self, hosts: Lab, folder: Path, mongod: Path) -> None:
        self._hosts, self._folder, self._mongod = hosts, folder, mongod
        self._number = 0
        self._project: Project | None = None
        self._placed: dict[str, str] = {}
        self._closing = contextlib.ExitStack()

    def up(self, on: list[str], **settings: Any) -> Project:
        """The project, with every node of its deployment well.

        Args:
            on: names of the hosts that have the deployment's nodes; all hosts have the binaries.
            settings: of the deployment, the same for all tests.
        """
        if self._project is None or not self._is_well(self._project, on, settings):
            self.clear()
            self._number += 1
            folder = self._folder / str(self._number)
            folder.mkdir()
            project = self._closing.enter_context(project_on(self._hosts, folder, self._mongod))
            project.are_ready()
            deployment = project.deployment(project.loaded(hosts=on, **settings))
            deployment.up()
            self._project, self._placed = project, _placed(deployment.backend)
        return self._project

    def _is_well(self, project: Project, on: list[str], settings: dict[str, Any]) -> bool:
        loaded = project.loaded(hosts=on, **settings)
        try:
            deployment = assembly.deployment(loaded, "prod")
            project.made.append(deployment)
            return (
                _placed(deployment.backend) == self._placed
                and not remembered.moves(loaded.paths, "prod")
                and deployment.status().state == "running"
            )
        except ProvisionError:
            return False

    def clear(self) -> None:
        """Leave nothing of it on the hosts, and these switched on."""
        self._project = None
        self._closing.close()


def _placed(backend: object) -> dict[str, str]:
    assert isinstance(backend, Hosts)
    return dict(backend.placement)


@contextlib.contextmanager
def standing_on(hosts: Lab, folder: Path, mongod: Path) -> Iterator[Standing]:
    """A project that tests share during the block; each has a home directory of its own that knows the hosts."""
    made = Standing(hosts, folder, mongod)
    try:
        yield made
    finally:
        made.clear()
