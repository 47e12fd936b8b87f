"""The life of an account: sign up, log in, change of e-mail address and password, deletion.

**Addresses are unique without transactions.** A user owns an e-mail address when the address' claim names the
user *and* the user carries the address. Every change is made in an order in which a crash between two steps
leaves nobody locked out:

- sign up: claim, then user. A crash between leaves a claim whose user doesn't exist;
- change of address: claim the new one, then the user, then release the old one. A crash leaves a claim on an
  address that its user doesn't carry (yet, or any more);
- deletion: user, then claim.

Such a claim is *abandoned*. Once it is :data:`GRACE` old, so that no request can still be working on it, the
next who wants the address takes it over, by a compare-and-swap that one of several wins. After writing the
user, the claim is read again: who lost it meanwhile (a process that slept through the whole grace) takes the
write back. Claims are read from the primary and written with majority, whatever the URI says.

**Which addresses exist is not revealed.** This app can't send e-mail, which is the usual way to answer
someone who signs up with an address that is taken. So sign-up gives the same answer in both cases — "if the
address was free, your account is ready: log in" — does the same hashing, and logs nobody in. A change of
address does likewise and ends the session. What remains: a person who logs in with the password that was just
chosen learns whether the account is theirs. No app without e-mail can hide that; rate limits on both steps make
it slow to use in bulk.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from flaskbook.user import limit
from flaskbook.user.model import EmailClaim, Name, User, new_session_key
from flaskbook.user.password import passwords

# Longer than any request can take, clocks of hosts being apart included.
GRACE = timedelta(seconds=60)


def sign_up(
    *, first_name: str, last_name: str, email: str, age: int | None, password: str, client: str
) -> bool:
    """Create an account if the address is free.

    Returns whether an account was created; the answer to the client must not depend on it. Raises
    TooManyRequests.
    """
    limit.count(limit.claim_limits(client))
    user = User(
        id=ObjectId(),
        name=Name(first_name=first_name, last_name=last_name),
        email=email,
        age=age,
        password_hash=passwords().hash(password),
    )
    if not _claim(email, user.id):
        return False
    user.save(force_insert=True)
    if _holder(email) != user.id:
        user.delete()
        return False
    return True


def authenticate(email: str, password: str, client: str) -> User | None:
    """Return the user who has this address and password, or None.

    Raises TooManyRequests: too many failures for this address or from this client.
    """
    counted = limit.count(limit.log_in_limits(email, client))
    # The same queries and the same hashing whether or not anybody has the address.
    user: User | None = User.objects(id=_holder(email) or ObjectId(), email=email).first()
    if not passwords().verify(user.password_hash if user else None, password) or user is None:
        return None
    limit.take_back(counted)
    if passwords().is_outdated(user.password_hash):
        User.objects(id=user.id, password_hash=user.password_hash).update_one(
            set__password_hash=passwords().hash(password)
        )
    return user


def change_profile(user: User, *, first_name: str, last_name: str, age: int | None) -> None:
    """Change what ``user`` shows of themselves.

    ``user`` is updated in place.
    """
    user.name = Name(first_name=first_name, last_name=last_name)
    user.age = age
    # An update of these fields, not save(): that is an upsert, which would bring a deleted account half back.
    changes = {"unset__age": True} if age is None else {"set__age": age}
    User.objects(id=user.id).update_one(set__name=user.name, **changes)


def change_email(user: User, email: str, client: str) -> bool:
    """Give ``user`` another address if it is free.

    ``user`` was authenticated for this very request. Returns whether the address was changed; the answer to
    the client must not depend on it. Raises TooManyRequests.
    """
    limit.count(limit.claim_limits(client))
    former = user.email
    if email == former or not _claim(email, user.id):
        return False
    if not User.objects(id=user.id, email=former).update_one(set__email=email):
        # Deleted, or changed by another request, meanwhile.
        _release(email, user.id)
        return False
    if _holder(email) != user.id:
        User.objects(id=user.id, email=email).update_one(set__email=former)
        return False
    _release(former, user.id)
    return True


def change_password(user: User, password: str) -> None:
    """Give ``user`` another password; all their sessions end, also the one that asked.

    ``user`` was authenticated for this very request, and is updated in place.
    """
    user.password_hash = passwords().hash(password)
    user.session_key = new_session_key()
    User.objects(id=user.id).update_one(
        set__password_hash=user.password_hash, set__session_key=user.session_key
    )


def delete(user: User) -> None:
    """Delete ``user`` with all that is stored about them; the address is free again.

    ``user`` was authenticated for this very request.
    """
    user.delete()
    _release(user.email, user.id)


def _claims() -> Collection[dict[str, Any]]:
    collection: Collection[dict[str, Any]] = EmailClaim._get_collection()
    return collection.with_options(
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern(w="majority"),
    )


def _claim(email: str, user_id: ObjectId) -> bool:
    now = datetime.now(UTC)
    claims = _claims()
    try:
        claims.insert_one({"_id": email, "user": user_id, "claimed": now})
    except DuplicateKeyError:
        found = claims.find_one({"_id": email})
    else:
        return True
    if found is None:
        return False  # released this instant: the next attempt gets it
    if found["user"] == user_id:
        return True
    if User.objects(id=found["user"], email=email).only("id").first() is not None:
        return False
    if found["claimed"] > now - GRACE:
        return False
    taken_over = claims.update_one(
        {"_id": email, "user": found["user"], "claimed": found["claimed"]},
        {"$set": {"user": user_id, "claimed": now}},
    )
    return taken_over.modified_count == 1


def _holder(email: str) -> ObjectId | None:
    found = _claims().find_one({"_id": email}, {"user": 1})
    return found["user"] if found else None


def _release(email: str, user_id: ObjectId) -> None:
    _claims().delete_one({"_id": email, "user": user_id})
