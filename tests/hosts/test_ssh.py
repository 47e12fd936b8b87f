"""SSH as `ssh` does it: what a person's ~/.ssh/config leads to, with a real client, real hops and real sshds."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.hosts import ssh
from provision.hosts.link import Link, Unreachable
from tests.hosts.conftest import Project
from tests.hosts.lab import Lab, keygen

WHERE_FROM = "echo $SSH_CONNECTION | cut -d' ' -f1; id -un"


@contextlib.contextmanager
def target(project: Project, **settings: str) -> Iterator[Link]:
    """A connection to a host that invoke.yaml says next to nothing of."""
    project.hosts = {"target": settings}
    [link] = project.links().values()
    with contextlib.closing(link):
        yield link


def config(project: Project, text: str) -> None:
    """Write ~/.ssh/config: every host of the lab under its own name, then what a test adds."""
    hosts = "".join(f"Host {name}\n  HostName {host.address}\n" for name, host in project.lab.hosts.items())
    lines = f"{text}\n{hosts}Host *\n  IdentityFile {project.lab.key}\n  User root\n"
    (Path.home() / ".ssh" / "config").write_text(lines)


def seen_by(link: Link) -> list[str]:
    """Where the target sees the connection come from, and whose it is."""
    return link.script(WHERE_FROM).out.split()


def seen_by_ssh() -> list[str]:
    """The same for `ssh` itself."""
    command = ["ssh", "-T", "-o", "BatchMode=yes", "target", WHERE_FROM]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def address(lab: Lab, name: str) -> str:
    return lab.hosts[name].address


def test_included_configuration_is_followed(project: Project) -> None:
    included = Path.home() / ".ssh" / "config.d"
    included.mkdir()
    (included / "lab").write_text(f"Host target\n  HostName {address(project.lab, 'db2')}\n  User operator\n")
    config(project, "Include config.d/*")
    with target(project) as link:
        assert link.host.address == address(project.lab, "db2")
        assert seen_by(link) == [f"10.77.{project.lab.subnet}.254", "operator"]
        assert seen_by_ssh() == [f"10.77.{project.lab.subnet}.254", "operator"]


def test_match_exec_decides_as_it_does_for_ssh(project: Project) -> None:
    config(project, 'Match originalhost target exec "test -d ~/.ssh"\n  HostName db3\n  User operator')
    with target(project, address="target") as link:
        # `HostName db3` names no other block: it is what is dialled.
        assert (link.host.address, link.host.user) == ("db3", "operator")


def test_several_jumps_are_followed_in_order_each_as_its_own_user(project: Project) -> None:
    lab = project.lab
    config(
        project, f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyJump operator@db1,root@db2\n  User operator"
    )  # fmt: skip
    before = {name: host.log for name, host in lab.hosts.items()}
    with target(project) as link:
        assert seen_by(link) == [address(lab, "db2"), "operator"]
        assert link.host.ssh == "ssh target"
    accepted = {name: host.log.removeprefix(before[name]) for name, host in lab.hosts.items()}
    assert f"Accepted publickey for operator from 10.77.{lab.subnet}.254" in accepted["db1"]
    assert f"Accepted publickey for root from {address(lab, 'db1')}" in accepted["db2"]
    assert seen_by_ssh() == [address(lab, "db2"), "operator"]


def test_first_jump_has_a_way_of_its_own(project: Project) -> None:
    lab = project.lab
    config(
        project,
        f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyJump inner\n"
        f"Host inner\n  HostName {address(lab, 'db2')}\n  ProxyJump db1",
    )
    with target(project) as link:
        assert [hop.address for hop in link.host.via] == [address(lab, "db1"), address(lab, "db2")]
        assert seen_by(link) == [address(lab, "db2"), "root"]
        assert seen_by_ssh() == [address(lab, "db2"), "root"]


def test_jump_of_invoke_yaml_wins_and_none_goes_straight(project: Project) -> None:
    lab = project.lab
    config(project, f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyJump db1")
    with target(project, jump="operator@db1,db2") as link:
        assert seen_by(link) == [address(lab, "db2"), "root"]
        assert link.host.ssh == "ssh -J operator@db1,db2 target"
    with target(project, jump="none") as link:
        assert seen_by(link) == [f"10.77.{lab.subnet}.254", "root"]


def test_proxy_command_is_followed_with_its_tokens(project: Project) -> None:
    lab = project.lab
    config(project, f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyCommand ssh -W %h:%p %r@db1")
    with target(project) as link:
        assert seen_by(link) == [address(lab, "db1"), "root"]
        assert seen_by_ssh() == [address(lab, "db1"), "root"]
        assert link.run(["true"]).status == 0
        process = link._proxy._process  # type: ignore[union-attr]
    assert process.poll() is not None


def test_proxy_command_that_ends_is_named_with_what_it_said(project: Project) -> None:
    config(project, "Host target\n  ProxyCommand echo no tunnel today >&2; exit 1")
    with target(project) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "ProxyCommand of target" in caught.value.cause
    assert "no tunnel today" in caught.value.cause
    assert "`ssh target true`" in caught.value.remedy


def test_hop_that_is_not_trusted_is_named_with_the_command_that_reaches_it(project: Project) -> None:
    lab = project.lab
    config(project, f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyJump operator@db1,root@db2")
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(
        "".join(
            line for line in known.read_text().splitlines(True) if not line.startswith(address(lab, "db2"))
        )
    )
    with target(project) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert f"host key of {address(lab, 'db2')}, which target is reached through" in caught.value.cause
    assert "`ssh -J operator@db1 root@db2 true`" in caught.value.remedy


def test_hop_that_is_off_is_named(project: Project) -> None:
    lab = project.lab
    config(project, f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyJump db1,db2")
    lab.hosts["db2"].stop()
    with target(project) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert f"{address(lab, 'db2')}, which target is reached through, does not answer" in caught.value.cause


def test_way_that_goes_round_in_a_circle_is_an_error(project: Project) -> None:
    config(project, "Host target\n  ProxyJump db1\nHost db1\n  ProxyJump target")
    with pytest.raises(ProvisionError, match="target → db1 → target"), target(project):
        pass


def test_new_host_key_is_recorded_where_the_configuration_accepts_it(
    project: Project, tmp_path: Path
) -> None:
    known = Path.home() / ".ssh" / "known_hosts"
    known.unlink()
    config(
        project,
        f"Host target\n  HostName {address(project.lab, 'db1')}\n  HostKeyAlias the-db\n"
        "  StrictHostKeyChecking accept-new",
    )
    with target(project) as link:
        assert seen_by(link)[1] == "root"
    assert known.read_text().startswith("the-db ssh-ed25519 ")
    assert seen_by_ssh()[1] == "root"
    keygen(tmp_path / "other")
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    known.write_text(f"the-db {kind} {key}\n")
    with target(project) as link, pytest.raises(Unreachable, match="not the one on record") as caught:
        link.run(["true"])
    assert "ssh-keygen -R the-db" in caught.value.remedy


def test_key_that_only_the_agent_has_is_used_with_identities_only(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as agent:
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            add = ["sh", "-c", 'until [ -S "$SSH_AUTH_SOCK" ]; do sleep 0.02; done; ssh-add -q "$1"', "add"]
            subprocess.run([*add, str(project.lab.key)], check=True, timeout=60)
            public = Path.home() / ".ssh" / "held.pub"
            shutil.copy(project.lab.key.with_suffix(".pub"), public)
            (Path.home() / ".ssh" / "config").write_text(
                f"Host target\n  HostName {address(project.lab, 'db1')}\n  User root\n"
                f"  IdentityFile {public.with_suffix('')}\n  IdentitiesOnly yes\n"
            )
            with target(project) as link:
                assert seen_by(link)[1] == "root"
            assert seen_by_ssh()[1] == "root"

            # What `ssh` alone is told of, the error names, with what makes it known here.
            monkeypatch.delenv("SSH_AUTH_SOCK")
            with (Path.home() / ".ssh" / "config").open("a") as file:
                file.write(f"  IdentityAgent {socket}\n")
            ssh.ask.cache_clear()
            assert seen_by_ssh()[1] == "root"
            with target(project) as link, pytest.raises(Unreachable) as caught:
                link.run(["true"])
            assert f"IdentityAgent {socket}" in caught.value.cause
            assert f"export SSH_AUTH_SOCK={socket}" in caught.value.remedy
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            with target(project) as link:
                assert seen_by(link)[1] == "root"
        finally:
            agent.kill()


def test_without_a_client_the_configuration_is_read_and_what_it_cannot_follow_is_an_error(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = project.lab
    config(project, f"Host target\n  HostName {address(lab, 'db3')}\n  ProxyJump operator@db1,db2")
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "empty"))
        with target(project) as link:
            assert seen_by(link) == [address(lab, "db2"), "root"]
        (Path.home() / ".ssh" / "known_hosts").unlink()
        with target(project) as link, pytest.raises(Unreachable) as caught:
            link.run(["true"])
        assert "no `ssh`" in caught.value.cause
        assert "apt-get install openssh-client" in caught.value.remedy
        ssh.ask.cache_clear()
        config(project, "Include config.d/*")
        with pytest.raises(ProvisionError, match="Line 1 includes other files") as refused, target(project):
            pass
        assert "apt-get install openssh-client" in refused.value.remedy
