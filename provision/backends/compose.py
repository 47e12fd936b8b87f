"""A topology → the text of its compose file. Pure: same input, same output.

https://docs.docker.com/reference/compose-file/
"""

from __future__ import annotations

import json

from provision.core.dataclass import dataclass
from provision.mongodb.topology import Node, Topology
from provision.settings.paths import conf_place

STATE = "./.state/deployments"
OWNER = "provision.root"  # label: the folder that it belongs to
# What a mongod needs beside its cache: connections, sorting, the process itself.
_BESIDE_CACHE_MB = 512
_ROUTER_MB = 512


@dataclass(frozen=True)
class ComposeOptions:
    """What a compose file says beside the topology."""

    image: str  # Docker image, where MONGODB_IMAGE does not say otherwise
    key_file: bool  # nodes have a key file
    default: bool  # it is the project's `compose.yaml`, which `docker compose` finds by itself
    project: Project
    shown: bool = True  # the project has `mongod.conf` at its top
    apart: bool = False  # configuration and key file are beside the file


@dataclass(frozen=True)
class Project:
    """A compose project: its name is part of the names of containers, networks and volumes."""

    name: str
    owner: str | None = None  # the folder that it belongs to, for a label; None: the name is every clone's


def project(deployment: str) -> Project:
    """The compose project of a deployment in a folder without a slot."""
    return Project(f"flaskbook-{deployment}")


def project_in_slot(deployment: str, project: str, slot: int, root: str) -> Project:
    """The compose project of a deployment in a folder that has a slot.

    Args:
        project: the name of the project that the folder is a working tree of.
        root: the folder.
    """
    return Project(f"{project}-{slot}-{deployment}", root)


def memory_mb(node: Node) -> int:
    """Memory limit of a node's container, in MB."""
    return _ROUTER_MB if node.is_router else int(node.options.cache_size_gb * 1024) + _BESIDE_CACHE_MB


def _conf(deployment: str, node: str, options: ComposeOptions) -> str:
    return f"{node}.conf" if options.apart else conf_place(deployment, node, options.shown)


def render(topology: Topology, options: ComposeOptions, template: str) -> str:
    """Render the compose file of a deployment.

    Args:
        options: what it says beside them.
        template: text of ``templates/compose.yaml.j2``.
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 — YAML, not HTML
    )
    name = topology.name
    shards = len(topology.replica_sets)
    title = (
        f"A sharded cluster: {shards} x {len(topology.replica_sets[0].members)} shard members, "
        f"{len(topology.config.members)} config servers, {len(topology.routers)} routers."
        if topology.config
        else f"{len(topology.nodes)} mongod."
    )
    return environment.from_string(template).render(
        title=title,
        deployment=name,
        project=options.project.name,
        # Compose takes a $ for the beginning of a variable.
        owner={OWNER: json.dumps(owner).replace("$", "$$")} if (owner := options.project.owner) else {},
        nodes=topology.nodes,
        image=options.image,
        key_file=options.key_file,
        state="." if options.apart else f"{STATE}/{name}",
        conf={node.name: f"./{_conf(name, node.name, options)}" for node in topology.nodes},
        memory_mb={node.name: memory_mb(node) for node in topology.nodes},
        file_option=""
        if options.default
        else f" --project-directory . -f .state/deployments/{name}/compose.yaml",
        on_option="" if options.default else f" --on {name}",
    )
