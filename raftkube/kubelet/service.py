"""A kubelet as a whole: what its settings are, and how its parts run together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import structlog
import trio

from raftkube.client.endpoints import NODES, PODS, Object
from raftkube.client.events import EventRecorder
from raftkube.client.informer import Informer
from raftkube.client.rest import RestClient
from raftkube.clock import Clock
from raftkube.disk import SystemDisk
from raftkube.kubelet.api_access import ApiNodes, ApiPods
from raftkube.kubelet.core.backoff import BackoffPolicy
from raftkube.kubelet.core.node import Machine, NodeSpec
from raftkube.kubelet.node_loop import NodeLoop, NodeTimes, this_machine
from raftkube.kubelet.pod_loop import PodLoop
from raftkube.kubelet.runtimes.base import Runtime
from raftkube.kubelet.runtimes.container_log import Rotation
from raftkube.kubelet.runtimes.fake import FakeRuntime
from raftkube.kubelet.runtimes.process import Images, ProcessRuntime
from raftkube.kubelet.server import KubeletServer
from raftkube.net import Address, Network, TlsFiles
from raftkube.net.http_server import serve_http
from raftkube.rng import Rng

log = structlog.get_logger(__name__)

_FAKE_LABELS = (("raftkube.dev/fake-node", "true"),)
_FAKE_WORKERS = 64


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """`fake_nodes`: with the fake runtime, so many nodes named NAME-0, NAME-1, …; 0 means one node NAME.
    `root_dir`: "" for none, which only the fake runtime can do without. `machine`: what the nodes say of
    their machine; None: the truth.

    All pods share the node's address and this machine's network.
    """

    name: str
    root_dir: str
    listen: Address
    tls: TlsFiles | None
    runtime: Literal["process", "fake"] = "process"
    images: Images = "stand-in"
    fake_nodes: int = 0
    pods_max: int = 110
    rotation: Rotation = Rotation()  # noqa: RUF009  immutable
    backoff: BackoffPolicy = BackoffPolicy()  # noqa: RUF009  immutable
    times: NodeTimes = NodeTimes()  # noqa: RUF009  immutable
    machine: Machine | None = None

    @property
    def node_names(self) -> list[str]:
        if self.fake_nodes:
            return [f"{self.name}-{number}" for number in range(self.fake_nodes)]
        return [self.name]


async def run(
    config: KubeletConfig,
    client: RestClient,
    *,
    network: Network,
    clock: Clock,
    rng: Rng,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a kubelet until cancelled; its containers run on after that.

    `started` gives the address of its server, once its nodes are registered and its pods observed.
    Raises ConfigError: the root directory or the port cannot be used.
    """
    disk = SystemDisk(config.root_dir) if config.root_dir else None
    try:
        listener = await network.listen(config.listen, config.tls)
        runtime = make_runtime(config, clock=clock, rng=rng)
        events = EventRecorder(client, "kubelet", clock=clock, rng=rng, host=config.name)
        access = ApiPods(client)
        loop = PodLoop(
            runtime,
            access,
            access,
            events,
            network=network,
            clock=clock,
            node_ip=config.listen.host,
            policy=config.backoff,
            workers=_FAKE_WORKERS if config.fake_nodes else 8,
        )
        server = KubeletServer(loop, runtime, clock, node=config.name)
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve_http, listener, server.handle)
            nursery.start_soon(events.run)
            await nursery.start(loop.run)
            await _follow_pods(config, client, loop, nursery, rng)
            await _keep_nodes(config, client, address, nursery, clock, rng)
            log.info("kubelet_ready", node=config.name, address=str(address), runtime=config.runtime)
            task_status.started(address)
    finally:
        if disk is not None:
            disk.close()


def make_runtime(config: KubeletConfig, *, clock: Clock, rng: Rng) -> Runtime:
    """The runtime that the settings ask for."""
    if config.runtime == "fake":
        return FakeRuntime(clock=clock, rng=rng)
    return ProcessRuntime(
        config.root_dir, clock=clock, rng=rng, images=config.images, rotation=config.rotation
    )


async def _follow_pods(
    config: KubeletConfig, client: RestClient, loop: PodLoop, nursery: trio.Nursery, rng: Rng
) -> None:
    """Watch the pods of this node; many fake nodes share one watch of all bound pods."""
    ours = frozenset(config.node_names)
    selector = "spec.nodeName!=" if config.fake_nodes else f"spec.nodeName={config.name}"
    informer = Informer(client, PODS, rng=rng, field_selector=selector)

    def changed(old: Object | None, new: Object | None) -> None:
        pod = new or old
        if pod is None or pod["spec"].get("nodeName") not in ours:
            return
        if new is None:
            loop.forget(pod)
        else:
            if old is not None and old["metadata"]["uid"] != new["metadata"]["uid"]:
                loop.forget(old)  # deleted and made anew while the watch was interrupted
            loop.observe(new)

    informer.on_change(changed)
    await nursery.start(informer.run)
    loop.forget_strangers()


async def _keep_nodes(
    config: KubeletConfig,
    client: RestClient,
    address: Address,
    nursery: trio.Nursery,
    clock: Clock,
    rng: Rng,
) -> None:
    one = "" if config.fake_nodes else f"metadata.name={config.name}"
    cache = Informer(client, NODES, rng=rng, field_selector=one)
    await nursery.start(cache.run)
    machine = config.machine or this_machine(config.root_dir)
    async with trio.open_nursery() as starting:
        for name in config.node_names:
            labels = _FAKE_LABELS if config.runtime == "fake" else ()
            spec = NodeSpec(
                name, config.listen.host, address.port, config.runtime, machine, config.pods_max, labels
            )
            node = NodeLoop(spec, ApiNodes(client), cache, clock=clock, rng=rng, times=config.times)
            starting.start_soon(nursery.start, node.run)
