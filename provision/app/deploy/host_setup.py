"""Hosts looked at and made ready: for nodes, and for the app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from provision.app.deploy import host_virtualenv, release
from provision.app.deploy.host_virtualenv import AppEnvironment, Wheels
from provision.core.errors import ProvisionError
from provision.core.steps import Step
from provision.deployments import assembly, on_hosts
from provision.hosts import judge, setup
from provision.hosts.judge import HostFinding, Wanted
from provision.hosts.link import Link
from provision.hosts.setup import HostStep, Outcome
from provision.mongodb import binaries
from provision.mongodb.binaries import Source
from provision.settings.loading import Loaded


def check(loaded: Loaded, on: str | None = None) -> list[HostFinding]:
    """Check whether hosts are ready, all at once. Changes nothing.

    `on`: a deployment: its hosts, and whether they can carry it; None: all hosts of invoke.yaml.

    Raises ProvisionError: invoke.yaml names no hosts, or the deployment is not on hosts.
    """
    wanted: dict[str, Wanted] = {}
    if on is not None:
        deployment = on_hosts.deployed(loaded, on)
        backend = on_hosts.backend_of(deployment)
        assert backend is not None  # noqa: S101 — `deployed` has looked
        planned: dict[str, list[int]] = {}
        for node in deployment.topology.nodes:
            planned.setdefault(backend.placement[node.name], []).append(node.port)
        wanted = {host: Wanted(len(each), tuple(each)) for host, each in planned.items()}
    for host in on_hosts.roles(loaded, on)[1]:
        found = wanted.get(host, Wanted())
        ports = found.ports if on is None else (*found.ports, release.port_of(loaded, on))
        wanted[host] = replace(found, app=True, ports=ports)
    with on_hosts.links(loaded, on_hosts.hosts_of(loaded, on)) as reached:
        return judge.check(reached, wanted)


def set_up(
    loaded: Loaded,
    on: str | None = None,
    dry_run: bool = False,
    finished: Callable[[HostStep], None] = lambda _: None,
) -> Outcome:
    """Make hosts ready for nodes, and those for the app ready for that, all at once. One that fails stops no other.

    Args:
        loaded: the settings in force; a mongod was chosen for this machine.
        on: a deployment: its hosts, and those of its app; None: all hosts of invoke.yaml.

    Returns: The steps, and the error of each host that failed.
    Raises ProvisionError: nothing could be begun: no hosts, or no mongod.
    """
    mongod = assembly.mongod(loaded, on or "")
    if mongod is None:
        raise ProvisionError(
            "setting up hosts",
            "No mongod has been chosen for this machine yet.",
            "Type `invoke setup` first.",
        )
    wanted = list(setup.binaries_of(mongod).values())
    archive = on_hosts.archive_of(loaded, mongod.version) if mongod.source is Source.ARCHIVE else None
    environment = binaries.environment(mongod.version)
    nodes, apps = on_hosts.roles(loaded, on)
    requirements = host_virtualenv.wanted(loaded) if apps else None
    with on_hosts.links(loaded, on_hosts.hosts_of(loaded, on)) as found, Wheels() as wheels:

        def steps(link: Link) -> list[Step]:
            name = link.host.name
            made = setup.steps(link, wanted if name in nodes else (), archive, environment)
            if requirements is not None and name in apps:
                made.append(AppEnvironment(link, requirements, wheels))
            return made

        return setup.run(found, steps, dry_run, finished)
