"""Hosts of their own on this machine: each has a network, processes, a home, a disk and an sshd that no other sees.

A host is a set of Linux namespaces. Its network namespace hangs by a veth pair on a switch: a bridge in a namespace
of its own, where no firewall rule of this machine applies. This machine hangs there, too, and nothing else leads in
or out. Names and subnets are the run's own, so that runs side by side don't meet. A host has nothing of systemd, unless
it is asked for: then systemd is its first process, with units and a cgroup of its own; and where it is to linger, its
ordinary user's own systemd is started with the host, as `loginctl enable-linger` would have it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.server
import json
import os
import re
import shlex
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
# Where something would be left behind beside a data directory: units, jobs, programs. Of these a host has /srv,
# /run and its users' homes to itself.
_KEPT_CLEAN = (
    "/etc",
    "/opt",
    "/run",
    "/srv",
    "/var/lib/systemd",
    "/var/spool",
    "/usr/local/bin",
    "/usr/local/sbin",
)
SYSTEMD = Path("/usr/lib/systemd/systemd")
_USER_MANAGER = f"user@{OPERATOR}.service"
_GET = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=20)
except urllib.error.HTTPError as error:
    answer = error
except OSError:
    sys.exit(print(0))
print(answer.status, answer.read().decode(), sep="\\n")
"""
# Kills the processes that hold an established connection to a port ($1), and no listening socket: sshd itself stays.
_CUT = """
import os, re, signal, sys
port, sockets = f"{int(sys.argv[1]):04X}", {"01": set(), "0A": set()}
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for row in open(table).read().splitlines()[1:]:
        _, local, _, state, *rest = row.split()
        if local.endswith(":" + port) and state in sockets:
            sockets[state].add(f"socket:[{rest[5]}]")
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        continue
    if held & sockets["01"] and not held & sockets["0A"]:
        found.append(int(pid))
for pid in found:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
print(len(found))
"""
# What an sshd calls the processes of its connections: since OpenSSH 9.8 they are a program of their own.
_CONNECTION = re.compile(r"\[?(sshd|sshd-session|sshd-auth)(: (?!.*\[listener\])|\]|$)")
_CLIENT = """#!/bin/sh
exec unshare --mount sh -c '
    mount --bind "$0" /etc/passwd || exit
    exec "$@"
' PASSWD CLIENT "$@"
"""
# All that a systemd needs to run the units of a tool, and nothing that would start anything else of this machine.
_TARGETS = {
    "sysinit.target": "",
    "basic.target": "Requires=sysinit.target\nAfter=sysinit.target\n",
    "network-online.target": "",
    "shutdown.target": "DefaultDependencies=no\n",
    "multi-user.target": "Requires=basic.target\nWants=sshd.service\nAfter=basic.target\n",
    "default.target": "Requires=multi-user.target\nAfter=multi-user.target\n",
}


@dataclass(frozen=True)
class Seen:
    """What could be found of a tool on a host.

    Args:
        files: where a tool might leave some, but for what was left out.
        processes: command lines, but for connections that come and go.
        listening: address and port of every TCP socket that listens.
    """

    files: frozenset[str]
    processes: tuple[str, ...]
    listening: tuple[tuple[str, int], ...]

    def changes(self, later: Seen) -> list[str]:
        """What another look found more (+) or less (-)."""
        pairs = (
            (self.files, later.files),
            (self.processes, later.processes),
            (self.listening, later.listening),
        )
        before, after = ({str(each) for kind in side for each in kind} for side in zip(*pairs, strict=True))
        return sorted(f"+ {each}" for each in after - before) + sorted(f"- {each}" for each in before - after)


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
        systemd: its first process is systemd.
        lingering: its ordinary user has a systemd of his own there, too.
    """

    name: str
    address: str
    folder: Path
    namespace: str
    switch: str
    port: str
    sshd: str
    small_disks: dict[str, str] = field(default_factory=dict)
    systemd: bool = False
    lingering: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def srv(self) -> Path:
        """Its /srv, as this machine sees it."""
        return self.folder / "srv"

    @property
    def log(self) -> str:
        """What its sshd said."""
        return (self.folder / "sshd.log").read_text()

    @property
    def cgroup(self) -> Path | None:
        """Of its systemd, as this machine sees it; None where it has none."""
        return cgroups() / self.namespace if self.systemd else None

    def start(self) -> None:
        """Switch it on."""
        self.connect()
        unshared = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if self.cgroup is not None:
            unshared.append("--uts")
            self.cgroup.mkdir(exist_ok=True)
        init = [sys.executable, str(Path(__file__).with_name("init.py"))]
        command = ["ip", "netns", "exec", self.namespace, "unshare", *unshared, *init]
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
                    "systemd": str(SYSTEMD) if self.systemd else None,
                    "folder": str(self.folder),
                    "cgroup": self.cgroup.name if self.cgroup else None,
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
        if self.cgroup is not None:
            until(f"the processes of {self.name} to be gone", functools.partial(_removed, self.cgroup))
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

    def cut_connections(self, none_will_do: bool = False) -> int:
        """Kill what holds an open connection to its sshd, whatever that OpenSSH calls these processes.

        Args:
            none_will_do: it is no mistake of the test if there is none at this moment.

        Returns:
            How many processes that were.
        """
        killed = int(self.run(sys.executable, "-c", _CUT, "22"))
        assert killed or none_will_do, f"nobody is connected to the sshd of {self.name}"
        return killed

    def end(self, pattern: str) -> None:
        """Kill those of its processes whose command line a pattern matches."""
        command = ["nsenter", "-t", self.first(), "--pid", "--mount", "pkill", "-KILL", "-f", pattern]
        subprocess.run(command, check=False)

    def first(self) -> str:
        """Its first process, as this machine numbers it."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]

    def listening(self) -> list[tuple[str, int]]:
        """Address and port of every TCP socket that listens."""
        found = []
        for row in self.run("sh", "-c", "cat /proc/net/tcp /proc/net/tcp6").splitlines():
            _, local, _, state, *_ = row.split()
            if state == "0A":
                address, port = local.split(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
                found.append((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
        return found

    def seen(self, leaving_out: str) -> Seen:
        """What could be found of a tool on it.

        Args:
            leaving_out: a directory that is the tool's own.
        """
        places = [*_KEPT_CLEAN, str(self.folder / "home")]
        # What a systemd notes of itself is not ours; it tells its units.
        own = ["(", "-path", leaving_out, "-o", "-path", "/run/systemd", ")", "-prune"]
        files = self.run("find", *places, *own, "-o", "-print").splitlines()
        lines = self.run("ps", "-ewwo", "args", "--no-headers").splitlines()
        # One that is about to end has its program's name alone, in brackets.
        lasting = [line for line in lines if not line.startswith("ps ") and not _CONNECTION.match(line)]
        return Seen(frozenset(files), tuple(sorted(lasting)), tuple(sorted(self.listening())))

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Ask over HTTP on its loopback address: status and body, status 0 where nothing answers."""
        said = self.run(sys.executable, "-c", _GET, f"http://127.0.0.1:{port}{path}")
        status, _, body = said.partition("\n")
        return int(status), body

    @contextlib.contextmanager
    def running(self, *argv: str) -> Iterator[None]:
        """A program that runs on it, as root and without SSH, from its first line of output to the end of the block."""
        command = ["nsenter", "-t", self.first(), "--net", "--pid", "--mount", *argv]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            program.stdout.readline()
            try:
                yield
            finally:
                self.end(re.escape(" ".join(argv[1:])))
                program.kill()

    def listener(self, port: int) -> contextlib.AbstractContextManager[None]:
        """A foreign program that listens on a port of it."""
        code = f"import socket; s = socket.create_server(('0.0.0.0', {port})); print(flush=True); s.accept()"
        return self.running(sys.executable, "-c", code)

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

    def add(
        self,
        name: str,
        small_disks: dict[str, str] | None = None,
        systemd: bool = False,
        lingering: bool = False,
    ) -> LabHost:
        """Make a host and switch it on."""
        number = len(self.hosts) + 1
        folder = self.folder / name
        folder.mkdir(parents=True)
        host = LabHost(
            name, f"10.77.{self.subnet}.{number}", folder, f"{self.name}-{name}", self.switch, f"port{number}",
            self.sshd, small_disks or {}, systemd, lingering,
        )  # fmt: skip
        self.hosts[name] = host
        ip("netns", "add", host.namespace)
        peer = ("peer", "name", "eth0", "netns", host.namespace)
        ip("-n", self.switch, "link", "add", host.port, "type", "veth", *peer)
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
        if host.systemd:
            self._furnish_systemd(host)
        (host.folder / "sshd_config").write_text(
            f"Port 22\nListenAddress {host.address}\nHostKey {host.folder / 'host_key'}\n"
            "PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nLogLevel VERBOSE\n"
        )

    def _furnish_systemd(self, host: LabHost) -> None:
        """Its units: targets and sshd, in place of all those of this machine; what is enabled outlasts a restart."""
        (host.folder / "etc-systemd" / "system").mkdir(parents=True)
        (host.folder / "generators").mkdir()
        units = host.folder / "units"
        units.mkdir()
        for name, lines in _TARGETS.items():
            (units / name).write_text(f"[Unit]\nDescription={name}\n{lines}")
        command = f"{host.sshd} -D -e -f {host.folder / 'sshd_config'}"
        (units / "sshd.service").write_text(
            "[Unit]\nDescription=sshd\n[Service]\nType=exec\nExecStartPre=mkdir -p /run/sshd\n"
            f"ExecStart={command}\nStandardError=append:{host.folder / 'sshd.log'}\n"
        )
        linger = host.folder / "var-lib-systemd" / "linger"
        linger.mkdir(parents=True)
        if host.lingering:
            (linger / "operator").touch()
            runtime = f"/run/user/{OPERATOR}"
            (units / _USER_MANAGER).write_text(
                f"[Unit]\nDescription=systemd of operator\n[Service]\nType=notify\nUser={OPERATOR}\nDelegate=yes\n"
                f"ExecStartPre=+install -d -m 0700 -o {OPERATOR} -g {OPERATOR} {runtime}\n"
                f"Environment=XDG_RUNTIME_DIR={runtime}\nExecStart={SYSTEMD} --user --log-target=null\nKillMode=mixed\n"
            )
            with (units / "multi-user.target").open("a") as target:
                target.write(f"Wants={_USER_MANAGER}\n")

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
def lab(
    folder: Path, sshd: str, names: Sequence[str], systemd: bool = False, lingering: bool = False
) -> Iterator[Lab]:
    """Hosts for the length of the block.

    Args:
        folder: where their things are; users of the hosts must be able to pass through it.
        sshd: the binary.
        names: of the hosts.
        systemd: they run it.
        lingering: so does their ordinary user.
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
            made.add(name, systemd=systemd, lingering=lingering)
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


def cgroups() -> Path:
    """Where this machine has its cgroups of version 2 mounted, alone or beside those of version 1.

    Raises:
        FileNotFoundError: nowhere.
    """
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise FileNotFoundError("no cgroup2 file system is mounted")


def _removed(cgroup: Path) -> bool:
    """Whether a cgroup and those in it could be removed: none of their processes is left."""
    try:
        for each in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            each.rmdir()
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def client_at_home(home: Path) -> Path:
    """A folder with an `ssh` for the PATH: the machine's own, for which another directory is the user's home.

    OpenSSH takes that from the user database alone. So it sees another one, in a mount namespace of its own.
    """
    client = shutil.which("ssh")
    assert client is not None
    folder = home / "bin"
    folder.mkdir()
    passwd = folder / "passwd"
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    seen = [[*user[:5], str(home), *user[6:]] if user[2] == str(os.getuid()) else user for user in users]
    passwd.write_text("".join(":".join(user) + "\n" for user in seen))
    ssh = folder / "ssh"
    ssh.write_text(_CLIENT.replace("PASSWD", shlex.quote(str(passwd))).replace("CLIENT", shlex.quote(client)))
    ssh.chmod(0o755)
    return folder


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
