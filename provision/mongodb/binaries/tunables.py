"""What a mongod needs in its environment. Light: asked at every start."""

from __future__ import annotations

import os
import sys

from provision.mongodb.binaries.model import leading, numbers

# https://github.com/google/tcmalloc/issues/292
_RSEQ_KERNEL = (6, 19)
_RSEQ_VERSION = (8, 0)
_RSEQ = "glibc.pthread.rseq"


def environment(version: str) -> dict[str, str]:
    """What a mongod of this version needs in its environment on this machine, beyond what is there already.

    mongod 8 on Linux 6.19 or later dies unless glibc keeps restartable sequences to itself
    (https://github.com/google/tcmalloc/issues/292).

    `version`: of the mongod: ``"8.0.17"``.

    Returns: Variables to add; empty where it needs nothing.
    """
    if sys.platform != "linux":
        return {}
    return tunables(version, leading(os.uname().release), os.environ.get("GLIBC_TUNABLES", ""))


def tunables(version: str, kernel: tuple[int, int], present: str) -> dict[str, str]:
    """`GLIBC_TUNABLES` for a mongod on a Linux kernel; the user's other tunables in it are kept. Pure.

    Args:
        version: of the mongod.
        kernel: major and minor of the kernel.
        present: value of the variable as it is; empty where unset.
    """
    if numbers(version) < _RSEQ_VERSION or kernel < _RSEQ_KERNEL:
        return {}
    others = [item for item in present.split(":") if item and not item.startswith(f"{_RSEQ}=")]
    return {"GLIBC_TUNABLES": ":".join([*others, f"{_RSEQ}=1"])}
