"""The forms of the user blueprint: the one validation of HTML forms, JSON bodies and query strings."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from wtforms import EmailField, Form, IntegerField, PasswordField, SearchField, StringField
from wtforms.validators import InputRequired, Length, Optional, ValidationError

from flaskbook.user.model import AGE_MAX, EMAIL_LENGTH, NAME_LENGTH, Position

PASSWORD_MIN = 10
PASSWORD_MAX = 256

# What a browser accepts in <input type=email>:
# https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address
_EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
# Invisible, but spelling in Persian and several Indic scripts needs them.
_JOINERS = "\u200c\u200d"


def normalised_email(value: str | None) -> str | None:
    """Return an address in the form in which it is stored and compared."""
    return value.strip().lower() if value else value


def _normalised_name(value: str | None) -> str | None:
    return " ".join(unicodedata.normalize("NFC", value).split()) if value else value


def _printable(_form: Form, field: Any) -> None:
    if any(not character.isprintable() and character not in _JOINERS for character in field.data or ""):
        raise ValidationError("Contains characters that can't be shown.")


def _storable(_form: Form, field: Any) -> None:
    try:
        nul = "\0" in field.data
        field.data.encode()
    except UnicodeEncodeError:
        raise ValidationError("Contains characters that can't be stored.") from None
    if nul:
        raise ValidationError("Contains characters that can't be stored.")


def _an_email(_form: Form, field: Any) -> None:
    if not _EMAIL.fullmatch(field.data or ""):
        raise ValidationError("Enter an e-mail address, such as ada@example.org.")


class AgeField(IntegerField):  # type: ignore[misc]
    """Years in plain digits: ``int()`` alone would also take ``1_0``, ``+5`` and other scripts' digits."""

    def __init__(self, label: str, description: str = "", **arguments: Any) -> None:
        """Make the field; ``arguments`` are those of any WTForms field."""
        render = {"inputmode": "numeric", "min": 0, "max": AGE_MAX}
        super().__init__(label, [Optional()], description=description, render_kw=render, **arguments)

    def process_formdata(self, valuelist: list[str]) -> None:
        """Read the text that was sent; empty text is not a number."""
        text = valuelist[0].strip() if valuelist else ""
        self.data = None
        if not text:
            return
        if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > AGE_MAX:
            raise ValueError(f"Enter a whole number from 0 to {AGE_MAX}, or nothing.")
        self.data = int(text)


def _name(label: str, autocomplete: str) -> StringField:
    return StringField(
        label,
        filters=[_normalised_name],
        validators=[
            InputRequired(f"Enter your {label.lower()}."),
            Length(1, NAME_LENGTH, f"Use 1 to {NAME_LENGTH} characters."),
            _printable,
        ],
        render_kw={"autocomplete": autocomplete},
    )


def _email(label: str = "E-mail address", autocomplete: str = "email") -> EmailField:
    return EmailField(
        label,
        filters=[normalised_email],
        validators=[
            InputRequired("Enter your e-mail address."),
            Length(max=EMAIL_LENGTH, message=f"Use at most {EMAIL_LENGTH} characters."),
            _an_email,
        ],
        render_kw={"autocomplete": autocomplete, "inputmode": "email", "spellcheck": "false"},
    )


def _new_password(label: str = "Password") -> PasswordField:
    return PasswordField(
        label,
        description=f"At least {PASSWORD_MIN} characters. A few unrelated words make a good one.",
        validators=[
            InputRequired("Choose a password."),
            Length(PASSWORD_MIN, PASSWORD_MAX, f"Use {PASSWORD_MIN} to {PASSWORD_MAX} characters."),
            _storable,
        ],
        render_kw={"autocomplete": "new-password"},
    )


def _password(label: str) -> PasswordField:
    return PasswordField(
        label,
        validators=[
            InputRequired("Enter your password."),
            Length(max=PASSWORD_MAX, message=f"Use at most {PASSWORD_MAX} characters."),
            _storable,
        ],
        render_kw={"autocomplete": "current-password"},
    )


class SignUpForm(Form):  # type: ignore[misc]
    """A new account."""

    first_name = _name("First name", "given-name")
    last_name = _name("Last name", "family-name")
    age = AgeField("Age", "Optional, in years.")
    email = _email()
    password = _new_password()


class LogInForm(Form):  # type: ignore[misc]
    """Address and password."""

    email = _email(autocomplete="username")
    password = _password("Password")


class LogOutForm(Form):  # type: ignore[misc]
    """Nothing to fill in."""


class ProfileForm(Form):  # type: ignore[misc]
    """What a person shows of themselves."""

    first_name = _name("First name", "given-name")
    last_name = _name("Last name", "family-name")
    age = AgeField("Age", "Optional, in years.")


class EmailForm(Form):  # type: ignore[misc]
    """Another log-in address."""

    email = _email("New e-mail address")
    password = _password("Password")


class PasswordForm(Form):  # type: ignore[misc]
    """Another password."""

    current_password = _password("Current password")
    password = _new_password("New password")


class DeleteForm(Form):  # type: ignore[misc]
    """The password, to be sure."""

    password = _password("Password")


class PeopleForm(Form):  # type: ignore[misc]
    """The people list's search, from the query string."""

    last_name = SearchField(
        "Last name",
        filters=[_normalised_name],
        validators=[Length(max=NAME_LENGTH, message=f"Use at most {NAME_LENGTH} characters."), _printable],
        render_kw={"autocomplete": "off"},
    )
    min_age = AgeField("Age from")
    max_age = AgeField("Age to")
    after = StringField("Page")
    position: Position | None = None

    def validate_after(self, field: Any) -> None:
        """Read the position; refuse what isn't one of ours."""
        if not field.data:
            return
        try:
            self.position = Position.decode(field.data)
        except ValueError:
            raise ValidationError("This page of the list doesn't exist.") from None

    def validate_max_age(self, field: Any) -> None:
        """Refuse a range in which nobody can be."""
        low = self.min_age.data
        if isinstance(low, int) and isinstance(field.data, int) and low > field.data:
            raise ValidationError("This is below the lowest age.")
