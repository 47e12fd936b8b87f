"""`hosts.deploy`: the app under gunicorn on the hosts of a deployment, one host after another.

First everything is brought to all hosts at once, which touches nothing that runs. Then the release is started on one
host after another, each when the one before it answers. Where it does not, that host goes back to the release it had,
and the hosts after it keep theirs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

from provision.app.app_process import name_of
from provision.app.deploy import host_virtualenv, release
from provision.app.deploy.host_virtualenv import AppEnvironment, Wheels
from provision.app.deploy.release import SentRelease, Target
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.locks import exclusive
from provision.core.steps import Decision, Progress
from provision.deployments import cluster, on_hosts
from provision.hosts import inventory, setup, units
from provision.hosts.backend import Hosts
from provision.hosts.link import File, HostError, Link, Unreachable, all_of, everywhere
from provision.hosts.scripts import script
from provision.hosts.setup import DataDirectory, HostStep
from provision.hosts.units import PROCESS, Supervisor, Unit
from provision.settings.loading import Loaded
from provision.state import records

READY_SECONDS = 60.0
# gunicorn gives requests 30 seconds to end.
_PATIENCE = 35.0
_ASK_SECONDS = 1.0
_PORT_SECONDS = 5
_KEPT = 3
_LOG_LINES = 12
_LOG_READ = 200
_APP = "app"


@dataclass(frozen=True)
class Deployed:
    """What a deploy did.

    Args:
        release: the release that was deployed; empty: each host's own previous one.
        steps: what was done on each host, in order.
        removed: hosts that the app was taken from, for they are no longer among its hosts.
        seconds: wall time.
    """

    deployment: str
    release: str
    steps: tuple[HostStep, ...]
    removed: tuple[str, ...]
    seconds: float

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the hosts where another release was started."""
        return tuple(each.host for each in self.steps if each.name == _APP and each.changed)


def deploy(
    loaded: Loaded,
    on: str,
    dry_run: bool = False,
    rollback: bool = False,
    finished: Callable[[HostStep], None] = lambda _: None,
    ready_seconds: float = READY_SECONDS,
) -> Deployed:
    """Put the app on the hosts that a deployment names for it, and run it there.

    A host whose app is as it should be, runs and answers is left as it is. What was stopped halfway is finished.

    Args:
        on: the deployment; it runs.
        rollback: go back to the release before, on each host, instead.
        ready_seconds: how long a release may take until it answers.

    Raises:
        ProvisionError: something is missing, or a host could not be brought to the release: it has the one before
            again, and so have the hosts after it.
    """
    begun = time.monotonic()
    doing = f"deploying the app of {on}"
    _refuse_a_command(loaded, doing)
    names = app_hosts(loaded, on)
    deployment = on_hosts.deployed(loaded, on)
    steps: list[HostStep] = []

    def told(step: HostStep) -> None:
        steps.append(step)
        finished(step)

    with (
        exclusive(loaded.paths.lock(f"app-{on}"), doing),
        contextlib.closing(cast("Hosts", deployment.backend)),
        on_hosts.links(loaded, names) as links,
        Wheels() as wheels,
    ):
        requirements = host_virtualenv.wanted(loaded)
        made = release.of(loaded, deployment, requirements, keep=not dry_run)
        if not dry_run and not deployment.running(deployment.topology.seeds):
            raise cluster.not_running(deployment, doing)
        targets = {
            name: Target(link, made, AppEnvironment(link, requirements, wheels))
            for name, link in links.items()
        }
        running = {
            name: RunningApp(loaded, targets[name], rollback, tuple(names[at + 1 :]), ready_seconds)
            for at, name in enumerate(names)
        }
        if not dry_run:
            _remember(loaded, on, {*_remembered(loaded, on), *names})
        if rollback:  # all of them can, or none does
            _, errors = everywhere(links, lambda link: running[link.host.name].decide())
            if errors:
                raise all_of(doing, errors)
        else:
            _bring(links, targets, doing, dry_run, told)
        for name in names:
            rolled = setup.run({name: links[name]}, lambda link: [running[link.host.name]], dry_run, told)
            if rolled.errors:
                raise rolled.errors[name]
    gone = [] if dry_run else [name for name in _may_have_it(loaded, on) if name not in names]
    removed = undeploy(loaded, on, gone) if gone else ()
    return Deployed(on, "" if rollback else made.id, tuple(steps), removed, time.monotonic() - begun)


def _refuse_a_command(loaded: Loaded, doing: str) -> None:
    settings = loaded.settings.app
    if settings.command:
        raise ProvisionError(
            doing,
            f"app.command is set ({name_of(settings)}), and hosts serve an app with gunicorn, by its app.factory.",
            "Set app.command to null and app.factory to the app in invoke.yaml. For once: "
            "INVOKE_APP_COMMAND=null ./invoke hosts.deploy --on NAME",
        )


def _bring(
    links: Mapping[str, Link],
    targets: Mapping[str, Target],
    doing: str,
    dry_run: bool,
    told: Callable[[HostStep], None],
) -> None:
    """Send a release, and make the virtualenv that it needs, on all hosts at once."""
    brought = setup.run(
        links,
        lambda link: [
            DataDirectory(link),
            targets[link.host.name].environment,
            SentRelease(targets[link.host.name]),
        ],
        dry_run,
        told,
    )
    if brought.errors:
        raise all_of(doing, brought.errors)


def undeploy(loaded: Loaded, on: str, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Stop the app, and remove what `deploy` has put on its hosts, but for the virtualenv.

    `names`: hosts to take it from; None: all that it is on.

    Returns: Names of the hosts where there was something to remove.
    Raises ProvisionError: naming the hosts where that failed; it is done on the others.
    """
    on_hosts.deployed(loaded, on)
    doing = f"removing the app of {on}"
    wanted = _may_have_it(loaded, on) if names is None else names
    with exclusive(loaded.paths.lock(f"app-{on}"), doing), on_hosts.links(loaded, wanted) as links:

        def work(link: Link) -> bool:
            supervisor = Supervisor.settle(link, on)
            ran = link.script(script("app-is-there.sh"), supervisor.here)
            services = {_APP: service(on)}
            if not ran.out.strip():
                return False
            supervisor.end(services, _PATIENCE, doing)
            supervisor.remove(services, everything=False, data=True, doing=doing)
            return True

        done, errors = everywhere(links, work)
        _remember(loaded, on, {name for name in _remembered(loaded, on) if name not in done})
    if errors:
        raise all_of(doing, errors, tuple(done))
    return tuple(name for name, was_there in done.items() if was_there)


def taken_down(loaded: Loaded, on: str) -> ProvisionError | None:
    """Remove the app of a deployment that is taken down, if it may have one.

    Returns: What was in the way: no reason to leave its nodes running. None: nothing.
    """
    if loaded.deployment(on).capabilities.local or not _may_have_it(loaded, on):
        return None
    try:
        undeploy(loaded, on)
    except ProvisionError as problem:
        return problem
    return None


@dataclass(frozen=True)
class Serving:
    """Where the app runs."""

    host: str  # name of the host
    port: int  # where it listens, on the host's loopback


def running_on(loaded: Loaded, on: str) -> Serving | None:
    """The first host where the app of a deployment runs; None: it runs on none that can be asked."""
    with on_hosts.links(loaded, _may_have_it(loaded, on)) as links:

        def port(link: Link) -> int | None:
            supervisor = Supervisor.settle(link, on)
            if not supervisor.observe({_APP: service(on)})[_APP].running:
                return None
            ran = link.script(script("app-port-of-latest.sh"), supervisor.here, script("app_port.py"))
            return int(ran.out) if ran.out.strip().isdigit() else None

        found, _ = everywhere(links, port)
    return next((Serving(name, port) for name, port in found.items() if port is not None), None)


def app_hosts(loaded: Loaded, on: str) -> list[str]:
    """Names of the hosts that a deployment's app is for.

    Raises ProvisionError: it names none, or one that invoke.yaml does not know.
    """
    found = list(dict.fromkeys(loaded.deployment(on).app_hosts))
    if not found:
        known = ", ".join(loaded.settings.hosts) or "web1"
        raise ProvisionError(
            f"looking up the hosts for the app of {on}",
            f"deployments.{on}.app_hosts names none.",
            f"Name some of `hosts:` there, in invoke.yaml: app_hosts: [{known}]",
        )
    inventory.hosts(loaded, found)
    return found


def _may_have_it(loaded: Loaded, on: str) -> list[str]:
    """Hosts that the app is for, and those that it was put on; as far as invoke.yaml still has them."""
    wanted = loaded.deployment(on).app_hosts
    before = [name for name in _remembered(loaded, on) if name in loaded.settings.hosts]
    return list(dict.fromkeys((*wanted, *before)))


def _remembered(loaded: Loaded, on: str) -> list[str]:
    """Names of the hosts that the app was put on from this machine."""
    return list((records.APP.read(loaded.paths, on) or {}).get("hosts", ()))


def _remember(loaded: Loaded, on: str, names: Collection[str]) -> None:
    records.APP.write(loaded.paths, {"hosts": sorted(names)} if names else None, on)


def service(deployment: str) -> str:
    """Name of the systemd unit of a deployment's app."""
    return f"flask-{deployment}.service"


@dataclass(frozen=True)
class RunningApp:
    """A release that runs on a host and answers; one that does not makes way for the one before."""

    loaded: Loaded
    target: Target  # the host, and the release that is wanted there
    rollback: bool  # the one before is wanted instead
    after: tuple[str, ...]  # names of the hosts whose turn is later, for the error
    ready_seconds: float  # how long a release may take until it answers
    name: str = _APP

    @property
    def _services(self) -> dict[str, str]:
        return {_APP: service(self.target.release.deployment)}

    @property
    def _doing(self) -> str:
        return f"running the app of {self.target.release.deployment} on {self.target.link.host.name}"

    def decide(self) -> Decision:
        target = self.target
        history, again = self._history()
        wanted = self._wanted(history)
        if not history:
            return Decision(True, f"{wanted} is not started yet")
        if history[0] != wanted:
            return Decision(True, f"{wanted} is to take the place of {history[0]}")
        if not target.supervisor.observe(self._services)[_APP].running:
            return Decision(True, f"{wanted} does not run")
        if again:
            return Decision(True, f"{wanted} is not what was started last")
        status = self._ask(wanted, _ASK_SECONDS)
        if not _is_ready(status):
            return Decision(True, f"{wanted} {self._answer(status)}, so it is started again")
        return Decision(False, f"{wanted} runs and answers at 127.0.0.1:{self._port(wanted)}")

    def act(self, progress: Progress) -> str:
        history, _ = self._history()
        wanted = self._wanted(history)
        problem = self._started(wanted, history)
        if problem is not None:
            raise self._undone(wanted, history, problem)
        return f"{wanted} runs and answers at 127.0.0.1:{self._port(wanted)}"

    def _wanted(self, history: list[str]) -> str:
        if not self.rollback:
            return self.target.release.id
        if len(history) < 2:
            host = self.target.link.host
            raise HostError(
                f"rolling back the app on {host.name}",
                f"{host.name} ({host.address}) has no release before "
                + (f"{history[0]}." if history else "the first: the app was never deployed there."),
                f"Check out the version that you want, and type: invoke hosts.deploy --on {self.target.release.deployment}",
            )
        return history[1]

    def _history(self) -> tuple[list[str], bool]:
        """Releases that have run there, the latest first; and whether something else may run now."""
        target = self.target
        ran = target.link.script(script("app-history.sh"), target.supervisor.here)
        if ran.status != 0:
            raise target.link.failed(self._doing, ran, target.supervisor.here)
        found = ran.out.split()
        return [each for each in found if each != "again"], "again" in found

    def _started(self, wanted: str, history: list[str]) -> ProvisionError | None:
        """Start a release, and write down that it runs; why it does not, if so."""
        target, link = self.target, self.target.link
        try:
            problem = self._start(wanted, ran_before=bool(history))
        except Unreachable:
            raise
        except HostError as refused:
            return refused
        if problem is None:
            kept = [wanted, *(each for each in history if each != wanted)][:_KEPT]
            ran = link.script(
                script("app-remember.sh"), target.supervisor.here, str(link.host.data_dir), *kept
            )
            if ran.status != 0:
                raise link.failed(self._doing, ran, target.supervisor.here)
        return problem

    def _start(self, wanted: str, ran_before: bool) -> ProvisionError | None:
        """End what runs, start a release, and wait until it answers; why it does not, if so."""
        target, link = self.target, self.target.link
        supervisor = target.supervisor
        directory, port = target.directory(wanted), self._port(wanted)
        command = (f"{directory}/env/bin/python", f"{directory}/serve.py")
        # From here on it is not known what runs there, until something does again: the next command starts it again.
        ran = link.script(script("app-forget.sh"), supervisor.here)
        if ran.status != 0:
            raise link.failed(self._doing, ran, supervisor.here)
        supervisor.end(self._services, _PATIENCE, self._doing)
        # Workers may outlive a gunicorn that was killed by a moment.
        ran = link.script(
            script("port-is-free.sh"), f"{port:04X}", str(_PORT_SECONDS * 10 if ran_before else 0)
        )
        if ran.status == 79:
            return HostError(
                self._doing,
                f"Port {port} of {link.host.name} ({link.host.address}) is taken by something that this tool did not start.",
                f"`sudo ss -ltnp 'sport = :{port}'` there names it. Stop it, or choose another port: "
                f"deployments.{target.release.deployment}.app_port in invoke.yaml.",
            )
        if supervisor.kind != PROCESS:
            template = self.loaded.paths.app_unit_template.read_text(encoding="utf-8")
            name = target.release.deployment
            text = units.render_unit(template, name, _APP, supervisor.here, command, (), supervisor.kind)
            link.put(supervisor.here, [File(service(name), text.encode(), 0o644)], self._doing)
        supervisor.launch([Unit(_APP, port, command)], self._services, {}, self._doing)
        return self._wait(wanted)

    def _wait(self, wanted: str) -> ProvisionError | None:
        host = self.target.link.host
        deadline = time.monotonic() + self.ready_seconds
        while True:
            status = self._ask(wanted, _ASK_SECONDS)
            observed = self.target.supervisor.observe(self._services)[_APP]
            if not observed.running:
                how = "" if observed.exit_status is None else f" with status {observed.exit_status}"
                cause = (
                    f"Release {wanted} ended{how} on {host.name} ({host.address}); what it printed is above."
                )
            elif _is_ready(status):
                return None
            elif time.monotonic() > deadline:
                cause = (
                    f"Release {wanted} runs on {host.name} ({host.address}), and {self._answer(status)} "
                    f"after {self.ready_seconds:g} s."
                )
            else:
                continue
            return ProvisionError(
                self._doing, cause, "Correct the app, then type the command again.", self._log()
            )

    def _undone(self, wanted: str, history: list[str], problem: ProvisionError) -> ProvisionError:
        """Go back to the release before, and say what became of it all."""
        host, supervisor = self.target.link.host, self.target.supervisor
        before = history[0] if history else None
        if before == wanted:
            fate = "It is the release that was there before, and is left as it is."
        elif before is None:
            supervisor.end(self._services, _PATIENCE, self._doing)
            supervisor.remove(self._services, everything=False, data=False, doing=self._doing)
            fate = f"Nothing was running on {host.name} before, and nothing is."
        else:
            again = self._started(before, history)
            fate = f"{host.name} runs the release before again, {before}" + (
                "." if again is None else f", which does not answer either: {again.cause}"
            )
        if self.after:
            fate += f" {', '.join(self.after)} {'keeps what it has' if len(self.after) == 1 else 'keep what they have'}."
        return ProvisionError(problem.doing, f"{problem.cause}\n{fate}", problem.remedy, problem.log_lines)

    def _port(self, wanted: str) -> int:
        """Where a release listens; one of earlier settings may do so elsewhere."""
        target = self.target
        if wanted == target.release.id:
            return target.release.port
        directory = target.directory(wanted)
        ran = target.link.run(
            [f"{directory}/env/bin/python", "-I", "-c", script("app_port.py"), f"{directory}/serve.json"]
        )
        if not ran.out.strip().isdigit():
            raise target.link.failed(f"looking at release {wanted}", ran, directory)
        return int(ran.out)

    def _ask(self, wanted: str, seconds: float) -> int | None:
        """The status that the app answers with; asked until it is ready or the seconds are over."""
        python = f"{self.target.directory(wanted)}/env/bin/python"
        port, path = str(self._port(wanted)), self.loaded.settings.app.ready_path
        ran = self.target.link.run([python, "-I", "-c", script("app_answer.py"), port, path, f"{seconds:g}"])
        # 0: it did not answer.
        return (int(ran.out) or None) if ran.out.strip().isdigit() else None

    def _answer(self, status: int | None) -> str:
        path = self.loaded.settings.app.ready_path
        return f"answers {status} at {path}" if status else f"does not answer at {path}"

    def _log(self) -> list[str]:
        ran = self.target.link.run(
            ["tail", "-n", str(_LOG_READ), f"{self.target.supervisor.here}/{_APP}.out"]
        )
        return telling(ran.out.splitlines())


def telling(lines: Sequence[str]) -> list[str]:
    """Those of what gunicorn printed that say why the app does not answer. Pure.

    Every worker that could not load the app prints a traceback, and gunicorn goes on about that: the first tells all.
    """
    begin = next((at for at, line in enumerate(lines) if line.startswith("Traceback ")), None)
    if begin is None:
        return list(lines[-_LOG_LINES:])
    end = next((at for at in range(begin + 1, len(lines)) if not lines[at].startswith(" ")), len(lines) - 1)
    return list(lines[begin : end + 1][-_LOG_LINES:])


def _is_ready(status: int | None) -> bool:
    # As for `run`: an app without such a page answers, too.
    return status is not None and (status < 400 or status == 404)
