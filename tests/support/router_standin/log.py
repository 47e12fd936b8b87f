"""One JSON line per event, in MongoDB's structured log format.

Follows https://www.mongodb.com/docs/manual/reference/log-messages/.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO


class Log:
    """Writes to `path`, or to standard output where that is None; keeps the last lines for ``getLog``."""

    def __init__(self, path: Path | None = None, *, append: bool = False) -> None:
        self.recent: deque[str] = deque(maxlen=1024)
        self._lock = threading.Lock()
        self._out: TextIO = sys.stdout
        if path is not None:
            if path.exists() and not append:
                path.rename(path.with_name(f"{path.name}.{datetime.now():%Y-%m-%dT%H-%M-%S}"))
            self._out = path.open("a", encoding="utf-8")

    def __call__(
        self, component: str, number: int, message: str, severity: str = "I", **attributes: Any
    ) -> None:
        """Writes one event: MongoDB's component name, message number, text, and attributes (never a secret)."""
        entry = {
            "t": {"$date": datetime.now().astimezone().isoformat(timespec="milliseconds")},
            "s": severity,
            "c": component,
            "id": number,
            "ctx": threading.current_thread().name,
            "msg": message,
        }
        if attributes:
            entry["attr"] = attributes
        line = json.dumps(entry, default=str, separators=(",", ":"))
        with self._lock:
            self.recent.append(line)
            print(line, file=self._out, flush=True)
