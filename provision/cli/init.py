"""`init`: from a project with a Flask app to an `invoke.yaml` for it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision.cli.command import command
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.typed import as_typed

if TYPE_CHECKING:
    from provision.app.discovery import Candidate, Found
    from provision.cli.result import Result
    from provision.cli.session import Session

DOING = "setting up this project"
FILE = "invoke.yaml"
IGNORED = (".state/", ".mongodb/", "invoke.local.*")
_SCHEMA = ".state/invoke.schema.json"


@dataclass(frozen=True)
class Initialized:
    """What `init` wrote, or would write.

    Args:
        file: the settings file.
        text: what it holds.
        ignored: the lines added to `.gitignore`.
        assumed: what was read in the project, a sentence each.
        to_do: what you have to add or check, a sentence each.
        written: False after ``--dry-run``.
    """

    file: str
    text: str
    ignored: tuple[str, ...]
    assumed: tuple[str, ...]
    to_do: tuple[str, ...]
    written: bool


@command(
    help={
        "app": "the app, as for flask --app, where there are several: module:factory or module:app",
        "dry-run": "show what would be written, and write nothing",
        "without-git": "also in a folder that is in no git repository",
    },
)
def init(
    session: Session, app: str = "", dry_run: bool = False, without_git: bool = False
) -> Result[Initialized]:
    """Set up this folder's Flask app: find it, and write invoke.yaml for it. Reads the project, and runs nothing of it.

    It finds the app, the names under which it reads its database's address, and the database's name. It says what it
    assumed. Afterwards `invoke run` starts a database and the app.
    """
    from provision.cli import display
    from provision.cli.result import Result

    root = session.start
    _check_place(root, without_git)
    done = _plan(root, app)
    if not dry_run:
        _write(root, done)

    def show() -> None:
        display.line(f"{'Would write' if dry_run else 'Wrote'} {FILE}:")
        display.line("".join(f"  {each}\n" for each in done.text.splitlines()).rstrip("\n"))
        for each in done.assumed:
            display.line(each)
        for each in done.to_do:
            display.line(as_typed(f"To do: {each}"))
        if not dry_run:
            display.line(as_typed("Next: invoke run"))

    return Result(replace(done, written=not dry_run), show)


def _check_place(root: Path, without_git: bool) -> None:
    """Refuse a folder that has settings already, is in no repository, or can't be written to."""
    import os

    from provision.env.settings_files import SUFFIXES

    for suffix in SUFFIXES:
        if (root / f"invoke{suffix}").exists():
            raise ProvisionError(
                DOING,
                f"{root} has an invoke{suffix} already. Nothing was changed.",
                "invoke run\nTo begin anew, move the file away first.",
            )
    if not without_git and not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise ProvisionError(
            DOING,
            f"{root} is in no git repository, so nothing would keep the data of a database out of your commits.",
            "Type: git init\nOr go on without: invoke init --without-git",
        )
    if not os.access(root, os.W_OK):
        raise ProvisionError(
            DOING, f"You can't write to {root}.", f"Give yourself rights to it: sudo chown $USER {root}"
        )


def _plan(root: Path, named: str) -> Initialized:
    from provision.app.discovery import look
    from provision.settings.schema import DEFAULT_APP_ENV

    found = look(root, DEFAULT_APP_ENV)
    chosen = _choose(found, named)
    assumed, to_do = [f"App: {chosen.factory}, from {chosen.where}."], list(_to_do(chosen, found))
    database = found.database or re.sub(r"[^a-z0-9_-]", "-", root.name.lower())[:63].strip("-") or "app"
    assumed.append(
        f"Database: {database}, from {found.database_from or 'the name of the folder'}. "
        + (
            "Its address comes in " + ", ".join(each.name for each in found.variables) + "."
            if found.variables
            else "Its address comes in MONGO_URI, MONGODB_URI and the other usual names."
        )
    )
    packages = _declared(root / chosen.path)
    assumed.append(f"Packages: {packages or 'none are declared'}.")
    if not packages:
        to_do.append("List the app's packages in a requirements.txt: Flask, and what else it imports.")
    ignored = tuple(each for each in IGNORED if each not in _lines(root / ".gitignore"))
    text = _text(chosen, database, found)
    return Initialized(FILE, text, ignored, tuple(assumed), tuple(to_do), False)


def _choose(found: Found, named: str) -> Candidate:
    """The app: the one that was found, or of several the one that a person names."""
    from provision.app.discovery import Candidate

    known = {_label(each, found): each for each in found.candidates}
    if named:
        return known.get(named) or Candidate(named, ".", "--app", 0)
    if len(known) == 1:
        return next(iter(known.values()))
    if not known:
        raise ProvisionError(
            DOING,
            "No Flask app was found here: no `Flask(…)`, no `create_app`, and no FLASK_APP. Nothing was written.",
            "Go to the app's folder. Or name the app: invoke init --app shop:create_app",
        )
    listed = "\n".join(f"{label}  ({each.where})" for label, each in known.items())
    if sys.stdin.isatty() and sys.stderr.isatty():
        sys.stderr.write(f"Which app?\n{listed}\n> ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip()
        if answer in known:
            return known[answer]
    raise ProvisionError(
        DOING,
        f"There are several apps, and nothing says which one you mean. Nothing was written.\n{listed}",
        f"Name one of them: invoke init --app {next(iter(known))}",
    )


def _label(candidate: Candidate, found: Found) -> str:
    """What a person names a candidate by: with its folder, where that is what tells it from another."""
    same = [each for each in found.candidates if each.factory == candidate.factory]
    return candidate.factory if len(same) == 1 else f"{candidate.path}/{candidate.factory}"


def _to_do(chosen: Candidate, found: Found) -> Iterator[str]:
    if chosen.needs:
        yield (
            f"{chosen.factory} wants arguments ({chosen.needs}). Write them as you would for `flask --app`: "
            f'factory: {chosen.factory}("development")'
        )
    if not found.uses_mongo:
        yield "The app imports no MongoDB driver. Add one to its packages, pymongo for example."
    for place in found.fixed[:3]:
        if not found.variables:
            yield (
                f"The address of the database stands in the source ({place}). "
                "Read it from the environment, or keep `deployments.local.port` at 27017."
            )


def _text(chosen: Candidate, database: str, found: Found) -> str:
    """The settings file: at most fifteen lines."""
    lines = [f"# yaml-language-server: $schema={_SCHEMA}", "app:"]
    if chosen.server:
        file = chosen.where.partition(",")[0]
        lines.append(f"  command: [python, {file}]  # it brings its own server")
        if chosen.port or chosen.server:
            lines.append(f"  port: {chosen.port or 5000}")
    else:
        lines.append(f"  factory: {_scalar(chosen.factory)}")
    if chosen.path != "." and not chosen.server:
        lines.append(f"  path: {_scalar(chosen.path)}")
    lines.append(f"  database: {_scalar(database)}")
    if found.variables:
        lines.append("  env:")
        lines += [f'    {each.name}: "{each.template}"' for each in found.variables[:5]]
    lines += ["paths:", "  data: .mongodb/data", "  log: .mongodb/log"]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A text as YAML writes it."""
    return (
        text
        if re.fullmatch(r"[A-Za-z_./][\w./:-]*", text) and text not in ("true", "false", "null")
        else json.dumps(text)
    )


def _declared(folder: Path) -> str:
    """What declares the app's packages, as `run` will find it; empty: nothing does.

    Raises ProvisionError: it can't be read.
    """
    from provision.env import declared
    from provision.env.virtualenv import BootstrapError

    try:
        found = declared.find(folder)
    except BootstrapError as error:
        raise ProvisionError(error.doing, error.cause, error.remedy) from None
    return found.format if found else ""


def _lines(file: Path) -> Sequence[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _write(root: Path, done: Initialized) -> None:
    """Write the settings, the lines of `.gitignore`, and the schema that an editor reads: all, or nothing."""
    from provision.cli.result import as_text
    from provision.core.files import write_atomically
    from provision.settings.validation import json_schema

    ignore = root / ".gitignore"
    before = ignore.read_bytes() if ignore.is_file() else None
    undo: list[Callable[[], object]] = []
    try:
        if done.ignored:
            text = (before or b"").decode("utf-8", "surrogateescape")
            text += "" if not text or text.endswith("\n") else "\n"
            added = text + "".join(f"{each}\n" for each in done.ignored)
            write_atomically(ignore, added.encode("utf-8", "surrogateescape"))
            undo.append(lambda: ignore.unlink() if before is None else write_atomically(ignore, before))
        state = root / _SCHEMA
        state.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(state, as_text(json_schema()) + "\n")
        write_atomically(root / FILE, done.text)
    except OSError as error:
        for step in undo:
            step()
        raise ProvisionError(
            DOING,
            f"{error.filename}: {error.strerror}. Nothing was written.",
            "Correct it, then type the same again.",
        ) from None
