"""The scheduler as a process: elected, then scheduling, with a health port beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from raftkube.client.health import HealthSettings, serve_health
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.client.leader_election import ElectionSettings, run_elected
from raftkube.client.rest import FencingToken, RestClient
from raftkube.clock import Clock
from raftkube.net import Address, Network
from raftkube.rng import Rng, uid
from raftkube.scheduler.loop import Scheduler
from raftkube.scheduler.metrics import SchedulerMetrics
from raftkube.version import VERSION

log = structlog.get_logger(__name__)

LEASE_NAME: Final = "kube-scheduler"
_LOOPBACK_OFF: Final = Address("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """name: of this process, the first part of its identity. election None: no election, and so no
    fencing token; only for an API server that does not fence the scheduler."""

    name: str
    access: ClusterAccess
    election: ElectionSettings | None = field(default_factory=ElectionSettings)
    health: HealthSettings = field(default_factory=lambda: HealthSettings(_LOOPBACK_OFF))


async def run(
    config: SchedulerConfig,
    *,
    network: Network,
    clock: Clock,
    rng: Rng,
    task_status: trio.TaskStatus[Address | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until cancelled, which releases the leadership. `started` gives the health port's address, as
    soon as it is served: a candidate is healthy.

    Raises LeadershipEnded: it led and no longer does; ConfigError: the port is taken.
    """
    client = config.access.client(network, user_agent=f"raftkube-scheduler/{VERSION}", clock=clock, rng=rng)
    metrics = SchedulerMetrics()
    async with trio.open_nursery() as nursery:
        task_status.started(await nursery.start(serve_health, network, config.health, metrics.registry))
        await run_with(client, config.name, config.election, clock=clock, rng=rng, metrics=metrics)


async def run_with(
    client: RestClient,
    name: str,
    election: ElectionSettings | None,
    *,
    clock: Clock,
    rng: Rng,
    metrics: SchedulerMetrics,
) -> None:
    """The same with a client that is there already, without a health port."""

    metrics.leading.set(0)

    async def schedule(token: FencingToken | None) -> None:
        metrics.leading.set(1)
        fenced = client if token is None else client.fenced(token)
        await Scheduler(fenced, clock=clock, rng=rng, metrics=metrics).run()

    if election is None:
        await schedule(None)
    else:
        identity = f"{name}_{uid(rng)}"
        log.info("candidate", identity=identity, lease=LEASE_NAME)
        await run_elected(client, LEASE_NAME, identity, election, schedule, clock=clock, rng=rng)
