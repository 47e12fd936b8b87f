"""Tests that need an sshd: several hosts on this machine, each with an address, processes and files of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provision.core.steps import Silent
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.hosts import inventory, ssh
from provision.hosts import setup as hosts_setup
from provision.hosts.backend import Hosts
from provision.hosts.link import Link
from provision.mongodb import binaries
from provision.settings.loading import Layer, Loaded, load
from tests.hosts.lab import Lab, client_at_home, lab
from tests.hosts.virtualenvs import Virtualenvs
from tests.support.capabilities import ROOT
from tests.support.router_standin.install import beside, link

if TYPE_CHECKING:
    from tests.hosts.standing import Standing


@pytest.fixture(scope="session")
def sshd(pytestconfig: pytest.Config) -> str:
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("sshd", path=folders)
    assert found is not None
    return found


@contextlib.contextmanager
def hosts_of_their_own(
    sshd: str, names: Sequence[str], systemd: bool = False, lingering: bool = False
) -> Iterator[Lab]:
    """Hosts for the length of the block. Other users than root must be able to pass through their folder."""
    folder = Path(tempfile.mkdtemp(prefix="flaskbook-hosts-"))
    folder.chmod(0o755)
    try:
        with lab(folder, sshd, names, systemd, lingering) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def three(sshd: str) -> Iterator[Lab]:
    """Three hosts: db1, db2 and db3."""
    with hosts_of_their_own(sshd, ("db1", "db2", "db3")) as made:
        yield made


@pytest.fixture
def all_on(three: Lab) -> Iterator[Lab]:
    """The three hosts, switched on; those that a test switches off or cuts off come back after it."""
    yield three
    for host in three.hosts.values():
        host.connect()
        if host.process is None:
            host.start()


@dataclass
class Project:
    """A project on this machine whose deployments are on the lab's hosts.

    Args:
        root: its top folder.
        lab: the hosts.
        mongod: the binary that it has, with a router beside it.
        hosts: what invoke.yaml says of them.
    """

    root: Path
    lab: Lab
    mongod: Path
    hosts: dict[str, dict[str, Any]]
    made: list[Deployment] = field(default_factory=list)

    def loaded(self, **deployment: Any) -> Loaded:
        """The settings, with one deployment: ``prod``."""
        chosen = {
            "mongodb": {"source": "path", "path": str(self.mongod)},
            "app": {"factory": "flaskbook.application:create_app", "database": "flaskbook"},
            "hosts": self.hosts,
            "deployments": {
                "prod": {"backend": "hosts", "hosts": list(self.hosts), "port": 27300, **deployment},
            },
        }
        return load(self.root, [Layer("the tests", chosen)], remember=False)

    def deployment(self, loaded: Loaded) -> Deployment:
        """The deployment ``prod``; it is taken down after the test."""
        binaries.find(loaded.settings.mongodb, loaded.paths, Silent())
        made = assembly.deployment(loaded, "prod")
        self.made.append(made)
        return made

    def links(self, names: Sequence[str] | None = None) -> dict[str, Link]:
        """Connections to the hosts, as the settings have them."""
        return {name: Link(host, 5.0) for name, host in inventory.hosts(self.loaded(), names).items()}

    def wanted(self) -> list[hosts_setup.Binary]:
        """What hosts are to have of the mongod that is chosen, which is on record from then on."""
        loaded = self.loaded()
        choice = binaries.find(loaded.settings.mongodb, loaded.paths, Silent())
        return list(hosts_setup.binaries_of(choice.mongod).values())

    def set_up(self, names: Sequence[str] | None = None) -> hosts_setup.Outcome:
        """What `hosts.setup` does."""
        wanted = self.wanted()
        links = self.links(names)
        try:
            return hosts_setup.run(links, lambda link: hosts_setup.steps(link, wanted))
        finally:
            for link in links.values():
                link.close()

    def are_ready(self, names: Sequence[str] | None = None) -> None:
        """The hosts have all that `hosts.setup` brings, for tests of what comes after it."""
        self.hand_over(names)
        self.set_up(names).raise_first()

    def hand_over(self, names: Sequence[str] | None = None) -> None:
        """Put the binaries where `hosts.setup` would: as other names of the same files, for sending takes seconds.

        No test may write to them: they are this machine's own.
        """
        wanted = self.wanted()
        for name in names or self.hosts:
            directory = self.lab.hosts[name].srv / "mongodb"
            for binary in wanted:
                place = directory / binary.place
                for folder in (directory, directory / "bin", place.parent):
                    folder.mkdir(mode=0o700, exist_ok=True)
                if not place.exists():
                    link(binary.path, place)

    def has_no_router(self) -> None:
        """Leave mongos out: it may be a stand-in, which needs this machine's Python, for root alone to reach."""
        alone = self.root / "bin" / "mongod"
        alone.parent.mkdir()
        link(self.mongod, alone)
        self.mongod = alone

    def close(self) -> None:
        for deployment in self.made:
            assert isinstance(deployment.backend, Hosts)
            deployment.backend.close()
        for host in self.lab.hosts.values():
            host.connect()
            if host.process is None:
                host.start()
            for program in ("mongod", "router_standin"):
                host.end(program)
            for left in host.srv.iterdir():
                shutil.rmtree(left)


@contextlib.contextmanager
def at_home(hosts: Lab, home: Path) -> Iterator[Path]:
    """A home directory whose known_hosts has the keys of all hosts; it is $HOME in the block, and home to `ssh`.

    Args:
        hosts: the hosts.
        home: the directory to make.
    """
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "known_hosts").write_text(hosts.known_hosts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("PATH", f"{client_at_home(home)}{os.pathsep}{os.environ['PATH']}")
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        # The wrapped client's idea of the user's home is this process's, too.
        patch.setattr(ssh, "_local", functools.partial(dataclasses.replace, ssh._local(), home=str(home)))
        ssh.ask.cache_clear()
        yield home
    ssh.ask.cache_clear()


@contextlib.contextmanager
def project_on(hosts: Lab, folder: Path, mongod: Path) -> Iterator[Project]:
    """A project that knows hosts, with nothing on them yet.

    Args:
        hosts: the hosts.
        folder: where the project is made.
        mongod: the binary that it uses, with a router beside it.
    """
    root = folder / "project"
    root.mkdir()
    shutil.copy2(ROOT / "mongod.conf.j2", root)
    settings = {
        name: {"address": host.address, "user": "root", "key": str(hosts.key), "data_dir": "/srv/mongodb"}
        for name, host in hosts.hosts.items()
    }
    made = Project(root, hosts, mongod, settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def trusting(three: Lab, tmp_path: Path) -> Iterator[Path]:
    """A home directory whose known_hosts has the keys of all hosts."""
    with at_home(three, tmp_path / "home") as home:
        yield home


@pytest.fixture(scope="session")
def routed_mongod(tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str) -> Path:
    """The mongod, with a router beside it; for all projects, so that its sha256 is worked out once."""
    return beside(mongod_binary, mongod_version, tmp_path_factory.mktemp("routed") / "bin")


@pytest.fixture(scope="session")
def virtualenvs(tmp_path_factory: pytest.TempPathFactory) -> Virtualenvs:
    """The app's virtualenvs that were made in this run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return Virtualenvs(folder / "app-virtualenvs")


@pytest.fixture(scope="module")
def standing(three: Lab, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path) -> Iterator[Standing]:
    """What tests that leave it as large as it was can share on db1, db2 and db3; nothing, until one brings it up."""
    from tests.hosts.standing import standing_on

    with standing_on(three, tmp_path_factory.mktemp("standing"), routed_mongod) as made:
        yield made


@pytest.fixture
def project(
    all_on: Lab, trusting: Path, standing: Standing, tmp_path: Path, routed_mongod: Path
) -> Iterator[Project]:
    """A project with db1, db2 and db3, and nothing on them yet."""
    standing.clear()
    with project_on(all_on, tmp_path, routed_mongod) as made:
        yield made
