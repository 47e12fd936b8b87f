"""The factory: settings, blueprints, headers and cookies, without a database."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flaskbook.application import BLUEPRINTS, create_app
from flaskbook.database import close
from flaskbook.security import is_loopback
from flaskbook.settings import SettingsError

ROOT = Path(__file__).resolve().parents[3]
# The discard port: nothing answers there, so whatever connects is found out.
NOWHERE = "mongodb://127.0.0.1:9"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MONGODB_URI", "MONGODB_URI_FILE", "SECRET_KEY", "SECRET_KEY_FILE", "FLASK_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make() -> Iterator[Any]:
    apps: list[Flask] = []

    def build(**config: Any) -> Flask:
        apps.append(create_app({"TESTING": True, "MONGODB_URI": NOWHERE, **config}))
        return apps[-1]

    yield build
    for app in apps:
        close(app)


def test_a_missing_secret_key_says_what_to_type() -> None:
    with pytest.raises(SettingsError, match=r"\./invoke setup"):
        create_app()


def test_the_secret_key_is_read_from_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    path = tmp_path / "key"
    path.write_text("from the file\n")
    path.chmod(0o600)
    monkeypatch.setenv("SECRET_KEY_FILE", str(path))
    monkeypatch.setenv("SECRET_KEY", "from the environment")
    assert make().secret_key == "from the file"
    assert make(SECRET_KEY="from config").secret_key == "from config"
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        make()
    path.unlink()
    with pytest.raises(SettingsError, match="can't be read"):
        make()


def test_the_environment_is_read_when_an_app_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "one")
    monkeypatch.setenv("MONGODB_URI", NOWHERE + "/other")
    monkeypatch.setenv("FLASK_PEOPLE_PER_PAGE", "7")
    app = create_app()
    assert (app.secret_key, app.config["PEOPLE_PER_PAGE"]) == ("one", 7)
    assert app.extensions["flaskbook-mongodb"].database.name == "other"
    close(app)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"PEOPLE_PER_PAGE": 0}, "PEOPLE_PER_PAGE"),
        ({"TRUSTED_PROXIES": "yes"}, "TRUSTED_PROXIES"),
        ({"SECRET_KEY": 12}, "SECRET_KEY"),
        ({"BLUEPRINTS": ["user", "usr"]}, "usr"),
        ({"MONGODB_URI": "http://user:hunter2@host/"}, "mongodb://127.0.0.1"),
        ({"MONGODB_URI": "mongodb://user:hun/ter2@host/"}, "mongodb://127.0.0.1"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(make: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make(**config)
    assert message in str(caught.value.message)
    assert "ter2" not in str(caught.value.message)


def test_each_blueprint_works_without_the_others(make: Any) -> None:
    addresses = {"home": "/", "health": "/healthz", "user": "/sign-up", "topology": "/topology"}
    assert set(addresses) == set(BLUEPRINTS)
    for name in BLUEPRINTS:
        client = make(BLUEPRINTS=[name], TOPOLOGY=True).test_client()
        statuses = {other: client.get(address).status_code for other, address in addresses.items()}
        assert statuses == {other: 200 if other == name else 404 for other in addresses}


def test_two_apps_in_one_process_have_databases_of_their_own(make: Any) -> None:
    from flaskbook.user.model import User

    for name in ("one", "two", "one"):
        with make(MONGODB_DATABASE=name).app_context():
            assert User._get_db().name == name


def test_importing_and_making_an_app_connects_to_nothing() -> None:
    script = (
        "import json, socket, threading\n"
        "def refuse(*a): raise AssertionError('connected')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "import flaskbook.application as a\n"
        f"a.create_app({{'TESTING': True, 'MONGODB_URI': {NOWHERE!r}}})\n"
        "print(json.dumps(threading.active_count()))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == 1


@pytest.mark.parametrize(("directory", "script"), [("flaskbook", "manage.py"), (".", "flaskbook/manage.py")])
def test_manage_works_from_the_package_and_from_the_root(directory: str, script: str, tmp_path: Path) -> None:
    # Not in this clone: where it has been set up, there is a secret key.
    shutil.copytree(ROOT / "flaskbook", tmp_path / "flaskbook", ignore=shutil.ignore_patterns("__pycache__"))

    def manage(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, *words]
        return subprocess.run(
            command, cwd=tmp_path / directory, env=environment, capture_output=True, text=True
        )

    help_text = manage("runserver", "--help", SECRET_KEY="s")
    assert help_text.returncode == 0 and "--port" in help_text.stdout
    routes = manage("routes", SECRET_KEY="s")
    assert "/people" in routes.stdout, routes.stderr
    failed = manage("runserver")
    assert failed.returncode == 1
    assert "./invoke setup" in failed.stderr and "Traceback" not in failed.stderr


def test_every_answer_carries_the_security_headers(make: Any) -> None:
    client = make().test_client()
    for address in ("/", "/sign-up", "/healthz", "/missing", "/static/flaskbook.css"):
        with client.get(address) as answer:
            headers = answer.headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers.getlist("Cache-Control") == [
            "no-cache" if address.startswith("/static/") else "no-store"
        ]


def test_a_visitor_gets_no_cookie_and_caches_are_told_that_others_get_another_page(make: Any) -> None:
    # There is no database here: a page that asked who this is would be an error.
    answer = make().test_client().get("/")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" in answer.headers["Vary"]
    assert "Log in" in answer.text


def test_pages_need_nothing_from_elsewhere_and_nothing_inline(make: Any) -> None:
    client = make().test_client()
    for address in ("/", "/sign-up", "/log-in", "/missing"):
        text = client.get(address).text
        assert "<script" not in text and "style=" not in text and "<style" not in text
        assert "http://" not in text and "https://" not in text


@pytest.mark.parametrize(
    ("origin", "secure"),
    [
        ("http://localhost:5000", False),
        ("http://127.0.0.1:5000", False),
        ("http://[::1]:5000", False),
        ("http://example.org", True),
        ("https://localhost", True),
        ("http://localhost.example.org", True),
    ],
)
def test_session_cookies_are_secure_but_on_plain_loopback(make: Any, origin: str, secure: bool) -> None:
    cookie = make().test_client().get("/sign-up", base_url=origin).headers["Set-Cookie"]
    assert ("Secure" in cookie) is secure
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST:80", "127.3.2.1:5", "[::1]:5", "app.localhost")))
    assert not any(map(is_loopback, ("example.org", "127.0.0.1.example.org", "10.0.0.1", "", "0.0.0.0")))


def test_a_form_without_its_token_is_refused(make: Any) -> None:
    client = make().test_client()
    answer = client.post("/sign-up", data={"first_name": "Ada"})
    assert answer.status_code == 400 and "CSRF" in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 400),
        ({"Origin": "http://localhost"}, 400),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_json_from_another_site_is_refused(make: Any, headers: dict[str, str], status: int) -> None:
    answer = make().test_client().post("/sign-up", json={}, headers=headers)
    assert answer.status_code == status and answer.get_json()["error"]["status"] == status


def test_errors_come_as_pages_and_as_json(make: Any) -> None:
    app = make(PROPAGATE_EXCEPTIONS=False)

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("a bug")

    client = app.test_client()
    cases = {404: client.get("/missing"), 405: client.get("/log-out"), 500: client.get("/broken")}
    for status, page in cases.items():
        assert page.status_code == status and f'<p class="code" aria-hidden="true">{status}</p>' in page.text
    assert cases[405].headers["Allow"]
    assert "a bug" not in cases[500].text
    answer = client.get("/missing", headers={"Accept": "application/json"})
    assert answer.get_json()["error"] == {
        "status": 404,
        "name": "Not Found",
        "message": "There is no page at this address. It may have been deleted, or the address has a slip in it.",
    }


def test_a_proxy_is_believed_only_when_the_settings_say_so(make: Any) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "book.example.org"}
    for proxies in (0, 1):
        answer = make(TRUSTED_PROXIES=proxies).test_client().get("/sign-up", headers=forwarded)
        assert ("Strict-Transport-Security" in answer.headers) is bool(proxies)
        assert ("Secure" in answer.headers["Set-Cookie"]) is bool(proxies)
