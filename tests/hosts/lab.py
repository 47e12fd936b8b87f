"""Hosts of their own on this machine: each has a network, processes, a home, a disk and an sshd that no other sees.

A host is a set of Linux namespaces. Its network namespace hangs by a veth pair on a switch: a bridge in a namespace
of its own, where no firewall rule of this machine applies. This machine hangs there, too, and nothing else leads in
or out. Names and subnets are the run's own, so that runs side by side don't meet. Nothing of systemd is in a host.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.support.polling import until

OPERATOR = 1777  # uid of the ordinary user of every host
# Of 10.77.0.0/16; each lab locks the subnet that it takes.
_LOCKS = Path("/run/lock")


@dataclass
class LabHost:
    """One host.

    Args:
        name: its name.
        address: in the lab's subnet.
        folder: what is its own of this machine's disk: ``srv`` is its /srv, ``home`` holds its users' homes.
        namespace: of its network.
        switch: namespace of the switch.
        port: the interface there that it hangs on.
        small_disks: directory → size of the tmpfs that it is, ``"4m"``.
    """

    name: str
    address: str
    folder: Path
    namespace: str
    switch: str
    port: str
    sshd: str
    small_disks: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def srv(self) -> Path:
        """Its /srv, as this machine sees it."""
        return self.folder / "srv"

    @property
    def log(self) -> str:
        """What its sshd said."""
        return (self.folder / "sshd.log").read_text()

    def start(self) -> None:
        """Switch it on."""
        self.connect()
        command = [
            "ip",
            "netns",
            "exec",
            self.namespace,
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        command += ["--mount-proc", sys.executable, str(Path(__file__).with_name("init.py"))]
        record = self.folder / "host.json"
        binds = [(str(self.srv), "/srv"), (str(self.folder / "passwd"), "/etc/passwd")]
        record.write_text(
            json.dumps(
                {
                    "sshd": self.sshd,
                    "config": str(self.folder / "sshd_config"),
                    "log": str(self.folder / "sshd.log"),
                    "binds": binds,
                    "small_disks": self.small_disks,
                }
            )
        )
        with (self.folder / "init.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(record)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(f"sshd of {self.name} to listen", self.listens, detail=(self.folder / "init.log").read_text)

    def stop(self) -> None:
        """Switch it off, as a power failure would: nothing on it gets to say anything."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        self.cut_off()

    def cut_off(self) -> None:
        """Pull its network cable."""
        ip("-n", self.switch, "link", "set", self.port, "down")

    def connect(self) -> None:
        """Plug it in again."""
        ip("-n", self.switch, "link", "set", self.port, "up")

    def listens(self, port: int = 22) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended: {(self.folder / 'init.log').read_text()}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address, port)) == 0

    def run(self, *argv: str) -> str:
        """Run a command on it as root, without SSH: its processes, network and files as it sees them itself."""
        command = ["nsenter", "-t", self.first(), "--net", "--pid", "--mount", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def end(self, pattern: str) -> None:
        """Kill those of its processes whose command line a pattern matches, its sshd's sessions for example."""
        command = ["nsenter", "-t", self.first(), "--pid", "--mount", "pkill", "-KILL", "-f", pattern]
        subprocess.run(command, check=False)

    def first(self) -> str:
        """Its first process, as this machine numbers it."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]

    def listening(self) -> list[tuple[str, int]]:
        """Address and port of every TCP socket that listens."""
        found = []
        for row in self.run("cat", "/proc/net/tcp").splitlines()[1:]:
            _, local, _, state, *_ = row.split()
            address, port = local.split(":")
            if state == "0A":
                found.append((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
        return found

    @contextlib.contextmanager
    def listener(self, port: int) -> Iterator[None]:
        """A foreign program that listens on a port of it."""
        code = f"import socket; s = socket.create_server(('0.0.0.0', {port})); print(flush=True); s.accept()"
        command = ["nsenter", "-t", self.first(), "--net", "--pid", sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            program.stdout.readline()
            try:
                yield
            finally:
                self.end("socket.create_server")
                program.kill()

    def processes(self, program: str) -> list[str]:
        """Command lines of its processes that run a program."""
        lines = self.run("ps", "-eo", "args").splitlines()
        return [line for line in lines if line.split(" ")[0].endswith(program)]


@dataclass
class Lab:
    """Hosts on a bridge.

    Args:
        folder: where their things are.
        subnet: third number of their addresses.
        hosts: by name.
    """

    folder: Path
    subnet: int
    sshd: str
    lock: IO[str]
    hosts: dict[str, LabHost] = field(default_factory=dict)

    @property
    def key(self) -> Path:
        """The private key that every host accepts."""
        return self.folder / "key"

    @property
    def name(self) -> str:
        """Prefix of all namespaces and interfaces, and this machine's own interface."""
        return f"fbh{self.subnet}"

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    @property
    def known_hosts(self) -> str:
        """The host keys of all hosts, as in a known_hosts file."""
        lines = []
        for each in self.hosts.values():
            kind, key, *_ = (each.folder / "host_key.pub").read_text().split()
            lines.append(f"{each.address} {kind} {key}\n")
        return "".join(lines)

    def add(self, name: str, small_disks: dict[str, str] | None = None) -> LabHost:
        """Make a host and switch it on."""
        number = len(self.hosts) + 1
        folder = self.folder / name
        folder.mkdir(parents=True)
        host = LabHost(
            name, f"10.77.{self.subnet}.{number}", folder, f"{self.name}-{name}", self.switch, f"port{number}",
            self.sshd, small_disks or {},
        )  # fmt: skip
        self.hosts[name] = host
        ip("netns", "add", host.namespace)
        ip(
            "-n",
            self.switch,
            "link",
            "add",
            host.port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            host.namespace,
        )
        ip("-n", self.switch, "link", "set", host.port, "master", "bridge", "up")
        ip("-n", host.namespace, "link", "set", "lo", "up")
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.namespace, "link", "set", "eth0", "up")
        self._furnish(host)
        host.start()
        return host

    def _furnish(self, host: LabHost) -> None:
        host.srv.mkdir()
        homes = {
            "root": (0, host.folder / "home" / "root"),
            "operator": (OPERATOR, host.folder / "home" / "operator"),
        }
        passwd = [
            line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[0] not in homes
        ]
        for user, (uid, home) in homes.items():
            (home / ".ssh").mkdir(parents=True, mode=0o700)
            shutil.copy(self.key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
            for path in (home, home / ".ssh", home / ".ssh" / "authorized_keys"):
                os.chown(path, uid, uid)
            passwd.append(f"{user}:x:{uid}:{uid}::{home}:/bin/sh")
        (host.folder / "passwd").write_text("\n".join(passwd) + "\n")
        keygen(host.folder / "host_key")
        (host.folder / "sshd_config").write_text(
            f"Port 22\nListenAddress {host.address}\nHostKey {host.folder / 'host_key'}\n"
            "PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nLogLevel ERROR\n"
        )

    @contextlib.contextmanager
    def serving(self, folder: Path) -> Iterator[str]:
        """A web server on this machine that the hosts reach; yields its address."""

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Nothing is shown."""

        handler = functools.partial(Quiet, directory=str(folder))
        with http.server.ThreadingHTTPServer((f"10.77.{self.subnet}.254", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://{server.server_address[0]}:{server.server_port}"  # type: ignore[str-bytes-safe]
            finally:
                server.shutdown()
                thread.join()

    def close(self) -> None:
        """Switch all hosts off and take the network away."""
        for host in self.hosts.values():
            with contextlib.suppress(Exception):
                host.stop()
            ip("netns", "delete", host.namespace, check=False)
        ip("netns", "delete", self.switch, check=False)
        ip("link", "delete", self.name, check=False)
        self.lock.close()


@contextlib.contextmanager
def lab(folder: Path, sshd: str, names: Sequence[str]) -> Iterator[Lab]:
    """Hosts for the length of the block.

    Args:
        folder: where their things are; users of the hosts must be able to pass through it.
        sshd: the binary.
        names: of the hosts.
    """
    subnet, lock = _take_subnet()
    made = Lab(folder, subnet, sshd, lock)
    try:
        keygen(made.key)
        _clear(made.name)
        ip("netns", "add", made.switch)
        ip("-n", made.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", made.switch, "link", "set", "bridge", "up")
        ip("link", "add", made.name, "type", "veth", "peer", "name", "port0", "netns", made.switch)
        ip("-n", made.switch, "link", "set", "port0", "master", "bridge", "up")
        ip("address", "add", f"10.77.{subnet}.254/24", "dev", made.name)
        ip("link", "set", made.name, "up")
        for name in names:
            made.add(name)
        yield made
    finally:
        made.close()


def _take_subnet() -> tuple[int, IO[str]]:
    """A subnet that no other run uses; the lock goes with the process that holds it."""
    for number in range(1, 200):
        lock = (_LOCKS / f"flaskbook-hosts-{number}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number, lock
        except BlockingIOError:
            lock.close()
    raise AssertionError("199 labs are in use")


def _clear(prefix: str) -> None:
    """What a run that was killed left of the subnet whose lock we now hold."""
    for line in ip("netns", "list").splitlines():
        name = line.split(" ")[0]
        if name.startswith(f"{prefix}-"):
            for pid in ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", name)
    ip("link", "delete", prefix, check=False)


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
