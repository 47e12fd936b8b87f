"""What `invoke hosts.…` does, from settings to results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.hosts import inventory, placement
from provision.hosts.backend import Hosts
from provision.hosts.link import Link
from provision.hosts.placement import Placed
from provision.hosts.setup import Archive
from provision.mongodb.wire import CommandFailed, NotReachable
from provision.settings.loading import Loaded


@dataclass(frozen=True)
class Rotation:
    """What `rotate_certificates` did; its fields are what ``--json`` prints.

    Args:
        nodes: names of the nodes that use their new certificate now.
        restart: names of those that don't know how to, and use it after a restart.
        down: names of those that don't run: they use it when they are started.
    """

    deployment: str
    nodes: tuple[str, ...]
    restart: tuple[str, ...]
    down: tuple[str, ...]


def plan(loaded: Loaded, on: str) -> list[Placed]:
    """Where each node of a deployment is, or would be. Starts nothing, and asks no host.

    Raises ProvisionError: there is no such deployment, or it can't be placed.
    """
    deployment = assembly.deployment(loaded, on)
    hosts = backend_of(deployment)
    if hosts is not None:
        return placement.plan(deployment.topology, hosts.placement)
    return [Placed(node.name, "this machine", node.address, False) for node in deployment.topology.nodes]


def rotate_certificates(loaded: Loaded, on: str, say: Callable[[str], None] = lambda _: None) -> Rotation:
    """Give every host of a deployment a new certificate; its nodes take it without a restart.

    Follows https://www.mongodb.com/docs/manual/reference/command/rotateCertificates/

    Raises ProvisionError: it is not on hosts or has no TLS, a host can't be reached, or a node refused.
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


def backend_of(deployment: Deployment) -> Hosts | None:
    """The back end of a deployment on hosts; None: its nodes are on this machine."""
    return None if deployment.backend.capabilities.local else cast(Hosts, deployment.backend)


def deployed(loaded: Loaded, on: str) -> Deployment:
    """A deployment that is on hosts.

    Raises ProvisionError: it is not.
    """
    deployment = assembly.deployment(loaded, on)
    if deployment.backend.capabilities.local:
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

    `names`: which hosts; None: all of invoke.yaml.

    Raises ProvisionError: invoke.yaml does not name one of them.
    """
    made = {name: Link(host) for name, host in inventory.hosts(loaded, names).items()}
    try:
        yield made
    finally:
        for link in made.values():
            link.close()


def roles(loaded: Loaded, on: str | None) -> tuple[set[str], set[str]]:
    """Names of the hosts for nodes, and of those for the app; a host that no deployment names is for nodes."""
    deployments = loaded.settings.deployments
    chosen = list(deployments.values()) if on is None else [deployments[on]]
    nodes = {host for each in chosen for host in each.hosts}
    apps = {host for each in chosen for host in each.app_hosts}
    return nodes | ({*loaded.settings.hosts} - apps if on is None else set()), apps


def hosts_of(loaded: Loaded, on: str | None) -> list[str]:
    """Names of all hosts of a deployment, those for the app too; None: of invoke.yaml.

    Raises ProvisionError: there are none.
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


def archive_of(loaded: Loaded, version: str) -> Archive | None:
    """Where hosts like this machine may get the binaries of a version by themselves."""
    from provision.mongodb.binaries import archive
    from provision.mongodb.binaries.machine import builds, this_machine

    found = builds(this_machine(), version)
    return Archive(archive.url(loaded.settings.mongodb.mirror, found[0], version)) if found else None


def send_binaries(
    loaded: Loaded, on: str, links: Mapping[str, Link], doing: str, say: Callable[[str], None]
) -> None:
    """See that hosts have the binaries of a deployment, and that these run there.

    `say`: told of each step that changed something.

    Raises ProvisionError: no mongod has been chosen, or a host can't have it.
    """
    from provision.hosts import setup
    from provision.mongodb import binaries

    mongod = assembly.mongod(loaded, on)
    if mongod is None:
        raise ProvisionError(doing, "No mongod has been chosen yet.", "Type `invoke setup` first.")
    needed = list(setup.binaries_of(mongod).values())
    environment = binaries.environment(mongod.version)

    def tell(step: setup.HostStep) -> None:
        if step.changed:
            say(f"{step.host}: {step.name}: {step.why}")

    setup.run(links, lambda link: setup.steps(link, needed, None, environment), finished=tell).raise_first()
