"""Whose files are these, and where may this user write? Standard library only: the bootstrap asks as well.

Every error about rights to a file gets its words here: whose the file is, who the user is, and the command that helps.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TOOL = Path(__file__).resolve().parents[2]


def user_name(uid: int) -> str:
    """Return a user's name, or the number of a user that has none, as in many containers."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def home_directory(environment: Mapping[str, str]) -> Path | None:
    """Return the user's home directory; None for a user without a passwd entry where HOME is not set."""
    import pwd

    named = environment.get("HOME")
    if named:
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def cache_directory(environment: Mapping[str, str], root: Path = TOOL) -> Path:
    """Return the user's cache directory for this tool, which all clones share.

    Where the user has none and none can be made (HOME=/ in a container), the clone gets a cache of its own. A directory
    that is there counts, though it cannot be written: what it holds can be used.
    """
    shared = shared_cache_directory(environment)
    if shared is not None and (shared.is_dir() or _may_write(_nearest(shared))):
        return shared
    if (root / "invoke").is_file():
        return root / ".state" / "cache"
    return shared or Path("/") / ".cache" / "flaskbook"


def shared_cache_directory(environment: Mapping[str, str]) -> Path | None:
    """Return where the cache that all clones share would be; None for a user without a home directory."""
    if sys.platform == "darwin":
        home = home_directory(environment)
        parent = home / "Library" / "Caches" if home is not None else None
    else:
        parent = base_directory(environment, "XDG_CACHE_HOME", ".cache")
    return parent / "flaskbook" if parent is not None else None


def base_directory(environment: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """Return a base directory of the user; None for a user without a home directory.

    A relative one is ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    named = environment.get(variable, "")
    if named.startswith("/"):
        return Path(named)
    home = home_directory(environment)
    return home / below_home if home is not None else None


def explain(path: Path, ours: Iterable[Path], otherwise: str) -> tuple[str, str]:
    """Say why a path cannot be used by this user, and what to type.

    Returns cause and remedy. Only what is in `ours` may change its owner or its permissions; elsewhere the
    remedy is `otherwise`.
    """
    blocked = _obstacle(path)
    try:
        found = blocked.lstat()
    except OSError:
        return f"{path} cannot be used by {user_name(os.geteuid())}.", otherwise
    within = any(blocked == place or place in blocked.parents for place in ours)
    if found.st_uid != os.geteuid():
        cause = f"{blocked} belongs to {user_name(found.st_uid)}, and you are {user_name(os.geteuid())}."
        return cause, chown([blocked]) if within else otherwise
    mode = stat.S_IMODE(found.st_mode)
    cause = (
        f"{blocked} is yours, and its permissions ({mode:04o}) or its file system do not let you write there."
    )
    return cause, f"chmod -R u+rwX {shlex.quote(str(blocked))}" if within else otherwise


def chown(paths: Iterable[Path]) -> str:
    """Return the command that gives files to this user."""
    named = " ".join(shlex.quote(str(path)) for path in paths)
    return f"sudo chown -R {user_name(os.geteuid())} {named}"


def foreign(places: Iterable[Path], depth: int = 3) -> tuple[Path, int] | None:
    """Find something that belongs to another user and that this one can't use, as `sudo ./invoke …` leaves it.

    Returns the path and its owner's user id; None for root, who may use everything.
    """
    me = os.geteuid()
    if me == 0:
        return None
    for place in places:
        for path, owner in _owners(place, depth):
            if owner != me and not _may_write(path):
                return path, owner
    return None


def _owners(path: Path, depth: int) -> Iterator[tuple[Path, int]]:
    try:
        found = path.lstat()
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        return
    yield path, found.st_uid
    if depth and stat.S_ISDIR(found.st_mode):
        try:
            names = sorted(os.listdir(path))  # noqa: PTH208
        except OSError:
            return
        for name in names:
            yield from _owners(path / name, depth - 1)


def _obstacle(path: Path) -> Path:
    """The outermost part of a path that stands in the way."""
    for part in [*reversed(path.parents), path]:
        try:
            part.lstat()
        except PermissionError:
            return part.parent
        except OSError:
            return _nearest(part)
    return path


def _nearest(path: Path) -> Path:
    """The innermost directory of a path that is there."""
    for part in (path, *path.parents):
        try:
            part.lstat()
        except OSError:
            continue
        return part
    return path


def _may_write(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0), effective_ids=_EFFECTIVE)


_EFFECTIVE = os.access in os.supports_effective_ids
