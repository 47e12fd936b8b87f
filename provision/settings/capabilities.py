"""What each back end can do and what it needs: the registry of back ends. Nothing else compares their names."""

from __future__ import annotations

from provision.core.dataclass import dataclass


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Of a back end."""

    local: bool = False  # its nodes are on this machine, and take its ports and its memory
    # its nodes are containers of this machine's Docker engine, and run the mongod of an image
    containers: bool = False
    needs_mongod: bool = False  # its nodes run a mongod that is chosen on this machine
    keeps_folders: bool = False  # data, logs and configuration are folders and files of this project
    quick_to_observe: bool = False  # to look whether a node runs costs next to nothing
    default_auth: bool = False  # a deployment has a key file and users, unless its settings say otherwise
    supports_tls: bool = False  # connections can be encrypted, and are, unless the settings say otherwise
    can_isolate: bool = False  # a node can be cut off its network
    # a cluster whose mongods have flushed what they have may be ended as by a crash: nobody but its
    # routers writes
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
