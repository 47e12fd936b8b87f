"""Imports Invoke without what only its users' tests and its own reading of files need: a third of a short command's time.

`invoke.context` imports `unittest.mock` (and by it asyncio and ssl) for its `MockContext`; `invoke.util` imports a YAML of
its own, although `settings` reads all files here. Both are put off. Where another release of Invoke imports otherwise,
nothing is saved, and nothing breaks.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_YAML = "invoke.vendor.yaml"


class _Yaml(types.ModuleType):
    """Invoke's YAML, imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("yaml"), name)


def import_invoke() -> None:
    """Have Invoke in `sys.modules`."""
    if "invoke" in sys.modules:
        return
    put_off = [name for name in ("unittest", "unittest.mock") if name not in sys.modules]
    for name in put_off:
        stub: Any = types.ModuleType(name)
        stub.__path__ = []
        stub.Mock = object
        sys.modules[name] = stub
    sys.modules[_YAML] = _Yaml(_YAML)
    try:
        importlib.import_module("invoke.program")
    finally:
        for name in put_off:
            del sys.modules[name]
