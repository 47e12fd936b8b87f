"""What each node was launched with, and how that differs from what the settings ask for.

A node reads its configuration once, as it starts. So what it was given is written down then, and is compared whenever
somebody asks: `start`, `run` and `status` name what differs, with the command that applies it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from provision.core.dataclass import dataclass
from provision.mongodb.config import Layout
from provision.mongodb.topology import Node
from provision.settings.paths import Paths
from provision.state import records


@dataclass(frozen=True)
class Launched:
    """What one node was launched with."""

    # what it runs: ``"mongod 8.0.17"``, or a Docker image; empty: a mongod that is not chosen yet
    program: str
    options: Mapping[str, Any]  # setting → value, as `NodeOptions` has them
    data: str  # its data directory, as it sees it
    log: str | None  # its log; None: standard output
    template: str  # digest of the text of ``mongod.conf.j2``

    @classmethod
    def of(cls, node: Node, layout: Layout, program: str, template: str) -> Launched:
        """What a node would be launched with now. Pure.

        `template`: text of ``mongod.conf.j2``.
        """
        digest = hashlib.sha256(template.encode()).hexdigest()
        return cls(program, asdict(node.options), layout.data, layout.log, digest)

    def differences(self, asked: Launched) -> list[str]:
        """What is asked for that this node was not launched with, a phrase each. Pure."""
        found = []
        if self.program != asked.program and asked.program:
            found.append(_phrase("", self.program, asked.program))
        for name in sorted({*self.options, *asked.options} - {"set_parameter"}):
            if self.options.get(name) != asked.options.get(name):
                found.append(_phrase(f"{name} ", self.options.get(name), asked.options.get(name)))
        before, after = (each.options.get("set_parameter") or {} for each in (self, asked))
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                found.append(_phrase(f"set_parameter.{name} ", before.get(name), after.get(name)))
        for key in ("data", "log"):
            if getattr(self, key) != getattr(asked, key):
                found.append(_phrase(f"paths.{key} ", getattr(self, key), getattr(asked, key)))
        if self.template != asked.template:
            found.append("mongod.conf.j2 as it was, and it was changed since")
        return found


def recorded(paths: Paths, deployment: str) -> dict[str, Launched]:
    """Node name → what it was last launched with; a node that no record knows is left out."""
    found = {}
    for name, entry in (records.LAUNCHED.read(paths, deployment) or {}).items():
        try:
            found[name] = Launched(**entry)
        except TypeError:
            continue
    return found


def record(paths: Paths, deployment: str, nodes: Mapping[str, Launched]) -> None:
    """Note what nodes were launched with, beside what is noted of the others.

    Raises OSError: it can't be written.
    """
    before = records.LAUNCHED.read(paths, deployment) or {}
    after = {**before, **{name: asdict(each) for name, each in nodes.items()}}
    if after != before:
        records.LAUNCHED.write(paths, after, deployment)


def notices(
    deployment: str, running: Iterable[str], present: Mapping[str, Launched], asked: Mapping[str, Launched]
) -> list[str]:
    """What is said of running nodes that were launched with other settings: nothing, or one sentence. Pure.

    Args:
        running: names of the nodes that run.
        present: node name → what it was launched with.
        asked: node name → what the settings ask for.
    """
    by_phrase: dict[str, list[str]] = {}
    programs = set()
    for name in running:
        if name in present and name in asked:
            for phrase in present[name].differences(asked[name]):
                by_phrase.setdefault(phrase, []).append(name)
            if present[name].program != asked[name].program:
                programs.add((present[name].program, asked[name].program))
    if not by_phrase:
        return []
    everywhere = len(asked)
    told = [
        phrase if len(names) == everywhere else f"{phrase} ({', '.join(names)})"
        for phrase, names in by_phrase.items()
    ]
    return [
        f"{deployment} runs with {'; '.join(told)}. `{_command(deployment, everywhere, programs)}` applies it."
    ]


def _command(deployment: str, nodes: int, programs: Iterable[tuple[str, str]]) -> str:
    """What applies a difference: a restart, rolling where there are several nodes; for another series an upgrade."""
    on = f" --on {deployment}"
    for present, asked in programs:
        if asked and _series(present) != _series(asked):
            # One node alone is away while it restarts, which has to be agreed to.
            agreed = " --yes" if nodes == 1 else ""
            return f"invoke cluster.upgrade --to {asked.removeprefix('mongod ')}{on}{agreed}"
    return f"invoke cluster.restart --rolling{on}" if nodes > 1 else f"invoke restart{on}"


def _series(program: str) -> str:
    """The release series of a mongod; of an image none, as its tag may be anything."""
    found = re.fullmatch(r"mongod (\d+\.\d+)\.\S+", program)
    return found[1] if found else ""


def _phrase(name: str, present: object, asked: object) -> str:
    return f"{name}{_shown(present)}, and the settings ask for {_shown(asked)}"


def _shown(value: object) -> str:
    """A value as invoke.yaml has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
