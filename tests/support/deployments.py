"""Deployments of a test's own, as processes on free ports, brought up by the tool itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provision.core.steps import Silent
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.mongodb import binaries
from provision.settings.loading import Layer, load
from tests.support.capabilities import ROOT
from tests.support.polling import until
from tests.support.processes import free_port, listens
from tests.support.router_standin.install import beside


@contextmanager
def deployed(folder: Path, mongod: Path, version: str, **settings: Any) -> Iterator[Deployment]:
    """A deployment that runs until the block ends; its data are deleted.

    Args:
        folder: existing folder for data, logs and records.
        mongod: the binary. For a sharded deployment the router beside it is the tests' stand-in, unless it has one.
        version: of that binary.
        settings: as under `deployments` in invoke.yaml: ``topology="replica-set", members=3``.
    """
    binary = beside(mongod, version, folder / "bin") if settings["topology"] == "sharded" else mongod
    shutil.copy2(ROOT / "mongod.conf.j2", folder)
    chosen = {
        "mongodb": {"source": "path", "path": str(binary)},
        "app": {"database": "flaskbook"},
        "deployments": {"lab": {"backend": "processes", "port": free_port(), **settings}},
    }
    loaded = load(folder, [Layer("the tests", chosen)], remember=False)
    binaries.find(loaded.settings.mongodb, loaded.paths, Silent())
    deployment = assembly.deployment(loaded, "lab")
    deployment.up()
    try:
        yield deployment
    finally:
        for node in deployment.topology.nodes:
            deployment.backend.kill(node)
        shutil.rmtree(folder / "data", ignore_errors=True)


@contextmanager
def foreign_mongod(
    binary: Path, data: Path, port: int = 0, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A mongod that somebody else started on a data directory; it listens, and ends with the block.

    Args:
        binary: the mongod.
        data: existing directory for its data.
        port: its port; 0: a free one.
        options: more of its options.
    """
    port = port or free_port()
    command = [
        *(str(binary), "--dbpath", str(data), "--port", str(port)),
        *("--bind_ip", "127.0.0.1", "--nounixsocket"),
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until("the foreign mongod to listen", lambda: listens(port))
            yield process
        finally:
            process.terminate()
