"""Typed settings. Every value knows where it came from.

The layers, lowest first: the defaults (`schema`), the settings files (`settings_files` says which), ``INVOKE_*``
environment variables, flags that earlier commands were given, and flags. All are read here and not by Invoke, which
merges without saying where a value stood, takes ``false`` in a variable for true, and passes over a file that is missing.

The types (`schema`) are plain dataclasses, and pydantic judges values against them in `validation`. Importing pydantic
takes as long as half of a command, so what it has accepted once is remembered until anything of it changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError, did_you_mean, shown
from provision.core.files import read_json, write_json
from provision.env.settings_files import SUFFIXES
from provision.settings.layers import DOING, RUNTIME_CONFIG, located, read_layers
from provision.settings.layers import Layer as Layer
from provision.settings.paths import Paths, accepted_settings
from provision.settings.ports import APP, Grant, Grants, Need, Request, room_needed
from provision.settings.schema import (
    DEFAULT_APP_ENV,
    INVOKES_SECTIONS,
    SECTIONS,
    AppSettings,
    DeploymentSettings,
    HostSettings,
    KeyPath,
    Settings,
    bare,
    default_deployments,
    hint_at,
    hints,
    rule,
)

OWN_FILE = "invoke.local.yaml"
"""The file that is named to people who want to set something for themselves, in this clone."""


@dataclass(frozen=True)
class Value:
    """One setting as `invoke settings` lists it."""

    key: str
    value: Any
    origin: str
    line: int | None
    description: str


@dataclass(frozen=True)
class Loaded:
    """The settings in force, their paths, and each value's origin."""

    settings: Settings
    paths: Paths  # what follows from them
    origins: Mapping[KeyPath, str]  # keys → what set them: a file, a variable, a flag
    lines: Mapping[KeyPath, int] = field(default_factory=dict)  # keys → the line of that file
    slot: Grant | None = None  # the ports of this folder's own; None: it has those that its settings name

    def deployment(self, name: str) -> DeploymentSettings:
        """The settings of one deployment.

        Raises ProvisionError: no deployment has that name.
        """
        known = self.settings.deployments
        require_deployment(name, known)
        return known[name]

    def values(self) -> list[Value]:
        """Every setting, sorted by section as in invoke.yaml, with its value and origin."""
        return [
            Value(
                ".".join(path),
                value,
                self.origins.get(path, "default"),
                self.lines.get(path),
                _description(path),
            )
            for path, value in _leaves(asdict(self.settings), ())
        ]


def require_deployment(name: str, known: Iterable[str]) -> None:
    """Refuse a name that no deployment has.

    Raises ProvisionError: naming those that there are.
    """
    if name not in known:
        raise ProvisionError(
            f"looking up the deployment {name!r}",
            f"invoke.yaml names these: {', '.join(sorted(known))}.",
            f"Use one of them{did_you_mean(name, known)}, or add it under `deployments:` in invoke.yaml.",
        )


def load(
    root: Path,
    layers: Iterable[Layer],
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
    remember: bool = True,
    remembered: Mapping[KeyPath, tuple[str, Any]] | None = None,
    grants: Grants | None = None,
) -> Loaded:
    """Merge the layers, lowest first, then the environment, what is remembered, then flags, and validate the result.

    Args:
        grants: gives the folder ports of its own, where `auto` asks for that or the folder needs it; None: nobody does.
    """
    # The one mapping whose defaults stay when a layer names some of its keys: null takes a variable away.
    merged: dict[str, Any] = {"app": {"env": dict(DEFAULT_APP_ENV)}}
    origins: dict[KeyPath, str] = {}
    lines: dict[KeyPath, int] = {}
    faults: list[tuple[str, str]] = []
    for layer in layers:
        ours = _ours(layer)
        faults += _faults(layer, ours)
        _merge(merged, ours, layer.origin, origins, (), lines, layer.lines)
    if faults:
        causes, remedies = ("\n".join(dict.fromkeys(each)) for each in zip(*faults, strict=True))
        raise ProvisionError(DOING, causes, remedies)
    # A variable or flag for one deployment must not make it the only one.
    merged.setdefault("deployments", {name: asdict(each) for name, each in default_deployments().items()})
    for path, name, text in _from_environment(merged, environ or {}):
        _merge(merged, _nest(path, _untyped(path, text)), f"environment {name}", origins, (), lines)
    for path, (origin, value) in (remembered or {}).items():
        if path[1] in _mapping(merged["deployments"]):  # it may have been taken out of invoke.yaml since
            _merge(merged, _nest(path, value), origin, origins, (), lines)
    for key, (flag, value) in (flags or {}).items():
        section, _, rest = key.partition(".")
        if section == "deployments":  # a flag must not make a deployment out of a mistyped name
            require_deployment(rest.partition(".")[0], _mapping(merged["deployments"]))
        _merge(merged, _nest(tuple(key.split(".")), value), f"flag {flag}", origins, (), lines)
    settings = _accepted(root, merged, origins, lines, remember)
    chosen = settings.paths
    paths = Paths.of(root, chosen.data, chosen.log, chosen.cache)
    needs = _needs(settings, list(merged["deployments"]), origins)
    slot = grants(Request(paths, needs)) if grants else None
    return Loaded(_with_ports(settings, needs, slot, origins, lines), paths, origins, lines, slot)


def _needs(settings: Settings, declared: Iterable[str], origins: Mapping[KeyPath, str]) -> dict[str, Need]:
    """The ports that may be the folder's own: those that are `auto`, and those that no person has set.

    Nobody has set a port that is the default and stands, if anywhere, in the file that all folders of a project share.

    `declared`: the deployments in the order in which they are declared.
    """
    usual = {name: each.port for name, each in default_deployments().items()}
    shared = {None, *(f"invoke{suffix}" for suffix in SUFFIXES)}

    def need(path: KeyPath, port: int | str, default: int, count: int) -> Need | None:
        if port == "auto":
            return Need(count, None)
        return Need(count, default) if port == default and origins.get(path) in shared else None

    found = {APP: need(("app", "port"), settings.app.port, AppSettings.port, 1)}
    for name in declared:
        each = settings.deployments[name]
        path, here = ("deployments", name, "port"), each.capabilities.local
        wanted = need(path, each.port, usual.get(name, DeploymentSettings.port), room_needed(each))
        if here or (wanted and wanted.usual is None):  # on other hosts, clones don't meet
            found[name] = wanted
    return {name: each for name, each in found.items() if each is not None}


def _with_ports(
    settings: Settings,
    needs: Mapping[str, Need],
    slot: Grant | None,
    origins: dict[KeyPath, str],
    lines: dict[KeyPath, int],
) -> Settings:
    """The settings with a number for each port, and where that came from."""
    chosen: dict[str, int] = {}
    for name, need in needs.items():
        path = ("app", "port") if name == APP else ("deployments", name, "port")
        asked = f"auto in {located(origins.get(path, 'default'), lines.get(path))}"
        if slot is not None and name in slot.ports:
            chosen[name] = slot.ports[name]
            origins[path] = f"slot {slot.slot} ({slot.why if need.usual else asked})"
        elif slot is not None and name in slot.stays and slot.stays[name] != need.usual:
            chosen[name] = slot.stays[name]
            origins[path] = "where its data are" + ("" if need.usual else f" ({asked})")
        elif need.usual is None:  # nobody gives ports: the usual one
            usual = default_deployments().get(name, DeploymentSettings()).port
            chosen[name] = AppSettings.port if name == APP else usual
            continue
        else:
            continue
        lines.pop(path, None)
    if not chosen:
        return settings
    deployments = {
        name: replace(each, port=chosen[name]) if name in chosen else each
        for name, each in settings.deployments.items()
    }
    app = replace(settings.app, port=chosen.get(APP, settings.app.port))
    return replace(settings, app=app, deployments=deployments)


def _accepted(
    root: Path,
    merged: Mapping[str, Any],
    origins: Mapping[KeyPath, str],
    lines: Mapping[KeyPath, int],
    remember: bool,
) -> Settings:
    """The merged values as settings: judged by pydantic, unless they were accepted as they are before."""
    record = accepted_settings(root)
    here = Path(__file__)
    rules = [here.with_name(name).stat() for name in ("schema.py", "validation.py")]
    version = [[each.st_mtime_ns, each.st_size] for each in rules]
    text = json.dumps([merged, version], sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = read_json(record)
    if before is not None and before.get("digest") == digest:
        return cast("Settings", _build(Settings, before["values"]))
    from provision.settings.validation import validate

    settings = validate(merged, origins, lines)
    if remember and record.parent.is_dir():
        with contextlib.suppress(OSError):
            write_json(record, {"digest": digest, "values": asdict(settings)})
    return settings


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    """A settings dataclass from validated nested mappings."""
    types = hints(kind)
    return kind(**{name: _value(bare(types[name]), value) for name, value in values.items()})


def _value(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        return _build(kind, value)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is dict and isinstance(value, Mapping):
        return {name: _value(arguments[1], each) for name, each in value.items()}
    if typing.get_origin(kind) is list:
        return [_value(arguments[0], each) for each in value]
    return value


def layers_of(config: Any, root: Path) -> list[Layer]:
    """The settings files, as layers."""
    return read_layers(root, os.environ, config.get(RUNTIME_CONFIG))


def _ours(layer: Layer) -> Mapping[str, Any]:
    """A layer's values without what is Invoke's, or another project's."""
    if not isinstance(layer.values, Mapping):
        raise ProvisionError(
            DOING,
            f"{layer.origin} holds {shown(layer.values)}, not sections with keys.",
            "Write it like the invoke.yaml that comes with the project: `section:`, then indented `key: value`.",
        )
    return {
        section: value
        for section, value in layer.values.items()
        if section not in INVOKES_SECTIONS and (section in SECTIONS or layer.ours_alone)
    }


def _faults(layer: Layer, ours: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a layer by itself, before it is merged: cause and remedy of each."""
    for fault in layer.faults:
        if fault.path[0] in ours:
            yield f"{_named(layer, fault.path)}: {fault.cause}.", fault.remedy
    for path, value in _all(ours, ()):
        kind = bare(hint_at(path))
        is_section = is_dataclass(kind) or typing.get_origin(kind) is dict
        if is_section and not isinstance(value, Mapping):
            stands = "nothing stands under it" if value is None else f"{shown(value)} stands there"
            keys = f" ({', '.join(sorted(hints(kind)))})" if is_dataclass(kind) else ""
            key = ".".join(path)
            yield (
                f"{_named(layer, path)}: {stands}; it must be a section with keys{keys}.",
                f"Write indented `key: value` lines under {key}, or remove the line.",
            )
        elif _is_text(kind) and value is not None and not isinstance(value, str | Mapping | list):
            written = layer.written.get(path, str(value))
            if isinstance(value, bool) or not isinstance(value, int | float) or str(value) != written:
                what = "the truth value" if isinstance(value, bool) else "the number"
                what = what if isinstance(value, bool | int | float) else "the date"
                value = str(value).lower() if isinstance(value, bool) else value
                yield (
                    f"{_named(layer, path)}: {written} without quotes is read as {what} {value}, and text is wanted.",
                    f'Quote it: {path[-1]}: "{written}"',
                )


def _is_text(kind: Any) -> bool:
    return kind is str or set(typing.get_args(kind)) == {str, type(None)}


def _named(layer: Layer, path: KeyPath) -> str:
    return f"{located(layer.origin, layer.lines.get(path))}: {'.'.join(path)}"


def _all(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Everything in nested mappings, and those mappings, with the keys that lead there."""
    if at:
        yield at, value
    if isinstance(value, Mapping):
        for key, nested in value.items():
            yield from _all(nested, (*at, str(key)))


def _merge(
    into: dict[str, Any],
    values: Mapping[str, Any],
    origin: str,
    origins: dict[KeyPath, str],
    at: KeyPath,
    lines: dict[KeyPath, int],
    given_lines: Mapping[KeyPath, int] | None = None,
) -> None:
    known = given_lines or {}
    for key, value in values.items():
        path = (*at, str(key))
        if isinstance(value, Mapping):
            # An empty one adds nothing: it does not take away what a layer below has.
            present = into.get(str(key))
            nested = present if isinstance(present, dict) else {}
            into[str(key)] = nested
            _merge(nested, value, origin, origins, path, lines, known)
        else:
            into[str(key)] = value
        origins[path] = origin
        lines.pop(path, None)
        if path in known:
            lines[path] = known[path]
        if isinstance(value, list):
            lines.update({each: known[each] for each in known if each[: len(path)] == path})


def _nest(path: KeyPath, value: Any) -> dict[str, Any]:
    nested: Any = value
    for key in reversed(path):
        nested = {key: nested}
    return dict(nested)


def _from_environment(
    merged: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[KeyPath, str, str]]:
    """The ``INVOKE_*`` variables that name one of our keys; one that all but names one is an error."""
    names: dict[str, list[KeyPath]] = {}
    for path in _settable(merged):
        names.setdefault("INVOKE_" + "_".join(path).upper().replace("-", "_"), []).append(path)
    for name in sorted(environ):
        if len(names.get(name, ())) > 1:
            both = " or ".join(".".join(path) for path in names[name])
            raise ProvisionError(
                DOING,
                f"environment variable {name}: it could mean {both}.",
                f"Unset it, and set the one that you mean in {OWN_FILE}.",
            )
        if name in names:
            yield from ((path, name, environ[name]) for path in names[name])
        elif any(name.startswith(f"INVOKE_{section.upper()}_") for section in SECTIONS):
            raise ProvisionError(
                DOING,
                f"environment variable {name}: there is no such setting.",
                f"Unset it{did_you_mean(name, names)}. `invoke settings` lists every key.",
            )


def _settable(merged: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Every key that an environment variable may set: those of the schema, and those that mappings have so far."""
    for section, hint in hints(Settings).items():
        if section in ("deployments", "hosts"):
            always = {"local"} if section == "deployments" else set()
            for name in {*always, *_mapping(merged.get(section))}:
                for key in hints(DeploymentSettings if section == "deployments" else HostSettings):
                    yield (section, str(name), key)
        else:
            for key in hints(bare(hint)):
                yield (section, key)
    for key in _mapping(_mapping(merged.get("app")).get("env")):
        yield ("app", "env", str(key))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _untyped(path: KeyPath, text: str) -> Any:
    """An environment variable is text; empty, where a setting may be null, it means null.

    A list or a mapping is written as in a settings file, on one line.
    """
    kind = bare(hint_at(path))
    if text in ("", "null") and type(None) in typing.get_args(kind):
        return None
    if text.startswith(("[", "{")) and {list, dict} & {
        typing.get_origin(each) for each in (kind, *typing.get_args(kind))
    }:
        import yaml

        with contextlib.suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return text


def _description(path: KeyPath) -> str:
    for length in range(len(path), 0, -1):
        if found := rule(hint_at(path[:length])):
            return found.help
    return ""


def _leaves(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, nested in value.items():
            yield from _leaves(nested, (*at, str(key)))
    else:
        yield at, value
