"""What `run` does about the project's seeds where the app's database is empty."""

from __future__ import annotations

from collections.abc import Callable

from provision.core.errors import ProvisionError
from provision.core.locks import exclusive
from provision.core.steps import Silent
from provision.data.program import AppProgram
from provision.data.seeds import files
from provision.deployments.deployment import Deployment
from provision.mongodb.wire import CommandFailed, NotReachable
from provision.settings.loading import Loaded


def on_run(loaded: Loaded, deployment: Deployment, program: AppProgram, say: Callable[[str], None]) -> None:
    """Apply the seeds to an empty database, if `seeds.on_run` asks for that; else say which command does.

    Raises ProvisionError: a seed that was asked for is wrong.
    """
    settings, database = loaded.settings.seeds, loaded.settings.app.database
    folder = loaded.paths.under_root(settings.dir)
    if not folder.is_dir() or not _is_empty(deployment, database):
        return
    try:
        found = files.find(folder, loaded.paths.root)
    except ProvisionError:
        if settings.on_run:
            raise
        return  # `seed` tells what is wrong there
    if not found:
        return
    if not settings.on_run:
        say(f"The database {database} is empty. `invoke seed` fills it from {settings.dir}.")
        return
    from provision.data.seeds import applying

    target = applying.Target(deployment, database, loaded.paths.state)
    with exclusive(loaded.paths.lock(f"seeds-{deployment.name}"), f"seeding {deployment.name}", say):
        done = applying.apply(target, found, lambda: program, False, say, Silent())
    applied = sum(each.state == "applied" for each in done)
    say(f"The database {database} was empty. Applied {settings.dir}: {applied} of {len(done)} files.")


def _is_empty(deployment: Deployment, database: str) -> bool:
    """Whether the app's database has no collection; False where nobody can tell.

    A collection that `up` has sharded is there, and may be empty.
    """
    nodes = deployment.topology.seeds
    node = nodes[0] if deployment.topology.is_sharded or len(nodes) == 1 else deployment.primary(nodes)
    if node is None:
        return False
    sharded = {each.namespace for each in deployment.collections}
    try:
        with deployment.dial(node) as connection:
            answer = connection.command(database, {"listCollections": 1, "nameOnly": True})
            names = [str(each["name"]) for each in answer["cursor"]["firstBatch"]]
            if any(f"{database}.{name}" not in sharded for name in names):
                return False
            return not any(
                connection.command(database, {"find": name, "limit": 1})["cursor"]["firstBatch"]
                for name in names
            )
    except (NotReachable, CommandFailed):
        return False
