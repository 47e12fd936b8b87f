"""`invoke render --compose`: the compose file of a deployment in Docker."""

from __future__ import annotations

from invoke.context import Context

from provision.cli.command import load


def show(ctx: Context, on: str, check: bool) -> None:
    """Print a deployment's compose file, or compare the one on disk with it.

    Args:
        ctx: the task's.
        on: the deployment; `cluster` has the `compose.yaml` at the project's root.
        check: compare. What is compared is what invoke.yaml gives: flags of an earlier `cluster.up` don't count.

    Raises:
        ProvisionError: it is not in Docker, or the file has drifted.
    """
    from provision.backends.registry import in_containers
    from provision.cli import display
    from provision.core.errors import ProvisionError
    from provision.deployments import assembly

    loaded = load(ctx, remembered=not check)
    settings = loaded.deployment(on)
    backend = in_containers(assembly.backend(loaded, assembly.plan(on, settings), settings))
    doing = f"rendering the compose file of {on}"
    if backend is None:
        raise ProvisionError(
            doing,
            "Its nodes are processes.",
            "Name a deployment in Docker: invoke render --compose --on cluster",
        )
    text = backend.render_compose()
    if not check:
        display.line(text.rstrip("\n"))
        return
    file = loaded.paths.compose_file if on == "cluster" else loaded.paths.deployment(on) / "compose.yaml"
    shown = file.relative_to(loaded.paths.root)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        raise ProvisionError(
            f"checking {shown}",
            "It is not what templates/compose.yaml.j2 and invoke.yaml give."
            if file.is_file()
            else "It is missing.",
            f"Type: invoke render --compose --on {on} > {shown}",
        )
    display.line(f"{shown} is what templates/compose.yaml.j2 and invoke.yaml give.")
