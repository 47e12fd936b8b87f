"""The wheel has every file that the tool reads beside its own code."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from provision.settings.paths import Paths
from tests.support.clones import tracked_files

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_every_file_that_paths_promises(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in tracked_files():
        if name.split("/")[0] in ("provision", "flaskbook", "pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                (source / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
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
