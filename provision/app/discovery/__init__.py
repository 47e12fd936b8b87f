"""What a folder with a Flask app says of itself: the app, the names under which it reads its database, the database.

Everything is read, and nothing is run: Python files by their syntax tree, the others as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provision.app.discovery.apps import Candidate, candidates_of
from provision.app.discovery.database import (
    MONGO_LIBRARIES,
    Variable,
    database_of,
    fixed_addresses,
    variables_of,
)
from provision.app.discovery.source import examples_of, parse, python_files
from provision.core.dataclass import dataclass

__all__ = ("Candidate", "Found", "Variable", "look")


@dataclass(frozen=True)
class Found:
    """What was read. All is in the order in which it was met."""

    candidates: tuple[Candidate, ...] = ()
    variables: tuple[Variable, ...] = ()
    fixed: tuple[
        str, ...
    ] = ()  # where an address stands in the source: ``"app.py, line 12: localhost:27017"``
    database: str = ""  # empty: not said anywhere
    database_from: str = ""
    uses_mongo: bool = False


def look(root: Path, known: Mapping[str, object]) -> Found:
    """Read a project.

    `known`: the names of variables that the app gets anyway.
    """
    files = list(python_files(root))
    modules = [module for file in files if file.suffix == ".py" and (module := parse(root, file)) is not None]
    candidates = candidates_of(root, modules)
    libraries = {each.split(".")[0] for module in modules for each in module.imports.values()}
    uses_mongo = bool(libraries & MONGO_LIBRARIES)
    examples = examples_of(root)
    variables = variables_of(modules, examples, known, uses_mongo)
    database, database_from = database_of(modules, examples)
    return Found(
        tuple(candidates),
        tuple(variables),
        tuple(fixed_addresses(modules)),
        database,
        database_from,
        uses_mongo,
    )
