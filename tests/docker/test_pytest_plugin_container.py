"""The pytest plugin with ``--mongodb=container``: testcontainers on a real Docker engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.testing.container import LABEL
from tests.support.image.build import build_image
from tests.support.plugin_project import SIX_LINES, Project

# Tells what it runs on, and writes with majority.
LOOK = """
    import json, pathlib
    from pymongo import WriteConcern

    def test_it(database, mongodb):
        database.get_collection("people", write_concern=WriteConcern("majority")).insert_one({"name": "Ada"})
        with pathlib.Path("seen").open("a") as file:
            file.write(json.dumps([mongodb.topology, mongodb.uri, database.name]) + "\\n")
"""
BLOCKED = (
    LOOK
    + """
        import signal
        signal.pause()
"""
)


def containers() -> list[dict[str, Any]]:
    """What `docker inspect` says of the plugin's containers on this engine."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not listed:
        return []
    # One that is just being removed is no longer there to be inspected.
    shown = subprocess.run(["docker", "inspect", *listed], capture_output=True, text=True, check=False).stdout
    found: list[dict[str, Any]] = json.loads(shown)
    return found


def of(project: Project) -> list[dict[str, Any]]:
    """Those of a project's runs that are on record."""
    return [each for each in containers() if each["Config"]["Labels"][LABEL] in project.runs()]


@pytest.fixture(scope="module")
def image(mongod_binary: Path) -> str:
    return build_image(mongod_binary, "flaskbook-test-mongo:pytest-plugin")


@pytest.fixture
def project(tmp_path: Path, image: str) -> Iterator[Project]:
    made = Project(
        tmp_path / "project", options=("--mongodb=container", f"--mongodb-image={image}", "-W", "error")
    )
    try:
        yield made
    finally:
        left = of(made)
        made.close()
        for each in left:
            subprocess.run(
                ["docker", "rm", "--force", "--volumes", each["Id"]], capture_output=True, check=True
            )


@pytest.mark.parametrize("auth", [False, True], ids=["no-users", "root-user"])
@pytest.mark.parametrize("standalone", [False, True], ids=["replica-set", "standalone"])
def test_six_lines_pass_in_a_container(project: Project, auth: bool, standalone: bool) -> None:
    project.write("test_it.py", SIX_LINES + LOOK)
    options = [*(["--mongodb-auth"] if auth else []), *(["--mongodb-standalone"] if standalone else [])]
    before = {each["Id"] for each in containers()}
    assert "2 passed" in project.passes(*options)
    ((topology, uri, _),) = project.told("seen")
    assert topology == ("standalone" if standalone else "replica-set")
    assert uri.startswith("mongodb://root:" if auth else "mongodb://127.0.0.1:")
    assert project.runs() == []
    assert not [each for each in containers() if each["Id"] not in before and of(project)]


def test_a_container_listens_on_this_machine_alone_and_tells_no_password(project: Project) -> None:
    project.write("test_it.py", BLOCKED)
    running = project.begin("--mongodb-auth")
    _, uri, _ = project.tells("seen", running)
    (inspected,) = of(project)
    assert {each["HostIp"] for each in inspected["NetworkSettings"]["Ports"]["27017/tcp"]} == {"127.0.0.1"}
    password = uri.partition("root:")[2].partition("@")[0]
    assert len(password) > 20
    assert password not in json.dumps(inspected)


def test_workers_share_one_container(project: Project) -> None:
    project.write("test_it.py", LOOK)
    project.passes("-n", "2", "--dist", "each")
    seen = project.told("seen")
    assert len({uri for _, uri, _ in seen}) == 1
    assert len({name for _, _, name in seen}) == 2


def test_what_a_killed_run_left_is_removed_by_the_next_and_nothing_else(project: Project) -> None:
    project.write("test_it.py", BLOCKED)
    killed = project.begin()
    project.tells("seen", killed)
    (left,) = of(project)
    (project.root / "seen").unlink()
    living = project.begin()
    project.tells("seen", living)
    assert len(of(project)) == 2
    killed.process.kill()
    killed.ends()

    project.write("test_other.py", SIX_LINES)
    project.passes("test_other.py")
    there = [each["Id"] for each in containers()]
    assert left["Id"] not in there
    (other,) = of(project)
    assert other["Id"] in there
    volumes = [mount["Name"] for mount in left["Mounts"] if mount["Type"] == "volume"]
    listed = subprocess.run(
        ["docker", "volume", "ls", "--quiet"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert volumes
    assert not set(volumes) & set(listed)


def test_a_failed_tests_report_tells_what_mongodb_did_meanwhile(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        def test_before(database):
            database.earlier.insert_one({})

        def test_failing(database):
            database.suspects.insert_one({"name": "Ada"})
            assert False
        """,
    )
    printed = project.fails()
    assert "rs.status(): rs0" in printed
    assert "localhost:27017: PRIMARY" in printed
    logged = printed.partition("log of the test's")[2]
    assert ".suspects" in logged
    assert ".earlier" not in logged


def test_an_image_whose_container_ends_is_an_error_at_once(project: Project, tmp_path: Path) -> None:
    tag = "flaskbook-test-mongo:pytest-plugin-broken"
    (tmp_path / "Dockerfile").write_text(
        f'FROM {project.options[1].partition("=")[2]}\nENTRYPOINT ["echo", "this image is broken:"]\n'
    )
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, str(tmp_path)], check=True, capture_output=True
    )
    try:
        project.write("test_it.py", SIX_LINES)
        printed = project.fails(f"--mongodb-image={tag}")
        assert "The container ended (exited) before mongod took writes." in printed
        assert "this image is broken" in printed
        assert "provision/testing" not in printed
        assert not [each for each in containers() if each["Config"]["Image"] == tag]
    finally:
        subprocess.run(["docker", "rmi", "--force", tag], check=True, capture_output=True)


def test_an_engine_that_does_not_answer_is_an_error_with_a_way_out(project: Project) -> None:
    project.write("test_it.py", SIX_LINES)
    printed = project.fails(DOCKER_HOST="tcp://127.0.0.1:1")
    assert "The Docker engine does not answer" in printed
    assert "leave --mongodb=container out" in printed
    assert "provision/testing" not in printed
