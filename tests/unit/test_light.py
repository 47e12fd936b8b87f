"""What a command imports of Invoke, and that nothing of it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from provision.cli.light import import_invoke
import_invoke()
{then}
"""


def printed(then: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(then=then)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_invoke_comes_without_mocks_and_event_loops() -> None:
    wanted = ("asyncio", "ssl", "unittest.mock", "invoke.program", "invoke.context")
    assert printed(f"print([name for name in {wanted!r} if name in sys.modules])") == str(list(wanted[3:]))


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("import unittest.mock; print(unittest.mock.Mock(return_value=1)())", "1"),
        ("from unittest import TestCase; print(TestCase.__name__)", "TestCase"),
        ("from invoke.util import yaml; print(yaml.safe_load('a: 1'))", "{'a': 1}"),
        ("import_invoke(); from invoke import task; print(task.__name__)", "task"),
    ],
)
def test_what_was_put_off_is_there_when_somebody_asks_for_it(then: str, said: str) -> None:
    assert printed(then) == said


def test_a_process_that_has_unittest_already_keeps_it() -> None:
    program = "import unittest.mock as before\n" + PROGRAM.format(
        then="import unittest.mock; print(unittest.mock is before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
