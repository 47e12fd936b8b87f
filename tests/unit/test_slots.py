"""Ports of a folder's own: who gets which, what moves and what stays, and the file that they are on record in."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.core.errors import ProvisionError
from provision.settings.layers import Layer
from provision.settings.loading import Loaded, load
from provision.settings.paths import Paths
from provision.settings.ports import (
    APP,
    BLOCK,
    BLOCKS,
    END,
    FIRST,
    NoRoom,
    Room,
    block,
    free_slot,
    lay_out,
    room_needed,
)
from provision.settings.schema import DeploymentSettings
from provision.state import slots
from provision.state.checkout import checkout_of
from provision.state.process_identity import this_process
from provision.state.slots import AppUp, DeploymentUp, Entry, NodeUp

ROOT = Path(__file__).resolve().parents[2]
_NONE: frozenset[int] = frozenset()


def _always(_number: int) -> bool:
    return True


# Pure: blocks, slots, rooms


def test_the_blocks_are_below_what_the_system_hands_out_and_beside_mongodbs_usual_ports() -> None:
    ports = [port for number in BLOCKS for port in block(number).ports]
    assert min(ports) == FIRST
    assert max(ports) < END
    assert not set(ports) & set(range(27_017, 27_401))
    assert len(ports) == len(set(ports)) == len(BLOCKS) * BLOCK


def test_a_new_folder_gets_the_first_slot_that_nobody_has_and_whose_ports_are_free() -> None:
    assert free_slot(_NONE, _always) == 0
    assert free_slot({0, 1}, lambda number: number != 2) == 3
    with pytest.raises(NoRoom):
        free_slot(set(BLOCKS), _always)


def test_a_folder_whose_data_have_their_addresses_gets_the_slot_of_these() -> None:
    there = [Room(block(5).first, 200)]
    assert free_slot(_NONE, _always, there) == 5
    assert free_slot({5}, _always, there) == 0


def test_rooms_follow_each_other_in_the_order_of_the_settings() -> None:
    rooms = lay_out(3, {APP: 1, "local": 1, "set": 50, "other": 1}, {}, _NONE, _always)
    start = block(3).first
    assert rooms == {
        APP: Room(start, 1),
        "local": Room(start + 1, 1),
        "set": Room(start + 2, 50),
        "other": Room(start + 52, 1),
    }


def test_what_is_too_large_for_the_rest_of_a_block_gets_blocks_of_its_own() -> None:
    rooms = lay_out(0, {APP: 1, "cluster": 200, "large": 400, "after": 1}, {}, {1, 3}, _always)
    assert rooms["cluster"] == Room(block(2).first, 200)
    assert rooms["large"] == Room(block(4).first, 400)
    assert rooms["after"] == Room(block(0).first + 1, 1)


def test_what_has_a_room_keeps_it_whatever_comes_before_it() -> None:
    before = lay_out(0, {APP: 1, "local": 1}, {}, _NONE, _always)
    after = lay_out(0, {APP: 1, "new": 50, "local": 1}, before, _NONE, _always)
    assert after["local"] == before["local"]
    assert not after["new"].meets(after["local"])


def test_a_cluster_that_grows_stays_where_it_is_and_takes_the_block_behind() -> None:
    before = lay_out(0, {APP: 1, "cluster": 200}, {}, _NONE, _always)
    assert lay_out(0, {APP: 1, "cluster": 400}, before, _NONE, _always)["cluster"] == Room(
        block(1).first, 400
    )
    moved = lay_out(0, {APP: 1, "cluster": 400}, before, {2}, _always)["cluster"]
    assert moved == Room(block(3).first, 400)


def test_where_nothing_is_left_the_error_names_what_has_no_room() -> None:
    with pytest.raises(NoRoom, match="cluster"):
        lay_out(0, {APP: 1, "cluster": 200}, {}, set(BLOCKS) - {0}, _always)


@given(
    st.lists(st.integers(1, 10), max_size=3, unique=True),
    st.lists(st.sampled_from([1, 1, 50, 200, 400]), min_size=1, max_size=6),
    st.lists(st.sampled_from([1, 50, 200]), max_size=4),
)
def test_no_two_rooms_meet_and_none_is_in_anothers_block(
    taken: list[int], counts: list[int], earlier: list[int]
) -> None:
    others = set(taken)
    kept = lay_out(0, {f"n{n}": count for n, count in enumerate(earlier)}, {}, others, _always)
    rooms = lay_out(0, {f"n{n}": count for n, count in enumerate(counts)}, kept, others, _always)
    found = list(rooms.values())
    assert not any(one.meets(two) for one in found for two in found if one is not two)
    assert not others.intersection(*[set().union(*(room.blocks for room in found))])
    assert all(number in BLOCKS for room in found for number in room.blocks)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (DeploymentSettings(), 1),
        (DeploymentSettings(topology="replica-set"), 50),
        (DeploymentSettings(topology="sharded"), 200),
        (DeploymentSettings(topology="sharded", shards=3), 200),
        (DeploymentSettings(topology="sharded", shards=4), 400),
        (DeploymentSettings(topology="sharded", shards=3, removed_shards=[2]), 400),
    ],
)
def test_a_topology_takes_all_the_ports_that_it_may_come_to_use(
    settings: DeploymentSettings, count: int
) -> None:
    from provision.deployments import assembly

    assert room_needed(settings) == count
    planned = assembly.plan("d", replace(settings, port=FIRST))
    assert {node.port for node in planned.nodes} <= set(range(FIRST, FIRST + count))


# Git, from its files


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository with settings, and a commit."""
    root = tmp_path / "Shop"
    root.mkdir()
    (root / "invoke.yaml").write_text("app: {database: shop}\n", encoding="utf-8")
    _git(root, "init", "--initial-branch", "main")
    _git(root, "add", "--all")
    _git(root, "commit", "--message", "settings")
    return root


@pytest.fixture
def linked(shop: Path) -> Path:
    """A linked worktree of it."""
    root = shop.parent / "elsewhere"
    _git(shop, "worktree", "add", "-b", "feature/x", str(root))
    return root


def test_a_linked_worktree_and_its_branch_are_told_from_files(shop: Path, linked: Path) -> None:
    main, other = checkout_of(shop), checkout_of(linked)
    assert main is not None
    assert other is not None
    assert (main.linked, main.branch, main.repository) == (False, "main", "Shop")
    assert (other.linked, other.branch, other.repository) == (True, "feature/x", "Shop")
    _git(linked, "checkout", "--detach")
    assert len((checkout_of(linked) or other).branch or "") == 10
    (linked / "below").mkdir()
    assert checkout_of(linked / "below") == checkout_of(linked)


def test_a_submodule_is_no_linked_worktree_and_a_plain_folder_is_none_at_all(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: ../.git/modules/shop\n", encoding="utf-8")
    found = checkout_of(tmp_path)
    assert found is not None
    assert not found.linked
    (tmp_path / ".git").unlink()
    assert checkout_of(tmp_path) is None


# With the file


@pytest.fixture(autouse=True)
def free_ports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every port is free, whatever other tests have started; with `real_ports` as they are."""
    if "real_ports" not in request.fixturenames:
        monkeypatch.setattr(slots, "_is_free", lambda _port: True)


@pytest.fixture
def real_ports() -> None:
    """Asks for the ports as they are."""


@pytest.fixture(autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the slots are on record in this test."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.delenv("INVOKE_ISOLATED", raising=False)
    return state / "provision" / "slots.json"


def _load(root: Path, values: dict[str, Any] | None = None, **variables: str) -> Loaded:
    return load(root, [Layer("invoke.yaml", values or {})], variables, grants=slots.grant)


def _ports(loaded: Loaded) -> dict[str, int]:
    found = {name: each.port for name, each in loaded.settings.deployments.items()}
    return {APP: loaded.settings.app.port, **found}


def _entry(root: Path, slot: int | None = None, **more: Any) -> Entry:
    return Entry(root, "shop", slot, **more)


def _put(*entries: Entry) -> None:
    with slots.changing("a test") as current:
        current.update({each.root: each for each in entries})


def test_a_clone_keeps_the_ports_of_its_settings_and_nothing_is_written(shop: Path, place: Path) -> None:
    loaded = _load(shop)
    assert _ports(loaded) == {APP: 8000, "local": 27_017, "cluster": 27_100}
    assert loaded.slot is None
    assert not place.exists()


def test_a_linked_worktree_has_ports_of_its_own_the_same_every_day(
    linked: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _load(linked)
    ports = _ports(loaded)
    assert ports.keys() == {APP, "local", "cluster"}
    assert all(FIRST <= port < END for port in ports.values())
    assert loaded.slot is not None
    assert loaded.slot.project == "shop"
    assert loaded.origins["app", "port"] == f"slot {loaded.slot.slot} (a linked worktree)"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700

    class Later(date):
        @classmethod
        def today(cls) -> Later:
            return cls(2036, 1, 1)

    monkeypatch.setattr(slots, "date", Later)
    assert _ports(_load(linked)) == ports
    assert slots.read()[linked].last_used == "2036-01-01"


def test_a_port_that_a_person_has_set_stays(linked: Path) -> None:
    own = {"deployments": {"local": {"port": 28_000}, "set": {"topology": "replica-set", "port": "auto"}}}
    ports = _ports(_load(linked, own, INVOKE_APP_PORT="8000"))
    assert ports[APP] == 8000
    assert ports["local"] == 28_000
    assert ports["set"] >= FIRST


def test_a_default_that_stands_in_the_file_of_the_project_is_set_by_nobody(linked: Path) -> None:
    written = {"app": {"port": 8000}, "deployments": {"local": {"port": 27_017}}}
    assert all(port >= FIRST for port in _ports(_load(linked, written)).values())
    own = load(linked, [Layer("invoke.local.yaml", written)], {}, grants=slots.grant)
    assert _ports(own) == {APP: 8000, "local": 27_017}


def test_auto_moves_what_asks_for_it_and_nothing_else(shop: Path) -> None:
    loaded = _load(shop, {"app": {"port": "auto"}})
    ports = _ports(loaded)
    assert ports[APP] >= FIRST
    assert (ports["local"], ports["cluster"]) == (27_017, 27_100)
    assert loaded.origins["app", "port"].endswith("(auto in invoke.yaml)")


def test_a_variable_asks_for_ports_of_ones_own_and_another_value_does_without(
    shop: Path, linked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOKE_ISOLATED", "1")
    ports = _ports(_load(shop))
    assert all(port >= FIRST for port in ports.values())
    monkeypatch.delenv("INVOKE_ISOLATED")
    assert _ports(_load(shop)) == ports
    monkeypatch.setenv("INVOKE_ISOLATED", "0")
    assert _ports(_load(linked)) == {APP: 8000, "local": 27_017, "cluster": 27_100}


def test_who_only_looks_is_told_the_ports_and_leaves_nothing(linked: Path, place: Path) -> None:
    def grants(request: Any) -> Any:
        return slots.grant(request, remember=False)

    told = load(linked, [], {}, remember=False, grants=grants)
    assert not place.exists()
    assert told.settings == _load(linked).settings


def _up(port: int, alive: bool = True) -> DeploymentUp:
    me = this_process().as_record()
    process = me if alive else {**me, "start_ticks": 1}
    return DeploymentUp("processes", f"mongodb://127.0.0.1:{port}/", (NodeUp("mongod", port, process),))


def test_where_another_folder_runs_on_the_usual_ports_a_clone_gets_its_own(
    shop: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _put(_entry(other, deployments={"local": _up(27_017, alive=False)}))
    assert _ports(_load(shop))["local"] == 27_017
    _put(_entry(other, deployments={"local": _up(27_017)}))
    loaded = _load(shop)
    assert _ports(loaded)["local"] >= FIRST
    assert loaded.slot is not None
    assert str(other) in loaded.slot.why


def test_what_runs_in_a_folder_on_the_usual_port_stays_there_until_it_is_stopped(
    shop: Path, tmp_path: Path
) -> None:
    _put(_entry(shop, deployments={"local": _up(27_017)}))
    app = AppUp("http://127.0.0.1:8000/", this_process().as_record())
    _put(_entry(tmp_path / "other", apps=(app,)))
    loaded = _load(shop)
    assert loaded.settings.app.port >= FIRST
    assert loaded.settings.deployments["local"].port == 27_017


@pytest.mark.parametrize(
    ("extent", "stays"),
    [
        ({"topology": "single", "backend": "processes", "port": 27_017, "shards": []}, False),
        ({"topology": "single", "backend": "docker", "port": 27_017, "shards": []}, True),
        ({"topology": "replica-set", "backend": "processes", "port": 27_017, "shards": []}, True),
        ({"topology": "replica-set", "backend": "processes", "port": 29_000, "shards": []}, True),
    ],
)
def test_data_that_hold_their_addresses_keep_their_port(
    linked: Path, extent: dict[str, Any], stays: bool
) -> None:
    file = Paths.of(linked, "data", "log", None).extent_record("local")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(extent), encoding="utf-8")
    assert (_ports(_load(linked))["local"] == extent["port"]) is stays


def test_a_slots_file_that_was_lost_comes_back_as_it_was_for_data_that_cannot_move(
    linked: Path, tmp_path: Path, place: Path
) -> None:
    _put(_entry(tmp_path, 0), _entry(tmp_path / "b", 1))
    settings = {"deployments": {"set": {"topology": "replica-set"}}}
    before = _load(linked, settings)
    port = _ports(before)["set"]
    file = before.paths.extent_record("set")
    file.parent.mkdir(parents=True)
    extent = {"topology": "replica-set", "backend": "processes", "port": port, "shards": []}
    file.write_text(json.dumps(extent), encoding="utf-8")
    place.unlink()
    after = _load(linked, settings)
    assert after.slot is not None
    assert before.slot is not None
    assert after.slot.slot == before.slot.slot == 2
    assert _ports(after)["set"] == port


def test_a_slot_of_a_deleted_folder_is_given_anew_only_when_nothing_of_it_is_left(
    linked: Path, tmp_path: Path
) -> None:
    alive, empty = BLOCKS[3], BLOCKS[4]
    entries = [_entry(tmp_path / f"gone-{n}", n, deployments={"local": _up(1)}) for n in BLOCKS]
    compose = replace(_up(1, alive=False), compose="shop-9-local")
    entries[2] = _entry(tmp_path / "gone-docker", 2, deployments={"local": compose})
    entries[4] = _entry(tmp_path / "gone-empty", empty)
    _put(*entries)
    loaded = _load(linked, {"deployments": {"local": {}}})
    assert loaded.slot is not None
    assert loaded.slot.slot == empty
    assert {alive, 2} <= {each.slot for each in slots.read().values()}
    with pytest.raises(ProvisionError, match="clean --gone"):
        _load(tmp_path, {"app": {"port": "auto"}})


@pytest.mark.usefixtures("real_ports")
def test_a_block_that_another_program_listens_in_is_passed_over(linked: Path) -> None:
    with socket.socket() as listener:
        free = next(port for number in BLOCKS for port in block(number).ports if _binds(listener, port))
        listener.listen()
        loaded = _load(linked)
        assert loaded.slot is not None
        assert all(port // BLOCK != free // BLOCK for port in _ports(loaded).values())


def _binds(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_folders_that_ask_at_the_same_moment_get_different_ports(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from provision.settings.layers import Layer\n"
        "from provision.settings.loading import load; from provision.state.slots import grant\n"
        "values = {'app': {'port': 'auto'}}; sys.stdin.read()\n"
        "print(load(Path(sys.argv[1]), [Layer('invoke.yaml', values)], grants=grant).settings.app.port)"
    )
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / str(n))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )
        for n in range(4)
    ]  # fmt: skip
    told = []
    for each in asking:
        if each.stdin is not None:
            each.stdin.close()
            each.stdin = None
    for each in asking:
        told.append(each.communicate(timeout=60)[0].strip())
        assert each.returncode == 0
    assert len(set(told)) == 4


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1, "projects": {"/x": {}}}', "\xff"])
def test_a_damaged_file_is_one_error_with_the_way_out(
    linked: Path, shop: Path, place: Path, text: str
) -> None:
    place.parent.mkdir()
    place.write_text(text, encoding="latin-1")
    with pytest.raises(ProvisionError) as raised:
        _load(linked)
    assert f"mv {place} {place}.damaged" in raised.value.remedy
    assert _ports(_load(shop))["local"] == 27_017  # it needs none of that
    slots.came_up(Paths.of(shop, "data", "log", None), "local", _up(27_017))
    assert place.read_text(encoding="latin-1") == text


def test_a_file_of_a_newer_version_is_refused(linked: Path, place: Path) -> None:
    place.parent.mkdir()
    place.write_text('{"schema": 2, "projects": {}}', encoding="utf-8")
    with pytest.raises(ProvisionError, match="newer version"):
        _load(linked)


def test_where_the_file_cannot_be_written_the_error_says_what_to_do(
    linked: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    with pytest.raises(ProvisionError, match="XDG_STATE_HOME") as raised:
        _load(linked)
    assert "INVOKE_ISOLATED=0" in raised.value.remedy
    assert _ports(_load(shop))["local"] == 27_017
    slots.came_up(Paths.of(shop, "data", "log", None), "local", _up(27_017))


def test_what_comes_up_and_goes_down_is_on_record(shop: Path) -> None:
    paths = Paths.of(shop, "data", "log", None)
    slots.came_up(paths, "local", _up(27_017))
    in_docker = DeploymentUp("docker", "mongodb://x/", (NodeUp("mongod", 27_100),), "flaskbook-cluster")
    slots.came_up(paths, "cluster", in_docker)
    with slots.serving(paths, "http://127.0.0.1:8000/"):
        assert [each.address for each in slots.read()[shop].apps] == ["http://127.0.0.1:8000/"]
    slots.went_down(paths, "local", forget=False)
    slots.went_down(paths, "cluster", forget=False)
    entry = slots.read()[shop]
    assert entry.apps == ()
    assert entry.slot is None
    assert dict(entry.deployments) == {"cluster": in_docker}  # its volumes
    slots.went_down(paths, "cluster", forget=True)
    assert not slots.read()[shop].deployments


@pytest.mark.parametrize(
    ("name", "expected"), [("Shop", "shop"), ("my shop.v2", "my-shop-v2"), ("_x_", "x"), ("日本", "project")]
)
def test_a_projects_name_is_one_that_docker_takes(name: str, expected: str) -> None:
    assert slots.project_name(Path("/home/ada", name), None) == expected


# Docker's names


@pytest.fixture
def named(linked: Path) -> Callable[[], str]:
    """The compose project of the deployment `cluster` in a worktree."""
    from provision.backends.registry import in_containers
    from provision.deployments import assembly

    def ask() -> str:
        loaded = _load(linked)
        settings = loaded.deployment("cluster")
        docker = in_containers(assembly.backend(loaded, assembly.plan("cluster", settings), settings))
        assert docker is not None
        return docker.compose_project

    return ask


def test_a_folder_in_a_slot_has_a_compose_project_of_its_own(linked: Path, named: Callable[[], str]) -> None:
    slot = _load(linked).slot
    assert slot is not None
    assert named() == f"shop-{slot.slot}-cluster"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"volumes": ["flaskbook-cluster_shard1-1"]}', "flaskbook-cluster"),
        ('{"volumes": ["a-7-cluster_shard1-1"], "project": "a-7-cluster"}', "a-7-cluster"),
    ],
)
def test_volumes_that_are_there_keep_their_project_so_that_no_data_are_lost(
    linked: Path, named: Callable[[], str], record: str, expected: str
) -> None:
    file = Paths.of(linked, "data", "log", None).volumes_record("cluster")
    file.parent.mkdir(parents=True)
    file.write_text(record, encoding="utf-8")
    assert named() == expected


def test_the_compose_file_of_a_folder_in_a_slot_names_its_owner(linked: Path) -> None:
    import yaml

    from provision.backends import compose
    from provision.deployments import assembly

    settings = _load(linked).deployment("cluster")
    topology = assembly.plan("cluster", settings)
    project = compose.project_in_slot("cluster", "shop", 3, "/home/ada/$shop: \"'")
    template = (ROOT / "templates" / "compose.yaml.j2").read_text(encoding="utf-8")
    options = compose.ComposeOptions("mongo:8.0", True, False, project)
    text = yaml.safe_load(compose.render(topology, options, template))
    assert text["name"] == "shop-3-cluster"
    owned = [*text["services"].values(), *text["volumes"].values(), text["networks"]["default"]]
    assert {each["labels"]["provision.root"] for each in owned} == {"/home/ada/$$shop: \"'"}
    usual = compose.ComposeOptions("mongo:8.0", True, False, compose.project("cluster"))
    assert "provision.root" not in compose.render(topology, usual, template)


def test_the_tests_do_not_touch_the_list_of_the_person_who_runs_them() -> None:
    assert os.environ["XDG_STATE_HOME"].startswith(("/tmp", os.environ.get("TMPDIR", "/tmp")))
