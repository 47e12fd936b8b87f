"""The first process of a host of the tests: mounts what is the host's own, runs its sshd, and buries the dead.

Started as pid 1 of namespaces of its own; when it ends, the kernel ends everything in them. On a host with systemd it
becomes that instead, which runs sshd as a unit.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEW_CGROUP_NAMESPACE = 0x02000000


def main() -> None:
    host = json.loads(Path(sys.argv[1]).read_text())
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/sshd").mkdir(mode=0o755)
    for own, place in host["binds"]:
        mount("--bind", own, place)
    for place, size in host["small_disks"].items():
        Path(place).mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", place)
    if host["systemd"]:
        become_systemd(host)
    with Path(host["log"]).open("ab") as log:
        subprocess.Popen(
            [host["sshd"], "-D", "-e", "-f", host["config"]],
            stdin=subprocess.DEVNULL,
            stderr=log,
            env={"PATH": _PATH},
        )
    while True:
        os.wait()


def become_systemd(host: dict[str, Any]) -> NoReturn:
    """Run systemd as this process, where it can reach nothing of this machine but what is the host's own."""
    folder = Path(host["folder"])
    # All of the machine's cgroups, to go into the host's own; then nothing but that one, as its systemd's root.
    cgroups = Path("/sys/fs/cgroup")
    mount("-t", "cgroup2", "cgroup2", str(cgroups))
    (cgroups / host["cgroup"] / "cgroup.procs").write_text("0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_CGROUP_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["umount", str(cgroups)], check=True)
    mount("-t", "cgroup2", "cgroup2", str(cgroups))
    for own, place in (
        ("etc-systemd", "/etc/systemd"),
        ("units", "/usr/lib/systemd/system"),
        ("generators", "/usr/lib/systemd/system-generators"),
        ("var-lib-systemd", "/var/lib/systemd"),
    ):
        mount("--bind", str(folder / own), place)
    mount("--bind", "/dev/null", "/dev/console")
    # The host's folder may lie in /tmp, which becomes the host's own.
    aside = Path("/run/folder")
    aside.mkdir()
    mount("--bind", str(folder), str(aside))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")
    folder.mkdir(parents=True, exist_ok=True)
    mount("--move", str(aside), str(folder))
    aside.rmdir()
    mount("--bind", "/proc/sys", "/proc/sys")
    for place in ("/proc/sys", "/sys", "/"):
        mount("-o", "remount,bind,ro", place)
    # `container` keeps it from the clock, the hostname and the kernel's settings.
    environment = {"container": "flaskbook", "PATH": _PATH}
    os.execve(
        host["systemd"], [host["systemd"], "--system", "--log-target=null", "--show-status=no"], environment
    )


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


main()
