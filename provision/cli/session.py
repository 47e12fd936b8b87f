"""What one command works with: its settings, its flags, and the deployments that follow from them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError
from provision.env.settings_files import SUFFIXES
from provision.settings.layers import RUNTIME_VARIABLE, read_layers
from provision.settings.paths import project_root

if TYPE_CHECKING:
    from provision.cli.display import StepLines
    from provision.deployments.deployment import Deployment
    from provision.settings.loading import Loaded


class Session:
    """One command's settings with its flags, and its deployments: each is read or built once.

    Args:
        start: the folder that the command was typed in. The project is the nearest one upward that has settings.
        runtime: the settings file that `invoke -f` names.
        quiet: the result goes out as JSON, so say nothing on the way.
    Raises ProvisionError: a settings file is missing or broken. It stops every command, also one that needs no setting.
    """

    def __init__(self, start: Path, runtime: str | None = None, quiet: bool = False) -> None:
        self.start = start.absolute()
        self.project = project_root(start)
        self.quiet = quiet
        self._layers = read_layers(self.project, os.environ, runtime)
        if runtime is not None:  # a command that this one starts in the background reads the same
            os.environ[RUNTIME_VARIABLE] = str(Path(runtime).expanduser().absolute())
        self._loaded: Loaded | None = None
        self._deployments: dict[str, Deployment] = {}

    @property
    def loaded(self) -> Loaded:
        """The settings in force."""
        return self._loaded or self.load()

    def load(
        self,
        flags: Mapping[str, tuple[str, Any]] | None = None,
        remember: bool = True,
        remembered: bool = True,
        slots: bool = True,
    ) -> Loaded:
        """Read the settings; a command does so once.

        Args:
            flags: dotted key → (the flag as typed, value). They win over everything.
            remember: note in `.state/` that these values are valid. False: change nothing on disk.
            remembered: with the flags of earlier commands that hold for the later ones.
            slots: with ports of this folder's own, where it has such; False: as every clone has them.
        Raises ProvisionError: they are wrong, or belong to another user.
        """
        from provision.settings import loading
        from provision.state.remembered import flags as earlier
        from provision.state.slots import grant

        self._require_settings()
        if self._loaded is not None:
            raise RuntimeError("a command reads its settings once")
        self._require_own_files([self.project / ".state", self.project / "mongod.conf"])
        held = earlier(self.project) if remembered else None
        grants = functools.partial(grant, remember=remember) if slots else None
        self._loaded = loading.load(self.project, self._layers, os.environ, flags, remember, held, grants)
        self._require_own_files([self._loaded.paths.data, self._loaded.paths.log])
        return self._loaded

    def deployment(self, on: str) -> Deployment:
        """A deployment as it is now, or would be. Starts and writes nothing.

        Raises ProvisionError: there is none of that name, or its settings contradict each other.
        """
        from provision.deployments import assembly

        if on not in self._deployments:
            self._deployments[on] = assembly.deployment(self.loaded, on)
        return self._deployments[on]

    def ready(self, on: str) -> Deployment:
        """A deployment that can be started: where its nodes are processes, here or on hosts, it has a mongod.

        Raises ProvisionError: there is no such deployment, or no mongod for it.
        """
        from provision.deployments import setup_steps

        deployment = self.deployment(on)
        if deployment.backend.capabilities.needs_mongod and setup_steps.ensure_for_start(
            self.loaded, self.steps(sys.stderr), on
        ):
            self.changed(on)
        return self.deployment(on)

    def running(self, on: str, doing: str) -> Deployment:
        """A deployment that clients can connect to.

        Raises ProvisionError: it is not running, or another program has its port. `doing` is the work, for the error.
        """
        from provision.deployments import cluster

        deployment = self.deployment(on)
        if not deployment.running(deployment.topology.seeds):
            raise cluster.not_running(deployment, doing)
        deployment.check_answers(deployment.topology.seeds, doing)
        tell_differences(deployment)
        return deployment

    def changed(self, on: str) -> None:
        """Have a deployment built again: what it follows from has changed."""
        self._deployments.pop(on, None)

    def say(self, text: str) -> None:
        """One line about what is going on, on standard error; nothing where the result goes out as JSON."""
        from provision.cli import display

        if not self.quiet:
            display.note(text)

    def steps(self, stream: Any = None, timings: bool = False) -> StepLines:
        """Shows the steps of a set-up."""
        from provision.cli import display

        return display.StepLines(timings, quiet=self.quiet and stream is None, stream=stream)

    def _require_settings(self) -> None:
        """Refuse to begin a project in whichever folder a command was typed in."""
        if not any((self.project / f"invoke{suffix}").is_file() for suffix in SUFFIXES):
            raise ProvisionError(
                "looking for the project",
                f"Neither {self.start} nor a folder above it has an invoke.yaml.",
                "Go to your project, or set up the app in this folder: invoke init",
            )

    def _require_own_files(self, places: Sequence[Path]) -> None:
        """Refuse to work on files that another user has made, which would be taken for missing."""
        from provision.machine.access import chown, foreign, user_name

        found = foreign(places)
        if found is None:
            return
        path, owner = found
        theirs, me = user_name(owner), user_name(os.geteuid())
        usual = [self.project / name for name in (".state", "mongod.conf", "data", "log")]
        mine = [place for place in (*usual, *places) if place.exists()]
        as_them = "sudo" if owner == 0 else f"sudo -u {theirs}"
        raise ProvisionError(
            "using the files of this project",
            f"{path} belongs to {theirs}, and you are {me}: a command was run here with sudo, or as {theirs}.",
            f"{as_them} ./invoke stop\n{chown(dict.fromkeys(mine))}\nThen type the same again, without sudo.",
        )


def tell_differences(deployment: Deployment) -> None:
    """Say on standard error how what runs differs from what the settings ask for, and what applies it."""
    from provision.cli import display

    for difference in deployment.differences():
        display.note(difference)
