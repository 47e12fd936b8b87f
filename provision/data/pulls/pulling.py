"""Reads collections of another server, samples and masks them, and inserts them into a deployment of this project.

Only the source's own find commands are sent to it. A value is masked before it is sent anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from provision.core.dataclass import dataclass
from typing import TYPE_CHECKING, Any

from provision.core.errors import ProvisionError, did_you_mean
from provision.core.steps import Progress
from provision.data.dumps.folder import SYSTEM_DATABASES
from provision.data import indexes
from provision.data.connection import said
from provision.data.pulls import metadata
from provision.data.pulls.masks import Masker
from provision.data.pulls.rules import Plan, Reference

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

_BATCH = 1_000
# Values in one query: some hundred bytes each stay far below the 16 MB of a command.
_VALUES = 1_000
_DUPLICATE_KEY = 11000
_SERVER_SELECTION_MS = 10_000


@dataclass(frozen=True)
class Sample:
    """How much of each collection: a share, a number of documents, or all."""

    share: float | None = None
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> Sample:
        """``5%``, ``0.5%`` or ``500``; empty: all.

        Raises ProvisionError: it is something else.
        """
        try:
            if not text:
                return cls()
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if 0 < share <= 1:
                    return cls(share=share)
            elif int(text) > 0:
                return cls(number=int(text))
        except ValueError:
            pass
        raise ProvisionError(
            f"reading --sample {text}",
            "It is a share from above 0 % to 100 %, or a number of documents.",
            "For example: invoke pull --collections users --sample 5%",
        )

    @property
    def is_all(self) -> bool:
        """Nothing is left out."""
        return self.share is None and self.number is None


@dataclass
class PulledCollection:
    """What became of one collection."""

    collection: str
    documents: int = 0  # inserted
    referenced: int = 0  # of these, what others refer to
    duplicates: int = 0  # there already, and left as they are
    masked: bool = False
    indexes: int = 0
    left_out: list[str] = field(default_factory=list)  # indexes and options that could hold a value, and why
    unused: list[str] = field(default_factory=list)  # rules that no document had a field for


def connect(uri: str, variable: str, doing: str) -> MongoClient[Any]:
    """A client of the source, which reads from a secondary where there is one, unless the URI says otherwise.

    Raises ProvisionError: it is not a connection string. Nothing of it is said.
    """
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    options: dict[str, Any] = {} if "readpreference=" in uri.lower() else {"readPreference": "secondaryPreferred"}
    try:
        return MongoClient(
            uri,
            appname="invoke pull",
            serverSelectionTimeoutMS=_SERVER_SELECTION_MS,
            datetime_conversion="DATETIME_AUTO",
            tz_aware=True,
            **options,
        )
    except (PyMongoError, ValueError):
        raise ProvisionError(
            doing,
            f"The value of {variable} is not a connection string that PyMongo takes.",
            f"Correct it: export {variable}='mongodb://USER:PASSWORD@HOST/DATABASE'; percent-encode the password.",
        ) from None


def without_secrets(error: Exception, uri: str) -> str:
    """An error of the driver without the connection string, its user and its password."""
    from urllib.parse import unquote_plus

    text = said(error).replace(uri, "***")
    credentials = uri.partition("://")[2].rpartition("@")[0]
    for secret in sorted(filter(None, credentials.partition(":")[::2]), key=len, reverse=True):
        for form in (secret, unquote_plus(secret)):
            text = text.replace(form, "***")
    return text


def source_database(client: MongoClient[Any], name: str, doing: str) -> Database[Any]:
    """The database to read.

    `name`: as asked for; empty: that of the connection string.

    Raises ProvisionError: neither says one, or it belongs to the server.
    """
    default = client.get_default_database(default="test").name
    chosen = name or ("" if default == "test" else default)
    if not chosen or chosen in SYSTEM_DATABASES:
        why = f"{chosen} belongs to the server." if chosen else "The connection string names no database."
        raise ProvisionError(doing, why, "Name the database to read: invoke pull --database NAME")
    return client[chosen]


def require_another_server(source: Database[Any], target: Database[Any], doing: str) -> None:
    """Refuse to pull a database into itself.

    Raises ProvisionError: it is that of the deployment.
    """
    ours, theirs = (
        each.client.admin.command("hello").get("topologyVersion", {}).get("processId") for each in (target, source)
    )
    if ours is not None and ours == theirs and source.name == target.name:
        raise ProvisionError(
            doing,
            f"The source is the database {target.name} of this deployment itself.",
            "Name another server in the connection string, or another database: invoke pull --into NAME",
        )


class Pull:
    """One pull.

    Args:
        source: database to read. target: database of the deployment.
        key: what the masks and the choice of documents follow from.
        progress: gets the number of documents that were inserted.
    """

    def __init__(
        self,
        source: Database[Any],
        target: Database[Any],
        plan: Plan,
        sample: Sample,
        key: bytes,
        progress: Progress,
        doing: str,
    ) -> None:
        self._source, self._target = source, target
        self._plan, self._sample = plan, sample
        self._masker, self._key = Masker(key), key
        self._progress, self._doing = progress, doing
        self._listed: dict[str, Mapping[str, Any]] = {}
        self._seen: dict[str, set[bytes]] = {}
        self._wanted: dict[tuple[str, str], dict[bytes, Any]] = {}
        self._asked: dict[tuple[str, str], set[bytes]] = {}
        self._inserted = 0
        self.done: dict[str, PulledCollection] = {}

    def collections(self, named: Sequence[str]) -> list[str]:
        """The collections to pull: those named, and those that they refer to. Changes nothing.

        Raises ProvisionError: the source has not one of them, or it is a view.
        Raises PyMongoError: the source can't be read.
        """
        self._listed = {each["name"]: each for each in self._source.list_collections()}
        known = [name for name in self._listed if not name.startswith("system.")]
        found = self._plan.reached(named)
        for name in found:
            if name not in known:
                raise ProvisionError(
                    self._doing,
                    f"The source has no collection {name}{did_you_mean(name, known)}.",
                    "Name others: invoke pull --collections NAME,NAME",
                )
            if self._listed[name].get("type") == "view":
                raise ProvisionError(
                    self._doing,
                    f"{name} is a view: its definition could hold a value.",
                    "Name the collection that it reads: invoke pull --collections NAME",
                )
        return found

    def run(self, named: Sequence[str], collections: Sequence[str], drop: bool) -> None:
        """Pull.

        Args:
            named: the collections to sample. collections: these and what they refer to.
            drop: drop these collections of the target first.

        Raises ProvisionError: the target refuses a document.
        Raises PyMongoError: a server can't be reached.
        """
        for name in collections:
            self._create(name, drop)
        for name in named:
            for batch in self._sampled(name):
                self._insert(name, batch, referenced=False)
        while self._wanted:
            (name, path), values = self._wanted.popitem()
            found = list(values.values())
            for start in range(0, len(found), _VALUES):
                query = {path: {"$in": found[start : start + _VALUES]}}
                for batch in _batches(self._source[name].find(query)):
                    self._insert(name, batch, referenced=True)
        for name in collections:
            self._create_indexes(name)
            rules = self._plan.rules(name)
            self.done[name].unused = rules.unused() if self.done[name].documents else []

    def _references(self, name: str) -> list[Reference]:
        return [each for each in self._plan.references if each.collection == name]

    def _create(self, name: str, drop: bool) -> None:
        rules = self._plan.rules(name)
        options, dropped = metadata.collection_options(self._listed[name].get("options", {}), rules)
        self.done[name] = PulledCollection(name, masked=rules.masks)
        self.done[name].left_out += [f"the option {each}: it could hold a value" for each in dropped]
        self._seen[name] = set()
        if drop:
            self._target[name].drop()
        if name not in self._target.list_collection_names(filter={"name": name}):
            options.pop("autoIndexId", None)
            self._target.command({"create": name, **options})

    def _sampled(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """The documents of a sample: by their `_id`, so that another pull with the same key gets the same ones."""
        collection = self._source[name]
        if self._sample.is_all:
            yield from _batches(collection.find())
            return
        ids = (each["_id"] for each in collection.find({}, {"_id": 1}).batch_size(10_000) if "_id" in each)
        if self._sample.number is not None:
            chosen = heapq.nsmallest(self._sample.number, ids, key=self._rank)
        else:
            bound = int((self._sample.share or 0) * 2**64)
            chosen = [each for each in ids if int.from_bytes(self._rank(each)[:8], "big") < bound]
        for start in range(0, len(chosen), _VALUES):
            yield from _batches(collection.find({"_id": {"$in": chosen[start : start + _VALUES]}}))

    def _rank(self, identifier: Any) -> bytes:
        return hmac.digest(self._key, b"sample" + _encoded(identifier), hashlib.sha256)

    def _insert(self, name: str, documents: Sequence[dict[str, Any]], referenced: bool) -> None:
        from pymongo.errors import BulkWriteError

        seen, rules, done = self._seen[name], self._plan.rules(name), self.done[name]
        new = []
        for document in documents:
            # A measurement of a time series need not have one.
            identifier = _encoded(document["_id"]) if "_id" in document else b""
            if not identifier or identifier not in seen:
                seen.add(identifier)
                self._follow(name, document)
                new.append(rules.masked(document, self._masker) if rules.masks else document)
        if not new:
            return
        is_series = self._listed[name].get("type") == "timeseries"
        inserted = len(new)
        try:
            self._target[name].insert_many(
                new, ordered=False, bypass_document_validation=None if is_series else True
            )
        except BulkWriteError as error:
            refused = error.details.get("writeErrors", [])
            inserted = error.details.get("nInserted", 0)
            done.duplicates += sum(each.get("code") == _DUPLICATE_KEY for each in refused)
            others = [each for each in refused if each.get("code") != _DUPLICATE_KEY]
            if others:
                # The server's words can have the document in them; it is masked, or said to be free of personal values.
                raise ProvisionError(
                    self._doing, f"{name}: the deployment refused a document: {others[0]['errmsg']}", "Look at: invoke logs"
                ) from None
        done.documents += inserted
        done.referenced += inserted if referenced else 0
        self._inserted += inserted
        self._progress.advance(self._inserted, None)

    def _follow(self, name: str, document: Mapping[str, Any]) -> None:
        """Note which documents this one refers to."""
        for reference in self._references(name):
            asked = self._asked.setdefault((reference.target, reference.target_path), set())
            for value in _values(document, reference.path.split(".")):
                encoded = _encoded(value)
                if value is not None and encoded not in asked:
                    asked.add(encoded)
                    self._wanted.setdefault((reference.target, reference.target_path), {})[encoded] = value

    def _create_indexes(self, name: str) -> None:
        from pymongo.errors import OperationFailure

        rules, done = self._plan.rules(name), self.done[name]
        options = self._listed[name].get("options", {})
        for given in self._source[name].list_indexes():
            if indexes.comes_by_itself(given):
                continue
            number = f"index {len(done.left_out) + done.indexes + 1}"
            try:
                asked = indexes.without_collation(options) | metadata.index(given, name, rules, self._masker)
                self._target.command({"createIndexes": name, "indexes": [asked]})
                done.indexes += 1
            except metadata.Refused as refused:
                done.left_out.append(f"{number}: {refused}")
            except OperationFailure as error:
                done.left_out.append(f"{number}: the deployment refused it ({error.code})")


def _batches(documents: Any) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for document in documents:
        batch.append(document)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _encoded(value: Any) -> bytes:
    import bson

    return bson.encode({"": value})


def _values(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """The values at a path; arrays on the way are gone through, with or without a `*` for their elements."""
    from bson import DBRef

    if isinstance(value, DBRef):
        value = value.as_doc() if path else value.id
    if isinstance(value, list):
        rest = path[1:] if path and path[0] == "*" else path
        for each in value:
            yield from _values(each, rest)
    elif not path:
        yield value
    elif isinstance(value, Mapping):
        if path[0] == "*":
            for each in value.values():
                yield from _values(each, path[1:])
        elif path[0] in value:
            yield from _values(value[path[0]], path[1:])

