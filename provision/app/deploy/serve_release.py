"""Serves a release of the app with gunicorn. A script, run on a host in the app's virtualenv; never imported.

Beside it is ``serve.json`` (0600): the factory, where to listen, and the app's environment, which therefore is in no
command line. It needs nothing but the standard library, gunicorn and the app's own Flask.
https://docs.gunicorn.org/en/stable/custom.html
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the app by its factory in each worker, as `flask --app` would, and serve it until it is ended."""
    here = Path(__file__).absolute().parent
    order = json.loads((here / "serve.json").read_text(encoding="utf-8"))
    app = here / "app"
    os.chdir(app)
    # A script's own directory comes first on the path; here the app's does.
    sys.path[0] = str(app)
    # gunicorn's own variable for the number of its workers; app.env may set it.
    os.environ.setdefault("WEB_CONCURRENCY", "2")
    for name, value in order["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    # As the command `flask` has it: Flask ignores an app.run() that stands in the module without a guard.
    os.environ["FLASK_RUN_FROM_CLI"] = "true"
    loading = _loading(here / "loading.py")

    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter

    class Application(BaseApplication):  # type: ignore[misc, unused-ignore]
        def load_config(self) -> None:
            for name, value in order["gunicorn"].items():
                if (
                    name in self.cfg.settings
                ):  # an older gunicorn, of the app's own choice, has not all of them
                    self.cfg.set(name, value)

        def load(self) -> Any:
            try:
                from flask.helpers import get_debug_flag

                loaded = loading.load(order["factory"], app)
                loaded.flask.debug = get_debug_flag()
                return loaded.wsgi
            except loading.NotAnApp as error:
                # It says what is wrong; a traceback through gunicorn and Flask would not.
                print(f"Error: {error}", file=sys.stderr, flush=True)  # noqa: T201
                sys.exit(Arbiter.WORKER_BOOT_ERROR)

    Application().run()


def _loading(file: Path) -> Any:
    """The tool's module that finds the app, as it was sent."""
    spec = importlib.util.spec_from_file_location("_provision_loading", file)
    assert spec is not None  # noqa: S101 — it was sent with this file
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
