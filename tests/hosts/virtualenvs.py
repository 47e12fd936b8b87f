"""The app's virtualenv on hosts, for tests of what comes after `hosts.setup`: made once in a run, then handed over."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provision.app.deploy import host_setup, host_virtualenv
from provision.app.deploy.host_virtualenv import AppEnvironment, Wheels
from provision.deployments import on_hosts
from provision.hosts import setup
from provision.hosts.setup import DataDirectory
from provision.settings.loading import Loaded
from tests.hosts.lab import Lab, LabHost
from tests.support.clones import copied


@dataclass(frozen=True)
class Virtualenvs:
    """Those that were made in this run, each as its host had it. All hosts have them at the same path.

    Args:
        folder: where they are kept, for all workers of the run.
    """

    folder: Path

    def set_up(self, loaded: Loaded, hosts: Lab) -> None:
        """What `hosts.setup` does for ``prod``; the virtualenv is made only if this run has none of its identity."""
        apps = loaded.deployment("prod").app_hosts
        requirements = host_virtualenv.wanted(loaded)
        with on_hosts.links(loaded, apps[:1]) as links, Wheels() as wheels, self._alone():
            [link] = links.values()
            environment = AppEnvironment(link, requirements, wheels)
            kept = self.folder / environment.identity
            if not kept.is_dir():
                setup.run(links, lambda link: [DataDirectory(link), environment]).raise_first()
                _copy(_place(hosts.hosts[apps[0]]), kept)
        for name in apps:
            place = _place(hosts.hosts[name])
            place.parent.mkdir(mode=0o700, exist_ok=True)
            if not place.exists():
                _copy(kept, place)
        host_setup.set_up(loaded, "prod").raise_first()

    def keep(self, host: LabHost) -> None:
        """Keep those that the real `hosts.setup` made on a host."""
        with self._alone():
            for each in _place(host).iterdir():
                kept = self.folder / each.name
                if each.is_symlink() and not kept.is_dir():
                    _copy(_place(host), kept)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other worker makes one in the block: it waits, and then takes what was made."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _place(host: LabHost) -> Path:
    """Where a host has its virtualenvs, as this machine sees it."""
    return host.srv / "mongodb" / "env"


def _copy(source: Path, target: Path) -> None:
    """Copy a folder of virtualenvs, which gets its name when it is whole."""
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    copied(source, new)
    new.rename(target)
