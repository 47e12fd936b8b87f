"""Programs that run in the app's environment: its interpreter, its folder, and its database's address."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from provision.core.dataclass import dataclass
from pathlib import Path

from provision.core.errors import ProvisionError
from provision.settings.schema import DEFAULT_APP_ENV

_STANDARD_ERROR = 2
_HOSTS = re.compile(r"mongodb(?:\+srv)?://(?:[^@/?\s\"']*@)?(?P<hosts>[^/?\s\"']+)")


@dataclass(frozen=True)
class AppProgram:
    """How programs of an app run."""

    python: Path  # the interpreter of the app's virtualenv
    folder: Path  # app.path
    # the app's environment as `run` gives it: what it has (name → text) and must not have (name → None)
    variables: Mapping[str, str | None]

    def environment(self) -> dict[str, str]:
        """The whole environment, with the programs of the app's virtualenv first on the PATH."""
        found = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("INVOKE_") and name not in self.variables
        }
        found |= {name: value for name, value in self.variables.items() if value is not None}
        found["PATH"] = os.pathsep.join(
            filter(None, (str(self.python.parent), found.get("PATH", os.defpath)))
        )
        found["VIRTUAL_ENV"] = str(self.python.parents[1])
        return found

    def command(self, words: Sequence[str]) -> list[str]:
        """Words of the settings as a command: ``python`` is the interpreter of the app's virtualenv."""
        return [str(self.python), *words[1:]] if words[0] in ("python", "python3") else list(words)

    def run(self, words: Sequence[str], doing: str, given: bytes = b"", passed: Sequence[int] = ()) -> int:
        """Run a command to its end. What it prints goes to our standard error.

        `given` is its standard input. `passed` are descriptors that it inherits.

        Returns: Its exit status; one that was ended by a signal has 128 and the signal's number.
        Raises ProvisionError: there is no such command.
        """
        command = self.command(words)
        environment = self.environment()
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                input=given,
                stdout=_STANDARD_ERROR,
                pass_fds=passed,
                check=False,
            )
        except OSError as error:
            raise ProvisionError(
                doing,
                f"{command[0]} can't be run: {error.strerror or error}.",
                "Correct the command, or list the package that brings it in what declares the app's dependencies.",
            ) from None
        return done.returncode if done.returncode >= 0 else 128 - done.returncode

    def elsewhere(self, uri: str) -> Iterator[tuple[str, str]]:
        """The variables that name the app's database, and lead to another server: name, and that server.

        Variables of other names may lead where they want: an app may know a second server.

        `uri`: the connection string of the deployment.
        """
        environment, ours = self.environment(), set(_hosts(uri))
        for name in DEFAULT_APP_ENV.keys() & self.variables.keys():
            for host in _hosts(environment.get(name, "")):
                if host not in ours:
                    yield name, host


def _hosts(text: str) -> Iterator[str]:
    """The servers in the connection strings of a text, as host:port; this machine has one name."""
    for match in _HOSTS.finditer(text):
        for host in match["hosts"].split(","):
            whole = host if re.search(r":\d+$", host) else f"{host}:27017"
            yield re.sub(r"^(localhost|\[::1\])(?=:)", "127.0.0.1", whole)
