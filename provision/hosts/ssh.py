"""What OpenSSH's own client makes of a host: ``ssh -G`` reads its configuration, so that `Include`, `Match`, tokens and
defaults mean here what they mean to `ssh`.

`parse` is pure; `ask` runs the client, once for each question and process. A machine without that client falls back on
paramiko's parser, which follows no `Include`.

https://man.openbsd.org/ssh_config
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError

PORT = 22
INSTALL = "Install OpenSSH's client: sudo apt-get install openssh-client"
_ASK_SECONDS = 30.0  # `Match exec` may run anything
_ACCEPT_NEW = ("accept-new", "no", "off", "false")


@dataclass(frozen=True)
class Question:
    """Which host is asked about, with what invoke.yaml says of it: that wins over the configuration."""

    alias: str  # as `ssh` is given it
    user: str | None = None  # who to be there
    port: int | None = None  # of its sshd
    key: str | None = None  # private key file
    jump: str | None = None  # what it is reached through, as ``-J`` takes it; ``none``: nothing

    @property
    def flags(self) -> tuple[str, ...]:
        """The options of `ssh` that say the same."""
        pairs = (("-p", self.port), ("-i", self.key), ("-J", self.jump))
        return tuple(word for flag, value in pairs if value is not None for word in (flag, str(value)))

    @property
    def command(self) -> str:
        """What a person types to reach it."""
        user = f"{self.user}@" if self.user else ""
        return shlex.join(("ssh", *self.flags, f"{user}{self.alias}"))

    @property
    def as_jump(self) -> str:
        """The host as a part of ``-J``."""
        host = f"[{self.alias}]" if ":" in self.alias else self.alias
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class Local:
    """What tokens say of this machine and its user."""

    user: str  # name of the user
    uid: int  # their number
    home: str  # their home directory, as the user database has it: `ssh` does not look at $HOME
    hostname: str  # of this machine
    environment: Mapping[str, str] = field(default_factory=dict)  # variables, for ``${NAME}``


@dataclass(frozen=True)
class SshOptions:
    """What `ssh` would do to reach a host; paths and commands have their tokens expanded."""

    hostname: str  # the name or address that is dialled
    user: str | None = None  # who to be there; None: the name of this machine's user
    port: int = PORT  # of its sshd
    identity_files: tuple[str, ...] = ()  # private keys to offer, whether they exist or not
    identities_only: bool = False  # no other keys of an agent are offered
    proxy_jump: tuple[Question, ...] = ()  # the hosts on the way, in order
    proxy_command: str | None = None  # a command that leads there instead
    known_hosts: tuple[str, ...] = ()  # files with the host keys that are trusted; new ones go into the first
    host_key_alias: str | None = None  # the name that its key is known by; None: its own
    accepts_new: bool = False  # a host key that is not known is accepted and recorded
    identity_agent: str | None = None  # socket of another agent than that of SSH_AUTH_SOCK
    asked_ssh: bool = True  # `ssh` itself said so


def parse(text: str, alias: str, local: Local) -> SshOptions:
    """What ``ssh -G`` printed. Pure.

    Args:
        text: its standard output: a keyword and its value on each line, some keywords several times.
        alias: the host that it was asked about.

    Raises ProvisionError: it says something that is not followed here.
    """
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.strip().partition(" ")
        said.setdefault(keyword.lower(), []).append(value.strip())
    if _word(said, "proxyusefdpass") == "yes" and _given(said, "proxycommand"):
        raise ProvisionError(
            f"reading what ssh does for {alias}",
            "Its ProxyCommand hands over an open connection (ProxyUseFdpass), which is not supported.",
            f"Set ProxyUseFdpass to no for {alias} in ~/.ssh/config, and use a ProxyCommand that passes data on, such "
            "as `nc %h %p`.",
        )
    hostname = _given(said, "hostname") or alias
    user, port = _given(said, "user"), int(_given(said, "port") or PORT)
    key_alias = _given(said, "hostkeyalias")
    tokens = {
        "%": "%",
        "h": hostname,
        "n": alias,
        "p": str(port),
        "r": user or local.user,
        "u": local.user,
        "d": local.home,
        "i": str(local.uid),
        "l": local.hostname,
        "L": local.hostname.partition(".")[0],
        "k": key_alias or alias,
    }

    def path(value: str) -> str:
        named = expand(value, tokens)
        named = re.sub(r"\$\{(\w+)\}", lambda found: local.environment.get(found[1], found[0]), named)
        return f"{local.home}{named[1:]}" if named == "~" or named.startswith("~/") else named

    files = [
        name for keyword in ("userknownhostsfile", "globalknownhostsfile") for name in said.get(keyword, ())
    ]
    jumps = expand(_given(said, "proxyjump") or "", tokens)
    command = _given(said, "proxycommand")
    agent = _given(said, "identityagent")
    return SshOptions(
        hostname,
        user,
        port,
        tuple(path(each) for each in said.get("identityfile", ()) if each.lower() != "none"),
        _word(said, "identitiesonly") == "yes",
        parse_jumps(jumps),
        expand(command, tokens) if command and not jumps else None,
        tuple(path(each) for names in files for each in names.split() if each.lower() != "none"),
        key_alias,
        _word(said, "stricthostkeychecking") in _ACCEPT_NEW,
        path(agent) if agent and agent != "SSH_AUTH_SOCK" else None,
    )


def parse_jumps(text: str) -> tuple[Question, ...]:
    """``[user@]host[:port]``, several with commas between, each also as ``ssh://…``. Pure."""
    return tuple(_jump(each.strip()) for each in text.split(",") if each.strip() and each.strip() != "none")


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """``%h`` and the like, replaced by what they stand for; an unknown one stays. Pure."""
    return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), text)


@functools.lru_cache(maxsize=256)
def ask(question: Question) -> SshOptions:
    """What `ssh` would do, asked once for each question.

    Raises ProvisionError: the configuration can't be read.
    """
    client = shutil.which("ssh")
    local = _local()
    if client is None:
        return _without_client(question, local)
    user = ("-l", question.user) if question.user else ()
    doing = f"asking ssh how it reaches {question.alias}"
    command = [client, "-T", "-G", *question.flags, *user, "--", question.alias]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProvisionError(
            doing,
            f"`ssh -G {question.alias}` gave no answer in {_ASK_SECONDS:g} s.",
            "A `Match exec` of ~/.ssh/config may hang. Type it yourself: "
            + shlex.join(("ssh", "-G", question.alias)),
        ) from None
    except OSError as problem:
        raise ProvisionError(doing, f"{client} can't be run: {problem.strerror}.", INSTALL) from None
    if done.returncode != 0:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        cause = said[0].rstrip(".") if said else f"It ended with status {done.returncode}"
        raise ProvisionError(
            doing,
            f"{cause}.",
            f"Correct that, until this succeeds: {shlex.join(('ssh', '-G', question.alias))}",
        )
    return parse(done.stdout.decode(errors="replace"), question.alias, local)


def _without_client(question: Question, local: Local) -> SshOptions:
    """What paramiko's parser makes of ``~/.ssh/config``, where there is no `ssh` to ask."""
    path = Path.home() / ".ssh" / "config"
    options: Mapping[str, Any] = {}
    if path.is_file():
        import paramiko

        doing = f"reading {path}"
        try:
            text = path.read_text(encoding="utf-8")
            config = paramiko.SSHConfig.from_text(text)
            options = config.lookup(question.alias)
        except (OSError, UnicodeDecodeError, paramiko.SSHException) as problem:
            raise ProvisionError(
                doing, f"{problem}.", f"Correct the file. {INSTALL}: `ssh -G` names the wrong line."
            ) from None
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(r"\s*include\b", line, re.IGNORECASE):
                raise ProvisionError(
                    doing, f"Line {number} includes other files, which only `ssh` follows, and there is none here.", INSTALL
                )  # fmt: skip
    lines = [
        f"{name} {value}"
        for name, values in options.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    # What invoke.yaml says stands first: the first of several is the one that counts.
    given = (("user", question.user), ("port", question.port), ("proxyjump", question.jump))
    lines = [f"{name} {value}" for name, value in given if value is not None] + lines
    lines += ["userknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2"] * (
        "userknownhostsfile" not in options
    )
    lines += ["globalknownhostsfile /etc/ssh/ssh_known_hosts"] * ("globalknownhostsfile" not in options)
    if "identityfile" not in options:
        lines += [f"identityfile ~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ed25519")]
    if question.jump is not None:
        lines = [line for line in lines if not line.startswith("proxycommand ")]
    found = parse("\n".join(lines), question.alias, local)
    return SshOptions(**{**vars(found), "asked_ssh": False})


def _local() -> Local:
    try:
        entry = pwd.getpwuid(os.getuid())
        user, home = entry.pw_name, entry.pw_dir
    except KeyError:
        user, home = os.environ.get("USER", str(os.getuid())), str(Path.home())
    return Local(user, os.getuid(), home.rstrip("/"), socket.gethostname(), dict(os.environ))


def _jump(text: str) -> Question:
    user, _, rest = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    found = re.fullmatch(r"\[(?P<literal>[^]]+)\](?::(?P<port>\d+))?", rest)
    if found is not None:
        host, port = found["literal"], found["port"] or ""
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    return Question(host, user or None, int(port) if port.isdigit() else None)


def _given(said: Mapping[str, list[str]], keyword: str) -> str | None:
    """The first value of a keyword, which is the one that counts; None: none, or ``none``."""
    value = next(iter(said.get(keyword, ())), "")
    return value if value and value.lower() != "none" else None


def _word(said: Mapping[str, list[str]], keyword: str) -> str:
    return (_given(said, keyword) or "").lower()
