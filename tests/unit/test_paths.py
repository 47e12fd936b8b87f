"""Every path the tool reads or writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.settings.paths import Paths


def test_relative_directories_are_the_roots_and_absolute_ones_are_kept(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "/var/log/x", "cache/../c")
    assert (paths.data, paths.log, paths.cache) == (tmp_path / "data", Path("/var/log/x"), tmp_path / "c")


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Paths.of(tmp_path, "~/data", "log", "c").data == tmp_path / "home" / "data"


def test_the_cache_is_shared_by_all_clones(tmp_path: Path) -> None:
    first, second = (Paths.of(tmp_path / name, "data", "log", None) for name in ("a", "b"))
    assert first.cache == second.cache
    assert not first.cache.is_relative_to(tmp_path)


def test_only_the_local_mongods_configuration_is_at_the_root(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", "c")
    assert paths.node_conf("local", "mongod").is_relative_to(paths.state), (
        "anybody's project may have one of its own"
    )
    (tmp_path / "mongod.conf.j2").touch()
    assert paths.node_conf("local", "mongod") == tmp_path / "mongod.conf"
    assert paths.node_conf("cluster", "shard1-1").is_relative_to(paths.state)


def test_nodes_of_different_deployments_share_nothing(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", "c")
    for place in (paths.node_data, paths.node_log, paths.node_output, paths.node_record, paths.node_conf):
        assert len({place(deployment, node) for deployment in ("a", "b") for node in ("m", "n")}) == 4


def test_the_projects_template_wins_over_the_packaged_one(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", "c")
    assert paths.mongod_template != tmp_path / "mongod.conf.j2"
    (tmp_path / "mongod.conf.j2").write_text("net: {}\n")
    assert paths.mongod_template == tmp_path / "mongod.conf.j2"
