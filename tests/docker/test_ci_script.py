"""The script behind the GitHub Action, the GitLab snippet and the development container, in a bare root file system."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from provision.env.virtualenv import base_executable
from tests.support.clones import ROOT
from tests.support.clusters import docker
from tests.support.installed import build_wheel, offline, wheelhouse

pytestmark = pytest.mark.needs("index")

# What a job does: each line that begins with `#` goes to the test.
JOB = r"""
set -eu
script=/mongodb.sh
sh $script install 2>/dev/null
uri=$(sh $script start)
echo "# $uri"
$PROVISION_HOME/venv/bin/python -c '
import sys
from pymongo import MongoClient
client = MongoClient(sys.argv[1])
client["shop"]["orders"].insert_one({"_id": 1})
print("#", client["shop"]["orders"].count_documents({}))
print("#", client.admin.command("hello").get("setName"))
' "$uri"
sh $script stop
ps | grep -c "[m]ongod --config" | sed "s/^/# /"
"""


def test_a_job_in_a_bare_root_file_system_gets_a_server(
    tmp_path: Path, mongo_image: str, mongod_binary: Path
) -> None:
    wheel = build_wheel(tmp_path / "wheel")
    python = Path(base_executable())
    # A Python, and what its venv needs: where a distribution has it in /usr, no more than that.
    prefix = Path(sys.base_prefix)
    parts = [prefix] if prefix != Path("/usr") else [python, Path(sysconfig.get_path("stdlib"))]
    # The parts of the C library that wheels for manylinux count on.
    library = next(
        Path(line.split()[-1])
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "/libc.so" in line
    )
    parts += [
        library.parent / name for name in ("librt.so.1", "libdl.so.2", "libpthread.so.0", "libutil.so.1")
    ]
    parts += [part for part in (Path("/usr/share/python-wheels"), wheelhouse(), wheel) if part.exists()]
    given = {
        **offline(),
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "HOME": "/root",
        "PROVISION_HOME": "/opt/provision",
        "PROVISION_PACKAGE": str(wheel),
        "INVOKE_MONGODB_SOURCE": "path",
        "INVOKE_MONGODB_PATH": "/usr/bin/mongod",
        "MONGODB_TOPOLOGY": "replica-set",
    }
    mounts = [f"--volume={part}:{part}:ro" for part in parts]
    mounts.append(f"--volume={ROOT / 'tools/ci/mongodb.sh'}:/mongodb.sh:ro")
    variables = [f"--env={name}={value}" for name, value in given.items()]
    told = docker(
        *("run", "--rm", "--init", "--network=none", "--user=0", "--entrypoint=/bin/sh", *mounts, *variables),
        *(mongo_image, "-c", JOB),
    )
    uri, count, name, left = [line[2:] for line in told.splitlines() if line.startswith("# ")]
    assert uri.startswith("mongodb://127.0.0.1:27017,")
    assert (count, left) == ("1", "0")
    assert f"replicaSet={name}" in uri
