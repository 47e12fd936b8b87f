"""What each back end can do and what it needs: the registry of back ends. Nothing else compares their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Of a back end.

    Args:
        local: its nodes are on this machine, and take its ports and its memory.
        containers: its nodes are containers of this machine's Docker engine, and run the mongod of an image.
        needs_mongod: its nodes run a mongod that is chosen on this machine.
        keeps_folders: data, logs and configuration are folders and files of this project.
        quick_to_observe: to look whether a node runs costs next to nothing.
        default_auth: a deployment has a key file and users, unless its settings say otherwise.
        supports_tls: connections can be encrypted, and are, unless the settings say otherwise.
        can_isolate: a node can be cut off its network.
        may_be_killed_after_flush: a cluster whose mongods have flushed what they have may be ended as by a crash: nobody
            but its routers writes.
    """

    local: bool = False
    containers: bool = False
    needs_mongod: bool = False
    keeps_folders: bool = False
    quick_to_observe: bool = False
    default_auth: bool = False
    supports_tls: bool = False
    can_isolate: bool = False
    may_be_killed_after_flush: bool = False


BACKENDS = {
    "processes": Capabilities(
        local=True,
        needs_mongod=True,
        keeps_folders=True,
        quick_to_observe=True,
        may_be_killed_after_flush=True,
    ),
    "docker": Capabilities(
        local=True, containers=True, default_auth=True, can_isolate=True, may_be_killed_after_flush=True
    ),
    "hosts": Capabilities(needs_mongod=True, default_auth=True, supports_tls=True),
}
"""What ``backend`` of a deployment names."""
