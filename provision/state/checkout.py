"""What Git says of a folder, read from its files: Git itself is not run.

https://git-scm.com/docs/gitrepository-layout
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SHOWN_DIGITS = 10


@dataclass(frozen=True)
class Checkout:
    """A folder's working tree."""

    linked: bool  # it is a linked worktree, as `git worktree add` makes them
    repository: str  # name of the folder of the main working tree
    branch: str | None  # the branch, or the beginning of the commit; None: not known


def checkout_of(folder: Path) -> Checkout | None:
    """The working tree that a folder is in; None: it is in none."""
    top = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    if top is None:
        return None
    place = top / ".git"
    if place.is_dir():
        return Checkout(False, top.name, _branch(place))
    target = _first_line(place).removeprefix("gitdir:").strip()
    git = top / target  # an absolute one stays as it is
    if not target or git.parent.name != "worktrees":  # a submodule's is below `modules`
        return Checkout(False, top.name, _branch(git))
    common = git.parent.parent  # `…/repository/.git`, or a bare `…/repository.git`
    main = common.parent if common.name == ".git" else common
    return Checkout(True, main.resolve().name.removesuffix(".git"), _branch(git))


def _branch(git: Path) -> str | None:
    head = _first_line(git / "HEAD")
    if head.startswith("ref:"):
        return head.removeprefix("ref:").strip().removeprefix("refs/heads/")
    return head[:_SHOWN_DIGITS] or None


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
