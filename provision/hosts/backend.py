"""Nodes on other hosts, over SSH.

All that a node needs travels over one connection per host: its configuration, key file and certificate as the nodes
are launched, all nodes of a host in one round trip, all hosts at once. Nothing listens without TLS and authentication.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from provision.backends.base import Observed
from provision.core.errors import ProvisionError
from provision.core.files import write_if_changed
from provision.hosts import units
from provision.hosts.certificates import Authority
from provision.hosts.inventory import Host
from provision.hosts.link import File, HostError, Link, Ran, Unreachable, all_of, everywhere
from provision.hosts.scripts import script
from provision.hosts.setup import Binary
from provision.mongodb.config import Layout, TlsFiles
from provision.mongodb.topology import LOOPBACK, Node, Topology
from provision.settings.capabilities import BACKENDS
from provision.settings.paths import Paths
from provision.state import records, remembered
from provision.state.remembered import Move

_OBSERVED_SECONDS = 0.25
_REST = 3.0
_STOP_SECONDS = 30.0


class Hosts:
    """The hosts back end of one deployment.

    Args:
        topology: the whole topology; its nodes know each other by their hosts' addresses.
        hosts: host name → host.
        placement: node name → host name.
        authority: vouches for the hosts; None: no TLS.
        auth: nodes have a key file.
        binaries: ``mongod`` and ``mongos`` of this machine, as far as it has them.
        environment: variables that these need.
        unit_template: text of ``templates/mongod.service.j2``.
        records: what is launched is written down as being there from then on.
        moving: nodes that are being moved, which may be on another host, too: both are ended and removed together.

    Raises ProvisionError: it would listen beyond loopback without authentication and TLS.
    """

    name = "hosts"
    # Others may write there without a router, and systemd would see a failure.
    capabilities = BACKENDS["hosts"]

    def __init__(
        self,
        topology: Topology,
        paths: Paths,
        hosts: Mapping[str, Host],
        placement: Mapping[str, str],
        authority: Authority | None,
        auth: bool,
        binaries: Callable[[], Mapping[str, Binary]],
        environment: Mapping[str, str],
        unit_template: str,
        *,
        records: bool = True,
        moving: Mapping[str, Move] | None = None,
    ) -> None:
        self._records = records
        self._moving = dict(moving or {})
        self._topology = topology
        self._deployment = topology.name
        self._paths = paths
        self._hosts = dict(hosts)
        self._placement = dict(placement)
        self._authority = authority
        self._auth = auth
        self._binaries = binaries
        self._environment = dict(environment)
        self._unit_template = unit_template
        self._check_locked()
        self.links = {name: Link(host) for name, host in self._hosts.items()}
        self._guards = {name: threading.Lock() for name in self._hosts}
        self._seen: dict[str, tuple[float, Mapping[str, Observed]]] = {}
        self._forgotten = 0.0
        self._settled: dict[str, units.Supervisor] = {}
        self._proved: set[tuple[str, str]] = set()

    @property
    def placement(self) -> Mapping[str, str]:
        """Node name → host name."""
        return self._placement

    def host_of(self, node: Node) -> Host:
        """The host that a node is on."""
        return self._hosts[self._placement[node.name]]

    def folders(self) -> None:
        return None  # each host has its own copy of the data, and its own disk

    def layout(self, node: Node) -> Layout:
        host = self.host_of(node)
        # What ~ is only the host knows: there, paths are relative to the directory that nodes are started in.
        here = f"{host.data_dir / self._deployment}/" if host.data_dir.is_absolute() else ""
        return Layout(
            data=f"{here}{node.name}",
            log=f"{here}{node.name}.log",
            bind_ip=LOOPBACK if _is_loopback(host.address) else f"{LOOPBACK},{host.address}",
            key_file=f"{here}keyfile" if self._auth else None,
            tls=TlsFiles(f"{here}host.pem", f"{here}ca.pem") if self._authority else None,
        )

    def address(self, node: Node) -> tuple[str, int]:
        return self.host_of(node).address, node.port

    def machine(self, node: Node) -> str | None:
        host = self.host_of(node)
        return f"{host.name} ({host.address})"

    def advertised_names_resolve(self, nodes: Sequence[Node]) -> bool:
        try:
            for address in {self.host_of(node).address for node in nodes}:
                socket.getaddrinfo(address, None)
        except OSError:
            return False
        return True

    def configure(self, node: Node, text: str) -> bool:
        return write_if_changed(self._paths.node_conf(self._deployment, node.name), text)

    def launch(self, nodes: Sequence[Node], checked: Callable[[], None] = lambda: None) -> None:
        if not nodes:
            return
        doing = f"starting {self._deployment} on hosts"
        by_host = self._by_host(nodes)
        binaries = self._needed(nodes)
        links = {name: self.links[name] for name in by_host}
        # First everything that can be refused, on all hosts; only then is anything started.
        _, errors = everywhere(links, lambda link: self._prepare(link, by_host[link.host.name], binaries))
        if errors:
            raise all_of(doing, errors)
        self._remember_placement()
        checked()
        _, errors = everywhere(links, lambda link: self._start(link, by_host[link.host.name], binaries))
        self._forget_seen()
        if errors:
            raise all_of(doing, errors)

    def observe(self, node: Node) -> Observed:
        return self.observe_all([node])[node.name]

    def observe_all(self, nodes: Sequence[Node]) -> dict[str, Observed]:
        now = time.monotonic()
        names = set(self._by_host(nodes))
        known = {name: self._seen[name] for name in names if name in self._seen}
        seen = {name: found for name, (until, found) in known.items() if now < until}
        asked, errors = everywhere({name: self.links[name] for name in names - seen.keys()}, self._seen_on)
        for error in errors.values():
            if not isinstance(error, Unreachable):
                raise error
        seen |= asked

        def of(node: Node) -> Observed:
            host = self._placement[node.name]
            if host in errors:
                return Observed(False, unknown=errors[host])
            return seen[host].get(node.name, Observed(False))

        return {node.name: of(node) for node in nodes}

    def answers(self, node: Node, process_id: Callable[[], int]) -> bool | None:
        place = (node.name, self._placement[node.name])
        if place in self._proved:
            return True
        answering = process_id()
        observed = self.observe(node)
        if observed.running and observed.remote_pid != answering:
            # As it was found a moment ago: a unit that ended may have been started again.
            self._seen.pop(place[1], None)
            observed = self.observe(node)
        if observed.unknown is not None:
            # Its sshd is away. A certificate by this deployment's own authority proves as much as its process id.
            return True if self._authority else None
        if not observed.running or observed.remote_pid is None:
            return None
        if observed.remote_pid != answering:
            return False
        self._proved.add(place)
        return True

    def port_held(self, node: Node) -> ProvisionError | None:
        link = self.links[self._placement[node.name]]
        self._seen.pop(link.host.name, None)
        observed = self.observe(node)
        if observed.unknown is not None:
            return None
        here, _ = self._settle(link)
        ran = link.script(script("holds.sh"), here, f"{node.port:04X}", str(observed.remote_pid or 0))
        self._must(link, f"looking at port {node.port}", ran)
        held = ran.out.strip() == "other"
        return self._taken(link, f"starting {node.name} of {self._deployment}", node.port) if held else None

    def _forget_seen(self) -> None:
        """What was found and proved before nodes were started or ended, and what another thread is finding now."""
        self._forgotten = time.monotonic()
        self._seen.clear()
        self._proved.clear()

    def _taken(self, link: Link, doing: str, port: int) -> HostError:
        host = link.host
        return HostError(
            f"{doing} on {host.name}",
            f"Port {port} of {host.name} ({host.address}) is held by something that this tool did not start.",
            f"`sudo ss -ltnp 'sport = :{port}'` there names it. Stop it, or choose another port: "
            f"deployments.{self._deployment}.port in invoke.yaml.",
        )

    def _seen_on(self, link: Link) -> Mapping[str, Observed]:
        """The nodes of a host as they were found a moment ago, or now."""
        name = link.host.name
        with self._guards[name]:
            until, seen = self._seen.get(name, (0.0, {}))
            begun = time.monotonic()
            while begun >= until:
                try:
                    seen = self._look(link)
                except Unreachable:
                    # A connection that broke is opened again; a host that did not answer is not asked twice.
                    seen = self._look(link)
                done = time.monotonic()
                if begun < self._forgotten:  # a look from before that tells nothing
                    begun = done
                    continue
                # Of a host that is far away, most of the time must not go into asking.
                until = done + max(_OBSERVED_SECONDS, _REST * (done - begun))
                self._seen[name] = (until, seen)
        return seen

    def terminate(self, nodes: Sequence[Node], timeout: float) -> None:
        self._end(nodes, timeout, f"stopping {self._deployment}")

    def kill(self, node: Node) -> None:
        self._end([node], 0, f"killing {node.name} of {self._deployment}")

    def pause(self, node: Node, paused: bool) -> None:
        self._freeze(node, "STOP" if paused else "CONT", f"{'pausing' if paused else 'resuming'} {node.name}")

    def is_paused(self, node: Node) -> bool:
        return self.observe(node).paused is True

    def release(self, node: Node) -> bool:
        return self.is_paused(node) and self._freeze(node, "CONT", f"resuming {node.name}") == "paused"

    def remove(self, nodes: Sequence[Node], data: bool, at_once: bool = False) -> None:
        by_host = self._everywhere(nodes)
        present = self._everywhere(self._topology.nodes)
        doing = f"removing {self._deployment}"

        def work(link: Link) -> None:
            names = by_host[link.host.name]
            self._end_on(link, names, 0 if at_once else _STOP_SECONDS, doing)
            everything = len(names) == len(present[link.host.name])
            self._supervisor(link).remove(self._services(names), everything, data, doing)

        _, errors = everywhere({name: self.links[name] for name in by_host}, work)
        self._forget_seen()
        if errors:
            raise all_of(doing, errors)
        if data and self._records:
            kept = {
                node: host for node, host in self._placement.items() if node not in {n.name for n in nodes}
            }
            records.PLACEMENT.write(self._paths, kept or None, self._deployment)
            others = {name: move for name, move in self._moving.items() if name in kept}
            remembered.record_moves(self._paths, self._deployment, others)

    def log_tail(self, node: Node, lines: int) -> list[str]:
        from provision.mongodb.logs import with_printed

        link = self.links[self._placement[node.name]]
        try:
            here, _ = self._settle(link)
            ran = link.script(
                script("tail.sh"), f"{here}/{node.name}.log", f"{here}/{node.name}.out", str(lines)
            )
        except Unreachable:
            return []
        logged, _, printed = ran.out.partition(_PRINTED)
        return with_printed(*([line for line in each.split("\n") if line] for each in (logged, printed)))[
            -lines:
        ]

    def follow_log(self, node: Node, lines: int) -> Iterator[str]:
        link = self.links[self._placement[node.name]]
        here, _ = self._settle(link)
        return link.lines(["tail", "-n", str(lines), "-F", f"{here}/{node.name}.log"])

    def send_configuration(self, nodes: Sequence[Node]) -> None:
        """Put nodes' configuration, as it is rendered, where they read it when they start next. They go on as they are.

        Raises ProvisionError: naming the hosts where that failed.
        """
        doing = f"sending the configuration of {', '.join(node.name for node in nodes)} of {self._deployment}"
        by_host = self._by_host(nodes)

        def work(link: Link) -> None:
            here, _ = self._settle(link)
            link.put(here, [self._configuration(name) for name in by_host[link.host.name]], doing)

        _, errors = everywhere({name: self.links[name] for name in by_host}, work)
        if errors:
            raise all_of(doing, errors)

    def send_certificates(self, renew: bool) -> dict[str, bytes]:
        """Put every host's certificate in place; running nodes use it after `rotateCertificates`.

        `renew`: issue new ones, though the old ones still serve.

        Returns: Host name → its certificate and key.
        Raises ProvisionError: naming the hosts where that failed.
        """
        doing = f"sending the certificates of {self._deployment}"

        def work(link: Link) -> bytes:
            here, _ = self._settle(link)
            pem = self._certificate(link.host, renew)
            link.put(here, self._tls_files(pem), doing)
            return pem

        done, errors = everywhere(self._used_links(), work)
        if errors:
            raise all_of(doing, errors, tuple(done))
        return done

    def close(self) -> None:
        """Close the connections."""
        for link in self.links.values():
            link.close()

    def _check_locked(self) -> None:
        beyond = sorted(
            {node.name for node in self._topology.nodes if not _is_loopback(self.host_of(node).address)}
        )
        if beyond and not (self._auth and self._authority):
            lacking = " and ".join(
                word
                for word, there in (("authentication", self._auth), ("TLS", self._authority))
                if not there
            )
            raise ProvisionError(
                f"planning {self._deployment} on hosts",
                f"Its nodes would be reached over the network without {lacking}.",
                f"Set deployments.{self._deployment}.auth and .tls in invoke.yaml to null or true.",
            )

    def _by_host(self, nodes: Sequence[Node]) -> dict[str, list[str]]:
        by_host: dict[str, list[str]] = {}
        for node in nodes:
            by_host.setdefault(self._placement[node.name], []).append(node.name)
        return by_host

    def _everywhere(self, nodes: Sequence[Node]) -> dict[str, list[str]]:
        """Host name → names of the nodes there, the other half of one that is being moved, too."""
        by_host = self._by_host(nodes)
        for node in nodes:
            if (move := self._moving.get(node.name)) is not None:
                other = move.source if self._placement[node.name] == move.target else move.target
                by_host.setdefault(other, []).append(node.name)
        return by_host

    def _used_links(self) -> dict[str, Link]:
        used = set(self._placement.values())
        return {name: link for name, link in self.links.items() if name in used}

    def _needed(self, nodes: Sequence[Node]) -> Mapping[str, Binary]:
        binaries = self._binaries()
        doing = f"starting {self._deployment} on hosts"
        if "mongod" not in binaries:
            raise ProvisionError(doing, "No mongod has been chosen yet.", "Type `invoke setup` first.")
        if "mongos" not in binaries and any(node.is_router for node in nodes):
            raise ProvisionError(
                doing,
                f"A sharded cluster needs mongos, and there is none beside {binaries['mongod'].path}.",
                "MongoDB's archive has both: set mongodb.source to archive in invoke.yaml, or mongodb.path to a mongod "
                "that has mongos beside it.",
            )
        return binaries

    def _supervisor(self, link: Link) -> units.Supervisor:
        """What keeps nodes running on a host; asked once."""
        name = link.host.name
        if name not in self._settled:
            self._settled[name] = units.Supervisor.settle(link, self._deployment)
        return self._settled[name]

    def _settle(self, link: Link) -> tuple[str, str]:
        """The deployment's directory on a host, absolute, and what keeps nodes running there."""
        found = self._supervisor(link)
        return found.here, found.kind

    def _look(self, link: Link) -> dict[str, Observed]:
        names = [node for node, host in self._placement.items() if host == link.host.name]
        return self._supervisor(link).observe(self._services(names))

    def _prepare(self, link: Link, names: Sequence[str], binaries: Mapping[str, Binary]) -> None:
        """Everything in place on one host, and the ports free; starts nothing."""
        host = link.host
        doing = f"starting {', '.join(names)} of {self._deployment}"
        here, kind = self._settle(link)
        base = here.rpartition("/")[0]
        nodes = {node.name: node for node in self._topology.nodes if node.name in names}
        kinds = {"mongos" if node.is_router else "mongod" for node in nodes.values()}
        questions = [
            item
            for name in sorted(kinds)
            for item in (f"{base}/{binaries[name].place}", str(binaries[name].size))
        ]
        ports = [f"{node.port:04X}" for node in nodes.values()]
        ran = link.script(script("ready.sh"), str(len(kinds)), *questions, *ports)
        if ran.status == 78:
            raise HostError(
                f"{doing} on {host.name}",
                f"{host.name} ({host.address}) does not have the {ran.out.strip().rpartition('/')[2]} of this machine yet.",
                f"Type: invoke hosts.setup --on {self._deployment}",
            )
        if ran.status == 79:
            raise self._taken(link, doing, int(ran.out.split()[-1], 16))
        self._must(link, doing, ran)
        files = [self._configuration(name) for name in names]
        if self._auth:
            # From the record, for the local key file may belong to a container's user.
            from provision.mongodb import users

            files.append(
                File("keyfile", (users.ensure(self._paths, self._deployment).key + "\n").encode(), 0o400)
            )
        if self._authority is not None:
            files += self._tls_files(self._certificate(host, renew=False))
        if kind != units.PROCESS:
            given = [f"{name}={value}" for name, value in self._environment.items()]
            for name in names:
                binary = f"{base}/{binaries['mongos' if nodes[name].is_router else 'mongod'].place}"
                command = units.node_command(binary, here, name)
                text = units.render_unit(
                    self._unit_template, self._deployment, name, here, command, given, kind
                )
                files.append(File(units.unit_name(self._deployment, name), text.encode(), 0o644))
        link.put(here, files, doing)

    def _start(self, link: Link, names: Sequence[str], binaries: Mapping[str, Binary]) -> None:
        supervisor = self._supervisor(link)
        base = supervisor.here.rpartition("/")[0]
        nodes = {node.name: node for node in self._topology.nodes}
        wanted = []
        for name in names:
            binary = binaries["mongos" if nodes[name].is_router else "mongod"]
            command = units.node_command(f"{base}/{binary.place}", supervisor.here, name)
            wanted.append(units.Unit(name, nodes[name].port, command))
        doing = f"starting {', '.join(names)} of {self._deployment}"
        supervisor.launch(wanted, self._services(names), self._environment, doing)

    def _end(self, nodes: Sequence[Node], patience: float, doing: str) -> None:
        by_host = self._everywhere(nodes)

        def work(link: Link) -> None:
            self._end_on(link, by_host[link.host.name], patience, doing)

        _, errors = everywhere({name: self.links[name] for name in by_host}, work)
        self._forget_seen()
        if errors:
            raise all_of(doing, errors, tuple(name for name in by_host if name not in errors))

    def _end_on(self, link: Link, names: Sequence[str], patience: float, doing: str) -> None:
        self._supervisor(link).end(self._services(names), patience, doing)

    def _freeze(self, node: Node, signal: str, doing: str) -> str:
        """Send a signal to a node that runs: ``running`` or ``paused``, as it was before."""
        link = self.links[self._placement[node.name]]
        here, kind = self._settle(link)
        unit = units.unit_name(self._deployment, node.name)
        ran = link.script(script("freeze.sh"), here, kind, node.name, unit, signal)
        self._must(link, doing, ran)
        state = ran.out.strip()
        self._seen.pop(link.host.name, None)
        if state == "absent":
            raise ProvisionError(
                f"{doing} of {self._deployment}",
                f"It does not run on {link.host.name}.",
                f"Start it: invoke cluster.start {node.name} --on {self._deployment}",
            )
        return state

    def _configuration(self, name: str) -> File:
        return File(f"{name}.conf", self._paths.node_conf(self._deployment, name).read_bytes(), 0o600)

    def _services(self, names: Sequence[str]) -> dict[str, str]:
        return {name: units.unit_name(self._deployment, name) for name in names}

    def _certificate(self, host: Host, renew: bool) -> bytes:
        assert self._authority is not None  # noqa: S101 — asked only with TLS
        kept = self._paths.host_certificate(self._deployment, host.name)
        names = list(dict.fromkeys((host.address, host.name, "localhost", LOOPBACK)))
        return self._authority.host_certificate(kept, host.name, names, renew)

    def _tls_files(self, pem: bytes) -> list[File]:
        assert self._authority is not None  # noqa: S101 — asked only with TLS
        return [File("host.pem", pem, 0o600), File("ca.pem", self._authority.trusted.read_bytes(), 0o644)]

    def _remember_placement(self) -> None:
        """What is started has its data there from now on, and stays there."""
        if self._records:
            records.PLACEMENT.write(self._paths, dict(self._placement), self._deployment)

    @staticmethod
    def _must(link: Link, doing: str, ran: Ran) -> None:
        if ran.status != 0:
            raise link.failed(doing, ran, str(link.host.data_dir))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


_PRINTED = "\n\036\n"
