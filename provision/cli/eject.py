"""`eject`: the plain files with which a project goes on without the tool."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import ON, command
from provision.core.dataclass import dataclass

if TYPE_CHECKING:
    from provision.cli.result import Result
    from provision.cli.session import Session


@dataclass(frozen=True)
class Ejected:
    """The files that `eject` wrote, and the folder that they are in."""

    deployment: str
    folder: str
    files: tuple[str, ...]


@command(help={**ON, "to": "a new folder"}, positional=["to"])
def eject(session: Session, to: str, on: str = "local") -> Result[Ejected]:
    """Write what you need to go on without this tool: mongod.conf, a compose file or systemd units, and .env.

    The data stay where they are. The README.md in the folder says what to type. Nothing is started or stopped.
    """
    from provision.app import launch
    from provision.cli import display
    from provision.cli.result import Result
    from provision.deployments import setup_steps
    from provision.deployments.ejection import check_empty
    from provision.deployments.ejection import eject as write

    folder = Path(to).expanduser().absolute()
    check_empty(folder, on)
    loaded = session.load(remember=False)
    deployment = session.ready(on)
    native = deployment.backend.capabilities.keeps_folders
    setup_steps.ensure_for_run(loaded, session.steps(sys.stderr), native, on)
    uri = deployment.uri(loaded.settings.app.database, user="app")
    key = launch.Secret.of(loaded.paths.secret_key)
    files = write(loaded, deployment, folder, launch.variables(loaded, deployment, uri, key, debug=False))

    def show() -> None:
        display.line(f"Wrote {', '.join(files)} into {folder}")
        display.line(f"{folder / 'README.md'} says what to type.")

    return Result(Ejected(on, str(folder), files), show)
