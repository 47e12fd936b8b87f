"""Which tests may run in different workers of a run."""

from __future__ import annotations

import functools
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

from tests.support.capabilities import ROOT


class Distribution(LoadFileScheduling):  # type: ignore[misc]
    """Keeps the tests of a file in one worker where they share a fixture; any other goes to whoever is free.

    Files that stay together come first, so that single tests are left to fill up the end of the run.
    """

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def unit_of(test: str) -> str:
    """What a worker takes as a whole.

    Args:
        test: node id of a test.

    Returns:
        Its file, if that or the conftest.py beside it has a fixture of module scope; else the test itself.
    """
    file = test.partition("::")[0]
    path = ROOT / file
    return file if any(map(_has_shared_fixture, (path, path.with_name("conftest.py")))) else test


def share_of(arguments: list[str], worker: int, count: int) -> list[str]:
    """The modules that a worker imports first, so that its siblings find them compiled.

    Args:
        arguments: files, directories or node ids that are to be collected.
        worker: which worker it is, from 0.
        count: how many there are; one alone has no share.
    """
    if count < 2:
        return []
    named = [Path(each.partition("::")[0]).resolve() for each in arguments]
    files = {file for path in named for file in ([path] if path.is_file() else path.rglob("test_*.py"))}
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in sorted(files)[worker::count]]


@functools.cache
def _has_shared_fixture(path: Path) -> bool:
    return path.is_file() and 'scope="module"' in path.read_text(encoding="utf-8")
