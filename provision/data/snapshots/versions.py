"""Which version of MongoDB a deployment runs, or would run."""

from __future__ import annotations

from contextlib import suppress

from provision.backends.registry import in_containers
from provision.core.errors import ProvisionError
from provision.deployments import launched
from provision.deployments.deployment import Deployment
from provision.mongodb.binaries.model import version_in
from provision.mongodb.wire import CommandFailed, NotReachable


def of_next_start(deployment: Deployment, doing: str) -> str:
    """The version that its nodes run when they are started again.

    Raises ProvisionError: none has been chosen.
    """
    return _of_program(deployment, deployment.program, doing)


def on_record(deployment: Deployment, doing: str) -> str:
    """The version that last ran on the data of a deployment that is stopped.

    Raises ProvisionError: nobody knows.
    """
    programs = {each.program for each in launched.recorded(deployment.paths, deployment.name).values()}
    return _of_program(deployment, next(iter(programs - {""}), deployment.program), doing)


def _of_program(deployment: Deployment, program: str, doing: str) -> str:
    docker = in_containers(deployment.backend)
    if docker is not None:
        with suppress(NotReachable, CommandFailed):
            for node in deployment.running(deployment.topology.nodes)[:1]:
                with deployment.dial(node) as connection:
                    return str(connection.command("admin", {"buildInfo": 1})["version"])
        return docker.version()
    found = version_in(program) or program.rpartition(" ")[2]
    if not found:
        raise ProvisionError(
            doing, "No mongod has been chosen yet.", f"Start it first: invoke start --on {deployment.name}"
        )
    return found
