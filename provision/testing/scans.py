"""Queries that read a whole collection: what the profiler of a test's database saw.

The profiler belongs to one database, and sees the queries of each client, in whichever process. The server's parameter
`notablescan` would refuse them instead: in all databases of all tests at once, and the app would meet an error that
it does not meet in production.
https://www.mongodb.com/docs/manual/reference/command/profile/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from provision.core.dataclass import dataclass
from provision.testing.queries import Query, described

if TYPE_CHECKING:
    from pymongo.database import Database

_PROFILE = "system.profile"
_RANGES = frozenset(
    ("$gt", "$gte", "$lt", "$lte", "$ne", "$nin", "$exists", "$regex", "$not", "$type", "$mod")
)


@dataclass(frozen=True)
class Asked:
    """The part of a command that chooses documents."""

    filter: Mapping[str, Any]
    sort: Mapping[str, Any]


def begin(database: Database[dict[str, Any]]) -> None:
    """Have the server note each query of the database that reads a whole collection.

    Raises PyMongoError: the user may not (`dbAdmin` may), or it is a router.
    """
    database.command({"profile": 1, "filter": {"planSummary": {"$regex": "COLLSCAN"}}})


def end(database: Database[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stop that.

    Returns: What was noted.
    """
    database.command({"profile": 0, "filter": "unset"})
    noted = list(database[_PROFILE].find({"op": {"$ne": "getmore"}}))
    database.drop_collection(_PROFILE)
    return noted


def told(
    noted: Sequence[Mapping[str, Any]], sent: Sequence[Query], of_test: Callable[[str], bool]
) -> list[str]:
    """A paragraph for each query that a test fails for. Pure.

    A query without a filter is meant to read all, and `notablescan` allows it, too. What only the test's own files
    have sent is the test's way to look at the data.
    """
    paragraphs: list[str] = []
    for entry in noted:
        collection = str(entry["ns"]).partition(".")[2]
        command = entry.get("command") or {}
        found = asked(command)
        if collection.startswith("system.") or not found.filter:
            continue
        senders = [query for query in sent if query.collection == collection and _has(query.command, found)]
        ours = [query for query in senders if not of_test(query.file)]
        if senders and not ours:
            continue
        verb = next(iter(command), "")
        verb = entry["op"] if verb in ("q", "") else verb
        shown = {**command, "filter": command["q"]} if "q" in command else command
        place = (
            ours[0].place if ours else f"a client of another process ({entry.get('appName') or 'no appName'})"
        )
        paragraph = "\n".join(
            (
                described(str(verb), collection, shown),
                f"  sent by: {place}",
                f"  it read {entry.get('docsExamined', '?')} documents",
                f"  {advice(collection, found)}",
            )
        )
        if paragraph not in paragraphs:
            paragraphs.append(paragraph)
    return paragraphs


def advice(collection: str, lacking: Asked) -> str:
    """The index that a query lacks. Pure."""
    wanted = indexes(lacking)
    if not wanted:
        return "No index can serve it: give it a condition on a field."
    written = [f"db.{collection}.create_index({keys!r})" for keys in wanted]
    return f"it lacks: {' and '.join(written)}"


def indexes(lacking: Asked) -> list[list[tuple[str, int]]]:
    """The keys of the indexes a query lacks: equality, then sort, then range; one for each branch of an `$or`. Pure.

    https://www.mongodb.com/docs/manual/tutorial/equality-sort-range-guideline/
    """
    equal: list[str] = []
    ranges: list[str] = []
    branches: list[Mapping[str, Any]] = []
    for name, condition in _conditions(lacking.filter):
        if name == "$or":
            branches += condition
        elif not name.startswith("$"):
            operators = isinstance(condition, Mapping) and any(key in _RANGES for key in condition)
            (ranges if operators or type(condition).__name__ in ("Pattern", "Regex") else equal).append(name)
    if not equal and not ranges and branches:
        return [keys for branch in branches for keys in indexes(Asked(branch, lacking.sort))]
    fields: dict[str, int] = dict.fromkeys(equal, 1)
    for name, direction in lacking.sort.items():
        fields.setdefault(name, direction if direction in (1, -1) else 1)
    for name in ranges:
        fields.setdefault(name, 1)
    return [list(fields.items())] if equal or ranges else []


def _conditions(filter_: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, condition in filter_.items():
        if name == "$and":
            for part in condition:
                yield from _conditions(part)
        else:
            yield name, condition


def asked(command: Mapping[str, Any]) -> Asked:
    """The part of a command that chooses documents. Pure."""
    pipeline = command.get("pipeline")
    if isinstance(pipeline, list):
        return _of_pipeline(pipeline)
    chosen: Any = next((command[name] for name in ("filter", "query", "q") if command.get(name)), {})
    sort = command.get("sort")
    return Asked(chosen if isinstance(chosen, Mapping) else {}, sort if isinstance(sort, Mapping) else {})


def _of_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> Asked:
    """What the server asks a collection for: it puts a `$match` before a `$sort`, and before what only adds fields.

    https://www.mongodb.com/docs/manual/core/aggregation-pipeline-optimization/
    """
    filter_: Mapping[str, Any] = {}
    order: Mapping[str, Any] = {}
    made: set[str] = set()
    for stage in pipeline:
        (verb, value), *_ = stage.items()
        if verb == "$match":
            if any(_first(name) in made or (name.startswith("$") and made) for name, _ in _conditions(value)):
                break
            filter_ = filter_ or value
        elif verb == "$sort":
            if any(_first(name) in made for name in value):
                break
            order = order or value
        elif verb in ("$project", "$addFields", "$set"):
            made |= {
                _first(name) for name, given in value.items() if verb != "$project" or not _as_it_is(given)
            }
        elif verb == "$unset":
            made |= {_first(name) for name in ([value] if isinstance(value, str) else value)}
        else:
            break
    return Asked(filter_, order)


def _first(name: str) -> str:
    return name.partition(".")[0]


def _as_it_is(given: Any) -> bool:
    """Whether a field of a `$project` is only let through."""
    return isinstance(given, bool | int | float) and bool(given)


def _has(command: Mapping[str, Any], wanted: Asked) -> bool:
    """Whether a command as it was sent is the one that the server noted."""
    from bson import encode

    parts = [command, *command.get("updates", ()), *command.get("deletes", ())]
    expected = encode({"f": wanted.filter})
    return any(encode({"f": asked(part).filter}) == expected for part in parts)
