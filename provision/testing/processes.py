"""A deployment of mongods of this machine: what the plugin does unless told otherwise."""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from provision import assembly
from provision.backends.processes import port_holder
from provision.deployment import Deployment
from provision.errors import ProvisionError
from provision.files import read_json, write_json
from provision.installers import cache_directory
from provision.locks import exclusive
from provision.mongodb import binaries
from provision.mongodb.topology import LOOPBACK
from provision.paths import Paths
from provision.schema import AppSettings, DeploymentSettings, MongodbSettings, Settings
from provision.settings import Layer, Loaded, load
from provision.steps import Silent
from provision.testing.request import Request
from provision.testing.run import Run, runs
from provision.testing.servers import Found

NAME = "mongodb"
# Below the ports that Linux and macOS hand to outgoing connections.
_PORTS = range(20_000, 31_000)
_ATTEMPTS = 5
_LOG_LINES = 20_000
# They outlive a worker that started them. Python warns of a child that is forgotten while it runs.
_STARTED: list[Deployment] = []


class NoRouter(ProvisionError):
    """A sharded cluster was asked for, and this machine has no mongos."""


@dataclass(frozen=True)
class Binaries:
    """Finds mongod, as the settings of the project under test say.

    Args:
        root: that project's top folder; its `invoke.yaml` counts, if it has one.
        mongod: the mongod that was asked for; empty: what the settings say.
    """

    root: Path
    mongod: str = ""

    def settings(self) -> Loaded:
        """The settings in force.

        Raises:
            ProvisionError: they are wrong.
        """
        layers = []
        for path, shown in (
            (Path.home() / ".invoke.yaml", "~/.invoke.yaml"),
            (self.root / "invoke.yaml", "invoke.yaml"),
        ):
            if path.is_file():
                layers.append(Layer(shown, _yaml(path), ours_alone=False))
        environ = {key: value for key, value in os.environ.items() if key.startswith("INVOKE_")}
        if not layers and not environ:
            # Nobody has said anything: there is nothing to be judged.
            return Loaded(Settings(), Paths.of(self.root, "data", "log", None), {})
        return load(self.root, layers, environ, remember=False)

    def app(self) -> AppSettings:
        """What the settings say of the app."""
        return self.settings().settings.app

    def find(self) -> tuple[MongodbSettings, Path]:
        """Find mongod, download it if need be, and remember it for the runs to come.

        Returns:
            The settings that describe it, and the file that records it.

        Raises:
            ProvisionError: there is none to be had.
        """
        loaded = self.settings()
        chosen = loaded.settings.mongodb
        if self.mongod:
            chosen = replace(chosen, source="path", path=self.mongod)
        if chosen.path:
            chosen = replace(chosen, path=str(self.root / Path(chosen.path).expanduser()))
        digest = hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]
        remembered = cache_directory(os.environ) / "pytest" / digest
        paths = Paths(remembered, remembered, remembered, loaded.paths.cache)
        if binaries.recorded(paths, chosen) is None:
            binaries.find(chosen, paths, Silent())
        return chosen, paths.mongod_record


def obtain(request: Request, folder: Path, run: Run, binaries: Binaries) -> Found:
    """Start the deployment, or what of it does not run.

    Args:
        request: what it consists of.
        folder: for its data, logs and records; this process holds its lock.
        run: the run it belongs to.
        binaries: finds mongod.

    Raises:
        NoRouter: mongos is needed, and there is none beside mongod.
        ProvisionError: it can't be started.
    """
    # Importing the driver takes about as long as mongod takes to start.
    importing = threading.Thread(target=_import_driver, daemon=True)
    importing.start()
    record = folder / "server.json"
    mongodb, recorded = binaries.find()
    for attempt in range(_ATTEMPTS):
        before = read_json(record)
        port = int(before["port"]) if before else _choose_port(request, folder, run)
        deployment = _deployment(request, folder, port, mongodb, recorded)
        _STARTED.append(deployment)
        try:
            deployment.up()
        except ProvisionError:
            record.unlink(missing_ok=True)
            _kill(deployment)
            if before is not None or attempt == _ATTEMPTS - 1 or not _ports_taken(deployment):
                raise
            continue
        break
    importing.join()
    return Found(
        deployment.uri(user="root" if request.auth else None), lambda _: _logs(deployment), deployment
    )


def _deployment(
    request: Request, folder: Path, port: int, mongodb: MongodbSettings, recorded: Path
) -> Deployment:
    paths = Paths(folder, folder / "data", folder / "log", cache_directory(os.environ))
    if not paths.mongod_record.exists():
        paths.state.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(recorded, paths.mongod_record)
    settings = Settings(mongodb=mongodb, deployments={NAME: _plan(request, port)})
    loaded = Loaded(settings, paths, {})
    if request.topology == "sharded":
        mongod = binaries.recorded(paths, mongodb)
        if mongod is not None and mongod.mongos is None:
            raise NoRouter(
                "starting a sharded cluster for tests",
                f"It needs mongos, and there is none beside {mongod.path}.",
                "Get both from MongoDB's archive (https://www.mongodb.com/try/download/community), and name that mongod:\n"
                "pytest --mongod=/path/to/bin/mongod\n"
                "Or use a cluster that is running: pytest --mongodb=mongodb://127.0.0.1:27100",
            )
    return assembly.deployment(loaded, NAME)


def _plan(request: Request, port: int) -> DeploymentSettings:
    return DeploymentSettings(
        topology=request.topology,
        backend="processes",
        replica_set=None if request.standalone else "rs0",
        port=port,
        members=request.data_members,
        config_servers=1,
        shards=request.shards,
        auth=request.auth,
    )


def _choose_port(request: Request, folder: Path, run: Run) -> int:
    """A first port for the deployment, so that all of its ports are free and no other run has them."""
    with exclusive(run.base / "ports.lock", "choosing ports", lambda _: None):
        taken = set(_ports_of(run.base))
        for _ in range(200):
            port = random.choice(_PORTS)  # noqa: S311 — not a secret
            ports = {node.port for node in assembly.plan(NAME, _plan(request, port)).nodes}
            if not ports & taken and all(port_holder(LOOPBACK, each) is None for each in ports):
                write_json(
                    folder / "server.json", {"kind": "processes", "port": port, "ports": sorted(ports)}
                )
                return port
    raise ProvisionError(
        "choosing ports for the tests' MongoDB",
        f"No free ones were found between {_PORTS.start} and {_PORTS.stop}.",
        "End what holds them.",
    )


def _ports_of(base: Path) -> Iterator[int]:
    for run in runs(base):
        for record in run.folder.glob("*/server.json"):
            yield from (read_json(record) or {}).get("ports", ())


def _ports_taken(deployment: Deployment) -> bool:
    return any(port_holder(LOOPBACK, node.port) is not None for node in deployment.topology.nodes)


def _kill(deployment: Deployment) -> None:
    for node in deployment.topology.nodes:
        deployment.backend.kill(node)


def _logs(deployment: Deployment) -> Mapping[str, list[str]]:
    return {node.name: deployment.backend.log_tail(node, _LOG_LINES) for node in deployment.topology.nodes}


def _yaml(path: Path) -> dict[str, object]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise ProvisionError(
            "reading the settings", f"{path}: {problem}", "Mend that file, then run pytest again."
        ) from None
    return values or {}


def import_ahead() -> None:
    """Import what comes before the start of mongod; the driver is imported during it."""
    for name in ("jinja2", "psutil", "yaml"):
        importlib.import_module(name)


def _import_driver() -> None:
    import pymongo  # noqa: F401 — while mongod starts
