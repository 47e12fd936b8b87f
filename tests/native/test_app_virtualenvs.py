"""Virtualenvs of apps: what their folders declare is really installed, from packages on this disk."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision.env import bootstrap, declared, generations, installers
from provision.env.generations import Generation
from provision.env.virtualenv import BootstrapError, EnvironmentSpec
from tests.native.test_apps import put
from tests.support import processes, wheels
from tests.support.clones import ROOT, Clone, Running

PROJECT = '[project]\nname = "shop"\nversion = "1.0"\ndependencies = ["colours"]\n'
_ENVIRONMENT = dict(os.environ)
"""As it was before a test took the index away."""
MODULE = "import importlib.metadata as m; print(m.version('shop'))"


@dataclass
class Apps:
    """Apps' folders, with packages to install and a place for their virtualenvs."""

    root: Path
    hashes: dict[str, str] = field(default_factory=dict)

    def app(self, files: dict[str, str | bytes], name: str = "shop") -> Path:
        for file, content in files.items():
            path = self.root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.root / name

    def spec(self, app: Path, python: str | None = None, groups: Sequence[str] = ()) -> EnvironmentSpec:
        needed = declared.find(app, groups)
        assert needed is not None
        home = self.root / "envs" / f"{app.name}{python or ''}".replace("/", "-")
        return bootstrap.app_environment(home, needed, home.with_suffix(".lock"), python)

    def ensure(self, app: Path, *, rebuild: bool = False, groups: Sequence[str] = ()) -> Generation:
        return generations.ensure(self.spec(app, groups=groups), rebuild=rebuild)

    def fails(self, app: Path) -> BootstrapError:
        with pytest.raises(BootstrapError) as caught:
            self.ensure(app)
        return caught.value


def put_packages(folder: Path) -> dict[str, str]:
    return {
        f"{name}-{version}": wheels.make(folder, name, version, requires)
        for name, version, requires in (
            ("colours", "1.0", ["shades"]),
            ("colours", "2.0", ["shades"]),
            ("shades", "1.0", []),
            ("papers", "1.0", []),
        )
    }


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Packages on the disk, and no index: hashes of the packages by name and version."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "uv.toml").touch()
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    return put_packages(tmp_path / "packages")


@pytest.fixture(params=["uv", "pip"])
def apps(
    request: pytest.FixtureRequest, tmp_path: Path, offline: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Apps:
    """With uv, and with pip alone."""
    if request.param == "pip":
        monkeypatch.setattr(installers, "_find_uv", lambda: None)
        monkeypatch.setattr(installers, "_install_uv", lambda *_: None)
    else:
        the_uv()
    return Apps(tmp_path, offline)


@pytest.fixture
def with_uv(tmp_path: Path, offline: dict[str, str]) -> Apps:
    the_uv()
    return Apps(tmp_path, offline)


@pytest.fixture
def with_pip(tmp_path: Path, offline: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Apps:
    monkeypatch.setattr(installers, "_find_uv", lambda: None)
    monkeypatch.setattr(installers, "_install_uv", lambda *_: None)
    return Apps(tmp_path, offline)


def the_uv() -> str:
    """The uv that the tool uses; fetched before the test takes the index away."""
    code = (
        "import sys; from pathlib import Path; from provision.env import installers, virtualenv\n"
        "nowhere = virtualenv.EnvironmentSpec(Path('/'), (), Path('/'))\n"
        "runner, python = installers.Runner(nowhere, 1), virtualenv.probe(sys.executable)\n"
        "print(installers.available(runner, python)[0].program)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=_ENVIRONMENT, check=True
    )
    return done.stdout.strip()


def packages(generation: Generation) -> dict[str, str]:
    """What is installed, without what belongs to the virtualenv itself."""
    found = answer(
        generation,
        "import importlib.metadata as m, json\n"
        "print(json.dumps({each.metadata['Name']: each.version for each in m.distributions()}))",
    )
    return {name: version for name, version in json.loads(found).items() if name not in ("pip", "setuptools")}


def answer(generation: Generation, code: str) -> str:
    done = subprocess.run(
        [generation.interpreter, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()


# every format


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "colours\n"},
        {"requirements.txt": "colours\r\n-r more.txt\r\n".encode("utf-16"), "more.txt": b"shades\r\n"},
        {"requirements/dev.txt": "-r base.txt\n", "requirements/base.txt": "colours\n"},
        {"Pipfile": '[packages]\ncolours = "*"\n'},
        {"pyproject.toml": '[tool.poetry]\nname = "shop"\n[tool.poetry.dependencies]\ncolours = "^2.0"\n'},
        {"pyproject.toml": PROJECT + "[tool.uv]\npackage = false\n"},
    ],
    ids=[
        "requirements",
        "UTF-16",
        "requirements folder",
        "Pipfile",
        "Poetry's table",
        "PEP 621 without a package",
    ],
)
def test_what_a_folder_declares_is_installed_with_what_it_needs(
    apps: Apps, files: dict[str, str | bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    generation = apps.ensure(apps.app(files))
    assert not re.search(r"\d+ packages", capfd.readouterr().err), "no number is said that nobody has counted"
    assert packages(generation) == {"colours": "2.0", "shades": "1.0"}
    assert not list(generation.path.glob(".requirements-*"))


@pytest.mark.parametrize(
    "project",
    [PROJECT, '[project]\nname = "shop"\nversion = "1.0"\n'],
    ids=["with dependencies", "without"],
)
def test_a_project_is_installed_itself(apps: Apps, project: str) -> None:
    app = apps.app(
        {
            "pyproject.toml": project + wheels.BUILD_SYSTEM,
            "backend.py": wheels.BACKEND,
            "src/shop/__init__.py": "",
        }
    )
    generation = apps.ensure(app)
    assert answer(generation, MODULE) == "1.0"
    assert Path(answer(generation, "import shop; print(shop.__file__)")).is_relative_to(app)
    assert ("colours" in packages(generation)) == ("colours" in project)


def test_a_lock_of_poetry_is_installed_as_it_is_pinned_and_the_project_with_it(apps: Apps) -> None:
    lock = "".join(
        f'[[package]]\nname = "{name}"\nversion = "1.0"\ngroups = ["{group}"]\n'
        f'files = [{{file = "x", hash = "{apps.hashes[f"{name}-1.0"]}"}}]\n'
        for name, group in (("colours", "main"), ("shades", "main"), ("papers", "dev"))
    )
    project = '[tool.poetry]\nname = "shop"\n[tool.poetry.dependencies]\npython = "^3.8"\ncolours = "^1"\n'
    app = apps.app(
        {
            "poetry.lock": lock,
            "pyproject.toml": project + wheels.BUILD_SYSTEM,
            "backend.py": wheels.BACKEND,
            "shop/__init__.py": "",
        }
    )
    assert packages(apps.ensure(app)) == {"colours": "1.0", "shades": "1.0", "shop": "1.0"}
    (app / "poetry.lock").write_text(lock.replace(apps.hashes["colours-1.0"], f"sha256:{'0' * 64}"))
    assert "hash" in apps.fails(app).cause.lower()


def test_a_lock_of_pipenv_is_installed_as_it_is_pinned(apps: Apps) -> None:
    default = {
        name: {
            "version": "==1.0",
            "hashes": [apps.hashes[f"{name}-1.0"]],
            "markers": "python_version >= '3.6'",
        }
        for name in ("colours", "shades")
    }
    lock = {"default": default, "develop": {"papers": {"version": "==1.0"}}}
    app = apps.app({"Pipfile.lock": json.dumps(lock), "Pipfile": ""})
    assert packages(apps.ensure(app)) == {"colours": "1.0", "shades": "1.0"}


def locked(apps: Apps) -> Path:
    project = (
        PROJECT + 'requires-python = ">=3.8"\n[dependency-groups]\ndev = ["papers"]\n' + wheels.BUILD_SYSTEM
    )
    app = apps.app({"pyproject.toml": project, "backend.py": wheels.BACKEND, "src/shop/__init__.py": ""})
    links = ["--no-index", "--find-links", os.environ["PIP_FIND_LINKS"]]
    subprocess.run([the_uv(), "lock", "--quiet", "--python", sys.executable, *links], cwd=app, check=True)
    return app


def test_a_lock_of_uv_is_installed_without_its_groups(with_uv: Apps) -> None:
    generation = with_uv.ensure(locked(with_uv))
    assert packages(generation) == {"colours": "2.0", "shades": "1.0", "shop": "1.0"}
    assert answer(generation, "import sys; print(sys.prefix)") == str(generation.path)


def test_a_member_of_a_workspace_is_installed_from_the_lock_of_its_root(with_uv: Apps) -> None:
    built = 'requires-python = ">=3.8"\n' + wheels.BUILD_SYSTEM
    root = with_uv.app(
        {
            "pyproject.toml": PROJECT.replace("shop", "root").replace('"colours"', '"papers"')
            + 'requires-python = ">=3.8"\n[tool.uv.workspace]\nmembers = ["packages/*"]\n',
            "packages/web/pyproject.toml": PROJECT + built,
            "packages/web/backend.py": wheels.BACKEND,
            "packages/web/src/shop/__init__.py": "",
        }
    )
    links = ["--no-index", "--find-links", os.environ["PIP_FIND_LINKS"]]
    subprocess.run([the_uv(), "lock", "--quiet", "--python", sys.executable, *links], cwd=root, check=True)
    assert packages(with_uv.ensure(root / "packages" / "web")) == {
        "colours": "2.0",
        "shades": "1.0",
        "shop": "1.0",
    }


def test_a_group_that_is_asked_for_is_installed_and_leaves_when_it_is_not_any_more(with_uv: Apps) -> None:
    app = locked(with_uv)
    assert "papers" in packages(with_uv.ensure(app, groups=["dev"]))
    assert "papers" not in packages(with_uv.ensure(app))


def test_a_lock_of_uv_is_installed_from_any_index_that_has_the_same_files(with_uv: Apps) -> None:
    pins = "".join(
        f'[[package]]\nname = "{name}"\nversion = "1.0"\nsource = {{ registry = "https://pypi.org/simple" }}\n'
        f'wheels = [{{ url = "https://files.pythonhosted.org/x/{name}-1.0-py3-none-any.whl", '
        f'hash = "{with_uv.hashes[f"{name}-1.0"]}", size = 1 }}]\n{needs}\n'
        for name, needs in (("colours", 'dependencies = [{ name = "shades" }]'), ("shades", ""))
    )
    own = '[[package]]\nname = "shop"\nversion = "1.0"\nsource = { editable = "." }\ndependencies = [{ name = "colours" }]\n'
    lock = f'version = 1\nrequires-python = ">=3.8"\n{pins}{own}'
    project = PROJECT + 'requires-python = ">=3.8"\n' + wheels.BUILD_SYSTEM
    app = with_uv.app(
        {"uv.lock": lock, "pyproject.toml": project, "backend.py": wheels.BACKEND, "src/shop/__init__.py": ""}
    )
    assert packages(with_uv.ensure(app)) == {"colours": "1.0", "shades": "1.0", "shop": "1.0"}
    (app / "uv.lock").write_text(lock.replace(with_uv.hashes["colours-1.0"], f"sha256:{'0' * 64}"))
    assert "hash" in with_uv.fails(app).cause.lower()


def test_a_format_that_needs_uv_is_named_where_there_is_none(with_pip: Apps) -> None:
    app = with_pip.app({"pyproject.toml": PROJECT, "uv.lock": "version = 1\n"})
    error = with_pip.fails(app)
    assert "uv.lock needs uv" in error.cause
    assert "uv" in error.remedy
    assert generations.current(with_pip.spec(app).path) is None


# what the Python and the packages expect


def test_setuptools_is_there_where_venv_has_it(apps: Apps) -> None:
    apps.hashes["old"] = wheels.make(
        apps.root / "packages", "old", modules={"old.py": "import pkg_resources\nfound = True\n"}
    )
    generation = apps.ensure(apps.app({"requirements.txt": "old\n"}))
    assert answer(generation, "import old; print(old.found)") == "True"


def test_setuptools_comes_after_python_3_11_where_a_package_imports_pkg_resources(
    with_uv: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.make(
        with_uv.root / "packages",
        "setuptools",
        "80.0",
        modules={"setuptools/__init__.py": "", "pkg_resources/__init__.py": "new = True\n"},
    )
    wheels.make(with_uv.root / "packages", "setuptools", "82.0", modules={"setuptools/__init__.py": ""})
    wheels.make(with_uv.root / "packages", "old", modules={"old.py": "import os\nimport pkg_resources\n"})
    monkeypatch.setattr(
        installers, "probe", lambda program: installers.Interpreter(program, "3.12.1", "/", True, None)
    )
    old = with_uv.ensure(with_uv.app({"requirements.txt": "old\n"}))
    assert answer(old, "import old, pkg_resources; print(pkg_resources.new)") == "True"
    other = with_uv.ensure(with_uv.app({"requirements.txt": "papers\n"}, "other"))
    assert not list(other.path.glob("lib/python3*/site-packages/setuptools"))


# what fails, and why


def test_a_python_that_the_project_does_not_allow_is_the_reason(apps: Apps) -> None:
    project = '[project]\nname = "shop"\nversion = "1.0"\nrequires-python = ">=3.99"\n' + wheels.BUILD_SYSTEM
    error = apps.fails(apps.app({"pyproject.toml": project, "backend.py": wheels.BACKEND}))
    assert "3.99" in error.cause
    assert "app.python" in error.remedy
    assert "index" not in error.remedy


def test_a_build_that_fails_is_the_reason(apps: Apps) -> None:
    app = apps.app(
        {"pyproject.toml": PROJECT + wheels.BUILD_SYSTEM, "backend.py": wheels.BACKEND, "broken": ""}
    )
    error = apps.fails(app)
    assert "cannot find libshop.h" in error.cause
    assert "build" in error.remedy
    assert "index" not in error.remedy


def test_a_repository_that_is_not_there_is_the_reason(apps: Apps) -> None:
    error = apps.fails(apps.app({"requirements.txt": "shades @ git+http://127.0.0.1:9/gone.git\n"}))
    assert "gone.git" in error.cause
    assert "repository" in error.remedy
    assert "index" not in error.remedy


def test_a_version_that_does_not_exist_is_the_reason(apps: Apps) -> None:
    error = apps.fails(apps.app({"requirements.txt": "colours>=3\n"}))
    assert "colours" in error.cause
    assert "requirements.txt" in error.remedy


def test_after_a_failed_install_no_build_was_interrupted(apps: Apps) -> None:
    app = apps.app({"requirements.txt": "nothing-of-this-name\n"})
    apps.fails(app)
    plan = generations.inspect(apps.spec(app))
    assert (plan.virtualenv, "interrupted" in plan.virtualenv_why) == ("make", False)
    (app / "requirements.txt").write_text("papers\n")
    assert packages(apps.ensure(app)) == {"papers": "1.0"}


# one for each, never changed


def test_a_current_one_is_kept_and_a_change_makes_another(with_uv: Apps) -> None:
    app = with_uv.app({"requirements.txt": "papers\n"})
    first = with_uv.ensure(app)
    first.release()
    again = with_uv.ensure(app)
    assert [step.changed for step in again.steps] == [False, False]
    assert again.path == first.path
    again.release()
    (app / "requirements.txt").write_text("shades\n")
    changed = with_uv.ensure(app)
    assert changed.steps[0].why == "requirements.txt changed"
    assert packages(changed) == {"shades": "1.0"}, "nothing of the earlier one is left in it"
    assert not first.path.exists()
    rebuilt = with_uv.ensure(app, rebuild=True)
    assert rebuilt.path != changed.path
    assert "--rebuild" in rebuilt.steps[0].why


def test_a_dependency_added_behind_an_editable_requirement_is_noticed(with_uv: Apps) -> None:
    app = with_uv.app(
        {
            "requirements.txt": "-e ./lib\n",
            "lib/pyproject.toml": PROJECT + wheels.BUILD_SYSTEM,
            "lib/backend.py": wheels.BACKEND,
        }
    )
    assert packages(with_uv.ensure(app)) == {"colours": "2.0", "shades": "1.0", "shop": "1.0"}
    more = PROJECT.replace('"colours"', '"colours", "papers"')
    with_uv.app({"lib/pyproject.toml": more + wheels.BUILD_SYSTEM})
    assert "papers" in packages(with_uv.ensure(app))


def test_one_in_use_stays_until_nobody_runs_from_it(with_uv: Apps) -> None:
    app = with_uv.app({"requirements.txt": "papers\n"})
    first = with_uv.ensure(app)
    (app / "requirements.txt").write_text("shades\n")
    second = with_uv.ensure(app)
    assert packages(first) == {"papers": "1.0"}
    # The command that held it was killed, and its app lives on.
    orphan = subprocess.Popen([first.interpreter, "-c", "import time; time.sleep(300)"])
    try:
        first.release()
        with_uv.ensure(app).release()
        assert packages(first) == {"papers": "1.0"}
    finally:
        orphan.kill()
        orphan.wait()
    with_uv.ensure(app).release()
    assert not first.path.exists()
    assert packages(second) == {"shades": "1.0"}


def test_a_failure_leaves_the_one_that_apps_run_from(with_uv: Apps) -> None:
    app = with_uv.app({"requirements.txt": "papers\n"})
    first = with_uv.ensure(app)
    (app / "requirements.txt").write_text("nothing-of-this-name\n")
    with_uv.fails(app)
    assert packages(first) == {"papers": "1.0"}
    assert generations.current(first.path.parent) == first.path
    assert sorted(each.name for each in first.path.parent.iterdir()) == ["1", "current"]


def test_a_build_that_was_killed_leaves_nothing_behind(with_uv: Apps) -> None:
    app = with_uv.app({"requirements.txt": "papers\n"})
    home = with_uv.spec(app).path
    half = home / "7"
    half.mkdir(parents=True)
    (half / ".provision.json").write_text('{"schema": 1, "state": "building"}')
    (half / "lib").mkdir()
    generation = with_uv.ensure(app)
    assert sorted(each.name for each in home.iterdir()) == ["8", "current"]
    assert packages(generation) == {"papers": "1.0"}


def test_two_at_once_make_one(with_uv: Apps) -> None:
    from concurrent.futures import ThreadPoolExecutor

    app = with_uv.app({"requirements.txt": "papers\n"})
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(with_uv.ensure, [app, app])
    assert first.path == second.path
    assert sorted(step.changed for step in (*first.steps, *second.steps)) == [False, False, True, True]


# on a terminal


def test_on_a_terminal_the_tool_draws_and_its_reason_is_known(with_uv: Apps) -> None:
    app = with_uv.app({"requirements.txt": "shades @ git+http://127.0.0.1:9/gone.git\n"})
    code = (
        "import sys; from pathlib import Path; from provision.env import bootstrap, declared, generations\n"
        f"app, home = Path({str(app)!r}), Path({str(with_uv.root / 'home')!r})\n"
        "spec = bootstrap.app_environment(home, declared.find(app), home.with_suffix('.lock'))\n"
        "try: generations.ensure(spec)\n"
        "except bootstrap.BootstrapError as error: print(error.remedy); print(error.cause, file=sys.stderr)\n"
    )
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=inner, stdout=subprocess.PIPE, stderr=inner, cwd=ROOT
    )
    os.close(inner)
    shown = b""
    with contextlib.suppress(OSError):  # Linux: the other end is closed
        while piece := os.read(outer, 65536):
            shown += piece
    os.close(outer)
    assert process.stdout is not None
    remedy = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait() == 0
    assert "repository" in remedy, remedy
    assert b"\x1b[" in shown, "uv drew on a terminal"
    assert shown.count(b"Git operation failed") == 2, "uv said it, and so did we"


# as a person has them


def run_app(clone: Clone, env: dict[str, str | None]) -> tuple[Running, dict[str, str]]:
    running = clone.begin("run", env=env)
    running.says(" at http://127.0.0.1:")
    port = int(env.get("INVOKE_APP_PORT") or clone.app_port)
    status, body = clone.get("/", port)
    assert status == 200, running.text
    return running, json.loads(body)


def site(versions: str, name: str) -> dict[str, str]:
    return {
        "requirements.txt": versions,
        f"{name}.py": """\
import importlib.metadata, sys

from flask import Flask

app = Flask(__name__)


@app.get("/")
def home():
    return {"prefix": sys.prefix, "itsdangerous": importlib.metadata.version("itsdangerous")}
""",
    }


def stop(running: Running) -> None:
    running.signal_group(signal.SIGINT)
    assert running.ends() == 130


@pytest.mark.needs("index")
def test_two_apps_at_once_from_one_project_have_a_virtualenv_each(clone: Clone, tmp_path: Path) -> None:
    places = {}
    for name, version in (("garden", "2.1.2"), ("kitchen", "2.2.0")):
        files = site(f"flask\nitsdangerous=={version}\n", name)
        places[name] = put(tmp_path / name, files)
    env: dict[str, dict[str, str | None]] = {
        name: {
            "INVOKE_APP_PATH": str(place),
            "INVOKE_APP_FACTORY": name,
            "INVOKE_APP_REQUIREMENTS": "requirements.txt",
            "INVOKE_APP_PORT": str(processes.free_port()),
        }
        for name, place in places.items()
    }
    garden, first = run_app(clone, env["garden"])
    assert str(places["garden"] / "requirements.txt") in garden.text, "and not the clone's own of that name"
    kitchen, second = run_app(clone, env["kitchen"])
    assert (first["itsdangerous"], second["itsdangerous"]) == ("2.1.2", "2.2.0")
    assert first["prefix"] != second["prefix"]
    # While both run, the first one's requirements change: what runs stays as it is.
    put(places["garden"], {"requirements.txt": "flask\nitsdangerous==2.2.0\n"})
    done = clone.invoke("setup", env=env["garden"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "requirements.txt changed" in done.stdout
    assert Path(first["prefix"]).is_dir()
    assert json.loads(clone.get("/", int(env["garden"]["INVOKE_APP_PORT"] or 0))[1]) == first
    stop(garden)
    stop(kitchen)
    garden, third = run_app(clone, env["garden"])
    assert third["itsdangerous"] == "2.2.0"
    assert not Path(first["prefix"]).exists()
    stop(garden)


@pytest.mark.needs("index")
def test_setup_makes_the_virtualenv_and_rebuild_makes_it_again(clone: Clone, tmp_path: Path) -> None:
    place = put(
        tmp_path / "their app",
        {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["iniconfig"]\n'},
    )
    env: dict[str, str | None] = {"INVOKE_APP_PATH": str(place), "INVOKE_APP_FACTORY": "x"}
    old = clone.root / ".state" / "app-env"
    (old / "lib").mkdir(parents=True)

    def step(*arguments: str) -> tuple[bool, str]:
        done = clone.invoke("setup", "--json", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        (found,) = [each for each in json.loads(done.stdout) if each["name"] == "app virtualenv"]
        return found["changed"], found["why"]

    assert step("--dry-run")[0]
    assert step()[0]
    assert not step()[0]
    changed, why = step("--rebuild")
    assert changed
    assert "--rebuild" in why
    assert not step()[0]
    assert "app virtualenv" in clone.invoke("doctor", env=env).stdout
    (home,) = (clone.root / ".state" / "app-envs").iterdir()
    assert home.name.startswith("their-app-")
    # Without the cache that all clones share: `clean` removes downloads.
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    assert clone.invoke("clean", "--yes", env=env).returncode == 0
    assert not home.exists()
    assert not old.exists()
