"""What keeps a program running on its host: a systemd unit, or a process that a small shell waits for.

The scripts here run on the host. Each handles all units of that host at once: one round trip. A process is ours if
its pid, its start time and the host's boot are those of the record that was written when it was started.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from provision.backends.base import Observed
from provision.core.dataclass import dataclass
from provision.hosts.link import Link, Ran
from provision.hosts.scripts import script

SYSTEM, USER, PROCESS = "system", "user", "process"
OBSERVE_SECONDS = 10.0
_END_MARGIN = 30.0


@dataclass(frozen=True)
class Unit:
    """A program that is kept running: a node, or the app."""

    name: str  # its name; what belongs to it in the deployment's directory is called after it
    port: int  # the port that it listens on
    command: tuple[str, ...]  # absolute path of the program on the host, and its arguments; no secrets


def unit_name(deployment: str, node: str) -> str:
    """Name of a node's systemd unit."""
    return f"mongodb-{deployment}-{node}.service"


def node_command(binary: str, directory: str, node: str) -> tuple[str, ...]:
    """What runs a node: its binary, with its configuration in the deployment's directory on the host."""
    return (binary, "--config", f"{directory}/{node}.conf")


def render_unit(
    template: str,
    deployment: str,
    name: str,
    directory: str,
    command: Sequence[str],
    environment: Sequence[str],
    kind: str,
) -> str:
    """The text of a systemd unit. Pure.

    Args:
        template: text of ``templates/mongod.service.j2`` or ``templates/app.service.j2``.
        name: the node's name, or ``app``.
        directory: absolute path of the deployment's directory on the host.
        command: absolute path of the program there, and its arguments.
        environment: ``NAME=value`` of what it needs, nothing secret.
        kind: ``system`` or ``user``.
    """
    import jinja2

    engine = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False  # noqa: S701 — a unit, not HTML
    )  # fmt: skip
    engine.filters["unit"] = _quoted
    return engine.from_string(template).render(
        deployment=deployment,
        name=name,
        directory=directory,
        command=command,
        environment=environment,
        kind=kind,
    )


def _quoted(value: str) -> str:
    """A value for a unit file, where %, quotes and backslashes mean something."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def parse_observed(text: str) -> dict[str, Observed]:
    """What `script("observe.sh")` printed: node → how it was found. Pure."""
    found = {}
    for line in text.splitlines():
        node, _, rest = line.partition(" ")
        state, _, value = rest.partition(" ")
        number = int(value) if value.lstrip("-").isdigit() else None
        if state == "running":
            words = value.split()
            pid = next((int(word) for word in words if word.isdigit()), None)
            found[node] = Observed(True, paused="paused" in words, remote_pid=pid or None)
        elif state == "ended":
            # A shell turns signal n into status 128 + n.
            signalled = number is not None and number > 128
            found[node] = Observed(False, None, 128 - number if signalled and number else number)
        else:
            found[node] = Observed(False)
    return found


@dataclass(frozen=True)
class Supervisor:
    """What keeps the units of one deployment running on one host."""

    link: Link
    here: str  # the deployment's directory there, absolute
    kind: str  # ``process``, ``system`` or ``user``
    deployment: str  # its name, for errors

    @classmethod
    def settle(cls, link: Link, deployment: str) -> Supervisor:
        """Ask a host for what only it knows: where its user's home is, and whether systemd runs units for him.

        Raises:
            HostError: it gave no answer.
            Unreachable: it can't be asked.
        """
        directory = str(link.host.data_dir / deployment)
        ran = link.script(script("settle.sh"), directory, timeout=OBSERVE_SECONDS)
        here, _, found = ran.out.strip().partition("\n")
        if ran.status != 0 or not here.startswith("/"):
            raise link.failed(f"looking at {deployment}", ran, directory)
        wanted = link.host.units
        return cls(link, here, (found or PROCESS) if wanted == "auto" else wanted, deployment)

    def observe(self, services: Mapping[str, str]) -> dict[str, Observed]:
        """How units were found.

        `services`: name → name of its systemd unit.

        Raises:
            HostError: the host could not say.
            Unreachable: it can't be asked.
        """
        if self.kind == PROCESS:
            ran = self.link.script(script("observe.sh"), self.here, *services, timeout=OBSERVE_SECONDS)
        else:
            pairs = _pairs(services)
            ran = self.link.script(
                script("units-observe.sh"), self.here, self.kind, *pairs, timeout=OBSERVE_SECONDS
            )
        self._must(f"looking at {self.deployment}", ran)
        return parse_observed(ran.out)

    def launch(
        self, wanted: Sequence[Unit], services: Mapping[str, str], environment: Mapping[str, str], doing: str
    ) -> None:
        """Start units; one that runs is left as it is.

        Args:
            wanted: the units. As systemd units they are started as their files in the directory say.
            services: name → name of its systemd unit.
            environment: variables for processes, nothing secret; a systemd unit has them in its file.

        Raises:
            HostError: one can't be started.
            Unreachable: the host can't be reached.
        """
        if self.kind == PROCESS:
            groups = [
                word for each in wanted for word in (each.name, str(each.port), shlex.join(each.command))
            ]
            given = "".join(f"{name}={value}\n" for name, value in environment.items())
            ran = self.link.script(script("launch.sh"), self.here, *groups, feed=given.encode())
        else:
            pairs = _pairs({each.name: services[each.name] for each in wanted})
            ran = self.link.script(script("units-launch.sh"), self.here, self.kind, *pairs)
        self._must(doing, ran)

    def end(self, services: Mapping[str, str], patience: float, doing: str) -> None:
        """End units, and wait until they have ended.

        Args:
            services: name → name of its systemd unit.
            patience: seconds to wait before SIGKILL; 0: SIGKILL at once.

        Raises:
            HostError: that failed.
            Unreachable: the host can't be reached.
        """
        seconds, limit = str(round(patience)), patience + _END_MARGIN
        if self.kind == PROCESS:
            ran = self.link.script(script("end.sh"), self.here, seconds, *services, timeout=limit)
        else:
            own = services.values()
            ran = self.link.script(script("units-end.sh"), self.here, self.kind, seconds, *own, timeout=limit)
        self._must(doing, ran)

    def remove(self, services: Mapping[str, str], everything: bool, data: bool, doing: str) -> None:
        """Remove what is left of units that have ended.

        Args:
            services: name → name of its systemd unit.
            everything: also what all nodes of the deployment share on the host.
            data: also their data and logs.

        Raises:
            HostError: that failed.
            Unreachable: the host can't be reached.
        """
        if self.kind != PROCESS:
            own = services.values()
            self._must(doing, self.link.script(script("units-remove.sh"), self.here, self.kind, *own))
        extent, fate = "all" if everything else "some", "data" if data else "keep"
        self._must(doing, self.link.script(script("remove.sh"), self.here, extent, fate, *services))

    def _must(self, doing: str, ran: Ran) -> None:
        if ran.status != 0:
            raise self.link.failed(doing, ran, self.here)


def _pairs(services: Mapping[str, str]) -> list[str]:
    return [word for pair in services.items() for word in pair]
