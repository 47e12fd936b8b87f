"""Checks of Docker, for the deployments whose back end it is. `run` needs none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from provision.core.dataclass import dataclass
from provision.core.finding import Finding, ok, warning
from provision.mongodb.binaries.machine import Machine

_DOCKER_SECONDS = 1.8


@dataclass(frozen=True)
class DockerFacts:
    """What is known of Docker."""

    installed: bool  # its command is on the PATH
    engine: str | None = None  # version of the engine that answers; None: none does
    why: str = ""  # what the command said instead
    compose: str | None = None  # version of `docker compose`; None: it is not there


def read_docker() -> DockerFacts:
    """Ask Docker's command for the engine and for compose, both at once."""
    if shutil.which("docker") is None:
        return DockerFacts(False)
    asked = [
        subprocess.Popen(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        for words in (("version", "--format", "{{.Server.Version}}"), ("compose", "version", "--short"))
    ]
    (engine, why), (compose, _) = [_outcome(each) for each in asked]
    return DockerFacts(True, engine, why, compose)


def _outcome(process: subprocess.Popen[str]) -> tuple[str | None, str]:
    try:
        told, complaint = process.communicate(timeout=_DOCKER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, f"no answer within {_DOCKER_SECONDS:g} s"
    if process.returncode == 0 and told.strip():
        return told.strip().splitlines()[0], ""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return None, lines[-1] if lines else f"its command ended with status {process.returncode}"


def judge_docker(facts: DockerFacts, needed_by: Sequence[str], machine: Machine) -> list[Finding]:
    """Whether deployments in Docker could run. Never an error: `run` needs none. Pure."""
    level = warning if needed_by else ok
    use = f" needed by {', '.join(needed_by)}" if needed_by else " needed only by deployments in Docker"
    if not facts.installed:
        return [level("docker", f"Docker is not installed;{use}.", _install_docker(machine))]
    findings = []
    if facts.engine is not None:
        findings.append(ok("docker", f"Engine {facts.engine} answers."))
    else:
        findings.append(
            level(
                "docker",
                f"Its engine does not answer;{use}: {facts.why.rstrip('.?')}.",
                _start_docker(facts, machine),
            )
        )
    if facts.compose is None:
        findings.append(level("docker compose", f"Compose v2 is missing;{use}.", _install_compose(machine)))
    elif facts.compose.lstrip("v").startswith("1."):
        findings.append(
            level("docker compose", f"This is {facts.compose}, and v2 is{use}.", _install_compose(machine))
        )
    else:
        findings.append(ok("docker compose", f"Compose {facts.compose.lstrip('v')}."))
    return findings


def _install_docker(machine: Machine) -> str:
    if machine.system == "macos":
        return "brew install --cask docker"
    if {"debian", "ubuntu"} & set(machine.family):
        return "sudo apt-get install docker.io"
    if "fedora" in machine.family:
        return "sudo dnf install moby-engine"
    return "see https://docs.docker.com/engine/install/"


def _start_docker(facts: DockerFacts, machine: Machine) -> str:
    if "permission denied" in facts.why.lower():
        return "sudo usermod -aG docker $USER (then log in anew)"
    if machine.system == "macos":
        return "open -a Docker"
    return "sudo systemctl start docker"


def _install_compose(machine: Machine) -> str:
    if machine.system == "macos":
        return "brew install docker-compose"
    if machine.distribution == "ubuntu":
        return "sudo apt-get install docker-compose-v2"
    if machine.distribution == "debian" and machine.major >= 13:
        return "sudo apt-get install docker-compose"
    if "fedora" in machine.family:
        return "sudo dnf install docker-compose"
    return "see https://docs.docker.com/compose/install/linux/"
