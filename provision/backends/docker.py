"""Nodes as containers of this machine's Docker engine.

`docker compose` brings them up and takes them down, the `docker` command lists and ends them (it answers before
docker-py is imported), and docker-py reads logs, freezes and disconnects. What is ours is told by the compose project,
the directory it was started from, and our label; of a volume, by our own record.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from provision.backends import compose
from provision.backends.base import Observed
from provision.backends.folders import OpenedFolder
from provision.backends.processes import port_holder
from provision.backends.volumes import FoldersInVolumes
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.files import write_atomically
from provision.core.locks import exclusive
from provision.mongodb.config import Layout
from provision.mongodb.topology import LOOPBACK, Node, Topology
from provision.settings.capabilities import BACKENDS
from provision.settings.paths import Paths
from provision.state import records

IMAGE_USER = 999  # mongodb, in the official image
_OBSERVED_SECONDS = 0.25
_DOCKER_SECONDS = 60
_COMPOSE_SECONDS = 900
_STOP_SECONDS = 30
_PROJECT = "com.docker.compose.project"
_DIRECTORY = "com.docker.compose.project.working_dir"
_SERVICE = "com.docker.compose.service"
_RUNNING = frozenset({"running", "paused", "restarting"})
# What a mongod takes of memory when idle, and of the disk with its first journal files.
_IDLE_NODE_MB = 150
_NEW_NODE_DISK_MB = 250
_OPEN_FOLDER = Path(__file__).parent / "scripts" / "open_folder.sh"
_INNER_PORT = 27017  # of a mongod in a container of its own
_NO_COMMAND = 127  # as a shell says it
_FREE_SPACE = "Free some space: `docker system df` shows what Docker holds, `docker system prune` frees it."


def _label(name: str) -> str:
    return f'{{{{.Label "{name}"}}}}'


@dataclass(frozen=True)
class Container:
    """A container as the engine lists it."""

    id: str  # its whole id
    state: str  # ``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited`` or ``dead``
    exit_status: int | None  # of an exited one
    networks: tuple[str, ...]  # names of the networks it is connected to
    node: str  # the node it runs
    directory: str  # where compose was started from
    ports: frozenset[int] = frozenset()  # the ports of this machine that lead to it

    FORMAT = "\t".join(
        (
            *("{{.ID}}", "{{.State}}", "{{.Status}}", "{{.Networks}}", "{{.Ports}}"),
            *(_label(_SERVICE), _label(_DIRECTORY)),
        )
    )

    @classmethod
    def of(cls, line: str) -> Container:
        """Of a line that ``docker container ls`` printed in `FORMAT`."""
        identity, state, status, networks, ports, node, directory = line.split("\t", 6)
        ended = re.match(r"Exited \((\d+)\)", status)
        return cls(
            identity,
            state,
            int(ended[1]) if ended else None,
            tuple(name for name in networks.split(",") if name),
            node,
            directory,
            frozenset(int(port) for port in re.findall(r":(\d+)->", ports)),
        )

    def publishes(self, port: int) -> bool:
        """Whether who answers on a port of this machine is in it; Docker gives a port to one container."""
        return self.state == "running" and (port in self.ports or "host" in self.networks)

    @property
    def running(self) -> bool:
        return self.state in _RUNNING


def container_host(node: str) -> str:
    """A node's name inside its network, where only routers are reached from outside."""
    return node


def host_wide(node: str) -> str:
    """A node's name that containers and, where it resolves ``*.localhost``, this machine know it by."""
    return f"{node}.localhost"


class Docker:
    """The Docker back end of one deployment.

    Args:
        topology: the whole topology, which the compose file is made from.
        template: text of ``templates/compose.yaml.j2``.
        auth: nodes have a key file.
        environment: variables for the compose file, such as MONGODB_GLIBC_TUNABLES.
        project: its compose project; None: that of a folder without a slot.
    """

    name = "docker"
    capabilities = BACKENDS["docker"]

    def __init__(
        self,
        topology: Topology,
        paths: Paths,
        template: str,
        image: str,
        auth: bool,
        environment: Mapping[str, str] | None = None,
        project: compose.Project | None = None,
    ) -> None:
        self._topology = topology
        self._deployment = topology.name
        self._paths = paths
        self._template = template
        self._image = image
        self._auth = auth
        self._environment = dict(environment or {})
        self._compose_project = project or compose.project(topology.name)
        self._project = self._compose_project.name
        self._engine: Any = None
        self._reading = threading.Lock()
        self._seen: tuple[float, dict[str, Container]] = (0.0, {})
        self._forgotten = 0.0
        self._proved: set[str] = set()

    def folders(self) -> FoldersInVolumes:
        return FoldersInVolumes(
            self._volume, self._volumes_present, self._make_volumes, self._run_on_volumes, _FREE_SPACE
        )

    def layout(self, node: Node) -> Layout:
        return Layout("/data/db", None, "0.0.0.0", "/etc/mongod.key" if self._auth else None)  # noqa: S104 — of a container

    def address(self, node: Node) -> tuple[str, int]:
        return LOOPBACK, node.port

    def machine(self, node: Node) -> str | None:
        return None

    def advertised_names_resolve(self, nodes: Sequence[Node]) -> bool:
        try:
            return all(socket.gethostbyname(node.host) == LOOPBACK for node in nodes)
        except OSError:
            return False

    def configure(self, node: Node, text: str) -> bool:
        path = self._paths.node_conf(self._deployment, node.name)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        # In place: a running container has this very file mounted.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        return True

    def render_compose(self, apart: bool = False) -> str:
        """The text of the compose file. `apart`: for a folder of its own, with configuration and key file beside it."""
        shown = self._paths.shows_configuration
        default = shown and self._deployment == "cluster"
        project = self._compose_project
        options = compose.ComposeOptions(self._image, self._auth, default, project, shown, apart)
        return compose.render(self._topology, options, self._template)

    def version(self) -> str:
        """What the mongod of the image calls itself: ``"8.0.17"``. An image that is not here is pulled.

        Raises ProvisionError: there is no such image, or no mongod in it that runs here.
        """
        from provision.mongodb.binaries.model import version_in

        doing = f"asking {self._image} for its version"
        present = self._docker("image", "inspect", "--format", "{{.Id}}", self._image)
        if present.returncode != 0:
            if "No such image" not in present.stderr:
                raise self._refused(doing, present)
            self._pull(doing)
        ran = self._docker(
            "run", "--rm", "--network", "none", "--env", f"GLIBC_TUNABLES={self._tunables}", "--entrypoint", "mongod",
            self._image, "--version",
        )  # fmt: skip
        found = version_in(ran.stdout) if ran.returncode == 0 else None
        if found is None:
            raise ProvisionError(
                doing,
                f"It has no mongod that runs here: {_last_line(ran.stderr or ran.stdout)}",
                "Name another image: --to mongo:8.0",
            )
        return found

    def launch(self, nodes: Sequence[Node], checked: Callable[[], None] = lambda: None) -> None:
        if not nodes:
            return
        with self._composing("starting the containers") as lock:
            self._forget_seen()
            missing = [node for node in nodes if not self.observe(node).running]
            if not missing:
                return
            before = self._check_engine()
            self._check_room(missing, before)
            self._own_key_file()
            self._claim(missing, before)
            checked()
            try:
                for wave in self._waves(missing):
                    names = (node.name for node in wave)
                    self._compose(lock, "up", "-d", "--quiet-pull", *names, doing="starting the containers")
            except BaseException:
                self._take_back(before)
                raise
            finally:
                self._forget_seen()

    def _waves(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """What a first write needs, then the rest, which start while the first are being initiated.

        A mongod's start takes half a second of a processor: nine at once on two would keep each other waiting.
        """
        firsts = {each.members[0].name for each in self._topology.all_sets}
        urgent = [node for node in nodes if node.is_router or node.name in firsts]
        rest = [node for node in nodes if node not in urgent]
        return [wave for wave in (urgent, rest) if wave]

    def observe(self, node: Node) -> Observed:
        container = self._containers().get(node.name)
        if container is None:
            return Observed(False)
        return Observed(container.running, None, container.exit_status)

    def answers(self, node: Node, process_id: Callable[[], int]) -> bool | None:
        # Within their containers, all have the same process id.
        if node.name in self._proved:
            return True
        if not self._publishes(node):
            return None  # compose says it, if the port is another program's
        self._proved.add(node.name)
        return True

    def _publishes(self, node: Node) -> bool:
        container = self._containers().get(node.name)
        if container is None or not container.publishes(node.port):
            self._forget_seen()
            container = self._containers().get(node.name)
        return container is not None and container.publishes(node.port)

    def port_held(self, node: Node) -> ProvisionError | None:
        if self._publishes(node) or (holder := self._holder(node.port)) is None:
            return None
        return ProvisionError(
            f"starting {self._deployment} in Docker",
            f"Port {node.port}, which {node.name} needs, is held by {holder}; it will not be touched.",
            f"Stop it, or choose other ports: deployments.{self._deployment}.port in invoke.yaml.",
        )

    def _holder(self, port: int) -> str | None:
        """Who has a port of this machine; where that is Docker's proxy, the container behind it."""
        listed = self._docker(
            "container",
            "ls",
            "--filter",
            f"publish={port}",
            "--format",
            f"{{{{.Names}}}}\t{_label(_DIRECTORY)}",
        )
        if listed.returncode == 0 and (line := listed.stdout.strip().partition("\n")[0]):
            name, _, directory = line.partition("\t")
            return f"the container {name}" + (f", which was started from {directory}" if directory else "")
        return port_holder(LOOPBACK, port)

    def observe_all(self, nodes: Sequence[Node]) -> dict[str, Observed]:
        return {node.name: self.observe(node) for node in nodes}

    def terminate(self, nodes: Sequence[Node], timeout: float) -> None:
        running = self._running(nodes)
        frozen = [each.id for each in running if each.state == "paused"]
        if frozen:
            self._docker("unpause", *frozen)
        self._signal("TERM", running)
        if running and timeout > 0:
            self._docker("wait", *(each.id for each in running), seconds=timeout)
        self._signal("KILL", self._running(nodes))

    def kill(self, node: Node) -> None:
        self._signal("KILL", self._running([node]))
        self._forget_seen()

    def remove(self, nodes: Sequence[Node], data: bool, at_once: bool = False) -> None:
        doing = "removing the containers"
        with self._composing(doing) as lock:
            self._forget_seen()
            self._proved.clear()
            everything = len(nodes) == len(self._topology.nodes)
            ours = self._claimed() | self._mounted()
            frozen = [each.id for each in self._containers().values() if each.state == "paused"]
            if everything and frozen:
                self._docker("unpause", *frozen)
            if everything:
                patience = "0" if at_once else str(_STOP_SECONDS)
                self._compose(lock, "down", "-t", patience, "--remove-orphans", doing=doing)
            else:
                containers = self._containers()
                present = [containers[node.name].id for node in nodes if node.name in containers]
                if present:
                    self._must(doing, "rm", "--force", "--volumes", *present)
            self._forget_seen()
            if data:
                self._delete_volumes(ours if everything else ours & {self._volume(node) for node in nodes})

    def log_tail(self, node: Node, lines: int) -> list[str]:
        container = self._containers().get(node.name)
        if container is None:
            return []
        raw = self._client().api.logs(container.id, tail=lines)
        return str(raw.decode(errors="replace")).splitlines()

    def follow_log(self, node: Node, lines: int) -> Iterator[str]:
        container = self._containers().get(node.name)
        if container is None:
            return
        rest = b""
        for part in self._client().api.logs(container.id, stream=True, follow=True, tail=lines):
            *complete, rest = (rest + part).split(b"\n")
            yield from (line.decode(errors="replace") for line in complete)

    def pause(self, node: Node, paused: bool) -> None:
        container = self._one_running(node, "pausing")
        if paused and container.state != "paused":
            self._client().api.pause(container.id)
        elif not paused and container.state == "paused":
            self._client().api.unpause(container.id)
        self._forget_seen()

    def is_paused(self, node: Node) -> bool:
        container = self._containers().get(node.name)
        return container is not None and container.state == "paused"

    def release(self, node: Node) -> bool:
        container = self._containers().get(node.name)
        if container is None or not container.running:
            return False
        paused = container.state == "paused"
        if paused:
            self.pause(node, False)
        return (self._network not in container.networks and self.isolate(node, False)) or paused

    def isolate(self, node: Node, isolated: bool) -> bool:
        """Cut a node off its network, or connect it again.

        Returns: Whether that changed anything.
        Raises ProvisionError: it does not run.
        """
        container = self._one_running(node, "isolating")
        if isolated is (self._network not in container.networks):
            return False
        self._proved.clear()
        if isolated:
            self._client().api.disconnect_container_from_network(container.id, self._network)
        else:
            self._client().api.connect_container_to_network(
                container.id, self._network, aliases=[node.name, node.host]
            )
        self._forget_seen()
        return True

    @property
    def compose_project(self) -> str:
        """The name of its compose project."""
        return self._project

    @property
    def _network(self) -> str:
        return f"{self._project}_default"

    def _volume(self, node: Node) -> str:
        return f"{self._project}_{node.name}"

    def _one_running(self, node: Node, doing: str) -> Container:
        found = self._running([node])
        if not found:
            raise ProvisionError(
                f"{doing} {node.name}", "It does not run.", "Start it: invoke cluster.start " + node.name
            )
        return found[0]

    def _running(self, nodes: Sequence[Node]) -> list[Container]:
        self._forget_seen()
        containers = self._containers()
        wanted = [containers[node.name] for node in nodes if node.name in containers]
        return [each for each in wanted if each.running]

    def _signal(self, signal: str, containers: Sequence[Container]) -> None:
        """Send a signal to all at once. One that has just ended by itself is not a failure: who asks looks again."""
        self._proved.clear()
        if containers:
            self._docker("kill", "--signal", signal, *(each.id for each in containers))

    def _forget_seen(self) -> None:
        """What was listed before containers changed, and what another thread is listing now."""
        self._forgotten = time.monotonic()

    def _containers(self) -> dict[str, Container]:
        """Our containers by node, as the engine lists them; asked anew after a quarter of a second."""
        with self._reading:
            when, containers = self._seen
            if when > self._forgotten and time.monotonic() - when < _OBSERVED_SECONDS:
                return containers
            while True:
                begun = time.monotonic()
                containers = self._list()
                if begun > self._forgotten:  # one that was begun before that tells nothing
                    self._seen = (time.monotonic(), containers)
                    return containers

    def _list(self) -> dict[str, Container]:
        listed = self._must(
            "looking at the containers",
            *("container", "ls", "--all", "--no-trunc", "--format", Container.FORMAT),
            *("--filter", f"label={_PROJECT}={self._project}"),
        )
        found = [Container.of(line) for line in listed.splitlines()]
        root = self._paths.root.resolve()
        if others := [each for each in found if Path(each.directory).resolve() != root]:
            raise self._not_ours(others)
        return {each.node: each for each in found}

    def _not_ours(self, others: Sequence[Container]) -> ProvisionError:
        """Another clone has a project of this name. Its ports are those it was made with.

        The list of containers has the ports of running ones only, and nothing of one that is just being started.
        """
        bound = self._docker(
            "inspect", "--format", "{{json .HostConfig.PortBindings}}", *(each.id for each in others)
        )
        ports = bound_ports(bound.stdout.splitlines())
        holding = f" and holds port {', '.join(map(str, ports))}" if ports else ""
        return ProvisionError(
            f"looking at the containers of {self._deployment}",
            f"Docker has a project {self._project} that was started from {others[0].directory or 'elsewhere'}"
            f"{holding}. That is not this clone, so it will not be touched.",
            f"Take it down there, or give the deployment another name in invoke.yaml here than {self._deployment!r}.",
        )

    def _client(self) -> Any:
        """docker-py, connected to the engine that the docker command talks to."""
        if self._engine is None:
            import docker
            from docker.errors import DockerException

            doing = "looking at the containers"
            host = (
                os.environ.get("DOCKER_HOST")
                or self._must(doing, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
            )
            try:
                if os.environ.get("DOCKER_HOST"):  # it may come with DOCKER_TLS_VERIFY
                    self._engine = docker.from_env(timeout=_DOCKER_SECONDS)
                else:
                    self._engine = docker.DockerClient(base_url=host, timeout=_DOCKER_SECONDS)
            except DockerException as error:
                raise unreachable(f"{doing} of {self._deployment}", str(error), self._deployment) from None
        return self._engine

    def _check_engine(self) -> Existing:
        """The engine answers and has the image, or the image can be pulled; one clear error otherwise."""
        mine = f"label={_PROJECT}={self._project}"
        with ThreadPoolExecutor(max_workers=4) as pool:
            image = pool.submit(self._docker, "image", "inspect", "--format", "{{.Id}}", self._image)
            volumes = pool.submit(self._docker, "volume", "ls", "--quiet", "--filter", mine)
            networks = pool.submit(self._docker, "network", "ls", "--quiet", "--filter", mine)
            directory = pool.submit(self._docker, "info", "--format", "{{.DockerRootDir}}")
        doing = f"starting {self._deployment} in Docker"
        if image.result().returncode != 0:
            if "No such image" not in image.result().stderr:
                raise self._refused(doing, image.result())
            self._pull(doing)
        for asked in (volumes, networks):
            if asked.result().returncode != 0:
                raise self._refused(doing, asked.result())
        return Existing(
            frozenset(each.id for each in self._containers().values()),
            frozenset(volumes.result().stdout.split()),
            frozenset(networks.result().stdout.split()),
            Path(directory.result().stdout.strip() or "/nowhere"),
        )

    def _pull(self, doing: str) -> None:
        print(f"Pulling {self._image} ...", file=sys.stderr, flush=True)  # noqa: T201
        pulled = self._docker("pull", "--quiet", self._image, seconds=_COMPOSE_SECONDS)
        if pulled.returncode != 0:
            raise ProvisionError(
                doing,
                f"The image {self._image} is not on this machine and can't be pulled: {_last_line(pulled.stderr)}",
                "Set mongodb.image in invoke.yaml to an image that is here (docker image ls) or that can be pulled,\n"
                f"or run it as processes: {as_processes(self._deployment)}",
            )

    def _claim(self, nodes: Sequence[Node], before: Existing) -> None:
        """Note which volumes are ours before they are made; one that is there and not ours is another clone's.

        A volume's labels don't say which directory it belongs to, as a container's do.
        """
        wanted = {self._volume(node) for node in nodes if not node.is_router}
        ours = self._claimed() | self._mounted()
        if foreign := sorted((wanted & before.volumes) - ours):
            raise ProvisionError(
                f"starting {self._deployment} in Docker",
                f"Docker has volumes of a project {self._project} that this clone did not make: {', '.join(foreign)}.",
                f"Give the deployment another name in invoke.yaml here than {self._deployment!r}; or, if nobody needs "
                f"their data any more:\ndocker volume rm {' '.join(foreign)}",
            )
        if not wanted <= self._claimed():
            self._record_volumes(ours | wanted)

    def _record_volumes(self, volumes: set[str]) -> None:
        record = {"volumes": sorted(volumes), "project": self._project} if volumes else None
        records.VOLUMES.write(self._paths, record, self._deployment)

    def _mounted(self) -> set[str]:
        """The volumes that our containers use: ours, no matter who started these by hand."""
        return {f"{self._project}_{name}" for name in self._containers()}

    def _claimed(self) -> set[str]:
        return set((records.VOLUMES.read(self._paths, self._deployment) or {}).get("volumes", ()))

    def _delete_volumes(self, names: set[str]) -> None:
        doing = "deleting the volumes"
        present = self._must(
            doing, "volume", "ls", "--quiet", "--filter", f"label={_PROJECT}={self._project}"
        )
        gone = sorted(names & set(present.split()))
        if gone:
            self._must(doing, "volume", "rm", "--force", *gone)
        self._record_volumes(self._claimed() - names)

    def _volumes_present(self) -> frozenset[str]:
        mine = f"label={_PROJECT}={self._project}"
        listed = self._must("looking at the volumes", "volume", "ls", "--quiet", "--filter", mine)
        return frozenset(listed.split())

    def _make_volumes(self, nodes: Sequence[Node]) -> None:
        """Make the volumes of nodes that have none, with their containers, which don't start."""
        missing = {self._volume(node) for node in nodes} - self._volumes_present()
        if not missing:
            return
        doing = "making the volumes"
        with self._composing(doing) as lock:
            before = self._check_engine()
            self._own_key_file()
            self._claim(nodes, before)
            self._compose(lock, "create", *(node.name for node in nodes), doing=doing)
            self._forget_seen()

    def _run_on_volumes(self, mounts: Sequence[str], arguments: Sequence[str]) -> str:
        """Run a shell on volumes, in a container that ends with it. One that an earlier command has left is ended."""
        name = self._on_the_side
        self._docker("container", "rm", "--force", name)
        ran = self._docker(
            "run", "--rm", "--name", name, "--user", "0:0", "--network", "none", "--entrypoint", "sh",
            *(f"--volume={mount}" for mount in mounts), self._image, *arguments, seconds=_COMPOSE_SECONDS,
        )  # fmt: skip
        if ran.returncode != 0:
            raise self._refused(f"working on the data of {self._deployment}", ran)
        return ran.stdout

    def open_folder(self, folder: Path, name: str, options: Sequence[str]) -> OpenedFolder:
        """See `folders.OpenedFolder`."""
        container = self._on_the_side
        key_file = self._paths.key_file(self._deployment)
        self._docker("container", "rm", "--force", "--volumes", container)
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *("docker", "run", "--rm", "--interactive", "--name", container, "--user", "0:0"),
                    *("--env", f"GLIBC_TUNABLES={self._tunables}", "--publish", f"{LOOPBACK}::{_INNER_PORT}"),
                    *("--entrypoint", "sh", f"--volume={folder}:/s"),
                    *((f"--volume={key_file}:/etc/mongod.key:ro",) if self._auth else ()),
                    *(self._image, "-c", _OPEN_FOLDER.read_text(encoding="utf-8"), "sh"),
                    *("--dbpath", f"/s/{name}", "--logpath", f"/s/{name}.log", "--port", str(_INNER_PORT)),
                    *("--bind_ip", "0.0.0.0", *options),  # noqa: S104 — of a container
                    *(("--keyFile", "/etc/mongod.key") if self._auth else ()),
                ],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip

        def port() -> int | None:
            listed = self._docker("container", "port", container, f"{_INNER_PORT}/tcp")
            _, _, found = listed.stdout.partition("\n")[0].rpartition(":")
            return int(found) if listed.returncode == 0 and found.isdigit() else None

        def end() -> None:
            if process.stdin is not None:
                process.stdin.close()

        def remove() -> None:
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            if process.poll() is None:
                self._docker("container", "rm", "--force", "--volumes", container)
                process.kill()
                process.wait()

        return OpenedFolder(process, port, end, remove)

    @property
    def _on_the_side(self) -> str:
        """The name of the container that works on data."""
        return f"{self._project}-snapshot"

    @property
    def _tunables(self) -> str:
        return self._environment.get("MONGODB_GLIBC_TUNABLES", "glibc.pthread.rseq=0")

    def _take_back(self, before: Existing) -> None:
        """Remove what a failed `compose up` has made: nothing of it has ever run, or been written to."""
        mine = f"label={_PROJECT}={self._project}"
        here = f"label={_DIRECTORY}={self._paths.root}"
        containers = self._docker(
            "container", "ls", "--all", "--quiet", "--no-trunc", "--filter", mine, "--filter", here
        )
        volumes = self._docker("volume", "ls", "--quiet", "--filter", mine)
        networks = self._docker("network", "ls", "--quiet", "--filter", mine)
        for kind, found, known in (
            ("container", containers, before.containers),
            ("volume", volumes, before.volumes),
            ("network", networks, before.networks),
        ):
            made = [each for each in found.stdout.split() if each not in known]
            if made:
                self._docker(kind, "rm", *(("--force", "--volumes") if kind == "container" else ()), *made)

    def _check_room(self, nodes: Sequence[Node], before: Existing) -> None:
        """Memory, ports and disk, before anything is made."""
        import psutil

        doing = f"starting {self._deployment} in Docker"
        if short := short_of_memory(len(nodes), psutil.virtual_memory().available / 2**20):
            raise ProvisionError(
                doing,
                short,
                "Free memory, or make it smaller: shards, members and config_servers in invoke.yaml.",
            )
        for node in nodes:
            if port_holder(LOOPBACK, node.port) is not None and (held := self.port_held(node)) is not None:
                raise held
        new = sum(not node.is_router and self._volume(node) not in before.volumes for node in nodes)
        if before.directory.is_dir():  # else the engine runs in a virtual machine with a disk of its own
            disk = os.statvfs(before.directory)
            if short := short_of_disk(new, disk.f_bavail * disk.f_frsize / 2**20, before.directory):
                raise ProvisionError(doing, short, _FREE_SPACE)

    def _own_key_file(self) -> None:
        """Give the key file to the image's user: mongod takes no key that others may read.

        https://www.mongodb.com/docs/manual/core/security-internal-authentication/#keyfile-permissions
        """
        path = self._paths.key_file(self._deployment)
        if not self._auth or sys.platform != "linux" or path.stat().st_uid == IMAGE_USER:
            return
        if os.geteuid() == 0:
            os.chown(path, IMAGE_USER, IMAGE_USER)
            return
        given = self._docker(
            "run", "--rm", "--user", "0:0", "--network", "none", "--entrypoint", "chown",
            "-v", f"{path.parent}:/secrets", self._image, f"{IMAGE_USER}:{IMAGE_USER}", "/secrets/keyfile",
        )  # fmt: skip
        if given.returncode != 0:
            raise ProvisionError(
                f"starting {self._deployment} in Docker",
                f"The key file can't be given to the image's user: {_last_line(given.stderr)}",
                f"Type: sudo chown {IMAGE_USER}:{IMAGE_USER} {path}",
            )

    def _composing(self, doing: str) -> contextlib.AbstractContextManager[int]:
        """One compose at a time, even where the process that started it was killed: it inherits the lock.

        Every clone without a slot has the same project's name. So the lock is this person's, not the clone's: of two
        that start at once, the second sees the first one's containers, and would else take them for its own to recreate.
        """
        path = self._paths.cache / "locks" / f"docker-{self._project}.lock"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(0o600)
        except OSError:
            path = self._paths.lock(f"compose-{self._deployment}")
        return exclusive(path, f"{doing} of {self._deployment}")

    def _compose(self, lock: int, command: str, *arguments: str, doing: str) -> None:
        file = self._compose_file() if command != "down" else self._any_compose_file()
        ran = self._docker(
            "compose", "--project-directory", str(self._paths.root), "-f", str(file), "-p", self._project,
            "--progress", "quiet", command, *arguments, seconds=_COMPOSE_SECONDS, inherited=(lock,),
        )  # fmt: skip
        if ran.returncode == 0:
            return
        said = ran.stderr.strip()
        doing = f"{doing} of {self._deployment}"
        if "is not a docker command" in said or "unknown flag" in said or "unknown shorthand" in said:
            raise ProvisionError(
                doing,
                "This docker has no compose v2.",
                "Install it: https://docs.docker.com/compose/install/linux/ (`invoke doctor` says how here).",
            )
        if "no space left on device" in said:
            raise ProvisionError(
                doing,
                "The disk that Docker keeps its data on is full.",
                _FREE_SPACE,
            )
        if taken := re.search(r"(?:Bind for|listen tcp4?) \S*?:(\d+):?.*(?:already allocated|in use)", said):
            node = next((each for each in self._topology.nodes if each.port == int(taken[1])), None)
            if node is not None and (held := self.port_held(node)) is not None:
                raise held
            raise ProvisionError(
                doing,
                f"Port {taken[1]} was taken by another process in this moment.",
                "Type the command again: it names the process.",
            )
        raise self._refused(doing, ran)

    def _compose_file(self) -> Path:
        """The project's compose.yaml where that is what the settings give, else one of the deployment's own."""
        text = self.render_compose()
        root = self._paths.compose_file
        if root.is_file() and root.read_text(encoding="utf-8") == text:
            return root
        own = self._paths.own_compose_file(self._deployment)
        if not own.is_file() or own.read_text(encoding="utf-8") != text:
            write_atomically(own, text)
        return own

    def _any_compose_file(self) -> Path:
        """A file of the project as it was last rendered: `down` takes away what bears the project's label."""
        own = self._paths.own_compose_file(self._deployment)
        root = self._paths.compose_file
        return next((file for file in (own, root) if file.is_file()), None) or self._compose_file()

    def _must(self, doing: str, *arguments: str) -> str:
        """What a docker command prints; the error of one that fails."""
        ran = self._docker(*arguments)
        if ran.returncode != 0:
            raise self._refused(f"{doing} of {self._deployment}", ran)
        return ran.stdout

    def _docker(
        self, *arguments: str, seconds: float = _DOCKER_SECONDS, inherited: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["docker", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                env={**os.environ, **self._environment, "MONGODB_IMAGE": self._image},
                pass_fds=inherited,
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(arguments, _NO_COMMAND, "", "")
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(arguments, 1, "", f"it did not answer within {seconds:g} s.")

    def _refused(self, doing: str, ran: subprocess.CompletedProcess[str]) -> ProvisionError:
        if ran.returncode == _NO_COMMAND:
            return ProvisionError(
                doing,
                "There is no docker command on the PATH.",
                "Install Docker (https://docs.docker.com/get-docker/), or run the deployment as processes:\n"
                f"{as_processes(self._deployment)}",
            )
        said = ran.stderr.strip()
        if any(
            word in said
            for word in ("annot connect", "ermission denied", "did not answer", "error during connect")
        ):
            return unreachable(doing, said, self._deployment)
        return ProvisionError(
            doing, f"Docker refused: {_last_line(said)}", "Correct that, then type the command again."
        )


@dataclass(frozen=True)
class Existing:
    """What there is of a compose project."""

    containers: frozenset[str]  # their ids
    volumes: frozenset[str]  # their names
    networks: frozenset[str]  # their ids
    directory: Path  # where the engine keeps its data; on another machine than this one it isn't there


def bound_ports(lines: Iterable[str]) -> list[int]:
    """The ports of this machine that containers are made with, in whatever state they are. Pure.

    https://docs.docker.com/reference/cli/docker/inspect/

    Args:
        lines: each container's ``HostConfig.PortBindings`` as JSON: ``{"27017/tcp": [{"HostIp": …, "HostPort": …}]}``.
    """
    bindings = [each for line in lines for each in (json.loads(line) or {}).values()]
    return sorted({int(each["HostPort"]) for many in bindings for each in many or () if each["HostPort"]})


def short_of_memory(nodes: int, available_mb: float) -> str | None:
    """Why the memory does not do for so many nodes; None: it does."""
    needed = _IDLE_NODE_MB * nodes
    if available_mb >= needed:
        return None
    return (
        f"{nodes} nodes need about {needed} MB of memory when idle, and {available_mb:.0f} MB are available."
    )


def short_of_disk(new: int, free_mb: float, directory: Path) -> str | None:
    """Why the disk does not do for so many nodes that have no data yet; None: it does."""
    needed = _NEW_NODE_DISK_MB * new
    if free_mb >= needed:
        return None
    return (
        f"{new} new nodes need about {needed} MB of disk, and {free_mb:.0f} MB are free where Docker keeps its data "
        f"({directory})."
    )


def as_processes(deployment: str) -> str:
    """The command that brings a deployment up without Docker."""
    return f"invoke cluster.up --backend processes --on {deployment}"


def unreachable(doing: str, said: str, deployment: str) -> ProvisionError:
    """The error for an engine that does not answer, from what docker or docker-py said."""
    if "ermission denied" in said:
        return ProvisionError(
            doing,
            "You may not use this machine's Docker engine.",
            "Join its group (sudo usermod -aG docker $USER, then log in again), or run the deployment as processes:\n"
            f"{as_processes(deployment)}",
        )
    return ProvisionError(
        doing,
        f"Docker's engine does not answer: {_last_line(said)}",
        "Start it (sudo systemctl start docker, or Docker Desktop), or run the deployment as processes:\n"
        f"{as_processes(deployment)}",
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing."
