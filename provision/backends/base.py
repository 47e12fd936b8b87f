"""What every back end answers: how a node becomes a running mongod.

A back end knows processes, containers or SSH. It knows nothing of replica sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from provision.backends.folders import DataFolders
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.mongodb.config import Layout
from provision.mongodb.topology import Node
from provision.settings.capabilities import Capabilities


@dataclass(frozen=True)
class Observed:
    """What is known of a node's process from outside: it runs, it does not run, or that is unknown."""

    running: bool  # it is there, and it is ours
    pid: int | None = None  # its process id where it has one of its own on this machine
    exit_status: int | None = None  # how it ended, if that is known: negative for a signal
    paused: bool | None = None  # it runs and is frozen; None: that was not looked at
    remote_pid: int | None = None  # its process id on the other machine that it runs on
    # why nobody could look, so that it may run or not; None: somebody did
    unknown: ProvisionError | None = None

    @property
    def ended(self) -> bool:
        """It is known not to run."""
        return not self.running and self.unknown is None


class Backend(Protocol):
    """Starts, observes and stops single nodes."""

    name: str
    capabilities: Capabilities

    def folders(self) -> DataFolders | None:
        """The nodes' data, for snapshots; None: it can't copy them."""

    def layout(self, node: Node) -> Layout:
        """Where the node's things are, as the node sees them. Pure."""

    def address(self, node: Node) -> tuple[str, int]:
        """Host and port where this machine reaches the node. Pure."""

    def machine(self, node: Node) -> str | None:
        """The other machine that the node is on, as errors name it: ``db2 (192.0.2.12)``; None: it is on this one. Pure."""

    def advertised_names_resolve(self, nodes: Sequence[Node]) -> bool:
        """Whether programs on this machine can use the names under which nodes know each other."""

    def configure(self, node: Node, text: str) -> bool:
        """Put the node's rendered configuration where it will read it.

        Returns: Whether it differed from what was there.
        """

    def launch(self, nodes: Sequence[Node], checked: Callable[[], None] = lambda: None) -> None:
        """Start those of the nodes that are not running, all at once, and don't wait for them to answer.

        `checked`: called when all that could be refused has been, and before anything is started.

        Raises:
            ProvisionError: before anything has been started, where a port is taken, a directory can't be
                written or a binary is missing.
        """

    def observe(self, node: Node) -> Observed:
        """Whether the node's process runs. Changes nothing; cheap enough to be asked every 10 ms."""

    def answers(self, node: Node, process_id: Callable[[], int]) -> bool | None:
        """Whether the program that answers at a node's address is the node.

        Args:
            process_id: asks that program for its process id, as its own machine counts; raises what asking raises.

        Returns: True: it is. False: it is another one, or the node has ended. None: that can't be told yet.
        """

    def port_held(self, node: Node) -> ProvisionError | None:
        """The error that names who else holds a node's port, and says what to type; None: nobody else does."""

    def observe_all(self, nodes: Sequence[Node]) -> Mapping[str, Observed]:
        """The same for several nodes, in the time that one takes: those on other machines are asked at the same time.

        Returns: Node name → what `observe` says of it.
        """

    def terminate(self, nodes: Sequence[Node], timeout: float) -> None:
        """End the nodes that run: ask all, wait, and kill after the timeout in seconds. Data stay."""

    def kill(self, node: Node) -> None:
        """End a node as a crash would (SIGKILL), if it runs."""

    def pause(self, node: Node, paused: bool) -> None:
        """Freeze a node, or let it go on: frozen, it answers nothing and notices nothing.

        Raises ProvisionError: it does not run.
        """

    def is_paused(self, node: Node) -> bool:
        """Whether it runs and is frozen."""

    def release(self, node: Node) -> bool:
        """Let a running node go on that is paused or cut off.

        Returns: Whether it was.
        """

    def remove(self, nodes: Sequence[Node], data: bool, at_once: bool = False) -> None:
        """End the nodes that run, as `terminate` does, and remove what is left of them; their data only if told to.

        `at_once`: end them as `kill` does: nothing is lost by that.
        """

    def log_tail(self, node: Node, lines: int) -> list[str]:
        """The last raw lines that the node logged or printed."""

    def follow_log(self, node: Node, lines: int) -> Iterator[str]:
        """The last raw lines, then each new one, until the caller stops asking."""
