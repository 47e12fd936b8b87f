"""Bring-up over SSH, on hosts that are namespaces of this machine, beside Docker and processes of the same topology.

All hosts share this machine's processors. So hosts are compared with what starts as many nodes on the same processors,
and what a ratio shows is SSH, TLS and the work of placing, not the nodes' own. That hosts are worked on at the same time
shows where each is far away: six times the way there, one after another, would be six times as long.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests.hosts.lab import Lab as Hosts
from tests.hosts.lab import client_at_home
from tests.hosts.lab import lab as hosts_lab
from tests.support import capabilities
from tests.support.router_standin.install import beside
from tools.bench.lab import Lab, Project
from tools.bench.measure import Bound, Subject
from tools.bench.subjects.deployments import declare, docker_is_missing, remove_from_docker

_NAMES = tuple(f"host{number}" for number in range(1, 7))
_NEEDS = ("sshd", "namespaces")
_SET = {"topology": "replica-set", "members": 3}
_CLUSTER = {
    "topology": "sharded",
    "members": 3,
    "config_servers": 3,
    "shards": 2,
    "routers": 1,
    "sharding": {"flaskbook": {"user": {"key": {"_id": "hashed"}}}},
}
_SIX = {"topology": "replica-set", "members": 6}
_FAR = {name: f"far{name.removeprefix('host')}" for name in _NAMES}
_FAR_PORT = 2222
_FAR_SECONDS = 0.1
_ROUND_TRIPS = 50
_SESSION = "Starting session"


@dataclass(frozen=True)
class _Place:
    """A copy of the project that knows six hosts, which have its mongod and a router.

    Args:
        project: the copy.
        environment: of what runs in the copy: its home directory trusts the hosts.
        sessions: deployment → SSH sessions of its last `up`, on the host that had the most.
    """

    project: Project
    hosts: Hosts
    environment: Mapping[str, str]
    sessions: dict[str, int]


def _place(lab: Lab) -> _Place:
    return lab.keep("hosts", partial(_made, lab))


@contextlib.contextmanager
def _made(lab: Lab) -> Iterator[_Place]:
    sshd = capabilities.probe("sshd").values["path"]
    mongod = lab.project().mongod
    home, root = lab.emptied("hosts-home"), lab.copy("hosts-project")
    routed = beside(mongod.path, mongod.version, lab.emptied("hosts-bin") / "bin")
    environment = {
        "HOME": str(home),
        "PATH": f"{client_at_home(home / 'bin')}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "INVOKE_MONGODB_SOURCE": "path",
        "INVOKE_MONGODB_PATH": str(routed),
    }
    with hosts_lab(lab.emptied("hosts-lab"), sshd, _NAMES) as made:
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh" / "known_hosts").write_text(_known_hosts(made), encoding="utf-8")
        project = Project(lab.project().paths.of(root, "data", "log", str(lab.project().paths.cache)), mongod)
        _describe(project, made)
        lab.run(["./invoke", "setup"], root, environment)
        lab.run(["./invoke", "hosts.setup"], root, environment)
        with contextlib.ExitStack() as stack:
            for host in made.hosts.values():
                distance = (host.address, str(_FAR_PORT), "22", str(_FAR_SECONDS))
                stack.enter_context(
                    host.running(sys.executable, str(Path(__file__).parents[1] / "far.py"), *distance)
                )
            _describe(project, made, far=True)
            yield _Place(project, made, environment, {})


def _describe(project: Project, hosts: Hosts, far: bool = False) -> None:
    """Put the hosts into the copy's invoke.yaml, and with `far` once more each, far away, under another name."""
    import yaml

    file = project.paths.settings_file
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    near = {
        name: {"address": host.address, "user": "root", "key": str(hosts.key), "data_dir": "/srv/mongodb"}
        for name, host in hosts.hosts.items()
    }
    values["hosts"] = near | (
        {_FAR[name]: {**each, "port": _FAR_PORT} for name, each in near.items()} if far else {}
    )
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _known_hosts(hosts: Hosts) -> str:
    """The hosts' keys, at both of their distances."""
    lines = [line.split(" ", 1) for line in hosts.known_hosts.splitlines(keepends=True)]
    return "".join(f"{address},[{address}]:{_FAR_PORT} {rest}" for address, rest in lines)


def _up(lab: Lab, kind: str, settings: Mapping[str, Any], *wait: str) -> float:
    """Bring a deployment up, and take it down again with its data, which is not timed."""
    place = _place(lab)
    project, name = declare(lab, kind, settings, place.project)
    root = project.paths.root
    before = _sessions(place.hosts)
    try:
        seconds = lab.run(["./invoke", "cluster.up", "--on", name, *wait], root, place.environment).seconds
        after = _sessions(place.hosts)
        place.sessions[kind] = max(after[host] - before[host] for host in after)
        down = ["./invoke", "cluster.down", "--on", name, "--delete-data", "--yes"]
        lab.run(down, root, place.environment)
    finally:
        if settings["backend"] == "docker":
            remove_from_docker(name)
    return seconds


def _on_hosts(lab: Lab, kind: str, settings: Mapping[str, Any], count: int, *wait: str) -> float:
    chosen = {**settings, "backend": "hosts", "hosts": list(_NAMES[:count])}
    return _up(lab, f"{kind}-on-{count}", chosen, *wait)


def _on_far_hosts(lab: Lab, count: int) -> float:
    chosen = {**_SIX, "backend": "hosts", "hosts": list(_FAR.values())[:count]}
    return _up(lab, f"far-{count}", chosen, "--wait", "writable")


def _in_docker(lab: Lab, kind: str, settings: Mapping[str, Any]) -> float:
    return _up(lab, f"{kind}-docker", {**settings, "backend": "docker"})


def _as_processes(lab: Lab, count: int) -> float:
    chosen = {"topology": "replica-set", "members": count, "backend": "processes", "auth": True}
    return _up(lab, f"local-{count}", chosen, "--wait", "writable")


def _sessions(hosts: Hosts) -> dict[str, int]:
    """How many commands each host was given so far, by what its sshd says."""
    return {name: host.log.count(_SESSION) for name, host in hosts.hosts.items()}


def _note(lab: Lab, kind: str) -> str:
    """What SSH cost: the round trips of an `up`, and what one takes."""
    from provision.hosts.inventory import Host
    from provision.hosts.link import Link

    place = _place(lab)
    port = _FAR_PORT if kind.startswith("far") else 22
    address = place.hosts.hosts[_NAMES[0]].address
    known = (str(Path(place.environment["HOME"]) / ".ssh" / "known_hosts"),)
    taken = []
    keys = (str(place.hosts.key),)
    host = Host(name=_NAMES[0], address=address, port=port, user="root", keys=keys, known_hosts=known)
    with contextlib.closing(Link(host)) as link:
        link.run(["true"])  # connects
        for _ in range(_ROUND_TRIPS):
            begun = time.perf_counter()
            link.run(["true"])
            taken.append(time.perf_counter() - begun)
    return (
        f"{place.sessions[kind]} commands over SSH on the host that had the most of them, those that look whether its "
        f"nodes live included; a command that does nothing takes {1000 * median(taken):.1f} ms there."
    )


def _no_hosts(_lab: Lab) -> str | None:
    for name in _NEEDS:
        found = capabilities.probe(name)
        if not found.present:
            return f"there can be no hosts here: {found.told}"
    return None


def _no_hosts_or_docker(lab: Lab) -> str | None:
    return _no_hosts(lab) or docker_is_missing(lab)


def _beside_docker(name: str, kind: str, settings: Mapping[str, Any], what: str) -> Subject:
    return Subject(
        name,
        f"./invoke cluster.up of {what} over three hosts, with TLS, until every member is healthy",
        Bound(1.5, "x"),
        lambda lab: _on_hosts(lab, kind, settings, 3),
        lambda lab: _in_docker(lab, kind, settings),
        "the same in Docker, without TLS",
        _no_hosts_or_docker,
        note=lambda lab: _note(lab, f"{kind}-on-3"),
    )


def _beside_processes(count: int) -> Subject:
    settings = {"topology": "replica-set", "members": count}
    hosts = "one host" if count == 1 else f"{count} hosts, a member on each"
    return Subject(
        f"hosts-{count}",
        f"./invoke cluster.up --wait writable of a replica set over {hosts}",
        None,
        lambda lab: _on_hosts(lab, "grown", settings, count, "--wait", "writable"),
        lambda lab: _as_processes(lab, count),
        "the same as processes of this machine, without TLS",
        _no_hosts,
        note=lambda lab: _note(lab, f"grown-on-{count}"),
    )


def _beside_one(count: int) -> Subject:
    away = f"each {1000 * _FAR_SECONDS:.0f} ms away over SSH"
    return Subject(
        f"hosts-far-{count}",
        f"./invoke cluster.up --wait writable of a replica set of six over {count} hosts, {away}",
        Bound(1.25, "x"),
        lambda lab: _on_far_hosts(lab, count),
        lambda lab: _on_far_hosts(lab, 1),
        "the same six on one such host",
        _no_hosts,
        note=lambda lab: _note(lab, f"far-{count}"),
    )


SET = _beside_docker("hosts-set", "set", _SET, "a replica set of three")
CLUSTER = _beside_docker("hosts-cluster", "cluster", _CLUSTER, "the default cluster, ten nodes,")
GROWTH = (
    *(_beside_processes(count) for count in (1, 3, 6)),
    *(_beside_one(count) for count in (3, 6)),
)
