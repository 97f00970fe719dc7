"""`raftkube repair`."""

from __future__ import annotations

import click


@click.command()
@click.argument("component")
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
@click.option("--force", is_flag=True, help="Also if it has nothing to complain of.")
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    help="Seconds until it must have caught up.",
)
def command(component: str, name: str, force: bool, timeout: float) -> None:
    """Rebuild the store COMPONENT, whose disk is damaged, broken or lost, from the other stores.

    It is stopped, its data directory is moved aside, and it comes back under a new id. Refused while the
    others have no quorum without it.
    """
    import trio

    from raftkube.cluster.repair import Repair
    from raftkube.cluster.state import ClusterState
    from raftkube.net.tcp import TcpNetwork

    state = ClusterState.of(name).require()
    repair = Repair(state, component, TcpNetwork(), lambda line: click.echo(f"raftkube repair: {line}"))

    async def run() -> None:
        await repair.run(force=force, timeout_s=timeout)

    trio.run(run)
