"""One SSH connection to one host, over which everything that is done there goes.

Fabric logs in at each hop of the way that `inventory` has worked out. Every command is a channel of the same
connection, opened from any thread. A command is a list of arguments, or a script with arguments: quoted here and nowhere
else. Content, and secrets above all, goes through standard input, never into an argument that `ps` would show.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.hosts import ssh
from provision.hosts.inventory import Hop, Host
from provision.hosts.scripts import script

T = TypeVar("T")
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 60.0
_KEEPALIVE_SECONDS = 5
_PROXY_SECONDS = 0.5
_NO_CHANNEL = "Unable to open channel."  # how paramiko says so
_NO_KEY = "No authentication methods available"  # how paramiko says so
# sshd allows ten sessions of a connection (MaxSessions), and some are left for logs that are followed. One that is
# over counts until sshd has seen that.
_SESSIONS = 6
_SESSION_POLL_SECONDS = 0.02
_WINDOW_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
# After a host did not answer, it is not asked again for as long as that took, and for this long at least.
_GIVEN_UP_SECONDS = 3.0
_PROHIBITED = 1  # RFC 4254, 5.1: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED


class HostError(ProvisionError):
    """Something is wrong with one host, which the message names."""


class Unreachable(HostError):
    """No command can be run there now."""


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int  # its exit status
    out: str  # what it printed
    err: str  # what it printed on standard error

    @property
    def said(self) -> str:
        """The last line of what it said about itself."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.status}"


@dataclass(frozen=True)
class File:
    """A file to be put on a host."""

    name: str  # its name, or relative path, in the directory it goes to
    content: bytes  # its bytes
    mode: int  # its permission bits


class Link:
    """The connection to one host; opened by the first command, and again after it was lost.

    Args:
        connect_seconds: how long it may take to answer.
    """

    def __init__(self, host: Host, connect_seconds: float = CONNECT_SECONDS) -> None:
        self.host = host
        self._connect_seconds = connect_seconds
        self._guard = threading.Lock()
        self._sessions = threading.BoundedSemaphore(_SESSIONS)
        self._connections: list[Any] = []
        self._proxy: _Proxy | None = None
        self._given_up: tuple[float, Unreachable] | None = None

    def run(
        self,
        argv: Sequence[str],
        feed: bytes | IO[bytes] = b"",
        timeout: float = COMMAND_SECONDS,
        fed: Callable[[int], None] = lambda _: None,
    ) -> Ran:
        """Run a command to its end.

        Args:
            argv: program and arguments; no secrets.
            feed: what it reads from standard input.
            timeout: seconds without any progress after which it is given up.
            fed: told how many bytes of `feed` have been sent.

        Raises Unreachable: the host does not answer, refuses us, or the connection was lost.
        """
        import paramiko

        with self._sessions:
            channel = self._channel(timeout)
            try:
                with contextlib.closing(channel):
                    channel.exec_command(shlex.join(argv))
                    self._feed(channel, feed, fed)
                    out, err = _read(channel)
                    return Ran(self._status(channel, timeout), out, err)
            except (paramiko.SSHException, OSError, EOFError) as problem:
                self._drop(channel.get_transport())
                raise self._lost(problem) from problem

    def script(
        self, text: str, *arguments: str, feed: bytes | IO[bytes] = b"", timeout: float = COMMAND_SECONDS
    ) -> Ran:
        """Run a POSIX shell script, whatever the user's own shell is.

        Args:
            text: the script; its arguments are ``$1`` and so on.
            arguments: they are quoted here; no secrets.
            feed: what it reads from standard input.
            timeout: seconds without any progress after which it is given up.

        Raises Unreachable: as `run`.
        """
        return self.run(["sh", "-c", text, "provision", *arguments], feed, timeout)

    def lines(self, argv: Sequence[str]) -> Iterator[str]:
        """A command's lines as they come, until it ends or the caller stops asking.

        Raises Unreachable: as `run`.
        """
        import paramiko

        rest = b""
        channel = self._channel(None)
        try:
            with contextlib.closing(channel):
                channel.exec_command(shlex.join(argv))
                end_input(channel)
                while part := channel.recv(_CHUNK_BYTES):
                    *complete, rest = (rest + part).split(b"\n")
                    yield from (line.decode(errors="replace") for line in complete)
        except (paramiko.SSHException, OSError, EOFError) as problem:
            self._drop(channel.get_transport())
            raise self._lost(problem) from problem

    def channel_to(self, address: tuple[str, int], origin: tuple[str, int]) -> Any:
        """A connection that the host makes, as a channel with `recv` and `sendall` (``direct-tcpip``, RFC 4254, 7.2).

        Args:
            address: address and port, as the host reaches them.
            origin: address and port of the program here that it is for.

        Raises:
            HostError: its sshd forwards nothing.
            ConnectionRefusedError: nothing listens there.
            Unreachable: as `run`.
        """
        import paramiko

        transport = self._transport()
        try:
            return transport.open_channel("direct-tcpip", address, origin, timeout=self._connect_seconds)
        except paramiko.ChannelException as refused:
            if refused.code != _PROHIBITED:
                raise ConnectionRefusedError(refused.text) from None
            raise HostError(
                f"opening a tunnel to {self.host.name}",
                f"The sshd of {self.host.name} ({self.host.address}) forwards no connections.",
                "Set AllowTcpForwarding to yes (or local) in /etc/ssh/sshd_config there, and reload sshd.",
            ) from None
        except (paramiko.SSHException, OSError, EOFError) as problem:
            self._drop(transport)
            raise self._lost(problem) from problem

    def put(self, directory: str, files: Sequence[File], doing: str) -> None:
        """Put files into a directory of the host: written under a temporary name, then moved into place.

        Args:
            directory: it is made, for its user alone, where missing.
            files: they travel over standard input, all at once.

        Raises:
            HostError: it can't be written, or the disk is full; no half of a file is left in place.
            Unreachable: as `run`.
        """
        ran = self.script(script("put.sh"), directory, feed=archive(files))
        if ran.status != 0:
            raise self.failed(doing, ran, directory)

    def failed(self, doing: str, ran: Ran, directory: str) -> HostError:
        """The error for a command that could not write, naming the host and what stopped it."""
        said, name = ran.err + ran.out, self.host.name
        if is_full(ran):
            return HostError(
                f"{doing} on {name}",
                f"The disk of {name} ({self.host.address}) that holds {directory} is full.",
                f"Free some space there, or choose another directory: hosts.{name}.data_dir in invoke.yaml.\n"
                "Then type the command again: it goes on where it was stopped.",
            )
        if "Permission denied" in said or "Read-only file system" in said:
            return HostError(
                f"{doing} on {name}",
                f"{directory} on {name} ({self.host.address}) can't be written: {ran.said}",
                f"Give {self.host.user or 'the user'} rights to it there, or choose another directory: "
                f"hosts.{name}.data_dir in invoke.yaml.",
            )
        return HostError(
            f"{doing} on {name}",
            f"{name} ({self.host.address}) says: {ran.said}",
            f"Look there: {self.host.ssh}. `invoke hosts.check` says what it lacks.",
        )

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        with self._guard:
            self._given_up = None
            self._close()

    def _channel(self, timeout: float | None) -> Any:
        """A channel for a command. A connection that turns out to be lost before there is one is opened again, once."""
        import paramiko

        transport = self._transport()
        asked = time.monotonic()
        try:
            return self._session(transport, timeout)
        except (paramiko.SSHException, OSError, EOFError) as problem:
            self._drop(transport)
            if time.monotonic() - asked >= self._connect_seconds:  # it would only take as long again
                raise self._lost(problem) from problem
        transport = self._transport()
        try:
            return self._session(transport, timeout)
        except (paramiko.SSHException, OSError, EOFError) as problem:
            self._drop(transport)
            raise self._lost(problem) from problem

    def _session(self, transport: Any, timeout: float | None) -> Any:
        import paramiko

        deadline = time.monotonic() + self._connect_seconds
        while True:
            try:
                channel = transport.open_session(window_size=_WINDOW_BYTES, timeout=self._connect_seconds)
            except paramiko.SSHException as refusal:
                # Too many sessions at once. Of several refusals at the same time, paramiko tells one thread which it was.
                refused = isinstance(refusal, paramiko.ChannelException) or str(refusal) == _NO_CHANNEL
                if not refused or not transport.is_active() or time.monotonic() > deadline:
                    raise
                time.sleep(_SESSION_POLL_SECONDS)
            else:
                channel.settimeout(timeout)
                return channel

    def _transport(self) -> Any:
        with self._guard:
            if self._connections:
                transport = self._connections[0].transport
                if transport is not None and transport.is_active():
                    return transport
                self._close()
            begun = time.monotonic()
            if self._given_up is not None and begun < self._given_up[0]:
                known = self._given_up[1]
                raise Unreachable(known.doing, known.cause, known.remedy)
            try:
                self._open()
            except Unreachable as problem:
                now = time.monotonic()
                self._given_up = (now + max(_GIVEN_UP_SECONDS, now - begun), problem)
                self._close()
                raise
            self._given_up = None
            return self._connections[0].transport

    def _open(self) -> None:
        before = None
        for hop in (*self.host.via, self.host):
            connection = self._connection(hop)
            # The host itself is first, what it is reached through after it.
            self._connections.insert(0, connection)
            self._connect(connection, hop, before)
            before = connection.transport

    def _connection(self, to: Hop) -> Any:
        import logging

        import fabric
        import paramiko

        # It logs what it raises, and Python shows that on standard error where nobody else takes it.
        logging.getLogger("paramiko").addHandler(logging.NullHandler())
        # What ~/.ssh/config says is in the hop already; Fabric would read it once more.
        config = fabric.Config(overrides={"load_ssh_configs": False})
        # The name and port are those that the host's key is known by; the socket leads where it leads.
        connection = fabric.Connection(
            to.known_as or to.address,
            user=to.user,
            port=ssh.PORT if to.known_as else to.port,
            config=config,
            connect_timeout=int(self._connect_seconds),
            connect_kwargs={
                "banner_timeout": self._connect_seconds,
                "auth_timeout": self._connect_seconds,
                "channel_timeout": self._connect_seconds,
            },
        )

        class Judge(paramiko.MissingHostKeyPolicy):
            def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
                if not to.accepts_new:
                    raise _UnknownHostKey(key.fingerprint, key.get_name())
                _record(to, f"{hostname} {key.get_name()} {key.get_base64()}\n")

        connection.client.set_missing_host_key_policy(Judge())
        for path in to.known_hosts:
            if Path(path).is_file():
                with contextlib.suppress(OSError, paramiko.SSHException):
                    connection.client.load_system_host_keys(path)
        return connection

    def _socket(self, to: Hop, before: Any) -> Any:
        """What leads to a hop: a channel of the one before it, its proxy command, or a connection from here."""
        if before is not None:
            return before.open_channel(
                "direct-tcpip", (to.address, to.port), ("", 0), timeout=self._connect_seconds
            )
        if to.proxy is not None:
            self._proxy = _Proxy(to.proxy)
            return self._proxy.socket
        found = socket.create_connection((to.address, to.port), self._connect_seconds)
        # Each request would wait for the acknowledgement of the one before it.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def _connect(self, connection: Any, to: Hop, before: Any) -> None:
        """Log in at a hop."""
        import paramiko

        host = self.host
        doing = f"connecting to {host.name} ({_reached(host)})"
        subject = f"{host.name} ({to.address})"
        if to is not host:
            subject = f"{to.address}, which {host.name} is reached through,"
        try:
            options = connection.connect_kwargs
            options["sock"] = self._socket(to, before)
            with contextlib.ExitStack() as agent:
                keys = _log_in_with(to, options, agent)
                connection.open()
            connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
        except _UnknownHostKey as unknown:
            raise _unreachable(
                to,
                doing,
                f"The host key of {subject} is not known: {unknown.kind} {unknown.fingerprint}.",
                f"Compare it with what its administrator says, then accept it: type `{to.ssh} true` and answer yes.",
            ) from None
        except paramiko.BadHostKeyException as changed:
            raise _unreachable(
                to,
                doing,
                f"The host key of {subject} is not the one on record: it shows {changed.key.fingerprint}. Either it was "
                "installed anew, or somebody answers in its place.",
                f"Ask its administrator. If it was installed anew: ssh-keygen -R {_known_as(to)}, then `{to.ssh} true`.",
            ) from None
        except paramiko.PasswordRequiredException:
            raise _refused(
                to,
                doing,
                f"The key {', '.join(keys) or 'of yours'} is protected by a passphrase, and no agent has it.",
                f"Type: {shlex.join(('ssh-add', *keys))}",
            ) from None
        except paramiko.AuthenticationException:
            offered = ", ".join(keys) or "any key of yours"
            raise _refused(
                to,
                doing,
                f"{subject} does not accept {offered} for the user {to.user or connection.user}.",
                f"Put your public key there (ssh-copy-id), or set hosts.{host.name}.user and .key in invoke.yaml. "
                f"`{to.ssh} true` must work without a password.",
            ) from None
        except FileNotFoundError as missing:
            raise Unreachable(
                doing,
                f"The key file {missing.filename} does not exist.",
                f"Set hosts.{host.name}.key in invoke.yaml, or IdentityFile in ~/.ssh/config.",
            ) from None
        except (paramiko.SSHException, OSError, EOFError) as problem:
            raise self._no_answer(to, doing, subject, problem, first=before is None) from None

    def _no_answer(
        self, to: Hop, doing: str, subject: str, problem: BaseException, first: bool
    ) -> Unreachable:
        """The error of a hop that could not be logged in at, from what the connection said."""
        cause = f"{subject} does not answer on port {to.port}: {_reason(problem)}."
        remedy = f"Is it up, and is that its address? `{to.ssh} true` must work."
        if str(problem) == _NO_KEY:
            cause = (
                f"There is no key to offer to {subject}: no agent holds one, and no file of `ssh` has one."
            )
            remedy = f"Set hosts.{self.host.name}.key in invoke.yaml, or IdentityFile in ~/.ssh/config."
            return _refused(to, doing, cause, remedy)
        if not first and getattr(problem, "code", None) == _PROHIBITED:
            cause = f"The hop before {subject} forwards no connections."
            remedy = (
                "Set AllowTcpForwarding to yes (or local) in /etc/ssh/sshd_config there, and reload sshd."
            )
        elif first and self._proxy is not None:
            cause = f"The ProxyCommand of {subject} does not lead there: {self._proxy.said() or _reason(problem)}."
        return _unreachable(to, doing, cause, remedy)

    def _feed(self, channel: Any, feed: bytes | IO[bytes], fed: Callable[[int], None]) -> None:
        """Send standard input; a program that ends before it has read all of it says why itself."""
        stream = io.BytesIO(feed) if isinstance(feed, bytes) else feed
        sent = 0
        try:
            while part := stream.read(_CHUNK_BYTES):
                channel.sendall(part)
                sent += len(part)
                fed(sent)
            end_input(channel)
        except TimeoutError:
            raise
        except OSError:
            transport = channel.get_transport()
            if transport is None or not transport.is_active():
                raise

    def _status(self, channel: Any, timeout: float) -> int:
        if not channel.status_event.wait(timeout):
            raise TimeoutError
        status = int(channel.exit_status)
        if status == -1 and not channel.get_transport().is_active():
            raise EOFError
        return status

    def _lost(self, problem: BaseException) -> Unreachable:
        if isinstance(problem, Unreachable):
            return problem
        host = self.host
        return Unreachable(
            f"working on {host.name} ({_reached(host)})",
            f"The connection to {host.name} was lost: {_reason(problem)}.",
            "Type the command again: what is done stays done.",
        )

    def _drop(self, transport: Any) -> None:
        """Close a connection that is of no use any more; the one that another thread has opened since is left alone."""
        with self._guard:
            if self._connections and self._connections[0].transport is transport:
                self._close()

    def _close(self) -> None:
        for connection in self._connections:
            # Not Fabric's own `close`: it leaves one that was refused half open.
            with contextlib.suppress(OSError, EOFError):
                connection.client.close()
        self._connections = []
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None


class _Proxy:
    """A proxy command that runs, as `ssh` runs it: in the user's shell, its input and output one end of a socket.

    Not paramiko's: that does not notice when its command ends, and holds on to what it says on standard error.

    Args:
        command: the command, its tokens expanded.

    Raises OSError: there is no shell.
    """

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the command
        try:
            # In a session of its own: Ctrl-C is not for it, and it finds no terminal to ask for a password.
            self._process = subprocess.Popen(
                [shutil.which(os.environ.get("SHELL") or "sh") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError:
            self.socket.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    def said(self) -> str:
        """The last line of what it said about itself; empty: nothing."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip().rstrip(".") for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End it, and what it started."""
        self.socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PROXY_SECONDS)  # most end with their input
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._errors.close()


class _UnknownHostKey(Exception):
    """The host's key is in no file of known hosts."""

    def __init__(self, fingerprint: str, kind: str) -> None:
        self.fingerprint = fingerprint
        self.kind = kind
        super().__init__(fingerprint)


def end_input(channel: Any) -> None:
    """Say that nothing more comes on a channel, as its `shutdown_write` does, and never after the channel was closed.

    paramiko lets go of the channel before it sends that. Where the command ends at that moment, its other thread
    answers with CLOSE first, and sshd ends the whole connection: "ieof packet referred to nonexistent channel".

    Raises OSError, EOFError: the connection is gone.
    """
    with channel.lock:
        message = channel._send_eof()
        if message is not None:
            channel.transport._send_user_message(message)


def is_full(ran: Ran) -> bool:
    """Whether a command failed because the disk is full."""
    said = (ran.err + ran.out).lower()
    return "no space left on device" in said or "quota exceeded" in said


def archive(files: Sequence[File]) -> bytes:
    """A tar of files, which depends on nothing but what is in them."""
    bundle = io.BytesIO()
    with tarfile.open(fileobj=bundle, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for each in files:
            entry = tarfile.TarInfo(each.name)
            entry.size, entry.mode = len(each.content), each.mode
            tar.addfile(entry, io.BytesIO(each.content))
    return bundle.getvalue()


def everywhere(
    links: Mapping[str, Link], work: Callable[[Link], T]
) -> tuple[dict[str, T], dict[str, ProvisionError]]:
    """Do something on all hosts at once.

    Returns: What it gave on each host where it succeeded, and the error of each other one: none hides another.
    """
    results: dict[str, T] = {}
    errors: dict[str, ProvisionError] = {}
    if not links:
        return results, errors
    with ThreadPoolExecutor(max_workers=len(links), thread_name_prefix="hosts") as pool:
        futures = {name: pool.submit(work, link) for name, link in links.items()}
        for name, future in futures.items():
            try:
                results[name] = future.result()
            except ProvisionError as error:
                errors[name] = error
    return results, errors


def all_of(doing: str, errors: Mapping[str, ProvisionError], done: Sequence[str] = ()) -> ProvisionError:
    """One error over those of several hosts.

    Args:
        errors: host name → its error; at least one.
        done: names of the hosts where it succeeded.
    """
    if len(errors) == 1 and not done:
        return next(iter(errors.values()))
    causes = [f"{name}: {error.cause}" for name, error in errors.items()]
    if done:
        causes.append(f"Done on {', '.join(done)}.")
    remedies = dict.fromkeys(f"{name}: {error.remedy}" for name, error in errors.items())
    log = [line for error in errors.values() for line in error.log_lines]
    return ProvisionError(doing, "\n".join(causes), "\n".join(remedies), log)


def _read(channel: Any) -> tuple[str, str]:
    """All of both outputs; a thread reads standard error, for a program may fill either first."""
    error = bytearray()

    def drain() -> None:
        with contextlib.suppress(OSError, socket.timeout):
            while part := channel.recv_stderr(_CHUNK_BYTES):
                error.extend(part)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    out = bytearray()
    while part := channel.recv(_CHUNK_BYTES):
        out += part
    reader.join()
    return out.decode(errors="replace"), error.decode(errors="replace")


def _log_in_with(to: Hop, options: dict[str, Any], agent: contextlib.ExitStack) -> tuple[str, ...]:
    """Put the keys that are offered at a hop into the options of its connection."""
    keys = to.keys if to.key_given else tuple(each for each in to.keys if Path(each).is_file())
    options["look_for_keys"] = False
    if keys:
        options["key_filename"] = list(keys)
    if to.identities_only:
        options["allow_agent"] = False
        options["pkey"] = _of_agent(to.keys, agent)
    return keys


def _of_agent(keys: Sequence[str], held: contextlib.ExitStack) -> Any:
    """The agent's key that belongs to one of some files, by the public half beside it; None: it has none of them."""
    import paramiko

    public = set()
    for each in keys:
        for path in (Path(each), Path(f"{each}.pub")):
            with contextlib.suppress(OSError, UnicodeDecodeError, IndexError):
                public.add(path.read_text(encoding="utf-8").split()[1])
    with contextlib.suppress(OSError, paramiko.SSHException):
        agent = held.enter_context(contextlib.closing(paramiko.Agent()))
        return next((key for key in agent.get_keys() if key.get_base64() in public), None)
    return None


def _record(to: Hop, line: str) -> None:
    """Write down a host key that was accepted, where `ssh` would: from then on, another one is refused."""
    if to.known_hosts:
        path = Path(to.known_hosts[0])
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line)


def _unreachable(to: Hop, doing: str, cause: str, remedy: str) -> Unreachable:
    """The error for a hop; says so where this machine has no `ssh` that could have been asked for the way."""
    if not to.asked_ssh:
        cause += " This machine has no `ssh`: its configuration was read without it, and perhaps not as it would be."
        remedy = f"{ssh.INSTALL}\n{remedy}"
    return Unreachable(doing, cause, remedy)


def _refused(to: Hop, doing: str, cause: str, remedy: str) -> Unreachable:
    """The error for a log-in; says so where the key may be in an agent that `ssh` asks, and paramiko can't be told of."""
    if to.identity_agent is not None:
        cause += f" ~/.ssh/config names an agent of its own for it (IdentityAgent {to.identity_agent}), which was not asked."
        remedy = f"Type: export SSH_AUTH_SOCK={shlex.quote(to.identity_agent)}\nThen type the same again. Or: {remedy}"
    return _unreachable(to, doing, cause, remedy)


def _reached(host: Host) -> str:
    user = f"{host.user}@" if host.user else ""
    return f"{user}{host.address}" + (f" port {host.port}" if host.port != 22 else "")


def _known_as(to: Hop) -> str:
    if to.known_as:
        return shlex.quote(to.known_as)
    return to.address if to.port == 22 else f"'[{to.address}]:{to.port}'"


def _reason(problem: BaseException) -> str:
    errors = getattr(problem, "errors", None)  # paramiko's NoValidConnectionsError: address → error
    if isinstance(errors, dict) and errors:
        problem = next(iter(errors.values()))
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    if text := getattr(problem, "text", ""):  # of a channel that was refused
        return str(text)
    return (str(problem) or "it closed the connection").rstrip(".")
