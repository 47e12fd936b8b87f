"""The hooks as pre-commit installs and runs them in somebody's repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clones import ROOT
from tests.support.installed import offline

pytestmark = pytest.mark.needs("index")


def test_pre_commit_installs_the_hooks_and_they_find_what_is_wrong(tmp_path: Path) -> None:
    repository = tmp_path / "shop"
    repository.mkdir()
    (repository / "config.py").write_text('URI = "mongodb://me:secret@db.example/"\n')
    (repository / "invoke.yaml").write_text("deployments:\n  local:\n    prot: 27018\n")
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "try-repo", ROOT, "--all-files", "--color=never"],
        cwd=repository,
        env=os.environ | offline() | {"PRE_COMMIT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "config.py:1: mongodb://***@ has a password." in said
    assert "did you mean port?" in said
    assert "secret" not in said
