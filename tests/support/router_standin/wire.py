"""MongoDB's wire protocol, the part between a driver, a router and a mongod: OP_MSG, and the OP_QUERY greeting.

Follows https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM_PRESENT, MORE_TO_COME = 1, 2
MAX_MESSAGE_BYTES = 48_000_000
_HEADER = struct.Struct("<iiii")
_request_ids = itertools.count(1)

# Every BSON value survives decoding and encoding: dates out of Python's range, UUIDs of any kind.
PLAIN: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
)


class ProtocolError(Exception):
    """The peer sent something that is no message of this protocol; the connection is of no more use."""


@dataclass(frozen=True)
class Command:
    """A command as it arrived.

    Attributes:
        fields: top-level fields in order; documents within are left encoded, so that they pass through unchanged.
        sequences: (field name, concatenated BSON documents) of each kind-1 section.
        request_id: what the reply must name.
        legacy: arrived as OP_QUERY, to be answered with OP_REPLY.
        silent: the client wants no reply (unacknowledged write).
    """

    fields: Mapping[str, Any]
    sequences: tuple[tuple[str, bytes], ...]
    request_id: int
    legacy: bool = False
    silent: bool = False

    @cached_property
    def name(self) -> str:
        """The command's name: its first field."""
        return next(iter(self.fields))

    @cached_property
    def database(self) -> str:
        """The database that the command addresses."""
        return str(self.fields.get("$db", "admin"))

    @cached_property
    def plain(self) -> dict[str, Any]:
        """All of the command decoded, document sequences in their place among the fields."""
        document = bson.decode(bson.encode(self.fields), PLAIN)
        for name, documents in self.sequences:
            document[name] = bson.decode_all(documents, PLAIN)
        return document


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """Returns `count` bytes. Raises EOFError when the peer closed before the first, ProtocolError when amid them."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            if parts:
                raise ProtocolError("connection closed within a message")
            raise EOFError
        parts += part
    return bytes(parts)


def read_message(connection: socket.socket) -> tuple[int, int, bytes]:
    """Returns the next message: request id, operation code, payload. Raises EOFError, ProtocolError, OSError."""
    length, request_id, _, opcode = _HEADER.unpack(read_exactly(connection, _HEADER.size))
    if not _HEADER.size < length <= MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {length} bytes")
    return request_id, opcode, read_exactly(connection, length - _HEADER.size)


def parse_command(request_id: int, opcode: int, payload: bytes) -> Command:
    """Returns the command in a message. Raises ProtocolError for anything but OP_MSG and an OP_QUERY command."""
    try:
        if opcode == OP_QUERY:
            return _parse_query(request_id, payload)
        if opcode == OP_MSG:
            return _parse_msg(request_id, payload)
    except (struct.error, IndexError, ValueError, bson.errors.InvalidBSON) as error:
        raise ProtocolError(f"malformed message: {error}") from error
    raise ProtocolError(f"operation code {opcode} is not served")


def _parse_query(request_id: int, payload: bytes) -> Command:
    name_end = payload.index(b"\0", 4)
    collection = payload[4:name_end].decode()
    database, _, name = collection.partition(".")
    if name != "$cmd":
        raise ProtocolError("OP_QUERY is served for commands only")
    fields = _top_level(payload[name_end + 9 :])
    return Command({**fields, "$db": database}, (), request_id, legacy=True)


def _parse_msg(request_id: int, payload: bytes) -> Command:
    (flags,) = struct.unpack_from("<I", payload)
    end = len(payload) - (4 if flags & CHECKSUM_PRESENT else 0)
    fields: dict[str, Any] = {}
    sequences: list[tuple[str, bytes]] = []
    at = 4
    while at < end:
        kind = payload[at]
        (size,) = struct.unpack_from("<i", payload, at + 1)
        section = payload[at + 1 : at + 1 + size]
        if size < 5 or at + 1 + size > end:
            raise ProtocolError("section of a wrong size")
        if kind == 0:
            fields = _top_level(section)
        elif kind == 1:
            name_end = section.index(b"\0", 4)
            sequences.append((section[4:name_end].decode(), section[name_end + 1 :]))
        else:
            raise ProtocolError(f"section of unknown kind {kind}")
        at += 1 + size
    if not fields:
        raise ProtocolError("message without a command")
    return Command(fields, tuple(sequences), request_id, silent=bool(flags & MORE_TO_COME))


def _top_level(document: bytes) -> dict[str, Any]:
    return dict(RawBSONDocument(document, DEFAULT_RAW_BSON_OPTIONS))


def encode_msg(
    fields: Mapping[str, Any] | bytes, sequences: Iterable[tuple[str, bytes]] = (), response_to: int = 0
) -> bytes:
    """Returns an OP_MSG message holding `fields` (a document, or one already encoded) and document sequences."""
    body = fields if isinstance(fields, bytes) else bson.encode(fields, codec_options=PLAIN)
    parts = [b"\0\0\0\0\0", body]
    for name, documents in sequences:
        head = name.encode() + b"\0"
        parts += [b"\1", struct.pack("<i", 4 + len(head) + len(documents)), head, documents]
    payload = b"".join(parts)
    return _HEADER.pack(_HEADER.size + len(payload), next(_request_ids), response_to, OP_MSG) + payload


def encode_reply(command: Command, document: Mapping[str, Any] | bytes) -> bytes:
    """Returns the message that answers `command`, in the form the command came in."""
    body = document if isinstance(document, bytes) else bson.encode(document, codec_options=PLAIN)
    if not command.legacy:
        return encode_msg(body, response_to=command.request_id)
    payload = struct.pack("<iqii", 8, 0, 0, 1) + body
    return (
        _HEADER.pack(_HEADER.size + len(payload), next(_request_ids), command.request_id, OP_REPLY) + payload
    )


def reply_body(opcode: int, payload: bytes) -> bytes:
    """Returns the encoded document in a server's OP_MSG reply."""
    if opcode != OP_MSG or len(payload) < 10 or payload[4] != 0:
        raise ProtocolError("a server answered with something else than OP_MSG")
    (size,) = struct.unpack_from("<i", payload, 5)
    return payload[5 : 5 + size]
