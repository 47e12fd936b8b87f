"""Every kind of file below .state/: known to one registry, which clean, --delete-data and doctor go through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.core import locks
from provision.core.errors import ProvisionError
from provision.doctor import clean, leftovers
from provision.settings.loading import Layer, Loaded, load
from provision.state import records
from provision.state.records import Lifetime, Record


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load(tmp_path, [Layer("invoke.yaml", {})])


@pytest.fixture
def a_new_kind() -> Iterator[Record]:
    kind = Record(
        lambda paths, name: paths.deployment(name) / "novelty.json", Lifetime.DATA, private=True, schema=2
    )
    yield kind
    records._EVERY.remove(kind)


def put(file: Path, text: str = "{}", mode: int = 0o600) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.write_text(text)
    file.chmod(mode)
    return file


def test_every_path_that_paths_names_below_state_is_of_a_known_kind(loaded: Loaded) -> None:
    paths = loaded.paths
    named = {
        "secret_key": paths.secret_key,
        "mask_key": paths.mask_key,
        "mongod_record": paths.mongod_record,
        "app_envs": paths.app_envs / "shop-12345678" / "1" / "bin" / "python",
        "app_env": paths.app_env / "bin" / "python",
        "lock": paths.lock("deployment-local"),
    }
    for name, file in named.items():
        assert records.kind_of(paths, file) is not None, name
    for name in (
        "rendered_record", "initiated_record", "flags_record", "extent_record", "launched_record", "run_record",
        "mongod_record_of", "rolling_record", "moving_record", "finishing_log", "key_file", "credentials",
        "app_secret_key", "app_record", "placement", "ca_certificate", "ca_key", "volumes_record",
    ):  # fmt: skip
        file = getattr(paths, name)("cluster")
        kind = records.kind_of(paths, file, "cluster")
        assert kind is not None, name
        assert kind.place(paths, "cluster") == file, name
    assert records.kind_of(paths, paths.node_record("cluster", "shard1-1"), "cluster") is records.NODE
    certificate = paths.host_certificate("cluster", "db1")
    assert records.kind_of(paths, certificate, "cluster") is records.HOST_CERTIFICATE


def test_a_file_that_nobody_knows_is_of_no_kind(loaded: Loaded) -> None:
    assert records.kind_of(loaded.paths, loaded.paths.state / "what") is None
    assert records.kind_of(loaded.paths, loaded.paths.deployment("local") / "what.bin", "local") is None


def test_deleting_data_removes_a_new_kind_of_record_and_leaves_the_keys(
    loaded: Loaded, a_new_kind: Record
) -> None:
    file = put(a_new_kind.place(loaded.paths, "cluster"))
    key = put(loaded.paths.credentials("cluster"))
    node = put(loaded.paths.node_record("cluster", "shard1-1"))
    kept = put(loaded.paths.kept_databases("cluster") / "0123" / "0.bson")
    records.forget(loaded.paths, "cluster")
    assert not file.exists()
    assert not kept.parents[1].exists(), "a kind that is a directory goes with all that is in it"
    assert key.exists()
    assert node.exists()


def test_clean_keeps_a_new_kind_of_record_while_its_data_are_in_docker(
    loaded: Loaded, a_new_kind: Record
) -> None:
    file = put(a_new_kind.place(loaded.paths, "cluster"))
    plan = clean.plan(loaded)
    assert file not in {kept.path for kept in plan.kept}
    put(loaded.paths.initiated_record("cluster"), '{"replica_sets": ["config"]}')
    plan = clean.plan(loaded)
    assert file in {kept.path for kept in plan.kept}
    clean.carry_out(plan)
    assert file.exists()


def test_clean_keeps_what_tells_docker_that_the_volumes_are_ours(loaded: Loaded) -> None:
    claims = put(loaded.paths.volumes_record("cluster"), '{"volumes": ["flaskbook-cluster_shard1-1"]}')
    put(loaded.paths.initiated_record("cluster"), '{"replica_sets": ["config"]}')
    clean.carry_out(clean.plan(loaded))
    assert claims.exists()


def test_clean_keeps_what_says_that_the_app_is_on_its_hosts(loaded: Loaded) -> None:
    file = put(loaded.paths.app_record("prod"), '{"hosts": ["db1"]}')
    secret = put(loaded.paths.app_secret_key("prod"))
    kept = {each.path: each.why for each in clean.plan(loaded).kept}
    assert "invoke hosts.undeploy prod" in kept[file]
    assert secret in kept


def test_doctor_sees_that_others_may_read_a_new_kind_of_secret(loaded: Loaded, a_new_kind: Record) -> None:
    file = put(a_new_kind.place(loaded.paths, "cluster"), mode=0o644)
    (finding,) = leftovers.judge_secrets(
        {file: leftovers.read_secrets(loaded.paths)[file]}, loaded.paths.state
    )
    assert str(file) in finding.what
    assert finding.remedy.startswith("chmod 600")


def test_doctor_looks_at_every_private_file(loaded: Loaded) -> None:
    paths = loaded.paths
    files = [
        put(paths.secret_key), put(paths.shell_history), put(paths.credentials("a")), put(paths.key_file("a")),
        put(paths.ca_key("a")), put(paths.host_certificate("a", "db1")), put(paths.app_secret_key("a")),
    ]  # fmt: skip
    assert set(leftovers.read_secrets(paths)) == {paths.state, *files}


def test_what_is_private_is_written_for_its_user_alone(loaded: Loaded) -> None:
    for kind in records.every(of_deployment=True):
        if kind.schema is not None:
            kind.write(loaded.paths, {"a": 1}, "x")
            for file in kind.files(loaded.paths, "x"):
                assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", [kind for kind in records.every() if kind.private and kind.schema is None])
def test_a_secret_is_for_its_user_alone_also_where_others_could_read_it_before(
    loaded: Loaded, kind: Record
) -> None:
    file = put(loaded.paths.deployment("x") / "secret", mode=0o644)
    kind.put(file, "hush")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("hush", 0o600)


def test_a_lock_that_is_free_is_held_at_once_and_one_that_is_held_names_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with locks.at_once(lock):
        assert locks.is_held(lock)
    refused = pytest.raises(locks.HeldError, match="starting local")
    with locks.exclusive(lock, "starting local"), refused, locks.at_once(lock):
        pass
    assert not locks.is_held(lock)


def test_a_record_without_a_version_is_read_as_the_first(loaded: Loaded, a_new_kind: Record) -> None:
    put(a_new_kind.place(loaded.paths, "x"), '{"a": 1}')
    assert a_new_kind.read(loaded.paths, "x") == {"a": 1}
    put(records.FLAGS.place(loaded.paths, "x"), '{"shards": {"value": 3, "from": "--shards 3"}}')
    assert records.FLAGS.read(loaded.paths, "x") == {"shards": {"value": 3, "from": "--shards 3"}}


def test_a_later_version_is_written_and_read(loaded: Loaded, a_new_kind: Record) -> None:
    a_new_kind.write(loaded.paths, {"a": 1}, "x")
    file = a_new_kind.place(loaded.paths, "x")
    assert json.loads(file.read_text()) == {"a": 1, "schema": 2}
    assert a_new_kind.read(loaded.paths, "x") == {"a": 1}
    written = file.stat().st_mtime_ns
    a_new_kind.write(loaded.paths, {"a": 1}, "x")
    assert file.stat().st_mtime_ns == written
    a_new_kind.write(loaded.paths, None, "x")
    assert not file.exists()


@pytest.mark.parametrize("version", ["2", '"two"', "null"])
def test_a_record_of_a_newer_version_is_refused_with_the_way_out(loaded: Loaded, version: str) -> None:
    file = put(loaded.paths.extent_record("x"), f'{{"schema": {version}}}')
    with pytest.raises(ProvisionError, match="newer version") as refused:
        records.EXTENT.read(loaded.paths, "x")
    assert f"rm {file}" in refused.value.remedy


def test_a_damaged_record_reads_as_none(loaded: Loaded) -> None:
    put(loaded.paths.extent_record("x"), '{"half')
    assert records.EXTENT.read(loaded.paths, "x") is None
