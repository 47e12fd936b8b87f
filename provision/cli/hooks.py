"""What the hooks of pre-commit run in other repositories: `provision-hook settings`, `rendered`, `seeds` and
`passwords FILE…`.

`.pre-commit-hooks.yaml` offers them. Each prints what is wrong, a line each, and ends with 1; or it prints nothing.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from provision.core.errors import USER_ERROR, ProvisionError
from provision.core.text import redact
from provision.core.typed import runs_as

if TYPE_CHECKING:
    from provision.settings.loading import Loaded

_URI = re.compile(rb"mongodb(?:\+srv)?://[^\s:/@\"'<>]*:(?P<password>[^\s/@\"']+)@")
# What stands for a password, and is none: <password>, ${PASSWORD}, {{ password }}, %(password)s, ****, xxxx.
_PLACEHOLDER = re.compile(rb"[<{$%].*|\*+|x+|X+|\.+")
ALLOWED = "provision: allow-password"


def main() -> int:
    """Run one hook. The arguments are its name, and for `passwords` the files to read."""
    runs_as("provision")
    name, *files = sys.argv[1:] or [""]
    hooks: dict[str, Callable[[], Sequence[str]]] = {
        "settings": lambda: settings(Path.cwd()),
        "rendered": lambda: rendered(Path.cwd()),
        "seeds": lambda: list(seeds(Path.cwd())),
        "passwords": lambda: [each for file in files for each in passwords(Path(file))],
    }
    if name not in hooks:
        sys.stderr.write(f"There is no hook {name!r}. Name one of {', '.join(hooks)}.\n")
        return USER_ERROR
    try:
        wrong = hooks[name]()
    except ProvisionError as error:
        wrong = [error.text()]
    sys.stderr.write("".join(f"{each}\n" for each in wrong))
    return USER_ERROR if wrong else 0


def settings(start: Path) -> list[str]:
    """Read the project's settings.

    Raises ProvisionError: they are wrong.
    """
    _load(start)
    return []


def rendered(start: Path) -> list[str]:
    """The rendered files at the project's top that are not what the templates and settings give.

    Raises ProvisionError: the settings are wrong.
    """
    from provision.backends.registry import in_containers
    from provision.deployments import assembly

    loaded = _load(start)
    if not loaded.paths.shows_configuration:
        return []  # nothing that is rendered stands where git sees it
    wrong = []
    conf = loaded.paths.node_conf("local", "mongod")
    if "local" in loaded.settings.deployments and conf.is_file():
        drifted = assembly.deployment(loaded, "local", as_asked=True).rendering.drifted()
        wrong += [
            f"mongod.conf: {why}. Type: provision setup" for name, why in drifted.items() if name == "mongod"
        ]
    file = loaded.paths.compose_file
    cluster = loaded.settings.deployments.get("cluster")
    if cluster is not None and file.is_file():
        backend = in_containers(assembly.backend(loaded, assembly.plan("cluster", cluster), cluster))
        if backend is not None and backend.render_compose() != file.read_text(encoding="utf-8"):
            wrong.append(
                f"{file.name}: not what templates/compose.yaml.j2 and invoke.yaml give. "
                f"Type: provision render --compose > {file.name}"
            )
    return wrong


def seeds(start: Path) -> Iterator[str]:
    """What is wrong in the project's seeds: of each file the first line that can't be read.

    Raises ProvisionError: the settings are wrong, or a file is none that seeds are read from.
    """
    from provision.data.seeds import files
    from provision.data.seeds.parsing import documents

    loaded = _load(start)
    for seed in files.find(loaded.paths.under_root(loaded.settings.seeds.dir), loaded.paths.root):
        try:
            if seed.kind is files.Kind.PYTHON:
                ast.parse(seed.path.read_bytes(), seed.name)
            elif not seed.is_program:
                for _ in documents(seed):
                    pass
        except ProvisionError as error:
            yield error.cause
        except (SyntaxError, ValueError) as error:
            yield f"{seed.name}:{getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}."


def passwords(file: Path) -> Iterator[str]:
    """The lines of a file with a connection string of MongoDB that has a password; placeholders are none."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return  # deleted in this commit
    for number, line in enumerate(lines, 1):
        if ALLOWED.encode() in line:
            continue
        for match in _URI.finditer(line):
            if not _PLACEHOLDER.fullmatch(match["password"]):
                shown = redact(match[0].decode("utf-8", "replace"))
                yield (
                    f"{file}:{number}: {shown} has a password. Read it from the environment; "
                    f"if it protects nothing, write `{ALLOWED}` in the line."
                )


def _load(start: Path) -> Loaded:
    from provision.cli.session import Session

    return Session(start, quiet=True).load(remember=False, remembered=False)
