"""The rules of a pull, as `masks.yaml` has them: which field gets which mask, and what refers to what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from provision.core.dataclass import dataclass
from typing import Any

from provision.core.errors import ProvisionError, did_you_mean
from provision.data.pulls.masks import KINDS, Kind, Masker

ANY = "*"  # any element of an array, or any key of a document
OTHERS = "**"  # every field that no other rule names


@dataclass
class Node:
    """What the rules say of one field and what is below it."""

    kind: Kind | None = None
    keys: Kind | None = None  # the keys of the document there
    path: str = ""  # as it was written
    children: dict[str, Node] = field(default_factory=dict)
    used: bool = False


@dataclass(frozen=True)
class Reference:
    """A field that holds values of another collection's field."""

    collection: str
    path: str
    target: str
    target_path: str


@dataclass
class Rules:
    """The rules of one collection."""

    root: Node = field(default_factory=Node)
    others: Kind = "keep"
    keeps: bool = False  # it says `keep`: its owner knows that nothing in it is personal
    masks: bool = False  # at least one field is masked

    def kind_at(self, path: str) -> Kind:
        """The mask of a field, by its path alone."""
        nodes, inherited = [self.root], None
        for part in path.split("."):
            nodes = _below(nodes, part)
            inherited = next((node.kind for node in nodes if node.kind), None) or inherited
        return inherited or self.others

    def masked(self, document: Mapping[str, Any], masker: Masker) -> dict[str, Any]:
        """A document with its values masked; the original stays as it is."""
        return _document(document, [self.root], None, self.others, masker)

    def masked_path(self, path: str, masker: Masker) -> str:
        """A path as it is in masked documents: keys that are values are masked in it, too."""
        nodes, found = [self.root], []
        for part in path.split("."):
            keys = next((node.keys for node in nodes if node.keys), None)
            found.append(_key(part, keys, masker))
            nodes = _below(nodes, part)
        return ".".join(found)

    def unused(self) -> list[str]:
        """The rules that no document had a field for."""
        return sorted(_unused(self.root))


@dataclass(frozen=True)
class Plan:
    """What `masks.yaml` says."""

    collections: dict[str, Rules]
    references: list[Reference]

    def rules(self, collection: str) -> Rules:
        """A collection's; without any, all of it is kept, and it does not say so."""
        return self.collections.get(collection) or Rules()

    def reached(self, named: Sequence[str]) -> list[str]:
        """These collections, and those that they refer to."""
        found = list(dict.fromkeys(named))
        for name in found:  # grows
            found += [
                each.target
                for each in self.references
                if each.collection == name and each.target not in found
            ]
        return list(dict.fromkeys(found))


def parse(content: Any, name: str) -> Plan:
    """Read rules.

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises ProvisionError: there is no such mask, or it is not what such a file has.
    """
    doing = f"reading the masks in {name}"
    top = _mapping({} if content is None else content, doing, "the file")
    if unknown := [key for key in top if key not in ("collections", "references")]:
        raise _wrong(doing, f"{unknown[0]}: there are only collections and references.")
    collections = {
        str(collection): _rules(str(collection), given, doing)
        for collection, given in _mapping(top.get("collections") or {}, doing, "collections").items()
    }
    references = [
        _reference(str(source), str(target), doing)
        for source, target in _mapping(top.get("references") or {}, doing, "references").items()
    ]
    for _ in references:  # one may refer to what refers to a third
        for reference in references:
            _agree(collections, reference, doing)
    return Plan(collections, references)


def _rules(collection: str, given: Any, doing: str) -> Rules:
    if isinstance(given, str):
        if given != "keep":
            raise _wrong(doing, f"{collection}: {given}: a whole collection can only say keep.")
        return Rules(keeps=True)
    rules = Rules()
    for path, asked in _mapping(given or {}, doing, collection).items():
        where = f"{collection}.{path}"
        if str(path) == OTHERS:
            rules.others = _kind(asked, where, doing)
            if rules.others == "remove":
                raise _wrong(doing, f"{where}: it can't be remove; name the fields to remove.")
            continue
        node = rules.root
        for part in str(path).split("."):
            node = node.children.setdefault(part, Node())
        node.path = str(path)
        if isinstance(asked, Mapping):
            if unknown := [key for key in asked if key not in ("keys", "values")]:
                raise _wrong(doing, f"{where}.{unknown[0]}: there are only keys and values.")
            node.keys = _kind(asked["keys"], where, doing) if "keys" in asked else None
            node.kind = _kind(asked["values"], where, doing) if "values" in asked else None
            if node.keys == "remove":
                raise _wrong(doing, f"{where}: keys can't be removed without their values.")
        else:
            node.kind = _kind(asked, where, doing)
        if str(path) == "_id" and node.kind == "remove":
            raise _wrong(doing, f"{where}: every document has an _id; mask it with id.")
    rules.masks = rules.others != "keep" or _masks(rules.root)
    return rules


def _masks(node: Node) -> bool:
    return bool(
        (node.kind and node.kind != "keep")
        or (node.keys and node.keys != "keep")
        or any(_masks(child) for child in node.children.values())
    )


def _kind(asked: Any, where: str, doing: str) -> Kind:
    if asked not in KINDS:
        raise _wrong(
            doing,
            f"{where}: there is no mask {asked}{did_you_mean(str(asked), KINDS)}. There are {', '.join(KINDS)}.",
        )
    kind: Kind = asked
    return kind


def _reference(source: str, target: str, doing: str) -> Reference:
    collection, _, path = source.partition(".")
    target_collection, _, target_path = target.partition(".")
    if not (collection and path and target_collection and target_path):
        raise _wrong(doing, f"{source}: {target}: a reference is written orders.user_id: users._id.")
    return Reference(collection, path, target_collection, target_path)


def _agree(collections: dict[str, Rules], reference: Reference, doing: str) -> None:
    """Give a field that refers to another one its mask, so that the two stay equal."""
    there = collections.get(reference.target, Rules()).kind_at(reference.target_path)
    rules = collections.setdefault(reference.collection, Rules())
    here = rules.kind_at(reference.path)
    if here == there:
        return
    node = rules.root
    for part in reference.path.split("."):
        node = node.children.setdefault(part, Node())
    if there == "keep" or node.kind not in (None, there):
        raise _wrong(
            doing,
            f"{reference.collection}.{reference.path} has the mask {here}, and {reference.target}.{reference.target_path}, "
            f"which it refers to, has {there}: they would differ.",
        )
    node.kind, node.path = there, reference.path
    rules.masks = True


def _mapping(given: Any, doing: str, where: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise _wrong(doing, f"{where} is not a mapping.")
    return given


def _wrong(doing: str, why: str) -> ProvisionError:
    return ProvisionError(doing, why, "Correct the file; docs/pull.md shows one. Then type the same again.")


def _below(nodes: Sequence[Node], key: str) -> list[Node]:
    """The nodes of what a key leads to: the one that names it before one that stands for any."""
    exact = [node.children[key] for node in nodes if key in node.children]
    if key == ANY:
        return exact
    return exact + [node.children[ANY] for node in nodes if ANY in node.children]


def _of_key(nodes: Sequence[Node], key: str) -> list[Node]:
    """As `_below`; a key with dots in it is also found by a path of its parts."""
    found = _below(nodes, key)
    if "." in key:
        through = list(nodes)
        for part in key.split("."):
            through = _below(through, part)
        found += through
    return found


def _of_element(nodes: Sequence[Node], index: int) -> list[Node]:
    """The nodes of an array's element: those of its place, of any element, and those of the array itself."""
    return _below(nodes, str(index)) + list(nodes)


def _document(
    document: Mapping[str, Any], nodes: Sequence[Node], inherited: Kind | None, others: Kind, masker: Masker
) -> dict[str, Any]:
    keys = next((node.keys for node in nodes if node.keys), None)
    if keys is not None:
        _use(nodes)
    made: dict[str, Any] = {}
    for key, value in document.items():
        below = _of_key(nodes, key)
        kind, kept = _value(value, below, inherited, others, masker)
        if kept:
            made[_key(key, keys, masker)] = kind
    return made


def _value(
    value: Any, nodes: Sequence[Node], inherited: Kind | None, others: Kind, masker: Masker
) -> tuple[Any, bool]:
    """What takes a value's place, and whether anything does."""
    from bson import Code, DBRef

    _use(nodes)
    kind = next((node.kind for node in nodes if node.kind), None) or inherited
    if kind == "remove":
        return None, False
    if isinstance(value, DBRef):
        value = value.as_doc()
        fixed = {key: value[key] for key in ("$ref", "$db") if key in value}  # names of collections
        return {**_document(value, nodes, kind, others, masker), **fixed}, True
    if isinstance(value, Mapping):
        return _document(value, nodes, kind, others, masker), True
    if isinstance(value, list):
        found = [
            _value(each, _of_element(nodes, index), kind, others, masker) for index, each in enumerate(value)
        ]
        return [made for made, kept in found if kept], True
    if isinstance(value, Code) and (kind or others) != "keep":
        return masker.mask(Code(str(value)), kind or others), True  # without its scope
    return masker.mask(value, kind or others), True


def _use(nodes: Iterable[Node]) -> None:
    for node in nodes:
        node.used = True


def _key(key: str, kind: Kind | None, masker: Masker) -> str:
    if kind is None:
        return key
    made = masker.mask(key, kind)
    return str(made)


def _unused(node: Node) -> Iterable[str]:
    if node.path and not node.used:
        yield node.path
    for child in node.children.values():
        yield from _unused(child)
