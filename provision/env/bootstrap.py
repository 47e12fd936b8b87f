"""Make `env/`, the clone's own virtualenv, keep it current, and re-execute Invoke inside it.

Standard library only: this runs before anything is installed. Two doors lead here:

- `./invoke` calls `main` where `env/` is missing or cannot run;
- `tasks.py` calls `ensure_environment` at import, inside `env/` or under an Invoke the user installed.

This module knows processes, arguments and who hands over to whom; `virtualenv.py` knows how a virtualenv is
made and kept current. Importable by Python 3.7 and later, so that an old Invoke can hand over; building needs
Python 3.11.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from provision.core import typed
from provision.env import groups
from provision.env.python_setting import read_env_python
from provision.env.virtualenv import (
    MINIMUM_PYTHON,
    BootstrapError,
    EnvironmentSpec,
    Plan,
    StepRecord,
    base_executable,
    decide,
    ensure,
    examine,
    refuse,
    resolved,
)
from provision.env.wrapper import isolated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

    from provision.env.declared import Declared

ROOT = Path(__file__).resolve().parents[2]
OLDEST_INVOKE = (2, 2)
REPORT_VARIABLE = "PROVISION_BOOTSTRAP"
UPDATE = "update"
"""Value of REPORT_VARIABLE that tells `./invoke` to look closely: `tasks.py` found env/ stale."""
LEFT = "left"
"""The same, said by `./invoke` to itself when it goes on with the base interpreter."""


def project_environment(root: Path = ROOT) -> EnvironmentSpec:
    """Return the spec of the clone's own `env/`.

    Raises BootstrapError: `env.python` stands in a settings file in a form that cannot be read without PyYAML.
    """
    return EnvironmentSpec(
        path=root / "env",
        requirements=groups.asked_for(root, os.environ),
        optional=groups.optional(root),
        lock=root / ".state" / "bootstrap.lock",
        python=_absolute(read_env_python(root, os.environ)[0], root),
    )


def app_environment(
    home: Path, declared: Declared, lock: Path, python: str | None = None, label: str = "the app's virtualenv"
) -> EnvironmentSpec:
    """Return the spec of a virtualenv for another project's app, to be given to `generations.ensure`.

    What it needs has no hashes unless its own files name them; it may run any Python from 3.8 on.
    """
    return EnvironmentSpec(
        path=home,
        requirements=(),
        lock=lock,
        python=_absolute(python, declared.folder),
        require_hashes=False,
        minimum_python=(3, 8),
        working_directory=declared.folder,
        label=label,
        python_setting="app.python",
        declared=declared,
    )


def _absolute(python: str | None, base: Path) -> str | None:
    """Return an interpreter's path made absolute; a name or version is left as it is."""
    if python is None or not (os.sep in python or python.startswith("~")):
        return python
    return str(base / Path(python).expanduser())


def main(arguments: Sequence[str]) -> int:
    """Build or update `env/`, then become `env/bin/invoke`: the part of `./invoke` that is seldom needed.

    Returns 0 (a dry run without `env/`), 1 (an error, explained on stderr) or 130 (Ctrl-C).
    """
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminated)
    try:
        spec = project_environment()
        leave_environment(spec, arguments)
        os.environ.pop(REPORT_VARIABLE, None)
        if nothing_to_clean(spec, arguments):
            sys.stdout.write("There is nothing to remove: no env/ and no .state/.\n")
            return 0
        if is_dry_run(arguments):
            plan = inspect()
            steps = plan.steps()
            if plan.virtualenv != "keep":
                refuse(spec, plan)
                _print_planned(steps)
                return 0
        else:
            steps = ensure(spec)
        os.environ.pop(groups.VARIABLE, None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is _terminated:
                signal.signal(number, signal.SIG_DFL)
        enter(spec, arguments, steps)
    except BootstrapError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130


def ensure_environment() -> None:
    """Make sure that Invoke runs from a current `env/`; called by `tasks.py` before it imports anything else.

    Returns at once where it does, and where it is not Invoke that is importing. In all other cases this process
    becomes `./invoke`, or `env/bin/invoke`, with the same arguments in the same directory. One exception: asked only
    what there is (`--list`, `--help`, completion), an Invoke that can read the tasks itself answers where env/ is not
    ready, and completion never builds it.

    Raises invoke.Exit: `env.python` cannot be read, or `env/` was just made and is not right (exit code 1).
    """
    report = os.environ.pop(REPORT_VARIABLE, None)
    if report and report.startswith("["):
        _reported[:] = _parse_report(report)
    arguments = sys.argv[1:]
    question = asks_only(arguments)
    if not launched_by_invoke() or (question and _is_inside(ROOT / "env")):
        return
    try:
        spec = project_environment()
        plan = inspect()
        inside = _is_inside(spec.path)
        if question and not plan.current:
            if _reads_the_tasks():
                return
            if "--complete" in arguments:
                sys.exit(0)
        if inside and plan.current:
            if "provision.cli.program" in sys.modules:
                return
            enter(spec, arguments, ())  # from env/bin/invoke, which reads settings files in a way of its own
        if inside and is_dry_run(arguments):
            _reported[:] = plan.steps()
            return
        if report:
            raise BootstrapError(
                "running from env/",
                f"it was just made, and yet: {plan.virtualenv_why}; {plan.requirements_why}"
                if inside
                else f"{sys.prefix} took over from it",
                f"delete {spec.path} and type ./invoke setup",
            )
        if plan.current:
            enter(spec, arguments, ())
        os.environ[REPORT_VARIABLE] = UPDATE
        _execute(base_executable(), "env/wrapper.py", arguments)
    except BootstrapError as error:
        # Of the Invoke that is importing the tasks, whichever that is.
        raise sys.modules["invoke.exceptions"].Exit(str(error), code=1) from None


def need(*names: str) -> None:
    """Make sure that env/ has the packages of these groups; else this process becomes `./invoke`, which adds them.

    To be called before a command has changed anything: it begins anew.

    Raises BootstrapError: nothing may be changed (``--dry-run``).
    """
    if not groups.keeps_env(ROOT):
        _need_installed(names)
        return
    spec = project_environment()
    has = resolved(spec).requirements
    missing = [name for name in names if ROOT / groups.GROUPS[name] not in has]
    if not missing or not _is_inside(spec.path):
        return
    if is_dry_run(sys.argv[1:]):
        raise BootstrapError(
            f"looking at {', '.join(missing)}",
            "env/ does not have the packages for that yet, and a dry run installs nothing",
            f"type ./invoke setup --group {','.join(missing)}",
        )
    groups.announce(missing)
    groups.ask_for(missing)
    os.environ[REPORT_VARIABLE] = UPDATE
    _execute(base_executable(), "env/wrapper.py", sys.argv[1:])


def _need_installed(names: Iterable[str]) -> None:
    """See that the extras are there that these groups are: they are installed as the tool was.

    Raises BootstrapError: they are not; saying how to install them.
    """
    from importlib.util import find_spec

    missing = [name for name in names if any(find_spec(each) is None for each in groups.PACKAGES[name])]
    if not missing:
        return
    wanted = f"'{groups.DISTRIBUTION}[{','.join(missing)}]'"
    raise BootstrapError(
        f"looking for the packages of {', '.join(missing)}",
        f"{groups.DISTRIBUTION} is installed in {sys.prefix} without its extra {', '.join(missing)}",
        _how_to_install(wanted, Path(sys.prefix)),
    )


def _how_to_install(wanted: str, prefix: Path) -> str:
    """The command that adds an extra, by what has installed the tool."""
    if "uv" in prefix.parts and "tools" in prefix.parts:
        return f"type uv tool install {wanted}"
    if "uv" in prefix.parts:
        return f"type uvx --from {wanted} provision, and what follows"
    if "pipx" in prefix.parts:
        return f"type pipx install --force {wanted}"
    return f"type {sys.executable} -m pip install {wanted}"


def take_report() -> list[StepRecord]:
    """Return what the bootstrap did before this process began, once: a second call returns nothing."""
    report = os.environ.pop(REPORT_VARIABLE, None)
    steps = _parse_report(report) if report and report.startswith("[") else list(_reported)
    _reported.clear()
    return steps


def inspect(root: Path = ROOT) -> Plan:
    """Return what is stale in `env/`, and why; changes nothing.

    Raises BootstrapError: `env.python` cannot be read.
    """
    spec = project_environment(root)
    return decide(spec, examine(spec))


_reported: list[StepRecord] = []


def _parse_report(text: str) -> list[StepRecord]:
    try:
        return [StepRecord(**step) for step in json.loads(text)]
    except (ValueError, TypeError):
        return []  # not of our writing: nothing is known of what was done


def _print_planned(steps: Iterable[StepRecord]) -> None:
    for step in steps:
        sys.stdout.write(f"{step.name}: would change: {step.why}\n")
    sys.stdout.write("Nothing was changed. The later steps can be planned once env/ is there.\n")


def _terminated(signum: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


def nothing_to_clean(spec: EnvironmentSpec, arguments: Sequence[str]) -> bool:
    """Say whether `clean` is asked for where it has been: env/ goes last, and is not built to be removed again."""
    plain = {"clean", "--yes", "-y", "--dry-run"}
    asked = [each for each in arguments if each not in ("--search-root", str(ROOT))]
    gone = not (spec.path.exists() or spec.path.is_symlink() or spec.lock.parent.exists())
    return asked[:1] == ["clean"] and set(asked) <= plain and gone


_VALUED = {"-c", "--collection", "-D", "--list-depth", "-f", "--config", "-F", "--list-format", "-r"}
_VALUED |= {"--search-root", "-T", "--command-timeout", "--prompt-for-sudo-password"}
# -R among those of Invoke's short flags that take no value; the last one may take the next argument.
_SHORT_DRY = re.compile(r"-[dehpVw]*R[dehpVw]*[cDfFrT]?")
_QUESTIONS = {"-h", "--help", "-l", "--list", "-V", "--version", "--complete", "--print-completion-script"}


def asks_only(arguments: Sequence[str]) -> bool:
    """Say whether Invoke is only asked what there is, so that no task will run.

    The core options come before the first task; `--help` may also follow it, and `-h` stand at the very end.
    """
    core = True
    skip = False
    for position, argument in enumerate(arguments):
        if skip:
            skip = False
        elif argument == "--":
            return False
        elif not argument.startswith("-"):
            core = False
        elif core:
            if argument.split("=")[0] in _QUESTIONS or argument.startswith("-l"):
                return True
            skip = argument in _VALUED
        elif argument == "--help" or (argument == "-h" and position == len(arguments) - 1):
            return True
    return not arguments


def is_dry_run(arguments: Sequence[str]) -> bool:
    """Say whether nothing may be changed: `--dry-run`, or Invoke's own `-R`, `--dry`, also written as `-eR`."""
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--":
            return False
        elif argument in ("--dry-run", "--dry") or _SHORT_DRY.fullmatch(argument):
            return True
        else:
            skip = argument in _VALUED
    return False


def enter(spec: EnvironmentSpec, arguments: Sequence[str], steps: Iterable[StepRecord]) -> NoReturn:
    """Become the virtualenv's Invoke; `steps` is what it will find in `take_report`."""
    report = [
        [("name", s.name), ("changed", s.changed), ("why", s.why), ("seconds", s.seconds)] for s in steps
    ]
    os.environ[REPORT_VARIABLE] = json.dumps([dict(step) for step in report])
    # Not by the script's first line, which has a length limit and does not take spaces.
    _execute(str(spec.interpreter), "cli/entry.py", arguments)


def leave_environment(spec: EnvironmentSpec, arguments: Sequence[str]) -> None:
    """Go on with the base interpreter where this is the virtualenv's own: it may be about to be deleted.

    Done once: a base interpreter that takes itself for the virtualenv's must not become itself for ever.
    """
    if _is_inside(spec.path) and os.environ.get(REPORT_VARIABLE) != LEFT:
        os.environ[REPORT_VARIABLE] = LEFT
        _execute(base_executable(), "env/wrapper.py", arguments)


def _execute(python: str, script: str, arguments: Sequence[str]) -> NoReturn:
    """Become a script of the tool's, run by a Python."""
    typed.hand_on(os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(python, [*isolated(python), str(ROOT / "provision" / script), *arguments])  # noqa: S606
    except OSError as error:
        os.environ.pop(REPORT_VARIABLE, None)
        raise BootstrapError(
            f"running {python}", str(error), f"delete {ROOT / 'env'} and type ./invoke setup"
        ) from None


def _is_inside(path: Path) -> bool:
    return sys.prefix != sys.base_prefix and Path(sys.prefix).resolve() == path.resolve()


def launched_by_invoke() -> bool:
    """Say whether this process is Invoke's, as against one that imports the tasks for another reason.

    Debian and older pips name Invoke `invoke3` and `inv-3.9`.
    """
    program = Path(sys.argv[0])
    named = re.fullmatch(r"inv(oke)?(-?\d+(\.\d+)*)?", program.name) is not None
    return named or program.parts[-2:] == ("invoke", "__main__.py")


def _reads_the_tasks() -> bool:
    """Say whether the Invoke that is importing, and its Python, are new enough for the tasks as they are written."""
    found = re.match(r"(\d+)\.(\d+)", getattr(sys.modules.get("invoke"), "__version__", ""))
    new_enough = found is not None and (int(found.group(1)), int(found.group(2))) >= OLDEST_INVOKE
    return new_enough and sys.version_info >= MINIMUM_PYTHON
