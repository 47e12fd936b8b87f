"""Every kind of file below `.state/`: whose it is, whether it is secret, which version it has, and what removes it.

`clean`, `cluster.down --delete-data` and `doctor` go through `every()`; none of them has a list of its own.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_atomically, write_json
from provision.settings.paths import Paths


class Lifetime(StrEnum):
    """How long a file is needed. `clean` removes it after that; some end by themselves."""

    NODE = "a node runs"
    DATA = "the deployment has data"  # `cluster.down --delete-data` removes it
    KEY = "the data can be opened"  # a key to data that stay, here or elsewhere
    APP = "the app is on its hosts"
    PROJECT = "the project is set up"


_EVERY: list[Record] = []


@dataclass(frozen=True)
class Record:
    """One kind of file."""

    # where it is; the deployment is empty where it belongs to the whole project. `*` in the file's name stands for a
    # node or a host. A place that is a directory stands for all that is in it
    place: Callable[[Paths, str], Path]
    lifetime: Lifetime = Lifetime.PROJECT
    of_deployment: bool = True
    private: bool = False  # nobody else may read it
    # the version that is written. A file of version 1 does not name it. None: the file has no version
    schema: int | None = None

    def __post_init__(self) -> None:
        _EVERY.append(self)

    def files(self, paths: Paths, deployment: str = "") -> list[Path]:
        """The files of this kind that are there."""
        pattern = self.place(paths, deployment)
        if "*" not in pattern.name:
            return [pattern] if pattern.exists() else []
        return sorted(
            file for file in pattern.parent.glob(pattern.name) if kind_of(paths, file, deployment) is self
        )

    def read(self, paths: Paths, deployment: str = "") -> dict[str, Any] | None:
        """What is recorded; None: nothing, or nothing that can be understood.

        Raises ProvisionError: a newer version of the tool has written it.
        """
        return self.load(self.place(paths, deployment))

    def write(self, paths: Paths, record: dict[str, Any] | None, deployment: str = "") -> None:
        """Record something, atomically; None removes the file.

        Raises OSError: it can't be written.
        """
        self.store(self.place(paths, deployment), record)

    def load(self, file: Path) -> dict[str, Any] | None:
        """As `read`, from a file of this kind."""
        record = read_json(file)
        if record is None:
            return None
        version, known = record.pop("schema", 1), self.schema or 1
        if not isinstance(version, int) or version > known:
            raise ProvisionError(
                f"reading {file}",
                f"A newer version of this tool has written it (schema {version}; this one knows {known}).",
                f"Use that version again (git pull), or do without the record: rm {shlex.quote(str(file))}",
            )
        return record

    def store(self, file: Path, record: dict[str, Any] | None) -> None:
        """As `write`, to a file of this kind."""
        if record is None:
            file.unlink(missing_ok=True)
        elif record != self.load(file):
            version = {} if self.schema in (None, 1) else {"schema": self.schema}
            write_json(file, {**record, **version})

    def put(self, file: Path, content: str | bytes) -> None:
        """Write a file of this kind that is not JSON, atomically: 0600 where nobody else may read it, else 0644.

        Raises OSError: it can't be written.
        """
        write_atomically(file, content, 0o600 if self.private else 0o644)


def every(of_deployment: bool | None = None) -> Iterator[Record]:
    """All kinds; or those of deployments, or those of the whole project."""
    return (record for record in _EVERY if of_deployment in (None, record.of_deployment))


def kind_of(paths: Paths, file: Path, deployment: str = "") -> Record | None:
    """The kind of a file below `.state/`; the one that names it comes before one that only fits. None: not known."""
    fitting = None
    for record in every(bool(deployment)):
        place = record.place(paths, deployment)
        if place == file or place in file.parents:
            return record
        if "*" in place.name and file.parent == place.parent and file.match(place.name):
            fitting = fitting or record
    return fitting


def deployments(paths: Paths) -> list[str]:
    """The deployments that have left something, also those that the settings no longer name."""
    return [folder.name for folder in sorted(paths.deployment("x").parent.glob("*")) if folder.is_dir()]


def forget(paths: Paths, deployment: str) -> None:
    """Remove what is recorded of a deployment's data: they are gone."""
    for record in every(of_deployment=True):
        if record.lifetime is Lifetime.DATA:
            for file in record.files(paths, deployment):
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)


def private_files(paths: Paths) -> list[Path]:
    """The files and folders that are there and that nobody else may read."""
    found = [paths.state] if paths.state.exists() else []
    for record in every(of_deployment=False):
        if record.private:
            found += record.files(paths)
    for name in deployments(paths):
        for record in every(of_deployment=True):
            if record.private:
                found += record.files(paths, name)
    return found


# Of the whole project

SECRET_KEY = Record(lambda paths, _: paths.secret_key, of_deployment=False, private=True)
MONGOD = Record(lambda paths, _: paths.mongod_record, of_deployment=False, schema=1)
ACCEPTED_SETTINGS = Record(lambda paths, _: paths.accepted_settings, of_deployment=False)
APP_VIRTUALENVS = Record(lambda paths, _: paths.app_envs, of_deployment=False)
OLD_APP_VIRTUALENV = Record(lambda paths, _: paths.app_env, of_deployment=False)
SHELL_HISTORY = Record(lambda paths, _: paths.shell_history, of_deployment=False, private=True)
MASK_KEY = Record(lambda paths, _: paths.mask_key, of_deployment=False, private=True)
LOCK = Record(lambda paths, _: paths.lock("*"), of_deployment=False)
ENV_LOCK = Record(lambda paths, _: paths.env_lock, of_deployment=False)
SCHEMA = Record(lambda paths, _: paths.schema, of_deployment=False)
OWN_CACHE = Record(lambda paths, _: paths.own_cache, of_deployment=False)
BENCHMARKS = Record(lambda paths, _: paths.benchmarks, of_deployment=False)

# Of one deployment

FLAGS = Record(Paths.flags_record, Lifetime.DATA, schema=1)
EXTENT = Record(Paths.extent_record, Lifetime.DATA, schema=1)
LAUNCHED = Record(Paths.launched_record, Lifetime.DATA, schema=1)
INITIATED = Record(Paths.initiated_record, Lifetime.DATA, schema=1)
MONGOD_OF_DEPLOYMENT = Record(Paths.mongod_record_of, Lifetime.DATA, schema=1)
ROLLING = Record(Paths.rolling_record, Lifetime.DATA, schema=1)
MOVING = Record(Paths.moving_record, Lifetime.DATA, schema=1)
SWAP = Record(Paths.swap_record, Lifetime.DATA, schema=1)
HELD = Record(Paths.held_record, Lifetime.NODE, schema=1)
KEPT_DATABASES = Record(Paths.kept_databases, Lifetime.DATA, private=True)
PLACEMENT = Record(Paths.placement, Lifetime.DATA, schema=1)
VOLUMES = Record(Paths.volumes_record, Lifetime.DATA, schema=1)
CREDENTIALS = Record(Paths.credentials, Lifetime.KEY, private=True, schema=1)
KEY_FILE = Record(Paths.key_file, Lifetime.KEY, private=True)
AUTHORITY = Record(Paths.ca_certificate, Lifetime.KEY)
AUTHORITY_KEY = Record(Paths.ca_key, Lifetime.KEY, private=True)
HOST_CERTIFICATE = Record(lambda paths, name: paths.host_certificate(name, "*"), private=True)
APP = Record(Paths.app_record, Lifetime.APP, schema=1)
APP_SECRET_KEY = Record(Paths.app_secret_key, Lifetime.APP, private=True)
RUN = Record(Paths.run_record)
WORKTREE = Record(Paths.worktree_record, schema=1)
RENDERED = Record(Paths.rendered_record, schema=1)
CONFIGURATION = Record(lambda paths, name: paths.deployment(name) / "*.conf")
COMPOSE = Record(Paths.own_compose_file)
FINISHING_LOG = Record(Paths.finishing_log)
NODE = Record(lambda paths, name: paths.node_record(name, "*"), Lifetime.NODE, schema=1)
