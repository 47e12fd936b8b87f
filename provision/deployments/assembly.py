"""From settings to a deployment: plans its topology and chooses its back end."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from provision.backends import compose
from provision.backends.base import Backend
from provision.core.errors import PackagesMissing, ProvisionError
from provision.deployments import finishing
from provision.deployments.deployment import Deployment
from provision.mongodb import binaries, topology, users
from provision.mongodb.binaries import support
from provision.mongodb.sharding import ShardedCollection, Zone
from provision.mongodb.topology import LOOPBACK, HostOf, NodeOptions, Role, Size, Topology
from provision.settings.capabilities import BACKENDS
from provision.settings.loading import Loaded
from provision.settings.schema import DeploymentSettings, MongodbSettings
from provision.state import records, remembered
from provision.state.remembered import DEFAULT_SET, Extent, There

if TYPE_CHECKING:
    from provision.core.steps import Progress
    from provision.hosts.backend import Hosts
    from provision.hosts.certificates import Authority
    from provision.hosts.inventory import Host
    from provision.mongodb.binaries import Choice, Mongod

_SHUTDOWN_MS = 100


def plan(name: str, settings: DeploymentSettings, host: HostOf | None = None) -> Topology:
    """The topology that a deployment's settings describe. Pure.

    `host`: node name → the name under which others know it; None: as its back end has it.

    Raises ProvisionError: the settings contradict each other.
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
        return topology.replica_set(
            name, settings.port, settings.replica_set or DEFAULT_SET, size, options, host
        )
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
    if not settings.capabilities.containers:  # those on hosts get their addresses when they are placed
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
    if settings.tls and not settings.capabilities.supports_tls:
        raise ProvisionError(
            doing,
            f"It wants TLS, which the back end {settings.backend} does not have: its nodes listen on loopback alone.",
            f"Set {place}.tls to null, or {place}.backend to hosts.",
        )
    if settings.mongod is not None and not settings.capabilities.needs_mongod:
        raise ProvisionError(
            doing,
            f"It wants the mongod {settings.mongod}, and its nodes run the one of their Docker image.",
            f"Set {place}.image instead, and {place}.mongod to null.",
        )
    if (settings.tls_ca_file is None) != (settings.tls_ca_key_file is None):
        raise ProvisionError(
            doing,
            "It has only one of an authority's certificate and private key.",
            f"Set both {place}.tls_ca_file and {place}.tls_ca_key_file, or neither.",
        )


def sharded_collections(settings: DeploymentSettings) -> tuple[ShardedCollection, ...]:
    """The collections that a deployment's settings want sharded; without shards, none. Pure."""
    if settings.topology != "sharded":
        return ()
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


def deployment(
    loaded: Loaded, name: str, placed: Mapping[str, str] | None = None, *, as_asked: bool = False
) -> Deployment:
    """A deployment, ready for `up`, `status` and `down`. Starts and writes nothing.

    One that runs with other settings than are asked for is the one that runs, until it is restarted: what there is can
    be looked at and stopped, however the settings have changed since.

    Args:
        placed: node name → host name, of one on hosts that is looked at with a node elsewhere than on record; what
            is then done to it does not change the record. None: as it is on record.
        as_asked: as the settings ask for it, whatever runs: to render its configuration.

    Raises ProvisionError: no deployment has that name, or its settings contradict each other.
    """
    asked = loaded.deployment(name)
    present = Extent.recorded(loaded.paths, name)
    if present is None or not present.changes(Extent.of(asked)):
        there = There.DATA
    else:
        there = There.NOTHING if as_asked else _there(loaded, name, present.applied_to(asked))
    found = remembered.combine(name, asked, present, there, _origins(loaded, name))
    settings = found.settings
    planned, made = _planned(loaded, name, settings, placed)
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
        program=_program(loaded, name, settings),
        notices=(
            *found.notices,
            *_left_out(name, settings),
            *_unfinished(loaded, name),
            *outdated(loaded, name),
        ),
        conflict=found.conflict,
        restart_applies=found.restart,
        certify=certified.ensure if certified else None,
        finish=lambda lock: finishing.begin(loaded, name, lock),
    )


def _there(loaded: Loaded, name: str, settings: DeploymentSettings) -> There:
    """What is there of a deployment as it was launched."""
    try:
        planned, made = _planned(loaded, name, settings, None)
        if any(each.running for each in made.observe_all(planned.nodes).values()):
            return There.RUNNING
    except ProvisionError:  # its back end does not answer: its data may well be there
        return There.DATA
    if not settings.capabilities.keeps_folders:
        return There.DATA
    folders = [loaded.paths.node_data(name, node.name) for node in planned.nodes]
    return There.DATA if any(each.is_dir() and any(each.iterdir()) for each in folders) else There.NOTHING


def _origins(loaded: Loaded, name: str) -> dict[str, str]:
    """Key of a deployment's settings → where its value comes from."""
    return {
        path[2]: origin
        for path, origin in loaded.origins.items()
        if len(path) == 3 and path[:2] == ("deployments", name)
    }


def _program(loaded: Loaded, name: str, settings: DeploymentSettings) -> str:
    """What a deployment's nodes would run if they were launched now."""
    if settings.capabilities.containers:
        return settings.image or loaded.settings.mongodb.image
    chosen = mongod(loaded, name)
    return f"mongod {chosen.version}" if chosen else ""


def _left_out(name: str, settings: DeploymentSettings) -> list[str]:
    """What the settings declare and this deployment has no use for."""
    if settings.topology == "sharded" or not settings.sharding:
        return []
    kind = "a single mongod" if settings.topology == "single" else "a replica set"
    return [f"{name} is {kind}: deployments.{name}.sharding is left out."]


def mongod(loaded: Loaded, name: str = "") -> Mongod | None:
    """The mongod that a deployment's nodes run on: its own, or this machine's; None: none has been chosen yet.

    `name`: the deployment; empty: this machine's.
    """
    settings, file = _choosing(loaded, name)
    return binaries.recorded(loaded.paths, settings, file)


def outdated(loaded: Loaded, name: str = "") -> list[str]:
    """A warning where a deployment's nodes run a mongod that gets no security fixes and that nobody asked for.

    `name`: the deployment; empty: this machine's mongod.
    """
    if name and not loaded.deployment(name).capabilities.needs_mongod:
        return []
    chosen = mongod(loaded, name)
    said = chosen and support.warning(chosen, _choosing(loaded, name)[0], date.today())
    return [said] if said else []


def find_mongod(loaded: Loaded, name: str, progress: Progress) -> Choice:
    """Find, or download, the mongod that a deployment's nodes are to run on, and record it.

    `name`: the deployment; empty: this machine's.

    Raises ProvisionError: there is none, and none can be downloaded.
    """
    settings, file = _choosing(loaded, name)
    exact = file is not None and settings.version == loaded.deployment(name).mongod
    return binaries.find(settings, loaded.paths, progress, exact=exact, file=file)


def _choosing(loaded: Loaded, name: str) -> tuple[MongodbSettings, Path | None]:
    """What decides which mongod a deployment gets, and where the choice is on record."""
    mongodb = loaded.settings.mongodb
    own = loaded.deployment(name).mongod if name else None
    if own is None:
        return mongodb, None
    file = loaded.paths.mongod_record_of(name)
    if "/" in own:
        return replace(mongodb, source="path", path=own), file
    return replace(mongodb, version=own), file


def _planned(
    loaded: Loaded, name: str, settings: DeploymentSettings, placed: Mapping[str, str] | None
) -> tuple[Topology, Backend]:
    """A deployment's topology and back end; on hosts, where a node is placed decides how others reach it."""
    shape = plan(name, settings)
    if settings.capabilities.local:
        return shape, backend(loaded, shape, settings)
    from provision.hosts import inventory, placement

    moves = remembered.moves(loaded.paths, name)
    between = [host for move in moves.values() for host in (move.source, move.target)]
    known = inventory.hosts(loaded, dict.fromkeys((*settings.hosts, *between)))
    found = placed or placement.place(shape, settings.hosts, records.PLACEMENT.read(loaded.paths, name))
    planned = plan(name, settings, lambda node: known[found[node]].address)
    return planned, _hosts(loaded, planned, settings, known, found, records=placed is None)


def _hosts(
    loaded: Loaded,
    planned: Topology,
    settings: DeploymentSettings,
    known: Mapping[str, Host],
    placed: Mapping[str, str],
    records: bool,
) -> Hosts:
    if importlib.util.find_spec("fabric") is None:
        raise PackagesMissing("hosts", f"looking up the hosts of {planned.name}")
    from provision.hosts import setup
    from provision.hosts.backend import Hosts

    chosen = mongod(loaded, planned.name)
    return Hosts(
        planned,
        loaded.paths,
        known,
        placed,
        authority(loaded, planned.name, settings),
        settings.has_auth,
        lambda: setup.binaries_of(_for_hosts(loaded, planned.name)),
        binaries.environment(chosen.version) if chosen else {},
        loaded.paths.unit_template.read_text(encoding="utf-8"),
        records=records,
        moving=remembered.moves(loaded.paths, planned.name) if records else {},
    )


def _for_hosts(loaded: Loaded, name: str) -> Mongod | None:
    """The mongod that hosts get."""
    chosen = mongod(loaded, name)
    if loaded.deployment(name).mongod is None:
        support.refuse_on_hosts(chosen, loaded.settings.mongodb, date.today())
    return chosen


def _unfinished(loaded: Loaded, name: str) -> list[str]:
    """What to say about nodes whose move from one host to another was interrupted."""
    return [
        f"{node} is being moved from {each.source} to {each.target}, which was interrupted. "
        f"`invoke hosts.move {node} --to {each.target} --on {name}` finishes it."
        for node, each in remembered.moves(loaded.paths, name).items()
    ]


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
    if settings.capabilities.containers:
        from provision.backends.docker import Docker

        return Docker(
            planned,
            paths,
            paths.compose_template.read_text(encoding="utf-8"),
            settings.image or loaded.settings.mongodb.image,
            settings.has_auth,
            _container_tunables(),
            _compose_project(loaded, name),
        )
    from provision.backends.processes import Processes

    chosen = mongod(loaded, name)
    return Processes(
        name,
        paths,
        chosen.path if chosen else None,
        chosen.mongos if chosen else None,
        binaries.environment(chosen.version) if chosen else None,
        paths.key_file(name) if settings.has_auth else None,
    )


def _compose_project(loaded: Loaded, name: str) -> compose.Project:
    """A deployment's compose project: the one that has its volumes, else the one of this folder's slot, if it has one."""
    volumes = records.VOLUMES.read(loaded.paths, name)
    extent = Extent.recorded(loaded.paths, name)
    root, usual = str(loaded.paths.root), compose.project(name)
    if volumes is not None:  # data stay where they are; earlier versions did not write the name down
        made = str(volumes.get("project", usual.name))
        return usual if made == usual.name else compose.Project(made, root)
    if loaded.slot is None or (extent is not None and BACKENDS[extent.backend].containers):
        return usual
    return compose.project_in_slot(name, loaded.slot.project, loaded.slot.slot, root)


def _container_tunables() -> dict[str, str]:
    """What mongod 8 needs in a container on this kernel; nothing where the image's own value is enough."""
    needed = binaries.environment("8.0.0").get("GLIBC_TUNABLES")
    return {"MONGODB_GLIBC_TUNABLES": needed} if needed else {}


def secrets(loaded: Loaded, name: str) -> users.Secrets | None:
    """The secrets of a deployment with authentication; None where it has none, or none yet."""
    return users.existing(loaded.paths, name) if loaded.deployment(name).has_auth else None
