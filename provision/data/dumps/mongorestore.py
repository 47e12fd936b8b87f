"""Archive files of `mongodump --archive`, which the real `mongorestore` loads.

https://github.com/mongodb/mongo-tools: `common/archive/`
https://www.mongodb.com/docs/database-tools/mongorestore/
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Sequence
from provision.core.dataclass import dataclass
from pathlib import Path

from provision.core.errors import ProvisionError
from provision.core.text import redact
from provision.data.dumps.folder import SYSTEM_DATABASES

GET_TOOLS = "https://www.mongodb.com/try/download/database-tools"
_MAGIC = (0x6DE29981).to_bytes(4, "little")
_GZIP_MAGIC = b"\x1f\x8b"
_SAID_LINES = 8


@dataclass(frozen=True)
class Restored:
    """What mongorestore said at its end."""

    documents: int
    failures: int


def recognise(path: Path) -> str | None:
    """``plain`` or ``gzip`` where a file is an archive of mongodump's; None: it is none.

    Raises OSError: it can't be read.
    """
    with path.open("rb") as file:
        begin = file.read(len(_MAGIC))
        if begin == _MAGIC:
            return "plain"
        if not begin.startswith(_GZIP_MAGIC):
            return None
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as content:
                return "gzip" if content.read(len(_MAGIC)) == _MAGIC else None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return None


def restore(
    path: Path,
    compression: str,
    uri: str,
    database: str,
    only: Sequence[str],
    into: str,
    drop: bool,
    say: Callable[[str], None],
) -> Restored:
    """Have the mongorestore on the PATH load an archive.

    Args:
        uri: with the password; it goes into a file of mode 0600, never into arguments.
        say: gets its lines.

    Raises ProvisionError: there is no mongorestore, or it has failed.
    """
    doing = f"loading the archive {path}"
    program = shutil.which("mongorestore")
    if program is None:
        raise ProvisionError(
            doing,
            "It is an archive (`mongodump --archive`), which MongoDB's own mongorestore reads, and that is not on the PATH.",
            f"Install MongoDB's database tools: {GET_TOOLS}\n"
            "Or dump into a folder, which needs no tools: mongodump --out dump",
        )
    descriptor, config = tempfile.mkstemp(prefix="invoke-mongorestore-", suffix=".yaml")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:  # made with mode 0600
            file.write(f'uri: "{uri}"\n')
        arguments = [f"--config={config}", f"--archive={path}"]
        arguments += ["--gzip"] if compression == "gzip" else []
        arguments += ["--drop"] if drop else []
        arguments += _namespaces(database, only, into)
        return _run([program, *arguments], doing, say)
    finally:
        Path(config).unlink(missing_ok=True)


def _namespaces(database: str, only: Sequence[str], into: str) -> list[str]:
    included = [f"{_literal(database) or '*'}.{_literal(name)}" for name in only]
    if database and not only:
        included = [f"{_literal(database)}.*"]
    found = [f"--nsInclude={each}" for each in included]
    found += [f"--nsExclude={name}.*" for name in sorted(SYSTEM_DATABASES)]
    if into:
        source = f"{_literal(database)}.*" if database else "$database$.$collection$"
        target = f"{_literal(into)}.*" if database else f"{into}.$collection$"
        found += [f"--nsFrom={source}", f"--nsTo={target}"]
    return found


def _literal(name: str) -> str:
    """A name in mongorestore's patterns."""
    return re.sub(r"([\\*])", r"\\\1", name)


def _run(command: Sequence[str], doing: str, say: Callable[[str], None]) -> Restored:
    lines: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None  # noqa: S101 — it is a pipe
        for line in process.stderr:
            lines.append(redact(line.rstrip()))
            say(lines[-1])
    told = re.search(r"(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed", "\n".join(lines))
    if process.returncode != 0 and not (told and int(told[2])):
        raise ProvisionError(
            doing,
            f"mongorestore ended with {process.returncode}.",
            "Correct what its last lines say, and load again.",
            lines[-_SAID_LINES:],
        )
    return Restored(int(told[1]) if told else 0, int(told[2]) if told else 0)
