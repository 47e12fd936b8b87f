"""A deployment's configuration files: what they should say, whether they do, and making them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from provision.backends.base import Backend
from provision.mongodb.topology import Node, Topology
from provision.settings.paths import Paths
from provision.state import records


class Rendering:
    """The rendered configuration of a deployment's nodes.

    Args:
        template: text of ``mongod.conf.j2``.
    """

    def __init__(self, topology: Topology, backend: Backend, paths: Paths, template: str) -> None:
        self._topology = topology
        self._backend = backend
        self._paths = paths
        self._template = template

    def render(self, node: Node) -> str:
        """The text of a node's configuration.

        Raises ProvisionError: the template can't be rendered.
        """
        from provision.mongodb.config import render

        return render(node, self._backend.layout(node), self._template)

    def drifted(self) -> dict[str, str]:
        """Which nodes' configuration on disk is not what would be rendered now; changes nothing.

        Returns: Node name → why: ``"is missing"``, ``"was edited by hand"``, ``"is older than …"``.
        Raises ProvisionError: the template can't be rendered.
        """
        before = records.RENDERED.load(self._record) or {}
        drifted = {}
        for node in self._topology.nodes:
            recipe, present = self._recipe(node), self._present(node)
            recorded = before.get(node.name)
            if recorded == [recipe, present] or present == _digest(self.render(node)):
                continue
            if not present:
                drifted[node.name] = "is missing"
            elif recorded is not None and recorded[1] != present:
                drifted[node.name] = "was edited by hand"
            else:
                drifted[node.name] = "is older than the template or the settings"
        return drifted

    def write(self) -> list[str]:
        """Render what has changed since it was last rendered. A file edited by hand is kept as ``.edited``.

        Returns: Names of the nodes whose configuration was written.
        Raises ProvisionError: the template can't be rendered.
        """
        before = records.RENDERED.load(self._record) or {}
        record, written = {}, []
        for node in self._topology.nodes:
            recipe, present = self._recipe(node), self._present(node)
            recorded = before.get(node.name)
            if recorded != [recipe, present]:
                text = self.render(node)
                path = self._paths.node_conf(self._topology.name, node.name)
                if present not in ("", _digest(text), recorded[1] if recorded else ""):
                    path.with_name(path.name + ".edited").write_bytes(path.read_bytes())
                if self._backend.configure(node, text):
                    written.append(node.name)
                present = _digest(text)
            record[node.name] = [recipe, present]
        if record != before:
            records.RENDERED.store(self._record, record)
        return written

    @property
    def _record(self) -> Path:
        return self._paths.rendered_record(self._topology.name)

    def _recipe(self, node: Node) -> str:
        """Digest of all that a configuration is made from: no rendering is needed to see that it is current."""
        return _digest(f"{self._template}\0{node!r}\0{self._backend.layout(node)!r}")

    def _present(self, node: Node) -> str:
        try:
            return _digest(self._paths.node_conf(self._topology.name, node.name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
