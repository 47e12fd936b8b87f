"""A real Chromium on the app as it is served, over a real mongod.

Each file of tests has one browser, one profile and one mongod; each test has a database and pages of its own, and
begins without cookies. Whatever a page complains about in its console fails the test.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pymongo
import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from flaskbook.application import create_app
from provision.deployments.deployment import Deployment
from tests.support import capabilities
from tests.support.browser_network import program
from tests.support.deployments import deployed
from tests.support.served import Served, served, served_at

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--renderer-process-limit=1",  # none is begun that may never be needed
)
# What a test waits for, in milliseconds: far above what anything here takes.
PATIENCE_MS = 30_000

ServeOn = Callable[..., Served]
NewPage = Callable[[Served], Page]
Profiles = Callable[[str], BrowserContext]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium in a network of its own, started once per file."""
    expect.set_options(timeout=PATIENCE_MS)
    path = program(tmp_path_factory.mktemp("browser"), capabilities.probe("browser").values["path"])
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def single(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Deployment]:
    """One mongod per file."""
    folder = tmp_path_factory.mktemp("single")
    with deployed(folder, mongod_binary, mongod_version, topology="single") as made:
        yield made


@pytest.fixture(scope="module")
def address() -> Iterator[Served]:
    """Where the apps of a file's tests are served, one after another: a profile is for one address."""
    with served(Flask("nothing")) as made:
        yield made


@pytest.fixture(scope="module")
def profiles(browser: Browser) -> Iterator[Profiles]:
    """Return a function that gives the profile of an address. To make one costs more than to load a page."""
    made: dict[str, BrowserContext] = {}

    def profile(url: str) -> BrowserContext:
        if url not in made:
            made[url] = browser.new_context(base_url=url, reduced_motion="reduce")
            made[url].set_default_timeout(PATIENCE_MS)
        return made[url]

    yield profile
    for context in made.values():
        context.close()


@pytest.fixture
def serve(address: Served) -> Iterator[ServeOn]:
    """Return a function that serves the app on a deployment, with a database of its own, until the test ends.

    A test that ends the server asks for one that it has ``alone``.
    """
    with ExitStack() as stack:

        def serve_on(deployment: Deployment, alone: bool = False) -> Served:
            config = {
                "SECRET_KEY": uuid.uuid4().hex,
                "MONGODB_URI": deployment.uri(),
                "MONGODB_DATABASE": f"test_{uuid.uuid4().hex[:12]}",
                "TOPOLOGY": True,
                "SAMPLE_PEOPLE": True,
                "ARGON2_TIME_COST": 1,
                "ARGON2_MEMORY_KIB": 8,
                "ARGON2_PARALLELISM": 1,
            }
            app = create_app(config)
            return stack.enter_context(served(app) if alone else served_at(address, app))

        yield serve_on


@pytest.fixture
def site(single: Deployment, serve: ServeOn) -> Iterator[Served]:
    """The app on an empty database."""
    made = serve(single)
    yield made
    with pymongo.MongoClient(single.uri()) as client:
        client.drop_database(made.app.config["MONGODB_DATABASE"])


@pytest.fixture
def new_page(profiles: Profiles, serve: ServeOn) -> Iterator[NewPage]:
    """Return a function that opens a page on a site that is served; it is closed before the site."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_page(site: Served) -> Page:
            context = profiles(site.url)
            hears: tuple[tuple[Any, Callable[[Any], None]], ...] = (
                ("console", lambda message: complaints.append(message.text) if _complains(message) else None),
                ("weberror", lambda error: complaints.append(str(error.error))),
                ("request", lambda request: _note_foreign(request.url, site, complaints)),
            )
            for event, hear in hears:
                context.on(event, hear)
                stack.callback(context.remove_listener, event, hear)
            stack.callback(context.clear_cookies)
            page = context.new_page()
            stack.callback(page.close)
            return page

        yield open_page
    assert complaints == []


@pytest.fixture
def page(new_page: NewPage, site: Served) -> Page:
    """A page on the app with an empty database."""
    return new_page(site)


def _complains(message: Any) -> bool:
    # An answer of 400, 401 or 503 is the app's way to refuse, and tests stop the app: that a page shows this well is
    # for them to say.
    refused = message.text.startswith("Failed to load resource:")
    return message.type in ("error", "warning") and not refused


def _note_foreign(url: str, site: Served, complaints: list[str]) -> None:
    if not url.startswith((site.url + "/", "data:", "blob:")):
        complaints.append(f"a request to {url}")


@pytest.fixture
def ada() -> dict[str, str]:
    """The fields of a sign-up, by their labels."""
    return {
        "First name": "Ada",
        "Last name": "Lovelace",
        "Age": "36",
        "E-mail address": "ada@example.org",
        "Password": "analytical engine",
    }


_NAMES = {
    "First name": "first_name",
    "Last name": "last_name",
    "Age": "age",
    "E-mail address": "email",
    "Password": "password",
}


@pytest.fixture
def sign_up() -> Callable[[Page, dict[str, str]], None]:
    """Return a function that signs up and logs in; it ends at the profile.

    For tests of what comes after it: no page is drawn for this. People do it in `test_from_sign_up_to_log_in_again`.
    """

    def do(page: Page, fields: dict[str, str]) -> None:
        person: dict[str, Any] = {_NAMES[label]: value for label, value in fields.items()}
        person["age"] = int(person["age"])
        credentials = {name: person[name] for name in ("email", "password")}
        for place, body in (("/sign-up", person), ("/log-in", credentials)):
            answer = page.request.post(place, data=body)
            assert answer.ok, answer.text()
        page.goto("/profile")
        expect(page).to_have_url(re.compile("/profile$"))

    return do
