"""What can be wrong with one of several hosts: the error names that host, the others are done, and again completes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.deployments.events import Event
from tests.hosts.conftest import Project
from tests.hosts.lab import keygen

pytestmark = pytest.mark.timeout(300)
SET = {"topology": "replica-set", "members": 3}
BAD = "db2"
GOOD = {"db1", "db3"}


def _wrong_key(project: Project) -> Callable[[], None]:
    right, stranger = project.hosts[BAD]["key"], project.root / "stranger"
    keygen(stranger)
    project.hosts[BAD]["key"] = str(stranger)
    return lambda: project.hosts[BAD].update(key=right)


def _unknown_host_key(project: Project) -> Callable[[], None]:
    known = Path.home() / ".ssh" / "known_hosts"
    all_lines = known.read_text()
    address = project.lab.hosts[BAD].address
    known.write_text(
        "".join(line for line in all_lines.splitlines(True) if not line.startswith(f"{address} "))
    )

    def mend() -> None:
        known.write_text(all_lines)

    return mend


def _switched_off(project: Project) -> Callable[[], None]:
    project.lab.hosts[BAD].stop()
    return project.lab.hosts[BAD].start


def _cut_off(project: Project) -> Callable[[], None]:
    project.lab.hosts[BAD].cut_off()
    return project.lab.hosts[BAD].connect


def _no_rights(project: Project) -> Callable[[], None]:
    project.hosts[BAD]["user"] = "operator"

    def mend() -> None:
        # What the remedy says, typed there.
        project.lab.hosts[BAD].run("install", "-d", "-m", "0700", "-o", "operator", "/srv/mongodb")

    return mend


def _full_disk(project: Project) -> Callable[[], None]:
    host = project.lab.hosts[BAD]
    (host.srv / "mongodb").mkdir(mode=0o700)
    host.run("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", "/srv/mongodb")

    def mend() -> None:
        host.run("umount", "/srv/mongodb")

    return mend


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_wrong_key, "does not accept"),
        (_unknown_host_key, "host key of db2"),
        (_switched_off, "does not answer on port 22"),
        (_cut_off, "does not answer on port 22"),
        (_no_rights, "sudo"),
        (_full_disk, "disk of db2"),
    ],
)
def test_set_up_names_the_host_does_the_others_and_completes_when_typed_again(
    project: Project, spoil: Callable[[Project], Callable[[], None]], said: str
) -> None:
    project.has_no_router()
    project.hand_over(sorted(GOOD))
    mend = spoil(project)
    try:
        first = project.set_up()
    finally:
        mend()
    assert list(first.errors) == [BAD]
    error = first.errors[BAD]
    assert BAD in error.doing
    assert said in error.cause
    assert error.remedy
    with pytest.raises(ProvisionError, match=BAD):
        first.raise_first()
    assert {each.host for each in first.steps if each.name == "mongod runs"} == GOOD

    again = project.set_up()
    assert not again.errors
    assert {each.host for each in again.steps if each.changed} == {BAD}


def test_up_on_a_full_disk_names_the_host_leaves_nothing_running_and_completes_when_there_is_room(
    project: Project,
) -> None:
    project.are_ready()
    host = project.lab.hosts[BAD]
    with _small_disk(project, "/srv/mongodb/prod"):
        deployment = project.deployment(project.loaded(**SET))
        with pytest.raises(ProvisionError) as caught:
            deployment.up()
        assert BAD in caught.value.doing
        assert "full" in caught.value.cause
        assert all(each.processes("mongod") == [] for each in project.lab.hosts.values())
    again = project.deployment(project.loaded(**SET))
    again.up()
    assert again.status().state == "running"
    assert host.processes("mongod")


def test_connection_lost_during_up_is_opened_again_or_named_and_up_completes(project: Project) -> None:
    project.are_ready()
    deployment = project.deployment(project.loaded(**SET))
    host = project.lab.hosts[BAD]
    lost = []

    def lose_it(event: Event) -> None:
        lost.append(host.cut_connections(none_will_do=True))

    try:
        deployment.up(reached=lose_it)
    except ProvisionError as error:
        assert f"connection to {BAD} was lost" in error.text()
    assert any(lost)
    again = project.deployment(project.loaded(**SET))
    again.up()
    assert again.status().state == "running"
    assert all(len(each.processes("mongod")) == 1 for each in project.lab.hosts.values())


@contextmanager
def _small_disk(project: Project, directory: str) -> Iterator[None]:
    """A disk on the bad host that holds a node's configuration, and none of its data."""
    host = project.lab.hosts[BAD]
    place = host.srv / directory.removeprefix("/srv/")
    place.mkdir(mode=0o700, parents=True)
    host.run("mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", directory)
    try:
        yield
    finally:
        host.run("umount", directory)
        shutil.rmtree(place, ignore_errors=True)
