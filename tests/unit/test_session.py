"""One command's session: which project it works on, and what it reads or builds once."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.cli.session import Session
from provision.core.errors import ProvisionError
from provision.settings.layers import RUNTIME_VARIABLE
from provision.settings.paths import project_root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "invoke.yaml").write_text("app:\n  port: 5123\n")
    (tmp_path / "shop" / "views").mkdir(parents=True)
    return tmp_path


def test_the_project_is_the_nearest_folder_upward_with_settings(project: Path) -> None:
    assert project_root(project / "shop" / "views") == project
    (project / "shop" / "invoke.yml").write_text("")
    assert project_root(project / "shop" / "views") == project / "shop"


def test_a_folder_without_settings_is_its_own_project(tmp_path: Path) -> None:
    assert project_root(tmp_path) == tmp_path


def test_records_of_a_project_are_its_own_and_the_tool_stays_untouched(project: Path) -> None:
    session = Session(project / "shop")
    assert session.loaded.settings.app.port == 5123
    paths = session.loaded.paths
    assert {paths.state, paths.env, paths.settings_file} == {
        project / ".state",
        project / "env",
        project / "invoke.yaml",
    }


@pytest.mark.parametrize("name", ["mongod.conf.j2", "compose.yaml.j2", "mongod.service.j2", "app.service.j2"])
def test_the_tools_template_is_used_until_the_project_has_its_own(project: Path, name: str) -> None:
    paths = Session(project).loaded.paths

    def template() -> Path:
        return {
            "mongod.conf.j2": paths.mongod_template,
            "compose.yaml.j2": paths.compose_template,
            "mongod.service.j2": paths.unit_template,
            "app.service.j2": paths.app_unit_template,
        }[name]

    assert project not in template().parents
    assert template().is_file()
    own = project / name if name == "mongod.conf.j2" else project / "templates" / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("ours")
    assert template() == own


def test_settings_are_read_and_deployments_built_once(project: Path) -> None:
    session = Session(project)
    first = session.deployment("local")
    assert session.deployment("local") is first
    with pytest.raises(RuntimeError):
        session.load()
    session.changed("local")
    assert session.deployment("local") is not first


def test_a_flag_makes_no_deployment_out_of_a_mistyped_name(project: Path) -> None:
    with pytest.raises(ProvisionError, match="did you mean cluster"):
        Session(project).load({"deployments.clutser.shards": ("--shards", 3)})


def test_what_a_command_starts_reads_the_settings_file_that_was_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, "")
    monkeypatch.chdir(project)
    (project / "other.yaml").write_text("app:\n  port: 5999\n")
    assert Session(project, "other.yaml").loaded.settings.app.port == 5999
    assert Session(project).loaded.settings.app.port == 5999


def test_a_session_that_is_quiet_says_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Session(project, quiet=True).say("on the way")
    Session(project).say("on the way")
    assert capsys.readouterr().err == "on the way\n"
