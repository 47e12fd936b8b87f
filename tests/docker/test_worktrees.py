"""Every worktree its own, in Docker: two folders of the same name with a deployment of the same name, at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from provision.deployments import assembly
from provision.deployments.deployment import Deployment
from provision.deployments.environments import environments
from provision.doctor import gone
from provision.settings.layers import Layer
from provision.settings.loading import load
from provision.state import slots
from tests.support.clusters import PREFIX, docker, free_ports, remove_project
from tests.support.shares import OTHERS, take_share

_NAME = "same"


@dataclass
class _Worktree:
    """A folder with a deployment in Docker."""

    root: Path
    image: str
    name: str = _NAME
    port: int | str = "auto"

    @property
    def deployment(self) -> Deployment:
        """As a new command sees it."""
        here = {"topology": "single", "backend": "docker", "port": self.port}
        values = {
            "mongodb": {"image": self.image},
            "app": {"database": "flaskbook"},
            "deployments": {self.name: here},
        }
        loaded = load(self.root, [Layer("a test", values)], grants=slots.grant)
        return assembly.deployment(loaded, self.name)

    @property
    def project(self) -> str:
        name: str = self.deployment.backend.compose_project  # type: ignore[attr-defined]
        return name

    def visit(self) -> int:
        """Leave a document; returns how many there are."""
        with MongoClient[dict[str, Any]](self.deployment.uri(user="app")) as client:
            client.flaskbook.visits.insert_one({})
            return client.flaskbook.visits.count_documents({})

    def left(self) -> dict[str, list[str]]:
        """What Docker has of it, by kind."""
        mine = f"label=com.docker.compose.project={self.project}"
        return {
            kind: docker(kind, "ls", *options, "--quiet", "--filter", mine).split()
            for kind, options in (("container", ("--all",)), ("volume", ()), ("network", ()))
        }


@pytest.fixture
def worktrees(
    tmp_path: Path, mongo_image: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[_Worktree, _Worktree]]:
    """Two folders; all that Docker has of them is removed at the end."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    take_share(tmp_path / "state")
    roots = [tmp_path / parent / f"flaskbook-{PREFIX}{os.getpid()}" for parent in ("one", "two")]
    for root in roots:
        root.mkdir(parents=True)
    one, two = (_Worktree(root, mongo_image) for root in roots)
    projects = [one.project, two.project]
    yield one, two
    for project in projects:
        remove_project(project)


def test_two_folders_at_once_and_one_that_is_deleted_leaves_the_other_alone(
    worktrees: tuple[_Worktree, _Worktree],
) -> None:
    one, two = worktrees
    with ThreadPoolExecutor(max_workers=2) as pool:
        ups = list(pool.map(lambda each: each.deployment.up(), worktrees))
    assert len({up.uri for up in ups}) == 2
    assert (one.project, two.project) == tuple(
        f"{each.root.name}-{slots.read()[each.root].slot}-{_NAME}" for each in worktrees
    )
    assert (one.visit(), two.visit(), two.visit()) == (1, 1, 2)
    listed = {each.folder: each.deployments[0] for each in environments() if each.deployments}
    assert {folder: (each.state, each.uri) for folder, each in listed.items()} == {
        str(each.root): ("running", up.uri) for each, up in zip(worktrees, ups, strict=True)
    }

    two.deployment.down(remove=True)
    two.deployment.up()
    assert two.visit() == 3  # its volume is found again

    before, project = two.left(), one.project
    shutil.rmtree(one.root)
    plan = gone.plan()
    found = [(each.kind, each.name) for each in plan.items]
    assert found == [
        ("container", f"{project}-mongod-1"),
        ("network", f"{project}_default"),
        ("volume", f"{project}_mongod"),
        ("entry", str(one.root)),
    ]
    assert plan.kept == ()
    gone.carry_out(plan)
    assert docker("container", "ls", "--all", "--filter", f"name={project}", "--quiet") == ""
    assert docker("volume", "ls", "--filter", f"name={project}", "--quiet") == ""
    assert set(slots.read()) == {two.root, OTHERS}
    assert two.left() == before
    assert two.visit() == 4

    two.deployment.down(delete_data=True)
    assert two.left() == {"container": [], "volume": [], "network": []}
    assert slots.read()[two.root].deployments == {}


def test_of_a_folder_without_a_slot_goes_what_its_containers_prove_and_nothing_else(
    tmp_path: Path, mongo_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    take_share(tmp_path / "state")
    names = [f"{PREFIX}{os.getpid()}-{kind}" for kind in ("up", "down")]
    up, down = (_Worktree(tmp_path / name, mongo_image, name, free_ports(1)) for name in names)
    try:
        for each in (up, down):
            each.root.mkdir()
            each.deployment.up()
            assert each.project == f"flaskbook-{each.name}"
        down.deployment.down(remove=True)
        volume = f"{down.project}_mongod"
        projects = up.project, down.project
        for each in (up, down):
            shutil.rmtree(each.root)
        plan = gone.plan()
        assert {(each.kind, each.name) for each in plan.items} == {
            ("container", f"{projects[0]}-mongod-1"),
            ("network", f"{projects[0]}_default"),
            ("volume", f"{projects[0]}_mongod"),
            ("entry", str(up.root)),
            ("entry", str(down.root)),
        }
        assert [each.path for each in plan.kept] == [down.root]
        assert f"docker volume rm {volume}" in plan.kept[0].why
        gone.carry_out(plan)
        assert docker("volume", "ls", "--quiet", "--filter", f"name={PREFIX}{os.getpid()}").split() == [
            volume
        ]
        assert set(slots.read()) == {OTHERS}
    finally:
        for name in names:
            remove_project(f"flaskbook-{name}")
