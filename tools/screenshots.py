"""Pictures of flaskbook's pages for its documentation: each in light and in dark, always of the same size.

The app runs on deployments of its own, in a temporary directory on free ports, with sample people: a replica set,
and for the topology page a sharded cluster too, where there is a mongos. Nothing of the clone's own deployments is
touched.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError
from provision.core.files import write_atomically

if TYPE_CHECKING:
    from flask import Flask
    from playwright.sync_api import Browser, Page

    from provision.mongodb.binaries.model import Mongod
    from provision.settings.loading import Loaded

    _Walk = Callable[[Page, bool], Iterator[tuple[str, bytes]]]

_DOING = "taking screenshots"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
_WIDTH, _HEIGHT = 1280, 800
_PATIENCE_MS = 60_000
_SCHEMES = ("light", "dark")
_PEOPLE = 400
_SEED = 1
# The pictures show the ports: the same ones wherever these are free.
_FIRST_PORT, _PORTS = 27200, 120
_REPLICA_SET = {"topology": "replica-set", "members": 3}
_SHARDED = {
    "topology": "sharded",
    "shards": 2,
    "members": 2,
    "config_servers": 1,
    "sharding": {"flaskbook": {"user": {"key": {"_id": "hashed"}}}},
}
_ADA = {
    "First name": "Ada",
    "Last name": "Lovelace",
    "Age": "36",
    "E-mail address": "ada@example.org",
    "Password": "analytical engine",
}


def take(loaded: Loaded, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Take a picture of every page.

    Args:
        loaded: the settings in force; its mongod is used.
        folder: where the pictures go, ``people-light.png`` and so on; made if it is missing.
        say: told of each picture.

    Returns:
        The pictures.

    Raises:
        ProvisionError: there is no browser, no mongod, or a page did not become what it should.
    """
    from provision.mongodb import binaries

    browser = _browser()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise ProvisionError(
            _DOING, "Playwright, which drives the browser, is not installed.", "Type `invoke setup`."
        ) from None
    mongod = binaries.recorded(loaded.paths, loaded.settings.mongodb)
    if mongod is None:
        raise ProvisionError(_DOING, "No mongod has been chosen yet.", "Type `invoke setup` first.")
    walks: list[tuple[dict[str, Any], _Walk]] = [(_REPLICA_SET, _pages)]
    if mongod.mongos is not None:
        walks.append((_SHARDED, _sharded_page))
    else:
        say("No picture of a sharded cluster: there is no mongos.")
    taken: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=browser, args=list(_FLAGS))
            for deployment, walk in walks:
                with _served(loaded, mongod, deployment) as address:
                    for scheme in _SCHEMES:
                        for name, picture in _taken(chromium, address, scheme, walk):
                            path = folder / f"{name}-{scheme}.png"
                            write_atomically(path, picture)
                            taken.append(path)
                            say(f"{path.name}  {len(picture) // 1000} kB")
            chromium.close()
        except Error as error:
            raise ProvisionError(
                _DOING,
                f"The browser stopped at {error.message.splitlines()[0]}",
                "Type `invoke run` and look at the page.",
            ) from None
    return taken


def _taken(chromium: Browser, address: str, scheme: str, walk: _Walk) -> Iterator[tuple[str, bytes]]:
    context = chromium.new_context(
        base_url=address,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": _WIDTH, "height": _HEIGHT},
        reduced_motion="reduce",
        locale="en-GB",
    )
    context.set_default_timeout(_PATIENCE_MS)
    yield from walk(context.new_page(), scheme == _SCHEMES[0])
    context.close()


def _browser() -> str:
    for name in _BROWSERS:
        if found := shutil.which(name):
            return found
    raise ProvisionError(
        _DOING,
        f"None of {', '.join(_BROWSERS)} is on the PATH.",
        "Install Chromium: apt-get install chromium",
    )


@contextlib.contextmanager
def _served(loaded: Loaded, mongod: Mongod, deployment: dict[str, Any]) -> Iterator[str]:
    """The app with its people, on a deployment of its own; both end with the block."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    from flaskbook.application import create_app
    from flaskbook.database import close
    from flaskbook.topology.reading import EXTENSION
    from flaskbook.topology.samples import add_sample_people

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Only the pictures are worth a line."""

    with _deployed(loaded, mongod, deployment) as uri:
        settings = {
            "SECRET_KEY": "of an app that lives for a few seconds",
            "MONGODB_URI": uri,
            "MONGODB_DATABASE": "flaskbook",
            "MONGODB_TIMEOUT_MS": 20_000,
            "TOPOLOGY": True,
            "SAMPLE_PEOPLE": True,
            "PEOPLE_PER_PAGE": 8,
        }
        app: Flask = create_app(settings)
        with app.app_context():
            add_sample_people(_PEOPLE, _SEED)
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            server.socket.close()
            app.extensions[EXTENSION].close()
            close(app)


@contextlib.contextmanager
def _deployed(loaded: Loaded, mongod: Mongod, settings: dict[str, Any]) -> Iterator[str]:
    from provision.core.steps import Silent
    from provision.deployments import assembly
    from provision.mongodb import binaries
    from provision.settings.loading import Layer, load

    with tempfile.TemporaryDirectory(prefix="flaskbook-screenshots-") as name:
        root = Path(name)
        shutil.copy2(loaded.paths.root / "mongod.conf.j2", root)
        chosen: dict[str, Any] = {
            "mongodb": {"source": "path", "path": str(mongod.path)},
            "deployments": {"pictures": {"backend": "processes", "port": _port(), **settings}},
        }
        own = load(root, [Layer("the screenshots", chosen)], remember=False)
        binaries.find(own.settings.mongodb, own.paths, Silent())
        deployment = assembly.deployment(own, "pictures")
        try:
            yield deployment.up().uri
        finally:
            for node in deployment.topology.nodes:
                deployment.backend.kill(node)


def _port() -> int:
    from provision.backends.processes import port_holder
    from provision.mongodb.topology import LOOPBACK

    for first in range(_FIRST_PORT, _FIRST_PORT + 500, 10):
        if all(port_holder(LOOPBACK, port) is None for port in range(first, first + _PORTS)):
            return first
    raise ProvisionError(
        _DOING,
        f"No {_PORTS} ports beside each other are free from {_FIRST_PORT} on.",
        "Stop what holds them.",
    )


def _pages(page: Page, first: bool) -> Iterator[tuple[str, bytes]]:
    """Walk through the app; yields a page's name and its picture. The first walk signs Ada up."""

    page.goto("/")
    yield _shot(page, "home")
    page.goto("/sign-up")
    yield _shot(page, "sign-up")
    if first:
        for label, value in _ADA.items():
            page.get_by_label(label, exact=True).fill(value)
        page.get_by_role("button", name="Create account").click()
        page.wait_for_url("**/log-in")
    page.goto("/log-in")
    page.get_by_label("E-mail address").fill(_ADA["E-mail address"])
    yield _shot(page, "log-in")
    page.get_by_label("Password").fill(_ADA["Password"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/profile")
    yield _shot(page, "profile")
    page.goto("/people")
    yield _shot(page, "people")
    page.goto("/topology")
    page.get_by_text("3 members, all up.").first.wait_for()
    page.get_by_role("img").get_by_text("op/s").nth(3).wait_for()
    page.get_by_role("img").get_by_text("documents in user").wait_for()
    yield _shot(page, "topology")


def _sharded_page(page: Page, _first: bool) -> Iterator[tuple[str, bytes]]:
    page.goto("/topology")
    page.get_by_text("5 members, all up.").first.wait_for()
    # The app's, the router's and each member's.
    page.get_by_role("img").get_by_text("op/s").nth(6).wait_for()
    page.get_by_role("img").get_by_text("chunks").first.wait_for()
    yield _shot(page, "topology-sharded")


def _shot(page: Page, name: str) -> tuple[str, bytes]:
    return name, page.screenshot(animations="disabled", caret="hide", scale="css")
