"""Builds the local image: a base from this machine's files, imported as one archive, and a thin layer on top."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import py_compile
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STANDIN = HERE.parent / "router_standin"
LABEL = "flaskbook.test-image"
BASE = "flaskbook-test-base"
APP = Path("/opt/router-standin")
USER = 999
# Parts of the standard library that nothing in the image needs, 90 % of its size.
LEFT_OUT = frozenset(
    {"test", "site-packages", "dist-packages", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "distutils",
     "unittest", "pydoc_data", "__pycache__", "sqlite3", "venv", "xmlrpc", "curses", "dbm", "asyncio", "wsgiref"}
)  # fmt: skip


class BuildError(Exception):
    """The image can't be built on this machine; the text says what is missing and how to get it."""


def build_image(mongod: Path, tag: str) -> str:
    """Builds the image, or finds it already built from the same files.

    Args:
        mongod: a mongod for Linux that runs on this machine.
        tag: name for the image, "name:tag".
    Returns:
        the tag.
    Raises:
        BuildError: not on Linux, no static busybox, mongod not to be run, or no Docker engine.
    """
    if sys.platform != "linux":
        raise BuildError("the local image is made of this machine's own files, which must be Linux's")
    import docker
    import filelock

    try:
        client = docker.from_env(timeout=300)
    except docker.errors.DockerException as error:
        raise BuildError(f"no Docker engine to build the test image with: {error}") from error
    # Test processes that run side by side build it once.
    with filelock.FileLock(Path(tempfile.gettempdir()) / f"{BASE}-{os.getuid()}.lock"), closing(client):
        base = _base(client, mongod)
        return _finish(client, base, tag)


def remove_images() -> None:
    """Removes every image that this module built, with its tags."""
    import docker

    with closing(docker.from_env()) as client:
        for image in client.images.list(filters={"label": LABEL}):
            client.images.remove(image.id, force=True)


def _has(client: Any, tag: str, digest: str) -> bool:
    import docker

    try:
        return bool(client.images.get(tag).labels.get(LABEL) == digest)
    except docker.errors.ImageNotFound:
        return False


# The base


def _base(client: Any, mongod: Path) -> str:
    busybox = _busybox()
    version = _version(mongod)
    digest = _digest([mongod, busybox, Path(__file__)], f"{sys.version} {sys.base_prefix}")
    tag = f"{BASE}:{digest[:20]}"
    if _has(client, tag, digest):
        return tag
    changes = [
        f'LABEL {LABEL}="{digest}"',
        f'ENV MONGO_VERSION="{version}" ROUTER_STANDIN_VERSION="{version}" HOME="/data/db" '
        'PATH="/usr/local/bin:/usr/bin:/bin"',
        "VOLUME /data/db /data/configdb",
        "EXPOSE 27017",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["mongod"]',
    ]
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            _fill(archive, mongod, busybox)
        file.seek(0)
        # In chunks: docker-py announces chunks, and sends a file object without.
        chunks = iter(functools.partial(file.read, 1 << 20), b"")
        client.api.import_image_from_stream(chunks, repository=BASE, tag=digest[:20], changes=changes)
    return tag


def _fill(archive: tarfile.TarFile, mongod: Path, busybox: Path) -> None:
    for path in ("usr/bin", "usr/lib", "usr/lib64", "usr/local/bin", "etc", "root", "opt", "var/log"):
        _folder(archive, Path("/") / path)
    for name in ("bin", "lib", "lib64"):
        _link(archive, Path("/") / name, f"usr/{name}")
    _folder(archive, Path("/tmp"), mode=0o1777)
    _folder(archive, Path("/data"))
    for path in ("/data/db", "/data/configdb"):
        _folder(archive, Path(path), owner=USER)
    _text(archive, "/etc/passwd", f"root:x:0:0::/root:/bin/sh\nmongodb:x:{USER}:{USER}::/data/db:/bin/sh\n")
    _text(archive, "/etc/group", f"root:x:0:\nmongodb:x:{USER}:\n")
    _text(archive, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")

    _file(archive, mongod, Path("/usr/bin/mongod"), mode=0o755)
    _file(archive, busybox, Path("/usr/bin/busybox"), mode=0o755)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            _link(archive, Path("/usr/bin") / applet, "busybox")

    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    extensions = Path(sysconfig.get_config_var("DESTSHARED"))
    _file(archive, python, python, mode=0o755)
    _standard_library(archive, library)
    if library not in extensions.parents:
        _standard_library(archive, extensions)
    _text(
        archive, "/usr/local/bin/router-standin-python", f'#!/bin/sh\nexec {python} -S -E "$@"\n', mode=0o755
    )
    _text(archive, "/usr/local/bin/mongos", f'#!/bin/sh\nexec router-standin-python {APP} "$@"\n', mode=0o755)
    perl = _perl()
    for part in perl:
        _file(archive, part, part, mode=0o755)
    bson = _package("bson")
    for name in ("bson", "yaml"):
        _package_files(archive, _package(name), APP / name)

    for library_file in _libraries(
        [mongod, python, *_binaries(perl), *extensions.glob("*.so"), *bson.glob("*.so")]
    ):
        _file(archive, library_file, library_file.parent.resolve() / library_file.name, mode=0o755)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise BuildError(f"the Python package {name} is missing: run ./invoke setup")
    return Path(spec.origin).parent


def _busybox() -> Path:
    for candidate in ("/bin/busybox", "/usr/bin/busybox"):
        path = Path(candidate)
        if path.exists() and subprocess.run(["ldd", path], capture_output=True).returncode:
            return path
    raise BuildError("no static busybox here for the test image's shell: apt-get install busybox-static")


def _perl() -> list[Path]:
    """Returns the files of a perl that can connect to a port: the containers' health check is written in it."""
    program = 'print join "\\n", $^X, values %INC, @DynaLoader::dl_shared_objects'
    try:
        output = subprocess.run(
            ["perl", "-MSocket", "-e", program], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"no perl here for the test image's health check: {error}") from error
    return [Path(line) for line in output.split("\n")]


def _binaries(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.suffix != ".pm"]


def _version(mongod: Path) -> str:
    try:
        output = subprocess.run([mongod, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{mongod} does not run on this machine: {error}") from error
    found = re.search(r"db version v(\S+)", output)
    if found is None:
        raise BuildError(f"{mongod} --version printed no version")
    return found[1]


def _libraries(binaries: Iterable[Path]) -> list[Path]:
    """Returns the shared libraries that binaries are linked with, the loader included."""
    found: set[Path] = set()
    for binary in binaries:
        output = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
        found.update(Path(path) for path in re.findall(r"(/\S+) \(0x", output))
        if missing := re.findall(r"(\S+) => not found", output):
            raise BuildError(f"{binary} needs libraries that are not installed: {', '.join(missing)}")
    return sorted(found)


# The layer on top


def _finish(client: Any, base: str, tag: str) -> str:
    parts = sorted(
        [
            *STANDIN.glob("*.py"),
            *(HERE / name for name in ("docker-entrypoint.sh", "initdb.py", "Dockerfile")),
        ]
    )
    digest = _digest(parts, base)
    if _has(client, tag, digest):
        return tag
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        _text(archive, "/Dockerfile", (HERE / "Dockerfile").read_text())
        _text(archive, "/.dockerignore", "Dockerfile\n.dockerignore\n")
        _file(archive, HERE / "docker-entrypoint.sh", Path("/usr/local/bin/docker-entrypoint.sh"), mode=0o755)
        _file(archive, HERE / "initdb.py", APP / "initdb.py")
        _text(
            archive,
            str(APP / "__main__.py"),
            "import sys\n\nfrom router_standin.__main__ import main\n\nsys.exit(main())\n",
        )
        _package_files(archive, STANDIN, APP / "router_standin")
    context.seek(0)
    client.images.build(
        fileobj=context, custom_context=True, tag=tag, buildargs={"BASE": base}, labels={LABEL: digest},
        network_mode="none", rm=True, forcerm=True,
    )  # fmt: skip
    # What the tag named before: ours by its label, and nameless now.
    client.images.prune(filters={"dangling": True, "label": LABEL})
    return tag


# Archives whose content depends on nothing but the files put in


def _digest(paths: Iterable[Path], *more: str) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(_file_digest(path, path.stat().st_mtime_ns, path.stat().st_size))
    for text in more:
        whole.update(text.encode())
    return whole.hexdigest()


@functools.cache
def _file_digest(path: Path, _modified: int, _size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _entry(path: Path, mode: int, owner: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(str(path).lstrip("/"))
    entry.mode, entry.uid, entry.gid = mode, owner, owner
    return entry


def _folder(archive: tarfile.TarFile, path: Path, mode: int = 0o755, owner: int = 0) -> None:
    entry = _entry(path, mode, owner)
    entry.type = tarfile.DIRTYPE
    archive.addfile(entry)


def _link(archive: tarfile.TarFile, path: Path, target: str) -> None:
    entry = _entry(path, 0o777)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _text(archive: tarfile.TarFile, path: str, text: str, mode: int = 0o644) -> None:
    data = text.encode()
    entry = _entry(Path(path), mode)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _file(
    archive: tarfile.TarFile, source: Path, path: Path, mode: int = 0o644, *, keep_time: bool = False
) -> None:
    entry = _entry(path, mode)
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        entry.size = status.st_size
        if keep_time:
            entry.mtime = int(status.st_mtime)
        archive.addfile(entry, file)


def _standard_library(archive: tarfile.TarFile, folder: Path) -> None:
    """Adds Python's own modules where they are here, compiled as they are here (valid as long as times agree)."""
    for item in sorted(folder.iterdir()):
        if item.name in LEFT_OUT or item.name.startswith("config-"):
            continue
        if item.is_dir():
            _standard_library(archive, item)
        elif item.suffix in {".py", ".so"}:
            _file(archive, item, item, keep_time=True)
            compiled = Path(importlib.util.cache_from_source(str(item)))
            if item.suffix == ".py" and compiled.exists():
                _file(archive, compiled, compiled)


def _package_files(archive: tarfile.TarFile, folder: Path, path: Path) -> None:
    """Adds a package at another place, compiled: nothing in the image may write, so it would be at every start."""
    for item in sorted((*folder.glob("*.py"), *folder.glob("*.so"))):
        _file(archive, item, path / item.name)
        if item.suffix == ".py":
            with tempfile.NamedTemporaryFile(suffix=".pyc") as compiled:
                py_compile.compile(
                    str(item), cfile=compiled.name, dfile=str(path / item.name), doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )  # fmt: skip
                _file(
                    archive,
                    Path(compiled.name),
                    Path(importlib.util.cache_from_source(str(path / item.name))),
                )
