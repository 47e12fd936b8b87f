"""`eject`: what it writes runs without the tool, on the same data."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pymongo import MongoClient

from tests.support.clones import Clone
from tests.support.polling import until


def environment(folder: Path) -> dict[str, str]:
    """What a shell makes of the `.env`."""
    listed = subprocess.run(
        ["env", "-i", "sh", "-c", f"set -a; . '{folder}/.env'; env"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)


@pytest.mark.parametrize("auth", [False, True])
def test_a_mongod_goes_on_without_the_tool(
    clone: Clone, tmp_path: Path, mongod_binary: Path, auth: bool
) -> None:
    clone.change_settings(lambda settings: settings["deployments"]["local"].update(auth=auth))
    clone.succeeds("start")
    with MongoClient(clone.succeeds("uri", "--user", "root" if auth else "").strip()) as client:
        client["flaskbook"]["user"].insert_one({"_id": "kept"})
    clone.succeeds("stop")
    folder = tmp_path / "plain files"
    clone.succeeds("eject", str(folder), "--json")
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    names = {"mongod.conf", "mongodb-local-mongod.service", "README.md", ".env"} | (
        {"keyfile"} if auth else set()
    )
    assert {each.name for each in folder.iterdir()} == names
    with subprocess.Popen([mongod_binary, "-f", folder / "mongod.conf"], env=clone.env()) as running:
        try:
            with MongoClient(environment(folder)["MONGODB_URI"], serverSelectionTimeoutMS=20_000) as client:
                found = until("the document", lambda: client["flaskbook"]["user"].find_one())
            assert found == {"_id": "kept"}
        finally:
            running.terminate()


def test_a_folder_with_files_stays_as_it_is(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mongod.conf").write_text("mine", encoding="utf-8")
    assert "is not empty" in clone.fails("eject", str(tmp_path / "mine"))
    assert [each.read_text() for each in (tmp_path / "mine").iterdir()] == ["mine"]


def test_the_unit_is_one_that_systemd_accepts(clone: Clone, tmp_path: Path, mongod_binary: Path) -> None:
    clone.succeeds("start")
    clone.succeeds("stop")
    clone.succeeds("eject", str(tmp_path / "plain"))
    unit = (tmp_path / "plain" / "mongodb-local-mongod.service").read_text(encoding="utf-8")
    assert f'ExecStart="{mongod_binary}" "--config" "{tmp_path}/plain/mongod.conf"' in unit
    assert "WantedBy=default.target" in unit
