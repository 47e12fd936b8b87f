"""The programs that run on hosts: plain POSIX sh under shellcheck, and Python that 3.8 understands.

A script that begins with `. lib/NAME.sh` has that file in its place when it is sent: a host gets one text. Arguments are
`$1` and so on; secrets come on standard input alone.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

_FOLDER = Path(__file__).parent
_LIBRARY = re.compile(r"^\. (lib/[a-z]+\.sh)$", re.MULTILINE)


@functools.cache
def script(name: str) -> str:
    """The text of a program: ``"observe.sh"``."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return _LIBRARY.sub(lambda found: script(found[1]).rstrip("\n"), text)
