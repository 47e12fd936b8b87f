"""What others could get of hosts: from their ports, where only sshd's may answer strangers, and from command lines."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping

import pytest

from provision.mongodb.credentials import Credentials
from provision.mongodb.wire import CommandFailed, Connection, NotReachable
from tests.hosts.lab import Lab, LabHost
from tests.support.capabilities import ROOT

LOOPBACK = ("127.0.0.1", "::1")
_SSHD = 22
_REFUSED = (13, 18)  # Unauthorized, AuthenticationFailed
_COMMANDS: tuple[Mapping[str, object], ...] = (
    {"listDatabases": 1},
    {"find": "user"},
    {"insert": "user", "documents": [{"_id": 1}]},
    {"serverStatus": 1},
    {"getLog": "global"},
    {"shutdown": 1},
)
# Runs in a host's own network: prints the ports whose loopback address answers a plain-text MongoDB command.
_PLAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from provision.mongodb.wire import Connection, NotReachable
answers = []
for address, port in json.loads(sys.argv[2]):
    try:
        with Connection(address, port, 5.0) as plain:
            plain.command("admin", {"hello": 1})
    except NotReachable:
        continue
    answers.append(port)
print(json.dumps(answers))
"""


def open_ports(host: LabHost) -> set[int]:
    """The ports of a host that others reach, but for sshd's; each is on the host's own address and no wider one."""
    listening = [(address, port) for address, port in host.listening() if address not in LOOPBACK]
    assert {address for address, _ in listening} <= {host.address}, f"{host.name} listens wider: {listening}"
    return {port for _, port in listening} - {_SSHD}


def assert_every_port_is_locked(lab: Lab, context: ssl.SSLContext) -> dict[str, set[int]]:
    """No port of a host but sshd's takes a plain connection, or does anything for nobody or a stranger.

    Args:
        lab: the hosts.
        context: trusts the deployment's authority.

    Returns:
        Host name → its ports that others reach, sshd's left out.
    """
    found = {}
    for host in lab.hosts.values():
        found[host.name] = open_ports(host)
        for port in found[host.name]:
            _assert_locked(host.address, port, context)
        local = [each for each in host.listening() if each[0] in LOOPBACK]
        answering = host.run(sys.executable, "-c", _PLAIN, str(ROOT), json.dumps(local))
        assert json.loads(answering) == [], f"{host.name} answers plain text on its loopback address"
    return found


def _assert_locked(address: str, port: int, context: ssl.SSLContext) -> None:
    with pytest.raises(NotReachable), Connection(address, port, 5.0) as plain:
        plain.command("admin", {"hello": 1})
    for command in _COMMANDS:
        with Connection(address, port, 5.0, tls=context) as nobody:
            with pytest.raises(CommandFailed) as refused:
                nobody.command("admin", dict(command))
            assert refused.value.code in _REFUSED, f"{address}:{port} {command}: {refused.value}"
    with pytest.raises(CommandFailed) as refused:
        Connection(address, port, 5.0, Credentials("app", "guessed", "admin"), context)
    assert refused.value.code in _REFUSED
    with pytest.raises(NotReachable, match="certificate"):
        Connection(address, port, 5.0, tls=ssl.create_default_context())


@contextlib.contextmanager
def command_lines() -> Iterator[set[str]]:
    """Every command line, of this machine and of the hosts on it, that is seen during the block; known when it ends."""
    seen: set[str] = set()
    raw: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with os.scandir("/proc") as entries:
                for each in entries:
                    if each.name.isdigit():
                        with contextlib.suppress(OSError):
                            raw.add(_content(f"{each.path}/cmdline"))
            over.wait(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
        seen |= {each.replace(b"\0", b" ").decode(errors="replace") for each in raw}


def _content(path: str) -> bytes:
    """What a file holds, at the least expense: this is asked of every process, many times a second."""
    file = os.open(path, os.O_RDONLY)
    try:
        content = b""
        while more := os.read(file, 1 << 16):
            content += more
        return content
    finally:
        os.close(file)
