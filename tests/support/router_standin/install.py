"""Makes the stand-in look like an installed mongos: an executable of that name."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def install(folder: Path, version: str) -> Path:
    """Writes an executable ``mongos`` that runs the stand-in with this Python.

    Args:
        folder: existing folder to put it in.
        version: the version that it claims, "6.0.5": that of the mongod it stands in front of.
    Returns:
        the executable's path.
    """
    repository = Path(__file__).resolve().parents[3]
    executable = folder / "mongos"
    executable.write_text(
        "#!/bin/sh\n"
        f"export ROUTER_STANDIN_VERSION={shlex.quote(version)}\n"
        f"export PYTHONPATH={shlex.quote(str(repository))}\n"
        f'exec {shlex.quote(sys.executable)} -m tests.support.router_standin "$@"\n'
    )
    executable.chmod(0o755)
    return executable
