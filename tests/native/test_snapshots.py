"""Snapshots of processes: all of a moment comes back; what is cut off is completed or undone; a refusal changes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import WriteConcern

from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_json
from provision.data import snapshots
from provision.deployments import held_writes, swapping
from provision.deployments.deployment import NotProved
from tests.support.killing import killer, mark, marks, points, wanted
from tests.support.load import writing
from tests.support.polling import until
from tests.support.processes import free_ports
from tests.support.router_standin.install import beside
from tests.support.snapshots import Project, client, hashes, held

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = ("one", "alone", "rs", "sh")
USER = {"user": "ann", "db": "flaskbook"}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Project]:
    """One node, one that stands alone, a set of three and a sharded cluster; the last two with users."""
    folder = tmp_path_factory.mktemp("snapshots")
    first = free_ports(260)
    sharded = {"topology": "sharded", "members": 1, "config_servers": 1, "shards": 2}
    made = Project.make(
        folder / "project",
        beside(mongod_binary, mongod_version, folder / "bin"),
        {
            "one": {"topology": "single", "port": first},
            "alone": {"topology": "single", "port": first + 1, "replica_set": None},
            "rs": {"topology": "replica-set", "port": first + 10, "auth": True},
            "sh": {**sharded, "port": first + 60, "auth": True},
        },
    )
    try:
        yield made
    finally:
        made.close()


def fill(project: Project, name: str) -> None:
    """Documents with an index; where it has users, one more; in a cluster, a sharded collection with zones."""
    deployment = project.on(name)
    with client(deployment) as opened:
        opened.flaskbook.people.insert_many({"_id": n, "name": f"name {n}"} for n in range(1000))
        opened.flaskbook.people.create_index("name", unique=True)
        if deployment.secrets() is not None:
            opened.flaskbook.command("createUser", "ann", pwd="secret", roles=["read"])
        if deployment.topology.is_sharded:
            admin = opened.admin
            # Zones come first: the chunks are made for them, and the balancer has nothing to split or to move later.
            for shard, low, high in (("shard1", "A", "M"), ("shard2", "M", "Z")):
                admin.command("addShardToZone", shard, zone=low)
                bounds = {"min": {"country": low, "_id": 0}, "max": {"country": high, "_id": 0}}
                admin.command("updateZoneKeyRange", "flaskbook.places", zone=low, **bounds)
            admin.command("shardCollection", "flaskbook.places", key={"country": 1, "_id": 1})
            opened.flaskbook.places.insert_many({"_id": n, "country": chr(65 + n % 25)} for n in range(500))


def described(project: Project, name: str) -> dict[str, Any]:
    """What counts beside documents: indexes, users, zones, and which collections are sharded, with how many chunks."""
    deployment = project.on(name)
    with client(deployment) as opened:
        found: dict[str, Any] = {"indexes": sorted(opened.flaskbook.people.index_information())}
        if deployment.secrets() is not None:
            found["users"] = opened.flaskbook.command("usersInfo", USER)["users"]
        if deployment.topology.is_sharded:
            config = opened.config
            found["zones"] = list(config.tags.find())
            found["shards"] = list(config.shards.find({}, {"topologyTime": 0}))
            found["sharded"] = list(config.collections.find({"_id": "flaskbook.places"}))
            found["chunks"] = list(config.chunks.find({"uuid": found["sharded"][0]["uuid"]}))
    return found


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_all_of_a_moment_comes_back(project: Project, name: str) -> None:
    deployment = project.on(name)
    deployment.up()
    fill(project, name)
    uri = deployment.uri(user="root")
    with writing(uri, dense=True) as load:
        before = list(load.acknowledged)
        taken = snapshots.save(project.on(name), "moment")
        begun = load.acknowledged[-1] + 1  # the one whose answer is awaited now may be in it
    assert held(project.on(name)) == []
    of_moment = described(project, name)
    with client(project.on(name)) as opened:
        opened.flaskbook.people.delete_many({"_id": {"$lt": 500}})
        opened.flaskbook.people.drop_index("name_1")
        if deployment.secrets() is not None:
            opened.flaskbook.command("dropUser", "ann")
        if deployment.topology.is_sharded:
            opened.flaskbook.places.drop()
    later = hashes(project.on(name))
    snapshots.restore(project.on(name), taken)
    with client(project.on(name)) as opened:
        there = {each["_id"] for each in opened.flaskbook.load.find()}
        assert opened.flaskbook.people.count_documents({}) == 1000
        if deployment.topology.is_sharded:
            assert opened.flaskbook.places.count_documents({}) == 500
            assert opened.admin.command("balancerStatus")["mode"] == "full"
    assert set(before) <= there, "an acknowledged write is missing"
    assert max(there) <= begun, "it has a write that began after it was taken"
    assert described(project, name) == of_moment
    restored = hashes(project.on(name))
    assert restored != later
    snapshots.undo(project.on(name))
    assert hashes(project.on(name)) == later
    # Stopped, it is taken as it is; and its data may be gone altogether.
    snapshots.restore(project.on(name), taken)
    project.on(name).down()
    at_rest = snapshots.save(project.on(name), "at-rest")
    assert project.on(name).running(deployment.topology.nodes) == []
    project.on(name).down(delete_data=True)
    snapshots.restore(project.on(name), at_rest)
    assert hashes(project.on(name)) == restored
    assert described(project, name) == of_moment


@pytest.mark.parametrize("name", ["one", "alone"])
def test_what_was_written_just_before_a_restore_is_in_its_undo(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also with w: 1, which does not wait until a crash could not lose it."""
    deployment = project.on(name)
    deployment.up()
    taken = snapshots.save(project.on(name), "before-writes")
    hold = held_writes.hold

    def write_and_hold(*given: Any) -> None:
        with client(deployment) as opened:
            late = opened.flaskbook.get_collection("late", write_concern=WriteConcern(w=1))
            for n in range(200):
                late.insert_one({"_id": n})
            hold(*given)

    monkeypatch.setattr(held_writes, "hold", write_and_hold)
    snapshots.restore(project.on(name), taken)
    monkeypatch.undo()
    snapshots.undo(project.on(name))
    with client(project.on(name)) as opened:
        assert opened.flaskbook.late.count_documents({}) == 200
    assert held(project.on(name)) == []
    project.on(name).down(delete_data=True)


@pytest.fixture
def one(project: Project) -> Iterator[Project]:
    """The single node, running, with one document that says which data these are, and a snapshot `old` of another."""
    deployment = project.on("one")
    deployment.up()
    if snapshots.find(deployment, "old") is None:
        mark(project.on("one"), "old")
        snapshots.save(deployment, "old")
    mark(project.on("one"), "new")
    yield project
    for each in snapshots.every(project.on("one")):
        if each.name not in ("old", "moment", "at-rest"):
            snapshots.delete(project.on("one"), each)


def marked(project: Project) -> str:
    (found,) = marks(project.on("one"))
    return found


def old(project: Project) -> snapshots.Snapshot:
    found = snapshots.find(project.on("one"), "old")
    assert found is not None
    return found


def left_over(project: Project, name: str = "one") -> list[str]:
    """What a command that was cut off leaves, and the next one removes."""
    paths = project.on(name).paths
    data = paths.node_data(name, "x").parent
    hidden = [each.name for each in paths.snapshots(name).glob(".*")]
    hidden += [each for each in (".incoming", ".replaced", ".trash") if (data / each).exists()]
    return hidden + [
        each.name for each in (paths.swap_record(name), paths.held_record(name)) if each.exists()
    ]


@pytest.mark.parametrize(("name", "usual"), [("one", 20), ("rs", 3), ("sh", 3)])
def test_a_save_that_is_killed_leaves_no_half_snapshot_and_no_lock(
    project: Project, name: str, usual: int
) -> None:
    project.on(name).up()
    mark(project.on(name), "new")
    with killer(project.root, project.settings, name) as running:
        steps = running.killed("save", "whole")
        removed(project, name, "whole")
        assert steps >= 20
        for step in points(steps, wanted(usual)):
            if fewer := running.killed("save", "again", step):
                removed(project, name, "again")
                assert running.killed("save", "again", fewer) == 0
            project.on(name).up()  # a majority write is acknowledged: nothing is locked
            removed(project, name, "again")
            snapshots.save(project.on(name), "again")
            assert held(project.on(name)) == []
            assert left_over(project, name) == []
            removed(project, name, "again")
    assert marks(project.on(name)) == {"new"}


@pytest.mark.parametrize(("name", "usual"), [("one", 20), ("rs", 3), ("sh", 3)])
def test_a_restore_that_is_killed_is_completed_or_undone_by_the_next_command(
    project: Project, name: str, usual: int
) -> None:
    project.on(name).up()
    mark(project.on(name), "old")
    taken = snapshots.save(project.on(name), "before")
    seen = set()
    with killer(project.root, project.settings, name) as running:
        steps = running.killed("restore", "before")
        assert steps >= 20
        for step in points(steps, wanted(usual)):
            mark(project.on(name), "new")
            if fewer := running.killed("restore", "before", step):
                mark(project.on(name), "new")
                assert running.killed("restore", "before", fewer) == 0
            project.on(name).up()
            (found,) = marks(project.on(name))
            seen.add(found)
            if found == "new" or name == "one":
                snapshots.restore(project.on(name), taken)  # as when it is typed again
            assert marks(project.on(name)) == {"old"}
            assert left_over(project, name) == []
    assert seen == {"old", "new"}
    snapshots.delete(project.on(name), taken)


def removed(project: Project, name: str, snapshot: str) -> None:
    """See that there is no such snapshot."""
    found = snapshots.find(project.on(name), snapshot)
    if found is not None:
        snapshots.delete(project.on(name), found)


def test_locks_end_although_the_process_that_watches_over_them_was_killed_too(one: Project) -> None:
    deployment = one.on("one")
    node = deployment.node()
    with deployment.dial(node) as connection:
        connection.command("admin", {"fsync": 1, "lock": True})
    write_json(deployment.paths.held_record("one"), {"nodes": [node.name]})
    one.on("one").up()
    assert held(one.on("one")) == []
    assert left_over(one) == []


def test_data_that_do_not_start_are_refused_and_what_was_there_is_back(one: Project) -> None:
    taken = snapshots.save(one.on("one"), "broken")
    target = next(taken.folder.rglob("WiredTiger.turtle"))
    target.write_text("nothing of use\n")
    (taken.folder / "rs0" / "WiredTiger").write_text("nothing of use\n")
    value = read_json(taken.folder / "manifest.json")
    assert value is not None
    from provision.core import copying

    for file in value["files"]:
        path = taken.folder / file["path"]
        file |= {"bytes": path.stat().st_size, "checksum": copying.checksums([path])[path]}
    write_json(taken.folder / "manifest.json", value)
    found = snapshots.find(one.on("one"), "broken")
    assert found is not None
    with pytest.raises(NotProved) as caught:
        snapshots.restore(one.on("one"), found)
    assert "The data from before are back" in caught.value.cause
    assert marked(one) == "new"
    assert left_over(one) == []


def refused(project: Project, snapshot: snapshots.Snapshot, into: str = "one") -> ProvisionError:
    """It is refused, with the data as before, and running as before."""
    before = [project.on("one").backend.observe(node).pid for node in project.on("one").topology.nodes]
    with pytest.raises(ProvisionError) as caught:
        snapshots.restore(project.on(into), snapshot)
    after = [project.on("one").backend.observe(node).pid for node in project.on("one").topology.nodes]
    assert before == after
    assert marked(project) == "new"
    assert left_over(project) == []
    return caught.value


def test_a_byte_that_is_not_as_it_was(one: Project) -> None:
    taken = snapshots.save(one.on("one"), "damaged")
    file = next(each for each in sorted(taken.folder.rglob("collection-*.wt")) if each.stat().st_size > 5000)
    content = bytearray(file.read_bytes())
    content[4500] ^= 1
    file.write_bytes(content)
    error = refused(one, taken)
    assert f"damaged: {file} is not as it was" in error.cause
    assert "snapshot.delete damaged --on one" in error.remedy


def test_another_topology(one: Project) -> None:
    one.on("one").up()
    error = refused(one, old(one), "sh")
    assert error.cause.startswith("It has the data of rs0; sh consists of config, shard1, shard2.")
    error = refused(one, old(one), "rs")
    assert "In it, rs0 has the members" in error.cause


@pytest.mark.parametrize(
    ("mongod", "compatible", "why"),
    [
        ("99.0.1", "99.0", "can't read what a newer release has written"),
        ("4.4.1", "4.4", "reads the release before its own, not older ones"),
    ],
)
def test_another_version(one: Project, mongod: str, compatible: str, why: str) -> None:
    taken = snapshots.save(one.on("one"), "version")
    value = read_json(taken.folder / "manifest.json")
    assert value is not None
    write_json(
        taken.folder / "manifest.json", {**value, "mongod": mongod, "feature_compatibility": compatible}
    )
    found = snapshots.find(one.on("one"), "version")
    assert found is not None
    assert why in refused(one, found).cause


def test_a_name_that_is_taken_and_one_that_no_folder_may_have(one: Project) -> None:
    with pytest.raises(ProvisionError, match="There is a snapshot old already"):
        snapshots.save(one.on("one"), "old")
    with pytest.raises(ProvisionError, match="A name has letters"):
        snapshots.save(one.on("one"), "../old")


@pytest.mark.needs("mount")
@pytest.mark.parametrize(("options", "why"), [("size=64k", "is full"), ("ro", "Read-only file system")])
def test_a_folder_that_takes_no_snapshot(one: Project, tmp_path: Path, options: str, why: str) -> None:
    place = one.on("one").paths.snapshots("one")
    place.rename(tmp_path / "kept")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        with pytest.raises(ProvisionError, match=why) as caught:
            snapshots.save(one.on("one"), "large")
        assert "Nothing was changed" in caught.value.cause
        assert left_over(one) == []
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()
        (tmp_path / "kept").rename(place)
    assert held(one.on("one")) == []
    assert marked(one) == "new"


def test_a_disk_that_fills_up_while_a_snapshot_is_copied_in(
    one: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from provision.core import copying

    original, copied = copying.copy_file, []

    def full_after_some(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        original(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(copying, "copy_file", full_after_some)
        assert "is full. Nothing was changed" in refused(one, old(one)).cause
    from provision.backends.folders import FoldersHere

    with monkeypatch.context() as patched:
        patched.setattr(FoldersHere, "room", lambda *_: 1000)
        assert "MB are free. Nothing was changed" in refused(one, old(one)).cause


def test_an_undo_that_was_cut_off_or_does_not_start_is_still_there(one: Project) -> None:
    started_by_run = one.on("one").paths.run_record("one")
    started_by_run.touch(0o600)
    snapshots.restore(one.on("one"), old(one))
    assert started_by_run.exists(), "the `run` that started it would not stop it"
    started_by_run.unlink()
    deployment = one.on("one")
    folders = deployment.backend.folders()
    assert folders is not None
    assert folders.take_undo(deployment.topology.nodes)  # and is killed
    assert marked(one) == "old"
    snapshots.undo(one.on("one"))
    assert marked(one) == "new"
    assert left_over(one) == []
    undo = deployment.paths.node_data("one", ".undo") / "mongod" / "WiredTiger.turtle"
    kept = undo.read_bytes()
    undo.write_bytes(b"nothing of use")
    with pytest.raises(NotProved):
        snapshots.undo(one.on("one"))
    assert marked(one) == "new"
    undo.write_bytes(kept)
    snapshots.undo(one.on("one"))
    assert marked(one) == "old"


def test_a_swap_that_was_proved_is_never_taken_back(one: Project) -> None:
    """Whoever was killed after the proof finds the restored data, with what was written to them since."""
    snapshots.restore(one.on("one"), old(one))
    mark(one.on("one"), "written since")
    deployment = one.on("one")
    swap = swapping.Swap("snapshot old", ("mongod",), ("mongod",), ("rs0",), phase=swapping.KEEP)
    swapping.record(deployment.paths, "one", swap)
    one.on("one").up()
    assert marked(one) == "written since"
    assert until("nothing to be left", lambda: left_over(one) == [])
