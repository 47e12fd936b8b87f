"""The tasks of `invoke cluster.…`: a sharded cluster or any other deployment of several nodes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context

from provision.cli.command import JSON, ON_CLUSTER, agreed, command, load, ready, running, show_up
from provision.cli.numeric_flags import Amount, Count

if TYPE_CHECKING:
    from provision.deployments.deployment import Deployment
    from provision.settings.loading import Loaded

_NODES = {"node": "which node; several with commas between"}


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
        **JSON,
    }
)
def up(
    ctx: Context,
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
    json: bool = False,
) -> None:
    """Bring a cluster up, or make it what the settings and flags say. Flags hold for the later commands on it.

    A cluster that runs already is left as it is. What more is asked for is added; what less, is named.
    """
    from provision.cli import display
    from provision.cli.progress import UpProgress
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
    loaded = load(ctx)
    loaded.deployment(on)  # a flag must not make a deployment out of a mistyped name
    if typed:
        loaded = load(
            ctx, given={f"deployments.{on}.{key}": (flag, flags[key]) for key, flag in typed.items()}
        )
    if dry_run:
        from provision.cli.hosts import show_plan

        show_plan(loaded, on, json)
        return
    deployment = ready(loaded, on)
    with UpProgress.of(deployment, quiet=json) as progress:
        done = cluster.up(
            loaded,
            on,
            {key: f"{flag} {flags[key]}" for key, flag in typed.items()},
            progress.say,
            progress.reached,
            wait == "healthy",
        )
    if wait == "writable" and len(deployment.topology.nodes) > 1 and not json:
        log = loaded.paths.finishing_log(on).relative_to(loaded.paths.root)
        display.note(f"It takes writes. What is left is done in the background and logged in {log}.")
    show_up(done, timings, json)


@command(
    help={
        "delete-data": "delete the data, too, and forget the flags of `cluster.up`; asks first",
        "yes": "don't ask",
        **ON_CLUSTER,
        **JSON,
    }
)
def down(
    ctx: Context, on: str = "cluster", delete_data: bool = False, yes: bool = False, json: bool = False
) -> None:
    """Stop a cluster and remove its containers and network, or its app on hosts. Data stay, unless --delete-data."""
    from provision.app.deploy.rollout import taken_down
    from provision.cli import display
    from provision.deployments import assembly

    loaded = load(ctx)
    deployment = assembly.deployment(loaded, on)
    if delete_data and not agreed(f"Delete all data of {on}?", f"deleting the data of {on}", yes):
        display.line("Nothing was deleted.")
        return
    app_stays = taken_down(loaded, on)
    stopped = deployment.down(display.note, remove=True, delete_data=delete_data)
    if app_stays is not None:
        raise app_stays
    if json:
        display.as_json({"deployment": on, "stopped": stopped, "data_deleted": delete_data})
        return
    display.line(f"{on}: stopped {', '.join(stopped)}" if stopped else f"{on}: was not running")
    if delete_data:
        display.line(f"{on}: its data are deleted")


@command(only_prints=True, help={**ON_CLUSTER, **JSON})
def status(ctx: Context, on: str = "cluster", json: bool = False) -> None:
    """Show every node's role, state, lag, memory, port and version; shards, chunks and balancer."""
    from provision.cli import display
    from provision.deployments import assembly

    found = assembly.deployment(load(ctx), on).status().as_json()
    if json:
        display.as_json(found)
    else:
        display.status(found)


@command(
    only_prints=True,
    help={"collection": "database.collection (default: every sharded one)", **ON_CLUSTER, **JSON},
    positional=["collection"],
)
def distribution(
    ctx: Context, collection: str | None = None, on: str = "cluster", json: bool = False
) -> None:
    """Show documents, bytes and chunks of collections on each shard."""
    from provision.cli import display
    from provision.deployments import cluster

    found = cluster.distribution(_running(ctx, on, "reading the distribution of"), collection or "")
    if json:
        display.as_json({"deployment": on, "collections": found})
    else:
        display.distribution(found)


@command(
    help={
        "collection": "database.collection",
        "key": "the shard key: '_id:hashed', 'country:1,_id:1'",
        "unique": "the key is unique; not with a hashed one",
        "chunks": "initial chunks of a hashed key on an empty collection",
        **ON_CLUSTER,
        **JSON,
    }
)
def shard_collection(
    ctx: Context,
    collection: str,
    key: str = "",
    unique: bool = False,
    chunks: Count | None = None,
    on: str = "cluster",
    json: bool = False,
) -> None:
    """Shard a collection. One that has documents gets the index that the key needs."""
    from provision.cli import display
    from provision.deployments import cluster
    from provision.mongodb.sharding import ShardedCollection

    wanted = ShardedCollection(collection, cluster.parse_key(key), unique, chunks)
    changed = cluster.shard_collection(_running(ctx, on, f"sharding {collection} of"), wanted)
    if json:
        display.as_json({"collection": collection, "key": dict(wanted.key), "changed": changed})
    else:
        display.line(f"{collection}: {'is sharded now' if changed else 'was sharded by this key already'}")


@command(help={"timings": "show what was reached when", **ON_CLUSTER, **JSON})
def add_shard(ctx: Context, on: str = "cluster", timings: bool = False, json: bool = False) -> None:
    """Add one more shard, with as many members as the others have."""
    from provision.cli.progress import UpProgress
    from provision.deployments import cluster

    loaded = load(ctx)
    deployment = ready(loaded, on)
    with UpProgress.of(deployment, quiet=json) as progress:
        done = cluster.add_shard(loaded, on, progress.say, progress.reached)
    show_up(done, timings, json)


@command(help={"shard": "its name: shard2", "yes": "don't ask", **ON_CLUSTER, **JSON})
def remove_shard(
    ctx: Context, shard: str, on: str = "cluster", yes: bool = False, json: bool = False
) -> None:
    """Move a shard's data to the others, take it out of the cluster, and delete its nodes; asks first.

    Ctrl-C ends the watching, not the draining: typed again, it goes on where it was.
    """
    from provision.cli import display
    from provision.deployments import cluster

    loaded = load(ctx)
    doing = f"removing shard {shard} from {on}"
    _running(ctx, on, doing)
    question = f"Move the data of {shard} to the other shards, then delete its nodes?"
    if not agreed(question, doing, yes):
        _tell_removed(on, None, json)
        return
    cluster.remove_shard(loaded, on, shard, display.note)
    _tell_removed(on, shard, json)


@command(help={"router": "its name: router-2", **ON_CLUSTER, **JSON})
def remove_router(ctx: Context, router: str, on: str = "cluster", json: bool = False) -> None:
    """Stop and remove the last router. Routers hold no data."""
    from provision.cli import display
    from provision.deployments import cluster

    cluster.remove_router(load(ctx), on, router, display.note)
    _tell_removed(on, router, json)


@command(help={**_NODES, **ON_CLUSTER, **JSON})
def start(ctx: Context, node: str, on: str = "cluster", json: bool = False) -> None:
    """Start nodes that are down."""
    from provision.deployments import cluster

    deployment = ready(load(ctx), on)
    wanted = cluster.nodes(deployment, node)
    _tell(on, wanted, cluster.start(deployment, wanted), "started", "was running", json)


@command(help={**_NODES, **ON_CLUSTER, **JSON})
def stop(ctx: Context, node: str, on: str = "cluster", json: bool = False) -> None:
    """Stop nodes. A primary hands over to another member first."""
    from provision.cli import display
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(load(ctx), on)
    wanted = cluster.nodes(deployment, node)
    _tell(on, wanted, cluster.stop(deployment, wanted, display.note), "stopped", "was not running", json)


@command(
    help={
        "node": "which node; several with commas between (default, with --rolling: all)",
        "rolling": "one after another, each waited for, primaries last: the deployment goes on serving",
        "yes": "go on although what has one member, or one router, is unavailable for a moment",
        **ON_CLUSTER,
        **JSON,
    },
    positional=["node"],
)
def restart(
    ctx: Context,
    node: str | None = None,
    rolling: bool = False,
    yes: bool = False,
    on: str = "cluster",
    json: bool = False,
) -> None:
    """Stop nodes, and start them with the settings as they are now.

    With --rolling a node is stopped only while its set has a majority without it. Interrupted, typed again it goes on.
    """
    from provision.cli import display
    from provision.core.errors import ProvisionError
    from provision.deployments import cluster

    loaded = load(ctx)
    deployment = ready(loaded, on)
    if rolling:
        _restart_rolling(loaded, on, node, yes, json)
        return
    if not node:
        raise ProvisionError(
            f"restarting nodes of {on}",
            "No node is named.",
            f"Name one ({', '.join(each.name for each in deployment.topology.nodes)}), or add --rolling for all of them.",
        )
    wanted = cluster.nodes(deployment, node)
    cluster.stop(deployment, wanted, (lambda _: None) if json else display.note)
    _tell(on, wanted, cluster.start(deployment, wanted), "restarted", "was running", json)


def _restart_rolling(loaded: Loaded, on: str, node: str | None, yes: bool, json: bool) -> None:
    from dataclasses import asdict

    from provision.cli import display
    from provision.deployments import assembly, cluster, rolling

    names = [each.name for each in cluster.nodes(assembly.deployment(loaded, on), node)] if node else []
    again = f"invoke cluster.restart {f'{node} ' if node else ''}--rolling --on {on}"
    done = rolling.restart(loaded, on, names, (lambda _: None) if json else display.note, again, yes)
    if json:
        display.as_json(asdict(done))
    else:
        display.line(f"{on}: restarted {', '.join(done.restarted)}")


@command(
    help={
        "to": "a version (8.0.17), the path of a mongod, or, with docker, an image",
        "feature-compatibility": "raise the feature compatibility version when all nodes run it; there is no way back",
        "yes": "go on although what has one member, or one router, is unavailable for a moment",
        **ON_CLUSTER,
        **JSON,
    }
)
def upgrade(
    ctx: Context,
    to: str | None = None,
    feature_compatibility: bool = False,
    yes: bool = False,
    on: str = "cluster",
    json: bool = False,
) -> None:
    """Have every node run another version of MongoDB, one after another, while the deployment goes on serving.

    The version holds for the later commands on it. Interrupted, typed again it goes on with the nodes that are left.
    """
    from dataclasses import asdict

    from provision.cli import display
    from provision.core.errors import ProvisionError
    from provision.core.steps import Silent
    from provision.deployments import upgrade

    if to is None and not feature_compatibility:
        raise ProvisionError(
            f"upgrading {on}",
            "No version is named.",
            f"Name one: invoke cluster.upgrade --to 8.0.17 --on {on}",
        )
    loaded = load(ctx)
    ready(loaded, on)
    words = ["invoke cluster.upgrade", f"--to {to}" if to else "", f"--on {on}"]
    words.insert(2, "--feature-compatibility" if feature_compatibility else "")
    again = " ".join(word for word in words if word)
    say = (lambda _: None) if json else display.note
    with contextlib.nullcontext(Silent()) if json else display.counting("MongoDB") as progress:
        done = upgrade.upgrade(loaded, on, to, feature_compatibility, say, progress, again, yes)
    if json:
        display.as_json(asdict(done))
        return
    display.line(
        f"{on}: {', '.join(done.restarted)} run {done.version} now"
        if done.restarted
        else f"{on}: unchanged, all nodes run {done.version}"
    )
    display.line(
        f"{on}: its feature compatibility version is {done.feature_compatibility}"
        + (" now" if done.raised else "")
        + (
            ""
            if done.version.startswith(f"{done.feature_compatibility}.")
            else f": invoke cluster.upgrade --feature-compatibility --on {on} raises it, for good"
        )
    )


@command(help={**_NODES, **ON_CLUSTER, **JSON})
def kill(ctx: Context, node: str, on: str = "cluster", json: bool = False) -> None:
    """End nodes as a crash would (SIGKILL)."""
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(load(ctx), on)
    wanted = cluster.nodes(deployment, node)
    _tell(on, wanted, cluster.kill(deployment, wanted), "killed", "was not running", json)


@command(help={**_NODES, **ON_CLUSTER, **JSON})
def pause(ctx: Context, node: str, on: str = "cluster", json: bool = False) -> None:
    """Freeze nodes: they answer nothing and notice nothing, until `cluster.resume` or the next `cluster.up`."""
    _freeze(ctx, node, on, True, json)


@command(help={**_NODES, **ON_CLUSTER, **JSON})
def resume(ctx: Context, node: str, on: str = "cluster", json: bool = False) -> None:
    """Let paused nodes go on."""
    _freeze(ctx, node, on, False, json)


@command(help={**_NODES, **ON_CLUSTER, **JSON})
def isolate(ctx: Context, node: str, on: str = "cluster", json: bool = False) -> None:
    """Cut nodes off their network (Docker), until `cluster.heal` or the next `cluster.up`."""
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(load(ctx), on)
    wanted = cluster.nodes(deployment, node)
    _tell(on, wanted, cluster.isolate(deployment, wanted, True), "cut off", "was cut off", json)


@command(
    help={"node": "which node (default: all that are cut off)", **ON_CLUSTER, **JSON}, positional=["node"]
)
def heal(ctx: Context, node: str | None = None, on: str = "cluster", json: bool = False) -> None:
    """Connect nodes again that were cut off."""
    from provision.cli import display
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(load(ctx), on)
    wanted = cluster.nodes(deployment, node) if node else deployment.running(deployment.topology.nodes)
    healed = cluster.isolate(deployment, wanted, False)
    if json:
        display.as_json({"deployment": on, "connected": healed})
    else:
        display.line("\n".join(f"{name}: connected" for name in healed) or "No node was cut off.")


@command(help={"set": "the replica set: shard1, config", **ON_CLUSTER, **JSON})
def stepdown(ctx: Context, set: str, on: str = "cluster", json: bool = False) -> None:
    """Have the primary of a replica set step down, and name the new one."""
    from provision.cli import display
    from provision.deployments import cluster

    former, new = cluster.step_down(_running(ctx, on, f"stepping down the primary of {set} in"), set)
    if json:
        display.as_json({"deployment": on, "replica_set": set, "primary": new.name, "former": former.name})
    else:
        display.line(f"{set}: {new.name} is primary now, and {former.name} was")


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
    ctx: Context,
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
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(load(ctx), on)
    if not all and not node:
        raise ProvisionError(
            f"showing logs of {on}",
            "No node is named.",
            f"Name one ({', '.join(each.name for each in deployment.topology.nodes)}), or add --all.",
        )
    wanted = deployment.topology.nodes if all else cluster.nodes(deployment, node or "")
    tailing.show(deployment, wanted, lines, follow, raw)


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
    ctx: Context, node: str | None = None, eval: str = "", python: bool = False, on: str = "cluster"
) -> None:
    """Open a prompt on the cluster, or on one node: mongosh where it is installed, else Python."""
    from provision.cli.clients import open_shell

    open_shell(ctx, on, node or "", eval, python)


def _running(ctx: Context, on: str, doing: str) -> Deployment:
    return running(load(ctx), on, f"{doing} {on}" if not doing.endswith(on) else doing)


def _freeze(ctx: Context, node: str, on: str, paused: bool, json: bool) -> None:
    from provision.cli import display
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(load(ctx), on)
    done = []
    for each in cluster.nodes(deployment, node):
        deployment.backend.pause(each, paused)
        done.append(each.name)
        if not json:
            display.line(f"{each.name}: {'paused' if paused else 'goes on'}")
    if json:
        display.as_json({"deployment": on, "paused" if paused else "resumed": done})


def _tell_removed(on: str, removed: str | None, json: bool) -> None:
    from provision.cli import display

    if json:
        display.as_json({"deployment": on, "removed": removed})
    else:
        display.line(f"{removed}: removed from {on}" if removed else "Nothing was changed.")


def _tell(on: str, wanted: Any, changed: list[str], done: str, otherwise: str, json: bool) -> None:
    from provision.cli import display

    if json:
        display.as_json({"deployment": on, done.replace(" ", "_"): changed})
        return
    for node in wanted:
        display.line(f"{node.name}: {done if node.name in changed else otherwise}")


namespace = Collection(
    "cluster", up, down, status, distribution, shard_collection, add_shard, remove_shard, remove_router, start, stop,
    restart, upgrade, kill, pause, resume, isolate, heal, stepdown, logs, shell,
)  # fmt: skip
