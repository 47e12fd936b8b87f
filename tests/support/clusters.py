"""Deployments in Docker that tests bring up: each with a name, a directory and ports of its own, and none left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient

from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.mongodb.topology import Node
from provision.mongodb.wire import CommandFailed, NotReachable
from provision.settings.loading import Layer, Loaded, load
from tests.support.capabilities import ROOT
from tests.support.polling import until
from tests.support.processes import free_ports

OFFICIAL = "mongo:8.0"
LOCAL = "flaskbook-test-mongo:cluster"
_PULL_SECONDS = 90
PREFIX = "test-"
LABEL = "provision.deployment"
SMALL: Mapping[str, Any] = {
    "topology": "sharded",
    "members": 1,
    "config_servers": 1,
    "shards": 1,
    "routers": 1,
}
DEFAULT: Mapping[str, Any] = {
    "topology": "sharded",
    "members": 3,
    "config_servers": 3,
    "shards": 2,
    "routers": 1,
    "sharding": {"flaskbook": {"user": {"key": {"_id": "hashed"}}}},
}
# What a process that is to be killed runs: it says on its standard output what it has reached.
_UP = """
import json, sys
from pathlib import Path
from provision.deployments import assembly
from provision.settings.loading import Layer, load
root, settings, name = json.load(sys.stdin)
loaded = load(Path(root), [Layer("the tests", settings)], {}, remember=False)
assembly.deployment(loaded, name).up(reached=lambda event: print(event.text, flush=True))
"""


def docker(*arguments: str, check: bool = True) -> str:
    """What a docker command prints on standard output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def choose_image(mongod: Path | None) -> tuple[str, str]:
    """The image that the tests run against: the official one where it is or can be pulled, else a local one.

    Args:
        mongod: what the local one is built with.

    Returns:
        The image, and what to tell of it.
    """
    with suppress(subprocess.SubprocessError):
        here = subprocess.run(["docker", "image", "inspect", OFFICIAL], capture_output=True, timeout=60)
        if here.returncode != 0:
            subprocess.run(
                ["docker", "pull", "-q", OFFICIAL], capture_output=True, timeout=_PULL_SECONDS, check=True
            )
        return OFFICIAL, f"image {OFFICIAL} (official), router: its mongos"
    from tests.support.image.build import build_image

    assert mongod is not None, (
        f"{OFFICIAL} can't be pulled, and there is no mongod to build a local image with"
    )
    version = subprocess.run(
        [mongod, "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[2]
    build_image(mongod, LOCAL)
    return (
        LOCAL,
        f"image {LOCAL} (local, mongod {version}), router: the stand-in of tests/support/router_standin",
    )


@dataclass
class Cluster:
    """One deployment in Docker.

    Args:
        root: its project directory.
        image: Docker image of its nodes.
        name: the deployment's name.
        settings: of the deployment.
        more: other settings.
    """

    root: Path
    image: str
    name: str
    settings: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, image: str, settings: Mapping[str, Any], name: str = "") -> Cluster:
        """Prepare one; nothing is started."""
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / "mongod.conf.j2", root)
        shutil.copytree(ROOT / "templates", root / "templates", dirs_exist_ok=True)
        name = name or f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        shards = settings.get("shards", 1) + 1 if settings["topology"] == "sharded" else 1
        return cls(
            root, image, name, {"backend": "docker", "port": free_ports(50 * (shards + 1)), **settings}
        )

    def values(self) -> dict[str, Any]:
        return {
            # Ten nodes beside other tests, on two processors.
            "mongodb": {"image": self.image, "start_timeout": 180.0},
            "app": {"database": "flaskbook"},
            "deployments": {self.name: self.settings},
            **self.more,
        }

    def load(self) -> Loaded:
        return load(self.root, [Layer("the tests", self.values())], {}, remember=False)

    @property
    def deployment(self) -> Deployment:
        """As a new process of the tool would see it."""
        return assembly.deployment(self.load(), self.name)

    @property
    def project(self) -> str:
        return f"flaskbook-{self.name}"

    def node(self, name: str) -> Node:
        return self.deployment.node(name)

    def client(self, user: str = "app") -> MongoClient[Any]:
        """A client of the whole; the caller closes it."""
        return MongoClient(self.deployment.uri(user=user), serverSelectionTimeoutMS=30_000)

    def states(self) -> dict[str, str]:
        """Node → state, by `status`."""
        return {node.name: node.state for node in self.deployment.status().nodes}

    def primary(self, replica_set: str) -> str:
        """Name of a set's primary."""

        def ask() -> str | None:
            nodes = self.deployment.status().nodes
            return next(
                (n.name for n in nodes if n.replica_set == replica_set and n.state == "PRIMARY"), None
            )

        found = until(f"a primary of {replica_set}", ask)
        assert found is not None
        return found

    def count_on(self, shard: str, database: str, collection: str) -> int:
        """Documents of a collection on one shard, asked of its members and not of a router."""
        deployment = self.deployment

        def ask() -> dict[str, int] | None:
            for member in next(each for each in deployment.topology.all_sets if each.name == shard).members:
                with suppress(NotReachable, CommandFailed), deployment.dial(member) as connection:
                    if connection.command("admin", {"hello": 1}).get("isWritablePrimary"):
                        pipeline = [{"$count": "n"}]
                        command = {"aggregate": collection, "pipeline": pipeline, "cursor": {}}
                        batch = connection.command(database, command)["cursor"]["firstBatch"]
                        return {"n": batch[0]["n"] if batch else 0}
            return None

        answer = until(f"a count on {shard}", ask)
        assert answer is not None
        return answer["n"]

    def containers(self) -> dict[str, dict[str, Any]]:
        """Node → what `docker inspect` says of its container."""
        ids = docker("ps", "-aq", "--filter", f"label={LABEL}={self.name}").split()
        found = json.loads(docker("inspect", *ids)) if ids else []
        return {each["Config"]["Labels"]["provision.node"]: each for each in found}

    def identities(self) -> dict[str, tuple[str, str]]:
        """Node → id and start of its container: what a restart or a new container changes."""
        return {name: (each["Id"], each["State"]["StartedAt"]) for name, each in self.containers().items()}

    def left(self) -> dict[str, list[str]]:
        """What Docker has of it, by kind; empty: nothing."""
        mine = f"label=com.docker.compose.project={self.project}"
        found = {
            "containers": docker("ps", "-a", "--filter", mine, "--format", "{{.Names}}").split(),
            "volumes": docker("volume", "ls", "-q", "--filter", mine).split(),
            "networks": docker("network", "ls", "--filter", mine, "--format", "{{.Name}}").split(),
        }
        return {kind: names for kind, names in found.items() if names}

    def begin_up(self, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """`up` in a process of its own, which says line by line what it has reached."""
        process = subprocess.Popen(
            [sys.executable, "-c", _UP],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps([str(self.root), self.values(), self.name]))
        process.stdin.close()
        return process

    def close(self) -> None:
        """Remove everything that Docker has of it."""
        remove_project(self.project)


def remove_project(project: str) -> None:
    """Remove a project's containers, networks and volumes."""
    mine = f"label=com.docker.compose.project={project}"

    def gone() -> bool:
        # Again, while a compose that lost its parent is still at it.
        for listing, removal in (
            (("ps", "-aq"), ("rm", "-fv")),
            (("network", "ls", "-q"), ("network", "rm")),
            (("volume", "ls", "-q"), ("volume", "rm", "-f")),
        ):
            if found := docker(*listing, "--filter", mine).split():
                docker(*removal, *found, check=False)
        return not any(
            docker(*each, "--filter", mine).split() for each in (("ps", "-aq"), ("network", "ls", "-q"))
        )

    until(f"{project} to be gone", gone)


def remove_those_of_dead_runs() -> None:
    """Remove what a killed test run left behind."""
    prefix = f"flaskbook-{PREFIX}"
    listed = docker("ps", "-a", "--format", '{{.Label "com.docker.compose.project"}}', check=False)
    listed += docker("volume", "ls", "--format", '{{.Label "com.docker.compose.project"}}', check=False)
    for project in {line for line in listed.splitlines() if line.startswith(prefix)}:
        pid = project.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            remove_project(project)


def command_lines() -> Iterator[str]:
    """The command line of every process of this machine, those in containers included."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield " ".join(process.cmdline())
