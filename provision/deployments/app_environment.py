"""The virtualenv of the app: whether it has one, what that is made from, where it is."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.steps import Decision, Progress
from provision.env import bootstrap, declared, generations
from provision.env.declared import Declared
from provision.env.groups import keeps_env
from provision.env.virtualenv import BootstrapError, EnvironmentSpec, Plan
from provision.settings.loading import Loaded

_IN_USE: list[generations.Generation] = []
"""Those that this process runs an app from: they stay as they are until it ends."""


def wanted(loaded: Loaded, *, development: bool = True) -> Declared | None:
    """What the app needs; None: it runs in `env/`.

    `development`: with `app.groups`.

    `app.requirements` names it, in the app's folder or else in the project's. Where that is not set, the app's folder
    declares it. The app that comes with the tool, in a clone of it, runs in `env/`.

    Raises ProvisionError: it can't be read.
    """
    settings = loaded.settings.app
    folder = loaded.paths.under_root(settings.path)
    groups = settings.groups if development else ()
    try:
        if settings.requirements is None:
            return None if _is_embedded(folder) else declared.find(folder, groups)
        for place in (folder, loaded.paths.root):
            file = place / Path(settings.requirements).expanduser()
            if file.is_file():
                return declared.read(file, place, groups)
    except BootstrapError as error:
        raise ProvisionError(error.doing, error.cause, error.remedy) from None
    raise ProvisionError(
        f"preparing the virtualenv of {settings.factory}",
        f"app.requirements names {settings.requirements}, which is neither in {folder} nor in {loaded.paths.root}.",
        "Set app.requirements in invoke.yaml to the app's requirements file. Without it, the app's folder is looked at.",
    )


def _is_embedded(folder: Path) -> bool:
    """Whether a folder is the root of this clone: its app comes with the tool."""
    return keeps_env(bootstrap.ROOT) and folder.resolve() == bootstrap.ROOT


def spec(loaded: Loaded) -> EnvironmentSpec | None:
    """The spec of the app's own virtualenv, for `generations`; None: it runs in `env/`.

    Raises ProvisionError: what the app needs can't be read.
    """
    needed = wanted(loaded)
    if needed is None:
        return None
    python = loaded.settings.app.python
    home = loaded.paths.app_envs / key(loaded.paths.under_root(loaded.settings.app.path), python)
    return bootstrap.app_environment(home, needed, loaded.paths.lock(f"app-env-{home.name}"), python)


def key(folder: Path, python: str | None) -> str:
    """The name of the virtualenv of one app and Python: what people know them by, and a digest of both."""
    folder = folder.resolve()
    digest = hashlib.sha256(f"{folder}\0{python or ''}".encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.name).strip("-")[:24] or "app"
    version = f"-py{python}" if python and re.fullmatch(r"[\d.]+", python) else ""
    return f"{name}{version}-{digest}"


def inspect(loaded: Loaded) -> Plan | None:
    """What would have to be done to the app's own virtualenv; None: it has none.

    Raises ProvisionError: what the app needs can't be read.
    """
    found = spec(loaded)
    if found is None:
        return None
    try:
        return generations.inspect(found)
    except BootstrapError as error:
        raise ProvisionError(error.doing, error.cause, error.remedy) from None


def ensure(loaded: Loaded, say: Callable[[str], None], rebuild: bool = False) -> Path:
    """The interpreter that the app runs with: that of its own virtualenv, made where that is missing or not current.

    The virtualenv stays as it is until this process ends.

    Raises ProvisionError: it can't be made.
    """
    found = spec(loaded)
    if found is None:
        return Path(sys.executable)
    try:
        generation = generations.ensure(found, rebuild=rebuild)
    except BootstrapError as error:
        raise ProvisionError(error.doing, error.cause, error.remedy) from None
    _IN_USE.append(generation)
    changed = [step for step in generation.steps if step.changed]
    for step in changed:
        say(f"{step.name}: {step.why}")
    for note in found.declared.notes if found.declared and changed else ():
        say(note)
    return generation.interpreter


@dataclass(frozen=True)
class AppVirtualenv:
    """The step of `setup` that makes the app's own virtualenv."""

    loaded: Loaded
    rebuild: bool = False
    name: str = "app virtualenv"

    def decide(self) -> Decision:
        plan, asked = inspect(self.loaded), spec(self.loaded)
        if plan is None or asked is None:
            return Decision(False, "the app runs in env/")
        if not plan.current:
            return Decision(True, plan.virtualenv_why)
        if self.rebuild:
            return Decision(True, "asked for by --rebuild")
        return Decision(False, f"{plan.virtualenv_why}; {asked.source}")

    def act(self, progress: Progress) -> str:
        told: list[str] = []
        interpreter = ensure(self.loaded, told.append, self.rebuild)
        made = interpreter.parents[1]
        return "\n".join([f"made in {made.relative_to(self.loaded.paths.root)}", *told])
