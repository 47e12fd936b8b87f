"""Invoke as this tool runs it: `settings` reads files and variables, and `numeric_flags` checks numbers."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Callable
from typing import Any

from invoke import __version__  # type: ignore[attr-defined]
from invoke.config import Config
from invoke.exceptions import ParseError
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.parser.parser import Parser
from invoke.program import Program

from provision import VERSION
from provision.cli.numeric_flags import checked
from provision.core.errors import ProvisionError, did_you_mean
from provision.core.typed import as_typed
from provision.settings.layers import RUNTIME_CONFIG, START


class _Config(Config):
    """Invoke's own defaults and flags alone.

    Invoke's reading of files passes over one that is missing, ends in a traceback where one is wrong, and lets
    a `tasks:` section meant for another project rename the tasks of this one.
    """

    def load_base_conf_files(self) -> None: ...

    def load_project(self, merge: bool = True) -> None: ...

    def load_runtime(self, merge: bool = True) -> None: ...

    def load_shell_env(self) -> None:
        self.merge()


class _Program(Program):
    def parse_core(self, argv: list[str] | None) -> None:
        """See Invoke's: it forbids bytecode without `--write-pyc`, and so each command would compile the tool anew."""
        forbidden = sys.dont_write_bytecode
        super().parse_core(argv)
        sys.dont_write_bytecode = forbidden

    def core_args(self) -> list[Argument]:
        return [checked(each) for each in super().core_args()]

    def task_args(self) -> list[Argument]:
        return [checked(each) for each in super().task_args()]

    def _make_parser(self) -> Parser:
        """A parser of the tasks that are typed: to prepare all of them takes a tenth of a short command's time."""
        typed = " ".join(self.argv)
        return Parser(
            initial=self.initial_context,
            contexts=[
                ParserContext(name=name, aliases=aliases, args=self.collection[name].get_arguments())
                for name, aliases in self.collection.task_names.items()
                if self.args.complete.value or any(each in typed for each in (name, *aliases))
            ],
        )

    def parse_tasks(self) -> None:
        """See Invoke's: it takes the `--help` behind a task with a positional argument for that argument."""
        typed = self.core.unparsed
        if {"--help", "-h"} & set(typed[1:]) and self._takes_for_a_value(typed[0], "--help" in typed):
            self.core[0].args["help"].value, self.core.unparsed = typed[0], []
        try:
            super().parse_tasks()
        except ParseError as error:
            raise ParseError(self._explained(str(error), error.context), error.context) from None

    def _explained(self, said: str, context: ParserContext | None) -> str:
        """What Invoke does not know, with what comes close to it and what to type next."""
        unknown = re.fullmatch(r"No idea what (['\"])(.+)\1 is!", said)
        if unknown is None:
            return said
        word, task = unknown[2], context.name if context is not None else None
        flag = word.startswith("-")
        if flag and task is None and not self.core.unparsed[0].startswith("-"):
            task = self.core.unparsed[0]  # the flag stands where this task takes a name
        if flag:
            known = list(context.flag_names()) if context is not None else []
        else:
            names = self.collection.task_names
            known = ["--help", *names, *itertools.chain(*names.values())]
        close = did_you_mean(word, known)
        place = f" {task}" if task is not None else ""
        next_ = "See what there is: invoke --list. What one does: invoke --help NAME"
        if flag or (task is not None and not close):
            next_ = f"See what there is: invoke --help{place}"
        return ProvisionError(
            f"reading the command line{' of' if place else ''}{place}",
            f"No idea what {word!r} is{close}.",
            next_,
        ).text()

    def _takes_for_a_value(self, name: str, long: bool) -> bool:
        with contextlib.suppress(KeyError, ValueError):  # there is no such task; it is a collection
            task = self.collection[name]
            # Some have a `-h` of their own: a host.
            own = any(parameter.startswith("h") for parameter in task.argspec(task.body).parameters)
            return bool(task.positional) and (long or not own)
        return False

    def update_config(self, merge: bool = True) -> None:
        super().update_config(merge)
        self.config[RUNTIME_CONFIG] = self.args.config.value
        self.config[START] = self.args["search-root"].value


class _Installed(_Program):
    """Has the tool's own tasks wherever it is typed, and reads no `tasks.py`."""

    def load_collection(self) -> None:
        from provision.cli import collection

        self.collection = collection()

    def print_task_help(self, name: str) -> None:
        _print_as_typed(lambda: super(_Installed, self).print_task_help(name))

    def list_tasks(self) -> None:
        _print_as_typed(super().list_tasks)


def _print_as_typed(show: Callable[[], None]) -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        show()
    sys.stdout.write(as_typed(shown.getvalue()))


program: Any = _Program(
    name="Invoke",
    binary="inv[oke]",
    binary_names=["invoke", "inv"],
    version=__version__,
    config_class=_Config,
)
installed: Any = _Installed(
    name="provision", binary="provision", binary_names=["provision"], version=VERSION, config_class=_Config
)
