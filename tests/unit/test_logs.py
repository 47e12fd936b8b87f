"""MongoDB's log, read by people. The lines are real: mongod 6.0.5 wrote them, where nothing else is said."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provision.mongodb import logs

ACCEPTED = (
    '{"t":{"$date":"2026-11-23T08:02:57.204+00:00"},"s":"I",  "c":"NETWORK",  "id":22943,   "ctx":"listener",'
    '"msg":"Connection accepted","attr":{"remote":"127.0.0.1:42512","uuid":"06853671-0663-41b7-9145-efe0f07ff772",'
    '"connectionId":1,"connectionCount":1}}'
)
NO_ACCESS_CONTROL = (
    '{"t":{"$date":"2026-11-23T08:02:57.142+00:00"},"s":"W",  "c":"CONTROL",  "id":22120,   "ctx":"initandlisten",'
    '"msg":"Access control is not enabled for the database. Read and write access to data and configuration is '
    'unrestricted","tags":["startupWarnings"]}'
)
SLOW_QUERY = (
    '{"t":{"$date":"2026-11-23T08:02:57.298+00:00"},"s":"I",  "c":"COMMAND",  "id":51803,   "ctx":"conn2","msg":'
    '"Slow query","attr":{"type":"command","ns":"config.tenantMigrationRecipients","command":{"find":'
    '"tenantMigrationRecipients","readConcern":{},"$db":"config"},"planSummary":"COLLSCAN","keysExamined":0,'
    '"docsExamined":0,"cursorExhausted":true,"numYields":0,"nreturned":0,"queryHash":"17830885","queryFramework":'
    '"classic","reslen":246,"locks":{"FeatureCompatibilityVersion":{"acquireCount":{"r":1}},"Global":'
    '{"acquireCount":{"r":1}},"Mutex":{"acquireCount":{"r":1}}},"readConcern":{"provenance":"implicitDefault"},'
    '"storage":{},"remote":"127.0.0.1:42524","protocol":"op_msg","durationMillis":12}}'
)
ADDRESS_IN_USE = (
    '{"t":{"$date":"2026-11-23T08:02:57.870+00:00"},"s":"E",  "c":"CONTROL",  "id":20568,   "ctx":"initandlisten",'
    '"msg":"Error setting up listener","attr":{"error":{"code":9001,"codeName":"SocketException","errmsg":'
    '"Address already in use"}}}'
)
DATA_IN_USE = (
    '{"t":{"$date":"2026-11-23T08:02:57.911+00:00"},"s":"E",  "c":"CONTROL",  "id":20557,   "ctx":"initandlisten",'
    '"msg":"DBException in initAndListen, terminating","attr":{"error":"DBPathInUse: Unable to lock the lock file: '
    "db/mongod.lock (Resource temporarily unavailable). Another mongod instance is already running on the db "
    'directory"}}'
)
NOT_PERMITTED = (
    '{"t":{"$date":"2026-11-23T08:02:58.369+00:00"},"s":"E",  "c":"CONTROL",  "id":20557,   "ctx":"initandlisten",'
    '"msg":"DBException in initAndListen, terminating","attr":{"error":"Location28596: Unable to determine status '
    "of lock file in the data directory db3: boost::filesystem::status: Permission denied: "
    '\\"db3/mongod.lock\\""}}'
)
# As servers of several versions are reported to write it; the incompatible data files were not at hand here.
WRONG_VERSION = (
    '{"t":{"$date":"2026-11-23T08:02:58.400+00:00"},"s":"F",  "c":"CONTROL",  "id":20573,   "ctx":"initandlisten",'
    '"msg":"Wrong mongod version","attr":{"error":"UPGRADE PROBLEM: Found an invalid featureCompatibilityVersion '
    "document (ERROR: Location4926900: Invalid featureCompatibilityVersion document in admin.system.version: { _id: "
    '\\"featureCompatibilityVersion\\", version: \\"4.4\\" }. See https://docs.mongodb.com/master/release-notes/'
    "5.0-compatibility/#feature-compatibility. :: caused by :: Invalid feature compatibility version value, expected "
    "'5.0' or '5.3' or '6.0'). If the current featureCompatibilityVersion is below 5.0, see the documentation on "
    'upgrading at https://docs.mongodb.com/master/release-notes/5.0/#upgrade-procedures."}}'
)
WIREDTIGER_ERROR = (
    '{{"t":{{"$date":"2026-11-23T08:04:18.{milli}+00:00"}},"s":"E",  "c":"WT",       "id":22435,   "ctx":'
    '"initandlisten","msg":"WiredTiger error message","attr":{{"error":-31802,"message":{{"ts_sec":1795421058,'
    '"ts_usec":{milli}569,"thread":"11509:0x7fa2c3e1f3c0","session_dhandle_name":"file:WiredTiger.wt",'
    '"session_name":"connection","category":"WT_VERB_DEFAULT","category_id":9,"verbose_level":"ERROR",'
    '"verbose_level_id":-3,"msg":"__desc_read:347:File WiredTiger.wt is smaller than allocation size; file '
    'size=100, alloc size=4096","error_str":"WT_ERROR: non-specific WiredTiger error","error_code":-31802}}}}}}'
)
REPAIR = (
    '{"t":{"$date":"2026-11-23T08:04:18.164+00:00"},"s":"F",  "c":"STORAGE",  "id":50944,   "ctx":"initandlisten",'
    '"msg":"Please read the documentation for starting MongoDB with --repair here: '
    'http://dochub.mongodb.org/core/repair"}'
)
ASSERTION = (
    '{"t":{"$date":"2026-11-23T08:04:18.164+00:00"},"s":"F",  "c":"ASSERT",   "id":23091,   "ctx":"initandlisten",'
    '"msg":"Fatal assertion","attr":{"msgid":50944,"file":"src/mongo/db/storage/wiredtiger/'
    'wiredtiger_kv_engine.cpp","line":702}}'
)
ABORTING = (
    '{"t":{"$date":"2026-11-23T08:04:18.164+00:00"},"s":"F",  "c":"ASSERT",   "id":23092,   "ctx":"initandlisten",'
    '"msg":"\\n\\n***aborting after fassert() failure\\n\\n"}'
)
RESTARTED = (
    '{"t":{"$date":"2026-11-23T08:15:00.000+00:00"},"s":"I",  "c":"CONTROL",  "id":20698,   "ctx":"-",'
    '"msg":"***** SERVER RESTARTED *****"}'
)


def exited(code: int) -> str:
    return (
        '{"t":{"$date":"2026-11-23T08:02:57.911+00:00"},"s":"I",  "c":"CONTROL",  "id":23138,   "ctx":'
        f'"initandlisten","msg":"Shutting down","attr":{{"exitCode":{code}}}}}'
    )


def line(second: float, message: str = "something", severity: str = "I", **attributes: object) -> str:
    """A line in MongoDB's format, so many seconds after noon UTC."""
    stamp = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=second)
    return json.dumps(
        {
            "t": {"$date": stamp.isoformat(timespec="milliseconds")},
            "s": severity,
            "c": "REPL",
            "id": 1,
            "ctx": "main",
            "msg": message,
            "attr": attributes,
        }
    )


def entry(text: str) -> logs.Entry:
    parsed = logs.parse(text)
    assert parsed is not None
    return parsed


def words(text: str) -> str:
    """A readable line without its time, which depends on the time zone of the machine."""
    return text.split(" ", 2)[2]


def test_every_part_of_an_entry_is_read():
    assert entry(NO_ACCESS_CONTROL + "\n") == logs.Entry(
        time=datetime(2026, 11, 23, 8, 2, 57, 142000, tzinfo=UTC),
        severity="W",
        component="CONTROL",
        context="initandlisten",
        id=22120,
        message="Access control is not enabled for the database. "
        "Read and write access to data and configuration is unrestricted",
        attributes={},
        tags=("startupWarnings",),
    )
    assert entry(ACCEPTED).attributes["remote"] == "127.0.0.1:42512"


def test_local_timestamps_name_the_same_moment():
    local = ACCEPTED.replace("2026-11-23T08:02:57.204+00:00", "2026-11-23T13:32:57.204+05:30")
    assert entry(local).time == entry(ACCEPTED).time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Illegal instruction (core dumped)",
        ACCEPTED[:90],
        ACCEPTED[:-1],
        "{}",
        "[1, 2]",
        '{"t": "yesterday", "s": "I", "msg": "x"}',
        '{"t": {"$date": "yesterday"}, "s": "I", "msg": "x"}',
        '{"t": {"$date": "2026-11-23T08:02:57.204+00:00"}, "s": "X", "msg": "x"}',
        '{"t": {"$date": "2026-11-23T08:02:57.204+00:00"}, "s": "", "msg": "x"}',
        '{"t": {"$date": "2026-11-23T08:02:57.204+00:00"}, "s": "I", "msg": "x", "tags": 1}',
        "{" * 100_000,
    ],
)
def test_what_is_no_entry_is_not_taken_for_one(text: str):
    assert logs.parse(text) is None


@pytest.mark.parametrize(
    ("severity", "word"),
    [("F", "fatal"), ("E", "error"), ("W", "warning"), ("I", "info"), ("D", "debug"), ("D3", "debug3")],
)
def test_severities_are_words(severity: str, word: str):
    assert words(logs.readable(entry(line(0, severity=severity)))).startswith(word + " ")


def test_a_readable_line_has_local_time_with_milliseconds():
    local = entry(ACCEPTED).time.astimezone()
    assert logs.readable(entry(ACCEPTED)).startswith(
        local.strftime("%Y-%m-%d %H:%M:%S") + ".204 info    NETWORK "
    )


def test_what_tells_most_comes_first():
    assert words(logs.readable(entry(SLOW_QUERY))).startswith(
        "info    COMMAND  Slow query  durationMillis=12 ns=config.tenantMigrationRecipients "
        "command={find: tenantMigrationRecipients, readConcern: {}, …} planSummary=COLLSCAN remote=127.0.0.1:42524 "
    )


def test_an_error_document_shows_the_servers_words():
    assert words(logs.readable(entry(ADDRESS_IN_USE))) == (
        'error   CONTROL  Error setting up listener  error="SocketException: Address already in use"'
    )


def test_a_huge_entry_stays_one_short_line():
    attributes = {f"key{index}": {"nested": [{"text": "x" * 1000}] * 50} for index in range(500)}
    shown = logs.readable(entry(line(0, error="e" * 5000, **attributes)))
    assert len(shown) <= 700
    assert shown.count("\n") == 0
    assert "error=eeee" in shown


def test_extended_json_shows_the_value_in_its_envelope():
    shown = logs.readable(
        entry(
            line(
                0,
                at={"$date": "2026-01-01T00:00:00Z"},
                id={"$oid": "6b03f33178776e47c74acaf1"},
                ts={"$timestamp": {"t": 17, "i": 2}},
                hash={"$binary": {"base64": "AAAA", "subType": "0"}},
                empty="",
                none=None,
                yes=True,
            )
        )
    )
    assert shown.endswith(
        '  at=2026-01-01T00:00:00Z id=6b03f33178776e47c74acaf1 ts=17:2 hash=<binary> empty="" none=null yes=true'
    )


@pytest.mark.parametrize("width", [10, 24, 41, 60, 80])
def test_a_line_is_cut_to_the_width_and_says_so(width: int):
    shown = logs.readable(entry(SLOW_QUERY), width)
    assert len(shown) <= width
    assert "…" in shown


def test_control_characters_cannot_steer_the_terminal():
    evil = line(0, "a\x1b[2Jb\nc", **{"app\x1b]0;": "\x1b]0;owned\x07", "doc": {"\x9b": "\u202e"}})
    for shown in (logs.readable(entry(evil)), *logs.render(["raw \x1b[31m text"])):
        assert shown.isprintable(), shown
    assert "\\x1b[31m" in next(logs.render(["raw \x1b[31m text"]))


def test_colour_adds_only_colour():
    import re

    for text in (ADDRESS_IN_USE, SLOW_QUERY, REPAIR, ABORTING, line(0, severity="D2")):
        painted = logs.paint(entry(text))
        assert re.sub(r"\x1b\[\d+m", "", painted) == logs.readable(entry(text))
        assert painted != logs.readable(entry(text))
    assert "\x1b[31m" in logs.paint(entry(ADDRESS_IN_USE))
    assert "\x1b[31m" not in logs.paint(entry(ACCEPTED))


def test_colour_is_for_terminals_that_want_it():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert logs.wants_colour(Terminal(), {"TERM": "xterm"})
    assert not logs.wants_colour(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert logs.wants_colour(Terminal(), {"TERM": "xterm", "NO_COLOR": ""})
    assert not logs.wants_colour(Terminal(), {"TERM": "dumb"})
    assert not logs.wants_colour(io.StringIO(), {"TERM": "xterm"})


def test_rendering_streams_line_by_line():
    asked = 0

    def source() -> Iterator[str]:
        nonlocal asked
        for text in (ACCEPTED, "not JSON", ADDRESS_IN_USE):
            asked += 1
            yield text + "\n"

    rendered = logs.render(source())
    assert words(next(rendered)).startswith("info    NETWORK  Connection accepted")
    assert asked == 1
    assert next(rendered) == "not JSON"
    assert asked == 2
    assert "Address already in use" in next(rendered)
    assert list(rendered) == []


def test_logs_of_several_nodes_are_merged_by_time():
    merged = logs.merge(
        {
            "a": [line(1, "a1"), "after a1", line(3, "a3")],
            "b": ["before all", line(2, "b2"), line(3, "b3"), line(2.5, "b late")],
        }
    )
    assert [(node, what if isinstance(what, str) else what.message) for node, what in merged] == [
        ("b", "before all"),
        ("a", "a1"),
        ("a", "after a1"),
        ("b", "b2"),
        ("a", "a3"),
        ("b", "b3"),
        ("b", "b late"),
    ]


def test_what_a_node_printed_goes_where_its_time_belongs_and_words_come_last():
    logged = [line(1), "hangs on 1", line(2)]
    printed = [line(0), line(1.5), "Illegal instruction"]
    assert logs.with_printed(logged, printed) == [printed[0], *logged[:2], printed[1], logged[2], printed[2]]
    assert logs.with_printed(logged, ["no such library"]) == [*logged, "no such library"]
    assert logs.with_printed([], printed) == printed


def test_a_span_of_time_includes_both_ends_and_what_hangs_on_its_entries():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    written = ["early text", line(0), "hangs on 0", line(1), "hangs on 1", line(2), line(3), "hangs on 3"]
    assert (
        list(logs.between(written, noon + timedelta(seconds=1), noon + timedelta(seconds=2))) == written[3:6]
    )


def test_a_span_that_begins_within_a_millisecond_has_that_millisecond():
    begun = datetime(2026, 1, 1, 12, 0, 1, 900, tzinfo=UTC)
    assert list(logs.between([line(1)], begun, begun + timedelta(seconds=1))) == [line(1)]


def test_local_time_without_zone_serves_as_a_span():
    naive = datetime(2026, 1, 1, 12, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert list(logs.between([line(0)], naive, naive)) == [line(0)]


@pytest.mark.parametrize(
    ("fatal", "code", "told"),
    [
        (ADDRESS_IN_USE, 48, "SocketException: Address already in use"),
        (DATA_IN_USE, 100, "Another mongod instance is already running on the db directory"),
        (NOT_PERMITTED, 100, "Permission denied"),
        (WRONG_VERSION, 62, "UPGRADE PROBLEM: Found an invalid featureCompatibilityVersion document"),
    ],
)
def test_the_cause_of_death_is_found_among_the_farewells(fatal: str, code: int, told: str):
    farewells = [ACCEPTED] * 30
    shown = logs.why_it_died([*farewells, fatal, *farewells, exited(code)])
    assert len(shown) == 2
    assert told in shown[0]
    assert shown[1].endswith(f"exitCode={code}")


def test_the_version_of_incompatible_data_is_told():
    assert "4.4" in logs.why_it_died([WRONG_VERSION])[0]


def test_a_repeated_error_is_told_once():
    repeated = [WIREDTIGER_ERROR.format(milli=milli) for milli in (145, 152, 161)]
    shown = logs.why_it_died([ACCEPTED, *repeated, REPAIR, ASSERTION, ABORTING])
    assert [words(each).split()[:2] for each in shown] == [
        ["error", "WT"],
        ["fatal", "STORAGE"],
        ["fatal", "ASSERT"],
    ]
    assert "File WiredTiger.wt is smaller than allocation size" in shown[0]
    assert "--repair" in shown[1]
    assert "wiredtiger_kv_engine.cpp" in shown[2]


def test_an_earlier_runs_errors_are_not_this_runs():
    assert [words(each) for each in logs.why_it_died([ADDRESS_IN_USE, RESTARTED, DATA_IN_USE])] == [
        words(logs.readable(entry(DATA_IN_USE)))
    ]


def test_what_was_printed_beside_the_log_tells_if_the_log_does_not():
    printed = "mongod: error while loading shared libraries: libcrypto.so.1.1: cannot open shared object file"
    assert logs.why_it_died([ACCEPTED, printed, ""]) == [printed]


def test_a_killed_mongod_leaves_its_last_lines():
    shown = logs.why_it_died([line(second, f"message {second}") for second in range(20)] + [ACCEPTED[:70]])
    assert len(shown) == logs.TELLING_LINES
    assert "message 19" in shown[-2]
    assert shown[-1] == ACCEPTED[:70]


def test_no_lines_tell_nothing():
    assert logs.why_it_died([]) == []
    assert logs.why_it_died(["", "\n"]) == []


class Follower:
    """Follows a file step by step: each time it has read everything, the next change is made to the file."""

    def __init__(self, path: Path, *changes: object, last: int = 10) -> None:
        self.path = path
        self._changes = iter(changes)
        self.lines = list(logs.follow(path, self._next, poll=0, last=last))

    def _next(self) -> bool:
        change = next(self._changes, None)
        if change is None:
            return True
        change()  # type: ignore[operator]
        return False


def appending(path: Path, text: str):
    def change() -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    return change


def nothing() -> None:
    """A look at an unchanged file."""


def test_following_waits_for_the_file(tmp_path: Path):
    path = tmp_path / "mongod.log"
    assert Follower(path, nothing, appending(path, "one\ntwo\n"), last=1).lines == ["one", "two"]


def test_following_begins_with_the_last_lines(tmp_path: Path):
    path = tmp_path / "mongod.log"
    path.write_text("".join(f"{number} {'x' * 999}\n" for number in range(200)))
    assert [each.split()[0] for each in Follower(path, nothing, appending(path, "new\n"), last=3).lines] == [
        "197",
        "198",
        "199",
        "new",
    ]
    assert len(Follower(path, last=1000).lines) == 201
    assert Follower(path, last=0).lines == []


def test_following_gives_complete_lines_only(tmp_path: Path):
    path = tmp_path / "mongod.log"
    follower = Follower(path, appending(path, "fir"), appending(path, "st\nsecond, cut o"), last=10)
    assert follower.lines == ["first"]


def test_following_survives_rotation(tmp_path: Path):
    path = tmp_path / "mongod.log"
    path.write_text("old 1\n")

    def rotate() -> None:
        with path.open("a") as file:
            file.write("old 2\n")
        path.rename(tmp_path / "mongod.log.1")
        path.write_text("new 1\n")

    assert Follower(path, nothing, rotate, appending(path, "new 2\n")).lines == [
        "old 1",
        "old 2",
        "new 1",
        "new 2",
    ]


def test_following_survives_a_moment_without_the_file(tmp_path: Path):
    path = tmp_path / "mongod.log"
    path.write_text("old\n")

    def rename() -> None:
        path.rename(tmp_path / "mongod.log.1")

    assert Follower(path, nothing, rename, nothing, appending(path, "new\n"), nothing).lines == ["old", "new"]


def test_following_survives_truncation(tmp_path: Path):
    path = tmp_path / "mongod.log"
    path.write_text("a long line\nand half a li")

    def truncate() -> None:
        path.write_text("short\n")

    assert Follower(path, nothing, truncate, nothing).lines == ["a long line", "short"]


def test_following_tolerates_bytes_that_are_no_text(tmp_path: Path):
    path = tmp_path / "mongod.log"
    path.write_bytes(b"\xff\xfe broken\n")
    assert Follower(path).lines == ["\ufffd\ufffd broken"]


def test_following_keeps_up_with_a_writer(tmp_path: Path):
    path = tmp_path / "mongod.log"
    expected = [f"line {number}" for number in range(2000)]
    written = threading.Event()

    def write() -> None:
        with path.open("w", encoding="utf-8") as file:
            for each in expected:
                file.write(each + "\n")
                file.flush()
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert list(logs.follow(path, written.is_set, poll=0.001, last=5000)) == expected
    finally:
        writer.join()


def test_a_log_that_may_not_be_read_is_an_error(tmp_path: Path):
    with pytest.raises(OSError, match="directory"):
        list(logs.follow(tmp_path, lambda: True))
