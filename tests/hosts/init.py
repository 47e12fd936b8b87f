"""The first process of a host of the tests: mounts what is the host's own, runs its sshd, and buries the dead.

Started as pid 1 of namespaces of its own; when it ends, the kernel ends everything in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    host = json.loads(Path(sys.argv[1]).read_text())
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/sshd").mkdir(mode=0o755)
    for own, place in host["binds"]:
        mount("--bind", own, place)
    for place, size in host["small_disks"].items():
        Path(place).mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", place)
    with Path(host["log"]).open("ab") as log:
        subprocess.Popen(
            [host["sshd"], "-D", "-e", "-f", host["config"]],
            stdin=subprocess.DEVNULL,
            stderr=log,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    while True:
        os.wait()


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


main()
