"""Rolling restart and upgrade of containers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.deployments import rolling, upgrade
from tests.support.clusters import Cluster, docker
from tests.support.load import writing

pytestmark = pytest.mark.timeout(300)
Make = Callable[..., Cluster]
SHARDED = {"topology": "sharded", "members": 1, "config_servers": 1, "shards": 1, "routers": 1}


def quiet(_: str) -> None:
    """Nothing is shown."""


def test_containers_are_restarted_one_after_another_with_new_settings(make: Make) -> None:
    cluster = make(SHARDED)
    cluster.deployment.up()
    before = cluster.identities()
    cluster.settings["set_parameter"] = {"ttlMonitorEnabled": False}
    with pytest.raises(ProvisionError, match="router-1 is the only router"):
        rolling.restart(cluster.load(), cluster.name, [], quiet, "invoke cluster.restart --rolling")
    with writing(cluster.deployment.uri(user="app"), dense=True) as load:
        done = rolling.restart(cluster.load(), cluster.name, ["shard1-1"], quiet, "", interrupt=True)
    assert done.restarted == ("shard1-1",)
    after = cluster.identities()
    assert {name for name in before if before[name] != after[name]} == {"shard1-1"}
    with cluster.deployment.dial(cluster.node("shard1-1")) as connection:
        answer = connection.command("admin", {"getParameter": 1, "ttlMonitorEnabled": 1})
    assert answer["ttlMonitorEnabled"] is False
    assert load.lost() == set()


def test_an_image_is_asked_for_its_version_before_anything_is_changed(make: Make) -> None:
    cluster = make({"topology": "replica-set", "members": 1})
    cluster.deployment.up()
    before = cluster.identities()

    def to(image: str) -> upgrade.Upgraded:
        return upgrade.upgrade(
            cluster.load(),
            cluster.name,
            image,
            False,
            quiet,
            Silent(),
            "invoke cluster.upgrade",
            interrupt=True,
        )

    again = f"{cluster.image.partition(':')[0]}:again"
    docker("tag", cluster.image, again)
    try:
        done = to(again)
    finally:
        docker("image", "rm", again)
    assert (done.restarted, done.unchanged) == ((), ("member-1",))
    with pytest.raises(ProvisionError, match="can't be pulled"):
        to("localhost:1/no/such:image")
    assert cluster.identities() == before
    assert not cluster.load().paths.flags_record(cluster.name).exists()


def test_another_image_is_named_and_the_restart_that_is_named_applies_it(make: Make) -> None:
    cluster = make({"topology": "replica-set", "members": 1})
    cluster.deployment.up()
    again = f"{cluster.image.partition(':')[0]}:asked-for"
    docker("tag", cluster.image, again)
    try:
        cluster.settings["image"] = again
        (said,) = cluster.deployment.up().notices
        assert f"{cluster.image}, and the settings ask for {again}" in said
        assert f"`invoke restart --on {cluster.name}`" in said
        cluster.deployment.down()
        assert cluster.deployment.up().notices == ()
        assert cluster.containers()["member-1"]["Config"]["Image"] == again
    finally:
        cluster.deployment.down(remove=True, delete_data=True)
        docker("image", "rm", again)
