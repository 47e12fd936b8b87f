"""The pages of the user blueprint, each also in JSON for clients that ask for it.

====================  ===========  ======================================================================
Address               Methods      JSON fields in → out
====================  ===========  ======================================================================
``/sign-up``          GET, POST    first_name, last_name, age?, email, password → message (202 in any case)
``/log-in``           GET, POST    email, password → the own profile, or 401
``/log-out``          POST         ``{}`` → message
``/profile``          GET          → id, name, age, url, email, created
``/profile/edit``     GET, POST    first_name, last_name, age? → the own profile
``/account/email``    GET, POST    email, password → message (202); logs out
``/account/password`` GET, POST    current_password, password → message
``/account/delete``   GET, POST    password → message
``/people``           GET          last_name?, min_age?, max_age?, after? in the query → people, next
``/people/<id>``      GET          → id, name, age, url
====================  ===========  ======================================================================

Errors have the shape of :func:`flaskbook.negotiation.error_data`. A POST replaces all fields: one left out is
empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import quote

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    jsonify,
    render_template,
    request,
    session,
    url_for,
)
from flask.blueprints import BlueprintSetupState
from flask_login import LoginManager, current_user, login_required, login_user, logout_user
from wtforms import Form

from flaskbook.negotiation import done, error_data, invalid, query, respond, see_other, submitted, wants_json
from flaskbook.user import account
from flaskbook.user.form import (
    DeleteForm,
    EmailForm,
    LogInForm,
    LogOutForm,
    PasswordForm,
    PeopleForm,
    ProfileForm,
    SignUpForm,
)
from flaskbook.user.model import Person, User, find_people, find_person
from flaskbook.user.password import EXTENSION, Passwords

user_app = Blueprint("user", __name__, template_folder="templates", cli_group="user")

Answer = Response | str
F = TypeVar("F", bound=Form)

WRONG_LOG_IN = "This e-mail address and password don't belong together."
WRONG_PASSWORD = "This is not your password."  # noqa: S105
SIGN_UP_ANSWER = (
    "If nobody had this e-mail address yet, your account is ready: log in with the password you chose."
)
EMAIL_ANSWER = (
    "If nobody had the new e-mail address yet, it is now yours: log in with it. "
    "Otherwise the former one still holds."
)

# Of everybody who hasn't searched; only read.
_NO_SEARCH = PeopleForm()


@user_app.record_once
def _set_up(state: BlueprintSetupState) -> None:
    assert isinstance(state.app, Flask)  # noqa: S101 (Flask declares its base class)
    manager = LoginManager()
    manager.user_loader(User.from_session)
    manager.unauthorized_handler(_unauthorized)
    # It would mark sessions as stale for views that ask for a fresh log-in; ours ask for the password itself.
    manager.session_protection = None
    manager.init_app(state.app, add_context_processor=False)
    state.app.extensions[EXTENSION] = Passwords(state.app)
    # For what is the same on every page. A page that doesn't ask who is logged in costs no look at the database.
    state.app.jinja_env.globals.update(PeopleForm=PeopleForm, current_user=current_user)


@user_app.cli.command("create-indexes")
def create_indexes() -> None:
    """Create the database indexes now instead of at first use."""
    from flaskbook.database import connection
    from flaskbook.user.model import Attempts, EmailClaim

    for document in (User, EmailClaim, Attempts):
        connection().collection(document)


@user_app.route("/sign-up", methods=["GET", "POST"])
def sign_up() -> Answer:
    """Create an account. The answer is the same whether or not the address was free."""
    if request.method == "GET":
        if current_user.is_authenticated:
            return see_other(url_for("user.profile"))
        return render_template("user/sign_up.html", form=SignUpForm())
    form = submitted(SignUpForm)
    if not form.validate():
        return invalid("user/sign_up.html", form)
    account.sign_up(
        first_name=form.first_name.data,
        last_name=form.last_name.data,
        email=form.email.data,
        age=form.age.data,
        password=form.password.data,
        client=_client(),
    )
    if not wants_json():
        session["email"] = form.email.data  # fills the log-in form
    return done(SIGN_UP_ANSWER, url_for("user.log_in"), status=202)


@user_app.route("/log-in", methods=["GET", "POST"])
def log_in() -> Answer:
    """Begin a session."""
    target = safe_target(request.args.get("next"))
    if request.method == "GET":
        if current_user.is_authenticated:
            return see_other(target or url_for("user.profile"))
        form = LogInForm(data={"email": session.get("email")})
        return render_template("user/log_in.html", form=form, target=target)
    form = submitted(LogInForm)
    if not form.validate():
        return invalid("user/log_in.html", form, target=target)
    user = account.authenticate(form.email.data, form.password.data, _client())
    if user is None:
        form.form_errors.append(WRONG_LOG_IN)
        data = error_data(401, "Unauthorized", WRONG_LOG_IN)
        return respond("user/log_in.html", data, status=401, form=form, target=target)
    _begin_session(user)
    if wants_json():
        return jsonify(_own(user))
    return see_other(target or url_for("user.profile"))


@user_app.post("/log-out")
def log_out() -> Answer:
    """End the session. Without one, nothing happens."""
    submitted(LogOutForm)
    _end_session()
    return done("You are logged out.", url_for("user.log_in"))


@user_app.get("/profile")
@login_required  # type: ignore[untyped-decorator]
def profile() -> Answer:
    """Show the own profile."""
    return respond("user/profile.html", _own(current_user), user=current_user)


@user_app.route("/profile/edit", methods=["GET", "POST"])
@login_required  # type: ignore[untyped-decorator]
def edit_profile() -> Answer:
    """Change name and age."""
    name = current_user.name
    if request.method == "GET":
        form = ProfileForm(
            data={"first_name": name.first_name, "last_name": name.last_name, "age": current_user.age}
        )
        return respond("user/edit_profile.html", _own(current_user), form=form)
    form = submitted(ProfileForm)
    if not form.validate():
        return invalid("user/edit_profile.html", form)
    account.change_profile(
        current_user, first_name=form.first_name.data, last_name=form.last_name.data, age=form.age.data
    )
    if wants_json():
        return jsonify(_own(current_user))
    return done("Your profile is saved.", url_for("user.profile"))


@user_app.route("/account/email", methods=["GET", "POST"])
@login_required  # type: ignore[untyped-decorator]
def change_email() -> Answer:
    """Change the log-in address. The answer is the same whether or not the new address was free."""

    def change(user: User, form: EmailForm) -> Response:
        account.change_email(user, form.email.data, _client())
        _end_session()
        return done(EMAIL_ANSWER, url_for("user.log_in"), status=202)

    return _with_password("user/change_email.html", EmailForm, change)


@user_app.route("/account/password", methods=["GET", "POST"])
@login_required  # type: ignore[untyped-decorator]
def change_password() -> Answer:
    """Change the password and end the sessions on other devices."""

    def change(user: User, form: PasswordForm) -> Response:
        account.change_password(user, form.password.data)
        _begin_session(user)
        return done("Your password is changed. Other devices are logged out.", url_for("user.profile"))

    return _with_password("user/change_password.html", PasswordForm, change, "current_password")


@user_app.route("/account/delete", methods=["GET", "POST"])
@login_required  # type: ignore[untyped-decorator]
def delete_account() -> Answer:
    """Delete the account and all that is stored with it."""

    def delete(user: User, _form: DeleteForm) -> Response:
        account.delete(user)
        _end_session()
        return done("Your account is deleted.", url_for("user.people"))

    return _with_password("user/delete_account.html", DeleteForm, delete)


@user_app.get("/people")
def people() -> Answer:
    """List people by last name, a page at a time."""
    form = query(PeopleForm) if request.args else _NO_SEARCH
    if request.args and not form.validate():
        return invalid("user/people.html", form)
    search = {
        name: form[name].data
        for name in ("last_name", "min_age", "max_age")
        if form[name].data not in (None, "")
    }
    page = find_people(**search, after=form.position, limit=current_app.config["PEOPLE_PER_PAGE"])
    following = None
    if page.following is not None:
        following = url_for("user.people", **search, after=page.following.encode())
    shown = list(zip(page.people, _addresses(page.people), strict=True))

    def data() -> dict[str, Any]:
        return {"people": [_public(*each) for each in shown], "next": following}

    return respond("user/people.html", data, people=shown, following=following, form=form, search=search)


@user_app.get("/people/<person_id>")
def person(person_id: str) -> Answer:
    """Show what everybody may see of a person. The address stays the same for the life of the account."""
    found = find_person(person_id)
    if found is None:
        abort(404)
    return respond("user/person.html", _public(found, *_addresses([found])), person=found)


def safe_target(target: str | None) -> str | None:
    r"""Return ``target`` if it is a path on this site, else None.

    Browsers read ``//host`` and ``/\host`` as another site, and drop tabs and line ends before they look.
    """
    if target and re.fullmatch(r"/(?![/\\])[^\\\x00-\x20\x7f]*", target):
        return target
    return None


def _unauthorized() -> Answer:
    if wants_json():
        response = jsonify(error_data(401, "Unauthorized", "Log in first."))
        response.status_code = 401
        return response
    flash("Log in to see this page.")
    # A form that was sent can't be sent again by a redirect: only pages are returned to.
    target = request.full_path.rstrip("?") if request.method == "GET" else None
    return see_other(url_for("user.log_in", next=target))


def _with_password(
    template: str, form_class: type[F], act: Callable[[User, F], Response], field: str = "password"
) -> Answer:
    """Show a form that asks for the password; sent with the right one, it is acted upon.

    ``act`` is given the user, fresh from the database, and the valid form.
    """
    if request.method == "GET":
        return render_template(template, form=form_class())
    form = submitted(form_class)
    if not form.validate():
        return invalid(template, form)
    # Under the same limits as log-in: a stolen session does not help to guess a password.
    user = account.authenticate(current_user.email, form[field].data, _client())
    if user is None or user.id != current_user.id:
        form[field].errors = [WRONG_PASSWORD]
        return invalid(template, form)
    return act(user, form)


def _begin_session(user: User) -> None:
    # Nothing of the former session, its CSRF token least of all, outlives the change of user.
    session.clear()
    login_user(user)


def _end_session() -> None:
    logout_user()
    session.clear()


def _client() -> str:
    return request.remote_addr or ""


def _public(person: Person, address: str) -> dict[str, Any]:
    return {
        "id": person.id,
        "name": {"first_name": person.first_name, "last_name": person.last_name},
        "age": person.age,
        "url": address,
    }


def _addresses(people: Iterable[Person]) -> list[str]:
    # One is built, and theirs are made from it: building each would take longer than the query.
    base = url_for("user.person", person_id="")
    ids = (person.id for person in people)
    return [base + (each if each.isascii() and each.isalnum() else quote(each, safe="")) for each in ids]


def _own(user: User) -> dict[str, Any]:
    shown = Person(str(user.id), user.name.first_name, user.name.last_name, user.age)
    return {**_public(shown, *_addresses([shown])), "email": user.email, "created": user.created.isoformat()}
