"""What tests need of the machine beyond Python, and whether this machine has it.

A test in `tests/native` needs mongod, one in `tests/docker` a Docker engine, and so on; `needs("index")` on a
test adds to that. What the machine lacks is probed once per run and named at its end, with the number of tests
that could not run and the command that gets it. `--require` turns each of those into a failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
DIRECTORY_NEEDS: Mapping[str, tuple[str, ...]] = {
    "unit": (),
    "native": ("mongod",),
    "docker": ("docker", "mongod"),
    "hosts": ("sshd", "namespaces", "mongod"),
    "browser": ("browser", "mongod"),
}
# The user nobody, where `sudo` is not needed to become it.
NOBODY = (65534, 65534)
# Another user, who may read whatever the tests run from (root's home is often closed) and write nothing of it.
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY[0]}",
    f"--regid={NOBODY[1]}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
# The property by which a test says what else than the machine's mongod it ran against, for the run's summary.
RAN_AGAINST = "ran against"
_PREPARE = "bash .ci/prepare, on Debian and Ubuntu"


@dataclass(frozen=True)
class Capability:
    """What a probe found.

    Args:
        name: what tests ask for.
        present: whether this machine has it.
        told: what it is (version, path), or the probe's words on why it is missing.
        remedy: the command that gets it.
        values: what tests are to be given of it.
    """

    name: str
    present: bool
    told: str
    remedy: str
    values: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def needed_by(arguments: Iterable[str]) -> tuple[str, ...]:
    """The capabilities that the tests chosen on pytest's command line may need.

    Args:
        arguments: paths and node ids, as pytest has them.
    """
    wanted: dict[str, None] = {}
    for argument in arguments:
        path = Path(str(argument).split("::")[0]).absolute()
        for directory, needs in DIRECTORY_NEEDS.items():
            place = TESTS / directory
            if path.is_relative_to(place) or place.is_relative_to(path):
                wanted.update(dict.fromkeys(needs))
                if directory == "hosts":
                    wanted.update({"index": None, "systemd": None})
                if directory == "native":
                    wanted.update(
                        {
                            "index": None,
                            "mount": None,
                            "another-user": None,
                            "mongosh": None,
                            "other-mongods": None,
                            "stepping-clock": None,
                            "old-python": None,
                        }
                    )
    return tuple(wanted)


def probe(name: str) -> Capability:
    """Look whether this machine has a capability.

    Args:
        name: one of `PROBES`.
    """
    remedy, look = PROBES[name]
    try:
        told, values = look()
    except _Missing as why:
        return Capability(name, False, str(why), remedy, {})
    return Capability(name, True, told, remedy, values)


class _Missing(Exception):
    """The machine lacks it; the message says why."""


Answer = tuple[str, dict[str, str]]


def _index() -> Answer:
    """The package index answers pip for a small package."""
    with tempfile.TemporaryDirectory(prefix="flaskbook-index-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
        command += [
            "--disable-pip-version-check",
            "--retries",
            "0",
            "--timeout",
            "15",
            "--dest",
            folder,
            "idna",
        ]
        _run(command)
    return "answers", {}


def _mongod() -> Answer:
    """The mongod that the tool itself would take, by this clone's settings."""
    import yaml

    from provision.core.errors import ProvisionError
    from provision.core.steps import Silent
    from provision.mongodb import binaries
    from provision.settings.loading import Layer, load
    from provision.settings.paths import Paths

    with tempfile.TemporaryDirectory(prefix="flaskbook-mongod-") as folder:
        layers = [
            Layer(str(path), values)
            for path in (Path.home() / ".invoke.yaml", ROOT / "invoke.yaml")
            if path.is_file() and (values := yaml.safe_load(path.read_text(encoding="utf-8")))
        ]
        try:
            loaded = load(ROOT, layers, os.environ, remember=False)
            settings = loaded.settings.paths
            # A root of its own: that `setup` chose another mongod for this clone is no business of the tests.
            paths = Paths.of(Path(folder), settings.data, settings.log, str(loaded.paths.cache))
            mongodb = loaded.settings.mongodb
            mongod = (
                binaries.recorded(loaded.paths, mongodb) or binaries.find(mongodb, paths, Silent()).mongod
            )
        except ProvisionError as error:
            raise _Missing(error.cause) from None
    told = f"{mongod.version} at {mongod.path} (source: {mongod.source.value})"
    values = {"path": str(mongod.path), "version": mongod.version}
    return told, values | ({"mongos": str(mongod.mongos)} if mongod.mongos else {})


def _mongos() -> Answer:
    """The router of that mongod. Without one the tests of sharded clusters use their stand-in."""
    from tests.support.router_standin.install import real_mongos

    _, values = _mongod()
    router = real_mongos(Path(values["path"]))
    if router is None:
        raise _Missing(f"there is no mongos beside {values['path']}: the stand-in would serve")
    return _run([str(router), "--version"]), {"path": str(router)}


def _database_tools() -> Answer:
    """MongoDB's own mongodump and mongorestore. Without them, files as they write them take their place."""
    for name in ("mongodump", "mongorestore"):
        if shutil.which(name) is None:
            raise _Missing(f"there is no {name} on the PATH: files as it writes them would serve")
    return _run(["mongodump", "--version"]), {}


def _docker() -> Answer:
    engine = _run(["docker", "version", "--format", "{{.Server.Version}}"])
    compose = _run(["docker", "compose", "version", "--short"])
    return f"engine {engine}, compose {compose}", {}


def _browser() -> Answer:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return _run([found, "--version"]), {"path": found}
    raise _Missing("neither chromium nor google-chrome is on the PATH")


def _sshd() -> Answer:
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("sshd", path=folders)
    if found is None:
        raise _Missing("there is no sshd")
    for client in ("ssh", "ssh-keygen"):
        if shutil.which(client) is None:
            raise _Missing(f"there is no {client}")
    return found, {"path": found}


def _mongosh() -> Answer:
    return f"mongosh {_run(['mongosh', '--version'])}", {}


def _namespaces() -> Answer:
    """Hosts of their own can be made of this machine: networks, processes and mounts apart from its own."""
    if sys.platform != "linux":
        raise _Missing("the tests make their hosts of namespaces, which are Linux's")
    name = f"flaskbook-probe-{os.getpid()}"
    _run(["ip", "netns", "add", name])
    try:
        made = _run(
            [
                "ip",
                "netns",
                "exec",
                name,
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--mount-proc",
                "echo",
                "made",
            ]
        )
    finally:
        _run(["ip", "netns", "delete", name])
    return made, {}


def _systemd() -> Answer:
    """A host of the tests can have systemd as its first process: it needs the program, and cgroups of its own."""
    from tests.hosts.lab import SYSTEMD, cgroups

    if not SYSTEMD.is_file():
        raise _Missing(f"there is no {SYSTEMD}")
    told = _run([str(SYSTEMD), "--version"])
    try:
        probed = cgroups() / f"flaskbook-probe-{os.getpid()}"
        probed.mkdir()
        probed.rmdir()
    except OSError as error:
        raise _Missing(f"no cgroup can be made: {error}") from None
    return told, {}


def _other_mongods() -> Answer:
    """Versions of mongod to upgrade from and to, as `.ci/prepare` keeps them."""
    from provision.machine.access import cache_directory

    kept = cache_directory(os.environ) / "tests"
    found = {version: kept / f"mongod-{version}" / "mongod" for version in ("5.0.4", "6.0.27")}
    for path in found.values():
        _run([str(path), "--version"])
    return ", ".join(found), {version: str(path) for version, path in found.items()}


def _old_python() -> Answer:
    """A Python older than the tool's own, as a person may have an old Invoke on."""
    for version in ("3.8", "3.9", "3.10"):
        for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_pyenv_folders(version)]:
            found = shutil.which(f"python{version}", path=folder) if folder else None
            with contextlib.suppress(_Missing):
                if found and _run([found, "-c", "import ensurepip; print('runs')"]) == "runs":
                    return found, {"path": found}
    raise _Missing("there is no Python 3.8, 3.9 or 3.10 that runs")


def _pyenv_folders(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(folder) for folder in sorted(root.glob(f"versions/{version}.*/bin"))]


def _mount() -> Answer:
    """A file system of a few MB can be mounted, to be filled up."""
    if sys.platform != "linux":
        raise _Missing("the test mounts a tmpfs, which is Linux's")
    with tempfile.TemporaryDirectory(prefix="flaskbook-mount-") as folder:
        _run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder])
        _run(["umount", folder])
    return "tmpfs", {}


def _stepping_clock() -> Answer:
    """Processes can be given a clock that steps: a C compiler for a small library, and a mount namespace."""
    if sys.platform != "linux":
        raise _Missing("the tests lay a file over /proc/stat, which is Linux's")
    from tests.support.stepping_clock import SteppingClock

    told = _run(["cc", "--version"])
    with tempfile.TemporaryDirectory(prefix="flaskbook-clock-") as folder:
        try:
            clock = SteppingClock(Path(folder))
        except subprocess.CalledProcessError as error:
            raise _Missing(f"{told}: {error.stderr.strip() or 'it failed'}") from None
        _run([*clock.prefix, "true"])
    return told, {}


def _another_user() -> Answer:
    """Another user can be become, and may read what the tests run from."""
    if sys.platform != "linux":
        raise _Missing("the test becomes another user with setpriv, which is Linux's")
    # Through a shell: setpriv itself still has root's rights when it looks for the program that it becomes.
    _run([*AS_NOBODY, "sh", "-c", 'exec "$0" -c "import invoke"', sys.executable])
    return "nobody", {}


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise _Missing(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise _Missing(f"{' '.join(command[:3])} did not answer within 60 s") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _Missing(said[-1].strip() if said else f"{command[0]} ended with {done.returncode}")
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


PROBES: Mapping[str, tuple[str, Callable[[], Answer]]] = {
    "index": ("a network connection, or PIP_INDEX_URL / ~/.config/pip/pip.conf for a mirror", _index),
    "mongod": ("./invoke doctor, which says how to get one here", _mongod),
    "mongos": (
        "INVOKE_MONGODB_SOURCE=archive ./invoke setup, where MongoDB's downloads can be reached",
        _mongos,
    ),
    "database-tools": ("install https://www.mongodb.com/try/download/database-tools", _database_tools),
    "docker": (_PREPARE, _docker),
    "browser": (_PREPARE, _browser),
    "sshd": (_PREPARE, _sshd),
    "mongosh": ("npm install -g mongosh", _mongosh),
    "namespaces": ("run the tests as root, with iproute2 and util-linux", _namespaces),
    "systemd": (f"{_PREPARE}; and run the tests as root", _systemd),
    "another-user": (
        "run the tests as root: sudo ./invoke test",
        _another_user,
    ),
    "other-mongods": (f"{_PREPARE} with x86_64 processors", _other_mongods),
    "stepping-clock": (f"{_PREPARE}; and run the tests as root", _stepping_clock),
    "old-python": ("pyenv install 3.10, or a package such as python3.10-venv", _old_python),
    "mount": ("run the tests as root: sudo ./invoke test", _mount),
}
