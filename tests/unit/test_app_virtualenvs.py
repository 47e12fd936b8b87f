"""Whether an app has a virtualenv of its own, what that is made from, and what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.deployments import app_environment
from provision.env import bootstrap, generations
from provision.settings.layers import Layer
from provision.settings.loading import Loaded, load

ROOT = bootstrap.ROOT


def loaded(root: Path, **settings: Any) -> Loaded:
    return load(root, [Layer("invoke.yaml", {"app": settings})], remember=False)


def put(place: Path, *names: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_text("flask\n")
    return place


def test_flaskbook_in_its_clone_runs_in_env() -> None:
    assert app_environment.wanted(loaded(ROOT)) is None
    assert app_environment.spec(loaded(ROOT)) is None
    assert app_environment.inspect(loaded(ROOT)) is None


def test_an_app_that_declares_nothing_runs_in_env(tmp_path: Path) -> None:
    put(tmp_path / "shop", "app.py")
    put(tmp_path, "requirements.txt")
    assert app_environment.wanted(loaded(tmp_path, path="shop")) is None


def test_what_its_folder_declares_is_taken_without_a_setting(tmp_path: Path) -> None:
    place = put(tmp_path / "shop", "requirements.txt")
    found = app_environment.wanted(loaded(ROOT, path=str(place)))
    assert found is not None
    assert found.place == str(place / "requirements.txt")


def test_a_named_file_is_the_apps_before_the_projects(tmp_path: Path) -> None:
    put(tmp_path, "needs.txt")
    place = put(tmp_path / "shop", "needs.txt")
    settings = loaded(tmp_path, path="shop", requirements="needs.txt")
    found = app_environment.wanted(settings)
    assert found is not None
    assert (found.place, found.folder) == (str(place / "needs.txt"), place)
    (place / "needs.txt").unlink()
    found = app_environment.wanted(settings)
    assert found is not None
    assert (found.place, found.folder) == (str(tmp_path / "needs.txt"), tmp_path)
    (tmp_path / "needs.txt").unlink()
    with pytest.raises(ProvisionError, match=r"needs\.txt, which is neither in") as caught:
        app_environment.wanted(settings)
    assert str(place) in caught.value.cause


def test_each_app_and_python_has_a_name_of_its_own(tmp_path: Path) -> None:
    shop, other = tmp_path / "My shop", tmp_path / "other" / "My shop"
    names = {
        app_environment.key(folder, python)
        for folder in (shop, other)
        for python in (None, "3.8", "/opt/python")
    }
    assert len(names) == 6
    assert all(name.startswith("My-shop-") for name in names)
    assert any(name.startswith("My-shop-py3.8-") for name in names)
    assert app_environment.key(tmp_path / "x" / ".." / "My shop", None) in names


def test_a_virtualenv_made_from_a_file_that_changed_is_made_again(tmp_path: Path) -> None:
    spec = app_environment.spec(loaded(tmp_path, path=str(put(tmp_path / "shop", "requirements.txt"))))
    assert spec is not None
    plan = generations.inspect(spec)
    assert (plan.virtualenv, plan.virtualenv_why) == ("make", "the app's virtualenv is missing")
