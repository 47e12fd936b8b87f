"""Judges settings against their dataclasses, with pydantic, and says what is wrong with them."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    create_model,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from provision.core.errors import ProvisionError, did_you_mean, shown
from provision.settings.layers import DOING, located
from provision.settings.schema import INVOKES_SECTIONS, KeyPath, Settings, bare, hint_at, hints, rule


def validate(
    merged: Mapping[str, Any], origins: Mapping[KeyPath, str], lines: Mapping[KeyPath, int]
) -> dict[str, Any]:
    """Check merged settings and fill in the defaults.

    Raises one ProvisionError over all that is wrong: file, line, key, what was given, what is allowed.
    """
    try:
        # `auto` stands where a number will.
        return _model(Settings).model_validate(merged).model_dump(warnings=False)
    except ValidationError as error:
        raise _explain(error, origins, lines) from None


def json_schema() -> dict[str, Any]:
    """The JSON schema of invoke.yaml, for editors: every setting with its description."""
    schema = _model(Settings).model_json_schema(schema_generator=_Schema)
    # Invoke's own sections may stand in the same file.
    schema["properties"] |= {name: {"description": "Invoke's own"} for name in sorted(INVOKES_SECTIONS)}
    return {"$schema": _Schema.schema_dialect, **schema, "title": "invoke.yaml"}


class _Schema(GenerateJsonSchema):
    """JSON schemas without the titles that pydantic makes of names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _model(kind: Any) -> type[BaseModel]:
    """The pydantic model of a settings dataclass."""
    columns: dict[str, Any] = {}
    types = hints(kind)
    for each in fields(kind):
        hint = types[each.name]
        limits = rule(hint)
        told = limits.help if limits else _first_line(bare(hint))
        default: Any
        if each.default is MISSING and each.default_factory is MISSING:
            default = Field(description=told)
        elif each.default_factory is not MISSING:
            default = Field(default_factory=each.default_factory, description=told)
        else:
            default = Field(default=each.default, description=told)
        columns[each.name] = (_type(hint), default)
    config = ConfigDict(extra="forbid", from_attributes=True)
    return create_model(kind.__name__, __config__=config, __doc__=_first_line(kind), **columns)


def _first_line(kind: Any) -> str:
    return (getattr(kind, "__doc__", None) or "").partition("\n")[0] if is_dataclass(kind) else ""


def _type(hint: Any) -> Any:
    kind, limits = bare(hint), rule(hint)
    if is_dataclass(kind):
        return _model(kind)
    given = {
        name: limit
        for name, limit in (vars(limits) if limits else {}).items()
        if limit is not None and name not in ("help", "path", "must", "or_auto")
    }
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is dict:
        # A mapping's pattern is for its names.
        names: Any = Annotated[arguments[0], Field(**given)]
        return dict.__class_getitem__((names, _type(arguments[1])))
    if typing.get_origin(kind) is list:
        return list.__class_getitem__(_type(arguments[0]))
    if kind in (str, str | None):
        # `version: 3.12` is a number in YAML, and means what it says.
        text = BeforeValidator(_text, json_schema_input_type=Annotated[kind, Field(**given)] | float)
        if limits and limits.path:
            return Annotated[kind, Field(**given), text, AfterValidator(_path)]
        return Annotated[kind, Field(**given), text]
    if limits and limits.or_auto:
        either: Any = Annotated[kind, Field(**given)] | Literal["auto"]
        return Annotated[kind, Field(**given), WrapValidator(_or_auto, json_schema_input_type=either)]
    return Annotated[kind, Field(**given)]


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
        if problem["type"] == "extra_forbidden":
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


def _allowed(problem: Mapping[str, Any], must: str | None) -> str:
    if problem["type"] == "string_pattern_mismatch":
        return must or f"it must match {problem['ctx']['pattern']}"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "it must be a section with keys"
    message = str(problem["msg"])
    message = message.replace("Input should be", "it must be").replace("String should have", "it must have")
    return message if message.startswith("it ") else message[0].lower() + message[1:]
