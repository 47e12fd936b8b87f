"""A deployment of mongods of this machine: what the plugin does unless told otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import random
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path

from provision.backends.processes import port_holder
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_json
from provision.core.locks import exclusive
from provision.core.steps import Progress, Silent
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.machine.access import cache_directory
from provision.mongodb import binaries
from provision.mongodb.binaries.machine import install_commands, this_machine
from provision.mongodb.topology import LOOPBACK
from provision.settings.loading import Loaded
from provision.settings.paths import Paths
from provision.settings.schema import DeploymentSettings, MongodbSettings, Settings
from provision.testing.request import Request
from provision.testing.run import Run, runs
from provision.testing.servers import Found

NAME = "mongodb"
# Below the ports that Linux and macOS hand to outgoing connections.
_PORTS = range(20_000, 31_000)
_ATTEMPTS = 5
PATCH_LEVELS = {"6.0": "6.0.27", "7.0": "7.0.28", "8.0": MongodbSettings().version}
"""What is downloaded where a version is named without one."""
_LOG_LINES = 20_000
# They outlive a worker that started them. Python warns of a child that is forgotten while it runs.
_STARTED: list[Deployment] = []


class NoRouter(ProvisionError):
    """A sharded cluster was asked for, and this machine has no mongos."""


@dataclass(frozen=True)
class Binaries:
    """Finds mongod. No settings file and no variable of anybody's project count here, only pytest's options."""

    # the mongod that ``--mongod`` names, absolute; empty: the one of this machine, or else one that is
    # fetched
    mongod: str = ""
    # the version it must have, ``8.0`` or ``8.0.17``, where `mongod` is empty; empty: any that is supported
    version: str = ""
    progress: Progress = field(default_factory=Silent)

    def find(self) -> tuple[MongodbSettings, Path]:
        """Find mongod, download it if need be, and remember it for the runs to come.

        Returns: The settings that describe it, and the file that records it.
        Raises ProvisionError: there is none, and none can be downloaded.
        """
        chosen = MongodbSettings()
        if self.mongod:
            chosen = replace(chosen, source="path", path=self.mongod)
        if self.version:
            return self._of_version(chosen)
        return self._find(chosen)

    def _of_version(self, chosen: MongodbSettings) -> tuple[MongodbSettings, Path]:
        """A mongod of that version; for ``8.0``, one on the PATH of any patch level, or else a patch level we know."""
        full = PATCH_LEVELS.get(self.version, self.version)
        if self.version.count(".") == 1:
            with contextlib.suppress(ProvisionError):
                settings, record = self._find(replace(chosen, source="system"))
                mongod = binaries.recorded(_paths(record), settings)
                if mongod is not None and mongod.version.startswith(f"{self.version}."):
                    return settings, record
        if full.count(".") == 1:
            raise ProvisionError(
                f"finding a mongod {self.version}",
                "There is none on the PATH, and its patch levels are not known.",
                f"Write the version with its patch level, {self.version}.0, or the path of a mongod.",
            )
        return self._find(replace(chosen, version=full), exact=True)

    def _find(self, chosen: MongodbSettings, exact: bool = False) -> tuple[MongodbSettings, Path]:
        told = f"{chosen!r}{' exact' if exact else ''}"
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        paths = _paths(cache_directory(os.environ) / "pytest" / digest / ".state" / "mongod.json")
        if binaries.recorded(paths, chosen) is None:
            try:
                binaries.find(chosen, paths, self.progress, exact=exact)
            except ProvisionError as error:
                raise self._explained(error, chosen.version) from None
        return chosen, paths.mongod_record

    def _explained(self, error: ProvisionError, version: str) -> ProvisionError:
        """The same failure with what can be done about it in pytest."""
        if self.mongod:
            remedy = (
                "Correct --mongod, or leave it out: then mongod is looked for, and fetched if there is none."
            )
            return ProvisionError(
                f"taking the mongod that --mongod names ({self.mongod})", error.cause, remedy
            )
        machine = this_machine()
        return ProvisionError(
            error.doing,
            error.cause,
            f"Install MongoDB ({machine.title or machine.system}):\n{install_commands(machine, version)}\n"
            "Or name a mongod of your own: pytest --mongod=/path/to/mongod",
        )


def _paths(record: Path) -> Paths:
    remembered = record.parents[1]
    return Paths(remembered, remembered, remembered, cache_directory(os.environ))


def obtain(request: Request, folder: Path, run: Run, binaries: Binaries) -> Found:
    """Start the deployment, or what of it does not run."""
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
        except ProvisionError as error:
            record.unlink(missing_ok=True)
            _kill(deployment)
            if before is not None or attempt == _ATTEMPTS - 1 or not _ports_taken(deployment):
                raise _for_pytest(error) from None
            continue
        break
    importing.join()
    return Found(
        deployment.uri(user="root" if request.auth else None), lambda _: _logs(deployment), deployment
    )


def _for_pytest(error: ProvisionError) -> ProvisionError:
    """A failure to start, with what can be done about it in pytest: the tool's commands may not be there."""
    remedy = "Run pytest again. On another disk: TMPDIR=/path pytest\nWith another mongod: pytest --mongod=/path/to/mongod"
    return ProvisionError(error.doing, error.cause, remedy, error.log_lines)


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


def import_ahead() -> None:
    """Import what comes before the start of mongod; the driver is imported during it."""
    for name in ("jinja2", "psutil", "yaml"):
        importlib.import_module(name)


def _import_driver() -> None:
    import pymongo  # noqa: F401 — while mongod starts
