"""What MongoDB did while a test failed, for the test's report."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from provision.mongodb import logs
from provision.testing.databases import DATABASE, without_password
from provision.testing.servers import Server

SHOWN = 100
"""At most so many log lines go into a report, the last ones."""


def section(server: Server, start: datetime, end: datetime, databases: Container[str]) -> str:
    """The report's section: the state of the server, then its log of the test's time span.

    `databases` are those that the test may have used; what happened to other tests' databases is not its
    doing.
    """
    streams = {name: of_databases(lines, databases) for name, lines in server.logs(start).items()}
    lines = [*status(server), *log_lines(streams, start, end)]
    return "\n".join(lines)


def kept(uri: str, file: Path) -> str:
    """How to open a database that stays.

    `file` holds its connection string. A password must not be seen among the processes, so it is read from there.
    """
    shown = without_password(uri)
    if shown == uri and shutil.which("mongosh"):
        command = f"mongosh {shlex.quote(uri)}"
    else:
        program = (
            "from pathlib import Path; from pymongo import MongoClient; "
            f"database = MongoClient(Path({str(file)!r}).read_text()).get_default_database()"
        )
        command = f"{shlex.quote(sys.executable)} -i -c {shlex.quote(program)}"
    return f"uri:  {shown}\nopen: {command}\nIt stays until the next run of pytest in this project."


def of_databases(lines: Iterable[str], databases: Container[str]) -> list[str]:
    """Those of a log's lines that are about some of the tests' databases, or about none. Pure.

    Tests share a server, one after the other and side by side; and the server drops a collection when it has time.
    """
    kept = []
    for line in lines:
        named = DATABASE.findall(line)
        if not named or any(name in databases for name in named):
            kept.append(line)
    return kept


def log_lines(streams: Mapping[str, Sequence[str]], start: datetime, end: datetime) -> list[str]:
    """The nodes' logs of a time span as one, by time, readable. Pure.

    A line each, after a heading; the names of the nodes stand before them where there are several.
    """
    inside = {name: logs.between(lines, start, end) for name, lines in streams.items()}
    width = max(map(len, streams), default=0) if len(streams) > 1 else 0
    found = []
    for name, entry in logs.merge(inside):
        text = next(logs.render([entry])) if isinstance(entry, str) else logs.readable(entry)
        found.append(f"{name:<{width}}  {text}" if width else text)
    if not found:
        return ["log: nothing was logged during the test"]
    left_out = len(found) - SHOWN
    heading = f"log of the test's {(end - start).total_seconds():.1f} s:"
    if left_out > 0:
        heading = f"{heading[:-1]}, the last {SHOWN} lines of {len(found)}:"
    return [heading, *found[-SHOWN:]]


def status(server: Server) -> list[str]:
    """The state of each node in a line: `rs.status()` in short.

    https://www.mongodb.com/docs/manual/reference/command/replSetGetStatus/
    """
    if server.deployment is not None:
        read = server.deployment.status()
        return [
            f"rs.status(): {read.state}" if server.topology != "standalone" else f"status: {read.state}",
            *(
                "  "
                + _member(
                    f"{node.name} ({node.replica_set or node.role})",
                    node.state,
                    f"127.0.0.1:{node.port}",
                    node.lag,
                )
                for node in read.nodes
            ),
        ]
    return list(_asked(server))


def _asked(server: Server) -> Iterator[str]:
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        with pymongo.timeout(5):
            if server.topology == "sharded":
                yield "listShards:"
                for shard in server.client.admin.command("listShards")["shards"]:
                    yield f"  {shard['_id']}: {shard['host']}"
            elif server.topology == "replica-set":
                answer = server.client.admin.command("replSetGetStatus")
                yield f"rs.status(): {answer['set']}"
                written = max((m["optimeDate"] for m in answer["members"] if "optimeDate" in m), default=None)
                for member in answer["members"]:
                    yield "  " + _member(
                        member["name"],
                        member["stateStr"],
                        member.get("lastHeartbeatMessage", ""),
                        _lag(member, written),
                    )
            else:
                server.client.admin.command("ping")
                yield "status: a standalone mongod, which answers"
    except PyMongoError as error:
        yield f"status: it could not be asked: {error}"


def _lag(member: Mapping[str, Any], written: datetime | None) -> float | None:
    if member["stateStr"] != "SECONDARY" or written is None:
        return None
    return max(0.0, float((written - member["optimeDate"]).total_seconds()))


def _member(name: str, state: str, more: str, lag: float | None) -> str:
    behind = "" if lag is None else f", {lag:g} s behind"
    return f"{name}: {state}{behind}{f'  {more}' if more else ''}"
