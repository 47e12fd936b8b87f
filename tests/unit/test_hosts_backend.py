"""How the hosts back end asks its hosts: all at the same time, and none more often than it must."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from provision.backends.base import Observed
from provision.deployments import assembly
from provision.hosts import backend as hosts_backend
from provision.hosts.backend import Hosts
from provision.hosts.link import HostError, Link, Unreachable
from provision.mongodb.topology import Node
from provision.settings.loading import Layer, load

ROOT = Path(__file__).parents[2]
NAMES = ("db1", "db2", "db3")


@pytest.fixture
def backend(tmp_path: Path) -> Hosts:
    """Of a replica set of six over three hosts."""
    (tmp_path / "mongod.conf.j2").write_text((ROOT / "mongod.conf.j2").read_text())
    known: dict[str, Any] = {
        "hosts": {name: {"address": f"192.0.2.{number}"} for number, name in enumerate(NAMES, 1)},
        "deployments": {
            "prod": {"backend": "hosts", "hosts": list(NAMES), "topology": "replica-set", "members": 6}
        },
    }
    made = assembly.deployment(load(tmp_path, [Layer("the tests", known)], remember=False), "prod").backend
    assert isinstance(made, Hosts)
    return made


def nodes(backend: Hosts) -> tuple[Node, ...]:
    return backend._topology.nodes


def answers(backend: Hosts, link: Link, **state: Any) -> dict[str, Observed]:
    return {
        node: Observed(True, **state) for node, host in backend.placement.items() if host == link.host.name
    }


def test_all_hosts_are_asked_at_the_same_time(backend: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(len(NAMES), timeout=20)

    def look(link: Link) -> dict[str, Observed]:
        together.wait()  # one after another, the first would wait here until it gives up
        return answers(backend, link)

    monkeypatch.setattr(backend, "_look", look)
    found = backend.observe_all(nodes(backend))
    assert list(found) == [node.name for node in nodes(backend)]
    assert all(each.running for each in found.values())


def test_a_host_is_asked_once_for_all_of_its_nodes_and_whether_they_are_paused(
    backend: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_backend, "_OBSERVED_SECONDS", 60.0)
    asked = []

    def look(link: Link) -> dict[str, Observed]:
        asked.append(link.host.name)
        return answers(backend, link, paused=link.host.name == "db2")

    monkeypatch.setattr(backend, "_look", look)
    backend.observe_all(nodes(backend))
    paused = [node.name for node in nodes(backend) if backend.is_paused(node)]
    assert paused == [name for name, host in backend.placement.items() if host == "db2"]
    assert sorted(asked) == list(NAMES)


def test_a_look_that_was_begun_before_nodes_changed_is_not_believed(
    backend: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look(link: Link) -> dict[str, Observed]:
        looks.append(link.host.name)
        if len(looks) == 1:
            backend._forget_seen()  # another thread starts the nodes meanwhile
            return {}
        return answers(backend, link)

    monkeypatch.setattr(backend, "_look", look)
    node = nodes(backend)[0]
    assert backend.observe_all([node])[node.name].running
    assert looks == [backend.placement[node.name]] * 2


def test_a_host_that_takes_long_to_answer_is_asked_less_often(
    backend: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look(link: Link) -> dict[str, Observed]:
        asked.append(link.host.name)
        clock.append(clock[-1] + 2.0)
        return answers(backend, link)

    clock = [1000.0]
    monkeypatch.setattr(backend, "_look", look)
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    [node] = [node for node in nodes(backend) if backend.placement[node.name] == "db1"][:1]
    backend.observe(node)
    clock.append(clock[-1] + 5.9)
    backend.observe(node)
    assert asked == ["db1"]
    clock.append(clock[-1] + 0.2)
    backend.observe(node)
    assert asked == ["db1", "db1"]


def test_nodes_of_a_host_that_does_not_answer_are_unknown_and_the_others_run(
    backend: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(link: Link) -> dict[str, Observed]:
        if link.host.name == "db2":
            raise Unreachable("asking db2", "It is off.", "Switch it on.")
        return answers(backend, link)

    monkeypatch.setattr(backend, "_look", look)
    found = backend.observe_all(nodes(backend))
    unknown = {name: each.unknown for name, each in found.items() if each.unknown is not None}
    assert set(unknown) == {name for name, host in backend.placement.items() if host == "db2"}
    assert {error.cause for error in unknown.values()} == {"It is off."}
    assert not any(each.ended for each in found.values())
    assert {name for name, each in found.items() if each.running} == found.keys() - unknown.keys()


def test_a_connection_that_breaks_while_a_host_is_asked_is_opened_again(
    backend: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = []

    def look(link: Link) -> dict[str, Observed]:
        if link.host.name == "db2" and not broken:
            broken.append(link)
            raise Unreachable("asking db2", "The connection to db2 was lost.", "Type the command again.")
        return answers(backend, link)

    monkeypatch.setattr(backend, "_look", look)
    found = backend.observe_all(nodes(backend))
    assert broken
    assert all(each.running for each in found.values())


def test_a_host_that_answers_nonsense_is_an_error_that_names_it(
    backend: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(link: Link) -> dict[str, Observed]:
        raise HostError(f"looking at {link.host.name}", "It is no Linux.", "Take another one.")

    monkeypatch.setattr(backend, "_look", look)
    with pytest.raises(HostError, match="looking at db"):
        backend.observe_all(nodes(backend))
