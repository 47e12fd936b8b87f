"""The tasks that fill the app's database: seeds, people in bulk, and a database as new."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from provision.cli.command import ON, agreed, command
from provision.cli.numeric_flags import Amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.data.seeds.applying import SeedResult, Target
    from provision.data.seeds.files import Seed
    from provision.deployments.deployment import Deployment

_USUAL_PEOPLE = 1000
_USUAL_SEED = 1


@command(
    help={
        "users": "insert this many people of flaskbook, the example app (default without a folder of seeds: 1000)",
        "drop": "with people: drop those that are there first",
        "seed": "with people: which ones; the same number gives the same ones",
        "yes": "with --drop: don't ask",
        "force": "apply all seeds, also those that the database has",
        **ON,
    }
)
def seed(
    session: Session,
    users: Amount | None = None,
    on: str = "local",
    drop: bool = False,
    seed: int = _USUAL_SEED,
    yes: bool = False,
    force: bool = False,
) -> Result[shapes.Seeded | shapes.SeedsApplied | None]:
    """Apply the project's seeds to the app's database: the files in seeds/, in order.

    Each file is applied once: `seed` applies a file again when it has changed. 10-users.ndjson fills the collection
    `users`; .json, .ndjson, .csv and .bson are data, .py and .js are programs. docs/seeds.md describes them.

    With --users, or where there are no seeds, it inserts realistic people for flaskbook; on a sharded cluster it shows
    how they are spread.
    """
    from provision.core.errors import ProvisionError

    people = users is not None or drop or seed != _USUAL_SEED
    if force and people:
        raise ProvisionError(
            f"seeding {on}",
            "--force is for the project's seeds, and --users, --drop and --seed are for people.",
            "Type one of them: invoke seed --force, or invoke seed --users 1000",
        )
    if force or (not people and _folder_is_there(session)):
        return _seeds(session, on, force)
    return _people(session, _USUAL_PEOPLE if users is None else users, on, drop, seed, yes)


@command(
    help={
        "yes": "don't ask before the database is dropped",
        "fresh": "drop, migrate and seed, also where a kept database could be put back",
        **ON,
    }
)
def reset(
    session: Session, on: str = "local", yes: bool = False, fresh: bool = False
) -> Result[shapes.Reset]:
    """Make the app's database as new: drop it, run the migrations (app.migrate), apply the seeds.

    The first reset keeps the result. The next one puts it back, which takes a fraction of the time; it begins anew when
    a seed or a migration has changed. A running app goes on. Other databases are not touched.
    """
    from provision.app import launch
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.core.locks import exclusive
    from provision.data import reset as resetting

    settings = session.loaded.settings.app
    doing = f"resetting {settings.database} of {on}"
    deployment = session.running(on, doing)
    found, target = _found(session), _target(session, deployment)
    migration = resetting.Migration.of(
        settings.migrate, settings.migrations, launch.directory(session.loaded)
    )
    question = f"Drop all data in {settings.database} of {on}?"
    if not agreed(question, doing, yes):
        nothing = shapes.Reset(False, on, settings.database, False, False, [], [], 0, [], 0.0)
        return Result(nothing, lambda: display.line("Nothing was changed."))
    with (
        exclusive(session.loaded.paths.lock(f"seeds-{on}"), f"seeding {on}", session.say),
        display.counting("documents") as progress,
    ):
        done = resetting.reset(
            target,
            session.loaded.paths.kept_databases(on),
            found,
            migration,
            lambda: launch.program(session.loaded, deployment, session.say),
            fresh,
            session.say,
            progress,
        )

    _end_at_once()
    data = shapes.Reset(
        True,
        on,
        settings.database,
        done.restored,
        done.migrated,
        list(done.collections),
        list(done.removed),
        done.documents,
        list(done.seeds),
        done.seconds,
    )
    return Result(data, lambda: _show_reset(data))


def _end_at_once() -> None:
    """Spare the command up to half a second at its end.

    PyMongo waits there for its threads, which look every half second whether a cursor is left to be closed. Their client
    is closed. A PyMongo that has no such wait by this name is left as it is.
    """
    import atexit

    wait = getattr(sys.modules.get("pymongo.synchronous.monitor"), "_shutdown_resources", None)
    if wait is not None:
        atexit.unregister(wait)


def _show_reset(done: shapes.Reset) -> None:
    from provision.cli import display

    _show_seeds(done.seeds)
    place = f"{done.database} of {done.deployment}"
    if not done.restored:
        collections = display.counted(len(done.collections), "collection")
        display.line(
            f"{place} is as new: {collections}, {display.counted(done.documents, 'document')}, "
            f"in {done.seconds:.2f} s. The next reset puts this back."
        )
        return
    written = (
        f"{', '.join(done.collections)} written again" if done.collections else "no collection had changed"
    )
    removed = f"; {', '.join(done.removed)} removed" if done.removed else ""
    display.line(f"{place} is as new: {written}{removed}, in {done.seconds:.2f} s.")


def _folder_is_there(session: Session) -> bool:
    return session.loaded.paths.under_root(session.loaded.settings.seeds.dir).is_dir()


def _found(session: Session) -> list[Seed]:
    from provision.data.seeds import files

    loaded = session.loaded
    return files.find(loaded.paths.under_root(loaded.settings.seeds.dir), loaded.paths.root)


def _target(session: Session, deployment: Deployment) -> Target:
    from provision.data.seeds.applying import Target

    loaded = session.loaded
    return Target(deployment, loaded.settings.app.database, loaded.paths.state)


def _seeds(session: Session, on: str, force: bool) -> Result[shapes.Seeded | shapes.SeedsApplied | None]:
    from provision.app import launch
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.core.errors import ProvisionError
    from provision.core.locks import exclusive
    from provision.data.seeds import applying

    loaded = session.loaded
    folder, database = loaded.settings.seeds.dir, loaded.settings.app.database
    found = _found(session)
    if not found:
        raise ProvisionError(
            f"seeding {database} of {on}",
            f"{folder} has no seeds."
            if _folder_is_there(session)
            else f"There is no folder {folder} in {loaded.paths.root}.",
            "Put files into it: 10-users.ndjson fills the collection `users`. People of flaskbook: invoke seed --users 1000",
        )
    deployment = session.running(on, f"seeding {on}")
    with (
        exclusive(loaded.paths.lock(f"seeds-{on}"), f"seeding {on}", session.say),
        display.counting("documents") as progress,
    ):
        done = applying.apply(
            _target(session, deployment),
            found,
            lambda: launch.program(loaded, deployment, session.say),
            force,
            session.say,
            progress,
        )
    return Result(shapes.SeedsApplied(on, database, done), lambda: _show_seeds(done))


def _show_seeds(done: Sequence[SeedResult]) -> None:
    from provision.cli import display

    width = max((len(each.file) for each in done), default=0)
    for each in done:
        counted = "" if each.documents is None else display.counted(each.documents, "document")
        into = f" into {each.collection}" if counted and each.collection else ""
        took = f"{' ' if counted else ''}in {each.seconds:.2f} s" if each.state == "applied" else ""
        why = f" ({each.why})" if each.why not in ("new", "") else ""
        word = display.paint(f"{each.state:<10}", "yellow" if each.state == "applied" else "green")
        display.line(f"{each.file:<{width}}  {word} {counted}{into}{took}{why}".rstrip())


def _people(
    session: Session, users: int, on: str, drop: bool, seed: int, yes: bool
) -> Result[shapes.Seeded | shapes.SeedsApplied | None]:
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.data import seed as seeding
    from provision.deployments import cluster

    database = session.loaded.settings.app.database
    deployment = session.running(on, f"seeding {on}")
    people = f"{database}.{seeding.COLLECTION} of {on}"
    if drop and not agreed(f"Drop all people in {people}?", f"dropping {people}", yes):
        return Result(None, lambda: display.line("Nothing was changed."))
    with display.counting("people") as progress:
        done = seeding.seed(deployment, database, users, seed, drop, progress)
    spread = cluster.distribution(deployment, done.namespace) if deployment.topology.is_sharded else None

    def show() -> None:
        display.line(
            f"{done.namespace}: {done.inserted:,} people in {done.seconds:.1f} s ({done.rate:,.0f} a second)"
        )
        if spread:
            display.line("")
            display.distribution(spread)

    shares = spread[done.namespace] if spread else None
    return Result(
        shapes.Seeded(
            on, done.namespace, done.inserted, done.dropped, done.seconds, round(done.rate, 1), shares
        ),
        show,
    )
