"""Who answers is who was started: the one place where the tool opens a connection to a node, and has it proved.

Two clones that start at the same moment both find their port free. One mongod gets it, and answers both. So no answer
is believed, and nothing is initiated, written or printed, before the back end has said that it comes from the node
itself. A mongod that is not ours counts as one that does not answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from provision.backends.base import Backend
from provision.core.errors import ProvisionError
from provision.mongodb.credentials import Credentials
from provision.mongodb.topology import Node
from provision.mongodb.users import Secrets
from provision.mongodb.wire import (
    CommandFailed,
    Connection,
    LogInRefused,
    NotReachable,
    Refused,
)

if TYPE_CHECKING:
    import ssl

# All that takes time to collect is left out: what remains costs 0.2 ms.
_WHO_ANSWERS = {"serverStatus": 1, "repl": 0, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0}
# The node's own words for "not now": see `membership.LATER`.
_SHUTTING_DOWN = frozenset({91, 11600})


class Impostor(Refused):
    """Another program has the node's port.

    Args:
        error: says which, and what to type.
    """

    def __init__(self, error: ProvisionError) -> None:
        self.error = error
        super().__init__(error.cause)


def dial(
    backend: Backend,
    secrets: Secrets | None,
    node: Node,
    timeout: float = 10.0,
    user: Credentials | None = None,
) -> Connection:
    """Connect to a node, and to nobody else who has its port.

    Args:
        secrets: who to be: on a mongod ``__system``, on a router ``root``; None: nobody.
        timeout: seconds for connecting and for each reply.
        user: who to be instead.

    Raises:
        NotReachable: it does not answer; `Refused` where what answers can't be trusted, `Impostor` where it is
            another program.
        CommandFailed: it can't log anybody in now; `LogInRefused` where it refuses the credentials.
    """
    host, port = backend.address(node)
    who = None if secrets is None else user or (secrets.root if node.is_router else secrets.system)
    try:
        connection = Connection(host, port, timeout, who, tls(backend, secrets, node))
    except (Refused, LogInRefused):
        # Another deployment's mongod knows neither our passwords nor our authority.
        if (error := backend.port_held(node)) is not None:
            raise Impostor(error) from None
        raise
    try:
        _prove(backend, node, lambda: _process_id(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def dial_or_explain(
    backend: Backend, secrets: Secrets | None, node: Node, timeout: float = 10.0
) -> Connection:
    """The same for those who wait for the node: what waiting can't change is an error for people.

    Raises:
        NotReachable: it does not answer yet.
        ProvisionError: another program has its port, or one side refuses the other.
    """
    try:
        return dial(backend, secrets, node, timeout)
    except Impostor as impostor:
        raise impostor.error from None
    except (Refused, CommandFailed) as refusal:
        if isinstance(refusal, CommandFailed) and refusal.code in _SHUTTING_DOWN:
            raise NotReachable(str(refusal)) from refusal
        raise _explained(refusal, node, backend.machine(node)) from None


def dial_unnamed(backend: Backend, secrets: Secrets | None, node: Node, timeout: float) -> Connection:
    """Connect to a node as nobody, which is enough for `hello`. Encrypted where the node demands that.

    Raises NotReachable: it does not answer, or the authority that vouches for it is not there yet.
    """
    context = tls(backend, secrets, node)
    if context is None and backend.layout(node).tls is not None:
        raise NotReachable("its certificate authority is not there yet")
    return Connection(*backend.address(node), timeout, None, context)


def tls(backend: Backend, secrets: Secrets | None, node: Node) -> ssl.SSLContext | None:
    """What a connection to a node is encrypted with: it trusts the deployment's own authority and no other."""
    if secrets is None or secrets.authority is None or backend.layout(node).tls is None:
        return None
    from provision.hosts import certificates

    return certificates.trusting(secrets.authority)


def _prove(backend: Backend, node: Node, process_id: Callable[[], int]) -> None:
    answers = backend.answers(node, process_id)
    if answers:
        return
    error = backend.port_held(node) if answers is False else None
    if error is not None:
        raise Impostor(error)
    raise NotReachable(f"{node.name} has not begun to answer, or has just ended")


def _process_id(connection: Connection) -> int:
    """The process id of who answers, as its own machine counts.

    Follows https://www.mongodb.com/docs/manual/reference/command/serverStatus/
    """
    return int(connection.command("admin", _WHO_ANSWERS)["pid"])


def _explained(refusal: Refused | CommandFailed, node: Node, machine: str | None) -> ProvisionError:
    doing = f"connecting to {node.name} on port {node.port}" + (f" of {machine}" if machine else "")
    if isinstance(refusal, LogInRefused):
        return ProvisionError(
            doing,
            f"It refuses the tool's own log-in: {str(refusal).rstrip('.')}.",
            "It runs with other settings or other secrets than are on record here. `invoke restart` starts it with "
            "those of now.",
        )
    if isinstance(refusal, CommandFailed):
        return ProvisionError(doing, f"{str(refusal).rstrip('.')}.", "Look at it: invoke logs")
    return ProvisionError(
        doing,
        f"{str(refusal).rstrip('.')}.",
        "Look at what listens there, and at the certificates: invoke doctor",
    )
