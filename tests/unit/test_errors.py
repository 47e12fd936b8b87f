"""An error says what was being done, what stopped it, what to type next; only our bugs show a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError

ROOT = Path(__file__).resolve().parents[2]


def test_the_three_parts_are_printed_one_after_another() -> None:
    error = ProvisionError("starting it", "It broke.\nTwice.", "Mend it.", ["one", "two"])
    assert error.text().splitlines() == [
        "error: starting it",
        "  why:  It broke.",
        "        Twice.",
        "  log:  one",
        "        two",
        "  next: Mend it.",
    ]
    assert str(error) == error.text()


def test_without_log_lines_there_is_no_log() -> None:
    assert "log:" not in ProvisionError("a", "b", "c").text()


def test_an_error_needs_no_invoke() -> None:
    program = "import sys\nsys.modules['invoke'] = None\nfrom provision.core.errors import ProvisionError"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_scripts_get_the_same_parts() -> None:
    assert ProvisionError("a", "b", "c", ["d"]).as_json() == {
        "error": {"doing": "a", "cause": "b", "remedy": "c", "log": ["d"]}
    }


def raised(statement: str) -> subprocess.CompletedProcess[str]:
    program = f"from provision.cli.uncaught import install_excepthook\ninstall_excepthook()\n{statement}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("code", [1, 2])
def test_it_is_printed_without_a_traceback_and_the_command_ends_with_its_code(code: int) -> None:
    done = raised(
        f"from provision.core.errors import ProvisionError\nraise ProvisionError('a', 'b', 'c', code={code})"
    )
    assert done.returncode == code
    assert done.stderr == ProvisionError("a", "b", "c").text() + "\n"


def test_a_bug_of_ours_shows_its_traceback_and_says_so() -> None:
    done = raised("raise RuntimeError('ours')")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert "This is a bug in the tool" in done.stderr


def test_an_interrupt_has_no_traceback() -> None:
    done = raised("raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("number", ["ENOSPC", "EACCES", "EROFS"])
def test_a_disk_that_refuses_is_no_bug_of_ours(number: str) -> None:
    done = raised(f"import errno\nraise OSError(errno.{number}, 'Refused', '/some/file')")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: using /some/file" in done.stderr
    assert "  why:  Refused." in done.stderr
