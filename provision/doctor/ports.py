"""Checks of the ports that `run` and the deployments listen on."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from provision.backends.processes import port_holder
from provision.core.dataclass import dataclass
from provision.core.finding import Finding, error, ok, warning
from provision.deployments import assembly
from provision.doctor.traces import AppProcess, NodeProcess, Record
from provision.mongodb.topology import LOOPBACK
from provision.settings.loading import Loaded

# What `run` uses unless told otherwise.
DEFAULT_DEPLOYMENT = "local"
_AIRPLAY_PORTS = (5000, 7000)


@dataclass(frozen=True)
class PortFacts:
    """A port that something of ours wants."""

    port: int  # the TCP port
    wanted_by: str  # what wants it: ``"mongod of local"``, ``"the app"``
    ours: int | None  # the process that has it, if that is the very one that should; None otherwise
    holder: str | None  # who else has it, as `port_holder` says it; None: nobody
    needed: bool  # `run` could not work without it
    way_out: str  # the command with another, free port in it
    in_docker: bool = False  # it is a container's, and Docker itself holds the port while that runs


def read_ports(
    loaded: Loaded, records: Sequence[Record], nodes: Sequence[NodeProcess], apps: Sequence[AppProcess]
) -> list[PortFacts]:
    """Who has the ports of the nodes and of the app."""
    found = []
    here = {n: each for n, each in loaded.settings.deployments.items() if each.capabilities.local}
    for name, settings in here.items():
        for node in assembly.plan(name, settings).nodes:
            running = {each.pid: each.port for each in records if each.alive and _same(each, name, node.name)}
            running |= {
                each.pid: node.port
                for each in nodes
                if _same(each, name, node.name) and each.pid not in running
            }
            ours = next((pid for pid, port in running.items() if port == node.port), None)
            holder = None if ours else port_holder(LOOPBACK, node.port)
            needed = name == DEFAULT_DEPLOYMENT
            variable = f"INVOKE_DEPLOYMENTS_{name.upper().replace('-', '_')}_PORT"
            command = "run" if needed else f"start --on {name}"
            way_out = f"{variable}={_free_port(LOOPBACK, node.port)} ./invoke {command}" if holder else ""
            in_docker = settings.capabilities.containers
            found.append(
                PortFacts(node.port, f"{node.name} of {name}", ours, holder, needed, way_out, in_docker)
            )
    app = loaded.settings.app
    ours = next((each.pid for each in apps if app.port in each.ports), None)
    holder = None if ours else port_holder(app.host, app.port)
    way_out = f"./invoke run --port {_free_port(app.host, app.port)}" if holder else ""
    return [*found, PortFacts(app.port, "the app", ours, holder, True, way_out)]


def judge_host(host: str) -> Finding | None:
    """Whether `app.host` is an address that this machine can listen on; None: it is."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as problem:
        return error(
            "app.host",
            f"{host} is not an address of this machine: {problem.strerror}.",
            "Set app.host in invoke.yaml; 127.0.0.1 always works.",
        )
    return None


def judge_ports(facts: Sequence[PortFacts], system: str = sys.platform) -> list[Finding]:
    """Whether the ports are free. Pure.

    One finding for all that are free, one for all that Docker has, one for each of the others.
    """
    free = [each for each in facts if each.ours is None and each.holder is None]
    docker = [each for each in facts if each not in free and _may_be_dockers(each)]
    findings = []
    if free:
        findings.append(ok("ports", f"Free: {_listed(free)}."))
    if docker:
        findings.append(ok("ports", f"Held by Docker, as they are while it runs: {_listed(docker)}."))
    return findings + [
        _judge_taken(each, system) for each in facts if each not in free and each not in docker
    ]


def _may_be_dockers(facts: PortFacts) -> bool:
    # Who is not root can't see Docker's processes.
    return facts.in_docker and any(word in str(facts.holder).lower() for word in ("docker", "another user"))


def _listed(facts: Sequence[PortFacts]) -> str:
    """``"27017 (local), 27100, 27120 (cluster)"``."""
    by_owner: dict[str, list[str]] = {}
    for each in facts:
        by_owner.setdefault(each.wanted_by.rpartition(" of ")[2], []).append(str(each.port))
    return ", ".join(f"{', '.join(ports)} ({owner})" for owner, ports in by_owner.items())


def _judge_taken(facts: PortFacts, system: str) -> Finding:
    check = f"port {facts.port}"
    if facts.ours is not None:
        return ok(check, f"Held by {facts.wanted_by}, which runs (process {facts.ours}).")
    what = f"Wanted by {facts.wanted_by}, and held by {facts.holder}."
    remedy = f"End that one if nobody uses it, or use another port: {facts.way_out}"
    if system == "darwin" and facts.port in _AIRPLAY_PORTS:
        remedy += "\nIf it is AirPlay: System Settings, General, AirDrop & Handoff, AirPlay Receiver off."
    return (error if facts.needed else warning)(check, what, remedy)


def judge_shared_ports(facts: Sequence[PortFacts]) -> list[Finding]:
    """Ports that the settings give both to the app and to a node. Pure."""
    *nodes, app = facts
    return [
        (error if node.needed else warning)(
            f"port {node.port}",
            f"Both {node.wanted_by} and the app are to listen on it.",
            f"Change app.port in invoke.yaml, or: ./invoke run --port {app.port + 1}",
        )
        for node in nodes
        if node.port == app.port
    ]


def _same(each: Record | NodeProcess, deployment: str, node: str) -> bool:
    return (each.deployment, each.node) == (deployment, node)


def _free_port(host: str, after: int) -> int:
    """The next port that nobody has; the one after it where none is found near."""
    for port in range(after + 1, min(after + 50, 65536)):
        if port_holder(host, port) is None:
            return port
    return after + 1
