"""What a first start in a new worktree begins with, where nobody is asked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.cli import worktrees
from provision.cli.session import Session
from provision.data import first_data
from provision.settings.loading import Layer, load
from provision.settings.paths import Paths
from provision.state import records
from provision.state.checkout import elsewhere
from provision.state.remembered import Extent


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose project is in a folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = tmp_path / "shop" / "web"
    root.mkdir(parents=True)
    (root / "invoke.yaml").write_text("app: {database: shop}\n", encoding="utf-8")
    git(root.parent, "init", "--initial-branch", "main")
    git(root.parent, "add", "--all")
    git(root.parent, "commit", "--message", "settings")
    return root


@pytest.fixture
def new(shop: Path) -> Path:
    """The project in a linked worktree."""
    return linked(shop, "new")


def linked(shop: Path, name: str) -> Path:
    top = shop.parent.parent / name
    git(shop, "worktree", "add", "-b", f"branch/{name}", str(top))
    return top / "web"


def has_data(root: Path, changed: int = 1, **settings: Any) -> None:
    """Have it on record that a project's deployment `local` has data."""
    paths = Paths.of(root, "data", "log", None)
    extent = Extent.of(load(root, [], {}, remember=False).deployment("local"))
    Extent.record(paths, "local", replace(extent, **settings))
    os.utime(paths.extent_record("local"), (changed, changed))


def origin(root: Path, local: Mapping[str, Any] | None = None) -> Path | None:
    settings = {"deployments": {"local": dict(local or {})}}
    found = first_data.origin(load(root, [Layer("a test", settings)], {}, remember=False), "local")
    return found.root if found else None


def test_the_same_folder_of_the_other_worktrees_is_found_from_each_of_them(shop: Path, new: Path) -> None:
    other, gone = linked(shop, "other"), linked(shop, "gone")
    assert elsewhere(new)[0] == shop
    assert {*elsewhere(new)} == {shop, other, gone}
    assert {*elsewhere(shop)} == {new, other, gone}
    (gone / "invoke.yaml").unlink()
    gone.rmdir()
    assert {*elsewhere(other)} == {shop, new}
    record = next((shop.parent / ".git" / "worktrees").glob("other*")) / "gitdir"
    record.write_text("../../../../other/.git\n", encoding="utf-8")  # as worktree.useRelativePaths has it
    assert {*elsewhere(new)} == {shop, other}
    assert elsewhere(shop.parent.parent) == []


def test_the_main_worktree_comes_before_the_one_that_was_changed_last(shop: Path, new: Path) -> None:
    older, newer = linked(shop, "older"), linked(shop, "newer")
    assert origin(new) is None
    has_data(newer, changed=2)
    has_data(older, changed=1)
    assert origin(new) == newer
    has_data(shop, changed=0)
    assert origin(new) == shop


def test_only_the_first_start_in_a_linked_worktree_has_a_choice(shop: Path, new: Path) -> None:
    has_data(shop)
    paths = Paths.of(new, "data", "log", None)
    first_data.decide(paths, "local", None)
    assert origin(new) is None
    records.WORKTREE.write(paths, None, "local")
    assert origin(new) == shop
    has_data(new)
    assert origin(new) is None
    assert origin(shop) is None


@pytest.mark.parametrize(
    ("theirs", "fits"),
    [
        ({"backend": "docker", "port": 1, "auth": True}, True),
        ({"backend": "hosts"}, False),
        ({"topology": "replica-set", "members": 3}, False),
        ({"replica_set": "another"}, False),
    ],
)
def test_the_other_one_has_the_same_shape_and_its_data_here(
    shop: Path, new: Path, theirs: dict[str, Any], fits: bool
) -> None:
    has_data(shop, **theirs)
    assert (origin(new) == shop) is fits


def test_a_deployment_on_hosts_begins_empty(shop: Path, new: Path) -> None:
    has_data(shop)
    hosts = {"db1": {"address": "192.0.2.11", "user": "mongo"}}
    layer = Layer(
        "a test", {"hosts": hosts, "deployments": {"local": {"backend": "hosts", "hosts": ["db1"]}}}
    )
    assert first_data.origin(load(new, [layer], {}, remember=False), "local") is None


@pytest.mark.parametrize(("quiet", "terminal"), [(True, True), (False, False)])
def test_where_nobody_can_answer_one_line_says_what_to_type(
    shop: Path, new: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool, terminal: bool
) -> None:
    has_data(shop)
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: terminal)
    found = worktrees.beginning(Session(new, quiet=quiet), "local")
    assert found.source is None
    assert found.hint == (
        f"local begins empty. To copy the data of {shop} (main): invoke clone --from {shop} --on local"
    )
    assert origin(new) == shop  # it is not decided: nobody was asked


def test_the_setting_empty_neither_asks_nor_tells(
    shop: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_data(shop)
    monkeypatch.setenv("INVOKE_WORKTREE_DATA", "empty")
    assert worktrees.beginning(Session(new), "local") == worktrees.Beginning()
