"""The tasks of `invoke cluster.…`: a sharded cluster or any other deployment of several nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from invoke.collection import Collection

from provision.cli.command import ON_CLUSTER, agreed, brought_up, command
from provision.cli.numeric_flags import Amount, Count

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.deployments.rolling import Rolled
    from provision.deployments.status import Status
    from provision.deployments.upgrade import Upgraded
    from provision.hosts.placement import Placed
    from provision.mongodb.topology import Node

_NODES = {"node": "which node; several with commas between"}
_Data = TypeVar("_Data")


@command(
    help={
        "topology": "single, replica-set or sharded",
        "backend": "docker or processes",
        "port": "first port",
        "shards": "number of shards",
        "members": "data-bearing members of each shard or replica set",
        "arbiters": "arbiters of each shard or replica set: 0 or 1",
        "config-servers": "number of config servers",
        "routers": "number of routers",
        "wait": "return when it is `healthy` (default), or as soon as it is `writable`",
        "dry-run": "show which nodes there would be, and where; change nothing",
        "timings": "show what was reached when, and what the whole waited for",
        **ON_CLUSTER,
    }
)
def up(
    session: Session,
    on: str = "cluster",
    shards: int | None = None,
    members: int | None = None,
    arbiters: int | None = None,
    config_servers: int | None = None,
    routers: int | None = None,
    backend: str | None = None,
    topology: str | None = None,
    port: int | None = None,
    wait: str = "healthy",
    dry_run: bool = False,
    timings: bool = False,
) -> Result[shapes.BroughtUp | list[Placed]]:
    """Bring a cluster up, or make it what the settings and flags say. Flags hold for the later commands on it.

    A cluster that runs already stays as it is. If you ask for more nodes, they are added. If you ask for fewer, the
    command names what is left over and how to remove it.
    """
    from provision.cli import interrupts
    from provision.cli.progress import UpProgress
    from provision.cli.worktrees import beginning
    from provision.core.errors import ProvisionError
    from provision.deployments import cluster

    if wait not in ("healthy", "writable"):
        raise ProvisionError(
            f"bringing up {on}", f"--wait {wait} is not known.", "Wait until it is healthy, or writable."
        )
    flags = {
        "topology": topology, "backend": backend, "port": port, "shards": shards, "members": members,
        "arbiters": arbiters, "config_servers": config_servers, "routers": routers,
    }  # fmt: skip
    typed = {key: f"--{key.replace('_', '-')}" for key, value in flags.items() if value is not None}
    loaded = session.load({f"deployments.{on}.{key}": (flag, flags[key]) for key, flag in typed.items()})
    if dry_run:
        from provision.cli.hosts import planned

        return planned(session, on)
    first = beginning(session, on)
    deployment = session.ready(on)
    with UpProgress.of(deployment, session.quiet) as progress:
        first.put_in_place(deployment, progress.say)
        done = cluster.up(
            loaded,
            on,
            {key: f"{flag} {flags[key]}" for key, flag in typed.items()},
            progress.say,
            progress.reached,
            wait == "healthy",
            interrupts.end_here,
        )
    if wait == "writable" and len(deployment.topology.nodes) > 1:
        log = loaded.paths.finishing_log(on).relative_to(loaded.paths.root)
        session.say(f"It takes writes. What is left is done in the background and logged in {log}.")
    return brought_up(done, timings, first.hint)


@command(help={"timings": "show what was reached when", **ON_CLUSTER})
def wait(session: Session, on: str = "cluster", timings: bool = False) -> Result[shapes.BroughtUp]:
    """Wait until every node of a running cluster is healthy, and finish what `cluster.up --wait writable` has left."""
    from provision.cli.progress import UpProgress
    from provision.core.errors import ProvisionError
    from provision.deployments import cluster, finishing

    deployment = session.deployment(on)
    if not deployment.running(deployment.topology.seeds):
        raise cluster.not_running(deployment, f"waiting for {on}")
    ended = deployment.look(deployment.topology.nodes).ended
    if ended and not finishing.holds_lock(on):
        names = ",".join(node.name for node in ended)
        raise ProvisionError(
            f"waiting for {on}", f"{names}: not running.", f"Start it: invoke cluster.start {names} --on {on}"
        )
    with UpProgress.of(deployment, session.quiet) as progress:
        progress.say(f"Waiting until every node of {on} is healthy")
        return brought_up(
            deployment.up(progress.say, progress.reached, holding=finishing.holds_lock(on)), timings
        )


@command(
    help={
        "delete-data": "delete the data, too, and forget the flags of `cluster.up`; asks first",
        "yes": "don't ask",
        **ON_CLUSTER,
    }
)
def down(
    session: Session, on: str = "cluster", delete_data: bool = False, yes: bool = False
) -> Result[shapes.TakenDown]:
    """Stop a cluster and remove its containers and network, or its app on hosts. Data stay, unless --delete-data."""
    from provision.app.deploy.rollout import taken_down
    from provision.cli import display, shapes
    from provision.cli.result import Result

    deployment = session.deployment(on)
    if delete_data and not agreed(f"Delete all data of {on}?", f"deleting the data of {on}", yes):
        return Result(shapes.TakenDown(on, [], False), lambda: display.line("Nothing was deleted."))
    app_stays = taken_down(session.loaded, on)
    stopped = list(deployment.down(session.say, remove=True, delete_data=delete_data))
    if app_stays is not None:
        raise app_stays

    def show() -> None:
        display.line(f"{on}: stopped {', '.join(stopped)}" if stopped else f"{on}: was not running")
        if delete_data:
            display.line(f"{on}: its data are deleted")

    return Result(shapes.TakenDown(on, stopped, delete_data), show)


@command(only_prints=True, help=ON_CLUSTER)
def status(session: Session, on: str = "cluster") -> Result[Status]:
    """Show every node's role, state, lag, memory, port and version; shards, chunks and balancer."""
    from provision.cli.display import show_status

    return show_status(session.deployment(on).status())


@command(
    only_prints=True,
    help={"collection": "database.collection (default: every sharded one)", **ON_CLUSTER},
    positional=["collection"],
)
def distribution(
    session: Session, collection: str | None = None, on: str = "cluster"
) -> Result[shapes.Distribution]:
    """Show documents, bytes and chunks of collections on each shard."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.deployments import cluster

    deployment = session.running(on, f"reading the distribution of {on}")
    found = cluster.distribution(deployment, collection or "")
    return Result(shapes.Distribution(on, found), lambda: display.distribution(found))


@command(
    help={
        "collection": "database.collection",
        "key": "the shard key: '_id:hashed', 'country:1,_id:1'",
        "unique": "the key is unique; not with a hashed one",
        "chunks": "initial chunks of a hashed key on an empty collection",
        **ON_CLUSTER,
    }
)
def shard_collection(
    session: Session,
    collection: str,
    key: str = "",
    unique: bool = False,
    chunks: Count | None = None,
    on: str = "cluster",
) -> Result[shapes.Sharded]:
    """Shard a collection. One that has documents gets the index that the key needs."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.deployments import cluster
    from provision.mongodb.sharding import ShardedCollection

    wanted = ShardedCollection(collection, cluster.parse_key(key), unique, chunks)
    changed = cluster.shard_collection(session.running(on, f"sharding {collection} of {on}"), wanted)
    text = f"{collection}: {'is sharded now' if changed else 'was sharded by this key already'}"
    return Result(shapes.Sharded(collection, dict(wanted.key), changed), lambda: display.line(text))


@command(help={"timings": "show what was reached when", **ON_CLUSTER})
def add_shard(session: Session, on: str = "cluster", timings: bool = False) -> Result[shapes.BroughtUp]:
    """Add one more shard, with as many members as the others have."""
    from provision.cli import interrupts
    from provision.cli.progress import UpProgress
    from provision.deployments import cluster

    deployment = session.ready(on)
    with UpProgress.of(deployment, session.quiet) as progress:
        done = cluster.add_shard(session.loaded, on, progress.say, progress.reached, interrupts.end_here)
        return brought_up(done, timings)


@command(help={"shard": "its name: shard2", "yes": "don't ask", **ON_CLUSTER})
def remove_shard(
    session: Session, shard: str, on: str = "cluster", yes: bool = False
) -> Result[shapes.Removed]:
    """Move a shard's data to the others, take it out of the cluster, and delete its nodes; asks first.

    Ctrl-C ends the watching, not the draining: typed again, it goes on where it was.
    """
    from provision.deployments import cluster

    doing = f"removing shard {shard} from {on}"
    session.running(on, doing)
    question = f"Move the data of {shard} to the other shards, then delete its nodes?"
    if not agreed(question, doing, yes):
        return _removed(on, None)
    cluster.remove_shard(session.loaded, on, shard, session.say)
    return _removed(on, shard)


@command(help={"router": "its name: router-2", **ON_CLUSTER})
def remove_router(session: Session, router: str, on: str = "cluster") -> Result[shapes.Removed]:
    """Stop and remove the last router. Routers hold no data."""
    from provision.deployments import cluster

    cluster.remove_router(session.loaded, on, router, session.say)
    return _removed(on, router)


@command(help={**_NODES, **ON_CLUSTER})
def start(session: Session, node: str, on: str = "cluster") -> Result[shapes.Started]:
    """Start nodes that are down."""
    from provision.cli import shapes
    from provision.deployments import cluster

    deployment = session.ready(on)
    nodes = cluster.nodes(deployment, node)
    started = cluster.start(deployment, nodes)
    return _of_nodes(shapes.Started, on, nodes, started, "started", "was running")


@command(help={**_NODES, **ON_CLUSTER})
def stop(session: Session, node: str, on: str = "cluster") -> Result[shapes.Stopped]:
    """Stop nodes. A primary hands over to another member first."""
    from provision.cli import shapes
    from provision.deployments import cluster

    deployment = session.deployment(on)
    nodes = cluster.nodes(deployment, node)
    stopped = cluster.stop(deployment, nodes, session.say)
    return _of_nodes(shapes.Stopped, on, nodes, stopped, "stopped", "was not running")


@command(
    help={
        "node": "which node; several with commas between (default, with --rolling: all)",
        "rolling": "one after another, each waited for, primaries last: the deployment goes on serving",
        "yes": "go on, although a set of one member or the only router is unavailable for a moment",
        **ON_CLUSTER,
    },
    positional=["node"],
)
def restart(
    session: Session,
    node: str | None = None,
    rolling: bool = False,
    yes: bool = False,
    on: str = "cluster",
) -> Result[shapes.Restarted | Rolled]:
    """Stop nodes, and start them with the settings as they are now.

    With --rolling a node is stopped only while its set has a majority without it. Interrupted, typed again it goes on.
    """
    from provision.cli import shapes
    from provision.core.errors import ProvisionError
    from provision.deployments import cluster

    deployment = session.ready(on)
    if rolling:
        return _restart_rolling(session, on, node, yes)
    if not node:
        raise ProvisionError(
            f"restarting nodes of {on}",
            "You named no node.",
            f"Name one ({', '.join(each.name for each in deployment.topology.nodes)}), or add --rolling for all of them.",
        )
    nodes = cluster.nodes(deployment, node)
    cluster.stop(deployment, nodes, session.say)
    restarted = cluster.start(deployment, nodes)
    return _of_nodes(shapes.Restarted, on, nodes, restarted, "restarted", "was running")


def _restart_rolling(session: Session, on: str, node: str | None, yes: bool) -> Result[Rolled]:
    from provision.cli import display
    from provision.cli.result import Result
    from provision.deployments import cluster, rolling

    names = [each.name for each in cluster.nodes(session.deployment(on), node)] if node else []
    again = f"invoke cluster.restart {f'{node} ' if node else ''}--rolling --on {on}"
    done = rolling.restart(session.loaded, on, names, session.say, again, yes)
    return Result(done, lambda: display.line(f"{on}: restarted {', '.join(done.restarted)}"))


@command(
    help={
        "to": "a version (8.0.17), the path of a mongod, or, with docker, an image",
        "feature-compatibility": "raise the feature compatibility version when all nodes run it; there is no way back",
        "yes": "go on, although a set of one member or the only router is unavailable for a moment",
        **ON_CLUSTER,
    }
)
def upgrade(
    session: Session,
    to: str | None = None,
    feature_compatibility: bool = False,
    yes: bool = False,
    on: str = "cluster",
) -> Result[Upgraded]:
    """Have every node run another version of MongoDB, one after another, while the deployment goes on serving.

    The version holds for the later commands on it. Interrupted, typed again it goes on with the nodes that are left.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.core.errors import ProvisionError
    from provision.core.steps import Silent
    from provision.deployments import upgrade

    if to is None and not feature_compatibility:
        raise ProvisionError(
            f"upgrading {on}",
            "You named no version.",
            f"Name one: invoke cluster.upgrade --to 8.0.17 --on {on}",
        )
    session.ready(on)
    words = ["invoke cluster.upgrade", f"--to {to}" if to else "", f"--on {on}"]
    words.insert(2, "--feature-compatibility" if feature_compatibility else "")
    again = " ".join(word for word in words if word)
    with contextlib.nullcontext(Silent()) if session.quiet else display.counting("MongoDB") as progress:
        done = upgrade.upgrade(
            session.loaded, on, to, feature_compatibility, session.say, progress, again, yes
        )
    return Result(done, lambda: display.upgraded(done))


@command(help={**_NODES, **ON_CLUSTER})
def kill(session: Session, node: str, on: str = "cluster") -> Result[shapes.Killed]:
    """End nodes as a crash would (SIGKILL)."""
    from provision.cli import shapes
    from provision.deployments import cluster

    deployment = session.deployment(on)
    nodes = cluster.nodes(deployment, node)
    killed = cluster.kill(deployment, nodes)
    return _of_nodes(shapes.Killed, on, nodes, killed, "killed", "was not running")


@command(help={**_NODES, **ON_CLUSTER})
def pause(session: Session, node: str, on: str = "cluster") -> Result[shapes.Paused]:
    """Freeze nodes: they answer nothing and notice nothing, until `cluster.resume` or the next `cluster.up`."""
    from provision.cli import shapes
    from provision.deployments import cluster

    deployment = session.deployment(on)
    nodes = cluster.nodes(deployment, node)
    paused = cluster.pause(deployment, nodes, True)
    return _of_nodes(shapes.Paused, on, nodes, paused, "paused", "paused")


@command(help={**_NODES, **ON_CLUSTER})
def resume(session: Session, node: str, on: str = "cluster") -> Result[shapes.Resumed]:
    """Let paused nodes go on."""
    from provision.cli import shapes
    from provision.deployments import cluster

    deployment = session.deployment(on)
    nodes = cluster.nodes(deployment, node)
    resumed = cluster.pause(deployment, nodes, False)
    return _of_nodes(shapes.Resumed, on, nodes, resumed, "goes on", "goes on")


@command(help={**_NODES, **ON_CLUSTER})
def isolate(session: Session, node: str, on: str = "cluster") -> Result[shapes.CutOff]:
    """Cut nodes off their network (Docker), until `cluster.heal` or the next `cluster.up`."""
    from provision.cli import shapes
    from provision.deployments import cluster

    deployment = session.deployment(on)
    nodes = cluster.nodes(deployment, node)
    cut_off = cluster.isolate(deployment, nodes, True)
    return _of_nodes(shapes.CutOff, on, nodes, cut_off, "cut off", "was cut off")


@command(help={"node": "which node (default: all that are cut off)", **ON_CLUSTER}, positional=["node"])
def heal(session: Session, node: str | None = None, on: str = "cluster") -> Result[shapes.Connected]:
    """Connect nodes again that were cut off."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.deployments import cluster

    deployment = session.deployment(on)
    nodes = cluster.nodes(deployment, node) if node else deployment.running(deployment.topology.nodes)
    healed = cluster.isolate(deployment, nodes, False)
    text = "\n".join(f"{name}: connected" for name in healed) or "No node was cut off."
    return Result(shapes.Connected(on, healed), lambda: display.line(text))


@command(help={"set": "the replica set: shard1, config", **ON_CLUSTER})
def stepdown(session: Session, set: str, on: str = "cluster") -> Result[shapes.SteppedDown]:
    """Have the primary of a replica set step down, and name the new one."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.deployments import cluster

    deployment = session.running(on, f"stepping down the primary of {set} in {on}")
    former, new = cluster.step_down(deployment, set)
    text = f"{set}: {new.name} is primary now, and {former.name} was"
    return Result(shapes.SteppedDown(on, set, new.name, former.name), lambda: display.line(text))


@command(
    only_prints=True,
    help={
        "node": "which node; several with commas between",
        "all": "every node, merged by time",
        "follow": "go on with each new line",
        "lines": "how many of the last lines of each",
        "raw": "JSON, as it is (one node)",
        **ON_CLUSTER,
    },
    positional=["node"],
)
def logs(
    session: Session,
    node: str | None = None,
    all: bool = False,
    follow: bool = False,
    lines: Amount = 50,
    raw: bool = False,
    on: str = "cluster",
) -> None:
    """Show the log of a node, or of several, merged by time."""
    from provision.cli import tailing
    from provision.core.errors import ProvisionError
    from provision.deployments import cluster

    deployment = session.deployment(on)
    if not all and not node:
        raise ProvisionError(
            f"showing logs of {on}",
            "You named no node.",
            f"Name one ({', '.join(each.name for each in deployment.topology.nodes)}), or add --all.",
        )
    nodes = deployment.topology.nodes if all else cluster.nodes(deployment, node or "")
    tailing.show(deployment, nodes, lines, follow, raw)


@command(
    help={
        "node": "connect to this node alone (default: as clients do)",
        "eval": "evaluate this, print its value, and leave",
        "python": "Python even where mongosh is installed",
        **ON_CLUSTER,
    },
    positional=["node"],
)
def shell(
    session: Session, node: str | None = None, eval: str = "", python: bool = False, on: str = "cluster"
) -> None:
    """Open a prompt on the cluster, or on one node: mongosh where it is installed, else Python."""
    from provision.cli.clients import open_shell

    open_shell(session, on, node or "", eval, python)


def _removed(on: str, removed: str | None) -> Result[shapes.Removed]:
    from provision.cli import display, shapes
    from provision.cli.result import Result

    text = f"{removed}: removed from {on}" if removed else "Nothing was changed."
    return Result(shapes.Removed(on, removed), lambda: display.line(text))


def _of_nodes(
    shape: Callable[[str, list[str]], _Data],
    on: str,
    nodes: Sequence[Node],
    changed: list[str],
    done: str,
    otherwise: str,
) -> Result[_Data]:
    """The result of what was done to nodes: those that it changed, and for people a line for each."""
    from provision.cli import display
    from provision.cli.result import Result

    def show() -> None:
        for node in nodes:
            display.line(f"{node.name}: {done if node.name in changed else otherwise}")

    return Result(shape(on, changed), show)


namespace = Collection(
    "cluster", up, wait, down, status, distribution, shard_collection, add_shard, remove_shard, remove_router, start, stop,
    restart, upgrade, kill, pause, resume, isolate, heal, stepdown, logs, shell,
)  # fmt: skip
