"""One mongod in a container of this machine's Docker engine, by testcontainers.

testcontainers' own MongoDB container waits for a line in the log, which an image that creates a root user prints
twice: first by the temporary mongod that creates it. This one waits until that user can log in, and a majority
write was acknowledged.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_json
from provision.mongodb import binaries
from provision.mongodb.credentials import Credentials
from provision.mongodb.topology import LOOPBACK
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from provision.testing.request import Request
from provision.testing.run import Run
from provision.testing.servers import Found

LABEL = "provision.pytest.run"
_DOING = "starting MongoDB in a container for tests"
_PORT = 27017
_REPLICA_SET = "rs0"
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_LOG_LINES = 20_000
_SECRETS = "/run/provision"
_ALREADY_INITIALIZED = 23
# mongod wants its key file to be its user's alone, and files are copied into a container as root's.
_OWN_SECRETS = f'chown -R 999:999 {_SECRETS}; chmod 400 {_SECRETS}/*; exec docker-entrypoint.sh "$@"'


@dataclass(frozen=True)
class Spec:
    """What runs in the container."""

    image: str  # Docker image that behaves as the official `mongo` does
    replica_set: str | None  # name of the replica set that it forms by itself; None: it stands alone
    root: Credentials | None  # the root user that it is to have; None: no authentication
    key: str = field(default="", repr=False)  # text of the key file that a replica set with users needs

    def command(self) -> list[str]:
        """The container's command. Pure; it holds no secret."""
        options = ["mongod", "--wiredTigerCacheSizeGB", "0.25"]
        if self.replica_set:
            options += ["--replSet", self.replica_set, "--oplogSize", "64"]
            if self.root:
                options += ["--keyFile", f"{_SECRETS}/key"]
        return options

    def entry_point(self) -> list[str] | None:
        """What the container runs its command with; None: what the image says. Pure."""
        return ["sh", "-euc", _OWN_SECRETS, "sh"] if self.root else None

    def environment(self) -> dict[str, str]:
        """The container's environment. Pure; the password is in a file."""
        found = dict(binaries.environment("8.0.0"))
        if self.root:
            found["MONGO_INITDB_ROOT_USERNAME"] = self.root.username
            found["MONGO_INITDB_ROOT_PASSWORD_FILE"] = f"{_SECRETS}/password"
        return found

    def files(self) -> dict[str, bytes]:
        """What is copied into the container before it starts. Pure."""
        if self.root is None:
            return {}
        found = {f"{_SECRETS}/password": self.root.password.encode()}
        return found | ({f"{_SECRETS}/key": self.key.encode()} if self.replica_set else {})


def obtain(request: Request, folder: Path, run: Run) -> Found:
    """Start the container, or find it started by another worker."""
    record = folder / "server.json"
    before = read_json(record)
    if before and "container" in before:
        return _found(str(before["uri"]), str(before["container"]))
    if before:
        remove_all(run.id, request.key)  # of a worker that was killed while it started it
    root = Credentials("root", secrets.token_urlsafe(24)) if request.auth else None
    key = base64.b64encode(secrets.token_bytes(90)).decode()
    spec = Spec(request.image, None if request.standalone else _REPLICA_SET, root, key)
    # On record before it is there: a killed run's container is found by this.
    write_json(record, {"kind": "container"})
    try:
        container = start(spec, {LABEL: run.id, f"{LABEL}.server": request.key})
    except BaseException:
        record.unlink(missing_ok=True)  # it has removed what it made
        raise
    uri = _uri(_port(container), root)
    write_json(record, {"kind": "container", "container": container.get_container_id(), "uri": uri})
    container.get_docker_client().client.close()
    return _found(uri, container.get_container_id())


def start(spec: Spec, labels: Mapping[str, str]) -> Any:
    """Start a container and wait until its mongod takes writes.

    Returns testcontainers' `DockerContainer`. A container that does not come up is removed again.
    """
    try:
        from docker.errors import APIError, DockerException, ImageNotFound
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer
    except ImportError as missing:
        raise ProvisionError(
            _DOING,
            f"The package {missing.name} is not installed.",
            "pip install 'flaskbook-provision[container]'",
        ) from None
    try:
        container = DockerContainer(
            spec.image, env=spec.environment(), labels=dict(labels), entrypoint=spec.entry_point()
        )
    except DockerException as error:
        raise ProvisionError(
            _DOING,
            f"The Docker engine does not answer: {error}",
            "Start Docker, or leave --mongodb=container out: then mongod runs without it.",
        ) from None
    container.with_command(spec.command())
    # On this machine alone, which testcontainers' own methods can't say; Docker's client takes it like this.
    published: Any = {f"{_PORT}/tcp": (LOOPBACK, None)}
    container.ports = published
    for path, content in spec.files().items():
        container.with_copy_into_container(content, path, 0o400)
    reaping = testcontainers_config.ryuk_disabled
    # Its reaper would end the container with the worker that started it, while others still use it.
    testcontainers_config.ryuk_disabled = True
    try:
        container.start()
        _wait_until_writable(container, spec)
    except (ImageNotFound, APIError) as error:
        container.stop()
        raise ProvisionError(
            _DOING,
            f"{spec.image}: {error.explanation or error}",
            f"Try: docker pull {spec.image}\nAnother image: pytest --mongodb-image=NAME",
        ) from None
    except BaseException:
        container.stop()
        raise
    finally:
        testcontainers_config.ryuk_disabled = reaping
    return container


def remove_all(run: str, server: str = "") -> None:
    """Remove the containers of a run, with their data.

    Without a server, of all of them.
    """
    import docker
    from docker.errors import DockerException, NotFound

    labels = [f"{LABEL}={run}", *([f"{LABEL}.server={server}"] if server else [])]
    try:
        with contextlib.closing(docker.from_env()) as client:
            for container in client.containers.list(all=True, filters={"label": labels}):
                with contextlib.suppress(NotFound):
                    container.remove(force=True, v=True)
    except DockerException as error:
        raise ProvisionError(
            "removing the containers of a test run",
            f"The Docker engine does not answer: {error}",
            f"Start Docker, then: docker rm -f -v $(docker ps -aq --filter label={LABEL}={run})",
        ) from None


def _found(uri: str, container: str) -> Found:
    return Found(uri, lambda since: {"mongod": _logs(container, since)})


def _port(container: Any) -> int | None:
    """The port of this machine that leads to mongod's; None: not yet, or not any more."""
    published = container.get_docker_client().client.api.port(container.get_container_id(), _PORT)
    return int(published[0]["HostPort"]) if published else None


def _uri(port: int | None, root: Credentials | None) -> str:
    # Direct: a replica set's member is known by its address inside the container.
    user = f"{root.username}:{quote(root.password, safe='')}@" if root else ""
    options = "authSource=admin&directConnection=true" if root else "directConnection=true"
    return f"mongodb://{user}{LOOPBACK}:{port}/?{options}"


def _wait_until_writable(container: Any, spec: Spec) -> None:
    wait = Wait(
        time.monotonic() + _START_SECONDS, _START_SECONDS, _Watch(container).check, lambda: _tail(container)
    )
    port = wait.until("the container to have a port", lambda: _port(container))
    with wait.until("mongod to let its users in", lambda: _connect(port, spec.root)) as connection:
        if spec.replica_set:
            _initiate(connection, spec.replica_set)
            wait.until(
                f"a primary in replica set {spec.replica_set}",
                lambda: connection.command("admin", {"hello": 1}).get("isWritablePrimary") or None,
            )
        majority = {"w": "majority", "j": True, "wtimeout": 10_000}
        write = {"insert": "writable", "documents": [{"written": True}], "writeConcern": majority}
        connection.command("provision_writable", write)
        connection.command("provision_writable", {"drop": "writable", "writeConcern": majority})


def _connect(port: int, root: Credentials | None) -> Connection | None:
    """A connection that was pinged as the user; None: not yet."""
    try:
        connection = Connection(LOOPBACK, port, 5.0, root)
    except (NotReachable, CommandFailed):
        return None  # nobody listens, or the user is not there yet
    try:
        connection.command("admin", {"ping": 1})
    except (NotReachable, CommandFailed):
        connection.close()
        return None
    return connection


def _initiate(connection: Connection, replica_set: str) -> None:
    config = {"_id": replica_set, "members": [{"_id": 0, "host": f"localhost:{_PORT}"}]}
    try:
        connection.command("admin", {"replSetInitiate": config})
    except CommandFailed as refusal:
        if refusal.code != _ALREADY_INITIALIZED:
            raise


class _Watch:
    """Looks now and then whether a container still runs."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._looked = time.monotonic()

    def check(self) -> None:
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._container.reload()
        if self._container.status not in ("created", "running"):
            raise ProvisionError(
                _DOING,
                f"The container ended ({self._container.status}) before mongod took writes.",
                "The lines above say why. Another image: pytest --mongodb-image=NAME",
                _tail(self._container),
            )


def _tail(container: Any) -> list[str]:
    from provision.mongodb.logs import why_it_died

    raw: bytes = container.get_wrapped_container().logs(tail=400)
    return why_it_died(raw.decode(errors="replace").splitlines())


def _logs(container: str, since: datetime) -> list[str]:
    import docker
    from docker.errors import DockerException

    try:
        with contextlib.closing(docker.from_env()) as client:
            raw: bytes = client.containers.get(container).logs(since=since.timestamp() - 1, tail=_LOG_LINES)
            return raw.decode(errors="replace").splitlines()
    except DockerException as error:
        return [f"its log could not be read: {error}"]
