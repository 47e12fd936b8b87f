"""The steps of `setup`: directories, virtualenv, requirements, mongod, its configuration, secrets."""

from __future__ import annotations

import errno
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.steps import Decision, Progress, Reporter, Step, run_steps
from provision.deployments import assembly
from provision.deployments.app_environment import AppVirtualenv, spec
from provision.deployments.deployment import Deployment
from provision.env import bootstrap
from provision.env.groups import keeps_env
from provision.env.virtualenv import StepRecord
from provision.machine.access import explain
from provision.mongodb import binaries
from provision.settings.loading import Loaded
from provision.state import records

_PRIVATE = 0o600


@dataclass(frozen=True)
class Directories:
    """The parents of data and logs, and the private one for records and secrets."""

    loaded: Loaded
    name: str = "directories"

    def decide(self) -> Decision:
        missing = [directory for directory, _ in self._wanted() if not directory.is_dir()]
        if missing:
            return Decision(True, f"to be made: {', '.join(self._shown(each) for each in missing)}")
        return Decision(False, f"{', '.join(self._shown(each) for each, _ in self._wanted())} are there")

    def act(self, progress: Progress) -> str:
        made = []
        for directory, mode in self._wanted():
            if not directory.is_dir():
                try:
                    directory.mkdir(mode=mode, parents=True, exist_ok=True)
                except OSError as error:
                    raise ProvisionError(
                        f"making the directory {directory}",
                        *_explain(self.loaded, error, "choose other directories: paths.data and paths.log"),
                    ) from None
                made.append(self._shown(directory))
        return f"made {', '.join(made)}"

    def _wanted(self) -> Sequence[tuple[Path, int]]:
        paths = self.loaded.paths
        above = ((paths.data, 0o755), (paths.log, 0o755), (paths.state, 0o700))
        # `mongod -f` makes none: with these, what is rendered can be started by hand.
        nodes = [
            (name, node.name)
            for name, settings in self.loaded.settings.deployments.items()
            if settings.capabilities.keeps_folders
            for node in assembly.plan(name, settings).nodes
        ]
        own = {paths.node_data(*node): 0o700 for node in nodes}
        own |= {paths.node_log(*node).parent: 0o700 for node in nodes}
        return (*above, *own.items())

    def _shown(self, directory: Path) -> str:
        root = self.loaded.paths.root
        return f"{directory.relative_to(root) if directory.is_relative_to(root) else directory}/"


@dataclass(frozen=True)
class Bootstrapped:
    """What was done before this process could begin: the virtualenv it runs in."""

    name: str
    changed: bool
    why: str

    def decide(self) -> Decision:
        return Decision(self.changed, self.why)

    def act(self, progress: Progress) -> str:
        return self.why


@dataclass(frozen=True)
class MongodBinary:
    """A mongod that was found, checked and run once: this machine's, or a deployment's own."""

    loaded: Loaded
    deployment: str = ""
    again: bool = False  # look for one although one was found before
    warns: bool = True  # say so where it gets no security fixes; a deployment says it itself as it comes up

    @property
    def name(self) -> str:
        return f"{self.deployment} mongod".strip()

    def decide(self) -> Decision:
        present = None if self.again else assembly.mongod(self.loaded, self.deployment)
        if present is not None:
            taken = f"{present.version} at {present.path} (source: {present.source.value})"
            return Decision(False, "\n".join([taken, *self._warning()]))
        if self.deployment:
            return Decision(True, f"would find {self.loaded.deployment(self.deployment).mongod}")
        return Decision(True, binaries.plan(self.loaded.settings.mongodb, self.loaded.paths))

    def act(self, progress: Progress) -> str:
        choice = assembly.find_mongod(self.loaded, self.deployment, progress)
        lines = [f"{choice.mongod.version} at {choice.mongod.path} (source: {choice.mongod.source.value})"]
        lines += [f"not from {each.source.value}: {each.why}" for each in choice.refusals]
        return "\n".join([*lines, *self._warning()])

    def _warning(self) -> list[str]:
        return assembly.outdated(self.loaded, self.deployment) if self.warns else []


@dataclass(frozen=True)
class Configuration:
    """The rendered configuration of one deployment's nodes."""

    loaded: Loaded
    deployment: str

    @property
    def name(self) -> str:
        return "mongod.conf" if self.deployment == "local" else f"{self.deployment} conf"

    def decide(self) -> Decision:
        drifted = self._asked().rendering.drifted()
        if not drifted:
            return Decision(False, "matches mongod.conf.j2 and the settings")
        return Decision(True, "; ".join(f"{name} {why}" for name, why in drifted.items()))

    def act(self, progress: Progress) -> str:
        written = self._asked().prepare()
        return f"rendered for {', '.join(written)}"

    def _asked(self) -> Deployment:
        return assembly.deployment(self.loaded, self.deployment, as_asked=True)


@dataclass(frozen=True)
class SecretKey:
    """Flask's SECRET_KEY, generated once, readable by its owner alone."""

    loaded: Loaded
    name: str = "SECRET_KEY"

    def decide(self) -> Decision:
        path = self.loaded.paths.secret_key
        try:
            facts = path.stat()
        except FileNotFoundError:
            return Decision(True, "to be generated")
        if stat.S_IMODE(facts.st_mode) & 0o077:
            return Decision(True, "others may read it: to be made 0600")
        if facts.st_size < 32:
            return Decision(True, "too short: to be generated anew")
        return Decision(False, f"in {path.relative_to(self.loaded.paths.root)}, 0600")

    def act(self, progress: Progress) -> str:
        path = self.loaded.paths.secret_key
        try:
            if path.is_file() and path.stat().st_size >= 32:
                path.chmod(_PRIVATE)
                return "made 0600"
            records.SECRET_KEY.put(path, secrets.token_hex(32) + "\n")
        except OSError as error:
            raise ProvisionError(
                "writing Flask's SECRET_KEY",
                *_explain(self.loaded, error, f"give yourself rights to {path.parent}"),
            ) from None
        return f"generated in {path.relative_to(self.loaded.paths.root)}, 0600"


def _explain(loaded: Loaded, error: OSError, otherwise: str) -> tuple[str, str]:
    """Cause and remedy of a file that could not be made or written."""
    paths = loaded.paths
    remedy = f"{otherwise[0].upper()}{otherwise[1:]}; then type the same again."
    if not error.filename or error.errno not in (errno.EACCES, errno.EPERM):
        return f"{error.strerror}.", remedy
    cause, remedy = explain(Path(error.filename), (paths.state, paths.data, paths.log), remedy)
    return f"{error.strerror}. {cause}", remedy


def steps(loaded: Loaded, rebuild: bool = False, find_mongod: bool = False) -> list[Step]:
    """All steps of `setup`, in order.

    Args:
        rebuild: make the app's own virtualenv again, whether it is current or not.
        find_mongod: look for mongod, whether one was found before or not.
    """
    return [
        Directories(loaded),
        *(Bootstrapped(each.name, each.changed, each.why) for each in _virtualenv(loaded)),
        *_app_virtualenv(loaded, rebuild),
        *_mongods(loaded, find_mongod),
        *(Configuration(loaded, name) for name in loaded.settings.deployments),
        SecretKey(loaded),
    ]


def _virtualenv(loaded: Loaded) -> Sequence[StepRecord]:
    if not keeps_env(loaded.paths.root):
        return ()
    return bootstrap.take_report() or bootstrap.inspect(loaded.paths.root).steps()


def _app_virtualenv(loaded: Loaded, rebuild: bool) -> list[Step]:
    """The app's own virtualenv, where it has one, or where it was asked for."""
    there = loaded.paths.under_root(loaded.settings.app.path).is_dir()
    return [AppVirtualenv(loaded, rebuild)] if there and (rebuild or spec(loaded) is not None) else []


def _mongods(loaded: Loaded, again: bool) -> list[Step]:
    """This machine's mongod, and those of deployments that have one of their own."""
    own = [name for name, each in loaded.settings.deployments.items() if each.mongod is not None]
    return [MongodBinary(loaded, name, again) for name in ("", *own)]


def _mongod_for(loaded: Loaded, deployment: str) -> Step:
    own = bool(deployment) and loaded.deployment(deployment).mongod is not None
    return MongodBinary(loaded, deployment if own else "", warns=False)


def ensure_for_start(loaded: Loaded, reporter: Reporter, deployment: str = "") -> bool:
    """Choose a mongod where none has been chosen yet; silent otherwise.

    `deployment`: what to start, which may have a mongod of its own; empty: what this machine's serves for.

    Returns: Whether one was chosen now.
    Raises ProvisionError: there is none, and none can be downloaded.
    """
    return _ensure((_mongod_for(loaded, deployment),), reporter)


def ensure_for_run(loaded: Loaded, reporter: Reporter, native: bool = True, deployment: str = "") -> bool:
    """Set up what serving the app needs and is missing; silent where nothing is.

    Args:
        native: MongoDB runs as processes, which need a mongod here.
        deployment: as for `ensure_for_start`.

    Returns: Whether anything was set up.
    Raises ProvisionError: it can't be set up.
    """
    return _ensure((*((_mongod_for(loaded, deployment),) if native else ()), SecretKey(loaded)), reporter)


def _ensure(wanted: Sequence[Step], reporter: Reporter) -> bool:
    return bool(run_steps((step for step in wanted if step.decide().needed), reporter))
