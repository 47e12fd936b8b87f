"""What is so on a host: read by one script, over one connection, changing nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping

from provision.core.dataclass import dataclass
from provision.hosts.link import HostError, Link
from provision.hosts.scripts import script

_READ_SECONDS = 20.0
_LISTENING = "0A"
TOOLS = ("tar", "sha256sum", "setsid", "tail")


@dataclass(frozen=True)
class Facts:
    """A host as it was found."""

    system: str  # ``Linux``
    machine: str  # ``x86_64``
    distribution: str  # its name for people; empty: not known
    libc: str  # ``glibc 2.36``; empty: not known
    avx: bool | None  # its processor has AVX; None: not known
    processors: int  # how many it has
    memory: int  # MB in all
    available: int  # MB that are available
    user: str  # who we are there
    root: bool  # that is root
    sudo: bool  # that user may use sudo without a password
    home: str  # that user's home directory
    data_dir: str  # `data_dir`, absolute
    exists: bool  # it is there
    writable: bool  # it, or where it would be made, can be written
    free: int  # MB free there
    size: int  # MB of that file system
    clock: float  # seconds that its clock is ahead of this machine's
    round_trip: float  # seconds that the question took; the clock is known no better than half of that
    files: int | None  # most files that a process may have open
    huge_pages: str  # transparent huge pages: ``always``, ``madvise``, ``never``; empty: not known
    listening: frozenset[int]  # TCP ports in use there
    ours: frozenset[int]  # those of them that programs listen on which this tool has started
    systemd: str  # ``system``, ``user`` or empty: where units of this user can run, beyond his session
    missing: tuple[str, ...]  # tools that it lacks
    python: str  # version of its Python; empty: none


def read(link: Link) -> Facts:
    """Ask a host.

    Raises:
        Unreachable: it can't be asked.
        HostError: it answered something else.
    """
    link.run(["true"])  # the connection is there: what follows measures the clock alone
    before = time.time()
    ran = link.script(
        script("facts.sh"), str(link.host.data_dir), link.host.python, *TOOLS, timeout=_READ_SECONDS
    )
    after = time.time()
    try:
        return parse(ran.out, before, after)
    except (KeyError, ValueError) as problem:
        raise HostError(
            f"looking at {link.host.name}",
            f"{link.host.name} ({link.host.address}) gave no understandable answer ({ran.said or problem}).",
            f"It must be Linux with a POSIX shell. Look there: {link.host.ssh}.",
        ) from None


def parse(text: str, before: float, after: float) -> Facts:
    """What the script printed, as facts. Pure.

    Args:
        text: lines ``key=value``; keys may repeat.
        before: this machine's clock when it was asked, in seconds since 1970.
        after: and when the answer was complete.

    Raises KeyError, ValueError: it is not an answer of the script.
    """
    lines = [line.partition("=") for line in text.splitlines() if "=" in line]
    one: Mapping[str, str] = {key: value for key, _, value in lines}
    many = [(key, value) for key, _, value in lines]
    # It says its time first, so it was asked at about `before`, plus half of the way.
    clock = float(one["clock"]) - before
    files = one["files"]
    return Facts(
        system=one["system"],
        machine=one["machine"],
        distribution=one.get("distribution", "").strip('"'),
        libc=one.get("libc", ""),
        avx={"yes": True, "no": False}.get(one["avx"]),
        processors=int(one["processors"]),
        memory=int(one["memory"]) // 1024,
        available=int(one["available"]) // 1024,
        user=one["user"],
        root=one["uid"] == "0",
        sudo=one["sudo"] == "yes",
        home=one["home"],
        data_dir=one["data_dir"],
        exists=one["exists"] == "yes",
        writable=one["writable"] == "yes",
        free=int(one["free"]) // 1024,
        size=int(one["size"]) // 1024,
        clock=clock,
        round_trip=after - before,
        files=None if files == "unlimited" else int(files),
        huge_pages=one.get("huge_pages", ""),
        listening=frozenset(_ports(value for key, value in many if key == "tcp")),
        ours=frozenset(int(value) for key, value in many if key == "ours" and value.isdigit()),
        systemd=one.get("systemd", ""),
        missing=tuple(value for key, value in many if key == "missing"),
        python=one.get("python", ""),
    )


def _ports(rows: object) -> list[int]:
    """Listening ports from lines of /proc/net/tcp and tcp6."""
    ports = []
    for row in rows:  # type: ignore[attr-defined]
        fields = row.split()
        if len(fields) > 3 and fields[3] == _LISTENING:
            ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports
