"""Checks of what `run` is made of: Python, the virtualenvs, mongod."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.finding import Finding, error, ok, warning
from provision.deployments import app_environment
from provision.doctor.network import Answer
from provision.env import bootstrap
from provision.env.groups import keeps_env
from provision.env.virtualenv import MINIMUM_PYTHON, BootstrapError, Plan
from provision.mongodb.binaries import recorded
from provision.mongodb.binaries.cache import Cache
from provision.mongodb.binaries.examine import PACKAGES, examine
from provision.mongodb.binaries.machine import Machine, builds, install_commands, no_avx
from provision.mongodb.binaries.model import NotServing
from provision.mongodb.binaries.support import unsupported
from provision.mongodb.binaries.tunables import tunables
from provision.mongodb.binaries.wheel import entry_name, wheel_for
from provision.settings.loading import Loaded

# Soname → what it is; MongoDB's builds for current distributions are linked against these.
_LIBRARIES = {"libcrypto.so.3": "OpenSSL 3", "libcurl.so.4": "libcurl 4"}


# --- Python and the virtualenvs ---------------------------------------------------------------------------


def judge_python(version: tuple[int, int, int]) -> Finding:
    """Whether the interpreter is one of those supported. Pure."""
    shown = ".".join(map(str, version))
    if version[:2] < MINIMUM_PYTHON:
        least = ".".join(map(str, MINIMUM_PYTHON))
        return error(
            "python", f"This is Python {shown}, and {least} is needed.", f"Install Python {least} or later."
        )
    return ok("python", f"Python {shown}.")


def read_virtualenv(loaded: Loaded) -> Plan | BootstrapError | None:
    """What would have to be done to `env/`, or why that can't be told; None where the tool is installed as a package."""
    if not keeps_env(loaded.paths.root):
        return None
    try:
        return bootstrap.inspect(loaded.paths.root)
    except BootstrapError as problem:
        return problem


def read_app_virtualenv(loaded: Loaded) -> Plan | BootstrapError | None:
    """The same for the app's own virtualenv; None where the app runs in `env/`."""
    try:
        return app_environment.inspect(loaded)
    except ProvisionError as problem:
        return BootstrapError(problem.doing, problem.cause, problem.remedy)


def judge_virtualenv(check: str, found: Plan | BootstrapError, path: Path) -> Finding:
    """Whether a virtualenv is current. Pure."""
    if isinstance(found, BootstrapError):
        return error(check, f"{found.cause}.", found.remedy)
    if found.virtualenv == "refuse":
        return error(check, f"{found.virtualenv_why}.", f"mv {path} {path}.old && ./invoke setup")
    if found.current:
        return ok(check, f"{found.virtualenv_why}; requirements {found.requirements_why}.")
    why = found.virtualenv_why if found.virtualenv != "keep" else found.requirements_why
    return warning(check, f"To be brought up to date: {why}.", "./invoke setup")


def is_stale(found: Plan | BootstrapError | None) -> bool:
    """Whether packages still have to be installed into a virtualenv."""
    return isinstance(found, Plan) and not found.current


# --- mongod -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MongodFacts:
    """What is known of a mongod for this project."""

    path: Path | None  # one that is on this machine; None: none is
    version: str | None = None  # its version, if it runs
    fault: str | None = None  # why it can't run here
    chosen: bool = False  # `setup` has chosen it
    named: bool = False  # `mongodb.path` names it, so that no other is taken
    downloads: tuple[str, ...] = ()  # where there is one for this machine: ``archive``, ``wheel``
    against: tuple[str, ...] = ()  # why there is none there, each a clause
    install: str = ""  # commands that install MongoDB on this machine

    @property
    def runs(self) -> bool:
        return self.version is not None

    @property
    def to_be_downloaded(self) -> bool:
        """Nothing on this machine serves, and nothing else was asked for by name."""
        return not self.runs and not self.chosen and not self.named


def read_mongod(loaded: Loaded, machine: Machine) -> MongodFacts:
    """Look for a mongod as `setup` does, run it once, download nothing."""
    settings = loaded.settings.mongodb
    install = install_commands(machine, settings.version)
    chosen = recorded(loaded.paths, settings)
    if chosen is not None:
        return _tried(chosen.path, machine, chosen=True, install=install)
    if settings.path is not None and settings.source in ("auto", "path"):
        named = loaded.paths.root / Path(settings.path).expanduser()
        return _tried(named, machine, named=True, install=install)
    fault = None
    for candidate in _on_this_machine(loaded, machine):
        found = _tried(candidate, machine, install=install)
        if found.runs:
            return found
        fault = found.fault
    downloads, against = _downloads(loaded, machine)
    return MongodFacts(None, fault=fault, downloads=downloads, against=against, install=install)


def judge_mongod(facts: MongodFacts, answers: dict[str, Answer]) -> Finding:
    """Whether there is a mongod that runs, or one to download. Pure."""
    if facts.runs:
        how = "" if facts.chosen else "; `setup` has not chosen it yet"
        remedy = "" if facts.chosen else "./invoke setup"
        return ok("mongod", f"MongoDB {facts.version} at {facts.path} runs{how}.", remedy)
    if facts.chosen:
        return error(
            "mongod",
            f"{_sentence(facts.fault)} `setup` had chosen it.",
            "Correct that, or let the tool choose another: ./invoke setup --find-mongod",
        )
    if facts.named:
        return error(
            "mongod",
            f"mongodb.path: {_sentence(facts.fault)}",
            "Correct mongodb.path in invoke.yaml, or set it to null to have a mongod found or downloaded.",
        )
    reachable = [each for each in facts.downloads if answers[each].reachable]
    if reachable:
        return warning(
            "mongod",
            f"None is on this machine; it will be downloaded ({' or '.join(reachable)}).",
            "./invoke setup",
        )
    why = [f"{each}: {answers[each].address}: {answers[each].why}" for each in facts.downloads]
    causes = "; ".join([*([facts.fault] if facts.fault else []), *why, *facts.against])
    return error("mongod", f"None is on this machine and none can be downloaded: {causes}.", facts.install)


def judge_support(loaded: Loaded, install: str, today: date) -> Finding | None:
    """Whether the mongod that was chosen still gets security fixes, unless somebody asked for that one."""
    settings = loaded.settings.mongodb
    chosen = recorded(loaded.paths, settings)
    said = chosen and unsupported(chosen, settings, today)
    if not said:
        return None
    return warning("support", said, f"{install}\n./invoke setup --find-mongod")


def judge_processor(machine: Machine, avx: bool | None, runs: bool) -> Finding:
    """Whether the CPU has what MongoDB needs. Pure.

    `avx` is None where it is not known. A mongod that was seen to run (`runs`) settles it.
    """
    if avx is False and not runs:
        return error(
            "processor",
            f"{no_avx()}.",
            "Give the virtual machine its host's CPU type, or use another machine.",
        )
    return ok("processor", f"{machine.arch}{' with AVX' if avx else ''}.")


def judge_libraries(machine: Machine, missing: Sequence[str], runs: bool) -> Finding:
    """Whether the C library and the shared libraries of MongoDB's builds are there. Pure.

    A mongod that was seen to run (`runs`) settles it.
    """
    if machine.glibc is None and not runs:
        return error(
            "libraries",
            f"{machine.title or 'This Linux'} has another C library than glibc (musl), which MongoDB's binaries need.",
            "Run this project in a Debian or Ubuntu container.",
        )
    libc = f"glibc {machine.glibc[0]}.{machine.glibc[1]}" if machine.glibc else "not glibc"
    if missing:
        names = ", ".join(f"{_LIBRARIES[each]} ({each})" for each in missing)
        what = f"{libc}; missing: {names}, which MongoDB's builds for current distributions need."
        if not runs:
            return warning("libraries", what, _install(machine, missing))
        return ok("libraries", f"{what} The mongod in use does without.")
    return ok("libraries", f"{libc}, {', '.join(_LIBRARIES.values())}.")


def judge_rseq(version: str | None, kernel: tuple[int, int], present: str) -> Finding | None:
    """The trap of mongod 8 on recent kernels, https://github.com/google/tcmalloc/issues/292. Pure."""
    if version is None:
        return None
    variables = tunables(version, kernel, present)
    shown = f"mongod {version} on Linux {kernel[0]}.{kernel[1]}"
    if not variables:
        return ok("rseq", f"{shown} needs no GLIBC_TUNABLES.")
    setting = f"GLIBC_TUNABLES={variables['GLIBC_TUNABLES']}"
    return ok(
        "rseq",
        f"{shown} would crash without {setting}; this tool starts it with that.",
        f"By hand: {setting} mongod -f mongod.conf",
    )


def missing_libraries() -> tuple[str, ...]:
    """The sonames of `_LIBRARIES` that the dynamic loader does not find."""
    import ctypes

    missing = []
    for name in _LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return tuple(missing)


def has_avx(machine: Machine) -> bool | None:
    """Whether the CPU has AVX; None: not known, or not that kind of CPU."""
    if machine.system != "macos" or machine.arch != "x86_64":
        return machine.avx
    try:
        told = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.features"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return "AVX1.0" in told.stdout.split() if told.stdout else None


def _tried(
    path: Path, machine: Machine, *, chosen: bool = False, named: bool = False, install: str
) -> MongodFacts:
    try:
        version = examine(path, machine)
    except NotServing as why:
        return MongodFacts(path, fault=str(why), chosen=chosen, named=named, install=install)
    return MongodFacts(path, version, chosen=chosen, named=named, install=install)


def _on_this_machine(loaded: Loaded, machine: Machine) -> list[Path]:
    settings, found = loaded.settings.mongodb, []
    if settings.source in ("auto", "system") and (system := shutil.which("mongod")) is not None:
        found.append(Path(system))
    if settings.source == "system":
        return found
    cache = Cache(loaded.paths)
    wanted = []
    try:
        if settings.source in ("auto", "cache", "archive"):
            wanted += [f"{settings.version}-{build}" for build in builds(machine, settings.version)]
        entry = entry_name(wheel_for(machine), machine)
        if settings.source == "wheel" or cache.stands_in(entry, settings.version, settings.mirror):
            wanted.append(entry)
    except NotServing:
        pass
    return [*found, *(cache.mongod(entry) for entry in wanted if cache.holds(entry))]


def _downloads(loaded: Loaded, machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    settings = loaded.settings.mongodb
    sources, against = [], []
    for source in ("archive", "wheel"):
        if settings.source not in ("auto", source):
            continue
        try:
            builds(machine, settings.version) if source == "archive" else wheel_for(machine)
            sources.append(source)
        except NotServing as why:
            against.append(f"{source}: {why}")
    if settings.source in ("path", "system", "cache"):
        against.append(f"mongodb.source is {settings.source}, so none is downloaded")
    return tuple(sources), tuple(against)


def _install(machine: Machine, sonames: Sequence[str]) -> str:
    family = set(machine.family)
    if {"debian", "ubuntu"} & family:
        column, command = 0, "sudo apt-get install"
    elif {"rhel", "centos", "fedora", "amzn"} & family:
        column, command = 1, "sudo dnf install"
    elif {"suse", "sles", "opensuse-leap"} & family:
        column, command = 2, "sudo zypper install"
    else:
        return f"Install the packages of your distribution that have {' and '.join(sonames)}."
    return f"{command} {' '.join(PACKAGES[each][column] for each in sonames)}"


def _sentence(fault: str | None) -> str:
    return f"{fault}."
