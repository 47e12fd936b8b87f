"""What people do with flaskbook, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.deployments import deployed
from tests.support.polling import until
from tests.support.served import Served


def test_from_sign_up_to_log_in_again(page: Page, ada: dict[str, str]) -> None:
    page.goto("/")
    page.get_by_role("main").get_by_role("link", name="Sign up").click()
    for label, value in ada.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Create account").click()

    # The address is filled in already; the answer says nothing about who else has an account.
    expect(page.get_by_role("status")).to_contain_text("your account is ready")
    expect(page.get_by_label("E-mail address")).to_have_value("ada@example.org")
    page.get_by_label("Password").fill(ada["Password"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()

    page.get_by_role("link", name="Edit profile").click()
    expect(page.get_by_label("First name")).to_have_value("Ada")
    page.get_by_label("First name").fill("Augusta")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_have_text("Your profile is saved.")
    expect(page.get_by_role("heading", name="Augusta Lovelace")).to_be_visible()

    page.get_by_role("link", name="People", exact=True).click()
    page.get_by_role("link", name="Lovelace, Augusta").click()
    expect(page).to_have_url(re.compile(r"/people/[0-9a-f]{24}$"))
    expect(page.get_by_role("main")).not_to_contain_text("ada@example.org")

    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    page.goto("/profile")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("E-mail address").fill(ada["E-mail address"])
    page.get_by_label("Password").fill(ada["Password"])
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/profile$"))


def test_the_browser_itself_refuses_what_can_not_be_right(page: Page, ada: dict[str, str]) -> None:
    page.goto("/sign-up")
    page.get_by_role("button", name="Create account").click()
    expect(page).to_have_url(re.compile(r"/sign-up$"))
    expect(page.get_by_label("First name")).to_be_focused()
    expect(page.locator("input:invalid")).to_have_count(4)


def test_a_form_says_what_is_wrong_and_keeps_what_was_typed(page: Page, ada: dict[str, str]) -> None:
    page.goto("/sign-up")
    page.locator("main form").evaluate("form => { form.noValidate = true }")
    for label, value in {**ada, "Age": "200", "Password": "short"}.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Create account").click()

    problems = page.get_by_role("alert")
    expect(problems).to_contain_text("Please check:")
    expect(problems.get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_label("First name")).to_have_value("Ada")
    expect(page.get_by_label("Password", exact=True)).to_have_value("")
    age = page.get_by_label("Age", exact=True)
    expect(age).to_have_attribute("aria-invalid", "true")
    expect(age).to_have_accessible_description(re.compile("Enter a whole number from 0 to 150"))
    problems.get_by_role("link", name="Age").click()
    expect(age).to_be_focused()


def test_a_wrong_password_is_told_without_saying_whether_the_account_exists(
    page: Page, ada: dict[str, str], sign_up: Any
) -> None:
    sign_up(page, ada)
    page.get_by_role("button", name="Log out").click()
    told = []
    for email in (ada["E-mail address"], "nobody@example.org"):
        page.goto("/log-in")
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password").fill("not the engine")
        page.get_by_role("button", name="Log in").click()
        told.append(page.get_by_role("alert").inner_text())
    assert told[0] == told[1] == "This e-mail address and password don't belong together."


def test_people_are_found_by_the_keyboard_alone(page: Page, ada: dict[str, str]) -> None:
    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "() => { const e = document.activeElement; return e.labels?.[0]?.innerText ?? e.innerText }"
            )
            if focused.strip() == name:
                outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"nothing shows that {name} has the focus"
                return
        raise AssertionError(f"{name} is not reached with Tab")

    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to("Sign up")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sign-up")
    for label, value in ada.items():
        tab_to(label)
        page.keyboard.type(value)
    page.keyboard.press("Enter")
    page.wait_for_url("**/log-in")
    tab_to("Password")
    page.keyboard.type(ada["Password"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/profile")
    tab_to("People")
    page.keyboard.press("Enter")
    page.wait_for_url("**/people")
    tab_to("Last name")
    page.keyboard.type("love")
    page.keyboard.press("Enter")
    expect(page.get_by_role("listitem")).to_have_count(1)
    tab_to("AL\nLovelace, Ada\n36 years")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()


MARKUP = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '"><svg onload="window.ran = 1">',
    "{{ 7 * 7 }}",
    "javascript:window.ran=1//",
)


@pytest.mark.parametrize("text", MARKUP)
def test_a_stored_script_is_shown_and_not_run(
    page: Page, site: Served, ada: dict[str, str], sign_up: Any, text: str
) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    sign_up(page, {**ada, "First name": text, "Last name": text})
    # A name that people don't choose, on a page that is drawn by a script.
    site.app.extensions["flaskbook-mongodb"].database[text.replace("$", "")].insert_one({"_id": text})
    shown = re.compile(re.escape(text))
    for address in ("/profile", "/people"):
        page.goto(address)
        expect(page.get_by_role("main")).to_contain_text(shown)
    page.get_by_role("main").get_by_role("link").filter(has_text=shown).first.click()
    expect(page.get_by_role("heading")).to_contain_text(shown)
    page.goto("/profile/edit")
    expect(page.get_by_label("First name")).to_have_value(text)
    page.goto("/topology")
    expect(page.get_by_role("table").last).to_contain_text(shown)
    assert page.evaluate("() => window.ran") is None


def test_the_database_goes_away_and_comes_back(
    tmp_path: Path,
    mongod_binary: Path,
    mongod_version: str,
    serve: Any,
    new_page: Any,
    ada: Any,
    sign_up: Any,
) -> None:
    with deployed(tmp_path, mongod_binary, mongod_version, topology="single") as own:
        page = new_page(serve(own))
        sign_up(page, ada)
        own.kill_node(own.node())
        answer = page.goto("/people")
        assert answer is not None and answer.status == 503
        expect(page.get_by_role("main")).to_contain_text("The database is not reachable at the moment")
        own.start_node(own.node())

        def back() -> bool:
            found = page.goto("/profile")
            return found is not None and found.status == 200

        until("the profile", back)
        # Still logged in, and nothing is lost.
        expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()
