"""The hooks of pre-commit for other repositories."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from provision.cli import hooks
from provision.core.errors import ProvisionError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("MONGO_URI=mongodb://me:hunter2@db.example.org/shop", True),
        ('uri = "mongodb+srv://me:hunter2@cluster0.example.net/?w=1"', True),
        ("mongodb://me:<password>@db.example.org", False),
        ("mongodb://me:${PASSWORD}@db.example.org", False),
        ("mongodb://me:{{ password }}@db.example.org", False),
        ("mongodb://me:****@db.example.org", False),
        ("mongodb://db.example.org:27017/shop", False),
        ("postgres://me:hunter2@db.example.org", False),
        ("mongodb://me:hunter2@db  # provision: allow-password", False),
    ],
)
def test_a_password_in_a_connection_string_is_named_and_not_shown(
    tmp_path: Path, line: str, found: bool
) -> None:
    file = tmp_path / "settings.py"
    file.write_text(f"first\n{line}\n", encoding="utf-8")
    said = list(hooks.passwords(file))
    assert bool(said) == found
    assert all(each.startswith(f"{file}:2: mongodb") and "hunter2" not in each for each in said)


def test_a_file_that_is_gone_has_no_password(tmp_path: Path) -> None:
    assert list(hooks.passwords(tmp_path / "gone")) == []


def test_wrong_settings_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("app: {prot: 1}\n", encoding="utf-8")
    with pytest.raises(ProvisionError, match="did you mean port"):
        hooks.settings(tmp_path)
    (tmp_path / "invoke.yaml").write_text("app: {port: 1}\n", encoding="utf-8")
    assert hooks.settings(tmp_path) == []


def test_rendered_files_are_compared_where_the_project_has_templates(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n", encoding="utf-8")
    (tmp_path / "mongod.conf").write_text("net: {}\n", encoding="utf-8")
    (tmp_path / "invoke.yaml").write_text("app: {port: 1}\n", encoding="utf-8")
    assert hooks.rendered(tmp_path) == [], "these are the project's own"
    shutil.copy2(ROOT / "mongod.conf.j2", tmp_path)
    assert [each.partition(":")[0] for each in hooks.rendered(tmp_path)] == ["mongod.conf", "compose.yaml"]


def test_every_hook_is_offered(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    for each in offered:
        monkeypatch.setattr("sys.argv", each["entry"].split())
        monkeypatch.chdir(ROOT)
        assert hooks.main() in (0, 1)
        assert "There is no hook" not in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["provision-hook", "other"])
    assert hooks.main() == 1
    assert "Name one of settings, rendered, seeds, passwords" in capsys.readouterr().err


def test_the_first_wrong_line_of_each_seed_is_named(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("app: {port: 1}\n", encoding="utf-8")
    assert list(hooks.seeds(tmp_path)) == []
    (tmp_path / "seeds").mkdir()
    for name, text in {
        "1-users.ndjson": '{"a": 1}\n{"a"}\n{"b"}\n',
        "2-more.json": "[]",
        "3-more.py": "def seed(database):\n    return (\n",
    }.items():
        (tmp_path / "seeds" / name).write_text(text, encoding="utf-8")
    said = list(hooks.seeds(tmp_path))
    assert [each.rpartition(": ")[0] for each in said] == ["seeds/1-users.ndjson:2", "seeds/3-more.py:2"]
