"""Hosts as data: what `hosts:` in invoke.yaml says of them, completed by what `ssh` itself would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from pathlib import Path, PurePosixPath

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError, did_you_mean
from provision.hosts import ssh
from provision.hosts.ssh import Question, SshOptions
from provision.settings.loading import Loaded
from provision.settings.schema import HostSettings

Ask = Callable[[Question], SshOptions]
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Hop:
    """An sshd, and how to log in there: a host, or one on the way to it."""

    address: str  # its name or address
    port: int = ssh.PORT  # of its sshd
    user: str | None = None  # who to be there; None: the name of this machine's user
    keys: tuple[str, ...] = ()  # private key files to offer, and those of an agent
    key_given: bool = False  # invoke.yaml names the key, which must exist; those that `ssh` names need not
    identities_only: bool = False  # the keys of an agent are offered only where they are among `keys`
    known_hosts: tuple[str, ...] = ()  # files with the host keys that are trusted
    known_as: str | None = None  # the name that its key is known by; None: its address
    accepts_new: bool = False  # a host key that is not known is accepted and recorded
    # socket of an agent that `ssh` would ask, and nobody asks here; None: that of SSH_AUTH_SOCK
    identity_agent: str | None = None
    proxy: str | None = None  # command that leads there, in place of a connection; None: none
    ssh: str = "ssh"  # the command that a person reaches it with
    asked_ssh: bool = True  # `ssh` itself said so; False: there is none on this machine


@dataclass(frozen=True, kw_only=True)
class Host(Hop):
    """One host: its address is for SSH, for the other hosts and for clients."""

    name: str  # how invoke.yaml calls it
    via: tuple[Hop, ...] = ()  # what it is reached through, in order
    # where all that the tool puts there is; ``~`` is that user's home directory
    data_dir: PurePosixPath = field(default=PurePosixPath("~/mongodb"))
    python: str = "python3"  # its Python, for what needs one
    units: str = "auto"  # ``auto``, ``system``, ``user`` or ``process``: what keeps its nodes running


def hosts(loaded: Loaded, names: Iterable[str] | None = None) -> dict[str, Host]:
    """The hosts of invoke.yaml by name.

    `names`: those that are wanted, in order; None: all.

    Raises ProvisionError: one of them is not in invoke.yaml, or `ssh` can't read its configuration.
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
    if len(wanted) > 1:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(ssh.ask, [_question(name, known[name], known) for name in wanted]))
    return {name: resolve(name, known[name], known, ssh.ask) for name in wanted}


def resolve(name: str, settings: HostSettings, known: Mapping[str, HostSettings], ask: Ask) -> Host:
    """One host, complete. What invoke.yaml says wins over what `ssh` would do. Pure.

    Args:
        settings: what invoke.yaml says of it.
        known: all hosts of invoke.yaml, for `jump`.
        ask: what `ssh` would do.

    Raises ProvisionError: the hosts on the way to it go round in a circle.
    """
    question = _question(name, settings, known)
    *via, own = _way(question, _jumps(settings, known), known, ask, ())
    return Host(
        **vars(own),
        name=name,
        via=tuple(via),
        data_dir=PurePosixPath(settings.data_dir),
        python=settings.python,
        units=settings.units,
    )


def _question(name: str, settings: HostSettings, known: Mapping[str, HostSettings]) -> Question:
    jumps = _jumps(settings, known)
    jump = None if jumps is None else ",".join(each.as_jump for each, _ in jumps) or "none"
    return Question(settings.address or name, settings.user, settings.port, _path(settings.key), jump)


# A host on the way, and what invoke.yaml says of it; None: it is not there.
_Jumps = Sequence[tuple[Question, HostSettings | None]]


def _jumps(settings: HostSettings, known: Mapping[str, HostSettings]) -> _Jumps | None:
    """The hosts that invoke.yaml names as the way to a host, each of which may be another of its hosts; None: none."""
    if settings.jump is None:
        return None
    found = []
    for named in ssh.parse_jumps(settings.jump):
        told = known.get(named.alias)
        question = named
        if told is not None:
            question = Question(
                told.address or named.alias, named.user or told.user, named.port or told.port, _path(told.key)
            )
        found.append((question, told))
    return found


def _way(
    question: Question,
    jumps: _Jumps | None,
    known: Mapping[str, HostSettings],
    ask: Ask,
    passed: tuple[str, ...],
) -> list[Hop]:
    """All hops to a host, itself the last. As with `ssh`, the first of several jumps has a way of its own."""
    if question.alias in passed:
        raise ProvisionError(
            f"looking up the way to {passed[0]}",
            f"It goes round in a circle: {' → '.join((*passed, question.alias))}.",
            f"Set ProxyJump to none for {question.alias} in ~/.ssh/config, or correct hosts.*.jump in invoke.yaml.",
        )
    options = ask(question)
    if jumps is None:
        jumps = [(each, None) for each in options.proxy_jump]
    way: list[Hop] = []
    for at, (jump, told) in enumerate(jumps):
        if at == 0:
            its_own = _jumps(told, known) if told is not None else None
            way += _way(jump, its_own, known, ask, (*passed, question.alias))
        else:
            before = ",".join(each.as_jump for each, _ in jumps[:at])
            behind = Question(jump.alias, jump.user, jump.port, jump.key, before)
            way.append(_hop(behind, ask(behind), behind=True))
    return [*way, _hop(question, options, behind=bool(way))]


def _hop(question: Question, options: SshOptions, behind: bool) -> Hop:
    return Hop(
        address=options.hostname,
        port=options.port,
        user=options.user,
        keys=(question.key,) if question.key else options.identity_files,
        key_given=question.key is not None,
        identities_only=options.identities_only,
        known_hosts=options.known_hosts,
        known_as=options.host_key_alias,
        accepts_new=options.accepts_new,
        identity_agent=options.identity_agent,
        proxy=None if behind else options.proxy_command,
        ssh=question.command,
        asked_ssh=options.asked_ssh,
    )


def _path(key: str | None) -> str | None:
    return None if key is None else str(Path(key).expanduser())
