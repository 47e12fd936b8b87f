"""What the Docker back end decides from facts, without Docker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.backends.docker import Container, Docker, bound_ports, short_of_disk, short_of_memory
from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.settings.loading import Layer, load

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


@pytest.fixture
def backend(tmp_path: Path) -> Docker:
    (tmp_path / "mongod.conf.j2").write_text((ROOT / "mongod.conf.j2").read_text())
    (tmp_path / "compose.yaml").write_text((ROOT / "compose.yaml").read_text())
    settings = load(
        tmp_path, [Layer("the tests", {"deployments": {"one": {"backend": "docker"}}})], remember=False
    )
    made = assembly.deployment(settings, "one").backend
    assert isinstance(made, Docker)
    return made


def test_a_list_that_was_begun_before_containers_changed_is_not_believed(
    backend: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    ("lines", "ports"),
    [
        (['{"27017/tcp":[{"HostIp":"127.0.0.1","HostPort":"27018"}]}'], [27018]),
        (
            [
                '{"1/tcp":[{"HostIp":"","HostPort":"9"},{"HostIp":"::","HostPort":"9"}],"2/tcp":null}',
                "null",
                "{}",
            ],
            [9],
        ),
        (['{"27017/tcp":[{"HostIp":"","HostPort":""}]}'], []),
        ([], []),
    ],
)
def test_the_ports_that_containers_are_made_with_are_read(lines: list[str], ports: list[int]) -> None:
    assert bound_ports(lines) == ports


@pytest.mark.parametrize("state", ["created", "running", "exited"])
def test_another_clones_container_is_said_to_hold_its_port_in_whatever_state_it_is(
    backend: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    """A running one may be listed before its port is: the engine starts a container and then publishes its port."""
    line = "\t".join(("abc", state, "Up", "p_default", "", "one", "/elsewhere"))
    answers = {
        "container": f"{line}\n",
        "inspect": '{"27017/tcp":[{"HostIp":"127.0.0.1","HostPort":"27018"}]}\n',
    }

    def docker(command: str, *_: str, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess((), 0, answers[command], "")

    monkeypatch.setattr(backend, "_docker", docker)
    with pytest.raises(ProvisionError) as refused:
        backend.observe(backend._topology.nodes[0])
    assert "started from /elsewhere and holds port 27018" in refused.value.text()
