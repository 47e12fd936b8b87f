"""The tasks that bring data in and out: dump, load, pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import ON, agreed, command

if TYPE_CHECKING:
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.data.dumps.transfer import Dump, Load
    from provision.data.pulls.run import Pulled


@command(
    positional=["folder"],
    help={
        "folder": "where to; it must not exist, or be empty (default: dump)",
        "database": "this database alone (default: all but the server's own)",
        "only": "these collections alone, with commas between",
        "gzip": "compress each file",
        **ON,
    },
)
def dump(
    session: Session,
    folder: str | None = None,
    database: str = "",
    only: str = "",
    gzip: bool = False,
    on: str = "local",
) -> Result[Dump]:
    """Write databases into a folder, in mongodump's format: documents, indexes, options, views, time series.

    MongoDB's own tools are not needed. The folder appears when the dump is complete. Writers go on meanwhile, so
    the collections are not all of one moment, and users are not in it: for a whole deployment, use `invoke snapshot.save`.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.data.dumps import transfer

    target = Path(folder or "dump")
    deployment = session.running(on, f"dumping {on}")
    with display.counting("documents") as progress:
        done = transfer.dump(deployment, target, database, _names(only), gzip, progress)

    def show() -> None:
        rows = [(each.namespace, each.kind, f"{each.documents:,}") for each in done.collections]
        display.table(("COLLECTION", "KIND", "DOCUMENTS"), rows)
        size = sum(each.bytes for each in done.collections) / 1_000_000
        display.line(
            f"{done.folder}: {display.counted(done.documents, 'document')}, {size:,.1f} MB, in {done.seconds:.1f} s"
        )

    return Result(done, show)


@command(
    help={
        "folder": "a folder that was dumped into, or that of one database in it; or an archive of mongodump",
        "database": "this database of the dump alone (default: all in it)",
        "only": "these collections alone, with commas between",
        "into": "load into the database of this name (default: as it was called)",
        "drop": "drop collections of the same names first, after asking",
        "yes": "with --drop: don't ask",
        **ON,
    }
)
def load(
    session: Session,
    folder: str,
    database: str = "",
    only: str = "",
    into: str = "",
    drop: bool = False,
    yes: bool = False,
    on: str = "local",
) -> Result[Load | None]:
    """Load a dump that `invoke dump` or mongodump has written, plain or gzipped, with indexes and options.

    It inserts, and changes no document: one whose _id is there already is counted and left as it is, and the command
    then exits with 1. An archive file is loaded by MongoDB's own mongorestore, where that is installed.
    """
    from provision.cli import display
    from provision.cli.result import Result
    from provision.data.dumps import transfer

    source = Path(folder)
    planned = transfer.plan(source, database, _names(only), into)
    deployment = session.running(on, f"loading {source} into {on}")
    what = (
        f"{len(planned.collections)} collections" if planned.collections else "the collections of the archive"
    )
    if drop and not agreed(
        f"Drop {what} of {on}, where they are there, and load them again?", f"loading {source}", yes
    ):
        return Result(None, lambda: display.line("Nothing was changed."))
    with display.reading("loading") as progress:
        done = transfer.load(
            deployment, source, planned, database, _names(only), into, drop, progress, session.say
        )

    def show() -> None:
        rows = [
            (each.namespace, each.kind, f"{each.documents:,}", f"{each.duplicates:,}", str(each.indexes))
            for each in done.collections
        ]
        if rows:
            display.table(("COLLECTION", "KIND", "DOCUMENTS", "DUPLICATES", "INDEXES"), rows)
        for each in done.left_out:
            display.note(f"Left out: {each}.")
        for loaded in done.collections:
            if loaded.kept and loaded.kind != "view":
                display.note(f"{loaded.namespace} was there: it has kept its options.")
        display.line(f"{done.source}: {display.counted(done.documents, 'document')} in {done.seconds:.1f} s")
        if done.duplicates:
            display.note(f"{_there_already(done.duplicates)}. Replace them with: invoke load FOLDER --drop")

    return Result(done, show, status=1 if done.duplicates else 0)


@command(
    help={
        "collections": "which, with commas between; those that they refer to come along",
        "sample": "a share (5%) or a number (500) of each, the same ones every time (default: all)",
        "mask": "file with the masks and references (default: masks.yaml, where that is there)",
        "from-env": "variable with the connection string of the server to read",
        "database": "database to read (default: that of the connection string)",
        "into": "database of the deployment (default: the app's)",
        "drop": "drop these collections here first, after asking",
        "yes": "with --drop: don't ask",
        **ON,
    }
)
def pull(
    session: Session,
    collections: str = "",
    sample: str = "",
    mask: str = "",
    from_env: str = "PULL_URI",
    database: str = "",
    into: str = "",
    drop: bool = False,
    yes: bool = False,
    on: str = "local",
) -> Result[Pulled | None]:
    """Pull collections of another server into a deployment of this project, sampled and masked.

    The connection string comes from the environment, and is never shown. The other server is only read. Values are
    masked before they are written anywhere; equal values stay equal. docs/pull.md shows masks.yaml.
    """
    import os

    from provision.cli import display
    from provision.cli.result import Result
    from provision.core.errors import ProvisionError
    from provision.data.pulls import run as pulls
    from provision.data.pulls.pulling import Sample

    names = _names(collections)
    uri = pulls.source_uri(from_env, os.environ)
    if not names:
        raise ProvisionError(
            "pulling data", "No collection is named.", "Name some: invoke pull --collections users,orders"
        )
    default = session.project / "masks.yaml"
    file = Path(mask) if mask else default if default.is_file() else None
    plan = pulls.read_plan(file)
    request = pulls.Request(
        uri,
        from_env,
        names,
        Sample.parse(sample),
        plan,
        database,
        into or session.loaded.settings.app.database,
        drop,
    )
    deployment = session.running(on, f"pulling data into {on}")
    reached = plan.reached(names)
    if drop and not agreed(f"Drop {', '.join(reached)} in {request.into} of {on}?", "pulling data", yes):
        return Result(None, lambda: display.line("Nothing was changed."))
    for name in pulls.unmasked(plan, reached):
        session.say(
            f"{name} has no masks: its documents come as they are. "
            f"To say that you mean that, write `{name}: keep` into masks.yaml."
        )
    with display.counting("documents") as progress:
        done = pulls.pull(deployment, session.loaded.paths, request, progress)

    return Result(done, lambda: _show_pulled(done), status=1 if done.duplicates else 0)


def _show_pulled(done: Pulled) -> None:
    from provision.cli import display

    rows = [
        (
            each.collection,
            f"{each.documents:,}",
            f"{each.referenced:,}",
            "yes" if each.masked else "no",
            str(each.indexes),
        )
        for each in done.collections
    ]
    display.table(("COLLECTION", "DOCUMENTS", "REFERENCED", "MASKED", "INDEXES"), rows)
    for each in done.collections:
        for why in each.left_out:
            display.note(f"{each.collection}: left out {why}.")
        for path in each.unused:
            display.note(f"{each.collection}.{path}: no document has this field, so its mask did nothing.")
    display.line(f"{done.database}: {display.counted(done.documents, 'document')} in {done.seconds:.1f} s")
    if done.duplicates:
        display.note(f"{_there_already(done.duplicates)}. Replace the collections with: invoke pull --drop")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _there_already(number: int) -> str:
    from provision.cli import display

    stays = (
        "was there already, and stays as it was"
        if number == 1
        else "were there already, and stay as they were"
    )
    return f"{display.counted(number, 'document')} {stays}"
