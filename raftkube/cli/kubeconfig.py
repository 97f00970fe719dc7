"""`raftkube kubeconfig`: the operator's kubeconfig on standard output."""

from __future__ import annotations

import click


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster's name.")
def command(name: str) -> None:
    """Print the operator's kubeconfig of a cluster."""
    from raftkube.cluster.state import ClusterState
    from raftkube.errors import ConfigError
    from raftkube.files import read_file

    state = ClusterState.of(name).require()
    if not state.admin_kubeconfig.exists():
        raise ConfigError(f"cluster {name!r} has no API server, hence no kubeconfig")
    click.echo(read_file(state.admin_kubeconfig, what="kubeconfig").decode(), nl=False)
