"""Modules are compiled once, not by each command, and never where a full disk could cut the result off."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.capabilities import NOBODY
from tests.support.clones import Clone
from tests.support.mounts import mounted


@pytest.fixture
def uncompiled(clone: Clone) -> Clone:
    """A clone in which nothing is compiled, in a shell that does not forbid it."""
    for folder in compiled(clone.root):
        shutil.rmtree(folder)
    return clone


def compiled(root: Path) -> list[Path]:
    return sorted((root / "provision").rglob("__pycache__"))


def test_the_second_command_compiles_nothing(uncompiled: Clone) -> None:
    def modules() -> dict[Path, int]:
        return {each: each.stat().st_ino for folder in compiled(uncompiled.root) for each in folder.iterdir()}

    uncompiled.succeeds("status")
    first = modules()
    # The task imports this one, long after Invoke has read its flags.
    assert any(each.match("deployments/__pycache__/status.*.pyc") for each in first), first
    uncompiled.succeeds("status")
    assert modules() == first


def test_a_shell_that_forbids_bytecode_gets_none(uncompiled: Clone) -> None:
    uncompiled.succeeds("status", env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert compiled(uncompiled.root) == []


@pytest.mark.needs("another-user")
def test_root_leaves_none_in_the_folder_of_another_user(uncompiled: Clone) -> None:
    uncompiled.owns_the_tool()
    for path in (uncompiled.root / "provision").rglob("*"):
        os.chown(path, *NOBODY)
    uncompiled.invoke("status")
    assert compiled(uncompiled.root) == []


@pytest.mark.needs("mount")
def test_a_nearly_full_disk_gets_none(uncompiled: Clone, tmp_path: Path) -> None:
    tool, kept = uncompiled.root / "provision", tmp_path / "kept"
    shutil.move(tool, kept)
    with mounted(tool, "size=60m"):
        shutil.copytree(kept, tool, dirs_exist_ok=True)
        uncompiled.succeeds("status")
        assert compiled(uncompiled.root) == []
