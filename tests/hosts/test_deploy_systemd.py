"""The app as a unit of a host's systemd: deployed, rolled back, started again, and removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.app.deploy import rollout
from provision.core.errors import ProvisionError
from provision.deployments import assembly
from tests.hosts.conftest import at_home, hosts_of_their_own, project_on
from tests.hosts.shop import Shop
from tests.hosts.virtualenvs import Virtualenvs
from tests.support.capabilities import ROOT
from tests.support.polling import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("index", "systemd")]
UNIT = rollout.service("prod")


@pytest.fixture(scope="module")
def shop(
    sshd: str, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path, virtualenvs: Virtualenvs
) -> Iterator[Shop]:
    """The app's project, and one host with systemd for its database and for itself."""
    folder = tmp_path_factory.mktemp("systemd")
    with (
        hosts_of_their_own(sshd, ("db1",), systemd=True) as hosts,
        at_home(hosts, folder / "home"),
        project_on(hosts, folder, routed_mongod) as project,
    ):
        # As flaskbook: one virtualenv will do for both.
        requirements = (ROOT / "requirements.txt").read_text()
        made = Shop(project, folder / "shop", ["db1"], requirements=requirements)
        made.write("1")
        project.hand_over()
        virtualenvs.set_up(made.loaded, hosts)
        deployment = assembly.deployment(made.loaded, "prod")
        project.made.append(deployment)
        deployment.up()
        try:
            yield made
        finally:
            rollout.undeploy(made.loaded, "prod")
            deployment.down(delete_data=True)


def _state(shop: Shop) -> str:
    return shop.host("db1").run("systemctl", "show", UNIT, "-p", "ActiveState", "--value").strip()


def _pid(shop: Shop) -> str:
    return shop.host("db1").run("systemctl", "show", UNIT, "-p", "MainPID", "--value").strip()


def test_app_is_a_unit_which_is_rolled_back_started_again_and_removed(shop: Shop) -> None:
    host = shop.host("db1")
    before = host.seen("/srv/mongodb")
    shop.deploy()
    assert shop.version("db1") == "1"
    assert host.run("systemctl", "is-enabled", UNIT).strip() in ("enabled", "linked")
    assert not any(each.changed for each in shop.deploy().steps)

    shop.write("2", more="raise RuntimeError('not today')")
    with pytest.raises(ProvisionError) as caught:
        shop.deploy()
    assert "not today" in caught.value.text()
    assert "runs the release before again" in caught.value.cause
    assert (shop.version("db1"), _state(shop)) == ("1", "active")

    killed = _pid(shop)
    host.run("kill", "-KILL", killed)
    until("systemd to start it again", lambda: _pid(shop) not in ("0", killed) and _state(shop) == "active")

    assert rollout.undeploy(shop.loaded, "prod") == ("db1",)
    assert UNIT not in host.run("systemctl", "list-unit-files", "--no-legend")
    assert before.changes(host.seen("/srv/mongodb")) == []
