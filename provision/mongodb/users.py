"""Key file and credentials: who may do what, from the first boot.

With `security.keyFile` set, the user ``__system``, whose password is the key file's text, may do everything before
a replica set is initiated. So there is no localhost exception to use, and no start without authentication first.
https://www.mongodb.com/docs/manual/core/security-internal-authentication/
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import field
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.files import write_atomically
from provision.mongodb.credentials import Credentials
from provision.mongodb.wire import CommandFailed, Server
from provision.settings.paths import Paths
from provision.state import records

_KEY_BYTES = 90  # 120 characters of base64; MongoDB takes 6 to 1024
_EXISTS = 51003
_MAJORITY = {"w": "majority", "wtimeout": 30_000}


@dataclass(frozen=True)
class Secrets:
    """The secrets of one deployment."""

    key: str = field(repr=False)  # text of the key file
    root: Credentials  # the user who may do everything
    # the user of the app: reads and writes its database, and sees the state of the deployment
    app: Credentials
    # certificate of the authority that its nodes are trusted by; None: it has none
    authority: Path | None = None

    @property
    def system(self) -> Credentials:
        """The deployment's members to each other, and the tool to a single member."""
        return Credentials("__system", self.key, "local")

    def user(self, name: str) -> Credentials:
        """``root`` or ``app``."""
        return {"root": self.root, "app": self.app}[name]


def existing(paths: Paths, deployment: str) -> Secrets | None:
    """The secrets that a deployment was given, if it was."""
    record = records.CREDENTIALS.read(paths, deployment)
    if record is None:
        return None
    authority = paths.ca_certificate(deployment)
    try:
        return Secrets(
            str(record["key"]),
            Credentials("root", str(record["root"])),
            Credentials("app", str(record["app"])),
            authority if authority.is_file() else None,
        )
    except KeyError:
        return None


def ensure(paths: Paths, deployment: str) -> Secrets:
    """The deployment's secrets, generated on first use: credentials 0600, key file 0400.

    Raises OSError: they can't be written.
    """
    found = existing(paths, deployment)
    if found is None:
        key = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
        record = {"key": key, "root": secrets.token_urlsafe(24), "app": secrets.token_urlsafe(24)}
        records.CREDENTIALS.write(paths, record, deployment)
        found = Secrets(key, Credentials("root", record["root"]), Credentials("app", record["app"]))
    key_file = paths.key_file(deployment)
    # Whether it is there, not what it says: the image's user owns it, and this user may not read it.
    if not key_file.exists():
        write_atomically(key_file, found.key + "\n", 0o400)
    paths.deployment(deployment).chmod(0o700)
    return found


def ensure_users(connection: Server, found: Secrets, database: str) -> None:
    """Create the two users where they are missing, and give them the passwords on record.

    Follows https://www.mongodb.com/docs/manual/reference/command/createUser/

    Args:
        connection: to a primary, as ``__system``.
        database: the app's database, on which the app's user may read and write; elsewhere it may only look at the
            state of the deployment.

    Raises CommandFailed: the server refused.
    """
    roles = {
        found.root: [{"role": "root", "db": "admin"}],
        # The second is for the app's topology page; it reads how the deployment is, and nobody's data.
        found.app: [{"role": "readWrite", "db": database}, {"role": "clusterMonitor", "db": "admin"}],
    }
    for user, granted in roles.items():
        document = {
            "pwd": user.password,
            "roles": granted,
            "mechanisms": ["SCRAM-SHA-256"],
            "writeConcern": _MAJORITY,
        }
        try:
            connection.command("admin", {"createUser": user.username, **document}, timeout=40)
        except CommandFailed as refusal:
            if refusal.code != _EXISTS:
                raise
            # Data that outlived their secrets: the users get the new ones.
            connection.command("admin", {"updateUser": user.username, **document}, timeout=40)
