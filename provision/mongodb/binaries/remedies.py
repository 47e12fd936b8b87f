"""What to type after a search that found no mongod: one remedy for each reason."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.machine.access import explain
from provision.mongodb.binaries.machine import Machine, install_commands
from provision.mongodb.binaries.model import Reason, Refusal
from provision.settings.paths import Paths
from provision.settings.schema import MongodbSettings


@dataclass(frozen=True)
class Search:
    """What the remedies depend on, besides the refusal itself."""

    settings: MongodbSettings
    paths: Paths
    machine: Machine
    environment: Mapping[str, str]


def remedy(search: Search, refusals: Iterable[Refusal]) -> str:
    """What to type next: for the reason that is nearest to a mongod that runs.

    `refusals`: why each source did not serve.
    """
    by_reason = {refusal.reason: refusal for refusal in reversed(list(refusals))}
    for reason, words in _REMEDIES.items():
        if reason in by_reason:
            return words(search, by_reason[reason].detail)
    return _install(search, "")


def _library(_search: Search, command: str) -> str:
    return f"{command}\nThen type the same again. What was downloaded is kept."


def _noexec(search: Search, place: str) -> str:
    if not Path(place).is_relative_to(search.paths.cache):
        return f"Put {place} into a file system that is not mounted noexec, and name it: mongodb.path"
    return _other_cache(search)


def _unwritable(search: Search, place: str) -> str:
    rights = explain(Path(place), (search.paths.cache,), "")[1] if place else ""
    return f"{rights}\nOr use another cache:\n{_other_cache(search)}" if rights else _other_cache(search)


def _other_cache(search: Search) -> str:
    own = search.paths.own_cache
    other = own if search.paths.cache != own else Path("/path/to/a/folder")
    return f"INVOKE_PATHS_CACHE={shlex.quote(str(other))} ./invoke setup\nTo keep it so, set paths.cache."


def _space(_search: Search, place: str) -> str:
    return f"df -h {shlex.quote(place)}\nFree space there, then type the same again; or set paths.cache to another disk."


def _socks(search: Search, _detail: str) -> str:
    named = [name for name, value in search.environment.items() if _is_socks(name, value)]
    without = " ".join(f"-u {name}" for name in sorted(named))
    if not named:  # pip's configuration names it
        return "HTTPS_PROXY=http://HOST:PORT ./invoke setup, with a proxy that speaks HTTP"
    return (
        f"env {without} ./invoke setup\nor, through a proxy that speaks HTTP: "
        f"env {without} HTTPS_PROXY=http://HOST:PORT ./invoke setup"
    )


def _is_socks(name: str, value: str) -> bool:
    return name.lower() in ("all_proxy", "http_proxy", "https_proxy", "pip_proxy") and value.startswith(
        "socks"
    )


def _network(search: Search, _detail: str) -> str:
    return (
        "Check the connection, then type the same again. Behind a proxy: HTTPS_PROXY=http://HOST:PORT ./invoke setup\n"
        f"Or install MongoDB yourself. {_install(search, '')}"
    )


def _install(search: Search, _detail: str) -> str:
    machine, settings = search.machine, search.settings
    commands = install_commands(machine, settings.version)
    text = f"Install MongoDB ({machine.title or machine.system}):\n{commands}\nor set mongodb.path to a mongod of your own."
    if settings.source != "auto":
        text += f"\nmongodb.source is {settings.source}: with auto, the other sources are tried too."
    return text


# In this order: the first that was met is the one whose remedy is nearest to a mongod that runs.
_REMEDIES: Mapping[Reason, Callable[[Search, str], str]] = {
    Reason.LIBRARY: _library,
    Reason.NOEXEC: _noexec,
    Reason.UNWRITABLE: _unwritable,
    Reason.SPACE: _space,
    Reason.SOCKS: _socks,
    Reason.NETWORK: _network,
    Reason.OTHER: _install,
}
