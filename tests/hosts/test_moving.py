"""Nodes that go from one host to another, under a write load."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.deployments import assembly, moving, upgrade
from provision.mongodb import membership
from provision.settings.loading import Loaded
from provision.state import remembered
from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.hosts.lab import Lab
from tests.hosts.standing import Standing, standing_on
from tests.support.load import Load, writing
from tests.support.polling import until

pytestmark = pytest.mark.timeout(300)
ALL = ["db1", "db2", "db3", "db4"]
SET = {"topology": "replica-set", "members": 3}
T = TypeVar("T")
SHARDED = {"topology": "sharded", "config_servers": 1, "shards": 1, "members": 1, "routers": 1}


@pytest.fixture(scope="module")
def four(sshd: str) -> Iterator[Lab]:
    """Four hosts."""
    with hosts_of_their_own(sshd, ALL) as made:
        yield made


@pytest.fixture(scope="module")
def standing(four: Lab, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path) -> Iterator[Standing]:
    """A replica set on the first three hosts, for tests that leave it there."""
    with standing_on(four, tmp_path_factory.mktemp("standing"), routed_mongod) as made:
        yield made


@pytest.fixture
def shared(four: Lab, standing: Standing, tmp_path: Path) -> Iterator[Project]:
    """A project whose replica set is up on the first three hosts; the fourth has the binaries."""
    with at_home(four, tmp_path / "home"):
        yield standing.up(ALL[:3], **SET)


@pytest.fixture
def wide(four: Lab, standing: Standing, tmp_path: Path, routed_mongod: Path) -> Iterator[Project]:
    """A project with four hosts, all of them on, and nothing on them yet."""
    standing.clear()
    with at_home(four, tmp_path / "home"), project_on(four, tmp_path, routed_mongod) as made:
        yield made


def is_up(wide: Project, **settings: Any) -> Loaded:
    """Bring the deployment up on the first three hosts, with nothing on the fourth; its settings have all four."""
    wide.are_ready(ALL[:3])
    wide.deployment(wide.loaded(hosts=ALL[:3], **settings)).up()
    return wide.loaded(hosts=ALL, **settings)


def drain(loaded: Loaded, host: str, lost: bool = False, crowd: bool = False) -> moving.Moved:
    return moving.drain(
        loaded, "prod", host, lost, crowd, lambda _: None, f"invoke hosts.drain {host} --on prod"
    )


def move(loaded: Loaded, node: str, to: str) -> moving.Moved:
    return moving.move(
        loaded, "prod", node, to, lambda _: None, f"invoke hosts.move {node} --to {to} --on prod"
    )


def uri(loaded: Loaded) -> str:
    return assembly.deployment(loaded, "prod").uri("flaskbook", user="app")


def placed(loaded: Loaded) -> dict[str, str]:
    return dict(assembly.deployment(loaded, "prod").backend.placement)  # type: ignore[attr-defined]


def configuration(loaded: Loaded) -> dict[str, Any]:
    """The set's configuration, asked of its members."""
    deployment = assembly.deployment(loaded, "prod")
    with deployment.dial(deployment.topology.nodes[0]) as connection:
        config: dict[str, Any] = connection.command("admin", {"replSetGetConfig": 1})["config"]
    return config


def assert_settled(wide: Project, loaded: Loaded) -> None:
    """Every node runs where it is on record, once, and its set knows it there and nowhere else."""
    deployment = assembly.deployment(loaded, "prod")
    assert deployment.status().state == "running"
    config = configuration(loaded)
    assert {each["host"] for each in config["members"]} == {
        node.address for node in deployment.topology.nodes
    }
    assert config["settings"]["heartbeatIntervalMillis"] == 2000  # MongoDB's default
    for name, host in wide.lab.hosts.items():
        if host.process is not None:
            expected = sum(1 for each in placed(loaded).values() if each == name)
            assert len(host.processes("mongod")) == expected, name
    assert remembered.moves(loaded.paths, "prod") == {}


def test_a_host_is_drained_while_writes_go_on_and_none_is_lost(wide: Project) -> None:
    loaded = is_up(wide, **SET)
    with writing(uri(loaded)) as load, dense_around(load, "reconfigure", "hand_over"):
        done = drain(loaded, "db1")
    assert [(each.source, each.target) for each in done.moves] == [("db1", "db4")]
    assert done.empty == ("db1",)
    assert "Take it out of deployments.prod.hosts" in done.notices[0]
    assert_settled(wide, loaded)
    assert load.lost(uri(loaded)) == set()
    left = wide.lab.hosts["db1"].srv / "mongodb"
    assert [path.name for path in left.iterdir()] == ["bin"]

    assert drain(loaded, "db1").moves == ()
    without = wide.loaded(hosts=ALL[1:], **SET)
    deployment = assembly.deployment(without, "prod")
    assert deployment.up().started == ()
    with pytest.raises(ProvisionError, match="would share a host"):
        drain(without, "db2")
    assert set(placed(without).values()) == {"db2", "db3", "db4"}
    deployment.down(delete_data=True)
    assert not loaded.paths.placement("prod").exists()


@contextlib.contextmanager
def dense_around(load: Load, *functions: str) -> Iterator[None]:
    """A load writes as much as it can while the members of a set change, each time from before it to well after it.

    Args:
        load: the load.
        functions: of `membership`, that change them.
    """

    def densely(function: Callable[..., T]) -> Callable[..., T]:
        def change(*arguments: Any, **options: Any) -> T:
            with load.at_its_densest():
                return function(*arguments, **options)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in functions:
            patch.setattr(membership, name, densely(getattr(membership, name)))
        yield


POINTS: dict[str, tuple[Any, str]] = {
    "before it joins its set": (membership, "add"),
    "before it has the data": (moving, "patiently"),
    "before the old one leaves the set": (membership, "remove"),
    "before its new place is on record": (moving, "place"),
}


@contextlib.contextmanager
def interrupted(module: Any, function: str) -> Iterator[None]:
    """As with Ctrl-C at the moment when a function is first called."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, function, interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_move_that_was_interrupted_is_finished_by_typing_it_again(shared: Project) -> None:
    loaded = shared.loaded(hosts=ALL, **SET)
    with writing(uri(loaded)) as load:
        for (module, function), target in zip(POINTS.values(), ("db4", "db1", "db4", "db1"), strict=True):
            with interrupted(module, function):
                move(loaded, "member-1", target)
            assert any(node.state == "PRIMARY" for node in assembly.deployment(loaded, "prod").status().nodes)
            move(loaded, "member-1", target)
            assert placed(loaded)["member-1"] == target
            assert_settled(shared, loaded)
    assert load.lost(uri(loaded)) == set()


def test_a_move_that_was_interrupted_is_undone_or_taken_down_with_the_rest(shared: Project) -> None:
    loaded = shared.loaded(hosts=ALL, **SET)
    before = placed(loaded)
    with interrupted(membership, "remove"):
        move(loaded, "member-2", "db4")
    told = assembly.deployment(loaded, "prod").up().notices
    assert any("invoke hosts.move member-2 --to db4 --on prod" in notice for notice in told)
    with pytest.raises(ProvisionError, match="was interrupted"):
        move(loaded, "member-2", next(host for host in ALL if host not in (before["member-2"], "db4")))
    move(loaded, "member-2", before["member-2"])
    assert placed(loaded) == before
    assert_settled(shared, loaded)

    with interrupted(moving, "patiently"):
        move(loaded, "member-2", "db4")
    assembly.deployment(loaded, "prod").down(delete_data=True)
    assert all(host.processes("mongod") == [] for host in shared.lab.hosts.values())
    assert remembered.moves(loaded.paths, "prod") == {}


def test_the_members_of_a_lost_host_are_replaced(wide: Project) -> None:
    wide.hand_over(["db4"])
    loaded = is_up(wide, **SET)
    with pytest.raises(ProvisionError, match="db1 answers"):
        drain(loaded, "db1", lost=True)
    all_vote(loaded)
    with writing(uri(loaded)) as load:
        wide.lab.hosts["db1"].stop()
        with pytest.raises(ProvisionError) as caught:
            drain(loaded, "db1")
        assert "invoke hosts.drain db1 --lost --on prod" in caught.value.remedy
        done = drain(loaded, "db1", lost=True)
    assert [each.target for each in done.moves] == ["db4"]
    assert any("could not be deleted" in notice for notice in done.notices)
    assert_settled(wide, loaded)
    assert load.lost(uri(loaded)) == set()

    wide.lab.hosts["db2"].stop()
    wide.lab.hosts["db3"].stop()
    with pytest.raises(ProvisionError, match="no majority"):
        drain(loaded, "db2", lost=True)


def test_a_cluster_is_spread_over_a_host_that_was_added(wide: Project) -> None:
    wide.hand_over(["db3"])
    wide.are_ready(["db1"])
    wide.deployment(wide.loaded(hosts=["db1"], **SHARDED)).up()
    loaded = wide.loaded(hosts=["db1", "db2", "db3"], **SHARDED)
    with writing(uri(loaded)) as load:
        pass

    def spread(dry_run: bool) -> moving.Moved:
        return moving.spread(loaded, "prod", dry_run, lambda _: None, "invoke hosts.spread --on prod")

    planned = spread(True)
    assert set(placed(loaded).values()) == {"db1"}
    done = spread(False)
    assert done.moves == planned.moves
    assert sorted(placed(loaded).values()) == ["db1", "db2", "db3"]
    assert any("invoke uri --on prod" in notice for notice in done.notices)
    assert assembly.deployment(loaded, "prod").status().state == "running"
    assert load.lost(uri(loaded)) == set()

    # The config server, too: the router learns of it, and its configuration on its host names the new place.
    target = next(host for host in ("db1", "db2", "db3") if host != placed(loaded)["config-1"])
    with writing(uri(loaded)) as load:
        move(loaded, "config-1", target)
    assert load.lost(uri(loaded)) == set()
    found = wide.lab.hosts[placed(loaded)["router-1"]].run("cat", "/srv/mongodb/prod/router-1.conf")
    assert wide.lab.hosts[target].address in found
    deployment = assembly.deployment(loaded, "prod")
    deployment.stop_node(deployment.node("router-1"))
    assert deployment.up().started == ("router-1",)
    assert deployment.status().state == "running"


def test_what_cannot_be_moved_is_refused_before_anything_is_changed(wide: Project) -> None:
    loaded = is_up(wide, **SET)
    for node, to, told in (
        ("member-9", "db4", "Its nodes are"),
        ("member-1", "db9", "is not among the hosts"),
    ):
        with pytest.raises(ProvisionError, match=told):
            move(loaded, node, to)
    deployment = assembly.deployment(loaded, "prod")
    deployment.kill_node(deployment.node("member-3"))
    with pytest.raises(ProvisionError, match="member-3 is DOWN"):
        move(loaded, "member-1", "db4")
    deployment.down()
    with pytest.raises(ProvisionError, match="is not running"):
        move(loaded, "member-1", "db4")
    assert not list((wide.lab.hosts["db4"].srv).iterdir())


def all_vote(loaded: Loaded) -> None:
    """Wait until every member has its vote, so that the set survives the loss of one."""
    deployment = assembly.deployment(loaded, "prod")

    def voting() -> bool:
        with deployment.dial(deployment.topology.nodes[-1]) as member:
            status = member.command("admin", {"replSetGetStatus": 1})
        return bool(status["votingMembersCount"] == len(deployment.topology.nodes))

    until("every member to have its vote", voting)


@pytest.mark.needs("other-mongods")
def test_hosts_get_another_version_and_are_upgraded_one_after_another(
    other_mongods: dict[str, Path], wide: Project
) -> None:
    later = str(other_mongods["6.0.27"])
    loaded = is_up(wide, **SET)
    with writing(uri(loaded)) as load:
        done = upgrade.upgrade(loaded, "prod", later, False, lambda _: None, Silent(), "")
    assert len(done.restarted) == 3
    deployment = assembly.deployment(loaded, "prod")
    assert {node.version for node in deployment.status().nodes} == {"6.0.27"}
    assert deployment.status().state == "running"
    assert load.lost(uri(loaded)) == set()
