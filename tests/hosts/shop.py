"""An app of a few lines that is deployed to hosts, and what is asked of it there."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provision.app.deploy import rollout
from provision.app.deploy.rollout import Deployed
from provision.settings.loading import Layer, Loaded, load
from tests.hosts.conftest import Project
from tests.hosts.lab import LabHost

PORT = 8400
SHOP = """
import os
from pathlib import Path

from flask import Flask, jsonify

VERSION = {version!r}
{more}


def create_app():
    app = Flask(__name__)
    app.secret_key = Path(os.environ["SECRET_KEY_FILE"]).read_text()

    @app.get("/")
    def home():
        return jsonify(version=VERSION, pid=os.getpid(), uri="MONGODB_URI" in os.environ)

    @app.get("/readyz")
    def readyz():
        return jsonify(ready={ready}), 200 if {ready} else 503

    return app
"""


@dataclass
class Shop:
    """An app of a few lines, and the hosts it goes to: web1 and web2. Its database is on db1.

    Args:
        project: whose it is.
        folder: its own.
        app_hosts: where it is to go.
        app: settings of it that differ.
        requirements: what it needs, as its requirements.txt says it.
    """

    project: Project
    folder: Path
    app_hosts: list[str] = field(default_factory=lambda: ["web1", "web2"])
    app: dict[str, Any] = field(default_factory=dict)
    requirements: str = "flask>=3.1,<3.2\n"

    def write(self, version: str, ready: bool = True, more: str = "") -> None:
        """Save a version of it."""
        package = self.folder / "shop"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(SHOP.format(version=version, ready=ready, more=more))
        (self.folder / "requirements.txt").write_text(self.requirements)

    @property
    def loaded(self) -> Loaded:
        """The settings, as they are now."""
        settings = {
            "mongodb": {"source": "path", "path": str(self.project.mongod)},
            "app": {
                "factory": "shop:create_app",
                "database": "flaskbook",
                "path": str(self.folder),
                "requirements": "requirements.txt",
                "port": PORT,
                **self.app,
            },
            "hosts": self.project.hosts,
            "deployments": {
                "prod": {
                    "backend": "hosts", "hosts": ["db1"], "app_hosts": self.app_hosts, "topology": "single", "port": 27300
                },
            },
        }  # fmt: skip
        return load(self.project.root, [Layer("the tests", settings)], remember=False)

    def deploy(self, **options: Any) -> Deployed:
        return rollout.deploy(self.loaded, "prod", **options)

    def host(self, name: str) -> LabHost:
        return self.project.lab.hosts[name]

    def answers(self, name: str, path: str = "/") -> dict[str, Any]:
        """What the app says on a host."""
        code = (
            f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}{path}').read().decode())"
        )
        found: dict[str, Any] = json.loads(self.host(name).run(sys.executable, "-c", code))
        return found

    def version(self, name: str) -> str:
        return str(self.answers(name)["version"])

    def gunicorn(self, name: str) -> str:
        """The process id of its gunicorn on a host."""
        lines = (self.host(name).srv / "mongodb" / "prod" / "app.pid").read_text().splitlines()
        return dict(line.split("=") for line in lines)["pid"]

    def is_running(self, name: str) -> bool:
        return "serve.py" in self.host(name).run("ps", "-eo", "args")

    def history(self, name: str) -> list[str]:
        return (self.host(name).srv / "mongodb" / "prod" / "app" / "current").read_text().split()


def without_index(host: LabHost) -> None:
    """A host on which pip finds no package index: what it is to have must be sent."""
    folder = host.folder / "home" / "root" / ".config" / "pip"
    folder.mkdir(parents=True)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links =\nextra-index-url =\n")
