"""A project of somebody else's, whose tests use the pytest plugin: a folder, a temporary directory, and pytest in them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from provision.backends.processes import MARK
from tests.support import processes
from tests.support.clones import Running
from tests.support.polling import until

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 110
SIX_LINES = """
    def test_a_document_is_found_again(database):
        database.people.insert_one({"name": "Ada"})

        found = database.people.find_one({"name": "Ada"})

        assert found is not None
"""


@dataclass
class Project:
    """The project.

    Args:
        root: its folder.
        mongod: passed as --mongod; empty: not passed.
        options: of every run of pytest in it.
        python: runs pytest.
        installed: that Python has this package; otherwise the plugin is named on the command line.
        named: it is; False: each run names it itself.
        prefix: what every run of pytest is written behind.
    """

    root: Path
    mongod: str = ""
    options: tuple[str, ...] = ()
    python: str = sys.executable
    installed: bool = False
    named: bool = True
    prefix: tuple[str, ...] = ()
    _started: list[Running] = field(default_factory=list)

    @property
    def temporary(self) -> Path:
        """Its temporary directory: runs in it know nothing of runs elsewhere."""
        folder = self.root.parent / "temporary"
        folder.mkdir(exist_ok=True)
        return folder

    def write(self, name: str, text: str) -> None:
        """Write one of its files."""
        self.root.mkdir(exist_ok=True)
        (self.root / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def pytest(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run pytest to its end."""
        return subprocess.run(
            [*self._command(), *arguments],
            cwd=self.root,
            env=self._environment(env),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def passes(self, *arguments: str, **env: str) -> str:
        """Run pytest, which must pass.

        Returns:
            What it printed.
        """
        done = self.pytest(*arguments, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fails(self, *arguments: str, status: int = 1, **env: str) -> str:
        """Run pytest, which must fail.

        Returns:
            What it printed, on both streams.
        """
        done = self.pytest(*arguments, **env)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def begin(self, *arguments: str, **env: str) -> Running:
        """Start pytest and don't wait for it."""
        output = self.root.parent / f"output-{len(self._started)}"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [*self._command(), *arguments],
                cwd=self.root,
                env=self._environment(env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(Running(process, output))
        return self._started[-1]

    def told(self, name: str) -> list[Any]:
        """What its tests have written into a file, a JSON document on each line."""
        try:
            lines = (self.root / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def tells(self, name: str, running: Running) -> Any:
        """Wait for the first line of such a file."""

        def ask() -> list[Any]:
            assert running.process.poll() is None, running.text
            return self.told(name)

        return until(f"{name} to be written", ask, detail=lambda: running.text)[0]

    def nodes(self) -> list[psutil.Process]:
        """The MongoDB processes of its runs."""
        return processes.marked(MARK, lambda mark: mark.startswith(f"{self.temporary.resolve()}/"))

    def runs(self) -> list[str]:
        """The folders of its runs."""
        return sorted(path.parent.name for path in self.temporary.glob("provision-pytest-*/*/owner.json"))

    def close(self) -> None:
        """End what it has started and is still running."""
        for running in self._started:
            with contextlib.suppress(ProcessLookupError):
                running.process.kill()
            running.process.wait()
        processes.end(self.nodes())

    def _command(self) -> list[str]:
        plugin = [] if self.installed or not self.named else ["-p", "provision.testing.plugin"]
        mongod = [f"--mongod={self.mongod}"] if self.mongod else []
        return [
            *self.prefix,
            self.python,
            "-m",
            "pytest",
            *plugin,
            "-p",
            "no:cacheprovider",
            # It stands in the virtualenv of these tests, not in the project's. Its import takes as long as mongod's start.
            "-p",
            "no:hypothesispytest",
            *mongod,
            *self.options,
        ]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("INVOKE_", "PYTEST_", "FLASK_", "MONGO", "PROVISION_"))
            and name not in ("SECRET_KEY", "SECRET_KEY_FILE", "PYTHONPATH", "VIRTUAL_ENV")
        }
        if not self.installed:
            kept["PYTHONPATH"] = str(ROOT)
        return {**kept, "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1", **more}
