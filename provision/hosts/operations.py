"""What `invoke hosts.…` does, from settings to results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from provision import assembly
from provision.backends.hosts import Hosts
from provision.deployment import Deployment
from provision.errors import ProvisionError
from provision.hosts import app_environment, inventory, judge, placement, release, setup
from provision.hosts.app_environment import AppEnvironment, Wheels
from provision.hosts.judge import HostFinding, Wanted
from provision.hosts.link import Link
from provision.hosts.placement import Placed
from provision.hosts.setup import Archive, HostStep, Outcome
from provision.mongodb import binaries
from provision.mongodb.binaries import Source
from provision.mongodb.wire import CommandFailed, NotReachable
from provision.settings import Loaded
from provision.steps import Step


@dataclass(frozen=True)
class Rotation:
    """What `rotate_certificates` did; its fields are what ``--json`` prints.

    Args:
        deployment: its name.
        nodes: names of the nodes that use their new certificate now.
        restart: names of those that don't know how to, and use it after a restart.
        down: names of those that don't run: they use it when they are started.
    """

    deployment: str
    nodes: tuple[str, ...]
    restart: tuple[str, ...]
    down: tuple[str, ...]


def check(loaded: Loaded, on: str | None = None) -> list[HostFinding]:
    """Look whether hosts will do, all at once. Changes nothing.

    Args:
        loaded: the settings in force.
        on: a deployment: its hosts, and whether they can carry it; None: all hosts of invoke.yaml.

    Raises:
        ProvisionError: invoke.yaml names no hosts, or the deployment is not on hosts.
    """
    wanted: dict[str, Wanted] = {}
    if on is not None:
        backend = deployed(loaded, on).backend
        assert isinstance(backend, Hosts)  # noqa: S101 — `deployed` has looked
        planned: dict[str, list[int]] = {}
        for node in assembly.deployment(loaded, on).topology.nodes:
            planned.setdefault(backend.placement[node.name], []).append(node.port)
        wanted = {host: Wanted(len(each), tuple(each)) for host, each in planned.items()}
    for host in _roles(loaded, on)[1]:
        found = wanted.get(host, Wanted())
        ports = found.ports if on is None else (*found.ports, release.port_of(loaded, on))
        wanted[host] = replace(found, app=True, ports=ports)
    with links(loaded, _hosts_of(loaded, on)) as reached:
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
        dry_run: say what would be done and change nothing.
        finished: told of each step, from any thread.

    Returns:
        The steps, and the error of each host that failed.

    Raises:
        ProvisionError: nothing could be begun: no hosts, or no mongod.
    """
    mongod = assembly.mongod(loaded, on or "")
    if mongod is None:
        raise ProvisionError(
            "setting up hosts",
            "No mongod has been chosen for this machine yet.",
            "Type `invoke setup` first.",
        )
    wanted = list(setup.binaries_of(mongod).values())
    archive = _archive(loaded, mongod.version) if mongod.source is Source.ARCHIVE else None
    environment = binaries.environment(mongod.version)
    nodes, apps = _roles(loaded, on)
    requirements = app_environment.wanted(loaded) if apps else None
    with links(loaded, _hosts_of(loaded, on)) as found, Wheels() as wheels:

        def steps(link: Link) -> list[Step]:
            name = link.host.name
            made = setup.steps(link, wanted if name in nodes else (), archive, environment)
            if requirements is not None and name in apps:
                made.append(AppEnvironment(link, requirements, wheels))
            return made

        return setup.run(found, steps, dry_run, finished)


def plan(loaded: Loaded, on: str) -> list[Placed]:
    """Where each node of a deployment is, or would be. Starts nothing, and asks no host.

    Raises:
        ProvisionError: there is no such deployment, or it can't be placed.
    """
    deployment = assembly.deployment(loaded, on)
    if isinstance(deployment.backend, Hosts):
        return placement.plan(deployment.topology, deployment.backend.placement)
    return [Placed(node.name, "this machine", node.address, False) for node in deployment.topology.nodes]


def rotate_certificates(loaded: Loaded, on: str, say: Callable[[str], None] = lambda _: None) -> Rotation:
    """Give every host of a deployment a new certificate; its nodes take it without a restart.

    Follows https://www.mongodb.com/docs/manual/reference/command/rotateCertificates/

    Args:
        loaded: the settings in force.
        on: the deployment.
        say: told what is going on.

    Raises:
        ProvisionError: it is not on hosts or has no TLS, a host can't be reached, or a node refused.
    """
    deployment = deployed(loaded, on)
    backend = cast("Hosts", deployment.backend)
    doing = f"rotating the certificates of {on}"
    if assembly.authority(loaded, on, loaded.deployment(on)) is None:
        raise ProvisionError(
            doing, "It has no TLS.", f"Set deployments.{on}.tls in invoke.yaml to null or true."
        )
    with contextlib.closing(backend):
        deployment.prepare()
        say(f"Sending new certificates to the hosts of {on}")
        backend.send_certificates(renew=True)
        rotated, restart, down = [], [], []
        running = deployment.running(deployment.topology.nodes)
        for node in deployment.topology.nodes:
            if node not in running:
                down.append(node.name)
                continue
            try:
                with deployment.dial(node) as connection:
                    connection.command(
                        "admin", {"rotateCertificates": 1, "message": "invoke hosts.rotate-certificates"}
                    )
            except NotReachable as problem:
                raise ProvisionError(
                    doing,
                    f"{node.name} does not answer: {problem}.",
                    f"Look at `invoke logs --on {on} --node {node.name}`.",
                ) from None
            except CommandFailed as refusal:
                if refusal.code != _COMMAND_NOT_FOUND:
                    raise ProvisionError(
                        doing,
                        f"{node.name} refused: {refusal}.",
                        f"Look at `invoke logs --on {on} --node {node.name}`. It goes on with its old certificate.",
                    ) from None
                restart.append(node.name)
            else:
                rotated.append(node.name)
    return Rotation(on, tuple(rotated), tuple(restart), tuple(down))


def deployed(loaded: Loaded, on: str) -> Deployment:
    """A deployment that is on hosts.

    Raises:
        ProvisionError: it is not.
    """
    deployment = assembly.deployment(loaded, on)
    if not isinstance(deployment.backend, Hosts):
        raise ProvisionError(
            f"looking up the hosts of {on}",
            f"Its back end is {deployment.backend.name}.",
            f"Set deployments.{on}.backend to hosts and deployments.{on}.hosts to some of `hosts:` in invoke.yaml,\n"
            "or name another deployment: --on NAME.",
        )
    return deployment


_COMMAND_NOT_FOUND = 59


@contextlib.contextmanager
def links(loaded: Loaded, names: Iterable[str] | None = None) -> Iterator[Mapping[str, Link]]:
    """Connections to hosts, which are closed at the end; each is opened when it is first used.

    Args:
        loaded: the settings in force.
        names: which hosts; None: all of invoke.yaml.

    Raises:
        ProvisionError: invoke.yaml does not name one of them.
    """
    made = {name: Link(host) for name, host in inventory.hosts(loaded, names).items()}
    try:
        yield made
    finally:
        for link in made.values():
            link.close()


def _roles(loaded: Loaded, on: str | None) -> tuple[set[str], set[str]]:
    """Names of the hosts for nodes, and of those for the app; a host that no deployment names is for nodes."""
    deployments = loaded.settings.deployments
    chosen = list(deployments.values()) if on is None else [deployments[on]]
    nodes = {host for each in chosen for host in each.hosts}
    apps = {host for each in chosen for host in each.app_hosts}
    return nodes | ({*loaded.settings.hosts} - apps if on is None else set()), apps


def _hosts_of(loaded: Loaded, on: str | None) -> list[str]:
    """Names of all hosts of a deployment, those for the app too; None: of invoke.yaml.

    Raises:
        ProvisionError: there are none.
    """
    if on is not None:
        deployed(loaded, on)
        settings = loaded.deployment(on)
        return list(dict.fromkeys((*settings.hosts, *settings.app_hosts)))
    found = list(loaded.settings.hosts)
    if not found:
        raise ProvisionError(
            "looking up the hosts",
            "invoke.yaml names no hosts.",
            "Add them under `hosts:` there, for example\n  hosts: {db1: {address: 192.0.2.11, user: mongo}}",
        )
    return found


def _archive(loaded: Loaded, version: str) -> Archive | None:
    """Where hosts like this machine may get the binaries of a version by themselves."""
    from provision.mongodb.binaries import archive
    from provision.mongodb.binaries.machine import builds, this_machine

    found = builds(this_machine(), version)
    return Archive(archive.url(loaded.settings.mongodb.mirror, found[0], version)) if found else None
