"""What stopped an app from starting, worded: the last line of its traceback, and the remedy of this failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provision.app.loading import OLDEST_FLASK
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError

AGAIN = "then type `invoke run` again."
SHAPES = (
    "Set app.factory in invoke.yaml to module:app (an app object), module:create_app (a factory without arguments) "
    "or \"module:create_app('dev')\" (with arguments)"
)
OWN_COMMAND = 'app.command in invoke.yaml, for example to ["python", "server.py", "--port", "{port}"]'


@dataclass(frozen=True)
class Setting:
    """What the remedy of a failure depends on."""

    deployment: str
    has_auth: bool  # the deployment has users
    requirements: str | None  # what declares the app's dependencies, if a setting names it
    secrets: tuple[str, ...] = ()  # what no message may contain


def failed(doing: str, ended: str, reason: Mapping[str, Any] | None, setting: Setting) -> ProvisionError:
    """The error over an app that did not start, or ended.

    `ended`: how it ended, as a sentence.
    `reason`: what `provision.app.loading` says of it; None: nothing, for it ended by itself.
    """
    if reason is None:
        return ProvisionError(doing, ended, f"Correct it, {AGAIN}")
    line = str(reason["line"])
    for secret in setting.secrets:
        line = line.replace(secret, "***")
    kind, names = str(reason["kind"]), tuple(str(name) for name in reason["names"])
    cause = "Flask is not installed." if kind == "flask" else line
    return ProvisionError(doing, f"{cause}\n{ended}", f"{remedy(kind, names, setting)}, {AGAIN}")


def remedy(kind: str, names: tuple[str, ...], setting: Setting) -> str:
    """What to change after a failure of this kind, as the beginning of a sentence."""
    declares = (
        f"{setting.requirements} (app.requirements)"
        if setting.requirements
        else "what declares the app's dependencies (app.requirements)"
    )
    known = ", ".join(names)
    if kind == "auth":
        if setting.has_auth:
            return (
                "Have the app read its database's address from MONGODB_URI, or name the variables that it reads in "
                "app.env: docs/environment.md has those that it is given"
            )
        return f"Set deployments.{setting.deployment}.auth to true in invoke.yaml: the app logs in as a user"
    if kind == "environment":
        lines = " and ".join(f'{name}: "…"' for name in names)
        return (
            f"Set {lines} below app.env in invoke.yaml, with a value or a template such as "
            f'"{{{{ uri }}}}" (docs/environment.md)'
        )
    if kind == "address":
        return (
            "Have the app read its database's address from its environment (docs/environment.md has the names), or "
            "name the variable that it reads in app.env"
        )
    texts = {
        "shape": SHAPES,
        "server": f"Set {OWN_COMMAND}",
        "module": "Set app.factory in invoke.yaml to the app's module, and app.path to the directory it is imported from",
        "package": f"List the package that has {known} in {declares}",
        "command": f"List the package that brings {known} in {declares}, or correct app.command",
        "flask": f"List flask in {declares}",
        "old": f"List flask>={OLDEST_FLASK} in {declares}",
        "inside-flask": f"List versions that fit each other in {declares}: this Flask's own import fails",
    }
    return texts.get(kind, "Correct it")
