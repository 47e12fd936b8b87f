"""This machine, as far as a mongod cares: read once by `this_machine`, everything else is pure."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.mongodb.binaries.model import NotServing, leading, numbers

_ARCHIVE_ARCHITECTURES = ("x86_64", "aarch64")
# Newest first: build, the glibc and the MongoDB version that it began with. Builds for Ubuntu run on any
# distribution with that glibc: those from 22.04 on need OpenSSL 3, the one for 20.04 needs OpenSSL 1.1.
_UBUNTU_BUILDS = (("ubuntu2404", (2, 39), (8, 0)), ("ubuntu2204", (2, 35), (6, 0)))
_UBUNTU_OPENSSL_1 = ("ubuntu2004", (2, 31))
_MANUAL = "https://www.mongodb.com/docs/manual/installation/"


@dataclass(frozen=True)
class Machine:
    """Facts of a machine."""

    system: str  # ``linux``, ``macos``, or what Python calls another one
    arch: str  # ``x86_64``, ``aarch64`` (``arm64`` on macOS), …
    kernel: tuple[int, int] = (0, 0)  # major and minor of the kernel's version
    # major and minor of the C library; None where it is another one (musl, macOS)
    glibc: tuple[int, int] | None = None
    avx: bool | None = None  # the CPU has AVX; None: not known, or not that kind of CPU
    distribution: str = ""  # `ID` of os-release: ``debian``; empty on macOS
    like: tuple[str, ...] = ()  # `ID_LIKE`: the distributions it derives from
    release: str = ""  # `VERSION_ID`: ``12``, ``24.04``
    codename: str = ""  # `UBUNTU_CODENAME` where it has one, else `VERSION_CODENAME`
    title: str = ""  # `PRETTY_NAME`, as a person knows it

    @property
    def family(self) -> tuple[str, ...]:
        """The distribution and those it derives from, nearest first."""
        return (self.distribution, *self.like)

    @property
    def major(self) -> int:
        """The distribution's release, without what follows its first dot; 0 if it has none."""
        return leading(self.release)[0]

    @property
    def name(self) -> str:
        return f"{self.title or self.system} on {self.arch}"


def this_machine() -> Machine:
    """Read the facts of the machine this runs on."""
    system = {"darwin": "macos"}.get(sys.platform, sys.platform)
    names: dict[str, str] = {}
    if system == "linux":
        try:
            names = platform.freedesktop_os_release()
        except OSError:
            names = {}
    title = f"macOS {platform.mac_ver()[0]}" if system == "macos" else names.get("PRETTY_NAME", "")
    return Machine(
        system=system,
        arch=platform.machine(),
        kernel=leading(os.uname().release),
        glibc=_glibc() if system == "linux" else None,
        avx=_avx() if system == "linux" and platform.machine() == "x86_64" else None,
        distribution=names.get("ID", ""),
        like=tuple(names.get("ID_LIKE", "").split()),
        release=names.get("VERSION_ID", ""),
        codename=names.get("UBUNTU_CODENAME") or names.get("VERSION_CODENAME", ""),
        title=title,
    )


def builds(machine: Machine, version: str) -> tuple[str, ...]:
    """The platform parts of the names of the archives that suit a machine, best first. Pure.

    Names as on https://www.mongodb.com/try/download/community: ``linux-x86_64-debian12``. More than one,
    because not every version has a build for every distribution.

    Raises NotServing: MongoDB publishes nothing that could run there.
    """
    if machine.system == "macos":
        return (f"macos-{machine.arch}",)
    if machine.system != "linux":
        raise NotServing(f"no archive suits {machine.name}: Linux and macOS are supported")
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine.arch, machine.arch)
    if arch not in _ARCHIVE_ARCHITECTURES:
        raise NotServing(f"MongoDB publishes no free archive for {machine.arch}, only for x86_64 and aarch64")
    require_glibc(machine)
    require_cpu(machine)
    named = _named_build(machine, arch, numbers(version))
    found = named + _ubuntu_builds(machine, numbers(version), last_resort=not named)
    if not found:
        raise NotServing(
            f"MongoDB publishes no build of {version} that runs on {machine.name}: its C library is too old"
        )
    return tuple(f"linux-{arch}-{build}" for build in found)


def require_glibc(machine: Machine) -> None:
    """Refuse a Linux machine whose C library is not glibc.

    Raises NotServing: with the way out.
    """
    if machine.system == "linux" and machine.glibc is None:
        raise NotServing(
            f"MongoDB's binaries need glibc, and {machine.title or 'this Linux'} has another C library (musl); "
            "run MongoDB in Docker there, or this whole project in a Debian or Ubuntu container"
        )


def require_cpu(machine: Machine) -> None:
    """Refuse a CPU that every supported mongod would die on.

    Raises NotServing: with the way out.
    """
    if machine.avx is False:
        raise NotServing(no_avx())


def no_avx() -> str:
    return (
        "MongoDB 5.0 and later need a CPU with AVX, and this one has or shows none; in a virtual machine, "
        'give it the host\'s CPU type ("host" in Proxmox, host-passthrough in libvirt, -cpu host in QEMU)'
    )


def install_commands(machine: Machine, version: str) -> str:
    """How a person installs `mongodb-org` on a machine; may span lines. Pure.

    Follows https://www.mongodb.com/docs/manual/installation/.

    `version`: its major and minor are the series that is installed.
    """
    series = "{}.{}".format(*numbers(version))
    if machine.system == "macos":
        return f"brew tap mongodb/brew && brew install mongodb-community@{series}"
    family = machine.family
    if "ubuntu" in family and machine.codename in ("focal", "jammy", "noble"):
        return _apt(f"ubuntu {machine.codename}/mongodb-org/{series} multiverse", series)
    if machine.distribution == "debian" and machine.codename == "bookworm" and machine.arch == "x86_64":
        return _apt(f"debian bookworm/mongodb-org/{series} main", series)
    if machine.distribution == "amzn" and machine.release == "2023":
        return _yum("amazon/2023", series, machine.arch)
    if {"rhel", "centos"} & set(family) and machine.major in (8, 9):
        return _yum(f"redhat/{machine.major}", series, machine.arch)
    if _is_suse(machine) and machine.arch == "x86_64":
        return (
            f"sudo rpm --import https://pgp.mongodb.com/server-{series}.asc\n"
            f"sudo zypper addrepo --gpgcheck https://repo.mongodb.org/zypper/suse/15/mongodb-org/{series}/x86_64/ mongodb\n"
            "sudo zypper install mongodb-org"
        )
    return f"see {_MANUAL}"


def _named_build(machine: Machine, arch: str, version: tuple[int, int]) -> tuple[str, ...]:
    x86 = arch == "x86_64"
    family = set(machine.family)
    if machine.distribution == "amzn":
        return ("amazon2023",) if machine.release == "2023" else ()
    if machine.distribution == "fedora" or ({"rhel", "centos"} & family and machine.major >= 9):
        return ("rhel93",) if version >= (8, 0) else ("rhel90",)
    if {"rhel", "centos"} & family and machine.major == 8:
        return ("rhel8",) if version >= (8, 0) else ("rhel80" if x86 else "rhel82",)
    if x86 and _is_suse(machine):
        return ("suse15",)
    # There is none for Debian on aarch64, and those before Debian 12 ended with MongoDB 7.
    if x86 and machine.distribution == "debian" and (machine.major >= 12 or not machine.release):
        return ("debian12",)
    if x86 and machine.distribution == "debian" and machine.major == 11 and version < (8, 0):
        return ("debian11",)
    return ()


def _ubuntu_builds(machine: Machine, version: tuple[int, int], last_resort: bool) -> tuple[str, ...]:
    glibc = machine.glibc or (0, 0)
    modern = tuple(build for build, needs, since in _UBUNTU_BUILDS if glibc >= needs and version >= since)
    build, needs = _UBUNTU_OPENSSL_1
    return modern or ((build,) if last_resort and glibc >= needs else ())


def _is_suse(machine: Machine) -> bool:
    return machine.distribution in ("sles", "opensuse-leap") and machine.major == 15


def _apt(repository: str, series: str) -> str:
    return (
        f"curl -fsSL https://pgp.mongodb.com/server-{series}.asc "
        f"| sudo gpg --dearmor -o /usr/share/keyrings/mongodb-server-{series}.gpg\n"
        f'echo "deb [signed-by=/usr/share/keyrings/mongodb-server-{series}.gpg] '
        f'https://repo.mongodb.org/apt/{repository}" | sudo tee /etc/apt/sources.list.d/mongodb-org-{series}.list\n'
        "sudo apt-get update && sudo apt-get install -y mongodb-org"
    )


def _yum(place: str, series: str, arch: str) -> str:
    lines = (
        rf"[mongodb-org-{series}]\nname=MongoDB\n"
        rf"baseurl=https://repo.mongodb.org/yum/{place}/mongodb-org/{series}/{arch}/\n"
        rf"gpgcheck=1\nenabled=1\ngpgkey=https://pgp.mongodb.com/server-{series}.asc\n"
    )
    return f"printf '{lines}' | sudo tee /etc/yum.repos.d/mongodb-org-{series}.repo\nsudo yum install -y mongodb-org"


def _glibc() -> tuple[int, int] | None:
    try:
        kind, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return None
    return leading(version) if kind == "glibc" else None


def _avx() -> bool | None:
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return "avx" in flags.group(1).split() if flags else None
