"""From settings to a deployment: plans its topology and chooses its back end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from provision import finishing, remembered
from provision.backends.base import Backend
from provision.deployment import Deployment
from provision.errors import ProvisionError
from provision.files import read_json
from provision.mongodb import binaries, topology, users
from provision.mongodb.sharding import ShardedCollection, Zone
from provision.mongodb.topology import LOOPBACK, HostOf, NodeOptions, Role, Size, Topology
from provision.schema import DeploymentSettings
from provision.settings import Loaded

if TYPE_CHECKING:
    from provision.backends.hosts import Hosts
    from provision.hosts.certificates import Authority
    from provision.hosts.inventory import Host

_SHUTDOWN_MS = 100


def plan(name: str, settings: DeploymentSettings, host: HostOf | None = None) -> Topology:
    """The topology that a deployment's settings describe. Pure.

    Args:
        name: the deployment's name.
        settings: its settings.
        host: node name → the name under which others know it; None: as its back end has it.

    Raises:
        ProvisionError: the settings contradict each other.
    """
    _check(name, settings)

    def options(role: Role) -> NodeOptions:
        # An arbiter is a member of its set, as far as settings go.
        own = settings.roles.get("member" if role is Role.ARBITER else role.value)  # type: ignore[call-overload]
        return NodeOptions(
            cache_size_gb=(own and own.cache_size_gb) or settings.cache_size_gb,
            oplog_size_mb=(own and own.oplog_size_mb) or settings.oplog_size_mb,
            journal_commit_interval_ms=own.journal_commit_interval_ms if own else None,
            set_parameter={
                **_quick_shutdown(settings, role),
                **settings.set_parameter,
                **(own.set_parameter if own else {}),
            },
        )

    size = Size(
        settings.members,
        settings.arbiters,
        settings.config_servers,
        settings.shards,
        settings.routers,
        tuple(settings.removed_shards),
    )
    host = host or _host(settings)
    if settings.topology == "sharded":
        return topology.sharded(name, settings.port, size, options, host)
    if settings.topology == "replica-set":
        return topology.replica_set(name, settings.port, settings.replica_set or "rs0", size, options, host)
    return topology.single(name, settings.port, settings.replica_set, options, host)


def _quick_shutdown(settings: DeploymentSettings, role: Role) -> dict[str, bool | int | float | str]:
    """Spare a stopping deployment the 15 s that each of its nodes would give clients to turn to the others.

    https://www.mongodb.com/docs/manual/reference/parameters/#mongodb-parameter-param.shutdownTimeoutMillisForSignaledShutdown
    """
    if settings.topology == "single":
        return {}
    prefix = "mongosS" if role is Role.ROUTER else "s"
    return {f"{prefix}hutdownTimeoutMillisForSignaledShutdown": _SHUTDOWN_MS}


def _host(settings: DeploymentSettings) -> HostOf:
    if settings.backend in ("processes", "hosts"):  # those on hosts get their addresses when they are placed
        return lambda _: LOOPBACK
    from provision.backends import docker

    return docker.container_host if settings.topology == "sharded" else docker.host_wide


def _check(name: str, settings: DeploymentSettings) -> None:
    doing, place = f"planning the deployment {name}", f"deployments.{name}"
    numbers = settings.shards + len(settings.removed_shards)
    last = settings.port + (50 * (numbers + 1) if settings.topology == "sharded" else 51)
    if settings.topology != "single" and last > 65535:
        raise ProvisionError(
            doing,
            f"Its ports would go up to {last}, and the last one is 65535.",
            f"Choose a lower {place}.port.",
        )
    if settings.members + settings.arbiters > 50:
        raise ProvisionError(doing, "A replica set has at most 50 members.", f"Choose fewer {place}.members.")
    if settings.tls and settings.backend != "hosts":
        raise ProvisionError(
            doing,
            f"It wants TLS, which the back end {settings.backend} does not have: its nodes listen on loopback alone.",
            f"Set {place}.tls to null, or {place}.backend to hosts.",
        )
    if (settings.tls_ca_file is None) != (settings.tls_ca_key_file is None):
        raise ProvisionError(
            doing,
            "It has only one of an authority's certificate and private key.",
            f"Set both {place}.tls_ca_file and {place}.tls_ca_key_file, or neither.",
        )
    if settings.topology != "sharded" and settings.sharding:
        raise ProvisionError(
            doing,
            "It declares sharding, and is not sharded.",
            f"Set {place}.topology to sharded, or remove sharding.",
        )


def sharded_collections(settings: DeploymentSettings) -> tuple[ShardedCollection, ...]:
    """The collections that a deployment's settings want sharded. Pure."""
    return tuple(
        ShardedCollection(
            f"{database}.{name}",
            each.key,
            each.unique,
            each.chunks,
            tuple(each.split),
            tuple(Zone(zone.zone, tuple(zone.shards), zone.min, zone.max) for zone in each.zones),
        )
        for database, collections in settings.sharding.items()
        for name, each in collections.items()
    )


def deployment(loaded: Loaded, name: str) -> Deployment:
    """A deployment, ready for `up`, `status` and `down`. Starts and writes nothing.

    Args:
        loaded: the settings in force.
        name: which deployment.

    Raises:
        ProvisionError: no deployment has that name, or its settings contradict each other.
    """
    found = remembered.combine(name, loaded.deployment(name), remembered.Extent.recorded(loaded.paths, name))
    settings = found.settings
    planned, made = _planned(loaded, name, settings)
    certified = authority(loaded, name, settings)
    return Deployment(
        planned,
        made,
        loaded.paths,
        loaded.paths.mongod_template.read_text(encoding="utf-8"),
        loaded.settings.mongodb.start_timeout,
        auth=settings.has_auth,
        app_database=loaded.settings.app.database,
        collections=sharded_collections(settings),
        extent=found.extent,
        notices=found.notices,
        conflict=found.conflict,
        certify=certified.ensure if certified else None,
        finish=lambda lock: finishing.begin(loaded, name, lock),
    )


def _planned(loaded: Loaded, name: str, settings: DeploymentSettings) -> tuple[Topology, Backend]:
    """A deployment's topology and back end; on hosts, where a node is placed decides how others reach it."""
    shape = plan(name, settings)
    if settings.backend != "hosts":
        return shape, backend(loaded, shape, settings)
    from provision.hosts import inventory, placement

    known = inventory.hosts(loaded, settings.hosts)
    before = read_json(loaded.paths.placement(name))
    placed = placement.place(shape, settings.hosts, before)
    planned = plan(name, settings, lambda node: known[placed[node]].address)
    return planned, _hosts(loaded, planned, settings, known, placed)


def _hosts(
    loaded: Loaded,
    planned: Topology,
    settings: DeploymentSettings,
    known: Mapping[str, Host],
    placed: Mapping[str, str],
) -> Hosts:
    from provision.backends.hosts import Hosts
    from provision.hosts import setup

    mongod = binaries.recorded(loaded.paths, loaded.settings.mongodb)
    return Hosts(
        planned,
        loaded.paths,
        known,
        placed,
        authority(loaded, planned.name, settings),
        settings.has_auth,
        lambda: setup.binaries_of(mongod),
        binaries.environment(mongod.version) if mongod else {},
        loaded.paths.unit_template.read_text(encoding="utf-8"),
    )


def authority(loaded: Loaded, name: str, settings: DeploymentSettings) -> Authority | None:
    """The certificate authority of a deployment; None where it has no TLS."""
    if not settings.has_tls:
        return None
    from provision.hosts.certificates import Authority

    paths = loaded.paths
    trusted = paths.ca_certificate(name)
    if settings.tls_ca_file is None and settings.tls_ca_key_file is None:
        return Authority(name, trusted, paths.ca_key(name), trusted)
    certificate, key = settings.tls_ca_file or "", settings.tls_ca_key_file or ""
    return Authority(name, paths.under_root(certificate), paths.under_root(key), trusted)


def backend(loaded: Loaded, planned: Topology, settings: DeploymentSettings) -> Backend:
    """The back end of a deployment's settings. Starts and writes nothing."""
    paths, name = loaded.paths, planned.name
    if settings.backend == "docker":
        from provision.backends.docker import Docker

        return Docker(
            planned,
            paths,
            paths.compose_template.read_text(encoding="utf-8"),
            settings.image or loaded.settings.mongodb.image,
            settings.has_auth,
            _container_tunables(),
        )
    from provision.backends.processes import Processes

    mongod = binaries.recorded(paths, loaded.settings.mongodb)
    return Processes(
        name,
        paths,
        mongod.path if mongod else None,
        mongod.mongos if mongod else None,
        binaries.environment(mongod.version) if mongod else None,
        paths.key_file(name) if settings.has_auth else None,
    )


def _container_tunables() -> dict[str, str]:
    """What mongod 8 needs in a container on this kernel; nothing where the image's own value will do."""
    needed = binaries.environment("8.0.0").get("GLIBC_TUNABLES")
    return {"MONGODB_GLIBC_TUNABLES": needed} if needed else {}


def secrets(loaded: Loaded, name: str) -> users.Secrets | None:
    """The secrets of a deployment with authentication; None where it has none, or none yet."""
    return users.existing(loaded.paths, name) if loaded.deployment(name).has_auth else None
