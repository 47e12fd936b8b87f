"""A node and its places → the text of its mongod.conf. Pure: same input, same output.

https://www.mongodb.com/docs/manual/reference/configuration-options/
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.mongodb.topology import Node

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class TlsFiles:
    """What a node encrypts with; it takes no connection without TLS."""

    certificate_key_file: str  # its certificate and private key, PEM
    ca_file: str  # certificate of the authority that vouches for the other nodes, PEM


@dataclass(frozen=True)
class Layout:
    """Where a node's things are, as the node itself sees them (in a container: inside it)."""

    data: str  # its `storage.dbPath`
    log: str | None  # its `systemLog.path`; None: it logs to standard output
    bind_ip: str  # the addresses it listens on, comma-separated
    key_file: str | None = None  # its `security.keyFile`; None: no authentication
    tls: TlsFiles | None = None  # its `net.tls`; None: no TLS


def render(node: Node, layout: Layout, template: str, template_name: str = "mongod.conf.j2") -> str:
    """Render a node's configuration.

    Args:
        template: text of the Jinja template.
        template_name: how the template is named in errors.

    Returns: The YAML text for ``mongod --config``.
    Raises ProvisionError: the template uses an undefined variable, is not valid, or yields no valid YAML.
    """
    import jinja2
    import yaml

    doing = f"rendering the configuration of {node.name}"
    try:
        text = _compiled(template).render(node=node, layout=layout, options=node.options)
    except jinja2.UndefinedError as error:
        raise ProvisionError(
            doing, f"{template_name}: {error.message}.", f"Define it, or take it out of {template_name}."
        ) from None
    except jinja2.TemplateSyntaxError as error:
        raise ProvisionError(
            doing,
            f"{template_name}, line {error.lineno}: {error.message}.",
            "Correct that line of the template.",
        ) from None
    try:
        if not isinstance(yaml.safe_load(text), dict):
            raise ProvisionError(doing, f"{template_name} yields no sections.", f"Correct {template_name}.")
    except yaml.YAMLError as error:
        raise ProvisionError(
            doing, f"{template_name} yields no valid YAML: {error}.", f"Correct {template_name}."
        ) from None
    return text


@functools.cache
def _compiled(template: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 — YAML, not HTML: every value goes through the yaml filter
    )
    environment.filters["yaml"] = _scalar
    return environment.from_string(template)


def _scalar(value: object) -> str:
    """A value as YAML on one line, quoted where it must be."""
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    # JSON's strings are YAML's double-quoted ones.
    return json.dumps(str(value), ensure_ascii=False)
