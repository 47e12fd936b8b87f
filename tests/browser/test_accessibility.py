"""axe finds nothing on any page, in light and in dark; and every page fits a narrow screen."""

from __future__ import annotations

import re
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

PUBLIC = (
    *("/", "/sign-up", "/log-in", "/people", "/people?last_name=nobody", "/people?min_age=9&max_age=3"),
    *("/no-such-page", "/topology"),
)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
OWN = ("/profile", "/profile/edit", "/account/email", "/account/password", "/account/delete", "/people", "/")


def problems(page: Page) -> list[str]:
    """What axe finds, with the places."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(Axe().axe_script)
    # All that axe tells of what is well takes as long to bring here as to find out.
    found = page.evaluate("() => axe.run({resultTypes: ['violations']}).then(all => all.violations)")
    return [f"{each['id']}: {', '.join(str(node['target']) for node in each['nodes'])}" for each in found]


def check(page: Page, place: str) -> None:
    for scheme in SCHEMES:
        _show_in(page, scheme)
        assert problems(page) == [], f"{place}, {scheme}"
    page.set_viewport_size({"width": 320, "height": 640})
    for scheme in reversed(SCHEMES):
        _show_in(page, scheme)
        fits = page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert fits, f"{place} at 320 px, {scheme}"
    page.set_viewport_size({"width": 1280, "height": 800})


def _show_in(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate(f"() => matchMedia('(prefers-color-scheme: {scheme})').matches")


def test_pages_for_everybody(page: Page) -> None:
    for place in PUBLIC:
        page.goto(place)
        if place == "/topology":
            expect(page.get_by_text("live", exact=True)).to_be_visible()
        check(page, place)
    page.goto("/log-in")
    page.get_by_label("E-mail address").fill("nobody@example.org")
    page.get_by_label("Password").fill("a wrong one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "/log-in with an error")
    page.goto("/sign-up")
    page.locator("main form").evaluate("form => { form.noValidate = true }")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "/sign-up with errors")


def test_pages_of_somebody_who_is_logged_in(page: Page, ada: dict[str, str], sign_up: Any) -> None:
    sign_up(page, ada)
    for place in OWN:
        page.goto(place)
        check(page, place)
    page.goto("/topology")
    page.get_by_role("button", name="Add 1,000 sample people").click()
    expect(page.get_by_text("1,000 people were added.")).to_be_visible()
    check(page, "/topology after adding people")
    page.goto("/people")
    check(page, "/people with pages")
    page.get_by_role("listitem").get_by_role("link").first.click()
    expect(page).to_have_url(re.compile("/people/[0-9a-f]{24}"))
    check(page, "a person")
