"""`hosts.deploy`: an app under gunicorn on hosts, beside a real database on another one."""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.app.deploy import host_setup, host_virtualenv, rollout
from provision.app.deploy.host_virtualenv import AppEnvironment, HostPython, Wheels
from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.deployments import assembly, on_hosts
from provision.hosts.backend import Hosts
from provision.mongodb import users
from tests.hosts.conftest import Project, at_home, hosts_of_their_own, project_on
from tests.hosts.scan import command_lines
from tests.hosts.shop import PORT, Shop, without_index
from tests.support.polling import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("index")]


@pytest.fixture(scope="module")
def database(sshd: str, tmp_path_factory: pytest.TempPathFactory, routed_mongod: Path) -> Iterator[Project]:
    """Three hosts, and a project whose database runs on the first."""
    folder = tmp_path_factory.mktemp("deploy")
    with (
        hosts_of_their_own(sshd, ("db1", "web1", "web2")) as hosts,
        at_home(hosts, folder / "home"),
        project_on(hosts, folder, routed_mongod) as project,
    ):
        for name in ("web1", "web2"):
            without_index(hosts.hosts[name])
        shop = Shop(project, folder / "shop")
        shop.write("0")
        project.hand_over(["db1"])
        host_setup.set_up(shop.loaded, "prod").raise_first()
        deployment = assembly.deployment(shop.loaded, "prod")
        project.made.append(deployment)
        deployment.up()
        yield project


@pytest.fixture
def shop(database: Project, tmp_path: Path) -> Iterator[Shop]:
    """The app, on none of the hosts yet."""
    made = Shop(database, tmp_path / "shop")
    made.write("1")
    try:
        yield made
    finally:
        made.app_hosts = ["web1", "web2"]
        rollout.undeploy(made.loaded, "prod")


def test_setup_makes_the_virtualenv_on_the_apps_hosts_alone_and_the_second_one_changes_nothing(
    shop: Shop,
) -> None:
    again = host_setup.set_up(shop.loaded, "prod")
    assert not again.errors
    assert {each.host for each in again.steps if each.name == "virtualenv"} == {"web1", "web2"}
    assert {each.host for each in again.steps if each.name == "mongod"} == {"db1"}
    assert [each.name for each in again.steps if each.changed] == []
    with on_hosts.links(shop.loaded, ["web1"]) as links:
        python = host_virtualenv.ask(links["web1"])
    for name in ("web1", "web2"):
        [packages, *_] = (shop.host(name).srv / "mongodb" / "env").glob("*.*/lib")
        _has_setuptools(packages, python)


def test_deployed_app_serves_and_the_second_deploy_changes_nothing(shop: Shop) -> None:
    first = shop.deploy()
    assert first.changed == ("web1", "web2")
    assert [shop.version(name) for name in ("web1", "web2")] == ["1", "1"]
    pids = [shop.gunicorn(name) for name in ("web1", "web2")]

    again = shop.deploy()

    assert again.release == first.release
    assert not any(each.changed for each in again.steps)
    assert [shop.gunicorn(name) for name in ("web1", "web2")] == pids


def test_dry_run_says_what_would_be_done_and_changes_nothing(shop: Shop) -> None:
    said = shop.deploy(dry_run=True)
    assert any("is not there yet" in each.why for each in said.steps)
    assert said.changed == ("web1", "web2")
    assert not shop.is_running("web1")
    assert not (shop.host("web1").srv / "mongodb" / "prod").exists()


def test_app_listens_on_loopback_alone_and_its_secrets_are_its_users_alone(shop: Shop) -> None:
    with command_lines() as seen:
        shop.deploy()

    for name in ("web1", "web2"):
        assert [each for each in shop.host(name).listening() if each[1] != 22] == [("127.0.0.1", PORT)]
        place = shop.host(name).srv / "mongodb" / "prod" / "app" / "releases"
        [release] = [path for path in place.iterdir() if path.is_dir()]
        for path in (release / "serve.json", release / "secret_key", release / "ca.pem"):
            assert path.stat().st_mode & 0o777 == 0o600, path
        assert release.stat().st_mode & 0o777 == 0o700
    secrets = users.existing(shop.loaded.paths, "prod")
    assert secrets is not None
    secret_key = shop.loaded.paths.app_secret_key("prod")
    assert secret_key.stat().st_mode & 0o777 == 0o600
    words = (secrets.app.password, secrets.root.password, secret_key.read_text().strip())
    assert any("serve.py" in line for line in seen)
    assert not [line for line in seen for word in words if word in line]


def test_changed_app_is_rolled_out_and_back_and_the_last_three_are_kept(shop: Shop) -> None:
    first = shop.deploy()
    shop.write("2")
    second = shop.deploy()
    assert second.changed == ("web1", "web2")
    assert [shop.version(name) for name in ("web1", "web2")] == ["2", "2"]

    shop.deploy(rollback=True)

    assert [shop.version(name) for name in ("web1", "web2")] == ["1", "1"]
    assert shop.history("web1") == [first.release, second.release]
    shop.app_hosts = ["web1"]
    made = []
    for version in "34":
        shop.write(version)
        made.append(shop.deploy().release)
    kept = {path.name for path in (shop.host("web1").srv / "mongodb" / "prod" / "app" / "releases").iterdir()}
    assert kept == {first.release, *made}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"more": "import no_such_module"}, "No module named 'no_such_module'"),
        ({"ready": False}, "answers 503 at /readyz"),
    ],
)
def test_release_that_does_not_answer_makes_way_for_the_one_before(
    shop: Shop, broken: dict[str, Any], told: str
) -> None:
    first = shop.deploy()
    untouched = shop.gunicorn("web2")
    shop.write("2", **broken)

    with pytest.raises(ProvisionError) as caught:
        shop.deploy(ready_seconds=3)

    assert told in caught.value.text()
    assert "web1" in caught.value.doing
    assert f"web1 runs the release before again, {first.release}" in caught.value.cause
    assert "web2 keeps what it has" in caught.value.cause
    assert [shop.version(name) for name in ("web1", "web2")] == ["1", "1"]
    assert shop.gunicorn("web2") == untouched
    shop.write("3")
    assert shop.deploy().changed == ("web1", "web2")
    assert shop.version("web2") == "3"


def test_first_release_that_does_not_answer_leaves_nothing_running(shop: Shop) -> None:
    shop.write("1", more="raise RuntimeError('not today')")
    with pytest.raises(ProvisionError) as caught:
        shop.deploy()
    assert "not today" in caught.value.text()
    assert "Nothing was running on web1 before, and nothing is" in caught.value.cause
    assert not shop.is_running("web1")
    assert not shop.is_running("web2")


def test_port_in_use_is_named_and_nothing_is_left_running(shop: Shop) -> None:
    with shop.host("web1").listener(PORT), pytest.raises(ProvisionError, match=f"Port {PORT} of web1"):
        shop.deploy()
    assert not shop.is_running("web1")


def test_app_that_was_killed_is_started_again(shop: Shop) -> None:
    shop.deploy()
    shop.host("web2").end("serve.py")
    until("gunicorn to be gone", lambda: not shop.is_running("web2"))
    assert shop.deploy().changed == ("web2",)
    assert shop.version("web2") == "1"


def test_release_that_was_touched_is_sent_again_and_started_anew(shop: Shop) -> None:
    shop.app_hosts = ["web1"]
    release = shop.deploy().release
    place = shop.host("web1").srv / "mongodb" / "prod" / "app" / "releases" / release
    (place / "app" / "shop" / "__init__.py").write_text("raise SystemExit")

    again = shop.deploy()

    assert {each.name for each in again.steps if each.changed} == {"release", "app"}
    assert shop.version("web1") == "1"
    assert not any(each.changed for each in shop.deploy().steps)


def test_connection_lost_while_the_app_is_sent_and_the_next_deploy_completes(shop: Shop) -> None:
    first = shop.deploy()
    shop.write("2")
    (shop.folder / "shop" / "large.bin").write_bytes(bytes(60_000_000))
    host = shop.host("web2")
    cut = threading.Event()

    def cut_the_connection() -> None:
        releases = host.srv / "mongodb" / "prod" / "app" / "releases"

        def sending() -> bool:
            return any(path.stat().st_size > 1_000_000 for path in releases.glob(".incoming.*/tar"))

        until("the app to be on its way", sending)
        host.cut_connections()
        cut.set()

    cutter = threading.Thread(target=cut_the_connection)
    cutter.start()
    with pytest.raises(ProvisionError, match="connection to web2 was lost"):
        shop.deploy()
    cutter.join()
    assert cut.is_set()
    assert [shop.version(name) for name in ("web1", "web2")] == ["1", "1"]
    assert shop.history("web1") == [first.release]

    (shop.folder / "shop" / "large.bin").unlink()
    assert shop.deploy().changed == ("web1", "web2")
    assert not list((host.srv / "mongodb").rglob(".incoming.*"))


def test_full_disk_on_one_host_is_named_and_nothing_that_runs_is_touched(shop: Shop) -> None:
    shop.deploy()
    pids = [shop.gunicorn(name) for name in ("web1", "web2")]
    shop.write("2")
    (shop.folder / "shop" / "large.bin").write_bytes(bytes(3_000_000))
    host, place = shop.host("web2"), "/srv/mongodb/prod/app/releases"
    host.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place)
    try:
        with pytest.raises(ProvisionError, match="The disk of web2"):
            shop.deploy()
    finally:
        host.run("umount", place)
    assert [shop.gunicorn(name) for name in ("web1", "web2")] == pids
    assert shop.deploy().changed == ("web1", "web2")


def test_host_without_the_python_is_told_what_to_install(shop: Shop) -> None:
    python = shop.project.hosts["web1"]
    shop.project.hosts["web1"] = {**python, "python": "python3.99"}
    try:
        with pytest.raises(ProvisionError) as caught:
            shop.deploy()
    finally:
        shop.project.hosts["web1"] = python
    assert "web1" in caught.value.cause
    assert "no Python 3 called python3.99" in caught.value.cause
    assert "hosts.web1.python" in caught.value.remedy


def test_host_that_is_down_is_named_before_anything_that_runs_is_touched(shop: Shop) -> None:
    shop.deploy()
    pid = shop.gunicorn("web1")
    shop.write("2")
    shop.host("web2").stop()
    try:
        with pytest.raises(ProvisionError, match="web2"):
            shop.deploy()
    finally:
        shop.host("web2").start()
    assert shop.gunicorn("web1") == pid
    assert shop.deploy().changed == ("web1", "web2")


def test_host_that_is_no_longer_named_loses_the_app(shop: Shop) -> None:
    shop.deploy()
    shop.app_hosts = ["web1"]
    assert shop.deploy().removed == ("web2",)
    assert not shop.is_running("web2")
    assert shop.version("web1") == "1"


def test_without_app_hosts_the_setting_is_named(shop: Shop) -> None:
    shop.app_hosts = []
    with pytest.raises(ProvisionError) as caught:
        shop.deploy()
    assert "deployments.prod.app_hosts" in caught.value.cause
    shop.app_hosts = ["web3"]
    with pytest.raises(ProvisionError, match="'web3'"):
        shop.deploy()


def test_taken_down_it_leaves_what_setup_made_and_nothing_else(shop: Shop) -> None:
    homes = {name: shop.host(name).seen("/srv/mongodb") for name in ("web1", "web2")}
    shop.deploy()
    assert rollout.taken_down(shop.loaded, "prod") is None
    for name in ("web1", "web2"):
        assert homes[name].changes(shop.host(name).seen("/srv/mongodb")) == []
        assert {path.name for path in (shop.host(name).srv / "mongodb").iterdir()} == {"env"}
    assert rollout.undeploy(shop.loaded, "prod") == ()


def test_host_that_reaches_an_index_fetches_what_the_app_needs_and_what_was_touched_is_made_anew(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = host_virtualenv.wanted(shop.loaded)
    host = shop.host("web1")
    pip = host.folder / "home" / "root" / ".config" / "pip" / "pip.conf"
    before = pip.read_text()
    with on_hosts.links(shop.loaded, ["web1"]) as links, Wheels() as collected:
        python = host_virtualenv.ask(links["web1"])
        with tarfile.open(collected.bundle(requirements, python)) as tar:
            tar.extractall(tmp_path, filter="data")
        with shop.project.lab.serving(tmp_path / "wheels") as url:
            address = url.removeprefix("http://").partition(":")[0]
            pip.write_text(f"[global]\nno-index = true\nfind-links = {url}/\ntrusted-host = {address}\n")
            try:
                other = dataclasses.replace(requirements, lines=(*requirements.lines, "click"))
                step = AppEnvironment(links["web1"], other, collected)
                # As of a Debian without python3-venv: pip was sent.
                vars(step)["python"] = dataclasses.replace(python, ensurepip=False)
                assert step.decide().needed
                assert "the host fetched" in step.act(Silent())
                assert not step.decide().needed
                packages = host.srv / "mongodb" / "env" / step.identity / "lib"
                assert not list(packages.glob("python3*/site-packages/pip"))
                _has_setuptools(packages, python)
                [package] = packages.glob("python3*/site-packages/itsdangerous-*.dist-info")
                shutil.rmtree(package)
                assert "not as it was made" in step.decide().why
                # Where this machine has no pip to send, that of the host's Python will do.
                monkeypatch.setattr(Wheels, "installer", lambda *_: None)
                step = AppEnvironment(links["web1"], other, collected)
                assert "the host fetched" in step.act(Silent())
                assert not step.decide().needed
                assert list(packages.glob("python3*/site-packages/pip"))
            finally:
                pip.write_text(before)


def _has_setuptools(packages: Path, python: HostPython) -> None:
    """As each virtualenv of `python -m venv` before Python 3.12: apps of that time import pkg_resources."""
    found = [each.parent.name for each in packages.glob("python3*/site-packages/pkg_resources")]
    assert bool(found) == (python.minor < (3, 12))


def test_the_database_runs_on_the_first_host_alone(database: Project) -> None:
    backend = database.made[0].backend
    assert isinstance(backend, Hosts)
    assert set(backend.placement.values()) == {"db1"}
