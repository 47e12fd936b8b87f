"""`hosts.check`: whether hosts are ready, each finding with its remedy. Judging is pure; reading is in `facts`."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.finding import Finding, Level, error, ok, warning
from provision.env.virtualenv import MINIMUM_PYTHON
from provision.hosts import facts as reading
from provision.hosts.facts import Facts
from provision.hosts.inventory import Host
from provision.hosts.link import Link, everywhere

# mongod and mongos at rest, and the room that MongoDB wants for its journal and oplog.
_NODE_MB = 150
_NODE_DISK_MB = 500
_FEW_FILES = 64_000
# Members sign times to each other and accept no more than a year of drift; logs and certificates want far less.
_CLOCK_WARNING = 2.0
_CLOCK_ERROR = 60.0


@dataclass(frozen=True)
class Wanted:
    """What a host will be asked to carry."""

    nodes: int = 0  # how many nodes; 0: not known
    ports: tuple[int, ...] = ()  # their ports
    app: bool = False  # it will serve the app, too


@dataclass(frozen=True)
class HostFinding:
    """One finding on one host; an element of what ``invoke hosts.check --json`` prints."""

    host: str
    check: str
    level: Level
    what: str
    remedy: str


def works(findings: Collection[HostFinding]) -> bool:
    """Whether nodes could run on all of them: no finding is an error."""
    return all(each.level is not Level.ERROR for each in findings)


def check(links: Mapping[str, Link], wanted: Mapping[str, Wanted]) -> list[HostFinding]:
    """Look at all hosts at once. Changes nothing.

    Args:
        links: host name → link.
        wanted: host name → what it will be asked to carry.

    Returns: The findings, host by host. A host that can't be looked at has one, which says why.
    """
    read, errors = everywhere(links, reading.read)
    findings = []
    for name, link in links.items():
        problem = errors.get(name)
        found = (
            [unreachable(problem)] if problem else judge(read[name], link.host, wanted.get(name, Wanted()))
        )
        findings += [HostFinding(name, each.check, each.level, each.what, each.remedy) for each in found]
    return findings


def unreachable(problem: ProvisionError) -> Finding:
    """The finding for a host that can't be looked at."""
    return error("ssh", problem.cause, problem.remedy)


def judge(facts: Facts, host: Host, wanted: Wanted, machine: str = "") -> list[Finding]:
    """Everything that may be said of one host. Pure.

    `machine`: the architecture of this machine's mongod; empty: this machine's own.
    """
    if facts.system != "Linux":
        return [
            error(
                "system",
                f"It runs {facts.system}.",
                "Nodes run on Linux hosts. Take it out of the deployment.",
            )
        ]
    return [
        ok("ssh", f"reached as {facts.user} in {facts.round_trip * 1000:.0f} ms; its host key is known"),
        _system(facts, machine or platform.machine()),
        _processor(facts),
        _rights(facts, host),
        _disk(facts, wanted),
        _memory(facts, wanted),
        _clock(facts),
        *_ports(facts, wanted),
        _files(facts),
        *_huge_pages(facts),
        *_tools(facts),
        *([_python(facts, host)] if wanted.app else []),
        _units(facts, host),
    ]


def _system(facts: Facts, machine: str) -> Finding:
    told = f"{facts.distribution or 'Linux'}, {facts.machine}{f', {facts.libc}' if facts.libc else ''}"
    if _same(facts.machine) != _same(machine):
        return error(
            "system",
            f"{told}: this machine's mongod is built for {machine}.",
            "Take hosts of the same architecture, or work from a machine that has theirs.",
        )
    if not facts.libc:
        return error(
            "system",
            f"{told}: no glibc, which MongoDB's binaries need.",
            "Take a host with a distribution that MongoDB supports (not Alpine).",
        )
    return ok("system", told)


def _same(machine: str) -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())


def _processor(facts: Facts) -> Finding:
    count = f"{facts.processors} processor{'s' if facts.processors != 1 else ''}"
    if facts.avx is False and _same(facts.machine) == "x86_64":
        return error(
            "processor",
            f"{count} without AVX: mongod 5 and later end at once.",
            "Choose a processor type with AVX for this virtual machine (host, or x86-64-v3).",
        )
    return ok("processor", count + (" with AVX" if facts.avx else ""))


def _rights(facts: Facts, host: Host) -> Finding:
    directory = facts.data_dir
    if facts.writable:
        return ok(
            "rights", f"{facts.user} may write {directory}" + ("" if facts.exists else ", which will be made")
        )
    if facts.sudo and not facts.exists:
        return ok("rights", f"{directory} will be made with sudo, for {facts.user}")
    repair = f"sudo install -d -m 0700 -o {facts.user} {directory}"
    return error(
        "rights",
        f"{facts.user} may not write {directory}"
        + ("." if facts.sudo else ", and may not use sudo without a password."),
        f"Type on {host.name}: {repair}\nor choose another directory: hosts.{host.name}.data_dir in invoke.yaml.",
    )


def _disk(facts: Facts, wanted: Wanted) -> Finding:
    told = f"{facts.free} MB of {facts.size} MB are free at {facts.data_dir}"
    needed = _NODE_DISK_MB * max(1, wanted.nodes)
    if facts.free < 2 * _NODE_MB:
        return error("disk", f"{told}.", "Free some space there, or choose another data_dir.")
    if facts.free < needed:
        return warning("disk", f"{told}; about {needed} MB are wanted.", "Free some space there soon.")
    return ok("disk", told)


def _memory(facts: Facts, wanted: Wanted) -> Finding:
    told = f"{facts.available} MB of {facts.memory} MB are available"
    needed = _NODE_MB * max(1, wanted.nodes)
    if facts.available < needed:
        return error(
            "memory",
            f"{told}, and {wanted.nodes or 'a'} node{'s' if wanted.nodes != 1 else ''} need about {needed} MB when idle.",
            "Free memory there, or spread the deployment over more hosts.",
        )
    return ok("memory", told)


def _clock(facts: Facts) -> Finding:
    off = facts.clock
    if abs(off) <= _CLOCK_WARNING + facts.round_trip:
        return ok("clock", f"within {max(abs(off), facts.round_trip):.1f} s of this machine's")
    told = f"Its clock is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} this machine's."
    remedy = "Have both set theirs by NTP: sudo timedatectl set-ntp true"
    return error("clock", told, remedy) if abs(off) > _CLOCK_ERROR else warning("clock", told, remedy)


def _ports(facts: Facts, wanted: Wanted) -> list[Finding]:
    if not wanted.ports:
        return []
    taken = sorted(set(wanted.ports) & (facts.listening - facts.ours))
    if not taken:
        return [
            ok("ports", f"{_listed(wanted.ports)} {'is' if len(wanted.ports) == 1 else 'are'} free or ours")
        ]
    return [
        error(
            "ports",
            f"{_listed(taken)} {'is' if len(taken) == 1 else 'are'} taken by something that this tool did not start.",
            f"`sudo ss -ltnp 'sport = :{taken[0]}'` there names it. Stop it, or choose another port for the deployment.",
        )
    ]


def _listed(ports: Sequence[int]) -> str:
    return f"port{'s' if len(ports) != 1 else ''} {', '.join(map(str, ports))}"


def _files(facts: Facts) -> Finding:
    if facts.files is not None and facts.files < _FEW_FILES:
        return warning(
            "open files",
            f"A process may have {facts.files} files open; MongoDB recommends {_FEW_FILES}.",
            f"Put `{facts.user} hard nofile {_FEW_FILES}` and the same with soft into /etc/security/limits.conf there.\n"
            "https://www.mongodb.com/docs/manual/reference/ulimit/",
        )
    return ok("open files", "no limit" if facts.files is None else f"up to {facts.files}")


def _huge_pages(facts: Facts) -> list[Finding]:
    """MongoDB 8 wants them, earlier ones don't; what the host has is told, and is nobody's error.

    https://www.mongodb.com/docs/manual/tutorial/disable-transparent-huge-pages/
    """
    if not facts.huge_pages:
        return []
    return [
        ok(
            "huge pages",
            f"transparent huge pages: {facts.huge_pages} (MongoDB 8 wants always, earlier ones never)",
        )
    ]


def _tools(facts: Facts) -> list[Finding]:
    if not facts.missing:
        return []
    return [
        error(
            "tools",
            f"It has no {', '.join(facts.missing)}.",
            "Install them there: Debian and Ubuntu: sudo apt-get install tar coreutils util-linux",
        )
    ]


def _python(facts: Facts, host: Host) -> Finding:
    numbers = [int(each) for each in facts.python.split(".")[:2] if each.isdecimal()]
    if tuple(numbers) >= MINIMUM_PYTHON:
        return ok("python", f"{host.python} is Python {facts.python}, for the app")
    needed = ".".join(map(str, MINIMUM_PYTHON))
    return error(
        "python",
        f"{host.python} is Python {facts.python}, and the app needs {needed}."
        if facts.python
        else f"It has no Python called {host.python}, which the app needs.",
        f"Install Python {needed} or later there (Debian, Ubuntu: sudo apt-get install python3 python3-venv), or set "
        f"hosts.{host.name}.python in invoke.yaml to the path of one.",
    )


def _units(facts: Facts, host: Host) -> Finding:
    if host.units in ("system", "user") and facts.systemd != host.units:
        return error(
            "units",
            f"hosts.{host.name}.units is {host.units}, and systemd runs no {host.units} units for {facts.user} there.",
            "As root there are system units. For user units: sudo loginctl enable-linger "
            f"{facts.user}. Or set it to process.",
        )
    if host.units == "process" or not facts.systemd:
        return ok(
            "units",
            "nodes are supervised processes, which don't start with the host; `invoke cluster.up` starts them",
        )
    return ok("units", f"nodes are systemd {facts.systemd} units, which start with the host")
