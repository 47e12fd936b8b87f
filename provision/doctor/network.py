"""Whether the places that packages and MongoDB are downloaded from can be reached."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from provision.core.dataclass import dataclass
from provision.core.finding import Finding, error, ok, warning
from provision.core.text import redact
from provision.env.installers import pip_settings

ANSWER_SECONDS = 1.5


@dataclass(frozen=True)
class Answer:
    """What came of asking a server."""

    address: str  # its URL, without user name and password; empty: none is configured
    reachable: bool  # it gave a usable answer
    why: str = ""  # why not, as a clause without a full stop


def ask_index(environment: Mapping[str, str] = os.environ) -> Answer:
    """Ask the package index that pip is configured to use for the page of one package."""
    settings = pip_settings(environment)
    if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        return Answer("", True)
    index = (settings.get("index-url") or _default_index()).rstrip("/")
    return ask(f"{index}/invoke/", settings)


def _default_index() -> str:
    """The index that pip itself asks where none is configured; pip keeps that to its own modules."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError:  # a virtualenv that uv made has no pip
        return "https://pypi.org/simple"
    return str(PyPI.simple_url)


def ask(address: str, settings: Mapping[str, str]) -> Answer:
    """Ask a web server for a page, and read no more than the head of its answer."""
    import ssl

    import requests
    from requests.adapters import HTTPAdapter

    shown = redact(address)
    context = ssl.create_default_context()

    class SystemCertificates(HTTPAdapter):
        # As pip does, trust the system's certificate authorities too, not only those that requests brings.
        def init_poolmanager(self, *args: object, **kwargs: object) -> None:
            super().init_poolmanager(*args, ssl_context=context, **kwargs)  # type: ignore[arg-type]

    trusted = settings.get("trusted-host", "").split()
    parts = urlsplit(address)
    proxy = settings.get("proxy")
    with requests.Session() as session:
        if parts.hostname in trusted or f"{parts.hostname}:{parts.port}" in trusted:
            # Only whether it answers is asked; nothing of the answer is used.
            session.verify = False
        else:
            session.mount("https://", SystemCertificates())
            session.verify = settings.get("cert", True)
        session.cert = settings.get("client-cert")
        if proxy:
            session.proxies = {"http": proxy, "https": proxy}
        try:
            with session.get(address, timeout=ANSWER_SECONDS, stream=True) as answer:
                status, reason = answer.status_code, answer.reason
        except (requests.RequestException, OSError, ValueError) as problem:
            return Answer(shown, False, redact(_reason(problem)))
    # One that has no page of that name is there all the same.
    usable = status < 400 or status in (404, 410)
    return Answer(shown, usable, "" if usable else f"it answers {status} {reason}")


def judge_index(answer: Answer, needed_for: Sequence[str]) -> Finding:
    """Whether packages can be installed. Pure."""
    if not answer.address:
        return ok("package index", "pip is configured to use none (no-index).")
    if answer.reachable:
        return ok("package index", f"{answer.address} answers.")
    what = f"{answer.address} cannot be used: {answer.why}."
    remedy = _remedy(answer.why)
    if needed_for:
        return error("package index", f"{what} It is needed for {' and '.join(needed_for)}.", remedy)
    return warning("package index", f"{what} Nothing has to be installed at present.", remedy)


def _remedy(why: str) -> str:
    if "certificate" in why:
        return (
            "Check the clock (date), and behind a proxy that inspects TLS its certificate:\n"
            "PIP_CERT=/path/to/authority.pem ./invoke setup"
        )
    if "401" in why or "403" in why:
        return "Give pip the index's credentials: PIP_INDEX_URL, ~/.netrc or `pip config set global.index-url URL`."
    return (
        "Check the network, and what pip is told: python3 -m pip config list; env | grep -i -E 'pip_|proxy'\n"
        "Behind a mirror or proxy: PIP_INDEX_URL=https://… or HTTPS_PROXY=http://… ./invoke setup"
    )


def _reason(problem: BaseException) -> str:
    import requests

    if isinstance(problem, requests.Timeout):
        return f"no answer within {ANSWER_SECONDS:g} s"
    if isinstance(problem, requests.exceptions.SSLError):
        return f"its certificate is not accepted: {_innermost(problem)}"
    return _innermost(problem)


def _innermost(problem: BaseException) -> str:
    """The first cause of a chain of exceptions: urllib3 wraps it in several."""
    while (deeper := problem.__cause__ or problem.__context__) is not None:
        problem = deeper
    return (getattr(problem, "strerror", None) or str(problem) or type(problem).__name__).rstrip(".")
