"""A bring-up's own order and clean-up, without servers: those are in tests/native and tests/docker."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.deployments.assembly import plan
from provision.deployments.bringup import BringUp, Plan
from provision.mongodb import replica_set as replication
from provision.mongodb.waiting import Wait
from provision.settings.schema import DeploymentSettings


class Opened:
    """Stands for a connection, and knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Launches:
    """Stands for a back end whose nodes start at once."""

    def launch(self, nodes: Any, checked: Any) -> None:
        checked()


def test_a_part_that_fails_leaves_no_connection_of_the_others_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    there = threading.Event()

    def bring_up(replica_set: Any, *_: Any) -> Opened:
        if replica_set.name == "config":
            there.set()
            return opened
        there.wait(10)
        raise ProvisionError(f"starting {replica_set.name}", "It died.", "Look.")

    def wait_for_router(*_: Any) -> Any:
        there.wait(10)
        raise ProvisionError("starting the router", "It died.", "Look.")

    monkeypatch.setattr(replication, "bring_up", bring_up)
    monkeypatch.setattr(replication, "listening", wait_for_router)
    topology = plan("cluster", DeploymentSettings(backend="processes", topology="sharded", port=4000))
    work = Plan(topology, None, "flaskbook", (), frozenset(), 30.0)
    backend: Any = Launches()
    begun = BringUp(work, backend, lambda _: [], lambda *_: ProvisionError("", "", ""), print)
    with pytest.raises(ProvisionError, match="starting"):
        begun.run(topology.nodes, until_healthy=True)
    assert there.is_set()
    assert opened.closed


class Answers:
    """Stands for a member: what it says to `hello` each time, the last for ever; a set of its own that is complete."""

    def __init__(self, *hellos: dict[str, Any]) -> None:
        self.hellos = list(hellos)

    def command(self, _: str, command: dict[str, Any], *_more: Any) -> dict[str, Any]:
        if "hello" in command:
            return self.hellos.pop(0) if len(self.hellos) > 1 else self.hellos[0]
        return {"config": {"settings": {}}, "votingMembersCount": 3}

    def close(self) -> None: ...


def _written(term: int) -> dict[str, Any]:
    return {"lastWrite": {"opTime": {"t": term}}}


def test_a_set_is_healthy_when_a_primary_that_was_paused_has_rolled_back_to_the_new_one() -> None:
    topology = plan("rs", DeploymentSettings(topology="replica-set", members=3, port=4000))
    (replica_set,) = topology.all_sets
    deposed, elected, other = (member.address for member in replica_set.members)
    secondary = {"secondary": True, "setName": "rs", "primary": elected, **_written(2)}
    stale = {"isWritablePrimary": True, "setName": "rs", "primary": deposed, **_written(1)}
    follows = {**secondary, **_written(1)}
    rollback = {"isWritablePrimary": False, "setName": "rs", "primary": elected, **_written(1)}
    members = {
        deposed: Answers(stale, stale, stale, follows, follows, rollback, rollback, secondary),
        elected: Answers({"isWritablePrimary": True, "setName": "rs", "primary": elected, **_written(2)}),
        other: Answers(secondary),
    }
    dial: Any = lambda node: members[node.address]  # noqa: E731
    connection: Any = members[elected]
    wait = Wait(time.monotonic() + 10.0, 10.0, lambda: None, list)
    replication.healthy(replica_set, connection, dial, wait)
    assert members[deposed].hellos == [secondary]
