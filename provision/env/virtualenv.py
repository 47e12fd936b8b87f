"""Make a virtualenv from requirements files and keep it current. Standard library only.

The flow is one way: an `EnvironmentSpec` says what is wanted, `examine` reads what is there, `decide` (pure)
compares the two, `ensure` acts under a lock. What a virtualenv was made from is recorded inside it, in
`.provision.json`: as "building" before the first change, as "complete" after the last. A record that says
"building" while nobody holds the lock means that the build was killed, and it is made again from nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import field, replace
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.locks import exclusive
from provision.core.text import indent, redact
from provision.env.wrapper import pythons_on_path
from provision.machine.access import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from provision.env.declared import Declared

MINIMUM_PYTHON = (3, 11)
RECORD = ".provision.json"
SCHEMA = 1


class BootstrapError(Exception):
    """A failure to explain to a person, in three parts and without a traceback: ProvisionError before Invoke.

    `doing`: the work that failed, e.g. "making the virtualenv env/".
    `cause`: what stopped it, with the last lines of the tool that failed.
    `remedy`: what to type or change next.
    """

    def __init__(self, doing: str, cause: str, remedy: str) -> None:
        self.doing, self.cause, self.remedy = doing, redact(cause), redact(remedy)
        super().__init__(
            f"error: {doing}\n  why:  {indent(self.cause.strip())}\n  next: {indent(self.remedy.strip())}"
        )


@dataclass(frozen=True)
class StepRecord:
    """One step of the bootstrap, as it is reported to the re-executed process."""

    name: str  # "virtualenv" or "requirements"
    changed: bool  # whether something was done (in a dry run: would be done)
    why: str  # the reason, for people
    seconds: float = 0.0  # how long it took; 0.0 where nothing was done


@dataclass(frozen=True)
class EnvironmentSpec:
    """What a virtualenv has to be."""

    path: Path  # directory of the virtualenv
    # requirements files to install, absolute; what they include by -r or -c counts as theirs
    requirements: tuple[Path, ...]
    lock: Path  # file locked while the virtualenv is examined for a change and changed
    # interpreter wanted: an absolute path, a name on the PATH or a version such as "3.12"; None takes
    # any that serves, and stays with the one an existing virtualenv has
    python: str | None = None
    require_hashes: bool = True  # install only what carries a hash
    minimum_python: tuple[int, int] = MINIMUM_PYTHON  # oldest (major, minor) accepted
    # where uv and pip run: relative paths in the requirements count from it, and uv takes the project
    # settings it finds there. The file system's root has none.
    working_directory: Path = Path("/")
    # more of them, each of which is kept current where an earlier command has installed it
    optional: tuple[Path, ...] = ()
    label: str = "env/"  # the virtualenv's name in messages
    python_setting: str = "env.python"  # where a person changes `python`, for messages
    # what an app's folder declares, in place of `requirements`: such a virtualenv is made again, never patched
    declared: Declared | None = None

    @property
    def interpreter(self) -> Path:
        """The virtualenv's own python."""
        return self.path / "bin" / "python"

    @property
    def source(self) -> str:
        """What is installed, as it is named to people."""
        if self.declared is not None:
            return self.declared.format
        return " and ".join(file.name for file in self.requirements) or "nothing"


@dataclass(frozen=True)
class Interpreter:
    """A Python that was run and has answered."""

    executable: str
    version: str
    prefix: str
    ensurepip: bool
    # paths of the wheels that came with it, for new virtualenvs
    setuptools: str | None = None
    pip: str | None = None

    @property
    def minor(self) -> tuple[int, int]:
        """The version as (major, minor)."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


@dataclass(frozen=True)
class Facts:
    """What is there: read by `examine`, judged by `decide`."""

    # "missing" (or an empty directory), "foreign" (something that is not a virtualenv), "interrupted"
    # (our own build, killed), "failed" (our own build, which ended with an error), "unrecorded" (a virtualenv
    # we have no record of) or "recorded"
    kind: str
    record: Mapping[str, Any] = field(default_factory=dict)  # the record of a "recorded" virtualenv
    moved: bool = False  # the record was written for another path
    version: str | None = None  # the version of the virtualenv's interpreter, None where it does not run
    # sha256 of each requirements file by its absolute path
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What has to be done, and why."""

    virtualenv: str  # "keep", "make", "rebuild" or "refuse"
    virtualenv_why: str
    requirements: bool  # whether they have to be installed
    requirements_why: str

    @property
    def current(self) -> bool:
        """Whether there is nothing to do."""
        return self.virtualenv == "keep" and not self.requirements

    def steps(self) -> tuple[StepRecord, ...]:
        """Return the plan as steps not yet taken."""
        return (
            StepRecord("virtualenv", self.virtualenv != "keep", self.virtualenv_why),
            StepRecord("requirements", self.requirements, self.requirements_why),
        )


def recorded_requirements(path: Path) -> Mapping[str, str]:
    """The requirements files that a virtualenv was made from, or is being made from: path → sha256."""
    found = (_read_record(path) or {}).get("requirements")
    return found if isinstance(found, dict) else {}


def resolved(spec: EnvironmentSpec) -> EnvironmentSpec:
    """The spec with those of its optional requirements that its virtualenv has."""
    known = recorded_requirements(spec.path)
    there = tuple(file for file in spec.optional if str(file) in known and file not in spec.requirements)
    return replace(spec, requirements=(*spec.requirements, *there), optional=())


def examine(spec: EnvironmentSpec) -> Facts:
    """Read what is at `spec.path`. Runs the virtualenv's interpreter only where it is not the recorded one.

    Raises BootstrapError: a requirements file cannot be read.
    """
    spec = resolved(spec)
    digests = requirement_digests(spec)
    path = spec.path
    if not path.exists() and not path.is_symlink():
        return Facts("missing", digests=digests)
    if not path.is_dir():
        return Facts("foreign", digests=digests)
    record = _read_record(path)
    if record is None:
        if (path / "pyvenv.cfg").is_file():
            found = probe(str(spec.interpreter))
            version = found.version if isinstance(found, Interpreter) else None
            return Facts("unrecorded", version=version, digests=digests)
        found_names = [entry.name for entry in path.iterdir()]
        if all(name.startswith(f"{RECORD}.") for name in found_names):
            # Killed over its first record, which was still under the name it is written to.
            return Facts("interrupted" if found_names else "missing", digests=digests)
        return Facts("foreign", digests=digests)
    if record.get("state") == "failed":
        return Facts("failed", record, digests=digests)
    if record.get("state") != "complete" or record.get("schema") != SCHEMA:
        return Facts("interrupted", record, digests=digests)
    version = record["python"]["version"]
    if _fingerprint(spec.interpreter) != record["interpreter"]:
        found = probe(str(spec.interpreter))
        version = found.version if isinstance(found, Interpreter) else None
    return Facts("recorded", record, record.get("path") != str(path), version, digests)


def decide(spec: EnvironmentSpec, facts: Facts) -> Plan:
    """Return what has to be done to bring the virtualenv of `facts` to `spec`. Pure."""
    action, why = _decide_virtualenv(spec, facts)
    if action != "keep":
        return Plan(
            action, why, True, f"{spec.label} has none yet" if action == "make" else f"{spec.label} is new"
        )
    if facts.kind == "unrecorded":
        return Plan(action, why, True, f"{spec.label} was made by hand: not known what is in it")
    known = facts.record["requirements"]
    changed = sorted(
        {Path(file).name for file in {*known, *facts.digests} if known.get(file) != facts.digests.get(file)}
    )
    if changed:
        because = f"{' and '.join(changed)} changed"
        if spec.declared is not None:
            return Plan("rebuild", because, True, f"{spec.label} is new")
        return Plan(action, why, True, because)
    return Plan(action, why, False, f"as in {spec.source}")


def _decide_virtualenv(spec: EnvironmentSpec, facts: Facts) -> tuple[str, str]:
    if facts.kind == "missing":
        return "make", f"{spec.label} is missing"
    if facts.kind == "foreign":
        return "refuse", f"{spec.path} is not a virtualenv"
    if facts.kind == "interrupted":
        return "rebuild", "the last build was interrupted"
    if facts.kind == "failed":
        return "rebuild", "the last install failed"
    if facts.version is None:
        return "rebuild", "its Python does not run any more"
    if tuple(map(int, facts.version.split(".")[:2])) < spec.minimum_python:
        return "rebuild", f"Python {facts.version} is older than {_dotted(spec.minimum_python)}"
    if facts.moved:
        return "rebuild", f"it was made for {facts.record.get('path')}"
    if facts.kind == "unrecorded":
        if spec.python is not None:
            return "rebuild", f"{spec.python_setting} is {spec.python}, and this one was made by hand"
        return "keep", f"Python {facts.version}, made by hand"
    recorded = facts.record["python"]["version"]
    if facts.version != recorded:
        return "rebuild", f"Python was {recorded} and is {facts.version}"
    if spec.python is not None and spec.python != facts.record["configured"]:
        before = facts.record["configured"] or "not set"
        return "rebuild", f"{spec.python_setting} was {before} and is {spec.python}"
    matches = (
        f"matches {spec.python_setting} {spec.python}" if spec.python else f"matches {spec.label}{RECORD}"
    )
    return "keep", f"Python {facts.version}, {matches}"


def refuse(spec: EnvironmentSpec, plan: Plan) -> None:
    if plan.virtualenv == "refuse":
        raise BootstrapError(
            f"making the virtualenv {spec.label}",
            f"{plan.virtualenv_why}, and nothing but a virtualenv is ever replaced",
            f"move it away: mv {spec.path} {spec.path}.old",
        )


def requirement_digests(spec: EnvironmentSpec) -> dict[str, str]:
    """Return the sha256 of every requirements file and of what it includes, by absolute path.

    Raises BootstrapError: one cannot be read.
    """
    digests: dict[str, str] = {}
    # What an app declares is known with all that it includes.
    follow = spec.declared is None
    waiting = list(spec.requirements if spec.declared is None else spec.declared.files)
    while waiting:
        file = waiting.pop()
        if str(file) in digests:
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BootstrapError(
                f"reading the requirements of {spec.label}",
                f"{file}: {error.strerror}",
                f"put it back: git checkout -- {file.name}"
                if spec.require_hashes
                else f"create {file}, or correct app.requirements in the settings",
            ) from None
        digests[str(file)] = hashlib.sha256(content).hexdigest()
        included_names = rb"(?m)^\s*(?:-r|--requirement|-c|--constraint)[ =]*([^\s#]+)"
        for included in re.findall(included_names, content) if follow else ():
            name = os.fsdecode(included)
            if "://" not in name:
                waiting.append((file.parent / name).resolve())
    if spec.declared is not None and spec.declared.groups:
        digests["app.groups"] = ",".join(spec.declared.groups)
    return digests


def requirement_names(spec: EnvironmentSpec) -> set[str]:
    """Return the normalised names of the packages that the requirements files ask for by name."""
    names: set[str] = set()
    for file in requirement_digests(spec) if spec.declared is None else ():
        for line in Path(file).read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:[\[=<>!~;@#\\ ]|$)", line)
            if found:
                names.add(re.sub(r"[-_.]+", "-", found.group(1)).lower())
    return names


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    temporary = path / f"{RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path / RECORD)


def _fingerprint(interpreter: Path) -> list[int] | None:
    """Return what `./invoke` compares before it starts the interpreter: it changes when that is replaced."""
    try:
        found = interpreter.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


# What a Python says of itself; hosts are asked it, too. Python 2 must be able to run it, to be told apart from none.
PROBE = """
import glob, json, os, sys, sysconfig
found = {"setuptools": None, "pip": None}
try:
    import ensurepip
except ImportError:
    ensurepip = None
else:
    bundled = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
    for folder in (sysconfig.get_config_var("WHEEL_PKG_DIR"), bundled):
        for name in found if folder else ():
            for wheel in sorted(glob.glob(os.path.join(folder, name + "-*.whl"))):
                found[name] = wheel
found.update(executable=getattr(sys, "_base_executable", None) or sys.executable,
    version="%d.%d.%d" % sys.version_info[:3], prefix=getattr(sys, "base_prefix", sys.prefix),
    ensurepip=ensurepip is not None)
print(json.dumps(found))
"""


def probe(executable: str) -> Interpreter | str:
    """Run a Python and return what it says of itself, or the reason why it does not run."""
    import subprocess

    try:
        done = subprocess.run(
            [executable, "-E", "-s", "-c", PROBE],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return getattr(error, "strerror", None) or str(error)
    try:
        return Interpreter(**json.loads(done.stdout))
    except (ValueError, TypeError):
        words = [line for line in done.stderr.splitlines() if line.strip()]
        return words[0].strip() if words else f"is not a Python (exit code {done.returncode})"


def base_executable() -> str:
    """Return the interpreter that this one's virtualenv was made with, or this one where it is in none."""
    found = getattr(sys, "_base_executable", None) or sys.executable
    return found if isinstance(found, str) and Path(found).exists() else sys.executable


def find_interpreter(spec: EnvironmentSpec) -> Interpreter:
    """Return the interpreter to make the virtualenv with: what `spec.python` names, or the one running this.

    Raises BootstrapError: there is none, it does not run, or it is too old.
    """
    refused = []
    for candidate in _candidates(spec):
        found = probe(candidate)
        if isinstance(found, str):
            refused.append(f"{candidate}: {found}")
        elif found.minor < spec.minimum_python:
            refused.append(f"{candidate}: Python {found.version}, {_dotted(spec.minimum_python)} is needed")
        elif not _is_version(spec.python) or f"{found.version}.".startswith(f"{spec.python}."):
            return found
        else:
            refused.append(f"{candidate}: Python {found.version}")
    wanted = (
        f"{spec.python_setting} is {spec.python}"
        if spec.python
        else f"no Python {_dotted(spec.minimum_python)}"
    )
    raise BootstrapError(
        f"finding a Python for {spec.label}",
        "\n".join([f"{wanted}, and none that serves was found", *refused]),
        f"install it, or set {spec.python_setting} to another (a path, a name on the PATH or a version)",
    )


def _candidates(spec: EnvironmentSpec) -> Iterator[str]:
    wanted = spec.python
    if wanted is None:
        yield base_executable()
        yield from pythons_on_path(spec.minimum_python)
        return
    elif _is_version(wanted):
        yield base_executable()
        names = ["python" + ".".join(wanted.split(".")[:2]), "python3", "python"]
    elif os.sep in wanted:
        yield wanted
        return
    else:
        names = [wanted]
    for name in names:
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            # Each one, not the first: a pyenv shim may stand before the Python that runs.
            candidate = Path(folder or ".") / name
            if os.access(candidate, os.X_OK) and candidate.is_file():
                yield str(candidate)


def _is_version(python: str | None) -> bool:
    return python is not None and re.fullmatch(r"\d+(\.\d+){0,2}", python) is not None


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def ensure(spec: EnvironmentSpec) -> tuple[StepRecord, ...]:
    """Bring a virtualenv to its spec; one process at a time does, and the others wait for it.

    A killed run leaves a record that says so, and the next run builds again. The lock is handed to uv and
    pip: it is held until they have ended, even where this process was killed over them.

    Returns the steps "virtualenv" and "requirements". Raises BootstrapError: a virtualenv half made is
    removed.
    """
    plan = decide(spec, examine(spec))
    refuse(spec, plan)
    if plan.current:
        refresh_record(spec)
        return plan.steps()
    try:
        with exclusive(spec.lock, f"building {spec.label}") as lock:
            plan = decide(spec, examine(spec))
            refuse(spec, plan)
            if plan.current:
                refresh_record(spec)
                return plan.steps()
            return act(spec, plan, lock)
    except OSError as error:
        raise BootstrapError(f"making the virtualenv {spec.label}", *explain_error(spec, error)) from None


def explain_error(spec: EnvironmentSpec, error: OSError) -> tuple[str, str]:
    """Return cause and remedy of a file that could not be read or written."""
    where = f"{error.filename}: " if error.filename else ""
    cause = f"{where}{error.strerror or error}"
    remedy = f"make {spec.path.parent} writable, with room on its disk, and type the same again"
    if error.filename and error.errno in (errno.EACCES, errno.EPERM):
        why, remedy = explain(Path(os.fsdecode(error.filename)), (spec.path, spec.lock.parent), remedy)
        cause = f"{cause}. {why}"
    return cause, remedy


def act(spec: EnvironmentSpec, plan: Plan, lock: int) -> tuple[StepRecord, ...]:
    """Do what is planned, holding the lock. Raises BootstrapError, OSError: a virtualenv half made is removed."""
    from provision.env.installers import Runner, able, available, first_that_works

    spec = resolved(spec)
    virtualenv, requirements = plan.steps()
    facts = examine(spec)
    building = {
        "schema": SCHEMA,
        "state": "building",
        "path": str(spec.path),
        "requirements": dict(facts.digests),
    }
    made = plan.virtualenv != "keep"
    python = find_interpreter(spec) if made else _running(spec)
    tools = able(available(Runner(spec, lock), python), spec)
    names = requirement_names(spec)
    dropped = set() if made else set(facts.record.get("packages", ())) - names
    try:
        spec.path.mkdir(parents=True, exist_ok=True)
        _write_record(spec.path, building)
        if made:
            verb = "Making" if plan.virtualenv == "make" else "Rebuilding"
            step = Progress(f"{verb} {spec.label} with Python {python.version}")
            _empty(spec.path)
            tools = first_that_works(
                tools, lambda tool: tool.make_virtualenv(python), f"making the virtualenv {spec.label}"
            )
            virtualenv = StepRecord("virtualenv", True, plan.virtualenv_why, step.done())
        source = spec.source if spec.declared is None else spec.declared.place
        step = Progress(f"Installing {source} into {spec.label} with {tools[0].name}", below=True)
        tools = first_that_works(
            tools, lambda tool: tool.install(dropped), f"installing the requirements of {spec.label}"
        )
        requirements = StepRecord("requirements", True, plan.requirements_why, step.done())
        _write_record(
            spec.path,
            {**building, **_made_of(spec, python), "packages": sorted(names), "installer": tools[0].name},
        )
    except BaseException as error:
        # What cannot be deleted is still recorded as unfinished.
        with contextlib.suppress(OSError):
            if made:
                remove(spec.path)
            elif isinstance(error, BootstrapError):
                _write_record(spec.path, {**building, "state": "failed"})
        raise
    return virtualenv, requirements


def _made_of(spec: EnvironmentSpec, python: Interpreter) -> dict[str, Any]:
    """What the record of a complete virtualenv has beside the files that it was made from."""
    return {
        "state": "complete",
        "configured": spec.python,
        "python": {"version": python.version, "executable": python.executable, "prefix": python.prefix},
        "interpreter": _fingerprint(spec.interpreter),
    }


def _running(spec: EnvironmentSpec) -> Interpreter:
    found = probe(str(spec.interpreter))
    if isinstance(found, str):
        raise BootstrapError(
            f"running {spec.interpreter}", found, f"delete {spec.path} and type the same again"
        )
    return found


def remove(path: Path) -> None:
    """Delete a virtualenv, its record last: killed before that, it is known as ours and as unfinished.

    Raises OSError: something can't be deleted.
    """
    if (_read_record(path) or {}).get("state") != "building":
        _write_record(path, {"schema": SCHEMA, "state": "building", "path": str(path)})
    _empty(path)
    (path / RECORD).unlink()
    path.rmdir()


def refresh_record(spec: EnvironmentSpec) -> None:
    """Note an interpreter replaced by one of the same version, so that it is not run again to compare."""
    record = _read_record(spec.path)
    found = _fingerprint(spec.interpreter)
    if record and record.get("state") == "complete" and record.get("interpreter") != found:
        _write_record(spec.path, {**record, "interpreter": found})


def _empty(path: Path) -> None:
    """Delete all but our record: it says "building" to the end, so that a kill leaves it known as ours."""
    for entry in path.iterdir():
        if entry.name == RECORD:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class Progress:
    """A line on stderr for a step: what it does, then how long it took."""

    def __init__(self, text: str, *, below: bool = False) -> None:
        import time

        self.clock = time.monotonic
        self.began = self.clock()
        # uv and pip draw below it on a terminal; else the rest of the line is written when the step is done.
        self.broken = below and sys.stderr.isatty()
        sys.stderr.write(f"{text} …" + ("\n" if self.broken else " "))
        sys.stderr.flush()

    def done(self) -> float:
        seconds = self.clock() - self.began
        sys.stderr.write(f"{'… ' if self.broken else ' '}done in {seconds:.1f} s\n")
        sys.stderr.flush()
        return round(seconds, 3)
