"""Runs one Flask app in the app's own interpreter. A script, started by `provision.app.launch`; never imported.

It needs nothing but the standard library and the app's own Flask, because the app may live in a virtualenv of
its own. Its parent holds the listening socket (so that no connection is refused while code is reloaded), the
gate that opens when the database is up, and restarts it when it ends with 3, as Werkzeug's reloader does.
"""

from __future__ import annotations

import signal

# Ctrl-C reaches this process too, even while it imports; its parent says what there is to say about it.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402


def main() -> int:
    """Wait at the gate, load the app, serve it.

    The order is given in the variable PROVISION_SERVE; through the gate comes the app's environment.
    """
    order = json.loads(os.environ.pop("PROVISION_SERVE"))
    # A script's own directory comes first on the path; here it would put our modules before the app's.
    sys.path[0] = str(Path.cwd())
    sys.argv = ["flask", "run"]
    _guard_output()
    _import_ahead()
    with os.fdopen(order["gate"], "rb", buffering=0, closefd=False) as gate:
        variables = gate.readline()
        if not variables:  # it closed: there will be no database
            return 0
        for name, value in json.loads(variables).items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    threading.Thread(target=_end_with_parent, args=(order["gate"],), daemon=True).start()

    from flask.cli import NoAppException, ScriptInfo, load_dotenv
    from werkzeug.serving import run_simple

    load_dotenv()
    app: Any
    try:
        app = ScriptInfo(app_import_path=order["factory"]).load_app()
    except NoAppException as error:
        print(error.format_message(), file=sys.stderr, flush=True)  # noqa: T201
        if not order["reloaded"]:
            return 1
        app = _broken
    except Exception:  # noqa: BLE001 — whatever the app raises is shown
        traceback.print_exc()
        if not order["reloaded"]:
            return 1
        app = _broken
    # What Werkzeug's own parent tells its child.
    os.environ["WERKZEUG_RUN_MAIN"] = "true"
    os.environ["WERKZEUG_SERVER_FD"] = str(order["socket"])
    if order["debug"]:
        _leave_no_semaphore()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_simple(
            order["host"],
            order["port"],
            app,
            use_reloader=order["reload"],
            use_debugger=order["debug"],
            threaded=True,
        )
    except KeyboardInterrupt:
        # It came before Werkzeug listens for it: end as before, by the signal and without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    finally:
        # It is ending. A further signal, or the one of our parent, ends it now and without a traceback out of
        # the clean-up of some library: Werkzeug's reloader would raise SystemExit in there.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return 0


def _guard_output() -> None:
    """Have what the app prints never fail: a page is served whether or not anybody reads the terminal."""
    spec = importlib.util.spec_from_file_location(
        "_provision_output", Path(__file__).parents[1] / "core" / "output.py"
    )
    assert spec is not None  # noqa: S101 — it is a file of the tool
    assert spec.loader is not None  # noqa: S101
    output = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(output)
    output.guard()


def _leave_no_semaphore() -> None:
    """Have Werkzeug's debugger use a semaphore without a name, as it does before Python 3.14.

    There, a named one is the default, and Python complains of it where the process is ended before it could clean up.
    """
    from multiprocessing import get_context

    from werkzeug import debug

    if hasattr(debug, "Value"):  # an older one has none
        debug.Value = get_context("fork").Value


def _import_ahead() -> None:
    """Import while the database starts what any such app will need, and nothing of the app itself."""
    for name in ("flask", "werkzeug.serving", "pymongo", "mongoengine", "flask_login", "flask_wtf"):
        try:
            __import__(name)
        except ImportError:
            if name == "flask":
                print(  # noqa: T201
                    f"Flask is not installed for {sys.executable}: list it in the app's requirements (app.requirements).",
                    file=sys.stderr,
                )
                sys.exit(1)


def _end_with_parent(gate: int) -> None:
    """A parent that was killed can't end its app: the gate's closing does."""
    while os.read(gate, 1):
        pass
    os._exit(0)


def _broken(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers while the code that was just saved can't be imported."""
    start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"The app could not be imported; the terminal shows why. Saving a correction reloads it.\n"]


if __name__ == "__main__":
    sys.exit(main())
