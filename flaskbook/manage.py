"""The command line of flaskbook: ``python manage.py runserver``, and Flask's own commands (``routes``,
``shell``).

Finds the secret key that ``./invoke setup`` has generated in this clone. Works from this directory and from the
project's root (``python flaskbook/manage.py runserver``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Python puts this script's directory first on the path, where "settings" or "user" would hide other modules
# of these names. The package's parent takes its place.
_PACKAGE = Path(__file__).resolve().parent
if sys.path and Path(sys.path[0]).resolve() == _PACKAGE:
    sys.path[0] = str(_PACKAGE.parent)

from flask import Flask  # noqa: E402
from flask.cli import FlaskGroup, run_command  # noqa: E402

from flaskbook.application import create_app  # noqa: E402

# What `./invoke setup` generated for this clone.
_SECRET_KEY = _PACKAGE.parent / ".state" / "secret_key"


def _create_app() -> Flask:
    """Create the app with the clone's own secret key, unless the environment or a .env file has one."""
    if not {"SECRET_KEY", "SECRET_KEY_FILE", "FLASK_SECRET_KEY"} & set(os.environ) and _SECRET_KEY.exists():
        os.environ["SECRET_KEY_FILE"] = str(_SECRET_KEY)
    return create_app()


cli = FlaskGroup(create_app=_create_app, help="The flaskbook application.")
cli.add_command(run_command, "runserver")

if __name__ == "__main__":
    cli()
