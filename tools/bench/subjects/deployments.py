"""Deployments that subjects add to the lab's copy of the project, and how they are emptied."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from provision.core.errors import ProvisionError
from tools.bench.lab import Lab, Project, free_ports

# A cluster keeps 50 ports for each shard and 50 before them.
_PORTS = 200


def declare(
    lab: Lab, kind: str, settings: Mapping[str, Any], project: Project | None = None
) -> tuple[Project, str]:
    """Add a deployment to a copy's invoke.yaml, if it is not there.

    Args:
        lab: where.
        kind: tells it from others: part of its name.
        settings: of the deployment; its port is chosen here.
        project: the copy; None: the lab's own.

    Returns:
        The copy and the deployment's name, which is this clone's alone: Docker's names are the whole machine's.
    """
    import yaml

    project = project or lab.project()
    # The lab's folder has a new name each time; its parent's parent is this clone's.
    digest = hashlib.sha256(str(lab.folder.parent).encode()).hexdigest()[:6]
    name = f"bench-{kind}-{digest}"
    file = project.paths.settings_file
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if name not in values["deployments"]:
        values["deployments"][name] = {"port": _first_of_many(), **settings}
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        if settings["backend"] == "docker":
            remove_from_docker(name)  # what a killed bench left
    return project, name


def _first_of_many() -> int:
    """A port below those that systems hand out, so that what follows it is likely to be free, too."""
    return 20_000 + free_ports(1)[0] % 10_000 // _PORTS * _PORTS


def remove_from_docker(name: str) -> None:
    """Remove all that Docker has of a deployment of the bench."""
    mine = f"label=com.docker.compose.project=flaskbook-{name}"
    for listing, removal in (
        (("ps", "-aq"), ("rm", "-fv")),
        (("network", "ls", "-q"), ("network", "rm")),
        (("volume", "ls", "-q"), ("volume", "rm", "-f")),
    ):
        if found := docker(*listing, "--filter", mine).split():
            docker(*removal, *found)


def docker(*arguments: str) -> str:
    """What a docker command prints.

    Raises:
        ProvisionError: it failed.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProvisionError(
            f"running docker {arguments[0]}", done.stderr.strip() or "It failed.", "Type `invoke doctor`."
        )
    return done.stdout


def docker_is_missing(lab: Lab) -> str | None:
    """Why nothing can be measured in Docker here, or None."""
    if shutil.which("docker", path=lab.environment["PATH"]) is None:
        return "there is no docker command on the PATH."
    try:
        docker("compose", "version")
        docker("image", "inspect", lab.image)
    except ProvisionError as error:
        return f"the image {lab.image} has to be here, for pulling is not what is measured: {error.cause}"
    return None
