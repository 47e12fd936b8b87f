"""`invoke render`: a deployment's rendered files, and whether those on disk have drifted."""

from __future__ import annotations

from provision.cli import display
from provision.cli.result import Result
from provision.cli.session import Session
from provision.cli.shapes import Rendered
from provision.core.errors import ProvisionError
from provision.deployments import assembly


def mongod_conf(session: Session, on: str, node: str, check: bool) -> Result[Rendered]:
    """A node's `mongod.conf`; with `check`, what has drifted of all nodes."""
    deployment = assembly.deployment(session.loaded, on, as_asked=True)
    if not check:
        text = deployment.rendering.render(deployment.node(node))
        return Result(Rendered(on, text, {}), lambda: display.line(text.rstrip("\n")))
    drifted = deployment.rendering.drifted()
    if not drifted:
        fine = f"The configuration of {on} is what mongod.conf.j2 and the settings give."
        return Result(Rendered(on, None, {}), lambda: display.line(fine))

    def show() -> None:
        for name, why in drifted.items():
            display.line(f"{name}: the configuration on disk {why}")

    error = ProvisionError(
        f"checking the configuration of {on}",
        f"{len(drifted)} of {len(deployment.topology.nodes)} differ from what would be rendered.",
        "Type `invoke setup` to render them; a file edited by hand is kept beside the new one as .edited.",
    )
    return Result(Rendered(on, None, dict(drifted)), show, error)


def compose(session: Session, on: str, check: bool) -> Result[Rendered]:
    """A deployment's compose file; `cluster` has the `compose.yaml` at the project's root.

    With `check` it is compared with what invoke.yaml gives: flags of an earlier `cluster.up` don't count, nor do ports of
    this folder's own.

    Raises ProvisionError: the deployment is not in Docker.
    """
    from provision.backends.registry import in_containers

    loaded = session.load(remembered=not check, slots=not check)
    settings = loaded.deployment(on)
    backend = in_containers(assembly.backend(loaded, assembly.plan(on, settings), settings))
    if backend is None:
        raise ProvisionError(
            f"rendering the compose file of {on}",
            "Its nodes are processes.",
            "Name a deployment in Docker: invoke render --compose --on cluster",
        )
    text = backend.render_compose()
    if not check:
        return Result(Rendered(on, text, {}), lambda: display.line(text.rstrip("\n")))
    at_top = on == "cluster" and loaded.paths.shows_configuration
    file = loaded.paths.compose_file if at_top else loaded.paths.own_compose_file(on)
    shown = str(file.relative_to(loaded.paths.root))
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        fine = f"{shown} is what templates/compose.yaml.j2 and invoke.yaml give."
        return Result(Rendered(on, None, {}), lambda: display.line(fine))
    why = (
        "It is not what templates/compose.yaml.j2 and invoke.yaml give."
        if file.is_file()
        else "It is missing."
    )
    error = ProvisionError(f"checking {shown}", why, f"Type: invoke render --compose --on {on} > {shown}")
    return Result(Rendered(on, None, {shown: why}), lambda: None, error)
