"""What you need to go on without the tool: plain configuration, a compose file or systemd units, the app's environment."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.backends.registry import in_containers, in_folders
from provision.core.errors import ProvisionError
from provision.core.files import write_atomically
from provision.hosts import units
from provision.mongodb.config import render

if TYPE_CHECKING:
    from provision.deployments.deployment import Deployment
    from provision.settings.loading import Loaded

_KEY = "keyfile"


def eject(
    loaded: Loaded, deployment: Deployment, folder: Path, environment: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Write the files. Data stay where they are, and the files name that place.

    Args:
        deployment: one on this machine that was up before, so that its data and users are there.
        folder: where to; it is missing or empty.

    Returns: The files' names.
    Raises ProvisionError: the folder is not empty or can't be written to, or the deployment is on other hosts.
    """
    doing = f"ejecting {deployment.name}"
    check_empty(folder, deployment.name)
    files = _files(loaded, deployment, folder, doing)
    files["README.md"] = _readme(deployment, files)
    key = loaded.paths.key_file(deployment.name) if deployment.secrets() is not None else None
    made = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(folder / name, text)
        write_atomically(folder / ".env", _env(environment), 0o600)
        if key is not None:
            shutil.copy2(key, folder / _KEY)  # with its mode, 0400
            _same_owner(key, folder / _KEY)
    except OSError as error:
        if not made:
            shutil.rmtree(folder, ignore_errors=True)
        raise ProvisionError(
            doing, f"{error.filename}: {error.strerror}.", "Correct it, or name another folder."
        ) from None
    return tuple(sorted([*files, ".env", *([_KEY] if key else [])]))


def check_empty(folder: Path, deployment: str) -> None:
    """See that nothing in a folder would be overwritten.

    Raises ProvisionError: it is not empty, or is not a folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProvisionError(
            f"ejecting {deployment}", f"{folder} is not empty. Nothing was written.", "Name a new folder."
        )


def _same_owner(source: Path, copy: Path) -> None:
    """In Docker, the key file belongs to the image's user; who is not root can't give a file away."""
    import contextlib
    import os

    found = source.stat()
    with contextlib.suppress(PermissionError):
        os.chown(copy, found.st_uid, found.st_gid)


def _files(loaded: Loaded, deployment: Deployment, folder: Path, doing: str) -> dict[str, str]:
    """Name → text of what runs the nodes."""
    template = loaded.paths.mongod_template.read_text(encoding="utf-8")
    backend = deployment.backend
    nodes = deployment.topology.nodes
    docker = in_containers(backend)
    if docker is not None:
        files = {f"{each.name}.conf": render(each, backend.layout(each), template) for each in nodes}
        return {**files, "compose.yaml": docker.render_compose(apart=True)}
    processes = in_folders(backend)
    if processes is None:
        raise ProvisionError(
            doing,
            "Its nodes are on other hosts, where units of systemd keep them running already.",
            "invoke hosts.plan",
        )
    files = {}
    unit = loaded.paths.unit_template.read_text(encoding="utf-8")
    for node in nodes:
        layout = backend.layout(node)
        if layout.key_file is not None:
            layout = replace(layout, key_file=str(folder / _KEY))
        files[f"{node.name}.conf"] = render(node, layout, template)
        command = units.node_command(str(processes.program(node)), str(folder), node.name)
        files[units.unit_name(deployment.name, node.name)] = units.render_unit(
            unit, deployment.name, node.name, str(folder), command, [], units.USER
        )
    return files


def _env(environment: Mapping[str, str | None]) -> str:
    """The app's environment as a `.env` file, quoted as a shell quotes."""
    return "".join(
        f"{name}={shlex.quote(text)}\n" for name, text in sorted(environment.items()) if text is not None
    )


def _readme(deployment: Deployment, files: Mapping[str, str]) -> str:
    if "compose.yaml" in files:
        how = "docker compose up -d        # in this folder; its containers use the volumes that are there"
    else:
        names = " ".join(name for name in files if name.endswith(".service"))
        how = (
            f"mkdir -p ~/.config/systemd/user && cp {names} ~/.config/systemd/user/\n"
            f"systemctl --user daemon-reload && systemctl --user start {names}"
        )
    return f"""# {deployment.name}, without the tool

Stop it first: `invoke stop --on {deployment.name}`. Then:

```
{how}
```

The data stay where they are. `.env` has what your app's environment had, with the database's address and
password: keep it out of git.
"""
