"""The default cluster, for real: two shards of three, three config servers, a router; ten containers."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from tests.support.clusters import DEFAULT, Cluster, command_lines, docker
from tests.support.polling import until

# One cluster for all of this file: its tests change nothing, or make it whole again (with xdist: --dist loadfile).
pytestmark = pytest.mark.timeout(300)


_seen_while_coming_up: set[str] = set()


@contextlib.contextmanager
def _watching_command_lines() -> Iterator[None]:
    """Notes the command line of every process that is seen while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            _seen_while_coming_up.update(command_lines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, mongo_image: str) -> Iterator[Cluster]:
    made = Cluster.make(tmp_path_factory.mktemp("cluster"), mongo_image, DEFAULT)
    try:
        with _watching_command_lines():
            made.deployment.up()
        yield made
    finally:
        made.close()


def test_every_member_is_healthy_when_up_returns(cluster: Cluster) -> None:
    status = cluster.deployment.status()
    assert status.state == "running"
    assert sorted(node.state for node in status.nodes) == ["PRIMARY"] * 3 + ["ROUTER"] + ["SECONDARY"] * 6
    assert [shard.name for shard in status.shards or ()] == ["shard1", "shard2"]
    assert len(cluster.containers()) == 10


def test_documents_lie_on_every_shard(cluster: Cluster) -> None:
    with cluster.client() as client:
        users = client["flaskbook"].get_collection("user", write_concern=WriteConcern("majority"))
        users.insert_many([{"_id": f"person-{n}"} for n in range(400)])
        assert users.count_documents({}) == 400
    counts = [cluster.count_on(shard, "flaskbook", "user") for shard in ("shard1", "shard2")]
    assert sum(counts) == 400
    assert min(counts) > 100, counts


def test_second_up_changes_nothing(cluster: Cluster) -> None:
    before, volumes = cluster.identities(), cluster.left()
    assert cluster.deployment.up().started == ()
    assert cluster.identities() == before
    assert cluster.left() == volumes


def test_docker_shows_every_container_as_healthy(cluster: Cluster) -> None:
    def healthy() -> bool:
        return all(each["State"]["Health"]["Status"] == "healthy" for each in cluster.containers().values())

    until(
        "every container to be healthy",
        healthy,
        detail=lambda: json.dumps({n: c["State"]["Health"] for n, c in cluster.containers().items()}),
    )


def test_ports_are_published_on_loopback_only(cluster: Cluster) -> None:
    for name, container in cluster.containers().items():
        ports = container["HostConfig"]["PortBindings"]
        assert [each["HostIp"] for bound in ports.values() for each in bound] == ["127.0.0.1"], name
        assert container["HostConfig"]["Memory"] > 0, name


def test_every_volume_has_a_name(cluster: Cluster) -> None:
    for name, container in cluster.containers().items():
        volumes = [each["Name"] for each in container["Mounts"] if each["Type"] == "volume"]
        expected = [] if name.startswith("router") else [f"{cluster.project}_{name}"]
        assert volumes == expected


def test_credentials_are_nowhere_to_be_seen(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    cluster.deployment.up(print, print)
    secrets = cluster.deployment.secrets()
    assert secrets is not None
    words = (secrets.key, secrets.root.password, secrets.app.password)
    ids = [each["Id"] for each in cluster.containers().values()]
    shown = "".join(capfd.readouterr())
    logs = "".join(docker("logs", identity) for identity in ids)
    inspected = docker("inspect", *ids) + docker("volume", "inspect", *cluster.left()["volumes"])
    for word in words:
        assert word not in shown
        assert word not in logs
        assert word not in inspected
        assert not [line for line in _seen_while_coming_up | set(command_lines()) if word in line]
    assert any("compose" in line for line in _seen_while_coming_up)
    folder = cluster.load().paths.deployment(cluster.name)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in [each for each in cluster.root.rglob("*") if each.is_file()]:
        _check_secret_file(path, words)


def _check_secret_file(path: Path, words: tuple[str, ...]) -> None:
    found = path.stat()
    if path.name == "keyfile":
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o400, 999, 999)
    elif any(word.encode() in path.read_bytes() for word in words):
        assert found.st_mode & 0o777 == 0o600, path


def test_app_user_may_use_its_database_alone(cluster: Cluster) -> None:
    with cluster.client() as client:
        client["flaskbook"]["note"].insert_one({"written": True})
        client["flaskbook"].drop_collection("note")
        with pytest.raises(PyMongoError, match="not authorized"):
            client["elsewhere"]["note"].insert_one({"written": True})


def test_acknowledged_writes_survive_the_death_of_a_primary(cluster: Cluster) -> None:
    acknowledged: list[int] = []
    ending = threading.Event()

    def write() -> None:
        with cluster.client() as client:
            notes = client["flaskbook"].get_collection("load", write_concern=WriteConcern("majority"))
            number = 0
            while not ending.is_set():
                number += 1
                try:
                    notes.insert_one({"_id": number})
                except PyMongoError:
                    continue  # not acknowledged: the next one may be
                acknowledged.append(number)

    deployment = cluster.deployment
    with cluster.client("root") as client:  # where it lives: an unsharded collection is on one shard
        client["flaskbook"]["load"].insert_one({"_id": 0})
    home = next(name for name in ("shard1", "shard2") if cluster.count_on(name, "flaskbook", "load"))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        until("a hundred writes", lambda: len(acknowledged) >= 100)
        victim = cluster.primary(home)
        deployment.kill_node(deployment.node(victim))
        seen = len(acknowledged)
        until("writes to resume by themselves", lambda: len(acknowledged) >= seen + 100)
        assert cluster.primary(home) != victim
    finally:
        ending.set()
        writer.join()
    deployment.up()
    with cluster.client() as client:
        found = {each["_id"] for each in client["flaskbook"]["load"].find()}
    assert set(acknowledged) <= found
    assert set(cluster.states().values()) == {"PRIMARY", "SECONDARY", "ROUTER"}


def test_up_heals_what_was_stopped_and_removed(cluster: Cluster) -> None:
    before = cluster.identities()
    containers = cluster.containers()
    docker("stop", "-t", "30", containers["shard1-2"]["Id"], containers["config-1"]["Id"])
    docker("rm", "-f", "-v", containers["shard2-3"]["Id"])
    docker("kill", containers["router-1"]["Id"])

    assert set(cluster.deployment.up().started) == {"router-1", "config-1", "shard1-2", "shard2-3"}

    assert cluster.deployment.status().state == "running"
    after = cluster.identities()
    untouched = set(before) - {"router-1", "config-1", "shard1-2", "shard2-3"}
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


def test_node_that_is_cut_off_comes_back(cluster: Cluster) -> None:
    deployment = cluster.deployment
    victim = deployment.node(cluster.primary("shard2"))
    deployment.backend.isolate(victim, True)
    until("another primary", lambda: cluster.primary("shard2") != victim.name)
    assert cluster.states()[victim.name] in ("UNREACHABLE", "ISOLATED")
    deployment.backend.isolate(victim, False)
    until("it to follow the new one", lambda: cluster.states()[victim.name] in ("SECONDARY", "PRIMARY"))


def test_up_lets_a_paused_node_go_on(cluster: Cluster) -> None:
    deployment = cluster.deployment
    before = cluster.identities()
    deployment.backend.pause(deployment.node("shard1-1"), True)
    assert cluster.containers()["shard1-1"]["State"]["Paused"]
    assert cluster.states()["shard1-1"] not in ("PRIMARY", "SECONDARY")
    cluster.deployment.up()
    found = cluster.deployment.status()
    assert found.state == "running", found.nodes
    assert cluster.identities() == before


def test_up_returns_when_a_primary_that_was_paused_follows_the_new_one(cluster: Cluster) -> None:
    deployment = cluster.deployment
    old = cluster.primary("shard1")
    deployment.backend.pause(deployment.node(old), True)
    until("another primary", lambda: cluster.primary("shard1") != old)
    deployment.up()
    assert deployment.status().state == "running"
    of_shard1 = {name: state for name, state in cluster.states().items() if name.startswith("shard1")}
    assert sorted(of_shard1.values()) == ["PRIMARY", "SECONDARY", "SECONDARY"]


def test_down_and_up_again_keeps_what_was_acknowledged(cluster: Cluster) -> None:
    """Also what no journal had to have yet: a client writes to both shards until its router is gone."""
    acknowledged: list[str] = []

    def write() -> None:
        with cluster.client() as client, contextlib.suppress(PyMongoError):
            users = client["flaskbook"].get_collection("user", write_concern=WriteConcern(1))
            for number in itertools.count():
                users.insert_one({"_id": f"late-{number}"})
                acknowledged.append(f"late-{number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until("fifty writes", lambda: len(acknowledged) >= 50)
    finally:
        cluster.deployment.down(remove=True)
        writer.join()
    assert list(cluster.left()) == ["volumes"]
    cluster.deployment.up()
    with cluster.client() as client:
        found = {each["_id"] for each in client["flaskbook"]["user"].find({"_id": {"$regex": "^late-"}})}
        assert not set(acknowledged) - found
        assert client["flaskbook"]["user"].count_documents({}) == sum(
            cluster.count_on(shard, "flaskbook", "user") for shard in ("shard1", "shard2")
        )
    cluster.deployment.down(delete_data=True)
    assert cluster.left() == {}
