"""What the tasks share: a session, one rendering of results and errors, and the arguments that Invoke's parser lacks.

Importing this needs nothing but Invoke and the standard library: `invoke --list` reads all tasks.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from invoke.context import Context
from invoke.exceptions import ParseError
from invoke.parser.argument import Argument
from invoke.tasks import Task, task

from provision.cli.numeric_flags import checked
from provision.core import output
from provision.core.errors import PackagesMissing, ProvisionError
from provision.core.typed import as_typed, runs_as
from provision.settings.layers import RUNTIME_CONFIG, START

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session
    from provision.deployments.deployment import Up

ON = {"on": "which deployment of invoke.yaml (default: local)"}
ON_CLUSTER = {"on": "which deployment of invoke.yaml (default: cluster)"}
JSON = {"json": "print the result as JSON, for scripts"}


def command(
    *, only_prints: bool = False, needs: Sequence[str] = (), **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Make a task of a function that takes a `Session` and returns a `Result`, or None where it speaks for others.

    A function with a result gets the flag `--json`. Errors are shown as JSON to those who asked for JSON.

    Args:
        only_prints: the task does nothing but print, so that it has failed where its output was lost.
        needs: groups of packages; the command begins anew with those that are missing.
        options: Invoke's.
    """

    def decorate(body: Callable[..., Any]) -> Any:
        own = inspect.signature(body)
        gives_result = own.return_annotation != "None"

        def run(ctx: Context, *args: Any, **kwargs: Any) -> None:
            _begin(body.__name__)
            if not only_prints:
                output.work_begins()
            json = bool(kwargs.pop("json", False) if gives_result else kwargs.get("json"))
            try:
                if ctx.config.run.dry and not only_prints:
                    _have_dry_run(body.__name__, own, kwargs)
                session = _session(ctx, json)
                if needs:
                    need(*needs)
                _render(body(session, *args, **kwargs), json)
            except ProvisionError as raised:
                error = _begun_anew(raised)
                if json:
                    _print_json(error.as_json())
                raise error from None
            finally:
                _end()

        run.__name__, run.__doc__, run.__module__ = body.__name__, body.__doc__, body.__module__
        run.__signature__ = _with_json(own) if gives_result else own  # type: ignore[attr-defined]
        run.__wrapped__ = body  # type: ignore[attr-defined]
        if gives_result:
            options["help"] = {**options.get("help", {}), **JSON}
        return task(klass=_Task, **options)(run)

    return decorate


def _have_dry_run(name: str, own: inspect.Signature, arguments: dict[str, Any]) -> None:
    """Make Invoke's `-R` the task's own `--dry-run`.

    Raises ProvisionError: it has none.
    """
    if "dry_run" not in own.parameters:
        raise ProvisionError(
            f"making a dry run of {name.replace('_', '-')}",
            "It has none: it would do its work.",
            "Leave out -R. Tasks with --dry-run: setup, cluster.up, clean and others; `invoke --help TASK` says it.",
        )
    arguments["dry_run"] = True


def _begin(name: str) -> None:
    """Have errors and Ctrl-C handled as the tool's own program does, also where plain Invoke runs somebody's `tasks.py`."""
    from provision.cli import interrupts

    if "provision.cli.program" in sys.modules:
        interrupts.go_on()
        return
    from provision.cli.uncaught import install_excepthook

    output.guard()
    install_excepthook()
    interrupts.install()
    runs_as("invoke", _prefix(name.replace("_", "-"), sys.argv[1:]))


def _end() -> None:
    """Have Ctrl-C end what comes after this task, where plain Invoke goes on with somebody's own."""
    if "provision.cli.program" not in sys.modules:
        from provision.cli import interrupts

        interrupts.go_on()


def _prefix(name: str, arguments: Sequence[str]) -> str:
    """What stands before the tool's own names for its tasks, as typed: ``"db."`` where somebody has added them as ``db``."""
    ours = ("cluster.", "hosts.", "snapshot.")
    for each in arguments:
        before = each.removesuffix(name)
        if before != each and before[-1:] in ("", "."):
            return next((before.removesuffix(own) for own in ours if before.endswith(own)), before)
    return ""


def _with_json(signature: inspect.Signature) -> inspect.Signature:
    flag = inspect.Parameter(
        "json", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False, annotation="bool"
    )
    return signature.replace(parameters=[*signature.parameters.values(), flag])


def _session(ctx: Context, json: bool) -> Session:
    from provision.cli.session import Session

    return Session(Path(ctx.config.get(START) or "."), ctx.config.get(RUNTIME_CONFIG), quiet=json)


def _render(result: Result[Any] | None, json: bool) -> None:
    """The one place where a result becomes text or JSON, and an exit status."""
    if result is None:
        return
    if json:
        _print_json(result.data)
        if result.error or result.status:
            sys.exit(result.error.code if result.error else result.status)
        return
    result.show()
    if result.error:
        raise result.error
    if result.status:
        sys.exit(result.status)


# What is written for people, also in JSON: commands in it are shown as they are typed.
_PROSE = frozenset(["cause", "doing", "lesson", "notes", "notices", "remedy", "text", "to_do", "what", "why"])


def _print_json(data: object) -> None:
    import json

    from provision.cli import display
    from provision.cli.result import as_text

    text = as_text(data)
    display.line(text if as_typed(text) == text else as_text(_prose_as_typed(json.loads(text))))


def _prose_as_typed(data: Any, key: str = "") -> Any:
    if isinstance(data, dict):
        return {name: _prose_as_typed(value, name) for name, value in data.items()}
    if isinstance(data, list):
        return [_prose_as_typed(each, key) for each in data]
    return as_typed(data) if isinstance(data, str) and key in _PROSE else data


def _begun_anew(error: ProvisionError) -> ProvisionError:
    """Begin the command anew with the packages that were missing; returns the error to show where that can't be."""
    if isinstance(error, PackagesMissing):
        try:
            need(error.group)
        except ProvisionError as refused:
            return refused
    return error


def need(*groups: str) -> None:
    """Have the packages of these groups; else the command begins anew with them.

    Raises ProvisionError: this is a dry run, or there is no such group.
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


def brought_up(done: Up, timings: bool = False, hint: str = "") -> Result[shapes.BroughtUp]:
    """The result of an `up`: people see its connection string alone on standard output. `hint`: one more notice."""
    from provision.cli import display, shapes
    from provision.cli.result import Result
    from provision.deployments import events

    moments = events.moments(done.timings)
    notices = (*done.notices, *([hint] if hint else ()))

    def show() -> None:
        for notice in notices:
            display.note(notice)
        if timings:
            display.timings(moments)
        display.line(done.uri)

    return Result(shapes.BroughtUp(done.deployment, done.started, done.uri, moments, notices), show)


def agreed(question: str, doing: str, yes: bool, or_else: str = "") -> bool:
    """Ask a person before something is deleted; only a yes is one. `yes`: they agreed on the command line.

    `or_else`: what they can type instead, for the error.

    Raises ProvisionError: nobody can answer.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ProvisionError(
            doing,
            "It asks before it deletes anything, and standard input is not a terminal. Nothing was deleted.",
            f"Add --yes to agree beforehand{or_else}.",
        )
    sys.stderr.write(f"{as_typed(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class _Task(Task[Any]):
    """A task whose numbers are checked, and whose positional arguments may be left out where their default is None.

    Invoke knows only positional arguments that are required: `cluster.distribution [COLLECTION]` would be an error
    without the collection.
    """

    def __deepcopy__(self, _memo: object) -> Self:
        """The task itself: Invoke copies all tasks as it begins, to change none of them. It takes a tenth of `--list`."""
        return self

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        parameters = self.argspec(self.body).parameters
        found: list[Argument] = []
        texts = dict(self.help)
        arguments = super().get_arguments(ignore_unknown_help)
        self.help = texts  # Invoke takes out each text that it has used
        for each in arguments:
            parameter = parameters[each.attr_name or str(each.name)]
            if each.positional:
                found.append((_Optional if parameter.default is None else _Positional).of(each))
            else:
                found.append(checked(each, parameter.annotation))
        return found


class _Positional(Argument):
    """One that is not a flag: Invoke would take `dump --gzipped` for a dump into a folder of that name."""

    @classmethod
    def of(cls, argument: Argument) -> Self:
        return cls(
            names=argument.names,
            kind=argument.kind,
            help=argument.help,
            positional=True,
            attr_name=argument.attr_name,
        )

    def set_value(self, value: Any, cast: bool = True) -> None:
        if isinstance(value, str) and value.startswith("-"):
            raise ParseError(f"No idea what {value!r} is!")
        super().set_value(value, cast)


class _Optional(_Positional):
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
