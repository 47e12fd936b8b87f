"""A release: all that the app runs with on a host, in a directory called after a digest of it.

The app's files, its environment, its SECRET_KEY, the certificate of the database's authority, and a link to its
virtualenv. What runs is one release or another, never a mixture of two; going back is starting the one before.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from provision.app import launch, loading
from provision.app.deploy import host_virtualenv
from provision.app.deploy.host_virtualenv import AppEnvironment
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.steps import Decision, Progress
from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.hosts.link import File, HostError, Link, archive
from provision.hosts.scripts import script
from provision.hosts.units import Supervisor
from provision.settings.loading import Loaded
from provision.state import records

_SEND_SECONDS = 120.0
_PRIVATE, _PRIVATE_PROGRAM = 0o600, 0o700
_SECRET_BYTES = 32
# What git, Python and its tools leave beside an app, where git can't be asked.
_NOT_THE_APPS = frozenset(
    (".git", ".hg", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".state")
)
_ANY_DIRECTORY = "/release"
MANIFEST = "MANIFEST"


@dataclass(frozen=True)
class Release:
    """What the app of a deployment is to run with, the same on all of its hosts."""

    deployment: str
    code: tuple[File, ...]  # the app's files
    factory: str  # the app, as for ``flask --app``
    port: int  # where gunicorn listens, on the host's loopback
    # the app's environment, given the release's directory on the host
    environment: Callable[[str], Mapping[str, str | None]]
    authority: bytes | None  # certificate of the database's authority, PEM; None: the database has no TLS
    secret_key: bytes  # content of the file with Flask's SECRET_KEY
    requirements: str  # text of what the virtualenv has

    @functools.cached_property
    def id(self) -> str:
        """Its name: a digest of all of it, wherever a host has it."""
        files = self.files(_ANY_DIRECTORY)
        modes = " ".join(f"{each.mode:o}" for each in files)
        parts = (self.requirements.encode(), modes.encode(), manifest(files))
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def files(self, directory: str) -> list[File]:
        """All files of it, as a host has them.

        `directory`: where it is there, absolute.

        Raises ProvisionError: a template of the app's environment is not valid.
        """
        order = {
            "factory": self.factory,
            "environment": self.environment(directory),
            # gunicorn's own names. It listens on loopback: who may come in is decided by what stands before it.
            "gunicorn": {
                "bind": f"127.0.0.1:{self.port}",
                "worker_class": "gthread",
                "threads": 4,
                # Its own interface for operators would leave a socket in the user's home.
                "control_socket_disable": True,
            },
        }
        files = [
            *(File(f"app/{each.name}", each.content, each.mode) for each in self.code),
            File("serve.json", json.dumps(order, indent=1, sort_keys=True).encode(), _PRIVATE),
            File("serve.py", Path(__file__).with_name("serve_release.py").read_bytes(), _PRIVATE),
            File("loading.py", Path(loading.__file__).read_bytes(), _PRIVATE),
            File("secret_key", self.secret_key, _PRIVATE),
        ]
        if self.authority is not None:
            files.append(File("ca.pem", self.authority, _PRIVATE))
        return files


def manifest(files: list[File]) -> bytes:
    """What `sha256sum -c` compares files with."""
    return b"".join(
        f"{hashlib.sha256(each.content).hexdigest()}  {each.name}\n".encode(errors="surrogateescape")
        for each in files
    )


def of(
    loaded: Loaded, deployment: Deployment, requirements: host_virtualenv.Requirements, keep: bool = True
) -> Release:
    """The release that the app's files and the settings make.

    Args:
        deployment: the database that the app uses.
        requirements: what its virtualenv has.
        keep: the SECRET_KEY that is generated on first use is kept.

    Raises ProvisionError: the app's files can't be read, or the deployment was never up.
    """
    name, settings = deployment.name, loaded.settings.app
    found = deployment.secrets()
    if found is None and loaded.deployment(name).has_auth:
        raise ProvisionError(
            f"deploying the app of {name}",
            "Its users are created when it is first up.",
            f"Type `invoke cluster.up --on {name}` first.",
        )
    authority = assembly.authority(loaded, name, loaded.deployment(name))
    secret_key = _secret_key(loaded.paths.app_secret_key(name), keep)

    def environment(directory: str) -> Mapping[str, str | None]:
        uri = deployment.topology.uri(
            settings.database,
            credentials=found.app if found else None,
            tls_ca=f"{directory}/ca.pem" if authority else None,
        )
        secret = launch.Secret(f"{directory}/secret_key", secret_key.decode().strip())
        return launch.variables(loaded, deployment, uri, secret, debug=False)

    return Release(
        name,
        tuple(code(loaded)),
        settings.factory,
        port_of(loaded, name),
        environment,
        authority.trusted.read_bytes() if authority else None,
        secret_key,
        requirements.text + requirements.constraining,
    )


def port_of(loaded: Loaded, on: str) -> int:
    """Where the app of a deployment listens on its hosts, by the settings in force."""
    return loaded.deployment(on).app_port or loaded.settings.app.port


def _secret_key(path: Path, keep: bool) -> bytes:
    """One for all hosts, and for all releases: sessions outlive both."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    made = f"{secrets.token_hex(_SECRET_BYTES)}\n".encode()
    if keep:
        records.APP_SECRET_KEY.put(path, made)
    return made


def code(loaded: Loaded) -> list[File]:
    """The app's files: those that `app.files` names; if it names none, those that belong to the app.

    That is everything in `app.path` that git tracks or would track; without git, everything but caches and
    virtualenvs. Where `app.path` is this project's own folder, it is the package that `app.factory` names.

    Raises ProvisionError: one is missing, or can't be read.
    """
    folder = launch.directory(loaded)
    settings = loaded.settings.app
    doing = f"collecting the files of {settings.factory}"
    named = settings.files
    if named is None and folder == loaded.paths.root:
        written = settings.factory.partition(":")[0].strip()
        module = written.removesuffix(".py").partition(".")[0]
        named = [module if (folder / module).is_dir() else f"{module}.py"]
        if written.endswith(".py") and written not in named:  # a script beside a package of its name
            named.append(written)
    for each in named or ():
        place = folder / each
        if not place.exists() or not place.resolve().is_relative_to(folder.resolve()):
            raise ProvisionError(
                doing,
                f"There is no {each} in {folder}.",
                "Set app.files in invoke.yaml to the files and directories in app.path that belong to the app.",
            )
    found = []
    try:
        for path in sorted(_tracked(folder, named or ["."])):
            mode = _PRIVATE_PROGRAM if os.access(path, os.X_OK) else _PRIVATE
            found.append(File(str(path.relative_to(folder)), path.read_bytes(), mode))
    except OSError as problem:
        raise ProvisionError(
            doing, f"{problem.filename} can't be read: {problem.strerror}.", "Give yourself rights to it."
        ) from None
    strange = next((each.name for each in found if {"\n", "\\"} & set(each.name)), None)
    if strange is not None:
        raise ProvisionError(
            doing, f"{strange!r} can't be the name of a file that is sent.", "Give it a plain one."
        )
    if not found:
        raise ProvisionError(
            doing,
            f"There are no files in {folder} that git tracks or would track.",
            "Set app.path in invoke.yaml to the directory of the app, or app.files to what belongs to it.",
        )
    return found


def _tracked(folder: Path, named: list[str]) -> Iterator[Path]:
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    try:
        done = subprocess.run([*command, *named], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode != 0:
        for each in named:
            yield from _walk(folder / each)
        return
    for name in dict.fromkeys(filter(None, done.stdout.decode(errors="surrogateescape").split("\0"))):
        path = folder / name
        if path.is_dir():  # another repository in this one
            yield from _walk(path)
        elif path.is_file():  # git still lists what was deleted
            yield path


def _walk(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for folder, below, names in os.walk(place):
        here = Path(folder)
        below[:] = [
            each for each in below if each not in _NOT_THE_APPS and not (here / each / "pyvenv.cfg").is_file()
        ]
        yield from (here / each for each in names if not each.endswith(".pyc") and (here / each).is_file())


@dataclass(frozen=True)
class Target:
    """One host that the app goes to."""

    link: Link
    release: Release  # what it is to have
    environment: AppEnvironment  # its virtualenv there

    @functools.cached_property
    def supervisor(self) -> Supervisor:
        """What keeps the app running there; asked once."""
        return Supervisor.settle(self.link, self.release.deployment)

    def directory(self, release: str) -> str:
        """Where a release is there, absolute."""
        return f"{self.supervisor.here}/app/releases/{release}"

    @functools.cached_property
    def files(self) -> list[File]:
        """The release as this host has it."""
        files = self.release.files(self.directory(self.release.id))
        return [*files, File(MANIFEST, manifest(files), _PRIVATE)]

    @property
    def virtualenv(self) -> str:
        """What the release's link to its virtualenv says: relative, so that it holds wherever `data_dir` is."""
        return f"../../../../env/{self.environment.identity}"


@dataclass(frozen=True)
class SentRelease:
    """A release on a host: sent, checked by its sha256, and given its name when all of it is there."""

    target: Target
    name: str = "release"

    def decide(self) -> Decision:
        target = self.target
        name, listed = target.release.id, hashlib.sha256(target.files[-1].content).hexdigest()
        directory = target.directory(name)
        ran = target.link.script(script("release-state.sh"), directory, target.virtualenv, listed)
        state = ran.out.strip()
        if ran.status != 0 or not state:
            raise target.link.failed(f"looking at release {name}", ran, directory)
        if state == "right":
            return Decision(False, f"{name} is there")
        count = len(target.release.code)
        why = "is not there yet" if state == "absent" else "is not as it was sent, and is sent again"
        return Decision(True, f"{name} {why} ({count} file{'s' if count != 1 else ''})")

    def act(self, progress: Progress) -> str:
        target, link = self.target, self.target.link
        bundle = archive(target.files)
        directory = target.directory(target.release.id)
        digest = hashlib.sha256(bundle).hexdigest()
        ran = link.script(
            script("release-receive.sh"),
            directory,
            target.virtualenv,
            digest,
            feed=bundle,
            timeout=_SEND_SECONDS,
        )
        if ran.status == 65:
            raise HostError(
                f"sending the app to {link.host.name}",
                f"What arrived at {link.host.name} ({link.host.address}) is not what was sent: it was damaged on the "
                "way, and was thrown away.",
                "Type the command again.",
            )
        if ran.status != 0:
            raise link.failed("sending the app", ran, directory)
        return f"sent {target.release.id} ({max(1, len(bundle) // 1024)} KB), its sha256 is right"
