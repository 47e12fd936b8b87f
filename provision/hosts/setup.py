"""`hosts.setup`: the steps that make hosts ready for nodes. All hosts at once, each step in turn on each.

A step that was stopped halfway leaves a temporary name behind at most; the next one begins anew and finishes.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.steps import Decision, Progress, Silent, Step, StepResult, run_steps
from provision.hosts.link import HostError, Link, Ran, everywhere
from provision.hosts.scripts import script

if TYPE_CHECKING:
    from provision.mongodb.binaries import Mongod

_SEND_SECONDS = 60.0
_FETCH_SECONDS = 600.0


@dataclass(frozen=True)
class Binary:
    """A mongod or mongos of this machine that hosts are to have."""

    name: str  # ``mongod`` or ``mongos``
    path: Path  # the file here
    sha256: str  # of its content
    size: int  # in bytes

    @classmethod
    def of(cls, path: Path, name: str) -> Binary:
        """Read a file.

        Raises OSError: it can't be read.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(name, path, digest, path.stat().st_size)

    @property
    def place(self) -> str:
        """Where it is below `data_dir`: by its content, so that what is there under this name is right."""
        return f"bin/{self.sha256[:16]}/{self.name}"


def binaries_of(mongod: Mongod | None) -> dict[str, Binary]:
    """What hosts are to have of the mongod that was chosen on this machine: ``mongod``, and ``mongos`` beside it.

    Raises ProvisionError: it can't be read.
    """
    if mongod is None:
        return {}
    found = {"mongod": mongod.path} | ({"mongos": mongod.mongos} if mongod.mongos else {})
    try:
        return {name: _binary(name, path, path.stat().st_mtime_ns) for name, path in found.items()}
    except OSError as problem:
        raise ProvisionError(
            "reading the mongod that hosts are to have",
            f"{problem.filename}: {problem.strerror}.",
            "Type `invoke setup`, which finds another one.",
        ) from None


@functools.lru_cache(maxsize=8)
def _binary(name: str, path: Path, _changed: int) -> Binary:
    return Binary.of(path, name)


@dataclass(frozen=True)
class Archive:
    """Where a host may get the same binaries by itself."""

    url: str  # MongoDB's archive for the platform


@dataclass(frozen=True)
class DataDirectory:
    """The directory that holds all that the tool puts on a host, for its user alone."""

    link: Link
    name: str = "directory"

    def decide(self) -> Decision:
        ran = self.link.script(script("directory-state.sh"), str(self.link.host.data_dir))
        state, _, path = ran.out.strip().partition(" ")
        if ran.status != 0 or not path:
            raise self.link.failed("looking at the data directory", ran, str(self.link.host.data_dir))
        if state == "right":
            return Decision(False, f"{path} is there")
        return Decision(True, f"{path} is missing" if state == "absent" else f"{path} is not 0700")

    def act(self, progress: Progress) -> str:
        host = self.link.host
        ran = self.link.script(script("directory-make.sh"), str(host.data_dir))
        if ran.status == 0:
            return f"made {ran.out.strip()}"
        if ran.status == 77:
            raise HostError(
                f"making the data directory on {host.name}",
                f"{ran.out.strip()} on {host.name} ({host.address}) can't be made or written: {ran.said}. "
                "And this user may not use sudo there without a password.",
                f"Type on {host.name}: sudo install -d -m 0700 -o {host.user or '$USER'} {host.data_dir}\n"
                f"or choose another directory: hosts.{host.name}.data_dir in invoke.yaml.",
            )
        raise self.link.failed("making the data directory", ran, str(host.data_dir))


@dataclass(frozen=True)
class SentBinary:
    """A binary on a host: fetched by it or sent from here, checked by its sha256 before it gets its name."""

    link: Link
    binary: Binary
    archive: Archive | None = None

    @property
    def name(self) -> str:
        return self.binary.name

    def decide(self) -> Decision:
        if is_there(self.link, self.binary):
            return Decision(False, f"{self.binary.place} is there ({self.binary.size // 2**20} MB)")
        return Decision(True, f"{self.binary.path} is not there yet ({self.binary.size // 2**20} MB)")

    def act(self, progress: Progress) -> str:
        binary, link = self.binary, self.link
        directory = str(link.host.data_dir)
        how = "sent"
        ran: Ran | None = None
        if self.archive is not None:
            ran = link.script(
                script("binary-fetch.sh"),
                directory,
                binary.place,
                binary.sha256,
                self.archive.url,
                binary.name,
                timeout=_FETCH_SECONDS,
            )
            how = "fetched by the host"
        if ran is None or ran.status != 0:
            how = "sent"
            with binary.path.open("rb") as content:
                ran = link.run(
                    [
                        "sh",
                        "-c",
                        script("binary-receive.sh"),
                        "provision",
                        directory,
                        binary.place,
                        binary.sha256,
                    ],
                    content,
                    _SEND_SECONDS,
                    lambda sent: progress.advance(sent, binary.size),
                )
        if ran.status == 65:
            raise HostError(
                f"sending {binary.name} to {link.host.name}",
                f"What arrived at {link.host.name} ({link.host.address}) does not have the sha256 of {binary.path}: "
                "it was damaged on the way, and was thrown away.",
                "Type the command again.",
            )
        if ran.status != 0:
            raise link.failed(f"putting {binary.name}", ran, f"{directory}/{binary.place}")
        return f"{how}: {binary.place} ({binary.size // 2**20} MB), its sha256 is right"


@dataclass(frozen=True)
class Runs:
    """A binary that was asked for its version once, on the host."""

    link: Link
    binary: Binary
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.binary.name} runs"

    def decide(self) -> Decision:
        ran = self.link.script(script("binary-version.sh"), str(self.link.host.data_dir), self.binary.place)
        if ran.status == 0:
            return Decision(False, ran.out.strip())
        return Decision(True, f"{self.binary.name} has not run yet: it is run once with --version")

    def act(self, progress: Progress) -> str:
        given = [f"{name}={value}" for name, value in self.environment.items()]
        ran = self.link.script(
            script("binary-try.sh"), str(self.link.host.data_dir), self.binary.place, *given
        )
        if ran.status == 0:
            return ran.out.strip()
        host = self.link.host
        if ran.status in (132, 126, 127):
            why = {132: "it used an instruction that its processor does not have (AVX)"}.get(
                ran.status, ran.said
            )
        else:
            why = ran.said
        raise HostError(
            f"running {self.binary.name} on {host.name}",
            f"{self.binary.name} of this machine does not run on {host.name} ({host.address}): {why}.",
            f"Install what it lacks there, or choose a mongod for its distribution: mongodb.source and mongodb.path in "
            f"invoke.yaml.\n`invoke hosts.check` says what {host.name} is.",
        )


@dataclass(frozen=True)
class HostStep:
    """What became of a step on a host; an element of what ``invoke hosts.setup --json`` prints.

    Args:
        name: the step's.
        changed: it acted, or with a dry run, would have acted.
        why: what was done or why nothing was.
        seconds: wall time.
    """

    host: str
    name: str
    changed: bool
    why: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What `hosts.setup` did."""

    steps: tuple[HostStep, ...]  # the steps of all hosts, those of hosts that failed up to there
    errors: Mapping[str, ProvisionError]  # host name → why it failed
    seconds: float  # wall time

    def error(self) -> ProvisionError | None:
        """One error over all hosts that failed; None: none did."""
        from provision.hosts.link import all_of

        if not self.errors:
            return None
        succeeded = dict.fromkeys(step.host for step in self.steps if step.host not in self.errors)
        return all_of("setting up hosts", self.errors, tuple(succeeded))

    def raise_first(self) -> None:
        """Raise that error, if there is one."""
        if error := self.error():
            raise error


def steps(
    link: Link,
    binaries: Sequence[Binary],
    archive: Archive | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Step]:
    """The steps of one host, in order.

    Args:
        binaries: what it is to have.
        archive: where it may fetch them; None: they are sent.
    """
    made: list[Step] = [DataDirectory(link)]
    for each in binaries:
        made += [SentBinary(link, each, archive), Runs(link, each, environment or {})]
    return made


def run(
    links: Mapping[str, Link],
    plan: Callable[[Link], Sequence[Step]],
    dry_run: bool = False,
    finished: Callable[[HostStep], None] = lambda _: None,
) -> Outcome:
    """Set hosts up, all at once. One that fails stops no other."""
    begun = time.monotonic()
    done: dict[str, list[HostStep]] = {name: [] for name in links}

    def work(link: Link) -> None:
        run_steps(plan(link), _Told(link.host.name, done[link.host.name], finished), dry_run)

    _, errors = everywhere(links, work)
    return Outcome(tuple(each for name in links for each in done[name]), errors, time.monotonic() - begun)


class _Told:
    """A reporter that keeps what it is told, with the host's name."""

    def __init__(self, host: str, steps: list[HostStep], finished: Callable[[HostStep], None]) -> None:
        self._host = host
        self._steps = steps
        self._finished = finished

    def started(self, name: str) -> Progress:
        return Silent()

    def finished(self, result: StepResult, dry_run: bool) -> None:
        each = HostStep(self._host, **vars(result))
        self._steps.append(each)
        self._finished(each)


def is_there(link: Link, binary: Binary) -> bool:
    """Whether a host has a binary, whole."""
    ran = link.script(script("binary-state.sh"), str(link.host.data_dir), binary.place, str(binary.size))
    return ran.status == 0
