"""The wheel has every file that the tool reads beside its own code."""

from __future__ import annotations

import zipfile
from pathlib import Path

from provision.settings.paths import Paths
from tests.support.installed import build_wheel

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_every_file_that_paths_promises(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {
            "provision",
            "flaskbook_provision",
        }
        held = {name for name in wheel.namelist() if name.startswith("provision/")}
    # A project without templates of its own gets the packaged copy of each.
    paths = Paths.of(tmp_path / "project", "data", "log", "cache")
    promised = [
        value
        for name in dir(Paths)
        if isinstance(getattr(Paths, name), property)
        and isinstance(value := getattr(paths, name), Path)
        and value.is_relative_to(ROOT / "provision")
    ]
    assert len(promised) == 5
    needed = {str(path.relative_to(ROOT)) for path in promised} | {
        str(path.relative_to(ROOT))
        for path in (ROOT / "provision").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert needed - held == set()
