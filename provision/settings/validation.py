"""Judges settings against their dataclasses, with pydantic, and says what is wrong with them."""

from __future__ import annotations

import functools
import os
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, WrapValidator
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from provision.core.errors import ProvisionError, did_you_mean, shown
from provision.settings.layers import DOING, located
from provision.settings.schema import INVOKES_SECTIONS, KeyPath, Rule, Settings, bare, hint_at, hints, rule


def validate(
    merged: Mapping[str, Any], origins: Mapping[KeyPath, str], lines: Mapping[KeyPath, int]
) -> Settings:
    """Check merged settings and fill in the defaults.

    Raises one ProvisionError over all that is wrong: file, line, key, what was given, what is allowed.
    """
    try:
        return _adapter().validate_python(merged)
    except ValidationError as error:
        raise _explain(error, origins, lines) from None


def json_schema() -> dict[str, Any]:
    """The JSON schema of invoke.yaml, for editors: every setting with its description."""
    schema = _adapter().json_schema(schema_generator=_Schema)
    # Invoke's own sections may stand in the same file.
    schema["properties"] |= {name: {"description": "Invoke's own"} for name in sorted(INVOKES_SECTIONS)}
    return {"$schema": _Schema.schema_dialect, **schema, "title": "invoke.yaml"}


@functools.cache
def _adapter() -> TypeAdapter[Settings]:
    return TypeAdapter(Settings)


class _Schema(GenerateJsonSchema):
    """JSON schemas without the titles that pydantic makes of names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dataclass_schema(self, schema: Any) -> Any:  # older pydantics leave the description out
        return {**super().dataclass_schema(schema), "description": schema["cls"].__doc__}


def ruled(kind: Any, limits: Rule) -> Any:
    """A setting's type as pydantic judges it: with the limits of its rule, and what it tells editors."""
    return Annotated[_limited(kind, limits), Field(description=limits.help)]


def _limited(kind: Any, limits: Rule | None = None) -> Any:
    given = {
        name: limit
        for name, limit in (vars(limits) if limits else {}).items()
        if limit is not None and name not in ("help", "path", "must", "or_auto")
    }
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is dict:
        # A mapping's pattern is for its names.
        names: Any = Annotated[arguments[0], Field(**given)]
        return dict.__class_getitem__((names, _limited(arguments[1])))
    if typing.get_origin(kind) is list:
        return list.__class_getitem__(_limited(arguments[0]))
    limited: Any = Annotated[kind, Field(**given)]
    if kind in (str, str | None):
        # `version: 3.12` is a number in YAML, and means what it says.
        text = BeforeValidator(_text, json_schema_input_type=limited | float)
        if limits and limits.path:
            return Annotated[limited, text, AfterValidator(_path)]
        return Annotated[limited, text]
    if limits and limits.or_auto:
        return Annotated[limited, WrapValidator(_or_auto, json_schema_input_type=limited | Literal["auto"])]
    return limited


def _or_auto(value: object, judge: Callable[[object], object]) -> object:
    return value if value == "auto" else judge(value)


def _text(value: object) -> object:
    return str(value) if isinstance(value, float | int) and not isinstance(value, bool) else value


def _path(value: str | None) -> str | None:
    if value is not None and re.search(r"\$(\w|\{)", value):
        raise PydanticCustomError("path", "variables are not expanded in paths; ~ for your home directory is")
    if value is not None and value.startswith("~") and os.path.expanduser(value) == value:  # noqa: PTH111
        raise PydanticCustomError("path", "it begins with the home directory of a user who is not known here")
    return value


def _explain(
    error: ValidationError, origins: Mapping[KeyPath, str], lines: Mapping[KeyPath, int]
) -> ProvisionError:
    causes, remedies = [], []
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"] if part != "[key]")
        at = next((length for length in range(len(path), 0, -1) if path[:length] in origins), 0)
        line = next(
            (lines[path[:n]] for n in range(len(path), max(at, 1) - 1, -1) if path[:n] in lines), None
        )
        origin = located(origins.get(path[:at], "settings"), line)
        key = ".".join(path)
        if problem["type"] == "unexpected_keyword_argument":
            known = hints(bare(hint_at(path[:-1])))
            causes.append(f"{origin}: {key}: there is no such setting (given: {shown(problem['input'])}).")
            remedies.append(
                f"Remove it{did_you_mean(path[-1], known)}. Allowed in {'.'.join(path[:-1]) or 'the top level'}: "
                f"{', '.join(sorted(known))}."
            )
        else:
            found = rule(hint_at(path))
            what = f" — {found.help}" if found is not None else ""
            allowed = _allowed(problem, found.must if found is not None else None)
            causes.append(f"{origin}: {key}: {shown(problem['input'])} is not allowed: {allowed}.")
            remedies.append(f"Set {key} to a value that is allowed{what}.")
    return ProvisionError(DOING, "\n".join(dict.fromkeys(causes)), "\n".join(dict.fromkeys(remedies)))


# Pydantic's kinds of errors, by how they begin, in plain words.
_PLAIN = {
    ("dataclass_type", "dict_type"): "it must be a section with keys",
    ("int_parsing", "int_type", "int_from_float"): "it must be a whole number",
    ("float_parsing", "float_type"): "it must be a number",
    ("bool_parsing", "bool_type"): "it must be true or false",
    ("string_type",): "it must be text",
    ("list_type", "tuple_type"): "it must be a list",
}


def _allowed(problem: Mapping[str, Any], must: str | None) -> str:
    if problem["type"] == "string_pattern_mismatch":
        return must or f"it must match {problem['ctx']['pattern']}"
    for kinds, sentence in _PLAIN.items():
        if problem["type"].startswith(kinds):
            return sentence
    message = str(problem["msg"])
    message = message.replace("Input should be", "it must be").replace("String should have", "it must have")
    return message if message.startswith("it ") else message[0].lower() + message[1:]
