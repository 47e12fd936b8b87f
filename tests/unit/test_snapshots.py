"""What a snapshot says of itself, which deployments it fits, which may go, and how files are copied."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.backends.volumes import FoldersInVolumes
from provision.core import copying
from provision.core.errors import ProvisionError
from provision.data.snapshots.manifest import (
    CopiedFile,
    CopiedSet,
    Manifest,
    check_name,
    default_name,
    expired,
    moment,
    sets_of,
    why_other_shape,
    why_unreadable,
)
from provision.data.snapshots.store import MANIFEST, Store
from provision.deployments import held_writes
from provision.mongodb import topology
from provision.mongodb.topology import NodeOptions, Size
from provision.mongodb.wire import CommandFailed
from provision.settings.paths import Paths

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
ONE = Manifest(
    "one", "local", moment(NOW), False, "7.0.2", "7.0", False,
    (CopiedSet("rs0", "member", ("127.0.0.1:27017",)),), (CopiedFile("rs0/a.wt", 3, "x"),),
)  # fmt: skip


def aged(name: str, days: float, named: bool = False) -> Manifest:
    return replace(ONE, name=name, created=moment(NOW - timedelta(days=days)), named=named)


def test_a_manifest_is_read_as_it_was_written_and_a_newer_one_is_refused() -> None:
    assert Manifest.of(ONE.as_json()) == ONE
    with pytest.raises(ProvisionError, match="newer version of this tool"):
        Manifest.of({**ONE.as_json(), "schema": 99})


@pytest.mark.parametrize(
    ("wrote", "compatible", "reads", "fits"),
    [
        ("7.0.2", "7.0", "7.0.28", True),
        ("7.0.28", "7.0", "7.0.2", True),
        ("7.0.2", "7.0", "8.0.17", True),
        ("7.0.2", "6.0", "8.0.17", False),
        ("6.0.5", "6.0", "8.0.17", False),
        ("8.0.17", "7.0", "7.0.28", False),
        ("6.0.5", None, "6.0.5", True),
        ("6.0.5", None, "8.0.1", False),
    ],
)
def test_which_versions_read_it(wrote: str, compatible: str | None, reads: str, fits: bool) -> None:
    manifest = replace(ONE, mongod=wrote, feature_compatibility=compatible)
    assert (why_unreadable(manifest, reads) is None) is fits


def test_which_deployments_it_fits() -> None:
    def planned(port: int, members: int = 1, name: str = "rs0") -> topology.Topology:
        size = Size(members=members)
        return topology.replica_set("x", port, name, size, lambda _: NodeOptions(), lambda _: "127.0.0.1")

    assert why_other_shape(ONE, planned(27017)) is None
    assert why_other_shape(ONE, planned(30000)) is None  # a set of one takes its new address by itself
    assert "has the members" in (why_other_shape(ONE, planned(27017, members=3)) or "")
    assert "consists of other" in (why_other_shape(ONE, planned(27017, name="other")) or "")
    three = replace(ONE, sets=sets_of(planned(27017, members=3)))
    assert why_other_shape(three, planned(27017, members=3)) is None
    assert "has the members" in (why_other_shape(three, planned(27018, members=3)) or "")


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "-option", "a b", "x" * 101, "ä"])
def test_names_that_no_snapshot_has(name: str) -> None:
    with pytest.raises(ProvisionError, match="A name has letters"):
        check_name(name)


@given(st.none() | st.text(), st.integers(0, 3))
def test_the_default_name_is_one_and_is_not_taken(branch: str | None, count: int) -> None:
    taken: list[str] = []
    for _ in range(count + 1):
        name = check_name(default_name(branch, NOW, taken))
        assert name not in taken
        taken.append(name)


def test_the_default_name_has_branch_and_time() -> None:
    assert default_name("feature/ä b", NOW, []) == "feature-b-20261126-120000"
    assert default_name(None, NOW, ["20261126-120000"]) == "20261126-120000-2"


def names(gone: list[Manifest]) -> set[str]:
    return {each.name for each in gone}


def test_those_that_are_too_many_or_too_old_go() -> None:
    found = [aged("today", 0), aged("week", 7), aged("mine", 40, named=True), aged("month", 30)]
    assert names(expired(found, NOW, 10, None, False)) == set()
    assert names(expired(found, NOW, 1, None, False)) == {"week", "month"}
    assert names(expired(found, NOW, None, 10, False)) == {"month"}
    assert names(expired(found, NOW, None, 10, True)) == {"month", "mine"}
    assert names(expired([aged("only", 400)], NOW, 1, 1, True)) == set()


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.booleans()), min_size=1, max_size=8),
    st.none() | st.integers(1, 5),
    st.none() | st.floats(0.1, 100),
    st.booleans(),
)
def test_the_newest_and_what_was_named_stay(
    ages: list[tuple[float, bool]], keep: int | None, days: float | None, named: bool
) -> None:
    found = [aged(str(n), age, given) for n, (age, given) in enumerate(ages)]
    gone = expired(found, NOW, keep, days, named)
    newest = max(found, key=lambda each: each.created)
    assert newest.name not in names(gone) or newest.created not in {each.created for each in gone}
    assert named or not any(each.named for each in gone)


def test_what_is_not_complete_is_not_listed(tmp_path: Path) -> None:
    store = Store(Paths.of(tmp_path, "data", "log", None), "local")
    folder = store.begin("one")
    (folder / "rs0").mkdir()
    assert store.all() == []
    taken = store.complete(folder, ONE)
    assert [each.name for each in store.all()] == ["one"]
    (taken.folder / MANIFEST).write_text("{")
    assert store.all() == []
    store.begin("two")
    store.clear()
    assert not list(store.folder.glob(".*"))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=6))
def test_a_copy_has_the_same_bytes_and_the_same_holes(parts: list[tuple[bool, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "below", "target")
        with source.open("wb") as file:
            for hole, blocks in parts:
                file.seek(blocks << 16, os.SEEK_CUR) if hole else file.write(os.urandom(blocks << 16))
            file.truncate()
        copying.copy_files([(source, target)])
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_blocks <= source.stat().st_blocks
        assert copying.checksums([source])[source] == copying.checksums([target], settled=True)[target]


def test_without_the_kernels_help_it_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_cloned", lambda *_: False)
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    (tmp_path / "source").write_bytes(os.urandom(100_000))
    copying.copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_full_disk_of_docker_is_named_and_what_was_incoming_is_gone(tmp_path: Path) -> None:
    node = topology.single("x", 27017, "rs0", lambda _: NodeOptions(), lambda _: "127.0.0.1").nodes[0]
    done: list[str] = []

    def run(mounts: Sequence[str], arguments: Sequence[str]) -> str:
        action = arguments[3]
        done.append(f"{action} {mounts[0]}")
        if action in ("in", "out"):
            raise ProvisionError("copying", "cp: error writing: No space left on device", "")
        return ""

    volumes = FoldersInVolumes(
        lambda _: "v", lambda: frozenset({"v"}), lambda _: None, run, "Free some space."
    )
    with pytest.raises(ProvisionError, match="Docker keeps its data on is full") as caught:
        volumes.copy_in(tmp_path, [(node, "rs0")])
    assert caught.value.remedy == "Free some space."
    assert done == ["in v:/v/mongod", "discard v:/v/mongod"]
    with pytest.raises(OSError, match="No space left"):
        volumes.copy_out({"rs0": node}, tmp_path)


class Locking:
    """A node that is locked as soon as nothing stands in its way."""

    def __init__(self, free: threading.Event) -> None:
        self.free = free
        self.locked = 0
        self.unlocked = threading.Event()

    def command(
        self, database: str, command: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        if "fsyncUnlock" in command:
            self.locked -= 1
            self.unlocked.set()
        else:
            assert self.free.wait(timeout)
            self.locked += 1
        return {"ok": 1}

    def close(self) -> None:
        """It has no socket."""


def test_locks_that_wait_for_each_other_are_let_go_and_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a transaction over two shards is prepared on one, and to be committed by the other."""
    monkeypatch.setattr(held_writes, "LOCK_SECONDS", 0.05)
    at_once = threading.Event()
    at_once.set()
    coordinator = Locking(at_once)
    participant = Locking(coordinator.unlocked)
    held_writes.hold({"shard1-1": coordinator, "shard2-1": participant})
    assert (coordinator.locked, participant.locked) == (1, 1)


def test_a_node_that_can_not_be_locked_is_named_and_the_others_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once = threading.Event()
    at_once.set()
    well, broken = Locking(at_once), Locking(at_once)

    def refuses(*_: Any) -> dict[str, Any]:
        raise CommandFailed(1, "InternalError", "no")

    monkeypatch.setattr(broken, "command", refuses)
    with pytest.raises(ProvisionError, match="shard2-1: InternalError: no") as caught:
        held_writes.hold({"shard1-1": well, "shard2-1": broken})
    assert "shard1-1" not in caught.value.cause
    assert well.locked == 0


def test_checksums_of_copies_that_share_blocks_are_read_from_the_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("same", "written-to", "longer")
    pairs = [(tmp_path / "data" / name, tmp_path / "copy" / name) for name in names]
    (tmp_path / "data").mkdir()
    for source, _ in pairs:
        source.write_bytes(source.name.encode() * 1000)
    copying.copy_files(pairs)
    whole = copying.checksums(copy for _, copy in pairs)
    assert copying.checksums_of_originals(pairs) == whole

    original = copying.checksums

    def while_it_is_written_to(files: Iterable[Path]) -> Mapping[Path, str]:
        found = original(files)
        pairs[1][0].write_bytes(b"else")
        return found

    monkeypatch.setattr(copying, "checksums", while_it_is_written_to)
    pairs[2][0].write_bytes(b"longer" * 2000)
    assert set(copying.checksums_of_originals(pairs)) == {pairs[0][1]}
    monkeypatch.setattr(copying, "_READ_AT_ONCE", 100)
    assert copying.checksums_of_originals(pairs) == {}


def test_a_copy_that_shares_blocks_is_read_again_only_where_somebody_wrote_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Paths.of(tmp_path, "data", "log", None), "local")
    folder = store.begin("one")
    (folder / "rs0").mkdir()
    file = folder / "rs0" / "a.wt"
    file.write_bytes(b"abc")
    (checksum,) = copying.checksums([file]).values()
    files = (CopiedFile("rs0/a.wt", 3, checksum, copying.stamp(file)),)
    taken = store.complete(folder, replace(ONE, files=files))
    original = copying.changed
    with monkeypatch.context() as patched:
        patched.setattr(copying, "changed", lambda read: original(read) if not read else pytest.fail("read"))
        store.check(taken, "restoring")
    (taken.folder / "rs0" / "a.wt").write_bytes(b"abd")
    with pytest.raises(ProvisionError, match="is damaged"):
        store.check(taken, "restoring")
    (taken.folder / "rs0" / "a.wt").write_bytes(b"abc")
    store.check(taken, "restoring")
    assert store.find("one") == taken


def test_checksums_of_an_earlier_version_are_compared(tmp_path: Path) -> None:
    store = Store(Paths.of(tmp_path, "data", "log", None), "local")
    folder = store.begin("one")
    (folder / "rs0").mkdir()
    file = folder / "rs0" / "a.wt"
    file.write_bytes(b"abc")
    taken = store.complete(folder, ONE)
    written = taken.folder / "manifest.json"
    value = json.loads(written.read_text())
    earlier = {"path": "rs0/a.wt", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    written.write_text(json.dumps(value | {"schema": 1, "files": [earlier]}))
    found = store.find("one")
    assert found is not None
    store.check(found, "restoring")
    (taken.folder / "rs0" / "a.wt").write_bytes(b"abd")
    with pytest.raises(ProvisionError, match="is damaged"):
        store.check(found, "restoring")
