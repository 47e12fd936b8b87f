"""Every path the tool reads or writes. No other module builds one of these by itself."""

from __future__ import annotations

import os
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.env.settings_files import SUFFIXES
from provision.machine.access import cache_directory

_PACKAGE = Path(__file__).resolve().parents[1]
_TEMPLATES = _PACKAGE / "templates"


@dataclass(frozen=True)
class Paths:
    """Where things are, for one project on this machine."""

    root: Path
    data: Path  # parent of every node's data directory, absolute
    log: Path  # parent of every node's log file, absolute
    cache: Path  # this user's cache, shared by all clones: downloaded MongoDB binaries

    @classmethod
    def of(cls, root: Path, data: str, log: str, cache: str | None) -> Paths:
        """Resolve the configured directories; relative ones are taken from the root, ``~`` is expanded.

        `cache`: ``paths.cache`` of the settings; ``None`` means this user's cache directory.
        """
        root = root.absolute()
        return cls(
            root,
            _under(root, data),
            _under(root, log),
            _under(root, cache) if cache else cache_directory(os.environ, root),
        )

    @property
    def state(self) -> Path:
        """Run-time records, locks and secrets of this project, for its user alone (0700)."""
        return self.root / ".state"

    @property
    def env(self) -> Path:
        """The virtualenv that the tool and flaskbook run in."""
        return self.root / "env"

    @property
    def settings_file(self) -> Path:
        return self.root / "invoke.yaml"

    @property
    def shows_configuration(self) -> bool:
        """Whether the project has templates of its own: then what is rendered from them for `local` stands beside them."""
        return (self.root / "mongod.conf.j2").is_file()

    @property
    def mongod_template(self) -> Path:
        """The one template behind every mongod and mongos; the packaged copy where the project has none."""
        own = self.root / "mongod.conf.j2"
        return own if own.is_file() else _TEMPLATES / "mongod.conf.j2"

    @property
    def compose_template(self) -> Path:
        """The template behind every compose file; the packaged copy where the project has none."""
        own = self.root / "templates" / "compose.yaml.j2"
        return own if own.is_file() else _TEMPLATES / "compose.yaml.j2"

    @property
    def compose_file(self) -> Path:
        """The compose file of `cluster`, which `docker compose` finds by itself."""
        return self.root / "compose.yaml"

    @property
    def unit_template(self) -> Path:
        """The template behind every systemd unit of a node; the packaged copy where the project has none."""
        own = self.root / "templates" / "mongod.service.j2"
        return own if own.is_file() else _TEMPLATES / "mongod.service.j2"

    @property
    def app_unit_template(self) -> Path:
        """The template behind the systemd unit of the app on a host; the packaged copy where the project has none."""
        own = self.root / "templates" / "app.service.j2"
        return own if own.is_file() else _TEMPLATES / "app.service.j2"

    @property
    def gunicorn_requirements(self) -> Path:
        """What hosts need to serve the app, beside its own requirements; pinned and hashed. It comes with the tool."""
        return _PACKAGE / "app" / "deploy" / "gunicorn.txt"

    @property
    def secret_key(self) -> Path:
        """Flask's SECRET_KEY, 0600."""
        return self.state / "secret_key"

    @property
    def mongod_record(self) -> Path:
        """Which mongod `setup` chose, and the file facts it was accepted with."""
        return self.state / "mongod.json"

    @property
    def app_envs(self) -> Path:
        """Virtualenvs of other projects' apps, one for each app and Python."""
        return self.state / "app-envs"

    @property
    def app_env(self) -> Path:
        """Where earlier versions had one virtualenv for all apps."""
        return self.state / "app-env"

    @property
    def accepted_settings(self) -> Path:
        """The merged settings that were valid when they were last read."""
        return accepted_settings(self.root)

    @property
    def schema(self) -> Path:
        """The JSON schema of the settings, for editors, where the tool is not in the project itself."""
        return self.state / "invoke.schema.json"

    @property
    def env_lock(self) -> Path:
        """Held while env/ is made or changed."""
        return self.state / "bootstrap.lock"

    @property
    def own_cache(self) -> Path:
        """The cache of a user without a home directory."""
        return self.state / "cache"

    @property
    def benchmarks(self) -> Path:
        """Where `invoke bench` works."""
        return self.state / "bench"

    @property
    def mask_key(self) -> Path:
        """The key that `pull` masks values with, 0600: with another key, a value gets another mask."""
        return self.state / "mask_key"

    @property
    def shell_history(self) -> Path:
        return self.state / "shell_history"

    def under_root(self, configured: str) -> Path:
        """A configured path: relative ones are taken from the root, ``~`` is expanded."""
        return _under(self.root, configured)

    def lock(self, name: str) -> Path:
        return self.state / "locks" / f"{name}.lock"

    def deployment(self, name: str) -> Path:
        """Records and rendered files of one deployment."""
        return self.state / "deployments" / name

    def rendered_record(self, deployment: str) -> Path:
        """What each node's configuration was rendered from."""
        return self.deployment(deployment) / "rendered.json"

    def initiated_record(self, deployment: str) -> Path:
        """Which replica sets have been initiated."""
        return self.deployment(deployment) / "initiated.json"

    def flags_record(self, deployment: str) -> Path:
        """The flags of earlier commands that hold for the later ones."""
        return self.deployment(deployment) / "flags.json"

    def extent_record(self, deployment: str) -> Path:
        """How large the deployment has become."""
        return self.deployment(deployment) / "extent.json"

    def launched_record(self, deployment: str) -> Path:
        """What each node was last launched with."""
        return self.deployment(deployment) / "launched.json"

    def run_record(self, deployment: str) -> Path:
        """There where an `invoke run` has started the deployment, and the last one stops it."""
        return self.deployment(deployment) / "run"

    def mongod_record_of(self, deployment: str) -> Path:
        """Which mongod was chosen for a deployment that has one of its own."""
        return self.deployment(deployment) / "binary.json"

    def rolling_record(self, deployment: str) -> Path:
        """What a rolling restart or upgrade has in hand: it goes on there after an interruption."""
        return self.deployment(deployment) / "rolling.json"

    def kept_databases(self, deployment: str) -> Path:
        """Where `reset` keeps what the app's database is after a reset: a folder for each state of seeds and migrations."""
        return self.deployment(deployment) / "reset"

    def moving_record(self, deployment: str) -> Path:
        """Which nodes are being moved from one host to another."""
        return self.deployment(deployment) / "moving.json"

    def worktree_record(self, deployment: str) -> Path:
        """Whether a new worktree's deployment began with the data of another one."""
        return self.deployment(deployment) / "worktree.json"

    def swap_record(self, deployment: str) -> Path:
        """Which data are being put in the place of others."""
        return self.deployment(deployment) / "swap.json"

    def held_record(self, deployment: str) -> Path:
        """Which nodes take no writes because a snapshot is being taken."""
        return self.deployment(deployment) / "held.json"

    def own_compose_file(self, deployment: str) -> Path:
        """The compose file of a deployment that does not have the one at the root."""
        return self.deployment(deployment) / "compose.yaml"

    def volumes_record(self, deployment: str) -> Path:
        """Which Docker volumes have the deployment's data."""
        return self.deployment(deployment) / "volumes.json"

    def finishing_log(self, deployment: str) -> Path:
        """What was printed by the process that finished an `up` in the background."""
        return self.deployment(deployment) / "up.log"

    def node_record(self, deployment: str, node: str) -> Path:
        return self.deployment(deployment) / f"{node}.json"

    def node_conf(self, deployment: str, node: str) -> Path:
        """A node's rendered configuration: see `conf_place`."""
        return self.root / conf_place(deployment, node, self.shows_configuration)

    def key_file(self, deployment: str) -> Path:
        """The deployment's `security.keyFile`, 0400."""
        return self.deployment(deployment) / "keyfile"

    def credentials(self, deployment: str) -> Path:
        """User names and passwords of one deployment, 0600."""
        return self.deployment(deployment) / "credentials.json"

    def app_secret_key(self, deployment: str) -> Path:
        """Flask's SECRET_KEY of the app on the deployment's hosts, 0600: one for all of them."""
        return self.deployment(deployment) / "secret_key"

    def app_record(self, deployment: str) -> Path:
        """Which hosts the app was put on."""
        return self.deployment(deployment) / "app.json"

    def placement(self, deployment: str) -> Path:
        """Which node has its data on which host."""
        return self.deployment(deployment) / "placement.json"

    def ca_certificate(self, deployment: str) -> Path:
        """Certificate of the authority that vouches for the deployment's hosts."""
        return self.deployment(deployment) / "ca.pem"

    def ca_key(self, deployment: str) -> Path:
        """The private key of the authority that the tool made, 0600."""
        return self.deployment(deployment) / "ca.key"

    def host_certificate(self, deployment: str, host: str) -> Path:
        """A host's certificate and private key, 0600."""
        return self.deployment(deployment) / "certificates" / f"{host}.pem"

    def node_data(self, deployment: str, node: str) -> Path:
        return self.data / deployment / node

    def snapshots(self, deployment: str) -> Path:
        """The snapshots of a deployment: on the disk that has its data. No deployment's name begins with a dot."""
        return self.data / ".snapshots" / deployment

    def node_log(self, deployment: str, node: str) -> Path:
        return self.log / deployment / f"{node}.log"

    def node_output(self, deployment: str, node: str) -> Path:
        """What a node printed outside its log: what a mongod that dies before logging says."""
        return self.log / deployment / f"{node}.out"


def accepted_settings(root: Path) -> Path:
    """See `Paths.accepted_settings`: needed before the settings say where all else is."""
    return root / ".state" / "settings.json"


def project_root(start: Path) -> Path:
    """The project that a folder belongs to: the nearest folder upward with settings; without any, the folder itself."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if any((folder / f"invoke{suffix}").is_file() for suffix in SUFFIXES):
            return folder
    return start


def _under(root: Path, configured: str) -> Path:
    path = Path(configured).expanduser()
    return Path(os.path.normpath(path if path.is_absolute() else root / path))


def conf_place(deployment: str, node: str, shown: bool) -> str:
    """A node's rendered configuration, from the project's top folder.

    `shown`: the node of `local` has its own there, for people to read. Anybody's project may have a file of that name.
    """
    own = shown and deployment == "local" and node == "mongod"
    return "mongod.conf" if own else f".state/deployments/{deployment}/{node}.conf"
