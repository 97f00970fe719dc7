"""`raftkube kv move-leader`."""

from __future__ import annotations

import click

from raftkube.cli.kv_connect import KvCommand, call, output_format


@click.command("move-leader", cls=KvCommand)
@click.argument("name", required=False)
def move_leader(name: str | None) -> None:
    """Make the member NAME lead; without NAME the one that lags least. For operators only."""
    from raftkube.cli.kv_print import write_json, write_text

    leader = call(lambda client: client.move_leader(name))
    if output_format() == "json":
        write_json({"leader": leader})
    else:
        write_text(f"{leader} leads")
