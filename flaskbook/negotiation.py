"""HTML or JSON: which one a client asked for, and input read alike from both.

A client asks for JSON by sending a JSON body or by preferring ``application/json`` in ``Accept``. JSON
objects and HTML forms have the same flat fields and pass through the same form class, so there is one
validation. A JSON value must be text, a whole number or null: an object such as ``{"$gt": ""}`` is refused
before any form sees it, so no query operator can come in. Unknown JSON fields are refused too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, cast

from flask import Response, abort, flash, jsonify, redirect, render_template, request
from werkzeug.datastructures import MIMEAccept, MultiDict
from werkzeug.http import parse_accept_header
from wtforms import Form

F = TypeVar("F", bound=Form)


def wants_json() -> bool:
    """Say whether the current request should be answered in JSON."""
    if request.is_json:
        return True
    return _prefers_json(request.headers.get("Accept"))


def respond(
    template: str,
    data: dict[str, Any] | Callable[[], dict[str, Any]],
    /,
    *,
    status: int = 200,
    **context: Any,
) -> Response:
    """Answer with ``data`` as JSON, or with ``template``, as the client asked."""
    if wants_json():
        response = jsonify(data() if callable(data) else data)
    else:
        response = Response(render_template(template, data=data, **context))
    response.status_code = status
    response.headers["Vary"] = "Accept"
    return response


def submitted(form_class: type[F]) -> F:
    """Return a form filled from the body of the current request, not yet validated.

    Raises BadRequest: the body isn't a JSON object of plain values, or names a field that doesn't exist.
    """
    if not request.is_json:
        _refuse_operators(request.form)
        return cast(F, form_class(request.form))
    try:
        body = request.get_json()
    except RecursionError:
        abort(400, "The JSON is nested too deeply.")
    return cast(F, form_class(_plain_fields(body, set(form_class()._fields))))


def query(form_class: type[F]) -> F:
    """Return a form filled from the query string of the current request, not yet validated.

    Raises BadRequest: a parameter's name has the form of a query operator.
    """
    _refuse_operators(request.args)
    return cast(F, form_class(request.args))


def invalid(template: str, form: Form, /, *, status: int = 400, **context: Any) -> Response:
    """Answer that ``form`` didn't validate: the page with its messages, or JSON with the messages by field."""
    messages = [message for errors in form.errors.values() for message in errors]
    data = error_data(status, "Bad Request", " ".join(messages), fields=form.errors)
    return respond(template, data, status=status, form=form, **context)


def done(message: str, location: str, *, status: int = 200, data: dict[str, Any] | None = None) -> Response:
    """Answer that something was done: a page that says so, or JSON."""
    if wants_json():
        response = jsonify({"message": message} if data is None else data)
        response.status_code = status
        return response
    flash(message)
    return see_other(location)


def see_other(location: str) -> Response:
    """Send a browser to another page, which it gets by GET."""
    response = redirect(location, code=303)
    assert isinstance(response, Response)  # noqa: S101 (narrows Werkzeug's type to Flask's)
    return response


def error_data(
    status: int, name: str, message: str, *, fields: dict[str | None, list[str]] | None = None
) -> dict[str, Any]:
    """Return the JSON form of every error of ours.

    In ``fields``, messages about the form as a whole have the key None.
    """
    error: dict[str, Any] = {"status": status, "name": name, "message": message}
    if fields:
        error["fields"] = {key or "": list(messages) for key, messages in fields.items()}
    return {"error": error}


# A program or a browser sends the same header with each request.
@lru_cache(maxsize=64)
def _prefers_json(accept: str | None) -> bool:
    accepted = parse_accept_header(accept, MIMEAccept)
    return accepted.best_match(["text/html", "application/json"]) == "application/json"


def _plain_fields(body: object, names: set[str]) -> MultiDict[str, str]:
    if not isinstance(body, dict):
        abort(400, "The JSON has to be an object with the fields of the form.")
    fields: MultiDict[str, str] = MultiDict()
    for key, value in body.items():
        if key not in names:
            known = ", ".join(sorted(names)) or "none"
            abort(400, f"The JSON has a field that is not known here. Known fields: {known}.")
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            abort(400, f"The field {key} has to be text or a whole number.")
        fields[key] = str(value)
    return fields


def _refuse_operators(fields: MultiDict[str, str]) -> None:
    # "email[$gt]=" is how a query operator is written in a form; no field of ours is named so.
    if any("[" in key or "$" in key or "\0" in key for key in fields):
        abort(400, "A field name contains a character that no field name here has.")
