"""What a collection's indexes and options may bring along: nothing that could hold a value of a document. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provision.data.indexes import NOT_TAKEN
from provision.data.pulls.masks import Kind, Masker
from provision.data.pulls.rules import Rules

_SAFE_OPTIONS = frozenset(
    {
        "unique", "sparse", "expireAfterSeconds", "hidden", "collation", "default_language", "textIndexVersion",
        "2dsphereIndexVersion", "bits", "min", "max",
    }
)  # fmt: skip
_SAFE_COLLECTION_OPTIONS = (
    "capped", "size", "max", "collation", "timeseries", "expireAfterSeconds", "clusteredIndex",
    "changeStreamPreAndPostImages",
)  # fmt: skip
# Words that names of indexes are made of, besides the names of fields.
_WORDS = frozenset(
    "1 2 asc desc ascending descending by and on for of idx index indexes ix uniq unique uq key text hashed hash 2d "
    "2dsphere geo ttl expire expires partial sparse wildcard compound id pk fk fts".split()
)
_COMPARISONS = frozenset({"$eq", "$gt", "$gte", "$lt", "$lte", "$in"})


class Refused(Exception):
    """An index could hold a value of a document; the message says where."""


def collection_options(options: Mapping[str, Any], rules: Rules) -> tuple[dict[str, Any], list[str]]:
    """The options to create the collection with, and the names of those that are left out."""
    if not rules.masks:
        return dict(options), []
    kept = {key: options[key] for key in _SAFE_COLLECTION_OPTIONS if key in options}
    dropped = sorted(set(options) - set(kept) - {"validationLevel", "validationAction"})
    return kept, dropped


def index(given: Mapping[str, Any], collection: str, rules: Rules, masker: Masker) -> dict[str, Any]:
    """An index as `createIndexes` takes it, with masked values in its filter.

    Raises Refused: it could hold a value.
    """
    if not rules.masks:
        return {key: value for key, value in given.items() if key not in NOT_TAKEN}
    text = given.get("weights")
    paths = list(given["key"]) if text is None else [key for key in given["key"] if not key.startswith("_fts")]
    paths += list(text or ())
    masked = {path: rules.masked_path(path, masker) for path in paths}
    if text is None:
        made: dict[str, Any] = {"key": {masked[path]: way for path, way in given["key"].items()}}
    else:
        key = {masked.get(path, path): way for path, way in given["key"].items()}
        made = {"key": key, "weights": {masked[path]: weight for path, weight in text.items()}}
    made |= {key: value for key, value in given.items() if key in _SAFE_OPTIONS}
    if "partialFilterExpression" in given:
        made["partialFilterExpression"] = _filter(given["partialFilterExpression"], rules, masker)
    if other := sorted(set(given) - set(made) - NOT_TAKEN - {"name", "language_override"}):
        raise Refused(f"{other[0]} could hold a value")
    if given.get("language_override") not in (None, "language"):
        made["language_override"] = given["language_override"]
    made["name"] = _name(str(given["name"]), collection, paths, masked, made["key"])
    return made


def _name(name: str, collection: str, paths: list[str], masked: Mapping[str, str], key: Mapping[str, Any]) -> str:
    """The index's name where it is made of names of fields alone, else the one that the server would give it."""
    known = set(_WORDS)
    for path in [*(path for path in paths if masked[path] == path), collection]:
        known |= set(_words(path))
    if all(word in known for word in _words(name)):
        return name
    return "_".join(f"{path}_{way}" for path, way in key.items())


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower()) if word]


def _filter(given: Any, rules: Rules, masker: Masker) -> dict[str, Any]:
    """A partial index's filter, with the values masked as those of its fields are."""
    made: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("$and", "$or"):
            made[key] = [_filter(each, rules, masker) for each in value]
        elif key.startswith("$"):
            raise Refused(f"its filter has {key}")
        else:
            made[rules.masked_path(key, masker)] = _condition(value, key, rules.kind_at(key), masker)
    return made


def _condition(value: Any, path: str, kind: Kind, masker: Masker) -> Any:
    if not isinstance(value, Mapping):
        return _literal(value, path, kind, masker)
    made: dict[str, Any] = {}
    for operator, operand in value.items():
        if operator in ("$exists", "$type"):
            made[operator] = operand
        elif operator in _COMPARISONS:
            made[operator] = _literal(operand, path, kind, masker)
        else:
            raise Refused(f"its filter has {operator} for {path}")
    return made


def _literal(value: Any, path: str, kind: Kind, masker: Masker) -> Any:
    if isinstance(value, list):
        return [_literal(each, path, kind, masker) for each in value]
    if isinstance(value, Mapping):
        raise Refused(f"its filter compares {path} with a document")
    if kind == "remove":
        raise Refused(f"its filter names a value of {path}, which is removed")
    return masker.mask(value, kind)
