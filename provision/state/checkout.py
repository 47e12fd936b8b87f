"""What Git says of a folder, read from its files: Git itself is not run.

https://git-scm.com/docs/gitrepository-layout
"""

from __future__ import annotations

from pathlib import Path

from provision.core.dataclass import dataclass

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


def elsewhere(folder: Path) -> list[Path]:
    """The same folder in the other working trees of its repository, the main one first; those that are there."""
    top = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    if top is None:
        return []
    git = top / ".git"
    if git.is_file():
        git = top / _first_line(git).removeprefix("gitdir:").strip()
        if git.parent.name != "worktrees":
            return []
        git = git.parent.parent
    # `worktrees/NAME/gitdir` names the `.git` of a linked one; with worktree.useRelativePaths, from `worktrees/NAME`.
    linked = [each.parent / _first_line(each) for each in sorted(git.glob("worktrees/*/gitdir"))]
    tops = [git.parent] if git.name == ".git" else []
    tops += [place.parent for place in linked if place.name == ".git"]
    inner, here = folder.relative_to(top), top.resolve()
    others = dict.fromkeys(each.resolve() for each in tops)
    return [each / inner for each in others if each != here and (each / inner).is_dir()]


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
