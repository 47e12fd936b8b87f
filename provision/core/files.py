"""Writing files so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Put content into a file under a temporary name, then move it into place.

    The file never has wider permission bits than `mode`, not even for a moment. Raises OSError: the directory
    or file cannot be written; nothing of the attempt is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_if_changed(path: Path, text: str) -> bool:
    """Write a text file, atomically, unless it says that already.

    Returns: Whether it was written.
    Raises OSError: as `write_atomically`.
    """
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    write_atomically(path, text)
    return True


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Write a record as JSON, atomically.

    Raises OSError: as `write_atomically`.
    """
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a record; one that is missing or not ours to understand reads as None."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
