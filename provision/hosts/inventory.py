"""Hosts as data: what `hosts:` in invoke.yaml says of them, completed by ``~/.ssh/config``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from provision.errors import ProvisionError, did_you_mean
from provision.schema import HostSettings
from provision.settings import Loaded

_SSH_PORT = 22
Lookup = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Jump:
    """A host that another one is reached through.

    Args:
        address: its name or address.
        port: of its sshd.
        user: who to be there; None: the name of this machine's user.
        keys: private key files to offer; empty: the user's own.
    """

    address: str
    port: int = _SSH_PORT
    user: str | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Host:
    """One host.

    Args:
        name: how invoke.yaml calls it.
        address: its name or address, for SSH, for the other hosts and for clients.
        port: of its sshd.
        user: who to be there; None: the name of this machine's user.
        keys: private key files to offer; empty: the user's own and those of an agent.
        jump: what it is reached through; None: nothing.
        known_hosts: files with the host keys that are trusted.
        data_dir: where all that the tool puts there is; ``~`` is that user's home directory.
        python: its Python, for what needs one.
        units: ``auto``, ``system``, ``user`` or ``process``: what keeps its nodes running.
    """

    name: str
    address: str
    port: int = _SSH_PORT
    user: str | None = None
    keys: tuple[str, ...] = ()
    jump: Jump | None = None
    known_hosts: tuple[str, ...] = ()
    data_dir: PurePosixPath = field(default=PurePosixPath("~/mongodb"))
    python: str = "python3"
    units: str = "auto"

    @property
    def ssh(self) -> str:
        """The command that a person reaches it with."""
        user = f"{self.user}@" if self.user else ""
        port = f" -p {self.port}" if self.port != _SSH_PORT else ""
        jump = ""
        if self.jump is not None:
            via = f"{self.jump.user}@{self.jump.address}" if self.jump.user else self.jump.address
            jump = f" -J {via}:{self.jump.port}"
        return f"ssh{port}{jump} {user}{self.address}"


def hosts(loaded: Loaded, names: Iterable[str] | None = None) -> dict[str, Host]:
    """The hosts of invoke.yaml by name.

    Args:
        loaded: the settings in force.
        names: those that are wanted, in order; None: all.

    Raises:
        ProvisionError: one of them is not in invoke.yaml, or ``~/.ssh/config`` can't be read.
    """
    known = loaded.settings.hosts
    wanted = list(known) if names is None else list(names)
    for name in wanted:
        if name not in known:
            told = f"invoke.yaml names these: {', '.join(known)}." if known else "invoke.yaml names no hosts."
            raise ProvisionError(
                f"looking up the host {name!r}",
                told,
                f"Use one of them{did_you_mean(name, known)}, or add it under `hosts:` in invoke.yaml.",
            )
    lookup = ssh_config(Path.home() / ".ssh" / "config")
    return {name: resolve(name, known[name], known, lookup) for name in wanted}


def ssh_config(path: Path) -> Lookup:
    """What an OpenSSH client configuration says of a host.

    Args:
        path: the file; one that is missing says nothing.

    Returns:
        Host → its options, lower case, as paramiko gives them.

    Raises:
        ProvisionError: the file is not one.
    """
    if not path.is_file():
        return lambda _: {}
    import paramiko

    try:
        config = paramiko.SSHConfig.from_path(str(path))
        config.lookup("localhost")
    except (OSError, UnicodeDecodeError, paramiko.SSHException) as problem:
        raise ProvisionError(
            f"reading {path}", f"{problem}.", "Mend it: `ssh -G localhost` says whether OpenSSH can read it."
        ) from None
    return lambda host: config.lookup(host)


def resolve(name: str, settings: HostSettings, known: Mapping[str, HostSettings], lookup: Lookup) -> Host:
    """One host, complete. What invoke.yaml says wins over ``~/.ssh/config``. Pure.

    Args:
        name: its name.
        settings: what invoke.yaml says of it.
        known: all hosts of invoke.yaml, for `jump`.
        lookup: what ``~/.ssh/config`` says of a host.
    """
    alias = settings.address or name
    options = lookup(alias)
    jump = settings.jump or options.get("proxyjump")
    via = None if jump in (None, "none", "") else _jump(str(jump).split(",")[0].strip(), known, lookup)
    return Host(
        name,
        address=str(options.get("hostname", alias)),
        port=settings.port or int(options.get("port", _SSH_PORT)),
        user=settings.user or options.get("user"),
        keys=_keys(settings.key, options),
        jump=via,
        known_hosts=_known_hosts(options),
        data_dir=PurePosixPath(settings.data_dir),
        python=settings.python,
        units=settings.units,
    )


def _jump(text: str, known: Mapping[str, HostSettings], lookup: Lookup) -> Jump:
    """``[user@]host[:port]``, where host may be one of invoke.yaml's or of ``~/.ssh/config``."""
    user, _, rest = text.rpartition("@")
    host, _, port = rest.partition(":")
    settings = known.get(host, HostSettings())
    options = lookup(settings.address or host)
    return Jump(
        address=str(options.get("hostname", settings.address or host)),
        port=int(port or settings.port or options.get("port", _SSH_PORT)),
        user=user or settings.user or options.get("user"),
        keys=_keys(settings.key, options),
    )


def _keys(key: str | None, options: Mapping[str, Any]) -> tuple[str, ...]:
    found: Sequence[str] = (key,) if key else options.get("identityfile", ())
    return tuple(str(Path(each).expanduser()) for each in found)


def _known_hosts(options: Mapping[str, Any]) -> tuple[str, ...]:
    named = str(options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")).split()
    named += str(options.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")).split()
    return tuple(str(Path(each).expanduser()) for each in named)
