"""A direct connection to one node, for bringing it up.

Bring-up asks single nodes single questions, often before they can answer: it wants each refusal at once, and
none of a driver's discovery, retries and pools (PyMongo looks for servers every 0.5 s, and takes longer to
import than a mongod takes to start). So this speaks the little of the wire protocol that it needs: OP_MSG
with one document, and SCRAM-SHA-256. Applications use PyMongo.

https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets
import socket
import struct
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from provision.mongodb.credentials import Credentials

if TYPE_CHECKING:
    import ssl

_OP_MSG = 2013
_HEADER = struct.Struct("<iiii")
_LONGEST_REPLY = 48_000_000 + 16_384
# RFC 7677: a server that asks for fewer makes a recorded log-in cheap to guess from.
_FEWEST_ITERATIONS = 4096
# UserNotFound, Unauthorized, AuthenticationFailed, MechanismUnavailable.
_LOG_IN_REFUSED = frozenset({11, 13, 18, 334})


class NotReachable(ConnectionError):
    """Nothing answers there, or the connection broke."""


class Refused(NotReachable):
    """Something answers there, and it can't be trusted: asking again changes nothing."""


class CommandFailed(Exception):
    """The server answered with an error.

    Args:
        code: MongoDB's error code: https://www.mongodb.com/docs/manual/reference/error-codes/
        code_name: its name, ``"NotYetInitialized"``.
        message: the server's own words.
    """

    def __init__(self, code: int, code_name: str, message: str) -> None:
        self.code = code
        self.code_name = code_name
        self.message = message
        super().__init__(f"{code_name or code}: {message}")


class LogInRefused(CommandFailed):
    """The server refuses the credentials: asking again changes nothing."""


class Server(Protocol):
    """What commands can be sent to: a `Connection`, or one that is dialled again when it breaks."""

    def command(
        self, database: str, command: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Run one command and wait for its reply."""

    def close(self) -> None:
        """Close it; closing twice is fine."""


class Connection:
    """One socket to one mongod or mongos, open from construction to `close`.

    Args:
        timeout: seconds for connecting and for each reply.
        credentials: who to be; None: nobody.
        tls: context to encrypt with; None: plain.

    Raises:
        NotReachable: nothing listens, or it did not answer in time; `Refused` where what answers can't be trusted.
        CommandFailed: the server can't log anybody in now; `LogInRefused` where it refuses the credentials.
    """

    def __init__(
        self,
        host: str,
        port: int,
        timeout: float = 5.0,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._request = 0
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except OSError as error:
            raise NotReachable(f"{host}:{port}: {error}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=host)
            if credentials is not None:
                self._authenticate(credentials)
        except CommandFailed as refusal:
            self.close()
            if refusal.code not in _LOG_IN_REFUSED:
                raise
            raise LogInRefused(refusal.code, refusal.code_name, refusal.message) from None
        except OSError as error:
            self.close()
            raise _broken(error, f"{host}:{port}: ") from error
        except BaseException:
            self.close()
            raise

    def command(
        self, database: str, command: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Run one command and wait for its reply.

        Args:
            command: the command's document; its first key names it.
            timeout: seconds to wait for this reply, if not the connection's own.

        Raises:
            NotReachable: the connection broke, or no reply came in time.
            CommandFailed: ``ok: 0``, a write error or a write concern error.
        """
        import bson

        body = bson.encode({**command, "$db": database})
        self._request += 1
        message = struct.pack("<I", 0) + b"\0" + body
        normal = self._socket.gettimeout()
        try:
            if timeout is not None:
                self._socket.settimeout(timeout)
            self._socket.sendall(_HEADER.pack(16 + len(message), self._request, 0, _OP_MSG) + message)
            length, _, _, opcode = _HEADER.unpack(self._receive(16))
            if opcode != _OP_MSG or not 21 <= length <= _LONGEST_REPLY:
                raise Refused("what answers there does not speak MongoDB's protocol")
            payload = self._receive(length - 16)
        except OSError as error:
            self.close()
            raise _broken(error) from error
        finally:
            if self._socket.fileno() >= 0:
                self._socket.settimeout(normal)
        reply: dict[str, Any] = bson.decode(payload[5:])
        _raise_for(reply)
        return reply

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._socket.recv(min(size - len(received), 1 << 20))
            if not part:
                raise NotReachable("the server closed the connection")
            received += part
        return bytes(received)

    def _authenticate(self, credentials: Credentials) -> None:
        """SCRAM-SHA-256, RFC 7677. Passwords here are ASCII, which SASLprep leaves as it is."""
        nonce = base64.b64encode(secrets.token_bytes(24)).decode()
        name = credentials.username.replace("=", "=3D").replace(",", "=2C")
        first = f"n={name},r={nonce}"
        reply = self.command(
            credentials.source,
            {
                "saslStart": 1,
                "mechanism": "SCRAM-SHA-256",
                "payload": f"n,,{first}".encode(),
                "options": {"skipEmptyExchange": True},
            },
        )
        challenge = bytes(reply["payload"]).decode()
        given = dict(part.split("=", 1) for part in challenge.split(","))
        if not given["r"].startswith(nonce):
            raise Refused("the server answered another client's log-in")
        iterations = int(given["i"])
        if iterations < _FEWEST_ITERATIONS:
            raise Refused(
                f"the server asks for a log-in of {iterations} iterations of SCRAM, and fewer than "
                f"{_FEWEST_ITERATIONS} are not safe"
            )
        salted = _salted(credentials.password, given["s"], iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={given['r']}"
        signed = f"{first},{challenge},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        reply = self.command(
            credentials.source,
            {
                "saslContinue": 1,
                "conversationId": reply["conversationId"],
                "payload": f"{without_proof},p={proof}".encode(),
            },
        )
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        expected = base64.b64encode(hmac.digest(server_key, signed, "sha256")).decode()
        if bytes(reply["payload"]).decode() != f"v={expected}":
            raise Refused("the server could not prove that it knows the password")


@functools.lru_cache(maxsize=256)
def _salted(password: str, salt: str, iterations: int) -> bytes:
    """The costly part of a log-in, 10 ms and more; a server gives a user the same salt each time."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), iterations)


def _broken(error: OSError, place: str = "") -> NotReachable:
    """What a connection's failure means: it is worth another try, or one side refuses the other's TLS."""
    if isinstance(error, NotReachable):
        return error
    if "ssl" in sys.modules and (refused := _refused_by_tls(error)):
        return Refused(f"{place}{refused}")
    return NotReachable(f"{place}{str(error) or type(error).__name__}")


def _refused_by_tls(error: OSError) -> str | None:
    """Why one side refuses the other's TLS; None: the handshake was cut off, or the error is not one of TLS."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message.rstrip('.')}"
    # The server was ending, or had just begun.
    cut_off = (
        *(ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError),
        *(ssl.SSLWantReadError, ssl.SSLWantWriteError),
    )
    if not isinstance(error, ssl.SSLError) or isinstance(error, cut_off):
        return None
    return None if error.reason == "UNEXPECTED_EOF_WHILE_READING" else f"TLS failed: {error.reason or error}"


def _raise_for(reply: Mapping[str, Any]) -> None:
    if not reply.get("ok"):
        raise CommandFailed(
            int(reply.get("code", 0)), str(reply.get("codeName", "")), str(reply.get("errmsg", reply))
        )
    problem = next(iter(reply.get("writeErrors") or ()), None) or reply.get("writeConcernError")
    if problem:
        raise CommandFailed(
            int(problem.get("code", 0)), str(problem.get("codeName", "")), str(problem.get("errmsg", problem))
        )
