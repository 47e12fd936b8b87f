"""The application factory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.utils import import_string

from flaskbook import errors, security, settings
from flaskbook.database import MongoDB

# A blueprint is imported when an app wants it, so one that is left out costs nothing.
BLUEPRINTS: Mapping[str, str] = {
    "home": "flaskbook.home.view:home_app",
    "health": "flaskbook.health.view:health_app",
    "user": "flaskbook.user.view:user_app",
    "topology": "flaskbook.topology.view:topology_app",
}

mongodb = MongoDB()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Create a flaskbook application. It doesn't connect to the database.

    ``config`` wins over the environment (see :mod:`flaskbook.settings`). Its ``BLUEPRINTS``, a list of names,
    builds the app with only these blueprints; ``topology`` needs the setting ``TOPOLOGY``, too. Raises
    SettingsError.
    """
    # The name is fixed so that templates are found however the module was loaded.
    app = Flask("flaskbook")
    settings.load(app, config)
    names = BLUEPRINTS if app.config["BLUEPRINTS"] is None else app.config["BLUEPRINTS"]
    unknown = set(names) - set(BLUEPRINTS)
    if unknown:
        raise settings.SettingsError(
            f"BLUEPRINTS names {', '.join(sorted(unknown))}. There are: {', '.join(BLUEPRINTS)}."
        )
    mongodb.init_app(app)
    security.init_app(app)
    errors.init_app(app)
    # For templates that link to the pages of another blueprint, if the app has it.
    app.jinja_env.globals["blueprints"] = app.blueprints
    for name in names:
        if name == "topology" and not app.config["TOPOLOGY"]:
            continue
        app.register_blueprint(import_string(BLUEPRINTS[name]))
    return app
