"""The virtualenv that the app runs in on a host: made with the host's Python, from pinned and hashed requirements.

The host installs from its package index. Where it reaches none, the wheels for its Python and platform are collected
on this machine and sent, and their sha256 is checked there. A virtualenv is called after a digest of what it was made
from, so one that is there, whole and complete is right. It is made in a directory of its own and gets its name last:
what was stopped halfway is nobody's, and the next attempt removes it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.steps import Decision, Progress
from provision.core.text import redact
from provision.deployments import app_environment
from provision.env.declared import dependencies
from provision.env.requirements_files import decoded, logical_lines
from provision.env.virtualenv import MINIMUM_PYTHON, PROBE
from provision.hosts.link import File, HostError, Link, Ran, archive, is_full
from provision.hosts.scripts import script
from provision.settings.loading import Loaded

_INSTALL_SECONDS = 600.0
_COLLECT_SECONDS = 900.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOCAL = ("-e", "--editable", ".", "/", "~", "file:")
# Those that are not part of what the app runs with.
_INSTALLER = "pip"
# glibc 2.5 is what the oldest wheels that are still about were built for (manylinux1).
_OLDEST_GLIBC = 5
_PRIVATE = 0o600


@dataclass(frozen=True)
class Requirements:
    """What the app's virtualenv is to have."""

    lines: tuple[str, ...]  # one requirement or option of pip each
    constraints: tuple[str, ...]  # the same for what constrains them
    installer: str  # the line that pins pip, which installs where a host's Python brings none

    @property
    def hashed(self) -> bool:
        """Whether every one carries the hashes of what may be installed."""
        return all("--hash=" in line for line in self.lines if not line.startswith("-"))

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def constraining(self) -> str:
        return "".join(f"{line}\n" for line in self.constraints)


@dataclass(frozen=True)
class HostPython:
    """The Python of a host, as it describes itself."""

    executable: str  # its path there
    version: str  # ``3.11.7``
    abi: str  # tag of its extension modules: ``cp311``
    glibc: int | None  # minor version of the C library, 36 of 2.36; None: it is another one
    machine: str  # ``x86_64``
    venv: bool  # it has the module venv
    ensurepip: bool  # it can put pip into a virtualenv
    setuptools: str | None  # path there of the wheel of setuptools that came with it, for new virtualenvs
    # environment markers, as requirements name them: ``sys_platform`` → ``linux``
    markers: Mapping[str, str] = field(hash=False, compare=False)

    @property
    def minor(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of the wheels that it can use, the best first.

        https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
        """
        if self.glibc is None:
            return tuple(f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1))
        glibc = [f"manylinux_2_{n}_{self.machine}" for n in range(self.glibc, _OLDEST_GLIBC - 1, -1)]
        older = [f"{name}_{self.machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
        return (*glibc, *older, f"linux_{self.machine}")


def wanted(loaded: Loaded) -> Requirements:
    """What the app needs on a host: its own requirements, and gunicorn where these don't name it.

    Raises ProvisionError: a file is missing, or names what only this machine has.
    """
    lines, constraints = _declared(loaded)
    added, _ = read(loaded.paths.gunicorn_requirements)
    serving = {name_of(line): line for line in added}
    made = Requirements(tuple(lines), tuple(constraints), serving.pop(_INSTALLER))
    named = {name_of(line) for line in lines}
    if made.hashed:
        more = [line for name, line in serving.items() if name not in named]
    else:
        # What gunicorn itself needs is found with the app's own: two pins of one package would exclude each other.
        more = [serving["gunicorn"].split()[0]] if "gunicorn" not in named else []
    return replace(made, lines=(*lines, *more))


def _declared(loaded: Loaded) -> tuple[list[str], list[str]]:
    """The requirements that the app's folder declares, and those that constrain them."""
    needed = app_environment.wanted(loaded, development=False)
    if needed is None:
        return read(loaded.paths.root / "requirements.txt")
    lines: list[str] = []
    constraints: list[str] = []
    for step in needed.steps:
        # A project's own code is sent as the app's.
        own = dependencies(step.project) if step.project is not None and step.dependencies else step.lines
        if own is None or step.synced is not None or needed.needs_uv:
            raise ProvisionError(
                "reading the requirements of the app",
                f"{needed.format} can't be sent to hosts: what it installs is known only on this machine.",
                "Write a requirements file and name it in app.requirements: "
                "uv export --frozen --no-dev --no-emit-project -o requirements.txt",
            )
        if step.file is not None:
            more, constraining = read(step.file)
            lines += more
            constraints += constraining
        lines += _checked(own, needed.folder)
    return lines, constraints


def _checked(lines: Sequence[str], source: Path) -> Sequence[str]:
    """The lines, none of which names what only this machine has.

    Raises ProvisionError: one does.
    """
    for line in lines:
        if line.startswith(_LOCAL) or " @ file:" in line:
            raise ProvisionError(
                "reading the requirements of the app",
                f"{source} asks for {line!r}, which is on this machine alone.",
                "Name packages of an index there. Code of the app itself is sent by `invoke hosts.deploy`.",
            )
    return lines


def read(file: Path) -> tuple[list[str], list[str]]:
    """A requirements file with those that it includes: its lines, and those of its constraints.

    Follows https://pip.pypa.io/en/stable/reference/requirements-file-format/

    Raises ProvisionError: a file can't be read, or names what only this machine has.
    """
    try:
        text = decoded(file.read_bytes())
    except OSError as problem:
        raise ProvisionError(
            "reading the requirements of the app",
            f"{file} can't be read: {problem.strerror}.",
            "Put it back, or correct app.requirements in invoke.yaml.",
        ) from None
    lines: list[str] = []
    constraints: list[str] = []
    for line in logical_lines(text):
        included = re.match(r"(-r|--requirement|-c|--constraint)[ =]*(\S+)", line)
        if included:
            more, constraining = read((file.parent / included[2]).resolve())
            (lines if included[1] in ("-r", "--requirement") else constraints).extend(more)
            constraints.extend(constraining)
        else:
            lines += _checked([line], file)
    return lines, constraints


def name_of(line: str) -> str:
    """The normalised name of what a requirement asks for; an option has none."""
    found = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def for_python(requirements: Requirements, python: HostPython) -> list[str]:
    """Those of pinned and hashed requirements that a Python needs, without their markers. Pure."""
    from packaging.requirements import Requirement

    needed = []
    for line in requirements.lines:
        if line.startswith("-"):
            continue
        hashes = re.findall(r"--hash=\S+", line)
        requirement = Requirement(re.sub(r"--hash=\S+", "", line).strip())
        if requirement.marker is None or requirement.marker.evaluate(dict(python.markers)):
            requirement.marker = None
            needed.append(" ".join([str(requirement), *hashes]))
    return needed


def identity(requirements: Requirements, python: HostPython) -> str:
    """The name of the virtualenv that a Python makes from requirements. Pure."""
    parts = (requirements.text, requirements.constraining, python.executable, python.version, python.abi)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def ask(link: Link) -> HostPython:
    """The Python of a host.

    Raises:
        HostError: it has none, or one that will not do.
        Unreachable: the host can't be asked.
    """
    host = link.host
    doing = f"looking for a Python on {host.name}"
    needed = ".".join(map(str, MINIMUM_PYTHON))
    remedy = (
        f"Install Python {needed} or later there (Debian, Ubuntu: sudo apt-get install python3 python3-venv), or set "
        f"hosts.{host.name}.python in invoke.yaml to the path of one."
    )
    ran = link.run([host.python, "-I", "-c", f"{PROBE}\n{script('python_facts.py')}"])
    try:
        brought, facts = map(json.loads, ran.out.splitlines())
        found = HostPython(**facts, ensurepip=brought["ensurepip"], setuptools=brought["setuptools"])
    except (ValueError, TypeError):
        raise HostError(
            doing,
            f"{host.name} ({host.address}) has no Python 3 called {host.python}: {ran.said}.",
            remedy,
        ) from None
    if found.minor < MINIMUM_PYTHON:
        raise HostError(
            doing,
            f"{host.python} of {host.name} ({host.address}) is Python {found.version}, and the app needs {needed}.",
            remedy,
        )
    if not found.venv:
        raise HostError(
            doing,
            f"{host.python} of {host.name} ({host.address}), Python {found.version}, has no module venv.",
            remedy,
        )
    return found


class Wheels:
    """Wheels of this machine's package index, collected once for each kind of Python that hosts have.

    Use it as a context manager: what was collected is removed at the end.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="flaskbook-wheels-"))
        self._collecting = threading.Lock()
        self._collected: dict[str, Path | ProvisionError] = {}
        self._fetching_pip = threading.Lock()
        self._pip: Path | None = None
        self._pip_is_far = False

    def __enter__(self) -> Wheels:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def installer(self, requirements: Requirements) -> Path | None:
        """pip's wheel, which suits every Python; None where this machine's index does not give it at once."""
        with self._fetching_pip:
            if self._pip is None and not self._pip_is_far:
                try:
                    self._pip = self._fetched_pip(requirements, "--retries", "0", "--timeout", "10")
                except (ProvisionError, OSError):
                    self._pip_is_far = True
            return self._pip

    def _fetched_pip(self, requirements: Requirements, *options: str) -> Path:
        wheels = self._new_folder()
        self._download(wheels, [requirements.installer], [], ["--no-deps", *options])
        (wheel,) = wheels.iterdir()
        return wheel

    def bundle(self, requirements: Requirements, python: HostPython) -> Path:
        """An archive of the wheels, of pip's, and of the requirements that pin them by their hashes.

        Raises ProvisionError: they can't be downloaded.
        """
        with self._collecting:
            name = identity(requirements, python)
            if name not in self._collected:
                try:
                    self._collected[name] = self._collect(requirements, python)
                except ProvisionError as problem:
                    self._collected[name] = problem  # of the other hosts, too
            found = self._collected[name]
        if isinstance(found, ProvisionError):
            raise found
        return found

    def _new_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._folder)) / "wheels"
        folder.mkdir()
        return folder

    def _collect(self, requirements: Requirements, python: HostPython) -> Path:
        with self._fetching_pip:
            installer = self._pip = self._pip or self._fetched_pip(requirements)
        wheels = self._new_folder()
        target = ["--python-version", python.version, "--implementation", "cp", "--abi", python.abi]
        for platform in python.platforms:
            target += ["--platform", platform]
        if requirements.hashed:
            pinned = for_python(requirements, python)
            self._download(wheels, pinned, [], ["--no-deps", *target])
        else:
            self._download(wheels, requirements.lines, requirements.constraints, target)
            pinned = _pins(wheels)
        folder = wheels.parent
        (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in pinned), encoding="utf-8")
        archive = folder.with_suffix(".tar")
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            for each in [folder / "requirements.txt", *sorted(wheels.iterdir())]:
                tar.add(each, str(each.relative_to(folder)), recursive=False)
            # Beside the wheels: the app may require a pip of another version.
            tar.add(installer, f"pip/{installer.name}")
        shutil.rmtree(folder)
        return archive

    @staticmethod
    def _download(
        wheels: Path, lines: Sequence[str], constraints: Sequence[str], options: Sequence[str]
    ) -> None:
        from provision.env.installers import pip_variables

        asked = wheels.parent / "asked.txt"
        asked.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command = [
            sys.executable,
            "-I",
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary",
            ":all:",
            *options,
        ]
        if constraints:
            constraining = wheels.parent / "constraints.txt"
            constraining.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
            command += ["-c", str(constraining)]
        try:
            done = subprocess.run(
                [*command, "-d", str(wheels), "-r", str(asked)],
                env=pip_variables(os.environ),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_COLLECT_SECONDS,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise _not_collected(str(problem)) from None
        if done.returncode != 0:
            words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise _not_collected("\n".join(words[-4:]) or f"exit status {done.returncode}")


def _not_collected(why: str) -> ProvisionError:
    return ProvisionError(
        "collecting the wheels that the app needs on hosts",
        f"pip could not get them on this machine: {redact(why)}",
        "Check that the package index is reachable from here (PIP_INDEX_URL, HTTPS_PROXY) and has wheels for the "
        "hosts' Python and platform.\nOr let the hosts reach an index: what their pip configuration names is tried first.",
    )


def _pins(wheels: Path) -> list[str]:
    """What was collected, pinned and hashed."""
    from packaging.utils import parse_wheel_filename

    pinned = []
    for each in sorted(wheels.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(each.name)
        with each.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        pinned.append(f"{name}=={version} --hash=sha256:{digest}")
    return pinned


@dataclass(frozen=True)
class AppEnvironment:
    """The app's virtualenv on a host."""

    link: Link
    requirements: Requirements  # what it is to have
    wheels: Wheels  # where those come from that the host can't get by itself
    name: str = "virtualenv"

    @functools.cached_property
    def python(self) -> HostPython:
        """The host's Python; asked once.

        Raises HostError: it has none that is suitable.
        """
        return ask(self.link)

    @property
    def identity(self) -> str:
        """Its name below ``env/`` in the host's `data_dir`."""
        return identity(self.requirements, self.python)

    def decide(self) -> Decision:
        place = f"env/{self.identity}"
        ran = self.link.script(script("virtualenv-state.sh"), str(self.link.host.data_dir), self.identity)
        state = ran.out.strip()
        if ran.status != 0 or not state:
            raise self.link.failed("looking at the app's virtualenv", ran, str(self.link.host.data_dir))
        if state == "right":
            return Decision(False, f"{place} is there (Python {self.python.version})")
        why = "is missing" if state == "absent" else "is not as it was made, and is made again"
        return Decision(True, f"{place} {why} with Python {self.python.version}")

    def act(self, progress: Progress) -> str:
        place = f"env/{self.identity}"
        made = f"made {place} with Python {self.python.version}"
        from_index = self._from_index()
        if from_index is not None and from_index.status == 0:
            return f"{made}; the host fetched what is in it"
        if from_index is not None and is_full(from_index):
            raise self._failed(from_index)
        bundle = self.wheels.bundle(self.requirements, self.python)
        size = bundle.stat().st_size
        with bundle.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            content.seek(0)
            ran = self.link.run(
                ["sh", "-c", script("virtualenv-make.sh"), "provision", *self._arguments("wheels", digest)],
                content,
                _INSTALL_SECONDS,
                lambda sent: progress.advance(sent, size),
            )
        if ran.status != 0:
            raise self._failed(ran)
        return f"{made}; what is in it was sent ({max(1, size // 2**20)} MB), its sha256 is right"

    def _from_index(self) -> Ran | None:
        """What came of it with the host's own package index; None where there is no pip to ask it with."""
        files = {
            "requirements.txt": self.requirements.text.encode(),
            "constraints.txt": self.requirements.constraining.encode(),
        }
        installer = self.wheels.installer(self.requirements)
        if installer is not None:
            files[f"pip/{installer.name}"] = installer.read_bytes()
        elif not self.python.ensurepip:
            return None
        bundle = archive([File(name, content, _PRIVATE) for name, content in files.items()])
        arguments = self._arguments("index", hashlib.sha256(bundle).hexdigest())
        return self.link.script(
            script("virtualenv-make.sh"), *arguments, feed=bundle, timeout=_INSTALL_SECONDS
        )

    def _arguments(self, source: str, digest: str) -> list[str]:
        python = self.python
        place = str(self.link.host.data_dir)
        setuptools = python.setuptools if python.minor < (3, 12) else None  # as `python -m venv` has it
        return [place, self.identity, python.executable, source, digest, setuptools or ""]

    def _failed(self, ran: Ran) -> HostError:
        host = self.link.host
        if ran.status == 65:
            return HostError(
                f"making the app's virtualenv on {host.name}",
                f"What arrived at {host.name} ({host.address}) is not what was sent: it was damaged on the way, and was "
                "thrown away.",
                "Type the command again.",
            )
        return self.link.failed("making the app's virtualenv", ran, f"{host.data_dir}/env")
