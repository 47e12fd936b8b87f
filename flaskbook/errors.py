"""Error pages, and the same errors as JSON.

These pages must come out when nothing else works, so they use neither the database nor the current user.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify, render_template
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from flaskbook.negotiation import error_data, wants_json

# Seconds after which a client may try again when the database is away.
RETRY_AFTER_SECONDS = 2

_MESSAGES = {
    403: "You may not do this.",
    404: "There is no page at this address. It may have been deleted, or the address has a slip in it.",
    405: "This address can't be used in this way.",
    413: "What was sent is too large.",
    500: "Something went wrong on our side. It has been logged.",
    503: "The database is not reachable at the moment. Nothing is lost: please try again shortly.",
}


def init_app(app: Flask) -> None:
    """Register the error pages with ``app``."""
    app.register_error_handler(HTTPException, _on_http_error)


def service_unavailable() -> Response:
    """Return the answer for a database that is away: 503 with Retry-After."""
    return _answer(ServiceUnavailable(retry_after=RETRY_AFTER_SECONDS))


def _on_http_error(error: HTTPException) -> Any:
    if error.code is None or error.response is not None:
        return error
    return _answer(error)


def _answer(error: HTTPException) -> Response:
    code = error.code or 500
    # Werkzeug's texts are written for developers; 400 and 429 carry ours.
    message = _MESSAGES.get(code) or error.description or error.name
    body = (
        jsonify(error_data(code, error.name, message)) if wants_json() else _page(code, error.name, message)
    )
    body.status_code = code
    for name, value in error.get_headers():
        # Allow, Retry-After and the like; the description of the body is ours.
        if name.lower() not in ("content-type", "content-length"):
            body.headers[name] = value
    body.vary.add("Accept")
    return body


def _page(code: int, name: str, message: str) -> Response:
    return Response(
        render_template("error.html", code=code, name=name, message=message), mimetype="text/html"
    )
