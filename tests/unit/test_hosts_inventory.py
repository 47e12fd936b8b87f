"""Hosts from invoke.yaml and ~/.ssh/config, units, and what the settings refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.deployments import assembly
from provision.hosts import scripts, units
from provision.hosts.inventory import Host, hosts, resolve
from provision.hosts.ssh import Local, Question, SshOptions, ask, parse, parse_jumps
from provision.mongodb.topology import NodeOptions, Size, sharded
from provision.settings.loading import Layer, load
from provision.settings.schema import HostSettings

LOCAL = Local("ada", 1001, "/home/ada", "desk.example", {"KEYS": "/keys"})


def asking(said: dict[str, str]) -> Callable[[Question], SshOptions]:
    """What `ssh -G` prints of hosts by their aliases; of others, what it prints without a configuration."""

    def ask(question: Question) -> SshOptions:
        given = (("user", question.user), ("port", question.port), ("proxyjump", question.jump))
        lines = [f"{name} {value}" for name, value in given if value is not None]
        return parse("\n".join([*lines, said.get(question.alias, "")]), question.alias, LOCAL)

    return ask


def found(said: dict[str, str], name: str = "db1", **settings: object) -> Host:
    known = {name: HostSettings(**settings)}  # type: ignore[arg-type]
    return resolve(name, known[name], known, asking(said))


DB1 = {
    "db1": "hostname 192.0.2.11\nuser mongo\nport 2222\nidentityfile ~/.ssh/%r@%h\nproxyjump gate",
    "gate": "hostname gate.example\nuser jumper",
}


def test_what_invoke_yaml_leaves_out_is_as_ssh_has_it() -> None:
    host = found(DB1)
    assert (host.address, host.user, host.port) == ("192.0.2.11", "mongo", 2222)
    assert host.keys == ("/home/ada/.ssh/mongo@192.0.2.11",)
    assert [(hop.address, hop.user, hop.port, hop.ssh) for hop in host.via] == [
        ("gate.example", "jumper", 22, "ssh gate")
    ]
    assert host.ssh == "ssh db1"


def test_what_invoke_yaml_says_wins() -> None:
    host = found(DB1, user="root", port=22, key="/k", jump="me@other:99")
    assert (host.user, host.port, host.keys, host.key_given) == ("root", 22, ("/k",), True)
    assert [(hop.address, hop.user, hop.port) for hop in host.via] == [("other", "me", 99)]
    assert host.ssh == "ssh -p 22 -i /k -J me@other:99 root@db1"
    assert found(DB1, jump="none").via == ()


def test_jump_may_be_another_host_of_invoke_yaml() -> None:
    known = {
        "db1": HostSettings(address="10.0.0.1", jump="gate"),
        "gate": HostSettings(address="192.0.2.1", user="jumper", port=2200, key="/k", jump="me@outer"),
    }
    host = resolve("db1", known["db1"], known, asking({}))
    assert [(hop.address, hop.port, hop.user, hop.keys) for hop in host.via] == [
        ("outer", 22, "me", ()),
        ("192.0.2.1", 2200, "jumper", ("/k",)),
    ]
    assert host.ssh == "ssh -J jumper@192.0.2.1:2200 10.0.0.1"


def test_hosts_of_invoke_yaml_that_lead_to_each_other_are_an_error() -> None:
    known = {"a": HostSettings(jump="b"), "b": HostSettings(jump="a")}
    with pytest.raises(ProvisionError, match="a → b → a"):
        resolve("a", known["a"], known, asking({}))


def test_proxy_command_has_its_tokens_and_gives_way_to_a_jump() -> None:
    said = {"db1": "hostname 192.0.2.11\nuser mongo\nport 2222\nproxycommand nc -x 100%% %h %p %r %n"}
    assert found(said).proxy == "nc -x 100% 192.0.2.11 2222 mongo db1"
    assert found(said, jump="gate").proxy is None
    assert found({"db1": "proxycommand none\nproxyjump none"}).proxy is None
    with pytest.raises(ProvisionError, match="ProxyUseFdpass"):
        found({"db1": "proxycommand nc -F\nproxyusefdpass yes"})


@pytest.mark.parametrize(
    ("text", "jumps"),
    [
        ("ada@a,ada@b", [("a", "ada", None), ("b", "ada", None)]),
        ("a:22, b", [("a", None, 22), ("b", None, None)]),
        ("ssh://ada@a:2222", [("a", "ada", 2222)]),
        ("ada@[2001:db8::1]:22,2001:db8::2", [("2001:db8::1", "ada", 22), ("2001:db8::2", None, None)]),
        ("me@corp.example@a", [("a", "me@corp.example", None)]),
        ("none", []),
        ("", []),
    ],
)
def test_jumps_have_a_user_and_a_port_each(
    text: str, jumps: list[tuple[str, str | None, int | None]]
) -> None:
    assert [(each.alias, each.user, each.port) for each in parse_jumps(text)] == jumps


def test_what_ssh_says_of_keys_and_trust() -> None:
    options = parse(
        "identityfile ${KEYS}/a\nidentityfile ~/b c\nidentityfile none\nidentitiesonly yes\n"
        "userknownhostsfile ~/.ssh/k1 ~/.ssh/k2\nglobalknownhostsfile /etc/ssh/known\n"
        "stricthostkeychecking accept-new\nhostkeyalias db\n",
        "db1",
        LOCAL,
    )
    assert options == SshOptions(
        "db1",
        identity_files=("/keys/a", "/home/ada/b c"),
        identities_only=True,
        known_hosts=("/home/ada/.ssh/k1", "/home/ada/.ssh/k2", "/etc/ssh/known"),
        host_key_alias="db",
        accepts_new=True,
    )
    for word in ("ask", "yes", "true"):
        assert not parse(f"stricthostkeychecking {word}", "db1", LOCAL).accepts_new


def test_configuration_that_is_none_is_an_error_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "ssh"
    (tmp_path / "config").write_text("NoSuchOption yes\n")
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/config "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ProvisionError, match=f"{tmp_path}/config.*line 1.*nosuchoption") as caught:
        ask(Question("host-of-this-test"))
    assert "ssh -G host-of-this-test" in caught.value.remedy


def test_ssh_is_asked_once_for_each_host_and_for_all_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until the other one was asked, too: one after another, they would give up."""
    log = tmp_path / "asked"
    client = tmp_path / "ssh"
    client.write_text(
        f'#!/bin/sh\nfor alias; do :; done\necho "$alias" >> {log}\nn=0\n'
        f'while [ "$(wc -l < {log})" -lt 2 ] && [ $n -lt 500 ]; do n=$((n + 1)); sleep 0.02; done\n'
        f'[ "$(wc -l < {log})" -ge 2 ] || exit 1\necho "hostname $alias.example"\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    chosen = {"hosts": {"once-1": {}, "once-2": {}}}
    loaded = load(tmp_path, [Layer("invoke.yaml", chosen)], remember=False)
    for _ in range(3):
        assert [each.address for each in hosts(loaded).values()] == ["once-1.example", "once-2.example"]
    assert sorted(log.read_text().split()) == ["once-1", "once-2"]


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
    names = sorted(path.name for path in Path(str(scripts.__file__)).parent.glob("*.sh"))
    assert len(names) >= 28
    for name in names:
        text = scripts.script(name)
        checked = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"
        assert "\n. lib/" not in text, f"{name} would look for a file on the host"


def test_a_signal_is_told_from_an_exit_status() -> None:
    seen = units.parse_observed("a running \nb ended 137\nc ended 14\nd absent\ne running paused\n")
    assert [seen[name].running for name in "abcd"] == [True, False, False, False]
    assert [seen[name].exit_status for name in "bcd"] == [-9, 14, None]
    assert [seen[name].paused for name in "abe"] == [False, None, True]


def test_default_ports_do_not_depend_on_placement() -> None:
    topology = sharded("prod", 27300, Size(members=3), lambda _: NodeOptions(), lambda _: "192.0.2.11")
    assert len({node.port for node in topology.nodes}) == len(topology.nodes)
