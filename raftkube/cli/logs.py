"""`raftkube logs COMPONENT`: what a component wrote."""

from __future__ import annotations

import click


@click.command()
@click.argument("component")
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
@click.option("--tail", default=0, help="Only the last lines; 0 shows all.")
def command(component: str, name: str, follow: bool, tail: int) -> None:
    """Print the log of COMPONENT, for example store-1 or supervisor."""
    import sys

    import trio

    from raftkube.cluster.state import ClusterState
    from raftkube.cluster.up import component_log

    path = component_log(ClusterState.of(name), component)

    async def show() -> None:
        with path.open("rb") as stream:
            lines = stream.read().splitlines(keepends=True)
            sys.stdout.buffer.writelines(lines[-tail:] if tail else lines)
            sys.stdout.buffer.flush()
            while follow:
                sys.stdout.buffer.write(stream.read())
                sys.stdout.buffer.flush()
                await trio.sleep(0.2)

    trio.run(show)
