"""Runs one Flask app in the app's own interpreter. A script, started by `provision.app.launch`; never imported.

It needs nothing but the standard library and the app's own Flask, because the app may live in a virtualenv of
its own. Its parent holds the listening socket (so that no connection is refused while code is reloaded), the
gate that opens when the database is up, and restarts it when it ends with 3, as Werkzeug's reloader does.
"""

from __future__ import annotations

# The module in C: to import `signal`, which is written in Python, takes long enough for a Ctrl-C to come in between.
import _signal  # type: ignore[import-not-found] # typeshed knows `signal` alone

# Ctrl-C reaches this process too, even while it imports; its parent says what there is to say about it.
_signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import contextlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402


def main() -> int:
    """Wait at the gate, load the app, serve it.

    The order is given in the variable PROVISION_SERVE; through the gate comes the app's environment. What stops the
    app is told to the parent through a descriptor of its own.
    """
    order = json.loads(os.environ.pop("PROVISION_SERVE"))
    # A script's own directory comes first on the path; here it would put our modules before the app's.
    sys.path[0] = str(Path.cwd())
    sys.argv = ["flask", "run"]
    os.set_inheritable(order["report"], False)
    _guard_output()
    loading = _part("loading")
    if not _import_ahead(loading, order):
        return 1
    with os.fdopen(order["gate"], "rb", buffering=0, closefd=False) as gate:
        line = gate.readline()
        if not line:  # it closed: there will be no database
            return 0
        variables = json.loads(line)
    _set_environment(variables)
    threading.Thread(target=_end_with_parent, args=(order["gate"],), daemon=True).start()
    try:
        app = _load(loading, order, variables)
    except Exception as error:  # noqa: BLE001 — whatever the app raises is shown
        _tell(loading, order, error)
        if not order["reloaded"]:
            return 1
        app = _broken
    except SystemExit as error:
        if error.code not in (None, 0):
            # Its status may be the one with which Werkzeug asks to be started again.
            _report(order, {**loading.reason(error, Path.cwd()), "exits": True})
        raise
    _serve(order, app)
    return 0


def _set_environment(variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    # As the command `flask` has it: Flask ignores an app.run() that stands in the module without a guard.
    os.environ["FLASK_RUN_FROM_CLI"] = "true"


def _load(loading: Any, order: dict[str, Any], variables: dict[str, Any]) -> Any:
    from flask.cli import load_dotenv
    from flask.helpers import get_debug_flag

    _part("dotenv_files").protect([name for name, value in variables.items() if value is not None])
    load_dotenv()
    app = loading.load(order["factory"], Path.cwd())
    app.flask.debug = get_debug_flag()
    mode = loading.own_server(app.flask)
    if mode:
        print(  # noqa: T201
            f"Flask-SocketIO works with {mode} in this app, and needs {mode}'s server. "
            'Set app.command in invoke.yaml, for example to ["python", "app.py", "--port", "{port}"].',
            file=sys.stderr,
            flush=True,
        )
    return app.wsgi


def _serve(order: dict[str, Any], app: Any) -> None:
    from werkzeug.serving import run_simple

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


def _guard_output() -> None:
    """Have what the app prints never fail: a page is served whether or not anybody reads the terminal."""
    _part("output", Path(__file__).parents[1] / "core" / "output.py").guard()


def _part(name: str, file: Any = None) -> Any:
    """A module of the tool, read as a file: the app's interpreter does not find the tool's package."""
    spec = importlib.util.spec_from_file_location(
        f"_provision_{name}", file or Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None  # noqa: S101 — it is a file of the tool
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tell(loading: Any, order: dict[str, Any], error: BaseException, inside_flask: bool = False) -> None:
    """Show the app's own traceback, and tell the parent its last line and what it comes from."""
    if not isinstance(error, loading.NotAnApp):
        ours = {__file__, loading.__file__}
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in ours:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
    elif order["reloaded"]:
        print(loading.last_line(error), file=sys.stderr, flush=True)  # noqa: T201
    reason = loading.reason(error, Path.cwd())
    if inside_flask and reason["kind"] == "other":
        reason["kind"] = "inside-flask"
    _report(order, reason)


def _report(order: dict[str, Any], reason: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(order["report"], json.dumps(reason).encode() + b"\n")


def _leave_no_semaphore() -> None:
    """Have Werkzeug's debugger use a semaphore without a name, as it does before Python 3.14.

    There, a named one is the default, and Python complains of it where the process is ended before it could clean up.
    """
    from multiprocessing import get_context

    from werkzeug import debug

    if hasattr(debug, "Value"):  # an older one has none
        debug.Value = get_context("fork").Value


def _import_ahead(loading: Any, order: dict[str, Any]) -> bool:
    """Import while the database starts what any such app will need, and nothing of the app itself.

    False: Flask can't be imported.
    """
    try:
        loading.flask_of_the_app()
    except Exception as error:  # noqa: BLE001 — an import may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "flask":
            _report(order, {"line": loading.last_line(error), "kind": "flask", "names": []})
        else:
            _tell(loading, order, error, inside_flask=True)
        return False
    for name in ("werkzeug.serving", "pymongo", "mongoengine", "flask_login", "flask_wtf"):
        with contextlib.suppress(Exception):  # the app itself says what that means for it
            __import__(name)
    return True


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
