"""The data of a deployment's nodes as Docker's volumes: see `folders`.

A container of the deployment's own image that lives for one action mounts them all. So nothing is asked of the machine but
its engine, and nothing of the image but a shell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from provision.backends.folders import Copied
from provision.core.errors import ProvisionError
from provision.mongodb.topology import Node

_SCRIPT = Path(__file__).parent / "scripts" / "data_folders.sh"
_NO_SPACE = "No space left on device"
Run = Callable[[Sequence[str], Sequence[str]], str]


class FoldersInVolumes:
    """Data in Docker's volumes.

    Args:
        volume: a node → the name of its volume.
        present: the names of the volumes that there are.
        make: makes the volumes of nodes that have none.
        run: runs a shell in a container: mounts as for ``--volume``, and the shell's arguments; what it prints.
            Raises ProvisionError where it fails.
        free_space: the remedy for a full disk.
    """

    def __init__(
        self,
        volume: Callable[[Node], str],
        present: Callable[[], frozenset[str]],
        make: Callable[[Sequence[Node]], None],
        run: Run,
        free_space: str,
    ) -> None:
        self._volume = volume
        self._present = present
        self._make = make
        self._run = run
        self._free_space = free_space

    def copy_out(self, sources: Mapping[str, Node], target: Path) -> Copied:
        try:
            self._act("out", [(node, name) for name, node in sources.items()], target)
        except ProvisionError as error:
            if _NO_SPACE in error.cause:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from None
            raise
        return Copied()

    def size(self, nodes: Sequence[Node]) -> int:
        return 1024 * sum(int(each) for each in self._each("size", nodes).split())

    def room(self, nodes: Sequence[Node]) -> int | None:
        said = self._act("room", [(node, "") for node in self._with_volume(nodes)[:1]]).split()
        return int(said[3]) * 1024 if len(said) > 3 and said[3].isdigit() else None

    def copy_in(self, source: Path, folders: Sequence[tuple[Node, str]]) -> None:
        nodes = [node for node, _ in folders]
        self._make(nodes)
        try:
            self._act("in", folders, source)
        except BaseException as error:
            self.discard(nodes)
            if isinstance(error, ProvisionError) and _NO_SPACE in error.cause:
                raise ProvisionError(
                    error.doing,
                    "The disk that Docker keeps its data on is full. Nothing was changed.",
                    self._free_space,
                ) from None
            raise

    def take_undo(self, nodes: Sequence[Node]) -> bool:
        return bool(self._each("take", nodes))

    def discard(self, nodes: Sequence[Node]) -> None:
        self._each("discard", nodes)

    def with_data(self, nodes: Sequence[Node]) -> frozenset[str]:
        return frozenset(self._each("data", nodes).split())

    def forward(self, nodes: Sequence[Node]) -> None:
        self._each("forward", nodes)

    def back(self, nodes: Sequence[Node], had: Collection[str]) -> None:
        self._each("back", nodes)

    def keep(self, nodes: Sequence[Node]) -> None:
        self._each("keep", nodes)

    def forget(self, nodes: Sequence[Node]) -> None:
        """All is in the volumes, and goes with them."""

    def _with_volume(self, nodes: Sequence[Node]) -> list[Node]:
        present = self._present()
        return [node for node in nodes if self._volume(node) in present]

    def _each(self, action: str, nodes: Sequence[Node]) -> str:
        return self._act(action, [(node, "") for node in self._with_volume(nodes)])

    def _act(self, action: str, nodes: Sequence[tuple[Node, str]], snapshot: Path | None = None) -> str:
        if not nodes:
            return ""
        mounts = [f"{self._volume(node)}:/v/{node.name}" for node, _ in nodes]
        if snapshot is not None:
            mounts.append(f"{snapshot}:/s{':ro' if action == 'in' else ''}")
        names = [f"{node.name}:{folder}" if folder else node.name for node, folder in nodes]
        return self._run(mounts, ["-c", _SCRIPT.read_text(encoding="utf-8"), "sh", action, *names])
