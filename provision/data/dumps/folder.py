"""The files of a dump: how they are called, and what a collection's ``.metadata.json`` says. Pure.

https://www.mongodb.com/docs/database-tools/mongodump/
https://github.com/mongodb/mongo-tools: `common/util/file.go`, `mongodump/prepare.go`, `mongodump/metadata_dump.go`
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import field
from provision.core.dataclass import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote

Kind = Literal["collection", "view", "timeseries"]

BUCKETS = "system.buckets."
DATA, METADATA, GZIP = ".bson", ".metadata.json", ".gz"
# They belong to the server that they are on: its users, its shards, its oplog.
SYSTEM_DATABASES = frozenset({"admin", "config", "local"})

# What Go's url.PathEscape leaves as it is, besides letters, digits and Python's own `_.-~`.
_SAFE = "$&+:=@"
# A longer name would not fit in a file name of 255 bytes together with `.metadata.json.gz`.
_LONGEST = 238
_KEPT_OF_LONG = 208


@dataclass(frozen=True)
class Metadata:
    """What makes a collection, a view or a time series besides its documents."""

    name: str
    kind: Kind = "collection"
    options: dict[str, Any] = field(default_factory=dict)  # as listCollections gives them
    indexes: list[dict[str, Any]] = field(default_factory=list)  # as listIndexes gives them
    uuid: str = ""  # 32 hexadecimal digits; empty: not known

    @property
    def data_name(self) -> str:
        """The collection that its documents are in: those of a time series are buckets."""
        return BUCKETS + self.name if self.kind == "timeseries" else self.name


def stem(collection: str) -> str:
    """A collection's file name without its ending.

    It is percent-encoded; one that is too long is cut, and ends with ``%24`` and the SHA-1 of the collection's name.
    """
    escaped = quote(collection, safe=_SAFE)
    if len(escaped) <= _LONGEST:
        return escaped
    digest = hashlib.sha1(collection.encode(), usedforsecurity=False).digest()
    return f"{escaped[:_KEPT_OF_LONG]}%24{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def is_cut(file_stem: str) -> bool:
    """Whether a file name does not hold the whole name of its collection: that is in its metadata alone."""
    return len(file_stem) == _LONGEST and "%24" in file_stem


def collection_name(file_stem: str) -> str:
    """The collection that a file name stands for.

    Raises ValueError: it is not percent-encoded UTF-8.
    """
    return unquote(file_stem, errors="strict")


def split(file_name: str) -> tuple[str, Literal["data", "metadata"], bool] | None:
    """A file name as stem, kind of file, and whether it is compressed; None: it is not a file of a dump."""
    compressed = file_name.endswith(GZIP)
    plain = file_name.removesuffix(GZIP)
    if plain.endswith(METADATA):
        return plain.removesuffix(METADATA), "metadata", compressed
    if plain.endswith(DATA):
        return plain.removesuffix(DATA), "data", compressed
    return None


def is_left_out(collection: str) -> bool:
    """Whether a collection is the server's own: its profile, its views, users of the database. `system.js` is not."""
    return collection.startswith(("system.", "$admin.")) and collection != "system.js"


def as_text(metadata: Metadata) -> str:
    """The content of a ``.metadata.json``: canonical Extended JSON on one line."""
    from bson import json_util

    content: dict[str, Any] = {}
    if metadata.options:
        content["options"] = metadata.options
    content["indexes"] = metadata.indexes
    if metadata.uuid:
        content["uuid"] = metadata.uuid
    content |= {"collectionName": metadata.name, "type": metadata.kind}
    return json_util.dumps(
        content,
        json_options=json_util.CANONICAL_JSON_OPTIONS,
        ensure_ascii=False,
        separators=(",", ":"),
    )


def from_text(text: str, name: str) -> Metadata:
    """Read a ``.metadata.json``, of any version of mongodump.

    `name`: the collection by its file name; the content knows better.

    Raises ValueError: it is not Extended JSON, or not what a dump has there.
    """
    content = _loads(text) if text.strip() else {}
    if not isinstance(content, dict):
        raise ValueError("it is not an object")
    options, indexes = content.get("options") or {}, content.get("indexes") or []
    if not isinstance(options, dict) or not isinstance(indexes, list):
        raise ValueError("its options or its indexes are of another type")
    if not all(isinstance(index, dict) and isinstance(index.get("key"), dict) for index in indexes):
        raise ValueError("an index has no key")
    kind: Kind = "collection"
    if "timeseries" in options:
        kind = "timeseries"
    elif "viewOn" in options:
        kind = "view"
    return Metadata(
        str(content.get("collectionName") or name), kind, options, indexes, str(content.get("uuid") or "")
    )


def _loads(text: str) -> Any:
    from bson import json_util

    options = json_util.JSONOptions(
        json_mode=json_util.JSONMode.CANONICAL, document_class=dict, datetime_conversion=_conversion()
    )

    def typed(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        # A query operator in a validator, a view or a partial index. A regular expression is `$regularExpression`.
        if "$regex" in found:
            return found
        return json_util.object_hook(found, options)

    return json.loads(text, object_pairs_hook=typed)


def _conversion() -> Any:
    from bson.codec_options import DatetimeConversion

    return DatetimeConversion.DATETIME_AUTO
