"""`raftkube balancer`: one address in front of several API servers."""

from __future__ import annotations

import click


@click.command()
@click.option("--listen", required=True, help="Where clients connect, host:port.")
@click.option("--backends", required=True, help="The API servers, host:port,host:port,…")
def command(listen: str, backends: str) -> None:
    """Spread TCP connections over the API servers that answer (TLS goes through)."""
    import trio

    from raftkube.cluster.balancer import run_balancer
    from raftkube.net import parse_address
    from raftkube.net.tcp import TcpNetwork

    addresses = [parse_address(part) for part in backends.split(",")]
    trio.run(run_balancer, TcpNetwork(), parse_address(listen), addresses)
