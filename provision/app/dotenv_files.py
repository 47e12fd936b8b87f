"""An app's own `.env` and `.flaskenv`, beside the environment that it is given.

`serve.py` reads this as a file, in the app's own virtualenv: the standard library, and Python 3.8, are enough.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any, Iterable, Mapping  # noqa: UP035 — for Python 3.8

NAMES = (".env", ".flaskenv")
_LINE = re.compile(r"^\s*(?:export\s+)?['\"]?([A-Za-z_][\w.]*)['\"]?\s*=\s*(.*?)\s*$")


def protect(names: Iterable[str]) -> None:
    """Have python-dotenv leave these variables as they are, even where the app calls it with ``override=True``."""
    try:
        kind: Any = importlib.import_module("dotenv.main").DotEnv
    except Exception:  # noqa: BLE001 — it is not there, or is another package of that name
        return
    kept = tuple(names)
    original: Any = getattr(kind, "set_as_environment_variables", None)
    if original is None:
        return

    def set_the_others(self: Any, *arguments: Any, **named: Any) -> Any:
        before = {name: os.environ[name] for name in kept if name in os.environ}
        try:
            return original(self, *arguments, **named)
        finally:
            os.environ.update(before)

    kind.set_as_environment_variables = set_the_others


def overridden(folder: Path, given: Mapping[str, str | None]) -> dict[str, list[str]]:
    """File → the variables that it sets to something else than what the app is given.

    The files are the nearest of each name in `folder` and above it, where python-dotenv looks for them.
    """
    found = {}
    for name in NAMES:
        file = next((each / name for each in (folder, *folder.parents) if (each / name).is_file()), None)
        if file is None:
            continue
        set_there = _variables(file)
        names = [
            each for each, value in given.items() if value is not None and set_there.get(each, value) != value
        ]
        if names:
            found[name] = names
    return found


def _variables(file: Path) -> dict[str, str]:
    """What a file sets, as far as its values stand in one line each."""
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        match = _LINE.match(line)
        if match:
            value = match.group(2)
            quoted = re.match(r"(['\"])(.*?)\1", value)
            found[match.group(1)] = quoted.group(2) if quoted else re.sub(r"\s+#.*$", "", value)
    return found
