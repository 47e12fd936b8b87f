"""`invoke render`: what mongod.conf.j2 gives, and whether the file on disk has drifted."""

from __future__ import annotations

import yaml

from tests.support.clones import Clone


def test_it_shows_the_file_that_setup_writes(clone: Clone) -> None:
    clone.succeeds("setup")
    shown = clone.succeeds("render")
    assert shown == (clone.root / "mongod.conf").read_text()
    assert yaml.safe_load(shown)["net"]["port"] == clone.port


def test_showing_writes_nothing(clone: Clone) -> None:
    clone.succeeds("render")
    assert not (clone.root / "mongod.conf").exists()


def test_check_tells_missing_edited_and_outdated_files_apart(clone: Clone) -> None:
    assert "is missing" in clone.invoke("render", "--check").stdout
    clone.fails("render", "--check")
    clone.succeeds("setup")
    clone.succeeds("render", "--check")

    conf = clone.root / "mongod.conf"
    written = conf.read_text()
    conf.write_text(written + "# by hand\n")
    assert "was edited by hand" in clone.invoke("render", "--check").stdout
    assert conf.read_text() == written + "# by hand\n"
    conf.write_text(written)

    template = clone.root / "mongod.conf.j2"
    template.write_text(template.read_text() + "# a new line\n")
    done = clone.invoke("render", "--check")
    assert (done.returncode, "is older than the template or the settings" in done.stdout) == (1, True)
    clone.succeeds("setup")
    assert conf.read_text().endswith("# a new line\n")
    assert not conf.with_name("mongod.conf.edited").exists()


def test_a_file_edited_by_hand_is_kept_beside_the_new_one(clone: Clone) -> None:
    clone.succeeds("setup")
    conf = clone.root / "mongod.conf"
    edited = conf.read_text().replace("cacheSizeGB: 0.25", "cacheSizeGB: 1.5")
    conf.write_text(edited)
    clone.succeeds("setup")
    assert "cacheSizeGB: 0.25" in conf.read_text()
    assert (clone.root / "mongod.conf.edited").read_text() == edited
    clone.succeeds("render", "--check")


def test_start_renders_what_has_changed(clone: Clone) -> None:
    clone.succeeds("setup")
    clone.succeeds("start", env={"INVOKE_DEPLOYMENTS_LOCAL_OPLOG_SIZE_MB": "128"})
    assert "oplogSizeMB: 128" in (clone.root / "mongod.conf").read_text()


def test_an_undefined_variable_is_named_and_the_file_on_disk_stays(clone: Clone) -> None:
    clone.succeeds("setup")
    conf = clone.root / "mongod.conf"
    before = conf.read_text()
    template = clone.root / "mongod.conf.j2"
    template.write_text(template.read_text() + "# {{ node.nickname }}\n")
    for command in ("render", "setup", "start"):
        said = clone.fails(command)
        assert "mongod.conf.j2" in said
        assert "nickname" in said
    assert conf.read_text() == before
    assert clone.mongods() == []


def test_a_broken_template_is_named_with_its_line(clone: Clone) -> None:
    template = clone.root / "mongod.conf.j2"
    lines = len(template.read_text().splitlines())
    template.write_text(template.read_text() + "{% if %}\n")
    assert f"mongod.conf.j2, line {lines + 1}" in clone.fails("render")


def test_a_template_that_yields_no_yaml_is_named(clone: Clone) -> None:
    (clone.root / "mongod.conf.j2").write_text("net: [\n")
    assert "no valid YAML" in clone.fails("setup")
    assert not (clone.root / "mongod.conf").exists()


def test_an_unknown_node_is_named_with_those_there_are(clone: Clone) -> None:
    said = clone.fails("render", "--node", "mongos")
    assert "'mongos'" in said
    assert "mongod" in said
