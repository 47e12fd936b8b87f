"""Every link in the pages leads somewhere: to a file that git tracks, and there to a heading."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from tests.support.clones import ROOT, tracked_files

PAGES = [name for name in tracked_files() if name.endswith(".md")]
# Of an inline link or picture, a reference, and HTML.
_TARGET = re.compile(
    r"""\]\(([^)\s]+)\)|^\[[^\]]+\]:\s+(\S+)|\b(?:href|src|srcset)="([^"]+)\"""", re.MULTILINE
)
_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]*`")


def text_of(page: str) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))


@functools.cache
def anchors(page: str) -> set[str]:
    """What can stand behind # in a link to a page: its headings, as GitHub names them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+\s+(.*)$", text_of(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        number = 0
        while (each := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(each)
    return found


def dead(page: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for groups in _TARGET.findall(_INLINE.sub("", text_of(page))):
        target = next(filter(None, groups))
        if re.match(r"[a-z]+:", target):
            continue  # on another server
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent.joinpath(file).resolve() if file else ROOT / page
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else file
        if not (name in tracked_files() or (path.is_dir() and path != ROOT)):
            found.append(f"{target}: there is no such file")
        elif anchor and (not name.endswith(".md") or anchor not in anchors(name)):
            found.append(f"{target}: {name} has no such heading")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    assert dead(page) == []


def test_a_dead_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text(
        "# One\n\n## One & two\n\n[x](#one--two) [y](b.md) [z](#three) `[c](d.md)`\n"
    )
    monkeypatch.setattr("tests.unit.test_links.ROOT", tmp_path)
    monkeypatch.setattr("tests.unit.test_links.tracked_files", lambda: ("a.md",))
    assert dead("a.md") == ["b.md: there is no such file", "#three: a.md has no such heading"]
