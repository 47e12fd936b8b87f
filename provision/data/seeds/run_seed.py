"""Runs one seed that is a Python program, in the app's own interpreter. A script, started by `applying`; never imported.

It needs the standard library and the app's own PyMongo. The order comes through standard input, so that no process
listing shows it. What is wrong with the seed goes to the parent through a descriptor of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> int:
    """Import the file, and call its ``seed`` with the database."""
    order = json.loads(sys.stdin.buffer.read())
    os.set_inheritable(order["report"], False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    file = Path(order["file"])
    # As `run` has it: the app's folder comes first. Its modules are the app's, and helpers may stand beside a seed.
    sys.path[0] = str(Path.cwd())
    sys.path.append(str(file.parent))
    sys.argv = [str(file)]
    try:
        from pymongo import MongoClient
    except ImportError as error:
        _report(order, f"The app's virtualenv has no PyMongo: {error}.", [], "pymongo")
        return 1
    try:
        spec = importlib.util.spec_from_file_location(
            "seed_" + "".join(filter(str.isalnum, file.stem)), str(file)
        )
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        seed = getattr(module, "seed", None)
        if not callable(seed):
            _report(order, f"{order['name']} has no function `def seed(database):`.", [], "function")
            return 1
        client: Any = MongoClient(order["uri"], appname="invoke seed", serverSelectionTimeoutMS=10_000)
        seed(client[order["database"]])
        client.close()
    except SystemExit as error:
        if error.code in (None, 0):
            return 0
        return _explain(order, error, file)
    except Exception as error:  # noqa: BLE001 — it is the user's code
        return _explain(order, error, file)
    return 0


def _explain(order: dict[str, Any], error: BaseException, file: Path) -> int:
    """Report an error: the user's own line first, then the traceback without our frames."""
    last = "".join(traceback.format_exception_only(type(error), error)).strip()
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename != __file__]
    while frames and frames[0].filename.startswith("<frozen importlib"):
        frames.pop(0)
    own = [each for each in frames if each.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line = error.lineno
    else:
        line = own[-1].lineno if own else None
    where = f"{order['name']}:{line}" if line else order["name"]
    code = f"\n{own[-1].line}" if own and own[-1].line else ""
    rest = [text for each in traceback.format_list(frames) for text in each.rstrip().split("\n")]
    summary = last.splitlines()[-1] if isinstance(error, SyntaxError) else last
    _report(order, f"{where}: {summary}{code}", rest if len(frames) > 1 else [], "error")
    return 1


def _report(order: dict[str, Any], line: str, trace: list[str], kind: str) -> None:
    with os.fdopen(order["report"], "w", encoding="utf-8") as report:
        json.dump({"line": line, "trace": trace, "kind": kind}, report)


if __name__ == "__main__":
    sys.exit(main())
