"""What the bootstrap decides and reads, without building anything."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.env import bootstrap, installers, python_setting, virtualenv
from provision.env.declared import Declared
from provision.env.virtualenv import EnvironmentSpec, Facts

ROOT = Path(__file__).resolve().parents[2]
LOCKED = [
    ROOT / "requirements.txt",
    *(ROOT / f"requirements-{group}.txt" for group in ("run", "hosts", "test", "dev")),
    ROOT / "provision" / "env" / "uv.txt",
    ROOT / "provision" / "app" / "deploy" / "gunicorn.txt",
]


def spec(tmp_path: Path, **changes: Any) -> EnvironmentSpec:
    values: dict[str, Any] = {
        "path": tmp_path / "env",
        "requirements": (tmp_path / "requirements.txt",),
        "lock": tmp_path / "lock",
    }
    return EnvironmentSpec(**{**values, **changes})


def recorded(tmp_path: Path, version: str | None = "3.11.7", moved: bool = False, **changes: Any) -> Facts:
    record = {"python": {"version": "3.11.7"}, "configured": None, "requirements": {"/r.txt": "a"}}
    return Facts("recorded", {**record, **changes}, moved, version, {"/r.txt": "a"})


# what is stale


def test_a_recorded_virtualenv_made_from_the_same_files_is_kept(tmp_path: Path) -> None:
    plan = virtualenv.decide(spec(tmp_path), recorded(tmp_path))
    assert plan.current
    assert [step.changed for step in plan.steps()] == [False, False]
    assert "3.11.7" in plan.virtualenv_why


def test_a_build_killed_before_its_first_record_had_its_name_is_known_as_ours(tmp_path: Path) -> None:
    wanted = spec(tmp_path)
    for file in wanted.requirements:
        file.touch()
    wanted.path.mkdir()
    assert virtualenv.examine(wanted).kind == "missing"
    (wanted.path / f"{virtualenv.RECORD}.4711").touch()
    assert virtualenv.examine(wanted).kind == "interrupted"
    (wanted.path / "somebody's").touch()
    assert virtualenv.examine(wanted).kind == "foreign"


def test_a_changed_requirements_file_leaves_the_virtualenv_and_names_the_file(tmp_path: Path) -> None:
    plan = virtualenv.decide(spec(tmp_path), recorded(tmp_path, requirements={"/r.txt": "b"}))
    assert (plan.virtualenv, plan.requirements, plan.requirements_why) == ("keep", True, "r.txt changed")


@pytest.mark.parametrize(
    ("facts", "action", "why"),
    [
        (Facts("missing"), "make", "missing"),
        (Facts("foreign"), "refuse", "not a virtualenv"),
        (Facts("interrupted"), "rebuild", "interrupted"),
        (Facts("unrecorded", version=None), "rebuild", "does not run"),
        (Facts("unrecorded", version="3.10.2"), "rebuild", "older than 3.11"),
        (Facts("unrecorded", version="3.12.0"), "keep", "made by hand"),
    ],
)
def test_what_is_at_env_decides_what_becomes_of_it(
    tmp_path: Path, facts: Facts, action: str, why: str
) -> None:
    plan = virtualenv.decide(spec(tmp_path), facts)
    assert plan.virtualenv == action
    assert why in plan.virtualenv_why
    assert not plan.current


def test_a_python_upgraded_in_place_moved_away_or_gone_rebuilds(tmp_path: Path) -> None:
    for facts, why in (
        (recorded(tmp_path, version="3.12.1"), "was 3.11.7 and is 3.12.1"),
        (recorded(tmp_path, version=None), "does not run"),
        (recorded(tmp_path, moved=True), "was made for"),
    ):
        plan = virtualenv.decide(spec(tmp_path), facts)
        assert plan.virtualenv == "rebuild"
        assert why in plan.virtualenv_why


def test_another_configured_python_rebuilds_and_none_stays_with_what_is_there(tmp_path: Path) -> None:
    facts = recorded(tmp_path, configured="3.11")
    assert virtualenv.decide(spec(tmp_path, python="3.12"), facts).virtualenv == "rebuild"
    assert virtualenv.decide(spec(tmp_path, python="3.11"), facts).virtualenv == "keep"
    assert virtualenv.decide(spec(tmp_path, python=None), facts).virtualenv == "keep"


def test_included_requirements_files_count_as_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more/base.txt\n-c constraints.txt\nflask\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text(
        "-r ../requirements.txt\nJinja2[i18n]>=3 ; python_version > '3'\n"
    )
    (tmp_path / "constraints.txt").write_text("werkzeug<4\n")
    found = spec(tmp_path)
    assert {Path(file).name for file in virtualenv.requirement_digests(found)} == {
        "requirements.txt",
        "base.txt",
        "constraints.txt",
    }
    assert {"flask", "jinja2"} <= virtualenv.requirement_names(found)


def test_a_missing_requirements_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(virtualenv.BootstrapError, match=r"requirements\.txt: No such file") as caught:
        virtualenv.requirement_digests(spec(tmp_path))
    assert "git checkout" in caught.value.remedy


# which arguments, which process


QUESTIONS = """--list|-l|-lF json|--list=db|--help|-h|--version|-V|--help run|run --help|run -h|-r /somewhere --list|
-c tasks -l|--complete -- invoke ru|--print-completion-script bash|"""


@pytest.mark.parametrize("arguments", QUESTIONS.split("|"))
def test_questions_build_nothing(arguments: str) -> None:
    assert bootstrap.asks_only(arguments.split())


@pytest.mark.parametrize(
    "arguments", ["run", "setup --dry-run", "run -l", "-r x run", "run -h x", "test -- --help"]
)
def test_tasks_are_no_questions(arguments: str) -> None:
    assert not bootstrap.asks_only(arguments.split())


def test_a_dry_run_is_known_by_its_flags_and_not_by_what_follows_two_dashes() -> None:
    assert bootstrap.is_dry_run(["setup", "--dry-run"])
    for flags in ("-R", "--dry", "-eR", "-Re", "-eRw", "-Rf other.yaml"):
        assert bootstrap.is_dry_run([*flags.split(), "setup"]), flags
    assert not bootstrap.is_dry_run(["test", "--", "--dry-run"])
    assert not bootstrap.is_dry_run(["-fR", "-f", "-R", "--on=R", "run", "-cR", "R"])  # values


def test_the_report_is_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step = '[{"name": "virtualenv", "changed": true, "why": "env/ is missing", "seconds": 0.5}]'
    monkeypatch.setenv("PROVISION_BOOTSTRAP", step)
    assert bootstrap.take_report() == [virtualenv.StepRecord("virtualenv", True, "env/ is missing", 0.5)]
    assert bootstrap.take_report() == []
    assert "PROVISION_BOOTSTRAP" not in os.environ


def test_the_wrapper_can_be_read_by_old_pythons_and_the_modules_by_python_3_7() -> None:
    ast.parse((ROOT / "provision" / "env" / "wrapper.py").read_text(), feature_version=(3, 4))
    for module in (bootstrap, python_setting, installers, virtualenv):
        ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 7))


def test_a_python_too_old_is_told_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_bytes((ROOT / "provision" / "env" / "wrapper.py").read_bytes())
    act = "import sys, runpy; sys.version_info = (3, 6, 15); sys.argv = ['./invoke', 'run']"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{act}; runpy.run_path({str(tmp_path / 'launch.py')!r}, run_name='__main__')",
        ],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "3.6.15" in done.stderr
    assert "install Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr


# env.python

DOCUMENTS = [
    "",
    "# only a comment\n",
    "env:\n  python: python3.12\n",
    "env:\n    python:   python3.12   # why\n",
    "env:\n  python: '3.12'\n",
    'env:\n  python: "3.12" # quoted\n',
    "env:\n  python: 3.12\n",
    "env:\n  python: ~/bin/python#3\n",
    "env:\n  python: 'it''s/python'\n",
    'env:\n  python: "/a\\tb\\u00e9\\\\c"\n',
    "env:\n  python:\n",
    "env:\n  python: # nothing\n",
    "env:\n  python: ''\n",
    "env:\n",
    "env: {}\n",
    "env: {python: python3.12}\n",
    "env: {python: '3.12', other: [1, {a: b}]} # why\n",
    "env: {other: x, python: /usr/bin/python3}\n",
    "env: {\n  other: x, # why\n  python: a,\n}\n",
    "env: {python: }\n",
    "env: {python}\n",
    "{env: {python: python3.12}, app: {}}\n",
    "{\n  app: 1,\n  env: {python: x}}\n",
    "---\nenv:\n  python: x\n",
    "%YAML 1.1\n---\nenv:\n  python: x\n",
    "'env':\n  \"python\": x\n",
    "env :\n  python : x\n",
    "app:\n  env:\n    python: no\nenv:\n  deep:\n    python: no\n  python: yes it is\n",
    "app:\n  text: |\n    env:\n      python: no\n  path: .\n",
    "environment:\n  python: no\n",
    "env:\n\n  # why\n  other: x\n\n  python: x\n\napp: y\n",
    "env:\n  python: a\nenv:\n  python: b\n",
    "env:\n  python: a\n  python: b\n",
    "env:\n  pythons: x\n",
    "env:\r\n  python: x\r\n",
    "env:\n  python: C:\\python:3\n",
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_env_python_is_read_as_a_yaml_library_reads_it(text: str) -> None:
    # BaseLoader keeps every scalar as its text, as the reader does: 3.10 is not the number 3.1.
    document = yaml.load(text, Loader=yaml.BaseLoader) or {}
    section = document.get("env")
    expected = section.get("python") if isinstance(section, dict) else None
    found = isinstance(section, dict) and "python" in section
    assert python_setting.find_env_python(text) == (found, expected or None)


@pytest.mark.parametrize(
    "text", ["env:\n  python: null\n", "env: {python: ~}\n", "env:\n  python: ~ # any\n"]
)
def test_null_means_any_python(text: str) -> None:
    assert yaml.safe_load(text)["env"]["python"] is None
    assert python_setting.find_env_python(text) == (True, None)


@pytest.mark.parametrize("value", ["*alias", "&anchor x", "!!str x", "|\n    x", "x\n    y", "'open", "[a]"])
def test_a_form_the_reader_does_not_know_is_an_error_and_not_a_guess(tmp_path: Path, value: str) -> None:
    (tmp_path / "invoke.yaml").write_text(f"env:\n  python: {value}\n")
    with pytest.raises(virtualenv.BootstrapError, match=r"invoke\.yaml"):
        python_setting.read_env_python(tmp_path, {"HOME": str(tmp_path)})


def test_env_python_follows_the_order_of_the_settings_files(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    root.mkdir()
    environment = {"HOME": str(home)}
    (root / "invoke.yaml").write_text("env: {python: project}\n")
    assert python_setting.read_env_python(root, environment)[0] == "project"
    (home / ".invoke.json").write_text('{"env": {"python": "user"}}')
    assert python_setting.read_env_python(root, environment) == ("user", str(home / ".invoke.json"))
    (home / ".config" / "flaskbook").mkdir(parents=True)
    (home / ".config" / "flaskbook" / "invoke.yaml").write_text("env: {python: config}\n")
    assert python_setting.read_env_python(root, environment)[0] == "config"
    (root / "invoke.local.yaml").write_text("env: {python: local}\n")
    assert python_setting.read_env_python(root, environment) == ("local", str(root / "invoke.local.yaml"))
    environment["INVOKE_ENV_PYTHON"] = "variable"
    assert python_setting.read_env_python(root, environment) == ("variable", "INVOKE_ENV_PYTHON")


# uv's and pip's environment


def home_with_pip_conf(tmp_path: Path, text: str) -> dict[str, str]:
    conf = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(text)
    home = str(tmp_path / "home")
    return {
        "HOME": home,
        "XDG_CONFIG_HOME": f"{home}/.config",
        "XDG_CONFIG_DIRS": home,
        "PATH": os.environ["PATH"],
    }


def test_pips_settings_are_those_that_pip_lists(tmp_path: Path) -> None:
    text = "[global]\nindex-url = http://127.0.0.1/a\nextra-index-url =\n  http://127.0.0.1/b\n  http://127.0.0.1/c\n"
    text += (
        "timeout = 7\n[install]\nindex-url = http://127.0.0.1/d\n[download]\nindex-url = http://127.0.0.1/e\n"
    )
    environment = {**home_with_pip_conf(tmp_path, text), "PIP_TIMEOUT": "9"}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"(?m)^{section}\.([a-z-]+)='(.*)'$", listed):
            expected[name] = ast.literal_eval(f"'{value}'")
    assert installers.pip_settings(environment) == expected
    assert expected["index-url"].endswith("/d")


def test_uv_is_given_pips_index_in_variables(tmp_path: Path) -> None:
    conf = "[global]\nindex-url = https://me:secret@127.0.0.1/simple\nextra-index-url = http://127.0.0.1/b\n"
    variables = installers.uv_variables(
        home_with_pip_conf(tmp_path, f"{conf}cert = /ca.pem\nfind-links = /not-there\n")
    )
    assert variables["UV_DEFAULT_INDEX"] == "https://me:secret@127.0.0.1/simple"
    assert variables["UV_INDEX"] == "http://127.0.0.1/b"
    assert variables["SSL_CERT_FILE"] == "/ca.pem"
    assert "UV_FIND_LINKS" not in variables  # uv fails on a directory that is not there, pip does not


@pytest.mark.parametrize("own", ["variable", "file"])
def test_uvs_own_index_goes_before_pips(tmp_path: Path, own: str) -> None:
    environment = home_with_pip_conf(tmp_path, "[global]\nindex-url = http://127.0.0.1/pip\n")
    if own == "variable":
        environment["UV_INDEX_URL"] = "http://127.0.0.1/uv"
    else:
        (tmp_path / "home" / ".config" / "uv").mkdir()
        (tmp_path / "home" / ".config" / "uv" / "uv.toml").write_text('index-url = "http://127.0.0.1/uv"\n')
    assert "UV_DEFAULT_INDEX" not in installers.uv_variables(environment)


def test_what_would_lead_uv_or_pip_elsewhere_is_left_out(tmp_path: Path) -> None:
    astray = {
        "VIRTUAL_ENV": "/v",
        "UV_PROJECT": "/p",
        "UV_PYTHON": "3.8",
        "UV_NO_VERIFY_HASHES": "1",
        "PYTHONPATH": "/x",
    }
    astray |= {"UV_EXCLUDE_NEWER": "2001-01-01", "PIP_USER": "1", "PIP_TARGET": "/t", "UV_CONSTRAINT": "/c"}
    environment = {**home_with_pip_conf(tmp_path, ""), **astray, "UV_CACHE_DIR": "/cache"}
    uv = installers.uv_variables(environment)
    assert uv["UV_CACHE_DIR"] == "/cache"
    assert not {name for name in astray if name.startswith(("UV_", "VIRTUAL", "PYTHON"))} & set(uv)
    assert not set(astray) - {name for name in astray if name.startswith("UV_")} & set(
        installers.pip_variables(environment)
    )


def test_passwords_in_urls_are_not_shown() -> None:
    error = virtualenv.BootstrapError(
        "fetching", "https://me:secret@host/simple and http://token@host/x", "look"
    )
    assert "secret" not in str(error)
    assert "token" not in str(error)
    assert "https://***@host/simple" in str(error)


# the pins


@pytest.mark.parametrize("file", LOCKED, ids=lambda file: str(file.name))
def test_every_requirement_is_pinned_and_hashed_and_names_no_host(file: Path) -> None:
    text = file.read_text()
    entries = re.findall(r"(?m)^[a-z0-9].*(?:\n +--hash.*)*", text)
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[^\s]+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "uv pip compile" in text


def test_what_both_files_pin_they_pin_alike() -> None:
    pins = [dict(re.findall(r"(?m)^([a-z0-9._-]+)==(\S+)", file.read_text())) for file in LOCKED[:2]]
    assert {name: pins[1][name] for name in pins[0].keys() & pins[1].keys()} == {
        name: pins[0][name] for name in pins[0].keys() & pins[1].keys()
    }
    assert "jinja2" in pins[0].keys() & pins[1].keys()


# apps


def test_what_an_app_declares_makes_a_new_virtualenv_when_it_changes(tmp_path: Path) -> None:
    needed = Declared("requirements.txt", tmp_path, (Path("/r.txt"),), ())
    plan = virtualenv.decide(
        spec(tmp_path, declared=needed), recorded(tmp_path, requirements={"/r.txt": "b"})
    )
    assert (plan.virtualenv, plan.virtualenv_why, plan.requirements) == ("rebuild", "r.txt changed", True)


def test_a_failed_install_is_no_interrupted_build(tmp_path: Path) -> None:
    wanted = spec(tmp_path, requirements=())
    wanted.path.mkdir()
    (wanted.path / virtualenv.RECORD).write_text('{"schema": 1, "state": "failed"}')
    plan = virtualenv.decide(wanted, virtualenv.examine(wanted))
    assert (plan.virtualenv, plan.virtualenv_why) == ("rebuild", "the last install failed")


@pytest.mark.parametrize(
    ("said", "remedy", "tried"),
    [
        ("error: Git operation failed\n  fatal: Could not resolve host: git.x", "git ls-remote", ["uv"]),
        ("Because the current Python version (3.11) does not\n   satisfy Python>=3.99", "app.python", ["uv"]),
        ("Failed to build `shop`\n  error: no compiler", "its build|compiler", ["uv"]),
        ("No solution found when resolving", "correct the requirement", ["uv", "pip"]),
        ("error: Request failed after 3 retries", "package index", ["uv", "uv", "pip"]),
        ("Failed to build `shop`\n  Failed to fetch: https://pypi.org", "package index", ["uv", "uv", "pip"]),
        ("No space left on device", "df -h", ["uv"]),
        ("Hash mismatch for x", "PIP_INDEX_URL", ["uv", "uv", "pip"]),
        ("Invalid requirement: 'x @ git+file:///x'", "requirements.txt", ["uv", "pip"]),
        ("something new", "named above", ["uv", "uv", "pip"]),
    ],
)
def test_a_failure_has_the_remedy_of_its_reason_and_goes_to_those_who_may_do_better(
    tmp_path: Path, said: str, remedy: str, tried: list[str]
) -> None:
    runner = installers.Runner(spec(tmp_path, python_setting="app.python"), 1)
    tools = [
        installers.Uv(runner, "uv", "uv"),
        installers.Uv(runner, "uv", "uv", offline=True),
        installers.Pip(runner, last_resort=True),
    ]
    asked = []

    def act(tool: installers.Uv | installers.Pip) -> None:
        asked.append(tool.name.split()[0])
        raise installers._ToolError(said)

    with pytest.raises(virtualenv.BootstrapError, match=re.escape(said.split("\n")[0])) as caught:
        installers.first_that_works(list(tools), act, "installing")
    assert asked == tried
    assert re.search(remedy, caught.value.remedy), caught.value.remedy


def test_pips_no_index_holds_for_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(
        installers.Runner, "run", lambda _, command, *__, **___: given.append(list(command)) or ""
    )
    for name, value in home_with_pip_conf(tmp_path, "[global]\nno-index = true\n").items():
        monkeypatch.setenv(name, value)
    tool = installers.Uv(installers.Runner(spec(tmp_path), 1), "uv", "uv")
    tool.add("flask")
    tool.install(["old"])
    assert ["--no-index" in command for command in given] == [True, False, True]


def test_a_damaged_pip_of_a_python_is_named_and_not_taken_for_one(tmp_path: Path) -> None:
    wheel = tmp_path / "pip-23.0.1-py3-none-any.whl"
    wheel.write_bytes(b"PK")
    with pytest.raises(installers._ToolError, match=re.escape(f"unpacking {wheel}")):
        installers._unpack(str(wheel), tmp_path)
    assert not (tmp_path / "pip").exists()


def test_pip_is_unpacked_last_of_its_wheel_so_that_one_that_was_interrupted_is_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, place = tmp_path / "pip-23.0.1-py3-none-any.whl", tmp_path / "site-packages"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", "")
        archive.writestr("pip-23.0.1.dist-info/RECORD", "")
    moved = Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        if self.name == "pip":
            raise KeyboardInterrupt
        return moved(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            installers._unpack(str(wheel), place)
    assert not (place / "pip").exists()
    installers._unpack(str(wheel), place)
    assert sorted(each.name for each in place.iterdir()) == ["pip", "pip-23.0.1.dist-info"]
    assert (place / "pip" / "__main__.py").is_file()
