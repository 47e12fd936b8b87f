"""Finds the phrases that docs/style.md forbids: `env/bin/python -m tools.prose [FILE …]`; without files, in all files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FORBIDDEN = re.compile(
    r"""
    \b(?:is|are|was|were)\ (?:not\ )?to\ be\b
  | \b(?:can|could|can't|cannot|to)\ (?:not\ )?be\ had\b
  | \bwhoever\b
  | \bmend(?:s|ed|ing)?\b
  | \b(?:will|won't)\ do\b
  | (?<!there\ )\b(?:is|are|was|were)\ no\b(?!\ longer\b)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SUFFIXES = {".py", ".md", ".j2", ".html", ".yaml", ".toml", ".sh", ".js", ""}
# They quote what they forbid, or what was said before.
_QUOTING = {"docs/style.md", "tools/prose.py", "tests/unit/test_prose.py"}


def found_in(text: str) -> Iterator[tuple[int, str]]:
    """The forbidden phrases of a text, with their lines. Pure."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in _FORBIDDEN.finditer(line):
            yield number, match[0]


def files(names: Sequence[str]) -> Iterator[Path]:
    """Those of the files, relative to the repository, that people read; of all that git tracks, if none are named."""
    listed = (
        names
        or subprocess.run(
            ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.splitlines()
    )
    for name in listed:
        path = ROOT / name
        if name in _QUOTING or name.startswith("tests/") or path.suffix not in _SUFFIXES:
            continue
        if path.is_file() and not path.is_symlink():
            yield path


def main(names: Sequence[str]) -> int:
    """Print each, as a compiler would.

    Returns:
        The exit status: 1 where there is one.
    """
    status = 0
    for path in files(names):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, phrase in found_in(text):
            status = 1
            print(f"{path.relative_to(ROOT)}:{number}: {phrase!r}: docs/style.md says what to write instead")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
