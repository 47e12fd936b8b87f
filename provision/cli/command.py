"""What the tasks share: settings, error display, and the arguments that Invoke's own parser lacks.

Importing this needs nothing but Invoke and the standard library: `invoke --list` reads all tasks.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.parser.argument import Argument
from invoke.tasks import Task, task

from provision.cli.numeric_flags import checked
from provision.core import output
from provision.core.errors import PackagesMissing, ProvisionError

if TYPE_CHECKING:
    from provision.deployments.deployment import Deployment, Up
    from provision.settings.loading import Loaded

ROOT = Path(__file__).resolve().parents[2]
ON = {"on": "which deployment of invoke.yaml (default: local)"}
ON_CLUSTER = {"on": "which deployment of invoke.yaml (default: cluster)"}
JSON = {"json": "print the result as JSON, for scripts"}


def command(*, only_prints: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A task whose errors are shown as JSON to those who asked for JSON.

    Args:
        only_prints: it does nothing but print, so that it has failed where its output was lost.
        options: Invoke's.
    """

    def decorate(body: Callable[..., Any]) -> Any:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not only_prints:
                output.work_begins()
            try:
                _read_settings_files(args[0])
                return body(*args, **kwargs)
            except ProvisionError as raised:
                error = _begun_anew(raised)
                if kwargs.get("json"):
                    from provision.cli import display

                    display.as_json(error.as_json())
                raise error from None

        return task(klass=_Task, **options)(run)

    return decorate


def _begun_anew(error: ProvisionError) -> ProvisionError:
    """Begin the command anew with the packages that were missing; returns the error to show where that can't be."""
    if isinstance(error, PackagesMissing):
        try:
            need(error.group)
        except ProvisionError as refused:
            return refused
    return error


def _read_settings_files(ctx: Context) -> None:
    """Have a settings file that is missing or broken stop every task, also one that asks for no setting.

    Raises:
        ProvisionError: naming it. `load` reads them no second time.
    """
    from provision.settings.layers import RUNTIME_CONFIG, read_layers

    read_layers(ROOT, os.environ, ctx.config.get(RUNTIME_CONFIG))


def need(*groups: str) -> None:
    """Have the packages of these groups; else the command begins anew with them.

    Raises:
        ProvisionError: this is a dry run.
    """
    from provision.env import bootstrap
    from provision.env.groups import GROUPS
    from provision.env.virtualenv import BootstrapError

    if unknown := [name for name in groups if name not in GROUPS]:
        raise ProvisionError(
            "installing a group of packages",
            f"There is no group {unknown[0]}.",
            f"Name some of {','.join(GROUPS)}.",
        )
    try:
        bootstrap.need(*groups)
    except BootstrapError as error:
        raise ProvisionError(error.doing, error.cause, error.remedy) from None


def load(
    ctx: Context,
    remember: bool = True,
    given: Mapping[str, tuple[str, Any]] | None = None,
    remembered: bool = True,
) -> Loaded:
    """The settings in force.

    Args:
        ctx: the task's.
        remember: as for `settings.load`.
        given: dotted key → (the flag as typed, value); they win over everything.
        remembered: with the flags that earlier commands were given.

    Raises:
        ProvisionError: they are wrong.
    """
    from provision.settings import loading
    from provision.state.remembered import flags

    _require_own_files([ROOT / ".state", ROOT / "mongod.conf"])
    layers = loading.layers_of(ctx.config, ROOT)
    loaded = loading.load(ROOT, layers, os.environ, given, remember, flags(ROOT) if remembered else None)
    _require_own_files([loaded.paths.data, loaded.paths.log])
    return loaded


def _require_own_files(places: Sequence[Path]) -> None:
    """Refuse to work on files that another user has made, which would be taken for missing.

    Raises:
        ProvisionError: whose they are, and the commands that give them back.
    """
    from provision.machine.access import chown, foreign, user_name

    found = foreign(places)
    if found is None:
        return
    path, owner = found
    theirs, me = user_name(owner), user_name(os.geteuid())
    usual = [ROOT / name for name in (".state", "mongod.conf", "data", "log")]
    mine = [place for place in (*usual, *places) if place.exists()]
    as_them = "sudo" if owner == 0 else f"sudo -u {theirs}"
    raise ProvisionError(
        "using the files of this clone",
        f"{path} belongs to {theirs}, and you are {me}: a command was run here with sudo, or as {theirs}.",
        f"{as_them} ./invoke stop\n{chown(dict.fromkeys(mine))}\nThen type the same again, without sudo.",
    )


def ready(loaded: Loaded, on: str) -> Deployment:
    """A deployment that can be started: with a mongod where its nodes are processes, here or on hosts.

    Raises:
        ProvisionError: there is no such deployment, or no mongod for it.
    """
    from provision.cli import display
    from provision.deployments import assembly, setup_steps

    deployment = assembly.deployment(loaded, on)
    if not deployment.backend.capabilities.needs_mongod:
        return deployment
    chosen = setup_steps.ensure_for_start(loaded, display.StepLines(stream=sys.stderr), on)
    return assembly.deployment(loaded, on) if chosen else deployment


def running(loaded: Loaded, on: str, doing: str) -> Deployment:
    """A deployment that clients can connect to.

    Args:
        loaded: the settings in force.
        on: its name.
        doing: what they want of it, for the error.

    Raises:
        ProvisionError: it is not running, or another program has its port.
    """
    from provision.deployments import assembly, cluster

    deployment = assembly.deployment(loaded, on)
    if not deployment.running(deployment.topology.seeds):
        raise cluster.not_running(deployment, doing)
    deployment.check_answers(deployment.topology.seeds, doing)
    tell_differences(deployment)
    return deployment


def tell_differences(deployment: Deployment) -> None:
    """Say on standard error how what runs differs from what the settings ask for, and what applies it."""
    from provision.cli import display

    for difference in deployment.differences():
        display.note(difference)


def show_up(done: Up, timings: bool, json: bool) -> None:
    """Show what an `up` did: on standard output its connection string alone, or all of it as JSON."""
    from provision.cli import display
    from provision.deployments import events

    if json:
        display.as_json({**vars(done), "timings": [vars(each) for each in events.moments(done.timings)]})
        return
    for notice in done.notices:
        display.note(notice)
    if timings:
        display.timings(events.moments(done.timings))
    display.line(done.uri)


def agreed(question: str, doing: str, yes: bool, flag: str = "--yes") -> bool:
    """Ask a person before something is deleted.

    Args:
        question: what is asked.
        doing: the work, for the error.
        yes: they agreed on the command line.
        flag: how they do that.

    Raises:
        ProvisionError: nobody can answer.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ProvisionError(
            doing,
            "It asks before it deletes data, and standard input is not a terminal. Nothing was deleted.",
            f"Add {flag} to agree beforehand.",
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class _Task(Task[Any]):
    """A task whose numbers are checked, and whose positional arguments may be left out where their default is None.

    Invoke knows only positional arguments that are required: `cluster.distribution [COLLECTION]` would be an error
    without the collection.
    """

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        parameters = self.argspec(self.body).parameters
        found = []
        for each in super().get_arguments(ignore_unknown_help):
            parameter = parameters[each.attr_name or str(each.name)]
            optional = each.positional and parameter.default is None
            found.append(_Optional.of(each) if optional else checked(each, parameter.annotation))
        return found


class _Optional(Argument):
    @classmethod
    def of(cls, argument: Argument) -> _Optional:
        return cls(
            names=argument.names,
            kind=argument.kind,
            help=argument.help,
            positional=True,
            attr_name=argument.attr_name,
        )

    @property
    def value(self) -> Any:
        found = super().value
        if found is None and _asked_by("complete_context"):
            return ""
        return found

    @value.setter
    def value(self, given: str) -> None:
        self.set_value(given)


def _asked_by(function: str) -> bool:
    """Whether Invoke's parser is in a function of its own: at the end of a task's arguments it looks for missing ones."""
    frame = sys._getframe(2)
    for _ in range(3):
        if frame.f_code.co_name == function:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
