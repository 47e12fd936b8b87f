"""`cluster.upgrade` over processes, from one real mongod to another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.deployments import assembly, cluster, upgrade
from provision.deployments.rolling import Roll
from provision.mongodb import binaries, sharding
from provision.mongodb.binaries import Choice, Mongod, Source
from provision.mongodb.binaries.record import file_facts, remember
from provision.settings.loading import Layer, Loaded, load
from provision.state import remembered
from tests.support.capabilities import ROOT
from tests.support.load import writing
from tests.support.processes import free_ports
from tests.support.router_standin.install import beside, link

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("other-mongods")]
OLD, NEW = "5.0.4", "6.0.27"


@dataclass
class Lab:
    """A project whose deployment `lab` begins with one mongod and goes on with others.

    Args:
        root: its top folder.
        first: the mongod that it begins with.
        settings: of the deployment.
    """

    root: Path
    first: Path
    settings: dict[str, Any]

    def loaded(self) -> Loaded:
        """The settings as a new command would see them."""
        chosen = {
            "mongodb": {"source": "path", "path": str(self.first)},
            "app": {"database": "flaskbook"},
            "deployments": {"lab": self.settings},
        }
        flags = remembered.flags(self.root)
        return load(self.root, [Layer("the tests", chosen)], {}, remember=False, remembered=flags)

    def upgrade(
        self, to: Path | str | None, raised: bool = False, interrupt: bool = False
    ) -> upgrade.Upgraded:
        again = "invoke cluster.upgrade --on lab"
        typed = str(to) if to else None
        self.said: list[str] = []
        return upgrade.upgrade(
            self.loaded(), "lab", typed, raised, self.said.append, Silent(), again, interrupt
        )

    def versions(self) -> set[str | None]:
        return {node.version for node in assembly.deployment(self.loaded(), "lab").status().nodes}

    def uri(self) -> str:
        return assembly.deployment(self.loaded(), "lab").uri()

    def close(self) -> None:
        deployment = assembly.deployment(self.loaded(), "lab")
        for node in deployment.topology.nodes:
            deployment.backend.kill(node)
        shutil.rmtree(self.root / "data", ignore_errors=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy2(ROOT / "mongod.conf.j2", tmp_path)
    return tmp_path


@pytest.fixture
def old(folder: Path, other_mongods: dict[str, Path]) -> Iterator[Lab]:
    """A replica set of three of the version before the oldest that the tool begins with."""
    made = Lab(folder, other_mongods[OLD], {"topology": "replica-set", "port": free_ports(50), "auth": True})
    loaded = made.loaded()
    found = Mongod(made.first, OLD, Source.PATH, None)
    remember(Choice(found, ()), file_facts(made.first), loaded.paths, loaded.settings.mongodb)
    try:
        assembly.deployment(loaded, "lab").up()
        yield made
    finally:
        made.close()


def test_a_major_version_is_upgraded_to_while_writes_go_on_and_features_are_raised_when_told(
    old: Lab, mongod_binary: Path, mongod_version: str
) -> None:
    app = assembly.deployment(old.loaded(), "lab").uri("flaskbook", user="app")
    with writing(app, dense=True) as load:
        done = old.upgrade(mongod_binary)
    assert sorted(done.restarted) == ["member-1", "member-2", "member-3"]
    assert len(done.handed_over) == 1
    assert (done.version, done.feature_compatibility, done.raised) == (mongod_version, "5.0", False)
    assert old.versions() == {mongod_version}
    assert load.lost() == set()

    again = old.upgrade(mongod_binary)
    assert (again.restarted, len(again.unchanged)) == ((), 3)

    raised = old.upgrade(None, raised=True)
    assert (raised.restarted, raised.feature_compatibility, raised.raised) == ((), "6.0", True)
    with pytest.raises(ProvisionError, match="too old"):
        old.upgrade(old.first)

    # The version holds: an old mongod could not even read these data.
    assert "cluster.upgrade" in old.loaded().origins["deployments", "lab", "mongod"]
    deployment = assembly.deployment(old.loaded(), "lab")
    deployment.down()
    assert len(assembly.deployment(old.loaded(), "lab").up().started) == 3
    assert old.versions() == {mongod_version}
    assembly.deployment(old.loaded(), "lab").down(delete_data=True)
    assert old.loaded().deployment("lab").mongod is None


@pytest.fixture
def routed(
    folder: Path, mongod_binary: Path, mongod_version: str, other_mongods: dict[str, Path]
) -> dict[str, Path]:
    """Version → a mongod of it with a router beside it: what runs here, and a later patch."""
    return {
        version: beside(binary, version, folder / f"bin-{version}")
        for version, binary in ((mongod_version, mongod_binary), (NEW, other_mongods[NEW]))
    }


@pytest.fixture
def sharded(folder: Path, routed: dict[str, Path], mongod_version: str) -> Iterator[Lab]:
    """A small sharded cluster."""
    settings = {
        "topology": "sharded", "members": 1, "config_servers": 1, "shards": 1, "routers": 1, "port": free_ports(150)
    }  # fmt: skip
    made = Lab(folder, routed[mongod_version], settings)
    loaded = made.loaded()
    binaries.find(loaded.settings.mongodb, loaded.paths, Silent())
    try:
        assembly.deployment(loaded, "lab").up()
        yield made
    finally:
        made.close()


def test_an_upgrade_that_was_interrupted_goes_on_with_the_nodes_that_are_left(
    sharded: Lab, routed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProvisionError, match="router-1 is the only router"):
        sharded.upgrade(routed[NEW])
    assert sharded.loaded().deployment("lab").mongod is None
    assert len(sharded.versions()) == 1

    balancing: list[str] = []
    whole = Roll._await

    def interrupt(roll: Roll, node: Any) -> None:
        with cluster.routed(roll.deployment, "looking at the balancer") as router:
            balancing.append(sharding.balancer(router)["mode"])
        if node.name == "shard1-1":
            raise KeyboardInterrupt
        whole(roll, node)

    with monkeypatch.context() as patch:
        patch.setattr(Roll, "_await", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sharded.upgrade(routed[NEW], interrupt=True)
    assert balancing == ["off", "off"]
    assert sharded.loaded().deployment("lab").mongod == str(routed[NEW])

    done = sharded.upgrade(routed[NEW], interrupt=True)
    assert "router-1" in done.restarted
    assert "config-1" not in done.restarted
    assert sharded.versions() == {NEW}
    assert not sharded.loaded().paths.rolling_record("lab").exists()
    deployment = assembly.deployment(sharded.loaded(), "lab")
    with cluster.routed(deployment, "looking at the balancer") as router:
        assert sharding.balancer(router)["mode"] == "full"


def test_a_sharded_cluster_wants_a_router_of_that_version(
    sharded: Lab, other_mongods: dict[str, Path], tmp_path: Path
) -> None:
    alone = tmp_path / "mongod"
    link(other_mongods[NEW], alone)
    with pytest.raises(ProvisionError, match="needs mongos"):
        sharded.upgrade(alone, interrupt=True)
    assert sharded.loaded().deployment("lab").mongod is None
    assert not sharded.loaded().paths.mongod_record_of("lab").exists()
