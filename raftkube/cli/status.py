"""`raftkube status`: the processes of a cluster."""

from __future__ import annotations

from typing import Any

import click

_COLUMNS = ("NAME", "PHASE", "PID", "PORTS", "RESTARTS", "UPTIME")


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(name: str, output: str) -> None:
    """Show every component: whether it runs, as which process, on which ports; what a store complains of."""
    import orjson
    import trio

    from raftkube.cluster.state import ClusterState
    from raftkube.cluster.up import run_status

    status = trio.run(run_status, ClusterState.of(name))
    if output == "json":
        click.echo(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode())
        return
    rows = [_COLUMNS, *(_row(component) for component in status["components"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for component in status["components"]:
        if component.get("reason"):
            click.echo(f"{component['name']}: {component['reason']}")


def _row(component: dict[str, Any]) -> tuple[str, ...]:
    ports = ",".join(f"{label}:{port}" for label, port in component["ports"].items())
    uptime = component["uptime_s"]
    leader = " (leader)" if component.get("leader") else ""
    return (
        component["name"] + leader,
        component["phase"],
        str(component["pid"] or "-"),
        ports,
        str(component["restarts"]),
        "-" if uptime is None else f"{uptime:.0f}s",
    )
