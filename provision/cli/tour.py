"""The first steps in MongoDB, executed one after another on a scratch database and shown with their results.

Each stage is the Python source that the reader sees; that source is what runs.

https://www.mongodb.com/docs/manual/crud/
"""

from __future__ import annotations

import json
import secrets
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from provision.cli.shell import as_extended_json, namespace, plain, run_python
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError

if TYPE_CHECKING:
    from pymongo import MongoClient

_LINE = 110


@dataclass(frozen=True)
class Stage:
    """One step of the tour."""

    title: str  # what is done, in a few words
    lesson: str  # what there is to learn from it, one sentence
    python: str  # source with ``db`` bound, shown and executed; its last expression is the result
    mongosh: str  # the same in mongosh's JavaScript, shown only


@dataclass(frozen=True)
class StageResult:
    """A stage that was executed."""

    number: int  # its place in the tour, from 1
    stage: Stage  # what was executed
    value: Any  # what came of it, as BSON's types: documents, lists, text, numbers

    def as_json(self) -> dict[str, Any]:
        """The stage and its result for scripts; the result as relaxed Extended JSON."""
        return {
            "number": self.number,
            "title": self.stage.title,
            "lesson": self.stage.lesson,
            "python": self.stage.python,
            "mongosh": self.stage.mongosh,
            "result": json.loads(as_extended_json(self.value)),
        }

    def text(self) -> str:
        """The stage and its result for people, over several lines."""
        parts = [
            f"{self.number}. {self.stage.title}",
            textwrap.fill(self.stage.lesson, _LINE),
            "Python:\n" + textwrap.indent(self.stage.python, "    "),
            "mongosh:\n" + textwrap.indent(self.stage.mongosh, "    "),
            "Result:\n" + textwrap.indent(_listing(self.value), "    "),
        ]
        return "\n\n".join(parts)


STAGES: tuple[Stage, ...] = (
    Stage(
        "Insert",
        "A collection comes into being with its first document; a document that brings no _id gets one.",
        """\
db.user.insert_many([
    {"first_name": "Ada", "last_name": "Lovelace", "age": 36},
    {"first_name": "Grace", "last_name": "Hopper", "age": 85},
    {"first_name": "Alan", "last_name": "Turing", "age": 41},
])""",
        """\
db.user.insertMany([
    {first_name: "Ada", last_name: "Lovelace", age: 36},
    {first_name: "Grace", last_name: "Hopper", age: 85},
    {first_name: "Alan", last_name: "Turing", age: 41},
])""",
    ),
    Stage(
        "Find all",
        "find() without a filter matches every document; it gives a cursor, which fetches them in batches.",
        "db.user.find()",
        "db.user.find()",
    ),
    Stage(
        "Find by last name",
        "A filter is itself a document: the fields it names must have the values it gives.",
        'db.user.find({"last_name": "Hopper"})',
        'db.user.find({last_name: "Hopper"})',
    ),
    Stage(
        "See how it was found",
        "explain() tells the plan: COLLSCAN means that MongoDB read the whole collection to find one person.",
        'db.user.find({"last_name": "Hopper"}).explain()["queryPlanner"]["winningPlan"]',
        'db.user.find({last_name: "Hopper"}).explain().queryPlanner.winningPlan',
    ),
    Stage(
        "Create an index",
        "An index keeps the values of a field in order, so that MongoDB can look one up; 1 means ascending.",
        'db.user.create_index({"last_name": 1})',
        "db.user.createIndex({last_name: 1})",
    ),
    Stage(
        "See what the index does",
        "The same query now says IXSCAN: it reads one entry of the index and fetches one document.",
        'db.user.find({"last_name": "Hopper"}).explain()["queryPlanner"]["winningPlan"]',
        'db.user.find({last_name: "Hopper"}).explain().queryPlanner.winningPlan',
    ),
    Stage(
        "Insert with a new attribute",
        "Documents of one collection need not have the same fields: there is no table to alter first.",
        """\
db.user.insert_one(
    {"first_name": "Katherine", "last_name": "Johnson", "age": 101, "languages": ["FORTRAN", "English"]}
)
db.user.find_one({"languages": "FORTRAN"})""",
        """\
db.user.insertOne(
    {first_name: "Katherine", last_name: "Johnson", age: 101, languages: ["FORTRAN", "English"]}
)
db.user.findOne({languages: "FORTRAN"})""",
    ),
    Stage(
        "Nested document",
        "A value may be a document, and a dot in a filter reaches into it; flaskbook keeps names this way.",
        """\
db.user.insert_one({"name": {"first_name": "Annie", "last_name": "Easley"}, "age": 28})
db.user.find_one({"name.last_name": "Easley"})""",
        """\
db.user.insertOne({name: {first_name: "Annie", last_name: "Easley"}, age: 28})
db.user.findOne({"name.last_name": "Easley"})""",
    ),
    Stage(
        "Age below 40",
        'Operators begin with $: {"$lt": 40} matches what is less than 40; sort() puts the youngest first.',
        'db.user.find({"age": {"$lt": 40}}).sort({"age": 1})',
        "db.user.find({age: {$lt: 40}}).sort({age: 1})",
    ),
    Stage(
        "Update with $set",
        "$set changes the fields it names and leaves the others; an update without an operator is refused.",
        """\
db.user.update_one({"last_name": "Lovelace"}, {"$set": {"age": 37}})
db.user.find_one({"last_name": "Lovelace"})""",
        """\
db.user.updateOne({last_name: "Lovelace"}, {$set: {age: 37}})
db.user.findOne({last_name: "Lovelace"})""",
    ),
)


def run_tour(
    client: MongoClient[Any],
    show: Callable[[StageResult], None],
    pause: Callable[[], None] | None = None,
    stages: Sequence[Stage] = STAGES,
) -> list[StageResult]:
    """Execute the stages in a database of their own, which is dropped at the end, however the end comes.

    Args:
        show: given each result as it is there.
        pause: called between two stages; what it raises ends the tour; None: no pause.

    Raises ProvisionError: the server refused a stage or is gone; or the scratch database could not be dropped.
    """
    from pymongo.errors import PyMongoError

    database = f"tour_{secrets.token_hex(6)}"
    names = namespace(client, database)
    results: list[StageResult] = []
    try:
        for number, stage in enumerate(stages, 1):
            if pause is not None and results:
                pause()
            try:
                value = plain(run_python(stage.python, f"<stage {number}>", names))
            except PyMongoError as error:
                raise ProvisionError(
                    f"running stage {number} of the tour ({stage.title})",
                    str(error),
                    "See whether the deployment is well: invoke status",
                ) from error
            result = StageResult(number, stage, value)
            results.append(result)
            show(result)
    finally:
        _drop(client, database)
    return results


def _drop(client: MongoClient[Any], database: str) -> None:
    from pymongo.errors import PyMongoError

    try:
        client.drop_database(database)
    except KeyboardInterrupt:
        # An impatient second Ctrl-C: dropping twice does no harm, leaving the database behind would.
        client.drop_database(database)
        raise
    except PyMongoError as error:
        raise ProvisionError(
            f"dropping the tour's database {database}",
            str(error),
            "When the deployment is up again, type invoke shell, and there\n"
            f'in mongosh: db.getSiblingDB("{database}").dropDatabase()\n'
            f'in Python:  client.drop_database("{database}")',
        ) from error


def _listing(value: Any) -> str:
    """A result for people: each document of a list by itself, on one line where it fits."""
    return "\n".join(_fitted(each) for each in (value if isinstance(value, list) else [value])) or "(nothing)"


def _fitted(value: Any) -> str:
    line = as_extended_json(value)
    return line if len(line) <= _LINE else as_extended_json(value, indent=2)
