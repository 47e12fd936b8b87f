"""MongoDB's own archive: one .tgz per version and platform, with its sha256 beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, TYPE_CHECKING

from provision.core.steps import Progress
from provision.core.text import redact
from provision.mongodb.binaries.model import NO_SOCKS, NotServing, Reason

if TYPE_CHECKING:
    import requests

_CONNECT_SECONDS = 3.0
_READ_SECONDS = 60.0
# The checksum is 100 bytes: who does not answer within this is not there. Name resolution and a host's
# many addresses have no time limit of their own.
_CHECKSUM_SECONDS = 10.0
_CHUNK_BYTES = 256 * 1024
_WANTED = re.compile(r"[^/]+/bin/(mongod|mongos)")


class Absent(NotServing):
    """The mirror answers, and does not have the file."""


def url(mirror: str, build: str, version: str) -> str:
    """Address of an archive, as on https://www.mongodb.com/try/download/community.

    Args:
        mirror: base URL, with or without a slash at its end.
        build: ``linux-x86_64-debian12`` or ``macos-arm64``.
        version: ``8.0.17``.
    """
    return f"{mirror.rstrip('/')}/{'osx' if build.startswith('macos') else 'linux'}/mongodb-{build}-{version}.tgz"


def published_sha256(address: str) -> str:
    """The sha256 that is published beside an archive.

    Returns: 64 hexadecimal digits.

    Raises:
        Absent: there is no such archive on that host.
        NotServing: the host can't be reached, or answers something else.
    """
    from queue import Empty, SimpleQueue
    from threading import Thread

    answers: SimpleQueue[str | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_checksum(f"{address}.sha256"))
        except Exception as problem:  # noqa: BLE001  # raised again, in the thread that asked
            answers.put(problem)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_CHECKSUM_SECONDS)
    except Empty:
        raise NotServing(
            f"{_host(address)} did not answer within {_CHECKSUM_SECONDS:.0f} s", Reason.NETWORK
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def download(address: str, sha256: str, folder: Path, progress: Progress) -> None:
    """Download an archive, check it, and unpack its mongod and mongos.

    `folder`: has a folder ``bin``, which gets the binaries.

    Raises:
        NotServing: not all of it came, or it is not what was published.
        OSError: the folder cannot be written.
    """
    import logging

    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    name = address.rpartition("/")[2]
    downloader = pooch.HTTPDownloader(
        progressbar=_Bar(progress), chunk_size=_CHUNK_BYTES, timeout=(_CONNECT_SECONDS, _READ_SECONDS)
    )
    try:
        pooch.retrieve(address, f"sha256:{sha256}", name, folder, downloader=downloader)
    except requests.RequestException as problem:
        raise _explained(problem, address) from None
    except ValueError:
        raise NotServing(
            f"{redact(address)} does not have the sha256 that is published beside it ({sha256[:16]}…): "
            "damaged or tampered with, and not used"
        ) from None
    unpack(folder / name, folder / "bin")
    (folder / name).unlink()


def unpack(archive: Path, folder: Path) -> None:
    """Write an archive's mongod and mongos, and nothing else of it, into a folder.

    Names inside the archive choose what is read, never where it is written.

    `archive`: a .tgz.

    Raises:
        NotServing: it holds no mongod that is a plain file, or is not such an archive.
        OSError: the folder cannot be written.
    """
    import tarfile
    import zlib

    missing = {"mongod", "mongos"}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                found = _WANTED.fullmatch(member.name)
                if found is None or found.group(1) not in missing:
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise NotServing(f"{member.name} in {archive.name} is not a plain file: not used")
                write_binary(content, folder / found.group(1))
                missing.discard(found.group(1))
                if not missing:
                    return
    except (tarfile.TarError, EOFError, zlib.error) as problem:
        raise NotServing(f"{archive.name} can't be unpacked: {problem}") from None
    if "mongod" in missing:
        raise NotServing(f"{archive.name} holds no bin/mongod")


def write_binary(content: IO[bytes], path: Path) -> None:
    """Copy a stream into a new executable file."""
    import shutil

    with path.open("xb") as file:
        shutil.copyfileobj(content, file, 1024 * 1024)
    path.chmod(0o755)


class _Bar:
    """What pooch wants of a progress bar, passed on to a `Progress`."""

    def __init__(self, progress: Progress) -> None:
        self.total = 0
        self._done = 0
        self._progress = progress

    def update(self, size: int) -> None:
        self._done += size
        # pooch counts whole chunks, and the last one seldom is.
        done = min(self._done, self.total) if self.total else self._done
        self._progress.advance(done, self.total or None)

    def reset(self) -> None:
        self._done = 0 if self.total else self._done

    def close(self) -> None:
        """Nothing to close: the step that watches knows when it ends."""


def _checksum(address: str) -> str:
    import requests

    try:
        with requests.get(address, timeout=(_CONNECT_SECONDS, _CHECKSUM_SECONDS), stream=True) as response:
            response.raise_for_status()
            text = next(response.iter_content(1024), b"").decode("ascii", errors="replace")
    except requests.RequestException as problem:
        raise _explained(problem, address) from None
    found = re.match(r"\s*([0-9a-fA-F]{64})\b", text)
    if found is None:
        raise NotServing(
            f"{redact(address)} is not a checksum: a proxy or login page may have answered instead"
        )
    return found.group(1).lower()


def _explained(problem: requests.RequestException, address: str) -> NotServing:
    import requests

    if isinstance(problem, requests.HTTPError) and problem.response is not None:
        status = problem.response.status_code
        # The host of the archives answers 403 for what it does not have.
        if status in (403, 404):
            return Absent(f"{redact(address.removesuffix('.sha256'))} is not there (HTTP {status})")
        return NotServing(f"{_host(address)} answered HTTP {status}")
    if isinstance(problem, requests.exceptions.ConnectTimeout):
        return NotServing(
            f"{_host(address)} cannot be reached: no connection within {_CONNECT_SECONDS:.0f} s",
            Reason.NETWORK,
        )
    if isinstance(problem, requests.exceptions.InvalidSchema) and "SOCKS" in str(problem):
        return NotServing(f"{_host(address)} cannot be reached: {NO_SOCKS}", Reason.SOCKS)
    reason = _innermost(problem)
    if isinstance(problem, requests.exceptions.ChunkedEncodingError):
        return NotServing(f"the download from {_host(address)} broke off: {reason}", Reason.NETWORK)
    return NotServing(f"{_host(address)} cannot be reached: {reason}", Reason.NETWORK)


def _innermost(problem: BaseException) -> str:
    while (inner := problem.__cause__ or problem.__context__) is not None:
        problem = inner
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return redact(str(problem)) or type(problem).__name__


def _host(address: str) -> str:
    return redact(address.rpartition("/")[0].rpartition("/")[0])
