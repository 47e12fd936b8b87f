"""Nodes as containers of this machine's Docker engine.

`docker compose` brings them up and takes them down, docker-py reads, signals and disconnects. What is ours is
told by the compose project, the directory it was started from, and our label.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.backends import compose
from provision.backends.base import Observed
from provision.backends.processes import port_holder
from provision.errors import ProvisionError
from provision.files import write_atomically
from provision.mongodb.config import Layout
from provision.mongodb.topology import LOOPBACK, Node, Topology
from provision.paths import Paths

IMAGE_USER = 999  # mongodb, in the official image
_OBSERVED_SECONDS = 0.1
_COMPOSE_SECONDS = 900
_STOP_POLL_SECONDS = 0.02
_PROJECT = "com.docker.compose.project"
_DIRECTORY = "com.docker.compose.project.working_dir"
_SERVICE = "com.docker.compose.service"
_IDLE_NODE_MB = 150


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
        paths: where records and rendered files are.
        template: text of ``templates/compose.yaml.j2``.
        image: Docker image of the nodes.
        auth: nodes have a key file.
        environment: variables for the compose file, such as MONGODB_GLIBC_TUNABLES.
    """

    name = "docker"

    def __init__(
        self,
        topology: Topology,
        paths: Paths,
        template: str,
        image: str,
        auth: bool,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._topology = topology
        self._deployment = topology.name
        self._paths = paths
        self._template = template
        self._image = image
        self._auth = auth
        self._environment = dict(environment or {})
        self._project = compose.project(topology.name)
        self._engine: Any = None
        self._seen: tuple[float, dict[str, Any]] = (0.0, {})

    def layout(self, node: Node) -> Layout:
        return Layout("/data/db", None, "0.0.0.0", "/etc/mongod.key" if self._auth else None)  # noqa: S104 — of a container

    def address(self, node: Node) -> tuple[str, int]:
        return LOOPBACK, node.port

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

    def render_compose(self) -> str:
        """The text of the compose file."""
        default = self._deployment == "cluster"
        options = compose.ComposeOptions(self._image, self._auth, default)
        return compose.render(self._topology, options, self._template)

    def launch(self, nodes: Sequence[Node]) -> None:
        missing = [node for node in nodes if not self.observe(node).running]
        if not missing:
            return
        self._check_engine()
        self._check_room(missing)
        self._own_key_file()
        self._compose(
            "up", "-d", "--quiet-pull", *(node.name for node in missing), doing="starting the containers"
        )
        self._seen = (0.0, {})

    def observe(self, node: Node) -> Observed:
        container = self._containers().get(node.name)
        if container is None:
            return Observed(False)
        running = container["State"] in ("running", "paused")
        status = None
        if container["State"] in ("exited", "dead"):
            status = int(self._client().api.inspect_container(container["Id"])["State"]["ExitCode"])
        return Observed(running, None, status)

    def terminate(self, nodes: Sequence[Node], timeout: float) -> None:
        running = self._running(nodes)
        if not running:
            return
        api = self._client().api
        for container in running:
            if container["State"] == "paused":
                api.unpause(container["Id"])
            self._signal(container["Id"], "SIGTERM")
        deadline = time.monotonic() + timeout
        while (running := self._running(nodes)) and time.monotonic() < deadline:
            time.sleep(_STOP_POLL_SECONDS)
        for container in running:
            self._signal(container["Id"], "SIGKILL")

    def kill(self, node: Node) -> None:
        for container in self._running([node]):
            self._signal(container["Id"], "SIGKILL")
        self._seen = (0.0, {})

    def remove(self, nodes: Sequence[Node], data: bool) -> None:
        if len(nodes) == len(self._topology.nodes):
            self._compose("down", "-t", "0", *(("-v",) if data else ()), doing="removing the containers")
        else:
            for node in nodes:
                self._remove_one(node, data)
        self._seen = (0.0, {})

    def log_tail(self, node: Node, lines: int) -> list[str]:
        container = self._containers().get(node.name)
        if container is None:
            return []
        raw = self._client().api.logs(container["Id"], tail=lines)
        return str(raw.decode(errors="replace")).splitlines()

    def follow_log(self, node: Node, lines: int) -> Iterator[str]:
        container = self._containers().get(node.name)
        if container is None:
            return
        rest = b""
        for part in self._client().api.logs(container["Id"], stream=True, follow=True, tail=lines):
            *complete, rest = (rest + part).split(b"\n")
            yield from (line.decode(errors="replace") for line in complete)

    def pause(self, node: Node, paused: bool) -> None:
        """Freeze a node, or let it go on: it answers nothing and notices nothing.

        Raises:
            ProvisionError: it does not run.
        """
        container = self._one_running(node, "pausing")
        if paused and container["State"] != "paused":
            self._client().api.pause(container["Id"])
        elif not paused and container["State"] == "paused":
            self._client().api.unpause(container["Id"])

    def isolate(self, node: Node, isolated: bool) -> None:
        """Cut a node off its network, or connect it again.

        Raises:
            ProvisionError: it does not run.
        """
        container = self._one_running(node, "isolating")
        network = f"{self._project}_default"
        connected = network in container["NetworkSettings"]["Networks"]
        if isolated and connected:
            self._client().api.disconnect_container_from_network(container["Id"], network)
        elif not isolated and not connected:
            self._client().api.connect_container_to_network(
                container["Id"], network, aliases=[node.name, node.host]
            )

    def _one_running(self, node: Node, doing: str) -> Any:
        found = self._running([node])
        if not found:
            raise ProvisionError(
                f"{doing} {node.name}", "It does not run.", "Start it: invoke cluster.start " + node.name
            )
        return found[0]

    def _running(self, nodes: Sequence[Node]) -> list[Any]:
        self._seen = (0.0, {})
        containers = self._containers()
        wanted = [containers[node.name] for node in nodes if node.name in containers]
        return [each for each in wanted if each["State"] in ("running", "paused", "restarting")]

    def _remove_one(self, node: Node, data: bool) -> None:
        from docker.errors import NotFound

        client = self._client()
        container = self._containers().get(node.name)
        if container is not None:
            client.api.remove_container(container["Id"], force=True)
        if data:
            with contextlib.suppress(NotFound):
                client.api.remove_volume(f"{self._project}_{node.name}")

    def _signal(self, container: str, signal: str) -> None:
        from docker.errors import APIError

        try:
            self._client().api.kill(container, signal)
        except APIError as error:
            if error.status_code != 409:  # it is not running any more
                raise

    def _containers(self) -> dict[str, Any]:
        """Our containers by node, as the engine lists them; asked anew after a tenth of a second."""
        when, containers = self._seen
        if time.monotonic() - when < _OBSERVED_SECONDS:
            return containers
        filters = {"label": [f"{_PROJECT}={self._project}", f"provision.deployment={self._deployment}"]}
        listed = self._client().api.containers(all=True, filters=filters)
        for each in listed:
            self._check_ours(each)
        containers = {each["Labels"][_SERVICE]: each for each in listed}
        self._seen = (time.monotonic(), containers)
        return containers

    def _check_ours(self, container: Mapping[str, Any]) -> None:
        directory = container["Labels"].get(_DIRECTORY, "")
        if Path(directory).resolve() != self._paths.root.resolve():
            raise ProvisionError(
                f"looking at the containers of {self._deployment}",
                f"Docker has a project {self._project} that was started from {directory}, which is not this clone.",
                f"Take it down there, or give the deployment another name in invoke.yaml here than {self._deployment!r}.",
            )

    def _client(self) -> Any:
        if self._engine is None:
            import docker
            from docker.errors import DockerException

            try:
                self._engine = docker.from_env(timeout=60)
                self._engine.api.version()
            except DockerException as error:
                raise unreachable(f"looking at the containers of {self._deployment}", str(error)) from None
        return self._engine

    def _check_engine(self) -> None:
        """The engine answers and has the image, or the image can be pulled; one clear error otherwise."""
        doing = f"starting {self._deployment} in Docker"
        if shutil.which("docker") is None:
            raise ProvisionError(
                doing,
                "There is no docker command on the PATH.",
                "Install Docker (https://docs.docker.com/get-docker/), or use processes: --backend processes.",
            )
        found = self._docker("image", "inspect", "-f", "{{.Id}}", self._image)
        if found.returncode == 0:
            return
        if "No such image" not in found.stderr:
            raise unreachable(doing, found.stderr.strip())
        print(f"Pulling {self._image} ...", file=sys.stderr, flush=True)  # noqa: T201
        pulled = subprocess.run(
            ["docker", "pull", "--quiet", self._image],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if pulled.returncode != 0:
            raise ProvisionError(
                doing,
                f"The image {self._image} is not on this machine and can't be pulled: {_last_line(pulled.stderr)}",
                "Set mongodb.image in invoke.yaml to an image that is here (docker image ls) or that can be pulled,\n"
                "or use processes: --backend processes.",
            )

    def _check_room(self, nodes: Sequence[Node]) -> None:
        """Ports, memory and disk, before anything is made."""
        doing = f"starting {self._deployment} in Docker"
        for node in nodes:
            holder = port_holder(LOOPBACK, node.port)
            if holder is not None:
                raise ProvisionError(
                    doing,
                    f"Port {node.port}, which {node.name} needs, is held by {holder}; it will not be touched.",
                    f"Stop it, or choose other ports: deployments.{self._deployment}.port in invoke.yaml.",
                )
        import psutil

        available = psutil.virtual_memory().available / 2**20
        needed = _IDLE_NODE_MB * len(nodes)
        if available < needed:
            raise ProvisionError(
                doing,
                f"{len(nodes)} nodes need about {needed} MB of memory when idle, and {available:.0f} MB are available.",
                "Free memory, or make it smaller: shards, members and config_servers in invoke.yaml.",
            )

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

    def _compose(self, command: str, *arguments: str, doing: str) -> None:
        file = self._compose_file()
        ran = self._docker(
            "compose", "--project-directory", str(self._paths.root), "-f", str(file), "-p", self._project,
            "--progress", "quiet", command, *arguments,
        )  # fmt: skip
        if ran.returncode != 0:
            said = ran.stderr.strip()
            if "is not a docker command" in said or "unknown flag" in said or "unknown shorthand" in said:
                raise ProvisionError(
                    f"{doing} of {self._deployment}",
                    "This docker has no compose v2.",
                    "Install it: https://docs.docker.com/compose/install/linux/ (`invoke doctor` says how here).",
                )
            cause = "The disk is full." if "no space left on device" in said else _last_line(said)
            raise ProvisionError(
                f"{doing} of {self._deployment}", cause, "Mend that, then type the command again."
            )

    def _compose_file(self) -> Path:
        """The project's compose.yaml where that is what the settings give, else one of the deployment's own."""
        text = self.render_compose()
        root = self._paths.root / "compose.yaml"
        if root.is_file() and root.read_text(encoding="utf-8") == text:
            return root
        own = self._paths.deployment(self._deployment) / "compose.yaml"
        if not own.is_file() or own.read_text(encoding="utf-8") != text:
            write_atomically(own, text)
        return own

    def _docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["docker", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMPOSE_SECONDS,
                env={**os.environ, **self._environment, "MONGODB_IMAGE": self._image},
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(arguments, 127, "", "docker: command not found")


def unreachable(doing: str, said: str) -> ProvisionError:
    """The error for an engine that does not answer, from what docker or docker-py said."""
    if "ermission denied" in said:
        return ProvisionError(
            doing,
            "You may not use this machine's Docker engine.",
            "Join its group (sudo usermod -aG docker $USER, then log in again), or use processes: --backend processes.",
        )
    return ProvisionError(
        doing,
        f"Docker's engine does not answer: {_last_line(said)}",
        "Start it (sudo systemctl start docker, or Docker Desktop), or use processes: --backend processes.",
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing."
