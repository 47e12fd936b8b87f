"""Flags that take a number. A task's parameter says which by its type: `int`, `Amount`, `Count` or `LocalPort`.

Invoke lets `int("x")` end in a traceback, and takes a parameter without a default number for text.
"""

from __future__ import annotations

from typing import Any

from invoke.exceptions import ParseError
from invoke.parser.argument import Argument

from provision.core.dataclass import dataclass

Amount = int
"""A whole number from 0 on."""
Count = int
"""A whole number from 1 on."""
LocalPort = int
"""A port of this machine; 0 stands for a free one."""


@dataclass(frozen=True)
class Takes:
    """Which numbers a flag takes."""

    least: int | None = None  # the smallest; None: any
    greatest: int | None = None  # the largest; None: any

    def read(self, flag: str, text: str, example: int) -> int:
        """The number that was typed.

        Args:
            flag: for the error: ``"--lines"``.
            text: what follows it.
            example: a number that it takes.

        Raises ParseError: it is not one of these; Invoke prints the message and ends with 1.
        """
        try:
            number = int(text)
            if (self.least is None or self.least <= number) and (
                self.greatest is None or number <= self.greatest
            ):
                return number
        except ValueError:
            pass
        bounds = "" if self.least is None else f" from {self.least}"
        bounds += "" if self.greatest is None else f" to {self.greatest}"
        given = text if len(text) <= 40 else f"{text[:37]}..."
        raise ParseError(
            f"error: {flag} {given}: it takes a whole number{bounds}, for example {flag} {example}"
        )


_TAKES = {"int": Takes(), "Amount": Takes(0), "Count": Takes(1), "LocalPort": Takes(0, 65535)}


class NumberArgument(Argument):
    """A flag whose value is checked as it is parsed."""

    takes = Takes()

    @classmethod
    def of(cls, argument: Argument, takes: Takes) -> NumberArgument:
        """The same flag, checked."""
        made = cls(
            names=argument.names,
            kind=int,
            default=argument.default,
            help=argument.help,
            positional=argument.positional,
            optional=argument.optional,
            attr_name=argument.attr_name,
        )
        made.takes = takes
        return made

    def set_value(self, value: Any, cast: bool = True) -> None:
        if cast:
            name = next(each for each in sorted(self.names, key=len, reverse=True))
            dashes = "--" if len(name) > 1 else "-"
            example = self.default or max(self.takes.least or 0, 4)
            value = self.takes.read(f"{dashes}{name.replace('_', '-')}", str(value), example)
        super().set_value(value, cast=False)


def checked(argument: Argument, annotation: object = None) -> Argument:
    """A flag as it is, or checked if it takes a number.

    `annotation`: the type of the task's parameter, as it is written; None: what Invoke knows counts.
    """
    takes = _TAKES.get(str(annotation).removesuffix(" | None"))
    if takes is None and argument.kind is int and not argument.incrementable:
        takes = Takes()
    return argument if takes is None else NumberArgument.of(argument, takes)
