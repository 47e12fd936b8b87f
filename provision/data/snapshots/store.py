"""The snapshots of a deployment on disk: a folder each, complete or not listed."""

from __future__ import annotations

import shutil
from provision.core.dataclass import dataclass
from datetime import UTC, datetime
from pathlib import Path

from provision.core import copying
from provision.core.errors import ProvisionError
from provision.core.files import read_json, write_json
from provision.data.snapshots.manifest import Manifest
from provision.settings.paths import Paths

MANIFEST = "manifest.json"
_TEMPORARY = ".taking-"
_GOING = ".going-"


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def room(self) -> int:
        """Bytes that it takes on the disk. Holes take none."""
        return self.room_of("")

    def room_of(self, name: str) -> int:
        """The same of one set's files."""
        files = (path for path in (self.folder / name).rglob("*") if path.is_file())
        return sum(copying.room_of(path) for path in files)


@dataclass(frozen=True)
class Store:
    """Where the snapshots of a deployment are."""

    paths: Paths
    deployment: str

    @property
    def folder(self) -> Path:
        return self.paths.snapshots(self.deployment)

    def all(self) -> list[Snapshot]:
        """The complete ones, the oldest first.

        Raises ProvisionError: a newer version of the tool has taken one.
        """
        found = []
        for folder in self.folder.glob("*") if self.folder.is_dir() else ():
            if folder.name.startswith(".") or (value := read_json(folder / MANIFEST)) is None:
                continue
            try:
                found.append(Snapshot(folder, Manifest.of(value)))
            except (KeyError, TypeError, AttributeError):
                continue
        return sorted(found, key=lambda each: each.manifest.created)

    def find(self, name: str) -> Snapshot | None:
        """The one of that name; None: there is none."""
        return next((each for each in self.all() if each.name == name), None)

    def begin(self, name: str) -> Path:
        """An empty folder for one that is being taken.

        Raises OSError: it can't be made.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.folder / f"{_TEMPORARY}{name}"
        folder.mkdir(mode=0o700)
        return folder

    def complete(self, folder: Path, manifest: Manifest) -> Snapshot:
        """Give one that was taken its name: from now on it is there. Its files are on disk already.

        Raises OSError: it can't be written.
        """
        write_json(folder / MANIFEST, manifest.as_json())
        for each in (*(folder / one.name for one in manifest.sets), folder):
            copying.sync(each)
        target = self.folder / manifest.name
        folder.rename(target)
        copying.sync(self.folder)
        return Snapshot(target, manifest)

    def delete(self, snapshot: Snapshot) -> None:
        """Delete one: it is not listed any more from the first moment.

        Raises OSError: it can't be.
        """
        going = self.folder / f"{_GOING}{snapshot.name}"
        shutil.rmtree(going, ignore_errors=True)
        snapshot.folder.rename(going)
        shutil.rmtree(going)

    def clear(self) -> None:
        """Remove what commands have left that were cut off. The caller holds the deployment's lock."""
        for pattern in (_TEMPORARY, _GOING):
            for folder in self.folder.glob(f"{pattern}*") if self.folder.is_dir() else ():
                shutil.rmtree(folder, ignore_errors=True)

    def check(self, snapshot: Snapshot, doing: str) -> None:
        """See that every file is there as it was taken.

        Raises ProvisionError: naming the first that is not.
        """
        expected = {snapshot.folder / file.path: file for file in snapshot.manifest.files}
        try:
            wrong = [path for path, file in expected.items() if path.stat().st_size != file.bytes]
            if not wrong:
                read = {
                    path: file.checksum for path, file in expected.items() if file.stamp != copying.stamp(path)
                }
                wrong = copying.changed(read)
        except OSError as problem:
            wrong = [Path(problem.filename or snapshot.folder)]
        if wrong:
            raise ProvisionError(
                doing,
                f"The snapshot is damaged: {wrong[0]} is not as it was when it was taken. Nothing was changed.",
                f"Delete it and use another one: invoke snapshot.delete {snapshot.name} --on {self.deployment}",
            )


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


