"""What `hosts.check` says of a host, from facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.core.finding import Finding, Level
from provision.hosts.facts import Facts, parse
from provision.hosts.inventory import Host
from provision.hosts.judge import Wanted, judge

GOOD = Facts(
    system="Linux",
    machine="x86_64",
    distribution="Debian GNU/Linux 12",
    libc="glibc 2.36",
    avx=True,
    processors=4,
    memory=16000,
    available=12000,
    user="mongo",
    root=False,
    sudo=False,
    home="/home/mongo",
    data_dir="/srv/mongodb",
    exists=True,
    writable=True,
    free=50_000,
    size=100_000,
    clock=0.05,
    round_trip=0.1,
    files=1_048_576,
    huge_pages="madvise",
    listening=frozenset({22}),
    ours=frozenset(),
    systemd="user",
    missing=(),
    python="3.12.1",
)
HOST = Host(name="db1", address="192.0.2.11")
WANTED = Wanted(3, (27300, 27320, 27350), app=True)


def judged(**changes: object) -> dict[str, Finding]:
    facts = replace(GOOD, **changes)  # type: ignore[arg-type]
    return {each.check: each for each in judge(facts, HOST, WANTED, "x86_64")}


def test_good_host_has_nothing_to_mend() -> None:
    assert {each.level for each in judged().values()} == {Level.OK}


@pytest.mark.parametrize(
    ("check", "changes", "level", "told", "remedy"),
    [
        ("system", {"system": "Darwin"}, Level.ERROR, "Darwin", "Linux"),
        ("system", {"machine": "aarch64"}, Level.ERROR, "aarch64", "architecture"),
        ("system", {"libc": ""}, Level.ERROR, "glibc", "distribution"),
        ("processor", {"avx": False}, Level.ERROR, "AVX", "processor type"),
        ("python", {"python": ""}, Level.ERROR, "no Python called python3", "hosts.db1.python"),
        ("python", {"python": "3.9.2"}, Level.ERROR, "the app needs 3.11", "hosts.db1.python"),
        ("rights", {"writable": False}, Level.ERROR, "sudo without a password", "sudo install -d"),
        ("rights", {"writable": False, "sudo": True}, Level.ERROR, "may not write", "sudo install -d"),
        ("disk", {"free": 100}, Level.ERROR, "100 MB", "Free some space"),
        ("disk", {"free": 1200}, Level.WARNING, "1500 MB are wanted", "Free some space"),
        ("memory", {"available": 300}, Level.ERROR, "3 nodes need about 450 MB", "more hosts"),
        ("clock", {"clock": 12.0}, Level.WARNING, "12.0 s ahead", "set-ntp"),
        ("clock", {"clock": -400.0}, Level.ERROR, "400.0 s behind", "set-ntp"),
        (
            "ports",
            {"listening": frozenset({22, 27320})},
            Level.ERROR,
            "port 27320 is taken",
            "sport = :27320",
        ),
        ("open files", {"files": 4096}, Level.WARNING, "4096", "limits.conf"),
        ("tools", {"missing": ("tar",)}, Level.ERROR, "no tar", "apt-get install tar"),
    ],
)
def test_each_lack_has_its_remedy(
    check: str, changes: dict[str, object], level: Level, told: str, remedy: str
) -> None:
    found = judged(**changes)[check]
    assert found.level is level
    assert told in found.what
    assert remedy in found.remedy


def test_a_port_of_our_own_node_is_not_in_the_way() -> None:
    assert judged(listening=frozenset({22, 27320}), ours=frozenset({27320}))["ports"].level is Level.OK


def test_a_slow_line_is_not_taken_for_a_wrong_clock() -> None:
    assert judged(clock=2.8, round_trip=1.5)["clock"].level is Level.OK


def test_directory_that_sudo_can_make_is_no_error() -> None:
    assert judged(writable=False, exists=False, sudo=True)["rights"].level is Level.OK


def test_units_that_were_asked_for_must_be_there() -> None:
    facts = replace(GOOD, systemd="")
    found = {each.check: each for each in judge(facts, replace(HOST, units="user"), WANTED, "x86_64")}
    assert found["units"].level is Level.ERROR
    assert "enable-linger mongo" in found["units"].remedy


def test_answer_of_the_script_is_understood() -> None:
    answer = """clock=1000.5
system=Linux
machine=x86_64
distribution=Debian GNU/Linux 12 (bookworm)
libc=glibc 2.36
avx=yes
processors=2
memory=2048000
available=1024000
user=mongo
uid=1000
home=/home/mongo
sudo=no
data_dir=/srv/a=b
exists=no
writable=yes
size=1024000
free=512000
files=unlimited
huge_pages=always
tcp=0: 0100007F:6989 00000000:0000 0A 00000000:00000000 00:00000000 00000000
tcp=0: 00000000000000000000000000000000:0016 0000:0000 0A 0
ours=27017
ours=
systemd=system
python=
missing=setsid
"""
    facts = parse(answer, 1000.0, 1000.2)
    assert (facts.clock, facts.data_dir, facts.files, facts.root) == (0.5, "/srv/a=b", None, False)
    assert facts.listening == {27017, 22}
    assert facts.ours == {27017}
    assert (facts.memory, facts.free, facts.missing, facts.python) == (2000, 500, ("setsid",), "")


def test_something_else_is_no_answer() -> None:
    with pytest.raises((KeyError, ValueError)):
        parse("Welcome to db1!\n", 0, 0)
