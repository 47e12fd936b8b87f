"""SSH: whom we trust, who we are, and what a host that is gone looks like."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_EOF

from provision.hosts import inventory, ssh
from provision.hosts.link import File, HostError, Link, Unreachable, archive
from provision.hosts.scripts import script
from provision.settings.schema import HostSettings
from tests.hosts.conftest import Project, at_home, hosts_of_their_own
from tests.hosts.lab import Lab, keygen
from tests.support.polling import until


@contextmanager
def linked(lab: Lab, name: str = "db1", **settings: str) -> Iterator[Link]:
    """A connection to a host of the lab, as root, with its key."""
    given = {"address": lab.hosts[name].address, "user": "root", "key": str(lab.key), **settings}
    known = {name: HostSettings(**given)}  # type: ignore[arg-type]
    with closing(Link(inventory.resolve(name, known[name], known, ssh.ask), 5.0)) as link:
        yield link


def test_arguments_arrive_as_they_are(all_on: Lab, trusting: Path) -> None:
    words = ["a b", "it's", '"quoted"', "$HOME", "`id`", "a\nb", "\\", "*", "", "ümlaut"]
    with linked(all_on) as link:
        ran = link.run(["printf", "%s|", *words])
        assert ran.out == "|".join(words) + "|"
        assert link.script('printf "%s|" "$@"', *words).out == "|".join(words) + "|"


def test_output_of_any_size_and_exit_status_come_back(all_on: Lab, trusting: Path) -> None:
    with linked(all_on) as link:
        ran = link.script(
            "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2; exit 3"
        )
        assert (ran.status, len(ran.out), len(ran.err)) == (3, 3_000_000, 3_000_000)


def test_files_are_put_whole_with_their_mode(all_on: Lab, trusting: Path) -> None:
    host = all_on.hosts["db1"]
    with linked(all_on) as link:
        link.put(
            "/srv/put it",
            [File("key", b"secret\n", 0o400), File(".hidden", b"\0" * 100_000, 0o644)],
            "testing",
        )
        link.put("/srv/put it", [File("key", b"newer\n", 0o400)], "testing")
    placed = host.srv / "put it"
    assert (placed / "key").read_bytes() == b"newer\n"
    assert (placed / ".hidden").stat().st_size == 100_000
    assert [oct((placed / name).stat().st_mode & 0o777) for name in ("key", ".hidden")] == ["0o400", "0o644"]
    assert sorted(each.name for each in placed.iterdir()) == [".hidden", "key"]
    shutil.rmtree(placed)


def test_one_connection_carries_all_commands(all_on: Lab, trusting: Path) -> None:
    with linked(all_on) as link, ThreadPoolExecutor(20) as pool:
        clients = set(pool.map(lambda _: link.run(["sh", "-c", "echo $SSH_CONNECTION"]).out, range(60)))
    assert len(clients) == 1


def test_command_that_ends_as_its_input_ends_does_not_cost_the_connection(
    all_on: Lab, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd ends a connection on which something comes for a channel that was closed."""
    with linked(all_on) as link:
        transport = link._transport()
        send = transport._send_user_message

        def late(message: paramiko.Message) -> None:
            if message.asbytes()[:1] == cMSG_CHANNEL_EOF:
                deadline = time.monotonic() + 0.5
                while (
                    any(not each.closed for each in transport._channels.values())
                    and time.monotonic() < deadline
                ):
                    time.sleep(0.01)
            send(message)

        monkeypatch.setattr(transport, "_send_user_message", late)
        for _ in range(3):
            assert link.run(["true"]).status == 0
        assert transport.is_active()
        assert link._transport() is transport


def test_connection_that_was_lost_unseen_is_opened_again_before_anything_is_run(
    all_on: Lab, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with linked(all_on) as link:
        link.run(["true"])
        transport = link._transport()
        all_on.hosts["db1"].cut_connections()
        until("the connection to be over", lambda: not transport.is_active())
        monkeypatch.setattr(transport, "is_active", lambda: True)
        assert link.run(["echo", "once"]).out == "once\n"
        # Whoever still had the old one closes that, and not what others have opened since.
        fresh = link._transport()
        link._drop(transport)
        assert link._transport() is fresh


def test_sessions_that_are_refused_at_the_same_time_do_not_end_the_connection(
    all_on: Lab, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd refuses sessions beyond MaxSessions; of two refusals at once, paramiko keeps the reason of one."""
    with linked(all_on) as link:
        transport = link._transport()
        opens, refusals = transport.open_session, ["Unable to open channel."]

        def refused_once(**options: object) -> object:
            if refusals:
                raise paramiko.SSHException(refusals.pop())
            return opens(**options)

        monkeypatch.setattr(transport, "open_session", refused_once)
        assert link.run(["echo", "here"]).out == "here\n"
        assert not refusals
        assert link._transport() is transport
        assert transport.is_active()


def test_unknown_host_key_is_refused_with_the_command_that_accepts_it(all_on: Lab, trusting: Path) -> None:
    (trusting / ".ssh" / "known_hosts").unlink()
    host = all_on.hosts["db1"]
    with linked(all_on) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "db1" in caught.value.doing
    assert "host key of db1" in caught.value.cause
    assert "SHA256:" in caught.value.cause
    assert f"ssh -i {all_on.key} root@{host.address} true" in caught.value.remedy


def test_changed_host_key_is_refused(all_on: Lab, trusting: Path, tmp_path: Path) -> None:
    keygen(tmp_path / "other")
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    address = all_on.hosts["db1"].address
    (trusting / ".ssh" / "known_hosts").write_text(f"{address} {kind} {key}\n")
    with linked(all_on) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "db1" in caught.value.cause
    assert "not the one on record" in caught.value.cause
    assert f"ssh-keygen -R {address}," in caught.value.remedy


def test_wrong_key_is_named_with_host_and_user(all_on: Lab, trusting: Path, tmp_path: Path) -> None:
    keygen(tmp_path / "stranger")
    with linked(all_on, key=str(tmp_path / "stranger")) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "db1" in caught.value.cause
    assert f"does not accept {tmp_path / 'stranger'} for the user root" in caught.value.cause


def test_missing_key_file_is_named(all_on: Lab, trusting: Path) -> None:
    with (
        linked(all_on, key="/nowhere/key") as link,
        pytest.raises(Unreachable, match="/nowhere/key does not exist"),
    ):
        link.run(["true"])


def test_host_that_is_off_is_named(all_on: Lab, trusting: Path) -> None:
    all_on.hosts["db2"].stop()
    with linked(all_on, "db2") as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "db2" in caught.value.cause
    assert "does not answer on port 22" in caught.value.cause


def test_lost_connection_is_named_and_the_next_command_opens_another(all_on: Lab, trusting: Path) -> None:
    host = all_on.hosts["db1"]
    begun = host.srv / "begun"
    with linked(all_on) as link, ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(link.script, "touch /srv/begun; sleep 60")
        until("the command to run", begun.exists)
        host.cut_connections()
        with pytest.raises(Unreachable, match="connection to db1 was lost"):
            sleeping.result()
        assert link.run(["echo", "again"]).out == "again\n"
    assert host.listens()
    begun.unlink()


def test_connection_is_really_cut_whatever_its_process_is_called(
    sshd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since OpenSSH 9.8 it is `sshd-session: root@notty`: a process is called after the program that it runs."""
    other = tmp_path / "sshd-session"
    shutil.copy2(sshd, other)
    with (
        hosts_of_their_own(str(other), ("db1",)) as lab,
        at_home(lab, tmp_path / "home"),
        linked(lab) as link,
    ):
        link.run(["true"])
        assert lab.hosts["db1"].processes("sshd-session:")
        transport = link._transport()
        lab.hosts["db1"].cut_connections()
        until("the connection to be over", lambda: not transport.is_active())
        assert link.run(["echo", "again"]).out == "again\n"


def test_two_commands_put_files_into_one_directory_at_once(all_on: Lab, trusting: Path) -> None:
    """They hold different locks (`app-prod`, `deployment-prod`), or belong to two people."""
    placed = all_on.hosts["db1"].srv / "both"
    first = archive([File("first", b"1" * 1_000_000, 0o600)])

    class Slowly(io.BytesIO):
        """Sends half, waits until the other command is done, and sends the rest."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= len(first) // 2 and not (placed / "second").exists():
                until("the first half to be there", lambda: list(placed.glob(".incoming.*/*")))
                second.put("/srv/both", [File("second", b"2", 0o600)], "testing")
            return super().read(size)

    with linked(all_on) as link, linked(all_on) as second:
        ran = link.script(script("put.sh"), "/srv/both", feed=Slowly(first))
        assert (ran.status, ran.err) == (0, "")
        # What a shell left that is gone goes with the next command.
        (placed / ".incoming.4194303-1").mkdir()
        second.put("/srv/both", [File("third", b"3", 0o600)], "testing")
    assert sorted(path.name for path in placed.iterdir()) == ["first", "second", "third"]
    shutil.rmtree(placed)


def test_host_behind_another_one_is_reached_through_it(all_on: Lab, trusting: Path) -> None:
    inner, outer = all_on.hosts["db2"].address, all_on.hosts["db1"].address
    with linked(all_on, "db2", jump=f"root@{outer}") as link:
        # The jump host is offered the user's own keys.
        shutil.copy(all_on.key, trusting / ".ssh" / "id_ed25519")
        (trusting / ".ssh" / "id_ed25519").chmod(0o600)
        came_from, _, _, _ = link.run(["sh", "-c", "echo $SSH_CONNECTION"]).out.split()
    assert came_from == outer != inner


def test_full_disk_is_told_from_missing_rights(project: Project) -> None:
    host = project.lab.hosts["db1"]
    (host.srv / "full").mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/srv/full")
    try:
        with linked(project.lab) as link:
            with pytest.raises(HostError, match="The disk of db1"):
                link.put("/srv/full", [File("large", b"x" * 200_000, 0o600)], "testing")
            assert link.run(["ls", "-A", "/srv/full"]).out == ""
        (host.srv / "shut").mkdir(mode=0o755)
        with linked(project.lab, user="operator") as link, pytest.raises(HostError, match="can't be written"):
            link.put("/srv/shut", [File("small", b"x", 0o600)], "testing")
    finally:
        host.run("umount", "/srv/full")
