"""Groups of packages: env/ gets those of a group when a command that needs them is first typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RUN = ("requirements.txt", "requirements-run.txt")
"""What `./invoke run` needs, and no more."""
GROUPS = {
    "hosts": "requirements-hosts.txt",
    "test": "requirements-test.txt",
    "dev": "requirements-dev.txt",
}
NEEDED_BY = {
    "hosts": "Work with other hosts",
    "test": "The test suite",
    "dev": "The checks before a commit",
}
PACKAGES = {
    "hosts": ("fabric", "cryptography"),
    "test": ("pytest", "testcontainers"),
    "dev": ("ruff", "mypy"),
}
"""A few packages of each group, by which one can tell that it is installed."""
DISTRIBUTION = "flaskbook-provision"
VARIABLE = "PROVISION_GROUPS"
"""Names of the groups that a command has asked for, with commas, in the environment of what builds env/."""


def keeps_env(root: Path) -> bool:
    """Whether a folder is a clone of the tool, which has a virtualenv env/ of its own, and not an installed package."""
    return (root / "invoke").is_file() and (root / RUN[1]).is_file()


def asked_for(root: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """The requirements files of `run` and of the groups that a command has asked for."""
    names = environment.get(VARIABLE, "").split(",")
    return tuple(root / name for name in (*RUN, *(GROUPS[name] for name in names if name in GROUPS)))


def optional(root: Path) -> tuple[Path, ...]:
    """The requirements files that stay in env/ once they are in it."""
    return tuple(root / name for name in GROUPS.values())


def announce(names: list[str]) -> None:
    """Say, once, why packages are installed now."""
    first, *others = (NEEDED_BY[name] for name in names)
    what = " and ".join((first, *(each[0].lower() + each[1:] for each in others)))
    needs = "needs" if not others and names != ["dev"] else "need"
    sys.stderr.write(
        f"{what} {needs} packages that `run` does not: they are installed into env/ now, once.\n"
    )
    sys.stderr.flush()


def ask_for(names: list[str]) -> None:
    """Have the next build of env/ add these groups."""
    os.environ[VARIABLE] = ",".join(names)
