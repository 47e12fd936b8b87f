"""The local image behaves as the official mongo image does, in containers that compose brings up."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure, PyMongoError

from tests.support.image.build import LABEL, BuildError, build_image

CACHE = ["--wiredTigerCacheSizeGB", "0.25"]


@pytest.fixture(scope="module")
def mongod(mongod_binary: Path) -> Path:
    return mongod_binary


@pytest.fixture(scope="module")
def image(mongod: Path) -> str:
    return build_image(mongod, "flaskbook-test-mongo:entry-point-test")


@dataclass
class Project:
    """A compose project of one test."""

    name: str
    folder: Path

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            ["docker", "compose", "--project-name", self.name, "--file", str(self.folder / "compose.json"), *arguments],
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def up(self, services: dict[str, dict[str, Any]], **more: Any) -> None:
        document = {"services": services, **more}
        (self.folder / "compose.json").write_text(json.dumps(document))
        self.compose("up", "--detach")

    def port(self, service: str) -> int:
        return int(self.compose("port", service, "27017").stdout.rpartition(":")[2])

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def logs(self, service: str) -> str:
        result = subprocess.run(
            ["docker", "logs", self.container(service)], capture_output=True, text=True, check=True
        )
        return result.stdout + result.stderr

    def exited(self, service: str) -> tuple[int, str]:
        """Waits for a service's container to end and returns its exit status and its log."""
        status = subprocess.run(["docker", "wait", self.container(service)],
                                capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
        return int(status.stdout), self.logs(service)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    tmp_path.chmod(0o755)  # mounted into containers, whose user is another
    made = Project(f"flaskbook-test-{secrets.token_hex(4)}", tmp_path)
    yield made
    if (tmp_path / "compose.json").exists():
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "0")


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    reason: object = ""
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except PyMongoError as error:
            reason = error
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}: {reason}")


def connect(port: int, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
    options.setdefault("directConnection", True)
    return pymongo.MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=2000, **options)


def published(image: str, **more: Any) -> dict[str, Any]:
    return {"image": image, "ports": ["127.0.0.1::27017"], **more}


def answering(port: int, **options: Any) -> bool:
    with connect(port, **options) as client:
        return bool(client.admin.command("ping")["ok"])


def test_a_second_build_finds_the_image(image: str, mongod: Path) -> None:
    def identifier() -> str:
        shown = f'{{{{.Id}}}} {{{{index .Config.Labels "{LABEL}"}}}}'
        return subprocess.run(["docker", "image", "inspect", "--format", shown, image],
                              capture_output=True, text=True, check=True).stdout  # fmt: skip

    before = identifier()
    assert len(before.split()) == 2
    assert build_image(mongod, image) == image
    assert identifier() == before


def test_a_file_that_is_no_mongod_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "mongod"
    wrong.write_text("#!/bin/sh\necho nothing\n")
    wrong.chmod(0o755)
    with pytest.raises(BuildError, match="printed no version"):
        build_image(wrong, "flaskbook-test-mongo:never")


def test_mongod_runs_as_user_999_and_listens_for_other_machines(image: str, project: Project) -> None:
    project.up({"db": published(image, command=CACHE)})
    until(lambda: answering(project.port("db")), "mongod to answer")
    top = project.compose("top", "db").stdout
    assert [line.split()[0] for line in top.splitlines() if "mongod " in line] == ["999"]
    assert (
        project.compose("exec", "db", "stat", "-c", "%u:%U", "/data/db/WiredTiger").stdout.strip()
        == "999:mongodb"
    )
    assert project.compose("exec", "db", "test", "-S", "/tmp/mongodb-27017.sock").returncode == 0


def test_other_commands_are_executed_as_they_stand(image: str, project: Project) -> None:
    project.up({"any": {"image": image, "command": ["echo", "--version", "hello"]},
                "router": {"image": image, "command": ["mongos", "--version"]}})  # fmt: skip
    assert project.exited("any") == (0, "--version hello\n")
    status, output = project.exited("router")
    assert (status, output.startswith("mongos version v")) == (0, True)


@pytest.mark.parametrize("from_file", [False, True])
def test_the_root_user_is_created_once_and_authentication_is_on(
    image: str, project: Project, from_file: bool
) -> None:
    password = secrets.token_urlsafe(12)
    environment = {"MONGO_INITDB_ROOT_USERNAME": "root", "MONGO_INITDB_ROOT_PASSWORD": password}
    # Both of the image's volumes are named: an anonymous one would outlive the first "down".
    volumes = ["data:/data/db", "config:/data/configdb"]
    named: dict[str, Any] = {"data": {}, "config": {}}
    if from_file:
        (project.folder / "password").write_text(password + "\n")
        (project.folder / "password").chmod(0o644)
        del environment["MONGO_INITDB_ROOT_PASSWORD"]
        environment["MONGO_INITDB_ROOT_PASSWORD_FILE"] = "/run/password"
        volumes.append(f"{project.folder / 'password'}:/run/password:ro")
    service = published(image, environment=environment, volumes=volumes, command=CACHE)
    project.up({"db": service}, volumes=named)
    root = {"username": "root", "password": password}
    until(lambda: answering(project.port("db"), **root), "the root user to log in")
    with connect(project.port("db")) as anonymous, pytest.raises(OperationFailure) as caught:
        anonymous.admin.command("listDatabases")
    assert caught.value.code == 13
    assert "init process complete" in project.logs("db")
    assert password not in project.logs("db")

    with connect(project.port("db"), **root) as client:
        client.kept.things.insert_one({"_id": 1})
    project.compose("down", "--timeout", "10")
    project.up({"db": service}, volumes=named)
    until(lambda: answering(project.port("db"), **root), "the root user to log in again")
    with connect(project.port("db"), **root) as client:
        assert client.kept.things.find_one() == {"_id": 1}
    assert "init process complete" not in project.logs("db")


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"MONGO_INITDB_ROOT_USERNAME": "root"}, "both must be given"),
        ({"MONGO_INITDB_ROOT_USERNAME": "root", "MONGO_INITDB_ROOT_PASSWORD": "a",
          "MONGO_INITDB_ROOT_PASSWORD_FILE": "/b"}, "are exclusive"),
    ],
)  # fmt: skip
def test_half_given_credentials_are_an_error(
    image: str, project: Project, environment: dict[str, str], complaint: str
) -> None:
    project.up({"db": {"image": image, "environment": environment}})
    status, output = project.exited("db")
    assert status == 1
    assert complaint in output


def test_a_cluster_with_a_router_comes_up_from_configuration_files(image: str, project: Project) -> None:
    key = base64.b64encode(secrets.token_bytes(60)).decode()
    settings = {"config": "configsvr", "shard1": "shardsvr", "shard2": "shardsvr"}
    for name, role in settings.items():
        (project.folder / f"{name}.conf").write_text(
            f"storage: {{dbPath: /data/db, wiredTiger: {{engineConfig: {{cacheSizeGB: 0.25}}}}}}\n"
            f"net: {{port: 27017, bindIpAll: true}}\nsharding: {{clusterRole: {role}}}\n"
            f"replication: {{replSetName: {name}, oplogSizeMB: 16}}\nsecurity: {{keyFile: /etc/key/file}}\n"
        )
    (project.folder / "mongos.conf").write_text(
        "sharding: {configDB: 'config/config:27017'}\nnet: {port: 27017, bindIpAll: true}\n"
        "security: {keyFile: /etc/key/file}\n"
    )
    # The key must be mongod's user's alone; a one-off container writes it, as its owner, into a volume.
    (project.folder / "key").write_text(key)
    volumes = [f"{project.folder}:/etc/given:ro", "key:/etc/key"]
    prepare = {
        "image": image, "volumes": volumes,
        "command": ["sh", "-euc", "cd /etc/key; cp ../given/key file; chown 999:999 file; chmod 0400 file"],
    }  # fmt: skip
    after = {"prepare": {"condition": "service_completed_successfully"}}
    services: dict[str, dict[str, Any]] = {
        name: published(
            image, command=["--config", f"/etc/given/{name}.conf"], volumes=volumes, depends_on=after
        )
        for name in settings
    }
    services["router"] = published(
        image, command=["mongos", "--config", "/etc/given/mongos.conf"], volumes=volumes, depends_on=after
    )
    project.up({"prepare": prepare, **services}, volumes={"key": {}})

    system = {
        "username": "__system",
        "password": key,
        "authSource": "local",
        "authMechanism": "SCRAM-SHA-256",
    }
    for name, role in settings.items():
        until(lambda name=name: answering(project.port(name), **system), f"{name} to answer")
        with connect(project.port(name), **system) as client:
            config: dict[str, Any] = {"_id": name, "members": [{"_id": 0, "host": f"{name}:27017"}]}
            if role == "configsvr":
                config["configsvr"] = True
            client.admin.command("replSetInitiate", config)
            if role == "configsvr":
                until(lambda client=client: client.admin.command("hello")["isWritablePrimary"], "a primary")
                client.admin.command("createUser", "root", pwd="root-password", roles=["root"])
    root = {"username": "root", "password": "root-password", "directConnection": False}
    until(lambda: answering(project.port("router"), **root), "the router to answer")
    with connect(project.port("router"), **root) as client:
        for name in ("shard1", "shard2"):
            client.admin.command("addShard", f"{name}/{name}:27017")
        client.admin.command("shardCollection", "flaskbook.user", key={"_id": "hashed"})
        client.flaskbook.user.insert_many([{"_id": n} for n in range(500)])
        assert client.flaskbook.user.count_documents({}) == 500
    parts = []
    for name in ("shard1", "shard2"):
        with connect(project.port(name), **system) as client:
            parts.append(client.flaskbook.user.count_documents({}))
    assert sum(parts) == 500
    assert min(parts) > 100
    assert "999" in project.compose("top", "router").stdout
    router = project.container("router")
    subprocess.run(["docker", "stop", "--time", "30", router], check=True, capture_output=True)
    state = subprocess.run(["docker", "inspect", "--format", "{{.State.ExitCode}}", router],
                           check=True, capture_output=True, text=True)  # fmt: skip
    assert state.stdout.strip() == "0"  # 137 would say that it had to be killed
