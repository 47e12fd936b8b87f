"""The tasks that connect to a deployment as a client does: prompt, tunnel and tour."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from provision.cli.command import ON, command
from provision.cli.numeric_flags import LocalPort

if TYPE_CHECKING:
    from provision.cli import shapes
    from provision.cli.result import Result
    from provision.cli.session import Session

_TOUR_SERVER_SELECTION_MS = 5_000


@command(
    help={
        "eval": "evaluate this, print its value, and leave; what is piped in instead is run as a script",
        "python": "Python even where mongosh is installed",
        "node": "connect to this node alone",
        **ON,
    }
)
def shell(session: Session, on: str = "local", eval: str = "", python: bool = False, node: str = "") -> None:
    """Open a prompt on the app's database: mongosh where it is installed, else Python with db and client bound."""
    open_shell(session, on, node, eval, python)


def open_shell(session: Session, on: str, node: str, expression: str, python: bool) -> None:
    """Open a prompt, or evaluate an expression; leave with its exit status.

    `node`: connect to this node alone; empty: as clients do. `expression`: evaluate this and leave; empty: a prompt.

    Raises ProvisionError: the deployment is not running.
    """
    from provision.cli import shell as shells

    deployment = session.running(on, f"opening a shell on {on}")
    direct = deployment.node(node) if node else None
    uri = deployment.uri(user="root", direct=direct)
    database = session.loaded.settings.app.database
    if expression:
        sys.exit(shells.evaluate(uri, database, expression, python))
    sys.exit(shells.open_shell(uri, database, session.loaded.paths.shell_history, python))


@command(
    help={
        "node": "the node that it leads to (default: a router, or the primary)",
        "port": "port of this machine (default: a free one)",
        "user": "app or root: who the connection string is for",
        **ON,
        "json": "print what it leads to as one line of JSON first, for scripts",
    }
)
def tunnel(
    session: Session,
    on: str = "local",
    node: str = "",
    port: LocalPort = 0,
    user: str = "app",
    json: bool = False,
) -> None:
    """Lead ports of this machine through SSH to a deployment on hosts, and to its app, until Ctrl-C.

    Prints the connection string to use here, with the user's password, and the app's address.
    """
    from provision.app import tunnel as tunnels
    from provision.cli import display
    from provision.cli.result import as_line

    def opened(found: tunnels.Opened) -> None:
        if json:
            display.line(as_line(found))
            return
        display.line(found.uri)
        if found.app:
            display.line(found.app)
        display.note(f"Port {found.port} leads to {found.node} on {found.host}. Ctrl-C ends it.")

    tunnels.hold(session.loaded, on, node, port, user, opened, display.note)


@command(help={"pause": "wait for Enter between two stages", **ON})
def tour(session: Session, on: str = "local", pause: bool = False) -> Result[list[shapes.TourStage]]:
    """Take the first steps in MongoDB, on a scratch database that is dropped afterwards."""
    from pymongo import MongoClient

    from provision.cli import display, shapes
    from provision.cli import tour as touring
    from provision.cli.result import Result

    deployment = session.running(on, f"taking the tour on {on}")

    def wait() -> None:
        sys.stderr.write("Enter goes on, Ctrl-C ends the tour. ")
        sys.stderr.flush()
        if not sys.stdin.readline():
            sys.exit(130)

    client: MongoClient[Any] = MongoClient(
        deployment.uri(user="root"), tz_aware=True, serverSelectionTimeoutMS=_TOUR_SERVER_SELECTION_MS
    )
    with client:
        results = touring.run_tour(
            client,
            lambda result: None if session.quiet else display.line(result.text() + "\n"),
            wait if pause else None,
        )
    # Each stage shows itself as it is finished.
    return Result([shapes.TourStage(**stage.as_json()) for stage in results], lambda: None)
