"""The live topology page, watched in a browser while things happen to the deployment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from provision.deployments.deployment import Deployment
from provision.mongodb.topology import Node
from tests.support.deployments import deployed
from tests.support.polling import until

# "Killing a node in another terminal shows within 3 s", and a second for a machine that does other things too.
SHOWS_WITHIN_MS = 3000 + 1000
# As when somebody looks at another tab.
HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture(scope="module")
def trio(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("trio")
    with deployed(folder, mongod_binary, mongod_version, topology="replica-set", members=3) as made:
        yield made


@pytest.fixture
def watching(trio: Deployment, serve: Any, new_page: Any) -> Page:
    """The page on a set of three that is well."""
    page: Page = new_page(serve(trio))
    page.goto("/topology")
    expect(summary(page)).to_contain_text("3 members, all up.")
    return page


def summary(page: Page) -> Any:
    return page.get_by_role("status").first


def row_of(page: Page, name: str) -> Any:
    return page.get_by_role("table").first.get_by_role("row", name=re.compile(re.escape(name)))


def member(trio: Deployment, page: Page, state: str) -> tuple[str, Node]:
    row = page.get_by_role("table").first.get_by_role("row", name=re.compile(rf"\b{state}\b")).first
    name = row.get_by_role("rowheader").inner_text()
    return name, next(node for node in trio.topology.nodes if node.port == int(name.rpartition(":")[2]))


@pytest.mark.parametrize("state", ["SECONDARY", "PRIMARY"])
def test_a_node_that_is_killed_shows_within_three_seconds_and_so_does_its_return(
    trio: Deployment, watching: Page, state: str
) -> None:
    name, node = member(trio, watching, state)
    trio.backend.kill(node)
    expect(row_of(watching, name)).to_contain_text("DOWN", timeout=SHOWS_WITHIN_MS)
    expect(summary(watching)).to_contain_text(f"Down: {name}.")
    picture = watching.get_by_role("img", name="The deployment that this app is connected to")
    expect(picture).to_contain_text("DOWN")
    # The two that are left have, or elect, a primary.
    expect(summary(watching)).to_contain_text("is its primary.")
    trio.start_node(node)
    expect(summary(watching)).to_contain_text("3 members, all up.")
    expect(row_of(watching, name)).to_contain_text(re.compile("SECONDARY|PRIMARY"))


def test_a_node_that_hangs_shows_within_three_seconds(trio: Deployment, watching: Page) -> None:
    name, node = member(trio, watching, "SECONDARY")
    trio.backend.pause(node, True)
    try:
        expect(row_of(watching, name)).to_contain_text("DOWN", timeout=SHOWS_WITHIN_MS)
    finally:
        trio.backend.pause(node, False)
    expect(summary(watching)).to_contain_text("3 members, all up.")


def test_the_button_adds_people_without_leaving_the_page(watching: Page) -> None:
    watching.get_by_role("button", name="Add 1,000 sample people").click()
    expect(watching.get_by_text("1,000 people were added.")).to_be_visible()
    users = watching.get_by_role("table").last.get_by_role("row", name=re.compile("^user "))
    expect(users).to_contain_text("1,000")
    expect(watching.get_by_role("img")).to_contain_text("documents in user")


def test_nothing_is_asked_while_the_page_is_hidden(watching: Page) -> None:
    asked: list[str] = []
    watching.on("request", lambda request: asked.append(request.url))
    watching.evaluate(HIDE, True)
    expect(watching.get_by_text("paused")).to_be_visible()
    # One that was under way may still have been counted; after that, none for as long as three would take.
    watching.wait_for_timeout(1000)
    before = len(asked)
    watching.wait_for_timeout(3000)
    assert len(asked) == before
    watching.evaluate(HIDE, False)
    expect(watching.get_by_text("live", exact=True)).to_be_visible()
    until("the next question", lambda: watching.wait_for_timeout(50) or len(asked) > before)


def test_an_answer_that_comes_after_the_page_was_hidden_leaves_it_paused(
    trio: Deployment, watching: Page
) -> None:
    name, _ = member(trio, watching, "SECONDARY")
    held: list[Route] = []
    source = watching.locator("[data-source]").get_attribute("data-source")
    watching.route(f"**{source}", lambda route: held.append(route))
    until("a question", lambda: watching.wait_for_timeout(50) or held)
    watching.evaluate(HIDE, True)
    expect(watching.get_by_text("paused")).to_be_visible()
    answer = held[0].fetch().text()
    held[0].fulfill(body=answer.replace("SECONDARY", "RECOVERING"), content_type="application/json")
    expect(row_of(watching, name)).to_contain_text("RECOVERING")
    expect(watching.get_by_text("paused")).to_be_visible()


def test_an_app_that_ends_is_told_apart_from_a_database_that_does(
    trio: Deployment, serve: Any, new_page: Any
) -> None:
    site = serve(trio, alone=True)
    page = new_page(site)
    page.goto("/topology")
    expect(summary(page)).to_contain_text("3 members")
    site.server.shutdown()
    site.server.server_close()
    expect(page.get_by_text("The app does not answer; trying again")).to_be_visible()
    # What was known stays, dimmed.
    expect(summary(page)).to_contain_text("3 members")


def test_the_picture_fits_any_width(watching: Page) -> None:
    picture = watching.get_by_role("img")
    inside = (
        "svg => { const own = svg.getBoundingClientRect(); return [...svg.querySelectorAll('rect')].every("
        "each => each.getBoundingClientRect().right <= own.right + 1) }"
    )
    for width in (320, 600, 1280):
        watching.set_viewport_size({"width": width, "height": 800})
        until(f"the picture for {width} px", lambda: picture.evaluate(inside))
        assert watching.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
