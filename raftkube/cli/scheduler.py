"""raftkube scheduler: one scheduler in the foreground."""

from __future__ import annotations

from typing import Any

import click

from raftkube.cli.control_flags import control_flags
from raftkube.cli.logging import log_options


@click.command("scheduler")
@control_flags
@log_options
def command(**flags: Any) -> None:
    """Assign pods to nodes, while elected.

    Exits with 1 when the leadership is lost, so that a supervisor starts it afresh.
    """
    from raftkube.cli.control_flags import election_of, health_of
    from raftkube.cli.logging import configure_logging
    from raftkube.cli.service import run_until_signalled
    from raftkube.client.kubeconfig import load_kubeconfig
    from raftkube.clock import SystemClock
    from raftkube.net.tcp import TcpNetwork
    from raftkube.rng import system_rng
    from raftkube.scheduler.service import SchedulerConfig, run

    configure_logging(flags["logging_format"], flags["verbose"], component=flags["name"])
    access = load_kubeconfig(flags["kubeconfig"])
    config = SchedulerConfig(flags["name"], access, election_of(flags), health_of(flags))

    async def serve() -> None:
        await run(config, network=TcpNetwork(), clock=SystemClock(), rng=system_rng())

    run_until_signalled(serve)
