"""Security headers, session cookies, and protection against cross-site requests.

Cross-site requests, in two kinds:

- A **form** carries a CSRF token (Flask-WTF), as a browser sends forms across sites without asking.
- A **JSON body** needs no token: a browser sends ``Content-Type: application/json`` to another site only
  after a preflight request, which this app never grants. ``Sec-Fetch-Site`` and ``Origin``, which pages can't
  forge, are checked besides, and the session cookie is SameSite=Lax. A program sends neither header and is
  let through: it holds no other person's cookies. To log out with JSON, send ``{}``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, current_app, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask_wtf.csrf import CSRFProtect

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CSP = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = (
    ("Content-Security-Policy", CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    # Pages differ by who is logged in, and the back button must not show them after log-out. Flask gives static
    # files a value of their own.
    ("Cache-Control", "no-store"),
)
# By whether the request came by https, each with its name in lower case.
_HEADERS_BY_SCHEME = tuple(
    tuple((name.lower(), (name, value)) for name, value in headers)
    for headers in (HEADERS, (*HEADERS, ("Strict-Transport-Security", "max-age=31536000")))
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_csrf = CSRFProtect()


def init_app(app: Flask) -> None:
    """Protect ``app``: headers on every response, a CSRF check before every unsafe request, safe cookies."""
    # Forms are checked in _refuse_cross_site below, so that JSON can be checked in its own way.
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    # A page left open overnight still works; the token lives as long as its session.
    app.config.setdefault("WTF_CSRF_TIME_LIMIT", None)
    _csrf.init_app(app)
    app.session_interface = LoopbackAwareSessions()
    app.before_request(_refuse_cross_site)
    app.wsgi_app = _Headers(app.wsgi_app)  # type: ignore[method-assign]
    proxies = app.config["TRUSTED_PROXIES"]
    if proxies:
        from werkzeug.middleware.proxy_fix import ProxyFix

        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )


class LoopbackAwareSessions(SecureCookieSessionInterface):
    """Session cookies that are Secure everywhere but on plain-http loopback.

    Browsers differ in whether they keep Secure cookies of http://127.0.0.1, where development and browser
    tests happen. Deciding by the Host of the request keeps every other host safe without a setting that could
    be forgotten; a client that forges that header only affects a cookie of their own.
    """

    def get_cookie_secure(self, app: Flask) -> bool:
        configured = app.config["SESSION_COOKIE_SECURE"]
        if configured is not None:
            return bool(configured)
        return request.is_secure or not is_loopback(request.host)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Read the cookie, if there is one: the keys to check it with are not worked out for others."""
        if not request.cookies.get(self.get_cookie_name(app)):
            return self.session_class()
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Write the cookie, where there is one to write: what it would be like is not worked out for others."""
        if session.modified or self.should_set_cookie(app, session):
            super().save_session(app, session, response)
        elif session.accessed:
            response.vary.add("Cookie")


# Asked for every response, and nearly always about the same few names.
@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Say whether ``host`` (a Host header: name or address, perhaps with a port) is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse_cross_site() -> None:
    if (
        request.method in _SAFE_METHODS
        or request.endpoint is None
        or not current_app.config["WTF_CSRF_ENABLED"]
    ):
        return
    if not request.is_json:
        _csrf.protect()
    elif _is_cross_site(request):
        abort(403)


def _is_cross_site(received: Request) -> bool:
    site = received.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = received.headers.get("Origin")
    return origin is not None and origin != f"{received.scheme}://{received.host}"


class _Headers:
    """WSGI middleware that adds the headers to every response. What a view has set stays.

    Behind Flask, because Werkzeug's Headers goes through all of them for each that is added.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        wanted = _HEADERS_BY_SCHEME[environ["wsgi.url_scheme"] == "https"]

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            given = {name.lower() for name, _ in headers}
            added = [header for name, header in wanted if name not in given]
            return start_response(status, headers + added, *exc_info)

        return self._app(environ, start)
