"""SSH: whom we trust, who we are, and what a host that is gone looks like."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from provision.hosts import inventory
from provision.hosts.link import File, HostError, Link, Unreachable
from provision.schema import HostSettings
from tests.hosts.conftest import Project
from tests.hosts.lab import Lab, keygen
from tests.support.polling import until


@contextmanager
def linked(lab: Lab, name: str = "db1", **settings: str) -> Iterator[Link]:
    """A connection to a host of the lab, as root, with its key."""
    given = {"address": lab.hosts[name].address, "user": "root", "key": str(lab.key), **settings}
    known = {name: HostSettings(**given)}  # type: ignore[arg-type]
    lookup = inventory.ssh_config(Path.home() / ".ssh" / "config")
    with closing(Link(inventory.resolve(name, known[name], known, lookup), 5.0)) as link:
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
    from concurrent.futures import ThreadPoolExecutor

    with linked(all_on) as link, ThreadPoolExecutor(20) as pool:
        clients = set(pool.map(lambda _: link.run(["sh", "-c", "echo $SSH_CONNECTION"]).out, range(60)))
    assert len(clients) == 1


def test_connection_that_was_lost_unseen_is_opened_again_before_anything_is_run(
    all_on: Lab, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with linked(all_on) as link:
        link.run(["true"])
        transport = link._transport()
        all_on.hosts["db1"].end("^sshd: root")
        until("the connection to be over", lambda: not transport.is_active())
        monkeypatch.setattr(transport, "is_active", lambda: True)
        assert link.run(["echo", "once"]).out == "once\n"
        # Whoever still had the old one closes that, and not what others have opened since.
        fresh = link._transport()
        link._drop(transport)
        assert link._transport() is fresh


def test_unknown_host_key_is_refused_with_the_command_that_accepts_it(all_on: Lab, trusting: Path) -> None:
    (trusting / ".ssh" / "known_hosts").unlink()
    host = all_on.hosts["db1"]
    with linked(all_on) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "db1" in caught.value.doing
    assert "host key of db1" in caught.value.cause
    assert "SHA256:" in caught.value.cause
    assert f"ssh root@{host.address} true" in caught.value.remedy


def test_changed_host_key_is_refused(all_on: Lab, trusting: Path, tmp_path: Path) -> None:
    keygen(tmp_path / "other")
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    address = all_on.hosts["db1"].address
    (trusting / ".ssh" / "known_hosts").write_text(f"{address} {kind} {key}\n")
    with linked(all_on) as link, pytest.raises(Unreachable) as caught:
        link.run(["true"])
    assert "db1" in caught.value.cause
    assert "not the one on record" in caught.value.cause
    assert f"ssh-keygen -R {address}" in caught.value.remedy


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
    with linked(all_on) as link:
        with pytest.raises(Unreachable, match="connection to db1 was lost"):
            link.script("pkill -KILL -f '^sshd: root' ; sleep 60")
        assert link.run(["echo", "again"]).out == "again\n"
    assert host.listens()


def test_what_is_left_out_is_as_ssh_config_has_it(all_on: Lab, trusting: Path) -> None:
    host = all_on.hosts["db3"]
    (trusting / ".ssh" / "config").write_text(
        f"Host prod-*\n  HostName {host.address}\n  User root\n  IdentityFile {all_on.key}\n"
    )
    known = {"db": HostSettings(address="prod-3")}
    found = inventory.resolve("db", known["db"], known, inventory.ssh_config(trusting / ".ssh" / "config"))
    assert (found.address, found.user, found.keys) == (host.address, "root", (str(all_on.key),))
    with closing(Link(found)) as link:
        assert link.run(["id", "-un"]).out == "root\n"


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
