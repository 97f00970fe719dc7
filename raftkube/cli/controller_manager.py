"""raftkube controller-manager: all controllers of one cluster in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftkube.cli.control_flags import control_flags
from raftkube.cli.durations import Duration
from raftkube.cli.logging import log_options

if TYPE_CHECKING:
    from raftkube.client.kubeconfig import ClusterAccess
    from raftkube.controllers.controller_manager import Choice

# flag → controller
_SYNCS = {
    "concurrent_deployment_syncs": "deployment-controller",
    "concurrent_replicaset_syncs": "replicaset-controller",
    "concurrent_gc_syncs": "garbage-collector-controller",
    "concurrent_namespace_syncs": "namespace-controller",
    "concurrent_serviceaccount_syncs": "serviceaccount-controller",
}


def _sync_flags(function: Any) -> Any:
    for flag, controller in reversed(_SYNCS.items()):
        function = click.option(
            f"--{flag.replace('_', '-')}", type=click.IntRange(1, 1_000), help=f"Workers of {controller}."
        )(function)
    return function


@click.command("controller-manager")
@control_flags
@click.option(
    "--controllers",
    default="*",
    show_default=True,
    help="Which run: '*' all, 'name' that one, '-name' not that one; comma-separated.",
)
@click.option(
    "--node-monitor-grace-period",
    type=Duration(),
    default="40s",
    show_default=True,
    help="A node that is silent for so long is lost.",
)
@click.option(
    "--node-eviction-rate",
    type=click.FloatRange(0.001, 1_000),
    default=0.1,
    show_default=True,
    help="Lost nodes per second whose pods are driven off.",
)
@click.option(
    "--root-ca-file", help="The CA that kube-root-ca.crt publishes.  [default: the kubeconfig's own]"
)
@_sync_flags
@log_options
def command(**flags: Any) -> None:
    """Keep the cluster as its objects say, while elected.

    Exits with 1 when the leadership is lost, so that a supervisor starts it afresh.
    """
    from raftkube.cli.control_flags import election_of, health_of
    from raftkube.cli.logging import configure_logging
    from raftkube.cli.service import run_until_signalled
    from raftkube.client.kubeconfig import load_kubeconfig
    from raftkube.clock import SystemClock
    from raftkube.controllers.controller_manager import ControllerManagerConfig, run
    from raftkube.net.tcp import TcpNetwork
    from raftkube.rng import system_rng

    configure_logging(flags["logging_format"], flags["verbose"], component=flags["name"])
    access = load_kubeconfig(flags["kubeconfig"])
    config = ControllerManagerConfig(
        flags["name"], access, election_of(flags), health_of(flags), choice_of(flags, access)
    )

    async def serve() -> None:
        await run(config, network=TcpNetwork(), clock=SystemClock(), rng=system_rng())

    run_until_signalled(serve)


def choice_of(flags: dict[str, Any], access: ClusterAccess) -> Choice:
    """What the flags ask for. Raises ConfigError naming the flag that is wrong."""
    from raftkube.controllers.controller_manager import WORKERS, Choice, enabled_controllers
    from raftkube.controllers.node_lifecycle import NodeTimes
    from raftkube.errors import ConfigError

    grace_s = flags["node_monitor_grace_period"]
    if grace_s <= 0:
        raise ConfigError("--node-monitor-grace-period must be more than 0s")
    asked = {controller: flags[flag] for flag, controller in _SYNCS.items() if flags[flag] is not None}
    times = NodeTimes(
        grace_s=grace_s,
        startup_grace_s=max(grace_s, NodeTimes().startup_grace_s),
        eviction_period_s=1 / flags["node_eviction_rate"],
    )
    return Choice(
        enabled=enabled_controllers(flags["controllers"]),
        workers={**WORKERS, **asked},
        node_times=times,
        root_ca=_root_ca(flags["root_ca_file"], access),
    )


def _root_ca(path: str | None, access: ClusterAccess) -> str:
    from pathlib import Path

    from raftkube.files import read_file

    if path is None:
        path = access.tls.ca_file if access.tls is not None else None
    return read_file(Path(path), what="root CA file").decode() if path else ""
