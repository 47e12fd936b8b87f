"""One virtualenv of an app, in generations: a new one is made beside the one in use, and takes its place when complete.

A directory of its own holds the generations, which are called 1, 2, …, and a link `current` to the one that counts.
A command that runs an app from a generation holds a shared lock on its directory until the app ends. One that is neither
current nor in use is removed. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import replace
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.locks import exclusive
from provision.env.virtualenv import (
    BootstrapError,
    EnvironmentSpec,
    Plan,
    StepRecord,
    act,
    decide,
    examine,
    explain_error,
    refresh_record,
    remove,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LINK = "current"
_PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Generation:
    """A virtualenv that is complete, and stays as it is while `descriptor` is open."""

    path: Path
    steps: tuple[StepRecord, ...]
    descriptor: int

    @property
    def interpreter(self) -> Path:
        return self.path / "bin" / "python"

    def release(self) -> None:
        """Let it be removed once another one is current."""
        os.close(self.descriptor)


def current(home: Path) -> Path | None:
    """The generation that counts; None: there is none."""
    try:
        name = (home / LINK).readlink()
    except OSError:
        return None
    path = home / name
    return path if path.parent == home and path.is_dir() else None


def inspect(spec: EnvironmentSpec) -> Plan:
    """Return what has to be done to bring the app's virtualenv to its spec; changes nothing.

    `spec.path` is the directory of the generations. Raises BootstrapError: a file that is declared can't be read.
    """
    there = replace(spec, path=current(spec.path) or spec.path / LINK)
    return decide(there, examine(there))


def ensure(spec: EnvironmentSpec, *, rebuild: bool = False) -> Generation:
    """Return a generation that is as its spec asks, making one where the current one isn't.

    `rebuild`: make a new one in any case. One process at a time looks and builds; the others wait for it. After a
    failure the generation that was current stays so, for the apps that run from it.

    Raises BootstrapError: it can't be made.
    """
    try:
        with exclusive(spec.lock, f"building {spec.label}") as lock:
            plan = inspect(spec)
            path = current(spec.path)
            if plan.current and path is not None and not rebuild:
                refresh_record(replace(spec, path=path))
                steps = plan.steps()
            else:
                if plan.current:
                    plan = Plan("rebuild", "asked for by --rebuild", True, f"{spec.label} is new")
                path, steps = _build(spec, plan, lock)
            descriptor = _share(path)
            try:
                _remove_old(spec.path, path)
            except BaseException:
                os.close(descriptor)
                raise
            return Generation(path, steps, descriptor)
    except OSError as error:
        raise BootstrapError(f"making the virtualenv {spec.label}", *explain_error(spec, error)) from None


def _build(spec: EnvironmentSpec, plan: Plan, lock: int) -> tuple[Path, tuple[StepRecord, ...]]:
    spec.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    numbers = [int(each.name) for each in _generations(spec.path)]
    path = spec.path / str(max(numbers, default=0) + 1)
    steps = act(replace(spec, path=path), plan, lock)
    # A rename takes the place of the old link at once: there is always one that counts.
    link = spec.path / f".{LINK}"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(spec.path / LINK)
    return path, steps


def _generations(home: Path) -> Iterator[Path]:
    return (each for each in home.iterdir() if each.name.isdigit())


def _share(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _remove_old(home: Path, kept: Path) -> None:
    """Remove the generations that nobody uses, also those of builds that were killed; what can't be removed stays."""
    for path in [each for each in _generations(home) if each != kept]:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _runs(path):
                    remove(path)
            finally:
                os.close(descriptor)


def _runs(path: Path) -> bool:
    """Whether a process of this user's runs from a virtualenv: it outlived the command that held the lock for it."""
    needle = os.fsencode(path) + b"/"
    for process in _PROCESSES.glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                content = (process / name).read_bytes()
                if needle in content or needle[:-1] + b"\0" in content:
                    return True
    return False
