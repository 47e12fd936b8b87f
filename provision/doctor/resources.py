"""Checks of what the machine gives: disk, memory, limits, file systems."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.finding import Finding, error, ok, warning

MB = 1024**2
GB = 1024**3
_DISK_LOW, _DISK_OUT = 2 * GB, 300 * MB
_INODES_LOW, _INODES_OUT = 10_000, 1_000
# What a mongod takes beside its cache, measured and rounded up.
NODE_BYTES = 200 * MB
# https://www.mongodb.com/docs/manual/reference/ulimit/
_OPEN_FILES = 64_000
_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afpfs",
        "webdav",
        "9p",
        "vboxsf",
        "virtiofs",
        "ceph",
        "glusterfs",
    }
)
_VOLATILE = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True)
class DiskFacts:
    """Room on the file system that some directories are on."""

    directories: tuple[Path, ...]  # which of ours are on it; the first is named in commands
    free: int  # bytes that this user may still write
    inodes: int | None  # how many files may still be made; None: it has no such limit
    setting: str = ""  # the key that moves the first directory; empty: none does


@dataclass(frozen=True)
class DirectoryFacts:
    """A directory that the tool writes into."""

    path: Path
    kind: str  # type of its file system, as the kernel calls it; empty: not known
    against: str = ""  # why it can't be written; empty: it can
    setting: str = ""  # the key that moves it; empty: none does
    data: bool = False  # MongoDB keeps its data there


def read_disks(wanted: Mapping[Path, str]) -> list[DiskFacts]:
    """Room on each file system that the tool writes to, each once.

    `wanted` maps a directory to the key that moves it. Where one is missing, its nearest parent counts.
    """
    by_device: dict[int, list[Path]] = {}
    for path in wanted:
        by_device.setdefault(existing(path).stat().st_dev, []).append(path)
    found = []
    for paths in by_device.values():
        room = os.statvfs(existing(paths[0]))
        # Btrfs and some others make inodes as they are needed, and count none.
        inodes = room.f_favail if room.f_files else None
        found.append(DiskFacts(tuple(paths), room.f_bavail * room.f_frsize, inodes, wanted[paths[0]]))
    return found


def judge_disk(facts: DiskFacts) -> list[Finding]:
    """Whether there is room on a disk. Pure."""
    path = facts.directories[0]
    where = ", ".join(str(each) for each in facts.directories)
    elsewhere = f"\nor choose another place: {facts.setting} in invoke.yaml" if facts.setting else ""
    remedy = f"Make room; this shows what takes it: du -xh -d 2 {shlex.quote(str(existing(path)))} | sort -h{elsewhere}"
    told = f"{size(facts.free)} free for {where}."
    if facts.free < _DISK_OUT:
        findings = [error("disk", f"Only {told} mongod needs {size(_DISK_OUT)}.", remedy)]
    elif facts.free < _DISK_LOW:
        findings = [warning("disk", f"Only {told}", remedy)]
    else:
        findings = [ok("disk", told)]
    if facts.inodes is not None and facts.inodes < _INODES_LOW:
        level = error if facts.inodes < _INODES_OUT else warning
        count = f"find {shlex.quote(str(existing(path)))} -xdev | cut -d/ -f1-6 | sort | uniq -c | sort -n"
        findings.append(
            level(
                "inodes",
                f"Only {facts.inodes} more files can be made for {where}, however much room is free.",
                f"Delete files; this shows where there are many: {count}{elsewhere}",
            )
        )
    return findings


def judge_memory(available: int, swap: int, needs: Mapping[str, int], starting: int) -> Finding:
    """Whether memory is there for the deployments that do not run yet, each by itself. Pure.

    `available` and `swap` are bytes; `needs` maps a deployment to the bytes that its nodes may take.
    """
    told = f"{size(available)} available"
    wanted = ", ".join(f"{name} {size(need)}" for name, need in needs.items())
    too_large = [name for name, need in needs.items() if need > available]
    remedy = "End other programs, or make caches smaller: cache_size_gb of the deployment in invoke.yaml (0.25 at least)."
    if available + swap < starting * NODE_BYTES:
        return error("memory", f"Only {told}; needed: {wanted}. mongod would be killed.", remedy)
    if too_large:
        return warning(
            "memory",
            f"Only {told}, too little for {' and '.join(too_large)} once caches are full; needed: {wanted}.",
            remedy,
        )
    return ok("memory", f"{told}; needed: {wanted}." if wanted else f"{told}; every deployment runs.")


def read_memory() -> tuple[int, int]:
    """Bytes of memory that are available, and of swap that are free."""
    import psutil

    available = int(psutil.virtual_memory().available)
    headroom = cgroup_headroom()
    if headroom is None:
        return available, int(psutil.swap_memory().free)
    return min(available, headroom), 0


def cgroup_headroom(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Bytes until this process's cgroup, or one above it, is out of memory; None: none has a limit.

    Version 2 alone: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    try:
        line = next(
            line
            for line in membership.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return None
    group = mount / line.removeprefix("0::").strip("/")
    rooms = []
    while group.is_relative_to(mount):
        try:
            limit = (group / "memory.max").read_text(encoding="utf-8", errors="replace").strip()
            used = int((group / "memory.current").read_text(encoding="utf-8", errors="replace"))
            statistics = dict(
                each.split()
                for each in (group / "memory.stat").read_text(encoding="utf-8", errors="replace").splitlines()
            )
        except (OSError, ValueError):
            limit = "max"
        if limit != "max":
            # The kernel takes back what files are cached before it kills anyone.
            rooms.append(max(0, int(limit) - used + int(statistics.get("inactive_file", 0))))
        group = group.parent
    return min(rooms, default=None)


def judge_open_files(soft: int, hard: int, system: str) -> Finding:
    """Whether mongod may open as many files as MongoDB recommends. Pure.

    https://www.mongodb.com/docs/manual/reference/ulimit/

    `soft` is -1 or a huge number where there is no limit.
    """
    if soft < 0 or soft >= _OPEN_FILES:
        return ok("open files", f"Up to {'any number' if soft < 0 else soft} for each process.")
    what = f"A process may open {soft} files; MongoDB recommends {_OPEN_FILES} for each mongod."
    if hard < 0 or hard >= _OPEN_FILES:
        return warning(
            "open files", what, f"ulimit -n {_OPEN_FILES} (in this shell; in your shell's profile for good)"
        )
    if system == "macos":
        return warning("open files", what, f"sudo launchctl limit maxfiles {_OPEN_FILES} 200000")
    return warning(
        "open files",
        what,
        f'echo "$USER - nofile {_OPEN_FILES}" | sudo tee /etc/security/limits.d/90-mongod.conf (then log in anew)',
    )


def judge_huge_pages(enabled: str, version: str | None) -> Finding:
    """What MongoDB advises on transparent huge pages; it matters in production, so this is not a warning. Pure.

    MongoDB 8.0 and later are faster with them, earlier versions without:
    https://www.mongodb.com/docs/manual/administration/tcmalloc-performance/

    `enabled` is the text of ``/sys/kernel/mm/transparent_hugepage/enabled``: ``"always [madvise] never"``.
    """
    present = enabled.partition("[")[2].partition("]")[0]
    if version is None:
        return ok("huge pages", f"Transparent huge pages: {present}.")
    advised = "always" if int(version.split(".")[0]) >= 8 else "never"
    # mongod 7 and earlier complain of `always` alone.
    if present == advised or (advised == "never" and present == "madvise"):
        return ok("huge pages", f"Transparent huge pages: {present}, which suits MongoDB {version}.")
    return ok(
        "huge pages",
        f"Transparent huge pages: {present}; in production MongoDB {version} wants {advised}. Here it does not matter.",
    )


def read_directory(path: Path, setting: str, data: bool = False) -> DirectoryFacts:
    """Look at a directory that the tool writes into; where it is missing, at its nearest parent."""
    there = existing(path)
    against = ""
    if not there.is_dir():
        against = f"{there} is not a directory"
    elif os.statvfs(there).f_flag & os.ST_RDONLY:
        against = f"the file system of {there} is read-only"
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        against = f"{there} is not writable for you"
    return DirectoryFacts(path, _file_system(there), against, setting, data)


def judge_directory(facts: DirectoryFacts) -> Finding:
    """Whether a directory can be written, and suits what is kept there. Pure."""
    check = f"directory {facts.path.name}"
    elsewhere = (
        f"choose another: {facts.setting} in invoke.yaml" if facts.setting else "move the project elsewhere"
    )
    if facts.against:
        there = shlex.quote(str(existing(facts.path)))
        return error(check, f"{facts.path}: {facts.against}.", f"sudo chown -R $USER {there}\nor {elsewhere}")
    if facts.data and (facts.kind in _NETWORK or facts.kind.startswith("fuse.")):
        return warning(
            check,
            f"{facts.path} is on a network or shared file system ({facts.kind}), which is slow and unsafe for MongoDB.",
            f"{elsewhere[0].upper()}{elsewhere[1:]}, on a local disk.",
        )
    if facts.data and facts.kind in _VOLATILE:
        return warning(
            check,
            f"{facts.path} is in memory ({facts.kind}): data are gone after a reboot.",
            f"{elsewhere[0].upper()}{elsewhere[1:]}, on a disk.",
        )
    return ok(check, f"{facts.path} is writable{f' ({facts.kind})' if facts.kind else ''}.")


def existing(path: Path) -> Path:
    """The path, or where it is missing the nearest parent that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def size(count: int) -> str:
    """A number of bytes for people: ``"1.5 GB"``."""
    for unit, scale in (("GB", GB), ("MB", MB), ("kB", 1024)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}" if count < 10 * scale else f"{count / scale:.0f} {unit}"
    return f"{count} B"


def _file_system(path: Path) -> str:
    import psutil

    real = path.resolve()
    mounts: Sequence[tuple[str, str]] = [
        (each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)
    ]
    under = [(mount, kind) for mount, kind in mounts if real.is_relative_to(mount)]
    # Of two mounted on the same place, the later one hides the other.
    return max(enumerate(under), key=lambda each: (len(each[1][0]), each[0]))[1][1] if under else ""
