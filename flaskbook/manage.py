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

import copy  # noqa: E402
import functools  # noqa: E402
import os  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
from flask.cli import FlaskGroup, ScriptInfo, run_command  # noqa: E402

from flaskbook import database  # noqa: E402
from flaskbook.application import create_app  # noqa: E402

cli = FlaskGroup(create_app=create_app, help="The flaskbook application.")


def _advising(serve: Any) -> Any:
    """Flask's `run`, which first says what to type where the database does not answer."""

    @functools.wraps(serve)
    def runserver(*args: Any, **kwargs: Any) -> Any:
        info = click.get_current_context().find_object(ScriptInfo)
        if info is not None and "WERKZEUG_RUN_MAIN" not in os.environ:  # once, not at each reload
            advice = database.advice(info.load_app())
            if advice is not None:
                click.echo(advice, err=True)
        return serve(*args, **kwargs)

    return runserver


_runserver = copy.copy(run_command)
_runserver.callback = _advising(run_command.callback)
cli.add_command(_runserver, "runserver")

if __name__ == "__main__":
    cli()
