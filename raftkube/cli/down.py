"""`raftkube down`: stop a cluster."""

from __future__ import annotations

import click


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
@click.option("--purge", is_flag=True, help="Delete its data, certificates and logs as well.")
def command(name: str, purge: bool) -> None:
    """Stop a cluster's processes and pods; `up` starts it again with its data."""
    import functools

    import trio

    from raftkube.cluster.kubeconfig import remove_context, user_kubeconfig_path
    from raftkube.cluster.state import ClusterState
    from raftkube.cluster.up import run_down

    state = ClusterState.of(name)
    say = functools.partial(click.echo, err=True)
    trio.run(functools.partial(run_down, state, purge=purge, progress=say))
    if purge:
        remove_context(user_kubeconfig_path(), f"raftkube-{name}")
    click.echo(f"cluster {name!r} is down" + (" and deleted" if purge else ""), err=True)
