"""What the Docker back end decides from facts, without Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import assembly
from provision.backends.docker import Container, Docker, short_of_disk, short_of_memory
from provision.settings import Layer, load

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("nodes", "available", "short"), [(10, 8000, False), (10, 1500, False), (10, 1499, True), (0, 0, False)]
)
def test_memory_does_or_does_not_do(nodes: int, available: float, short: bool) -> None:
    told = short_of_memory(nodes, available)
    assert (told is not None) is short
    if told:
        assert f"{nodes} nodes need about 1500 MB" in told
        assert "1499 MB are available" in told


@pytest.mark.parametrize(("new", "free", "short"), [(10, 9000, False), (10, 2499, True), (0, 0, False)])
def test_disk_does_or_does_not_do(new: int, free: float, short: bool) -> None:
    told = short_of_disk(new, free, Path("/var/lib/docker"))
    assert (told is not None) is short
    if told:
        assert "/var/lib/docker" in told


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "abc\trunning\tUp 2 minutes (healthy)\tp_default\t127.0.0.1:27101->27101/tcp\tshard1-1\t/a, b",
            (True, None, ("p_default",), "/a, b"),
        ),
        ("abc\texited\tExited (137) 2 hours ago\t\t\tshard1-1\t/a", (False, 137, (), "/a")),
        (
            "abc\tpaused\tUp 3 seconds (Paused)\tp_default,other\t\tshard1-1\t/a",
            (True, None, ("p_default", "other"), "/a"),
        ),
        ("abc\tcreated\tCreated\tp_default\t\tshard1-1\t/a", (False, None, ("p_default",), "/a")),
    ],
)
def test_container_is_read_from_what_docker_lists(line: str, expected: tuple[object, ...]) -> None:
    container = Container.of(line)
    assert (container.running, container.exit_status, container.networks, container.directory) == expected
    assert container.node == "shard1-1"
    assert container.ports == (frozenset({27101}) if container.state == "running" else frozenset())
    assert container.publishes(27101) is (container.state == "running")
    assert not container.publishes(27102)


def test_a_list_that_was_begun_before_containers_changed_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mongod.conf.j2").write_text((ROOT / "mongod.conf.j2").read_text())
    (tmp_path / "compose.yaml").write_text((ROOT / "compose.yaml").read_text())
    settings = load(
        tmp_path, [Layer("the tests", {"deployments": {"one": {"backend": "docker"}}})], remember=False
    )
    backend = assembly.deployment(settings, "one").backend
    assert isinstance(backend, Docker)
    running = Container("abc", "running", None, (), "one", str(tmp_path), frozenset())
    lists = []

    def listed() -> dict[str, Container]:
        lists.append(None)
        if len(lists) == 1:
            backend._forget_seen()  # another thread starts the container while this list is made
            return {}
        return {"one": running}

    monkeypatch.setattr(backend, "_list", listed)
    assert backend._containers() == {"one": running}
    assert len(lists) == 2
