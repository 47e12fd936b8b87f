"""Whether a project is at rest: nothing runs in it, and no command is at work. `clean` removes nothing otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from provision.core import locks
from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.doctor import traces
from provision.settings.loading import Loaded

_DOING = "cleaning"


def refuse_while_running(loaded: Loaded) -> None:
    """Raises ProvisionError: a deployment or the app runs."""
    paths = loaded.paths
    names = {each.deployment for each in traces.node_processes(paths)}
    names |= {each.deployment for each in traces.records(paths) if each.alive}
    names |= {name for name in loaded.settings.deployments if _runs_in_docker(loaded, name)}
    if names:
        running = sorted(names)
        raise ProvisionError(
            _DOING,
            f"{' and '.join(running)} {'runs' if len(running) == 1 else 'run'}. Nothing was removed.",
            "\n".join(
                f"Type `invoke stop{'' if each == 'local' else f' --on {each}'}` first." for each in running
            ),
        )
    apps = traces.app_processes(paths.under_root(loaded.settings.app.path))
    if apps:
        raise ProvisionError(
            _DOING,
            f"The app runs (process {apps[0].pid}). Nothing was removed.",
            f"End it with Ctrl-C in its terminal, or type: kill {apps[0].pid}",
        )


def _runs_in_docker(loaded: Loaded, name: str) -> bool:
    containers = loaded.settings.deployments[name].capabilities.containers
    if not containers or not loaded.paths.deployment(name).is_dir():
        return False
    try:
        deployment = assembly.deployment(loaded, name)
        return bool(deployment.running(deployment.topology.nodes))
    except (ProvisionError, OSError):
        # No engine, or the containers of another clone.
        return False


@contextlib.contextmanager
def alone(files: Iterable[Path]) -> Iterator[None]:
    """Hold locks, so that nothing is removed under a command at work.

    Raises ProvisionError: a command is at work.
    """
    with contextlib.ExitStack() as held:
        for file in files:
            if file.parent.is_dir():
                try:
                    held.enter_context(locks.at_once(file))
                except locks.HeldError as problem:
                    raise ProvisionError(
                        _DOING,
                        f"Another command is at work ({problem}). Nothing was removed.",
                        "Type the same again when it has ended.",
                    ) from None
        yield
