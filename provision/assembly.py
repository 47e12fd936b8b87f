"""From settings to a deployment: plans its topology and chooses its back end."""

from __future__ import annotations

from provision.backends.processes import Processes
from provision.deployment import Deployment
from provision.mongodb import binaries, topology
from provision.mongodb.topology import NodeOptions, Topology
from provision.settings import DeploymentSettings, Loaded


def plan(name: str, settings: DeploymentSettings) -> Topology:
    """The topology that a deployment's settings describe. Pure.

    Args:
        name: the deployment's name.
        settings: its settings.
    """
    options = NodeOptions(settings.cache_size_gb, settings.oplog_size_mb, dict(settings.set_parameter))
    return topology.single(name, settings.port, settings.replica_set, options)


def deployment(loaded: Loaded, name: str) -> Deployment:
    """A deployment, ready for `up`, `status` and `down`. Starts and writes nothing.

    Args:
        loaded: the settings in force.
        name: which deployment.

    Raises:
        ProvisionError: no deployment has that name.
    """
    settings = loaded.deployment(name)
    mongod = binaries.recorded(loaded.paths, loaded.settings.mongodb)
    backend = Processes(
        name,
        loaded.paths,
        mongod.path if mongod else None,
        binaries.environment(mongod.version) if mongod else None,
    )
    template = loaded.paths.mongod_template.read_text(encoding="utf-8")
    return Deployment(
        plan(name, settings), backend, loaded.paths, template, loaded.settings.mongodb.start_timeout
    )
