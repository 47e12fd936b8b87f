"""What goes wrong with a deployment in Docker: one clear error, nothing half-built, and nothing else touched."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from provision.core.errors import ProvisionError
from tests.support.capabilities import AS_NOBODY, NOBODY
from tests.support.clusters import SMALL, Cluster, docker
from tests.support.polling import until

pytestmark = pytest.mark.timeout(300)
Make = Callable[..., Cluster]


def fails(cluster: Cluster) -> ProvisionError:
    """`up` fails, and leaves nothing in Docker."""
    with pytest.raises(ProvisionError) as caught:
        cluster.deployment.up()
    assert cluster.left() == {}
    return caught.value


def test_no_docker_command(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = make(SMALL)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        with pytest.raises(ProvisionError) as caught:
            cluster.deployment.up()
    assert "There is no docker command on the PATH" in caught.value.cause
    assert "--backend processes" in caught.value.remedy
    assert cluster.left() == {}


def test_engine_that_does_not_answer(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = make(SMALL)
    with monkeypatch.context() as patched:
        patched.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
        with pytest.raises(ProvisionError) as caught:
            cluster.deployment.up()
    assert "Docker's engine does not answer" in caught.value.cause
    assert "systemctl start docker" in caught.value.remedy
    assert cluster.left() == {}


@pytest.mark.needs("another-user")
def test_no_permission_to_use_the_engine(make: Make) -> None:
    cluster = make(SMALL)
    for path in (cluster.root, *cluster.root.rglob("*")):
        os.chown(path, *NOBODY)
    for folder in cluster.root.parents:
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to(Path(cluster.root.parents[2])):
            folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    program = (
        "import sys; from tests.support.clusters import Cluster; from pathlib import Path\n"
        "from provision.core.errors import ProvisionError\n"
        "cluster = Cluster(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "
        f"{cluster.settings!r})\n"
        "try: cluster.deployment.up()\n"
        "except ProvisionError as error: print(error.text())\n"
    )
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", program, str(cluster.root), cluster.image, cluster.name],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HOME": str(cluster.root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "You may not use this machine's Docker engine" in done.stdout, done.stdout + done.stderr
    assert "usermod -aG docker" in done.stdout
    assert cluster.left() == {}


def test_image_that_is_not_to_be_had(make: Make) -> None:
    cluster = make(SMALL)
    cluster.image = "localhost:9/flaskbook/nothing:1"
    error = fails(cluster)
    assert "localhost:9/flaskbook/nothing:1 is not on this machine and can't be pulled" in error.cause
    assert "mongodb.image" in error.remedy


def test_port_that_is_taken(make: Make) -> None:
    cluster = make(SMALL)
    port = cluster.node("shard1-1").port
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        error = fails(cluster)
    assert f"Port {port}, which shard1-1 needs, is held by" in error.cause
    assert str(os.getpid()) in error.cause


def test_more_nodes_than_the_memory_holds(make: Make) -> None:
    shards = int(psutil.virtual_memory().available / 2**20 / 150 / 50 * 1.5) + 1
    error = fails(make(SMALL, shards=shards, members=50, port=2000))
    assert re.search(
        r"\d+ nodes need about \d+ MB of memory when idle, and \d+ MB are available", error.cause
    )
    assert "make it smaller" in error.remedy


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A docker command whose `compose up` stops after two containers, with what compose says when the disk is full."""
    real = shutil.which("docker")
    shim = tmp_path / "shim" / "docker"
    shim.parent.mkdir()
    shim.write_text(
        "#!/bin/sh\n"
        'case " $* " in *" compose "*" up "*)\n'
        "  file=$(echo \"$*\" | sed 's/ up .*//')\n"
        f"  {real} $file create config-1 shard1-1 >/dev/null 2>&1\n"
        "  echo 'Error response from daemon: failed to copy files: no space left on device' >&2; exit 1;;\n"
        f'esac\nexec {real} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    yield


def test_disk_that_is_full(make: Make, full_disk: None) -> None:
    error = fails(make(SMALL))
    assert "The disk that Docker keeps its data on is full" in error.cause
    assert "docker system prune" in error.remedy


def test_container_that_dies_at_start_is_named_with_its_log(make: Make) -> None:
    cluster = make(SMALL, roles={"shard": {"set_parameter": {"noSuchParameterAtAll": 1}}})
    with pytest.raises(ProvisionError) as caught:
        cluster.deployment.up()
    assert "shard1-1" in caught.value.doing
    assert "noSuchParameterAtAll" in "\n".join(caught.value.log_lines)
    assert set(cluster.left()) <= {"volumes"}
    del cluster.settings["roles"]
    cluster.deployment.up()
    assert cluster.deployment.status().state == "running"


@pytest.fixture
def bystanders() -> Iterator[dict[str, str]]:
    """A container, a volume and a network that are nobody's business."""
    name = f"bystander-{secrets.token_hex(4)}"
    label = ("--label", "provision.deployment=another")
    image = docker("images", "-q").split()[0]
    made = {
        "container": docker("create", "--name", name, *label, image, "true").strip(),
        "volume": docker("volume", "create", *label, name).strip(),
        "network": docker("network", "create", *label, name).strip(),
    }
    try:
        yield made
    finally:
        docker("rm", "-fv", name)
        docker("volume", "rm", name)
        docker("network", "rm", name)


MOMENTS = ("the first container", "config has a primary", "shard1 is added")


def kill_at(cluster: Cluster, moment: str) -> None:
    """Begin `up` in a process of its own and end that with SIGKILL once it is so far."""
    with cluster.begin_up() as process:
        try:
            if moment == "the first container":
                until("a container", lambda: cluster.left().get("containers"))
            else:
                assert process.stdout is not None
                line = next((each for each in process.stdout if moment in each), None)
                assert line is not None, f"it ended before: {moment}"
        finally:
            process.kill()


@pytest.mark.parametrize("moment", MOMENTS)
def test_down_after_a_crash_leaves_nothing(make: Make, bystanders: dict[str, str], moment: str) -> None:
    cluster = make(SMALL)
    kill_at(cluster, moment)
    cluster.deployment.down(delete_data=True)
    assert cluster.left() == {}
    for kind, name in bystanders.items():
        docker(kind, "inspect", name)


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_after_a_crash_finishes(make: Make, moment: str) -> None:
    cluster = make(SMALL, sharding={"flaskbook": {"user": {"key": {"_id": "hashed"}}}})
    kill_at(cluster, moment)
    cluster.deployment.up()
    assert cluster.deployment.status().state == "running"
    with cluster.client() as client:
        client["flaskbook"]["user"].insert_one({"_id": 1})


def test_another_clones_deployment_of_the_same_name_is_left_alone(make: Make) -> None:
    theirs = make({"topology": "single"})
    ours = make({"topology": "single"}, name=theirs.name)
    theirs.deployment.up()
    before = theirs.identities()
    for attempt in (ours.deployment.up, lambda: ours.deployment.down(delete_data=True)):
        with pytest.raises(ProvisionError, match="was started from"):
            attempt()
    assert theirs.identities() == before

    theirs.deployment.down(remove=True)
    with pytest.raises(ProvisionError, match="that this clone did not make"):
        ours.deployment.up()
    ours.deployment.down(delete_data=True)
    assert theirs.left()["volumes"] == [f"{theirs.project}_mongod"]
    theirs.deployment.up()
