"""Sign up, log in, profile, and the life of an account."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from flaskbook.user import account

REDIRECTS = (302, 303)


def test_sign_up_log_in_edit_and_log_out_with_forms(client: Any, ada: Any, post_form: Any) -> None:
    answer = post_form(client, "/sign-up", ada)
    assert answer.status_code in REDIRECTS and answer.location == "/log-in"
    assert "If nobody had this e-mail address yet" in client.get("/log-in").text
    answer = post_form(client, "/log-in", {"email": ada["email"], "password": ada["password"]})
    assert answer.status_code in REDIRECTS and answer.location == "/profile"
    assert "Ada Lovelace" in client.get("/profile").text
    edited = {"first_name": "Augusta Ada", "last_name": "King", "age": ""}
    assert post_form(client, "/profile/edit", edited).status_code in REDIRECTS
    page = client.get("/profile").text
    assert "Augusta Ada King" in page and "not given" in page
    assert post_form(client, "/log-out", {}, page="/profile").status_code in REDIRECTS
    assert client.get("/profile").status_code in REDIRECTS


def test_the_same_journey_with_json(client: Any, ada: Any, register: Any) -> None:
    profile = register(client)
    assert profile["name"] == {"first_name": "Ada", "last_name": "Lovelace"}
    assert profile["age"] == 36 and profile["email"] == ada["email"]
    edited = client.post("/profile/edit", json={"first_name": "Augusta", "last_name": "King"}).get_json()
    assert edited["name"]["last_name"] == "King" and edited["age"] is None
    public = client.get(profile["url"], headers={"Accept": "application/json"}).get_json()
    assert public == {"id": profile["id"], "name": edited["name"], "age": None, "url": profile["url"]}
    assert client.post("/log-out", json={}).status_code == 200
    assert client.get("/profile", headers={"Accept": "application/json"}).status_code == 401


def test_the_name_is_stored_as_a_nested_document(client: Any, register: Any, database: Any) -> None:
    register(client)
    stored = database["user"].find_one()
    assert stored["name"] == {"first_name": "Ada", "last_name": "Lovelace"}
    assert stored["password_hash"].startswith("$argon2id$")
    register(client, email="b@example.org", age=None)
    assert "age" not in database["user"].find_one({"email": "b@example.org"})


def test_sign_up_answers_alike_for_a_free_and_a_taken_address(
    app: Any, ada: Any, post_form: Any, database: Any
) -> None:
    first, second = app.test_client(), app.test_client()
    for send in (
        lambda client, fields: client.post("/sign-up", json=fields),
        lambda client, fields: post_form(client, "/sign-up", fields),
    ):
        database["user"].delete_many({})
        database["email_claim"].delete_many({})
        free = send(first, ada)
        taken = send(second, {**ada, "email": "ADA@Example.org ", "password": "another password"})
        assert (free.status_code, free.data, free.location) == (taken.status_code, taken.data, taken.location)
        assert database["user"].count_documents({}) == 1


def test_a_wrong_password_and_an_unknown_address_are_answered_alike(client: Any, ada: Any) -> None:
    client.post("/sign-up", json=ada)
    wrong = client.post("/log-in", json={"email": ada["email"], "password": "not this one"})
    unknown = client.post("/log-in", json={"email": "nobody@example.org", "password": "not this one"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.data == unknown.data


def test_an_unknown_address_costs_a_verification_too(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    from argon2 import PasswordHasher

    original = PasswordHasher.verify

    def spy(self: PasswordHasher, hashed: Any, password: Any) -> Any:
        verified.append(password)
        return original(self, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", spy)
    client.post("/log-in", json={"email": "nobody@example.org", "password": "not this one"})
    assert verified == ["not this one"]


def test_two_sign_ups_at_once_make_one_account(app: Any, ada: Any, database: Any) -> None:
    for number in range(5):
        start = threading.Barrier(2)
        answers: list[Any] = []

        def sign_up(
            password: str,
            number: int = number,
            start: threading.Barrier = start,
            answers: list[Any] = answers,
        ) -> None:
            fields = {**ada, "email": f"ada{number}@example.org", "password": password}
            client = app.test_client()
            start.wait()
            answers.append(client.post("/sign-up", json=fields).status_code)

        threads = [threading.Thread(target=sign_up, args=(f"password of {who}",)) for who in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [202, 202]
        assert database["user"].count_documents({"email": f"ada{number}@example.org"}) == 1


def test_a_claim_whose_user_was_never_written_does_not_block_the_address(
    client: Any, ada: Any, register: Any, database: Any
) -> None:
    abandoned = datetime.now(UTC) - account.GRACE - timedelta(seconds=1)
    database["email_claim"].insert_one({"_id": ada["email"], "user": ObjectId(), "claimed": abandoned})
    assert register(client)["email"] == ada["email"]


def test_a_claim_that_is_being_worked_on_is_respected(client: Any, ada: Any, database: Any) -> None:
    database["email_claim"].insert_one(
        {"_id": ada["email"], "user": ObjectId(), "claimed": datetime.now(UTC)}
    )
    assert client.post("/sign-up", json=ada).status_code == 202
    assert database["user"].count_documents({}) == 0


def test_who_loses_the_claim_while_writing_the_user_takes_it_back(
    client: Any, ada: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flaskbook.user.model import User

    original = User.save
    other = ObjectId()

    def slow_save(self: Any, **options: Any) -> Any:
        database["email_claim"].update_one({"_id": ada["email"]}, {"$set": {"user": other}})
        return original(self, **options)

    monkeypatch.setattr(User, "save", slow_save)
    assert client.post("/sign-up", json=ada).status_code == 202
    assert database["user"].count_documents({}) == 0
    assert database["email_claim"].find_one()["user"] == other


def test_changing_the_address(app: Any, ada: Any, register: Any, database: Any) -> None:
    client = app.test_client()
    register(client)
    change = {"email": "new@example.org", "password": ada["password"]}
    assert client.post("/account/email", json=change).status_code == 202
    assert client.get("/profile", headers={"Accept": "application/json"}).status_code == 401
    old = client.post("/log-in", json={"email": ada["email"], "password": ada["password"]})
    new = client.post("/log-in", json={"email": "new@example.org", "password": ada["password"]})
    assert (old.status_code, new.status_code) == (401, 200)
    register(app.test_client(), password="someone else now")  # the former address is free again
    assert database["user"].count_documents({}) == 2


def test_changing_to_a_taken_address_changes_nothing_and_says_the_same(
    app: Any, ada: Any, register: Any
) -> None:
    register(app.test_client(), email="taken@example.org")
    answers = []
    for wanted in ("taken@example.org", "free@example.org"):
        client = app.test_client()
        register(client, email=f"from-{wanted}")
        answers.append(client.post("/account/email", json={"email": wanted, "password": ada["password"]}))
    taken, free = answers
    assert (taken.status_code, taken.data) == (free.status_code, free.data)
    still = {"email": "from-taken@example.org", "password": ada["password"]}
    assert app.test_client().post("/log-in", json=still).status_code == 200


def test_a_crash_between_claim_and_change_of_address_blocks_nobody(
    app: Any, ada: Any, register: Any, database: Any
) -> None:
    user_id = ObjectId(register(app.test_client())["id"])
    old = datetime.now(UTC) - account.GRACE - timedelta(seconds=1)
    database["email_claim"].insert_one({"_id": "wanted@example.org", "user": user_id, "claimed": old})
    claimed_only = {"email": "wanted@example.org", "password": ada["password"]}
    assert app.test_client().post("/log-in", json=claimed_only).status_code == 401
    register(app.test_client(), email="wanted@example.org", password="a newcomer's password")


def test_changing_the_password_ends_other_sessions_and_keeps_this_one(
    app: Any, ada: Any, register: Any
) -> None:
    here, elsewhere = app.test_client(), app.test_client()
    register(here)
    elsewhere.post("/log-in", json={"email": ada["email"], "password": ada["password"]})
    json = {"Accept": "application/json"}
    assert elsewhere.get("/profile", headers=json).status_code == 200
    wrong = here.post("/account/password", json={"current_password": "wrong", "password": "a new password"})
    assert wrong.status_code == 400
    change = {"current_password": ada["password"], "password": "a new password"}
    assert here.post("/account/password", json=change).status_code == 200
    assert here.get("/profile", headers=json).status_code == 200
    assert elsewhere.get("/profile", headers=json).status_code == 401


def test_deleting_the_account_deletes_its_data_and_frees_the_address(
    app: Any, ada: Any, register: Any, database: Any
) -> None:
    client = app.test_client()
    profile = register(client)
    assert client.post("/account/delete", json={"password": "wrong"}).status_code == 400
    assert client.post("/account/delete", json={"password": ada["password"]}).status_code == 200
    assert database["user"].count_documents({}) == database["email_claim"].count_documents({}) == 0
    assert client.get(profile["url"]).status_code == 404
    register(app.test_client())


def test_an_edit_that_races_with_deletion_does_not_revive_the_account(
    app: Any, register: Any, database: Any
) -> None:
    from flaskbook.user.model import User

    client = app.test_client()
    register(client)
    with app.test_request_context():
        user = User.objects.first()
        account.delete(user)
        account.change_profile(user, first_name="Not", last_name="Dead", age=1)
        account.change_password(user, "some new password")
    assert database["user"].count_documents({}) == 0


def test_a_password_is_rehashed_when_the_parameters_change(
    make_app: Any, ada: Any, register: Any, database: Any
) -> None:
    register(make_app().test_client())
    before = database["user"].find_one()["password_hash"]
    stronger = make_app(ARGON2_TIME_COST=2).test_client()
    assert (
        stronger.post("/log-in", json={"email": ada["email"], "password": ada["password"]}).status_code == 200
    )
    after = database["user"].find_one()["password_hash"]
    assert "t=1" in before and "t=2" in after


def test_log_in_is_limited_alike_for_known_and_unknown_addresses(make_app: Any, ada: Any) -> None:
    app = make_app(LOGIN_LIMIT_PER_EMAIL_AND_CLIENT=3)
    app.test_client().post("/sign-up", json=ada)
    transcripts = []
    for email in (ada["email"], "nobody@example.org"):
        answers = [
            app.test_client().post("/log-in", json={"email": email, "password": "wrong"}) for _ in range(5)
        ]
        transcripts.append([answer.status_code for answer in answers])
        assert int(answers[-1].headers["Retry-After"]) > 0
    assert transcripts[0] == transcripts[1] == [401, 401, 401, 429, 429]
    locked = app.test_client().post("/log-in", json={"email": ada["email"], "password": ada["password"]})
    assert locked.status_code == 429
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    right = {"email": ada["email"], "password": ada["password"]}
    assert app.test_client().post("/log-in", json=right, environ_base=elsewhere).status_code == 200


def test_successful_log_ins_use_no_limit_up(make_app: Any, ada: Any) -> None:
    app = make_app(LOGIN_LIMIT_PER_EMAIL_AND_CLIENT=2, LOGIN_LIMIT_PER_CLIENT=2, LOGIN_LIMIT_PER_EMAIL=2)
    app.test_client().post("/sign-up", json=ada)
    right = {"email": ada["email"], "password": ada["password"]}
    assert [app.test_client().post("/log-in", json=right).status_code for _ in range(5)] == [200] * 5


@pytest.mark.parametrize(
    ("target", "followed"),
    [
        ("/people?last_name=a", "/people?last_name=a"),
        ("//evil.example", "/profile"),
        ("/\\evil.example", "/profile"),
        ("/\t/evil.example", "/profile"),
        ("https://evil.example/", "/profile"),
        ("javascript:alert(1)", "/profile"),
        ("people", "/profile"),
    ],
)
def test_next_leads_to_this_site_only(
    client: Any, ada: Any, post_form: Any, target: str, followed: str
) -> None:
    client.post("/sign-up", json=ada)
    from urllib.parse import quote

    address = f"/log-in?next={quote(target, safe='')}"
    answer = post_form(client, address, {"email": ada["email"], "password": ada["password"]})
    assert answer.status_code in REDIRECTS and answer.location == followed


def test_a_page_that_needs_log_in_is_returned_to(client: Any) -> None:
    answer = client.get("/profile/edit")
    assert answer.status_code in REDIRECTS and answer.location == "/log-in?next=/profile/edit"


def test_form_errors_are_tied_to_their_fields(client: Any, post_form: Any) -> None:
    answer = post_form(client, "/sign-up", {"first_name": "Ada", "email": "nonsense", "password": "short"})
    assert answer.status_code == 400
    assert 'aria-describedby="email-error"' in answer.text and 'id="email-error"' in answer.text
    assert 'aria-describedby="password-hint password-error"' in answer.text
    assert 'value="Ada"' in answer.text and "short" not in answer.text.replace("short-", "")


def test_an_address_is_the_same_in_any_case(client: Any, ada: Any, register: Any, database: Any) -> None:
    register(client, email=" Ada@Example.ORG ")
    assert database["user"].find_one()["email"] == "ada@example.org"
    again = {"email": "ADA@EXAMPLE.ORG", "password": ada["password"]}
    assert client.post("/log-in", json=again).status_code == 200


def test_a_form_that_is_too_often_sent_is_answered_with_a_page(
    make_app: Any, ada: Any, post_form: Any
) -> None:
    client = make_app(CLAIM_LIMIT_PER_CLIENT=1).test_client()
    post_form(client, "/sign-up", ada)
    answer = post_form(client, "/sign-up", {**ada, "email": "other@example.org"})
    assert answer.status_code == 429 and "tried too often" in answer.text and answer.headers["Retry-After"]
