"""`hosts.setup` and `hosts.check` against real hosts."""

from __future__ import annotations

import contextlib
import tarfile
import threading
from pathlib import Path

import pytest

from provision.app.deploy import host_setup
from provision.core.finding import Level
from provision.core.steps import Silent
from provision.hosts import judge
from provision.hosts import setup as hosts_setup
from provision.mongodb import binaries
from provision.settings.loading import Loaded
from tests.hosts.conftest import Project
from tests.support.polling import until


def test_setup_makes_hosts_ready_and_the_second_one_changes_nothing(project: Project) -> None:
    first = project.set_up()
    assert not first.errors
    assert all(each.changed for each in first.steps)
    assert {each.host for each in first.steps} == {"db1", "db2", "db3"}
    for host in project.lab.hosts.values():
        assert host.run("stat", "-c", "%a", "/srv/mongodb") == "700\n"
    second = project.set_up()
    assert not second.errors
    assert [each.name for each in second.steps if each.changed] == []


def test_dry_run_says_what_would_be_done_and_changes_nothing(project: Project) -> None:
    loaded = _chosen(project)
    done = host_setup.set_up(loaded, "prod", dry_run=True)
    assert done.errors == {}
    assert any("is not there yet" in each.why for each in done.steps)
    assert all(list(host.srv.iterdir()) == [] for host in project.lab.hosts.values())


def test_damaged_binary_is_sent_again(project: Project) -> None:
    project.set_up(["db1"]).raise_first()
    [mongod] = (project.lab.hosts["db1"].srv / "mongodb" / "bin").glob("*/mongod")
    assert mongod.stat().st_nlink == 1, "not a name of this machine's own mongod, which would be damaged"
    with mongod.open("r+b") as file:
        file.truncate(1000)
    again = project.set_up(["db1"])
    assert [each.name for each in again.steps if each.changed] == ["mongod"]
    assert mongod.stat().st_size == project.mongod.stat().st_size


def test_connection_lost_halfway_names_the_host_and_running_again_completes(project: Project) -> None:
    host = project.lab.hosts["db2"]
    cut = threading.Event()

    def cut_the_connection() -> None:
        def sending() -> bool:
            return any(path.stat().st_size > 1_000_000 for path in host.srv.rglob("*.incoming.*"))

        until("mongod to be on its way", sending)
        host.cut_connections()
        cut.set()

    project.hand_over(["db1", "db3"])
    cutter = threading.Thread(target=cut_the_connection)
    cutter.start()
    first = project.set_up()
    cutter.join()
    assert cut.is_set()
    assert list(first.errors) == ["db2"]
    assert "connection to db2 was lost" in first.errors["db2"].cause
    assert not list(host.srv.rglob("mongod"))
    second = project.set_up()
    assert not second.errors
    assert {each.host for each in second.steps if each.changed} == {"db2"}
    assert not list(host.srv.rglob("*.incoming.*"))


def test_full_disk_on_one_host_is_named_and_hides_no_other(project: Project) -> None:
    project.hand_over(["db1", "db2"])
    host = project.lab.hosts["db3"]
    (host.srv / "mongodb").mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/srv/mongodb")
    try:
        first = project.set_up()
        assert list(first.errors) == ["db3"]
        assert "The disk of db3" in first.errors["db3"].cause
        assert {each.host for each in first.steps if each.name == "mongod runs"} == {"db1", "db2"}
        assert host.run("find", "/srv/mongodb", "-type", "f") == ""
    finally:
        host.run("umount", "/srv/mongodb")
    assert not project.set_up().errors


def test_user_without_rights_and_sudo_is_told_what_to_type(project: Project) -> None:
    project.hand_over(["db2", "db3"])
    project.hosts["db1"]["user"] = "operator"
    done = project.set_up()
    assert list(done.errors) == ["db1"]
    assert "sudo" in done.errors["db1"].cause
    assert "sudo install -d -m 0700 -o operator /srv/mongodb" in done.errors["db1"].remedy


def test_unreachable_host_hides_no_other(project: Project) -> None:
    project.hand_over(["db2", "db3"])
    project.lab.hosts["db1"].stop()
    done = project.set_up()
    assert list(done.errors) == ["db1"]
    assert {each.host for each in done.steps} == {"db2", "db3"}


def test_home_directory_of_the_user_serves_as_data_directory(project: Project) -> None:
    for host in project.hosts.values():
        host["data_dir"] = "~/mongodb"
    project.set_up(["db1"]).raise_first()
    home = project.lab.hosts["db1"].folder / "home" / "root"
    try:
        assert list((home / "mongodb" / "bin").glob("*/mongod"))
        project.hosts = {"db1": project.hosts["db1"]}
        deployment = project.deployment(project.loaded(topology="single"))
        deployment.up()
        deployment.down(delete_data=True)
        assert [path.name for path in (home / "mongodb").iterdir()] == ["bin"]
    finally:
        project.lab.hosts["db1"].run("rm", "-rf", str(home / "mongodb"))


def test_check_finds_what_would_be_in_the_way(project: Project) -> None:
    project.lab.hosts["db3"].stop()
    project.hosts["db2"]["user"] = "operator"
    with project.lab.hosts["db1"].listener(27300):
        found = host_setup.check(project.loaded(topology="replica-set", members=3), "prod")
    errors = {(each.host, each.check) for each in found if each.level is Level.ERROR}
    assert errors == {("db1", "ports"), ("db2", "rights"), ("db3", "ssh")}
    assert not judge.works(found)
    assert all(each.remedy for each in found if each.level is not Level.OK)


def test_check_changes_nothing(project: Project) -> None:
    found = host_setup.check(project.loaded(topology="replica-set", members=3), "prod")
    assert judge.works(found)
    assert all(list(host.srv.iterdir()) == [] for host in project.lab.hosts.values())


def _chosen(project: Project) -> Loaded:
    loaded = project.loaded()
    binaries.find(loaded.settings.mongodb, loaded.paths, Silent())
    return loaded


@pytest.mark.parametrize("damaged", [False, True])
def test_host_that_reaches_the_download_fetches_it_and_what_is_not_right_is_sent(
    project: Project, tmp_path: Path, damaged: bool
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    program = tmp_path / "program"
    program.write_bytes(b"#!/bin/sh\necho 'db version v8.0.17'\n")
    program.chmod(0o755)
    wanted = hosts_setup.Binary.of(program, "mongod")
    inside = tmp_path / "inside"
    inside.write_bytes(b"something else" if damaged else program.read_bytes())
    with tarfile.open(served / "mongodb.tgz", "w:gz") as tar:
        tar.add(inside, "mongodb-linux/bin/mongod")
    links = project.links(["db1"])
    with project.lab.serving(served) as url, contextlib.closing(links["db1"]):
        done = hosts_setup.run(
            links, lambda link: hosts_setup.steps(link, [wanted], hosts_setup.Archive(f"{url}/mongodb.tgz"))
        )
    assert not done.errors
    why = next(each.why for each in done.steps if each.name == "mongod")
    assert why.startswith("sent" if damaged else "fetched by the host")
    assert (project.lab.hosts["db1"].srv / "mongodb" / wanted.place).read_bytes() == program.read_bytes()
