"""Which settings files there are, in which order, and what an error says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.core.errors import ProvisionError
from provision.env.installers import cache_directory
from provision.settings.layers import Layer, read_layers
from provision.settings.loading import Loaded, load


class Machine:
    """A project and a home, with settings files."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "project", folder / "home"
        self.root.mkdir()
        self.home.mkdir()
        self.environ = {"HOME": str(self.home)}

    def write(self, name: str, text: str | bytes) -> Path:
        """A file; `~/` begins one in the home."""
        path = self.home / name[2:] if name.startswith("~/") else self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, runtime: str | None = None, flags: Any = None, **environ: str) -> Loaded:
        environ = {**self.environ, **environ}
        return load(self.root, read_layers(self.root, environ, runtime), environ, flags, remember=False)

    def refused(self, runtime: str | None = None, **environ: str) -> ProvisionError:
        with pytest.raises(ProvisionError) as error:
            self.load(runtime, **environ)
        return error.value


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_nearer_to_the_person_and_the_moment_the_later_a_layer_wins(machine: Machine) -> None:
    own = machine.write("other.yaml", "app: {port: 5}")
    ways: list[tuple[str, Any]] = [
        ("invoke.yaml, line 1", lambda: machine.write("invoke.yaml", "app: {port: 1}")),
        ("~/.invoke.yaml, line 1", lambda: machine.write("~/.invoke.yaml", "app: {port: 2}")),
        (
            "~/.config/flaskbook/invoke.yaml, line 2",
            lambda: machine.write("~/.config/flaskbook/invoke.yaml", "app:\n  port: 3"),
        ),
        ("invoke.local.yaml, line 1", lambda: machine.write("invoke.local.yaml", "app: {port: 4}")),
        ("other.yaml, line 1", lambda: machine.environ.update(INVOKE_RUNTIME_CONFIG=str(own))),
        ("environment INVOKE_APP_PORT", lambda: machine.environ.update(INVOKE_APP_PORT="6")),
    ]
    for port, (origin, add) in enumerate(ways, 1):
        add()
        value = next(each for each in machine.load().values() if each.key == "app.port")
        named = value.origin if value.line is None else f"{value.origin}, line {value.line}"
        assert (value.value, named) == (port, origin)
    assert machine.load(flags={"app.port": ("--port", 7)}).settings.app.port == 7


def test_an_own_file_changes_what_the_projects_file_says(machine: Machine) -> None:
    machine.write("invoke.yaml", "app: {port: 8000, host: 127.0.0.1}\nmongodb: {image: mongo:8.0}\n")
    machine.write("~/.invoke.yaml", "app: {port: 8001}\n")
    app = machine.load().settings.app
    assert (app.port, app.host) == (8001, "127.0.0.1")


@pytest.mark.parametrize("suffix", [".yml", ".json"])
@pytest.mark.parametrize("stem", ["invoke", "~/.invoke", "~/.config/flaskbook/invoke", "invoke.local"])
def test_every_place_takes_every_suffix(machine: Machine, stem: str, suffix: str) -> None:
    machine.write(stem + suffix, '{"app": {"port": 8001}}')
    assert machine.load().settings.app.port == 8001


def test_a_file_in_python_is_run_and_its_lines_are_known(machine: Machine) -> None:
    machine.write("~/.invoke.py", "import os\n\napp = {\n    'prot': 1,\n}\n")
    assert "~/.invoke.py, line 4: app.prot" in machine.refused().cause


def test_the_users_configuration_directory_is_where_xdg_says(machine: Machine) -> None:
    machine.write("~/elsewhere/flaskbook/invoke.yaml", "app: {port: 8001}")
    machine.write("~/.config/flaskbook/invoke.yaml", "app: {port: 8002}")
    assert machine.load(XDG_CONFIG_HOME=str(machine.home / "elsewhere")).settings.app.port == 8001
    assert machine.load(XDG_CONFIG_HOME="elsewhere").settings.app.port == 8002


def test_a_relative_xdg_cache_home_is_ignored(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environ = {"HOME": str(home), "XDG_CACHE_HOME": "caches"}
    assert cache_directory(environ) == cache_directory({"HOME": str(home)})
    absolute = {"HOME": str(home), "XDG_CACHE_HOME": "/caches"}
    assert cache_directory(absolute) == Path("/caches/flaskbook")


# Files that are missing or can't be read


@pytest.mark.parametrize(
    ("runtime", "environ", "words"),
    [
        ("missing.yaml", {}, ["missing.yaml", "`-f` names it", "Leave `-f` out"]),
        ("", {}, ["without a name", "`-f` names it"]),
        (None, {"INVOKE_RUNTIME_CONFIG": "missing.yaml"}, ["missing.yaml", "unset INVOKE_RUNTIME_CONFIG"]),
        ("own.toml", {}, ["own.toml", ".yaml, .yml, .json, .py"]),
    ],
)
def test_a_file_that_is_named_and_is_not_there_is_one_error(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str | None,
    environ: dict[str, str],
    words: list[str],
) -> None:
    machine.write("own.toml", "x = 1")
    monkeypatch.chdir(machine.root)
    text = machine.refused(runtime, **environ).text()
    assert [word for word in words if word not in text] == [], text


def test_an_empty_runtime_variable_names_no_file(machine: Machine) -> None:
    assert machine.load(INVOKE_RUNTIME_CONFIG="").settings == load(machine.root, [], remember=False).settings


def test_a_link_that_leads_nowhere_and_a_directory_are_named(machine: Machine) -> None:
    (machine.root / "invoke.local.yaml").symlink_to("nowhere")
    assert "invoke.local.yaml cannot be read" in machine.refused().cause
    (machine.root / "invoke.local.yaml").unlink()
    (machine.root / "invoke.local.yaml").mkdir()
    assert "invoke.local.yaml cannot be read: Is a directory" in machine.refused().cause


_PLACES = ["invoke.yaml", "~/.invoke.yaml", "~/.config/flaskbook/invoke.yaml", "invoke.local.yaml", "-f"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("# mine\napp:\n", 2, ["nothing stands under it", "section with keys (command, database, debug"]),
        ("app:\n  - port\n", 1, ["['port'] stands there", "section with keys"]),
        ("# mine\n- a\n- b\n", 2, ["['a', 'b']", "not sections with keys"]),
        ("just text\n", 1, ["'just text'", "not sections with keys"]),
        ("app: {port: 1\n", 2, ["not valid YAML"]),
        ("app:\n\tport: 1\n", 2, ["not valid YAML"]),
        ("app: !mine x\n", 1, ["not valid YAML", "!mine"]),
        ("app: {port: \x07}\n", 1, ["not valid YAML"]),
        ("a: 1\n---\nb: 2\n", 2, ["not valid YAML"]),
        ("app: {port: 1}\n".encode("utf-16"), 1, ["UTF-16", "iconv -f UTF-16"]),
        ("app: {port: 1}\n".encode("utf-16-le"), 1, ["UTF-16", "iconv -f UTF-16"]),
        ("# ok\napp: {database: caf\xe9}\n".encode("latin-1"), 2, ["0xe9", "iconv -f LATIN1"]),
        ("app:\n  port: 1\n  host: a\n  port: 2\n", 4, ["app.port", "line 2 already"]),
        ("app:\n  env:\n    on: x\n", 3, ["app.env.on", "Quote it"]),
        ("app:\n  python: 3.10\n", 2, ["3.10 without quotes", "the number 3.1", '"3.10"']),
        ("app:\n  env: {VERSION: 1.10}\n", 2, ["1.10 without quotes", "the number 1.1"]),
        ("app:\n  env:\n    DAY: 2024-02-30\n", None, ["not valid YAML"]),
        ("app:\n  env:\n    DEBUG: yes\n", 3, ["yes without quotes", "the truth value true", '"yes"']),
        ("app:\n  database: 2024-02-03\n", 2, ["2024-02-03 without quotes", "the date"]),
        ("app:\n  prot: 1\n", 2, ["app.prot", "did you mean port?"]),
        ("app:\n  port: many\n", 2, ["app.port", "'many'", "it must be a whole number"]),
        ("paths:\n  data: $HOME/x\n", 2, ["paths.data", "'$HOME/x'", "~ for your home directory is"]),
        ("paths:\n  log: ${HOME}/x\n", 2, ["paths.log", "~ for your home directory is"]),
        ("paths:\n  data: ~nobody-here/x\n", 2, ["paths.data", "not known here"]),
        ("deployments:\n  local:\n    hosts:\n      - a\n      - [b]\n", 5, ["deployments.local.hosts.1"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", _PLACES)
def test_what_is_wrong_is_named_with_file_and_line(
    machine: Machine, place: str, text: str | bytes, line: int | None, words: list[str]
) -> None:
    path = machine.write("own.yaml" if place == "-f" else place, text)
    error = machine.refused(str(path) if place == "-f" else None)
    name = "own.yaml" if place == "-f" else place
    assert (f"{name}, line {line}" if line else name) in error.cause, error.text()
    assert [word for word in words if word not in error.text()] == [], error.text()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("~/.invoke.json", '{\n "app": {"port": 1,}\n}', ["~/.invoke.json, line 2: not valid JSON"]),
        (
            "~/.invoke.json",
            '{\n "app": {"python": 3.10}\n}',
            ["~/.invoke.json, line 2: app.python", '"3.10"'],
        ),
        ("~/.invoke.json", "[]", ["~/.invoke.json, line 1 holds []"]),
        ("~/.invoke.yml", "app:\n", ["~/.invoke.yml, line 1: app: nothing stands"]),
        ("~/.invoke.py", "a = 1\nb = = 2\n", ["~/.invoke.py, line 2: not valid Python"]),
        ("~/.invoke.py", "a = 1\nb = 1 / 0\n", ["~/.invoke.py, line 2 ended with ZeroDivisionError"]),
        ("~/.invoke.py", "app = None\n", ["~/.invoke.py, line 1: app: nothing stands"]),
    ],
)
def test_files_that_are_not_yaml_are_named_with_their_line(
    machine: Machine, name: str, text: str, words: list[str]
) -> None:
    machine.write(name, text)
    cause = machine.refused().text()
    assert [word for word in words if word not in cause] == [], cause


def test_all_that_is_misread_is_named_at_once(machine: Machine) -> None:
    machine.write("invoke.yaml", "app:\n  python: 3.10\n  env:\n")
    machine.write("~/.invoke.yaml", "mongodb: [a]\n")
    assert len(machine.refused().cause.splitlines()) == 3


def test_another_projects_section_in_the_users_file_is_not_judged(machine: Machine) -> None:
    machine.write("~/.invoke.yaml", "other: {a: 1, a: 2}\nshop:\nrun: {echo: true}\n")
    assert machine.load().settings == load(machine.root, [], remember=False).settings


def test_an_alias_that_contains_itself_is_refused_and_not_followed(machine: Machine) -> None:
    machine.write("invoke.yaml", "app: &a\n  env: *a\n")
    assert "invoke.yaml, line" in machine.refused().cause


def test_a_merged_mapping_gives_way_to_the_keys_beside_it(machine: Machine) -> None:
    machine.write("invoke.yaml", "x: &x {port: 1}\napp:\n  <<: *x\n  port: 8001\n")
    error = machine.refused()
    assert "invoke.yaml, line 1: x: there is no such setting" in error.cause
    assert len(error.cause.splitlines()) == 1


def test_two_variables_of_the_app_that_differ_in_case_are_both_set(machine: Machine) -> None:
    machine.write("invoke.yaml", "app: {env: {http_proxy: x, HTTP_PROXY: y}}\n")
    env = machine.load().settings.app.env
    assert (env["http_proxy"], env["HTTP_PROXY"]) == ("x", "y")
    assert "app.env.HTTP_PROXY" in machine.refused(INVOKE_APP_ENV_HTTP_PROXY="z").cause


def test_the_interpreter_of_env_is_refused_where_it_comes_too_late(machine: Machine) -> None:
    own = machine.write("own.yaml", "env: {python: '3.12'}\n")
    assert "own.yaml, line 1: env.python: env/ is made before `-f` is read" in machine.refused(str(own)).cause
    machine.write("invoke.local.py", "env = {'python': '3.12'}\n")
    assert "invoke.local.py, line 1: env.python" in machine.refused().cause


def test_a_number_that_says_what_is_written_is_text(machine: Machine) -> None:
    machine.write("invoke.yaml", "env: {python: 3.12}\napp: {env: {N: 8, F: 1.5}}\n")
    settings = machine.load().settings
    assert (settings.env.python, settings.app.env["N"], settings.app.env["F"]) == ("3.12", "8", "1.5")


def test_a_path_below_the_home_directory_works(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(machine.home))
    machine.write("invoke.yaml", "paths: {data: ~/x, log: 'price-in-$'}\n")
    paths = machine.load().paths
    assert (paths.data, paths.log) == (machine.home / "x", machine.root / "price-in-$")


def test_a_layer_without_lines_names_its_origin_alone() -> None:
    with pytest.raises(ProvisionError) as error:
        load(Path("/p"), [Layer("f", {"app": None})], remember=False)
    assert error.value.cause.startswith("f: app: nothing stands")


def test_a_key_of_a_zone_that_there_is_not_is_named(machine: Machine) -> None:
    zone = "{zone: eu, shards: [shard1], min: {a: 1}, max: {a: 2}, shardz: 1}"
    machine.write(
        "invoke.yaml",
        f"deployments:\n  cluster:\n    sharding:\n      shop: {{item: {{key: {{a: 1}}, zones: [{zone}]}}}}\n",
    )
    error = machine.refused()
    assert "zones.0.shardz: there is no such setting" in error.cause
    assert "did you mean shards?" in error.remedy
