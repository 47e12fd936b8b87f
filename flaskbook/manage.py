"""The command line of flaskbook: ``python manage.py runserver``, and Flask's own commands (``routes``,
``shell``).

Works from this directory and from the project's root (``python flaskbook/manage.py runserver``).
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this script's directory first on the path, where "settings" or "user" would hide other modules
# of these names. The package's parent takes its place.
_PACKAGE = Path(__file__).resolve().parent
if sys.path and Path(sys.path[0]).resolve() == _PACKAGE:
    sys.path[0] = str(_PACKAGE.parent)

from flask.cli import FlaskGroup, run_command  # noqa: E402

from flaskbook.application import create_app  # noqa: E402

cli = FlaskGroup(create_app=create_app, help="The flaskbook application.")
cli.add_command(run_command, "runserver")

if __name__ == "__main__":
    cli()
