"""Typed settings. Every value knows where it came from.

The layers are Invoke's own, lowest first: the defaults below, ``/etc/invoke.yaml``, ``~/.invoke.yaml``, the
project's ``invoke.yaml``, the file given with ``invoke -f``, ``INVOKE_*`` environment variables, and flags.
Invoke reads the files; this module merges them, because it must know each value's origin, and reads the
environment variables as text, because Invoke's own casting takes ``false`` for true.

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
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, cast

from provision.access import home_directory
from provision.errors import ProvisionError, did_you_mean, shown
from provision.files import read_json, write_json
from provision.paths import Paths
from provision.schema import (
    DEFAULT_APP_ENV,
    SECTIONS,
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

# Invoke's own sections: they may stand in the same files and are none of our business.
_INVOKES_SECTIONS = frozenset({"debug", "run", "runners", "sudo", "tasks", "timeouts"})


@dataclass(frozen=True)
class Layer:
    """One place that settings come from.

    Args:
        origin: how a person names it: ``"invoke.yaml"``, ``"INVOKE_APP_PORT"``.
        values: nested mapping, as the file has it.
        ours_alone: False for files other projects share, whose unknown top-level keys are theirs.
    """

    origin: str
    values: Mapping[str, Any]
    ours_alone: bool = True


@dataclass(frozen=True)
class Value:
    """One setting as `invoke settings` lists it."""

    key: str
    value: Any
    origin: str
    description: str


@dataclass(frozen=True)
class Loaded:
    """The settings in force, their paths, and each value's origin."""

    settings: Settings
    paths: Paths
    origins: Mapping[KeyPath, str]

    def deployment(self, name: str) -> DeploymentSettings:
        """The settings of one deployment.

        Raises:
            ProvisionError: no deployment has that name.
        """
        known = self.settings.deployments
        if name not in known:
            raise ProvisionError(
                f"looking up the deployment {name!r}",
                f"invoke.yaml names these: {', '.join(sorted(known))}.",
                f"Use one of them{did_you_mean(name, known)}, or add it under `deployments:` in invoke.yaml.",
            )
        return known[name]

    def values(self) -> list[Value]:
        """Every setting, sorted by section as in invoke.yaml, with its value and origin."""
        return [
            Value(".".join(path), value, self._origin(path), _description(path))
            for path, value in _leaves(asdict(self.settings), ())
        ]

    def _origin(self, path: KeyPath) -> str:
        return self.origins.get(path, "default")


def load(
    root: Path,
    layers: Iterable[Layer],
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
    remember: bool = True,
    remembered: Mapping[KeyPath, tuple[str, Any]] | None = None,
) -> Loaded:
    """Merge the layers, lowest first, then the environment, what is remembered, then flags, and validate the result.

    Args:
        root: the project's top folder, absolute.
        layers: files' contents, lowest precedence first. Mappings merge key by key, other values replace.
        environ: environment variables; those named ``INVOKE_<SECTION>_<KEY>`` count.
        flags: dotted key → (the flag as typed, value); they win over everything.
        remember: note in ``.state/`` that these values were accepted; False changes nothing on disk.
        remembered: key → (where it came from, value): flags of earlier commands that hold for the later ones.

    Returns:
        The validated settings with their origins.

    Raises:
        ProvisionError: naming file, key, what was given and what is allowed.
    """
    # The one mapping whose defaults stay when a layer names some of its keys: null takes a variable away.
    merged: dict[str, Any] = {"app": {"env": dict(DEFAULT_APP_ENV)}}
    origins: dict[KeyPath, str] = {}
    for layer in layers:
        _check_mapping(layer)
        for section in layer.values:
            if section in _INVOKES_SECTIONS or (section not in SECTIONS and not layer.ours_alone):
                continue
            _merge(merged, {section: layer.values[section]}, layer.origin, origins, ())
    # A variable or flag for one deployment must not make it the only one.
    merged.setdefault("deployments", {name: asdict(each) for name, each in default_deployments().items()})
    for path, name, text in _from_environment(merged, environ or {}):
        _merge(merged, _nest(path, _untyped(path, text)), f"environment {name}", origins, ())
    for path, (origin, value) in (remembered or {}).items():
        if path[1] in _mapping(merged["deployments"]):  # it may have been taken out of invoke.yaml since
            _merge(merged, _nest(path, value), origin, origins, ())
    for key, (flag, value) in (flags or {}).items():
        _merge(merged, _nest(tuple(key.split(".")), value), f"flag {flag}", origins, ())
    settings = _accepted(root, merged, origins, remember)
    chosen = settings.paths
    return Loaded(settings, Paths.of(root, chosen.data, chosen.log, chosen.cache), origins)


def _accepted(
    root: Path, merged: Mapping[str, Any], origins: Mapping[KeyPath, str], remember: bool
) -> Settings:
    """The merged values as settings: judged by pydantic, unless they were accepted as they are before."""
    record = root / ".state" / "settings.json"
    here = Path(__file__)
    rules = [here.with_name(name).stat() for name in ("schema.py", "validation.py")]
    version = [[each.st_mtime_ns, each.st_size] for each in rules]
    text = json.dumps([merged, version], sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = read_json(record)
    if before is not None and before.get("digest") == digest:
        return cast("Settings", _build(Settings, before["values"]))
    from provision.validation import validate

    settings = cast("Settings", _build(Settings, validate(merged, origins)))
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
    """The files that Invoke has read, as layers.

    Args:
        config: the `invoke.Config` of a task's context.
        root: the project's top folder, from which file names are shortened.
    """
    layers = []
    for level, ours in (("system", False), ("user", False), ("project", True), ("runtime", True)):
        # Invoke keeps its levels apart but publishes only their merger.
        values, path = getattr(config, f"_{level}"), getattr(config, f"_{level}_path")
        if values:
            layers.append(Layer(_short(path, root), values, ours))
    return layers


def explain_unreadable(error: BaseException) -> ProvisionError:
    """The clear message for a settings file or variable that Invoke itself could not take.

    Args:
        error: what Invoke raised while reading its files or casting ``INVOKE_*`` variables.
    """
    from invoke.vendor import yaml

    root = Path.cwd()
    for folder in (root, *root.parents):
        if (folder / "tasks.py").is_file() and (folder / "provision").is_dir():
            root = folder
            break
    layers = []
    for path, ours in (
        (Path("/etc/invoke.yaml"), False),
        ((home_directory(os.environ) or root) / ".invoke.yaml", False),
        (root / "invoke.yaml", True),
    ):
        origin = _short(path, root)
        try:
            values: Any = yaml.safe_load(  # type: ignore[no-untyped-call]
                path.read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as problem:
            return ProvisionError(
                "reading the settings",
                f"{origin} cannot be read: {problem}",
                f"Make {origin} a readable UTF-8 file.",
            )
        except yaml.YAMLError as problem:
            mark = getattr(problem, "problem_mark", None)
            where = f"{origin}, line {mark.line + 1}, column {mark.column + 1}" if mark else origin
            return ProvisionError(
                "reading the settings",
                f"{where}: not valid YAML: {getattr(problem, 'problem', problem)}.",
                "Mend that line, then run the command again.",
            )
        if values is not None:
            layers.append(Layer(origin, values, ours))
    try:
        load(root, layers, os.environ)
    except ProvisionError as explained:
        return explained
    return ProvisionError(
        "reading the settings",
        f"Invoke could not read them: {error}",
        "Check invoke.yaml and the INVOKE_* variables.",
    )


def _short(path: str | Path, root: Path) -> str:
    path = Path(path)
    if path.is_relative_to(root):
        return str(path.relative_to(root))
    home = home_directory(os.environ) or root
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _check_mapping(layer: Layer) -> None:
    if not isinstance(layer.values, Mapping):
        raise ProvisionError(
            "reading the settings",
            f"{layer.origin} holds {shown(layer.values)}, not sections with keys.",
            "Write it like the invoke.yaml that comes with the project: `section:`, then indented `key: value`.",
        )


def _merge(
    into: dict[str, Any], values: Mapping[str, Any], origin: str, origins: dict[KeyPath, str], at: KeyPath
) -> None:
    for key, value in values.items():
        path = (*at, str(key))
        if isinstance(value, Mapping):
            # An empty one adds nothing: it does not take away what a layer below has.
            present = into.get(str(key))
            nested = present if isinstance(present, dict) else {}
            into[str(key)] = nested
            _merge(nested, value, origin, origins, path)
        else:
            into[str(key)] = value
        origins[path] = origin


def _nest(path: KeyPath, value: Any) -> dict[str, Any]:
    nested: Any = value
    for key in reversed(path):
        nested = {key: nested}
    return dict(nested)


def _from_environment(
    merged: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[KeyPath, str, str]]:
    """The ``INVOKE_*`` variables that name one of our keys; one that all but names one is an error."""
    names = {"INVOKE_" + "_".join(path).upper().replace("-", "_"): path for path in _settable(merged)}
    for name in sorted(environ):
        if name in names:
            yield names[name], name, environ[name]
        elif any(name.startswith(f"INVOKE_{section.upper()}_") for section in SECTIONS):
            raise ProvisionError(
                "reading the settings",
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
    """An environment variable is text; empty, where a setting may be null, it means null."""
    kind = bare(hint_at(path))
    return None if text in ("", "null") and type(None) in typing.get_args(kind) else text


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
