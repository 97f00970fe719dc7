"""The controller manager: all controllers in one process, over shared caches, while elected.

Every write carries the fencing token of the leadership. When a server refuses it, or the leadership is lost
in another way, everything is cancelled and the process ends: nothing of its state may act on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import trio

from raftkube.api.status import ApiError
from raftkube.client.health import HealthSettings, serve_health
from raftkube.client.kubeconfig import ClusterAccess
from raftkube.client.leader_election import ElectionSettings, run_elected
from raftkube.client.rest import FencingToken, RestClient
from raftkube.clock import Clock
from raftkube.controllers.deployment import DeploymentController
from raftkube.controllers.garbage_collector import GarbageCollector
from raftkube.controllers.metrics import ControllerMetrics
from raftkube.controllers.namespace import NamespaceController
from raftkube.controllers.node_lifecycle import NodeLifecycleController, NodeTimes
from raftkube.controllers.pod_garbage_collector import PodGarbageCollector
from raftkube.controllers.replica_set import ReplicaSetController
from raftkube.controllers.runtime import Context, Controller, run_workers
from raftkube.controllers.served import Served, discover
from raftkube.controllers.service_account import RootCaPublisher, ServiceAccountController
from raftkube.controllers.taint_eviction import TaintEvictionController
from raftkube.errors import ConfigError
from raftkube.net import Address, Network
from raftkube.rng import Rng, uid
from raftkube.version import VERSION

log = structlog.get_logger(__name__)

LEASE_NAME: Final = "kube-controller-manager"
_LOOPBACK_OFF: Final = Address("127.0.0.1", 0)
_DISCOVERY_RETRY_S: Final = 0.5

# Upstream's --concurrent-*-syncs; also the names that --controllers knows.
WORKERS: Final[Mapping[str, int]] = {
    DeploymentController.name: 5,
    ReplicaSetController.name: 5,
    GarbageCollector.name: 20,
    NamespaceController.name: 10,
    NodeLifecycleController.name: 4,
    TaintEvictionController.name: 8,
    PodGarbageCollector.name: 2,
    ServiceAccountController.name: 2,
    RootCaPublisher.name: 2,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which controllers run, with how many workers, and their times. root_ca: the cluster's CA in PEM, ""
    not to publish it."""

    enabled: frozenset[str] = frozenset(WORKERS)
    workers: Mapping[str, int] = field(default_factory=lambda: dict(WORKERS))
    node_times: NodeTimes = field(default_factory=NodeTimes)
    vanished_node_quarantine_s: float = 40.0
    root_ca: str = ""


@dataclass(frozen=True, slots=True)
class ControllerManagerConfig:
    """name: of this process, the first part of its identity. election None: no election, and so no
    fencing token; only for an API server that does not fence the controller manager."""

    name: str
    access: ClusterAccess
    election: ElectionSettings | None = field(default_factory=ElectionSettings)
    health: HealthSettings = field(default_factory=lambda: HealthSettings(_LOOPBACK_OFF))
    choice: Choice = field(default_factory=Choice)


def enabled_controllers(listed: str) -> frozenset[str]:
    """Of --controllers: `*` all, `name` that one, `-name` not that one. Raises ConfigError: no such name."""
    words = [word.strip() for word in listed.split(",") if word.strip()]
    for word in words:
        if word != "*" and word.removeprefix("-") not in WORKERS:
            known = ", ".join(sorted(WORKERS))
            raise ConfigError(f"--controllers: there is no controller {word!r}; there are {known}")
    named = {word for word in words if word in WORKERS}
    dropped = {word[1:] for word in words if word.startswith("-")}
    return frozenset((set(WORKERS) if "*" in words else named) - dropped)


async def run(
    config: ControllerManagerConfig,
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
    agent = f"raftkube-controller-manager/{VERSION}"
    client = config.access.client(network, user_agent=agent, clock=clock, rng=rng)
    metrics = ControllerMetrics()
    metrics.leading.set(0)
    async with trio.open_nursery() as nursery:
        task_status.started(await nursery.start(serve_health, network, config.health, metrics.registry))
        await run_with(client, config, clock=clock, rng=rng, metrics=metrics)
        nursery.cancel_scope.cancel()


async def run_with(
    client: RestClient,
    config: ControllerManagerConfig,
    *,
    clock: Clock,
    rng: Rng,
    metrics: ControllerMetrics,
) -> None:
    """The same with a client that is there already, without a health port."""

    async def control(token: FencingToken | None) -> None:
        metrics.leading.set(1)
        fenced = client if token is None else client.fenced(token)
        await run_controllers(Context(fenced, clock, rng, metrics), config.choice)

    if config.election is None:
        await control(None)
    else:
        identity = f"{config.name}_{uid(rng)}"
        log.info("candidate", identity=identity, lease=LEASE_NAME)
        await run_elected(client, LEASE_NAME, identity, config.election, control, clock=clock, rng=rng)


async def run_controllers(context: Context, choice: Choice) -> None:
    """Fill the caches, then run the chosen controllers until cancelled."""
    served = await _discover(context.client)
    controllers = [make(context) for name, make in _makers(choice, served).items() if name in choice.enabled]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(context.run_recorders)
        await nursery.start(context.run_caches)
        for controller in controllers:
            if isinstance(controller, GarbageCollector | PodGarbageCollector):
                controller.attach()
            workers = choice.workers.get(controller.name, 1)
            nursery.start_soon(run_workers, controller, workers, context.metrics)
        log.info("controllers_started", controllers=[controller.name for controller in controllers])


def _makers(choice: Choice, served: list[Served]) -> dict[str, Callable[[Context], Controller]]:
    """How each controller is made, by name."""
    makers: dict[str, Callable[[Context], Any]] = {
        DeploymentController.name: DeploymentController,
        ReplicaSetController.name: ReplicaSetController,
        GarbageCollector.name: lambda context: GarbageCollector(context, served),
        NamespaceController.name: lambda context: NamespaceController(context, served),
        NodeLifecycleController.name: lambda c: NodeLifecycleController(c, choice.node_times),
        TaintEvictionController.name: TaintEvictionController,
        PodGarbageCollector.name: lambda c: PodGarbageCollector(c, choice.vanished_node_quarantine_s),
        ServiceAccountController.name: ServiceAccountController,
    }
    if choice.root_ca:
        makers[RootCaPublisher.name] = lambda context: RootCaPublisher(context, choice.root_ca)
    return makers


async def _discover(client: RestClient) -> list[Served]:
    while True:
        try:
            return await discover(client)
        except ApiError as error:
            log.warning("discovery_failed", error=error.message)
            await trio.sleep(_DISCOVERY_RETRY_S)
