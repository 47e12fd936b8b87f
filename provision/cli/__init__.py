"""The tasks, and everything a person sees."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from invoke.collection import Collection


def collection() -> Collection:
    """Every task, as a namespace of its own: for a `tasks.py`, `add_collection(collection(), "db")` puts them under db."""
    from invoke.collection import Collection

    from provision.cli import (
        clients,
        cluster,
        dumps,
        eject,
        environments,
        hosts,
        init,
        seeds,
        snapshots,
        tasks,
    )  # fmt: skip

    own = (
        init.init, tasks.setup, tasks.settings, tasks.render, tasks.start, tasks.stop, tasks.restart, tasks.status,
        tasks.logs, tasks.uri, tasks.run, clients.tunnel, clients.shell, clients.tour, seeds.seed, seeds.reset,
        dumps.dump, dumps.load, dumps.pull, tasks.doctor, tasks.clean, environments.ps, eject.eject, snapshots.clone,
    )  # fmt: skip
    namespace = Collection(*own)
    namespace.add_collection(cluster.namespace)
    namespace.add_collection(hosts.namespace)
    namespace.add_collection(snapshots.namespace)
    return namespace
