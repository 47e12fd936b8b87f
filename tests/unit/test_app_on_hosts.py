"""What goes to hosts with the app: requirements, wheels' platforms, files, and a release's name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from provision.app import loading
from provision.app.deploy import host_virtualenv, release, rollout
from provision.app.deploy.host_virtualenv import HostPython, Requirements, Wheels
from provision.app.deploy.release import Release
from provision.core.errors import ProvisionError
from provision.hosts import units
from provision.hosts.link import File
from provision.settings.loading import Layer, Loaded, load

ROOT = Path(__file__).parents[2]
PYTHON = HostPython(
    "/usr/bin/python3",
    "3.12.3",
    "cp312",
    19,
    "x86_64",
    True,
    True,
    None,
    {"sys_platform": "linux", "python_version": "3.12"},
)


def loaded(root: Path, hosts: dict[str, Any] | None = None, **settings: Any) -> Loaded:
    known = {"hosts": {"web1": {}}, "deployments": {"prod": {"backend": "hosts", "hosts": ["web1"]}}}
    return load(root, [Layer("invoke.yaml", {**known, "app": settings})], remember=False)


def test_flaskbooks_requirements_are_all_hashed_and_have_gunicorn() -> None:
    found = host_virtualenv.wanted(loaded(ROOT))
    assert found.hashed
    assert {"flask", "gunicorn", "pymongo"} <= {host_virtualenv.name_of(line) for line in found.lines}
    assert "pip" not in {host_virtualenv.name_of(line) for line in found.lines}


def test_requirements_without_hashes_get_gunicorn_without(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("Flask==3.1.0\n")
    found = host_virtualenv.wanted(loaded(tmp_path, requirements="requirements.txt"))
    assert found.lines[0] == "Flask==3.1.0"
    assert found.lines[1].startswith("gunicorn==")
    assert "--hash" not in found.lines[1]


def test_gunicorn_of_the_apps_own_choice_stays(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("Flask\nGunicorn<23\n")
    assert host_virtualenv.wanted(loaded(tmp_path, requirements="requirements.txt")).lines == (
        "Flask",
        "Gunicorn<23",
    )


def test_included_files_become_one(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "# all\n-r more/base.txt\n-c limits.txt\nflask \\\n  >=3 # new\n"
    )
    (tmp_path / "more" / "base.txt").write_text("click\n")
    (tmp_path / "limits.txt").write_text("werkzeug<4\n")
    assert host_virtualenv.read(tmp_path / "requirements.txt") == (["click", "flask >=3"], ["werkzeug<4"])


@pytest.mark.parametrize("line", ["-e .", "./lib", "/opt/wheels/a.whl", "a @ file:///opt/a.whl"])
def test_what_only_this_machine_has_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"flask\n{line}\n")
    with pytest.raises(ProvisionError, match="on this machine alone"):
        host_virtualenv.read(tmp_path / "requirements.txt")


def test_markers_are_judged_for_the_hosts_python() -> None:
    lines = (
        "colorama==0.4.6 ; sys_platform == 'win32' --hash=sha256:a",
        "tomli==2.0 ; python_version < '3.13' --hash=sha256:b --hash=sha256:c",
        "flask==3.1.0 --hash=sha256:d",
    )
    assert host_virtualenv.for_python(Requirements(lines, (), ""), PYTHON) == [
        "tomli==2.0 --hash=sha256:b --hash=sha256:c",
        "flask==3.1.0 --hash=sha256:d",
    ]


def test_wheels_are_those_of_the_hosts_platform() -> None:
    assert PYTHON.platforms[0] == "manylinux_2_19_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_5_x86_64"} < set(PYTHON.platforms)
    musl = dataclasses.replace(PYTHON, glibc=None)
    assert all(each.startswith("musllinux") for each in musl.platforms)


def test_virtualenv_has_another_name_with_other_requirements_or_another_python() -> None:
    flask = Requirements(("flask",), (), "pip")
    names = {
        host_virtualenv.identity(flask, PYTHON),
        host_virtualenv.identity(dataclasses.replace(flask, lines=("flask", "click")), PYTHON),
        host_virtualenv.identity(dataclasses.replace(flask, constraints=("click<9",)), PYTHON),
        host_virtualenv.identity(flask, dataclasses.replace(PYTHON, version="3.12.4")),
    }
    assert len(names) == 4
    assert host_virtualenv.identity(flask, dataclasses.replace(PYTHON, markers={})) in names


def _release(**changes: Any) -> Release:
    made = Release(
        "prod",
        (File("shop.py", b"app = 1", 0o600),),
        "shop:app",
        8000,
        lambda directory: {"CA": f"{directory}/ca.pem"},
        b"certificate",
        b"key",
        "flask",
    )
    return dataclasses.replace(made, **changes)


def test_release_has_another_name_when_anything_of_it_changes() -> None:
    made = [
        _release(),
        _release(code=(File("shop.py", b"app = 2", 0o600),)),
        _release(code=(File("shop.py", b"app = 1", 0o700),)),
        _release(factory="shop:other"),
        _release(port=8001),
        _release(environment=lambda _: {"CA": "none"}),
        _release(authority=None),
        _release(secret_key=b"other"),
        _release(requirements="flask>3"),
    ]
    assert len({each.id for each in made}) == len(made)
    assert _release().id == _release().id


def test_environment_names_files_where_the_host_has_them() -> None:
    files = {each.name: each for each in _release().files("/srv/x/releases/1")}
    assert b"/srv/x/releases/1/ca.pem" in files["serve.json"].content
    assert {each.mode for each in files.values()} == {0o600}
    assert b"127.0.0.1:8000" in files["serve.json"].content


def test_a_call_with_quotes_and_blanks_reaches_the_host_as_it_is_written() -> None:
    call = """shop:create_app('a "b" %c $d', debug=True)"""
    files = {each.name: each.content for each in _release(factory=call).files("/srv/x/releases/1")}
    assert json.loads(files["serve.json"])["factory"] == call
    assert files["loading.py"] == Path(loading.__file__).read_bytes(), "what takes the call apart is there"


def test_a_script_beside_a_package_of_its_name_is_sent_with_it(tmp_path: Path) -> None:
    for name in ("invoke.yaml", "shop.py", "shop/__init__.py", "other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    sent = [each.name for each in release.code(loaded(tmp_path, factory="shop.py:app"))]
    assert sent == ["shop/__init__.py", "shop.py"]
    assert [each.name for each in release.code(loaded(tmp_path, factory="other.py"))] == ["other.py"]


def test_an_app_with_a_server_of_its_own_is_refused_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError) as refused:
        rollout.deploy(loaded(tmp_path, command=["python", "chat.py", "{port}"]), "prod")
    assert "app.command is set (python chat.py 8000)" in refused.value.cause
    assert "Set app.command to null and app.factory to the app" in refused.value.remedy


def test_without_git_caches_and_virtualenvs_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    for name in (
        "shop/a.py",
        "shop/__pycache__/a.pyc",
        "venv/pyvenv.cfg",
        "venv/lib/b.py",
        "b.pyc",
        "static/c.css",
    ):
        (shop / name).parent.mkdir(parents=True, exist_ok=True)
        (shop / name).write_text("x")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = release.code(loaded(tmp_path, path="shop", factory="shop:app"))
    assert [each.name for each in found] == ["shop/a.py", "static/c.css"]


def test_what_git_ignores_or_has_lost_is_left_out(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / ".gitignore").write_text("*.env\n")
    for name in ("a.py", "new.py", "gone.py", "secret.env"):
        (shop / name).write_text("x")
    for command in (["init", "-q"], ["add", "a.py", "gone.py"]):
        subprocess.run(["git", "-C", str(shop), *command], check=True)
    (shop / "gone.py").unlink()
    found = release.code(loaded(tmp_path, path="shop", factory="a:app"))
    assert [each.name for each in found] == [".gitignore", "a.py", "new.py"]


def test_of_this_projects_own_folder_the_factorys_package_is_sent() -> None:
    found = {each.name for each in release.code(loaded(ROOT, factory="flaskbook.application:create_app"))}
    assert "flaskbook/application.py" in found
    assert {name.partition("/")[0] for name in found} == {"flaskbook"}


def test_named_files_are_sent_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "b.py").write_text("x")
    assert [each.name for each in release.code(loaded(tmp_path, files=["a.py"]))] == ["a.py"]
    for missing in ("c.py", "../x"):
        with pytest.raises(ProvisionError, match=r"app\.files"):
            release.code(loaded(tmp_path, files=[missing]))


def test_the_first_traceback_is_what_tells() -> None:
    printed = [
        "[1] [INFO] Starting gunicorn",
        "Traceback (most recent call last):",
        '  File "shop.py", line 1, in <module>',
        "    import nothing",
        "ModuleNotFoundError: No module named 'nothing'",
        "[1] [INFO] Worker exiting",
        "Traceback (most recent call last):",
        "gunicorn.errors.HaltServer: 3",
    ]
    assert rollout.telling(printed) == printed[1:5]
    assert rollout.telling(["not", "ready"]) == ["not", "ready"]


@pytest.mark.parametrize("kind", ["system", "user"])
def test_unit_runs_the_release_and_names_no_secret(kind: str) -> None:
    template = (ROOT / "templates" / "app.service.j2").read_text()
    command = ("/srv/50%/env/bin/python", "/srv/50%/serve.py")
    text = units.render_unit(template, "prod", "app", "/srv/50%", command, (), kind)
    assert 'ExecStart="/srv/50%%/env/bin/python" "/srv/50%%/serve.py"' in text
    assert ("ProtectSystem" in text) == (kind == "system")


def test_the_apps_own_folder_is_looked_in_before_the_projects(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (tmp_path / "requirements.txt").write_text("flaskbook-only\n")
    (shop / "requirements.txt").write_text("Flask\ngunicorn\n")
    named = host_virtualenv.wanted(loaded(tmp_path, path="shop", requirements="requirements.txt"))
    assert named.lines == ("Flask", "gunicorn")
    assert host_virtualenv.wanted(loaded(tmp_path, path="shop")).lines == named.lines
    (shop / "requirements.txt").unlink()
    there = host_virtualenv.wanted(loaded(tmp_path, path="shop", requirements="requirements.txt"))
    assert "flaskbook-only" in there.lines


def test_what_a_project_declares_is_sent_and_what_only_uv_knows_is_refused(tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask>=3", "gunicorn"]\n'
    (tmp_path / "pyproject.toml").write_text(project + '[build-system]\nrequires = ["setuptools"]\n')
    assert host_virtualenv.wanted(loaded(tmp_path)).lines == ("flask>=3", "gunicorn")
    (tmp_path / "pyproject.toml").write_text(project + '[tool.uv.sources]\nx = { path = "x" }\n')
    with pytest.raises(ProvisionError, match="can't be sent to hosts") as caught:
        host_virtualenv.wanted(loaded(tmp_path))
    assert "uv export" in caught.value.remedy
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "setup.py").write_text("")
    with pytest.raises(ProvisionError, match=r"setup\.py can't be sent"):
        host_virtualenv.wanted(loaded(tmp_path))


def test_requirements_in_utf_16_are_read(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes("Flask\r\nGunicorn\r\n".encode("utf-16"))
    assert host_virtualenv.wanted(loaded(tmp_path)).lines == ("Flask", "Gunicorn")


def test_what_cannot_be_collected_is_one_error_for_all_hosts_and_pip_is_then_left_to_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[str, ...]] = []

    def fail(
        _wheels: Path, lines: Sequence[str], _constraints: Sequence[str], options: Sequence[str]
    ) -> None:
        tried.append((*lines, *options))
        raise ProvisionError("collecting", "There is no index.", "")

    monkeypatch.setattr(Wheels, "_download", staticmethod(fail))
    requirements = Requirements(("flask",), (), "pip==26.3")
    with Wheels() as wheels:
        assert wheels.installer(requirements) is None
        assert wheels.installer(requirements) is None
        assert tried == [("pip==26.3", "--no-deps", "--retries", "0", "--timeout", "10")]
        for _ in range(2):
            with pytest.raises(ProvisionError, match="There is no index"):
                wheels.bundle(requirements, PYTHON)
        # Now that it must be had, with as much patience as pip has.
        assert tried[1:] == [("pip==26.3", "--no-deps")]
