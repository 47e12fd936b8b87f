"""Hosts from invoke.yaml and ~/.ssh/config, units, and what the settings refuse."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision import assembly
from provision.errors import ProvisionError
from provision.hosts import units
from provision.hosts.inventory import Jump, resolve, ssh_config
from provision.mongodb.topology import NodeOptions, Size, sharded
from provision.schema import HostSettings
from provision.settings import Layer, load

CONFIG = """
Host db* !db9
    User mongo
    Port 2222
    IdentityFile /keys/%h
    ProxyJump gate
Host db1
    HostName 192.0.2.11
Host gate
    HostName gate.example
    User jumper
"""


def found(tmp_path: Path, name: str = "db1", **settings: object) -> object:
    (tmp_path / "config").write_text(CONFIG)
    known = {name: HostSettings(**settings)}  # type: ignore[arg-type]
    return resolve(name, known[name], known, ssh_config(tmp_path / "config"))


def test_what_invoke_yaml_leaves_out_is_as_ssh_config_has_it(tmp_path: Path) -> None:
    host = found(tmp_path)
    assert (host.address, host.user, host.port) == ("192.0.2.11", "mongo", 2222)  # type: ignore[attr-defined]
    assert host.jump == Jump("gate.example", 22, "jumper", ())  # type: ignore[attr-defined]
    assert host.ssh == "ssh -p 2222 -J jumper@gate.example:22 mongo@192.0.2.11"  # type: ignore[attr-defined]


def test_what_invoke_yaml_says_wins(tmp_path: Path) -> None:
    host = found(tmp_path, user="root", port=22, key="/k", jump="me@other:99")
    assert (host.user, host.port, host.keys) == ("root", 22, ("/k",))  # type: ignore[attr-defined]
    assert host.jump == Jump("other", 99, "me", ())  # type: ignore[attr-defined]


def test_jump_may_be_another_host_of_invoke_yaml() -> None:
    known = {
        "db1": HostSettings(address="10.0.0.1", jump="gate"),
        "gate": HostSettings(address="192.0.2.1", user="jumper", port=2200, key="/k"),
    }
    assert resolve("db1", known["db1"], known, lambda _: {}).jump == Jump(
        "192.0.2.1", 2200, "jumper", ("/k",)
    )


def test_ssh_config_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"\xff\xfe")
    with pytest.raises(ProvisionError, match="reading"):
        ssh_config(tmp_path / "config")


def _loaded(tmp_path: Path, **deployment: object) -> object:
    chosen = {
        "hosts": {"db1": {"address": "192.0.2.11"}, "db2": {"address": "192.0.2.12"}},
        "deployments": {"prod": {"backend": "hosts", "hosts": ["db1", "db2"], **deployment}},
    }
    return load(tmp_path, [Layer("invoke.yaml", chosen)], remember=False)


def test_nodes_know_each_other_by_their_hosts_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    deployment = assembly.deployment(_loaded(tmp_path, topology="replica-set", members=2), "prod")  # type: ignore[arg-type]
    assert {node.host for node in deployment.topology.nodes} == {"192.0.2.11", "192.0.2.12"}
    node = deployment.topology.nodes[0]
    text = deployment.rendering.render(node)
    assert f'bindIp: "127.0.0.1,{node.host}"' in text
    assert "mode: requireTLS" in text
    assert "authorization: enabled" in text
    assert "tls=true&tlsCAFile=" in deployment.uri()


def test_unknown_host_of_a_deployment_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="'db3'"):
        assembly.deployment(_loaded(tmp_path, hosts=["db3"]), "prod")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["processes", "docker"])
def test_tls_elsewhere_is_refused(tmp_path: Path, backend: str) -> None:
    with pytest.raises(ProvisionError, match="wants TLS"):
        assembly.deployment(_loaded(tmp_path, backend=backend, tls=True), "prod")  # type: ignore[arg-type]


@pytest.mark.parametrize("directory", ["", "relative", "/srv/mongo db", "/", "~", "/srv/$HOME"])
def test_data_directory_must_be_a_plain_path(tmp_path: Path, directory: str) -> None:
    chosen = {"hosts": {"db1": {"data_dir": directory}}}
    with pytest.raises(ProvisionError, match=r"hosts\.db1\.data_dir"):
        load(tmp_path, [Layer("invoke.yaml", chosen)], remember=False)


def test_environment_variable_sets_a_hosts_key(tmp_path: Path) -> None:
    chosen = {"hosts": {"db1": {}}}
    loaded = load(tmp_path, [Layer("invoke.yaml", chosen)], {"INVOKE_HOSTS_DB1_PORT": "2222"}, remember=False)
    assert loaded.settings.hosts["db1"].port == 2222


@pytest.mark.parametrize("kind", ["system", "user"])
def test_unit_starts_the_node_with_its_environment(kind: str) -> None:
    template = (Path(__file__).parents[2] / "templates" / "mongod.service.j2").read_text()
    command = units.node_command("/srv/bin/mongod", "/srv/50%", "shard1-1")
    text = units.render_unit(template, "prod", "shard1-1", "/srv/50%", command, ["A=b c%"], kind)
    assert 'ExecStart="/srv/bin/mongod" "--config" "/srv/50%%/shard1-1.conf"' in text
    assert 'Environment="A=b c%%"' in text
    assert ("ProtectSystem" in text) == (kind == "system")


def test_scripts_are_valid_for_a_posix_shell() -> None:
    scripts = {name: value for name, value in vars(units).items() if name.isupper() and "\n" in str(value)}
    assert len(scripts) >= 8
    for name, text in scripts.items():
        checked = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"


def test_a_signal_is_told_from_an_exit_status() -> None:
    seen = units.parse_observed("a running \nb ended 137\nc ended 14\nd absent\ne running paused\n")
    assert [seen[name].running for name in "abcd"] == [True, False, False, False]
    assert [seen[name].exit_status for name in "bcd"] == [-9, 14, None]
    assert [seen[name].paused for name in "abe"] == [False, None, True]


def test_default_ports_do_not_depend_on_placement() -> None:
    topology = sharded("prod", 27300, Size(members=3), lambda _: NodeOptions(), lambda _: "192.0.2.11")
    assert len({node.port for node in topology.nodes}) == len(topology.nodes)
