"""A Flask app on a real server of its own, in this process, so that a test can read its database too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from flaskbook.database import EXTENSION as DATABASE
from flaskbook.database import close
from flaskbook.topology.reading import EXTENSION as TOPOLOGY


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of requests."""


@dataclass(frozen=True)
class Served:
    """An app that is being served.

    Args:
        url: without a slash at its end.
        app: the app.
        server: to shut it down before the block ends.
    """

    url: str
    app: Flask
    server: BaseWSGIServer


@contextmanager
def served(app: Flask) -> Iterator[Served]:
    """Serve an app on a free loopback port until the block ends; its connections are closed then."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True  # type: ignore[attr-defined]
    # A browser keeps idle connections open: the end must not wait for them.
    server.block_on_close = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="served app")
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.port}", app, server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        _close(app)


@contextmanager
def served_at(place: Served, app: Flask) -> Iterator[Served]:
    """Serve an app at the address of another one, in its place, until the block ends."""
    before, place.server.app = place.server.app, app
    try:
        yield Served(place.url, app, place.server)
    finally:
        place.server.app = before
        _close(app)


def _close(app: Flask) -> None:
    if TOPOLOGY in app.extensions:
        app.extensions[TOPOLOGY].close()
    if DATABASE in app.extensions:
        close(app)
