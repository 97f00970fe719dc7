"""One API server: its parts put together, served over TLS, stopped gracefully."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from raftkube.api.registry import BUILT_IN, Catalog, find
from raftkube.apiserver.bootstrap import bootstrap, keep
from raftkube.apiserver.cache import HISTORY_EVENTS, ResourceCache, WatchCache
from raftkube.apiserver.call import Parts
from raftkube.apiserver.core.discovery import Discovery
from raftkube.apiserver.fencing import Fences
from raftkube.apiserver.health import Health
from raftkube.apiserver.kubelet_proxy import KubeletClients
from raftkube.apiserver.metrics import Metrics
from raftkube.apiserver.node_ports import NodePorts
from raftkube.apiserver.object_store import ObjectStore
from raftkube.apiserver.router import Router
from raftkube.apiserver.service_allocation import ServiceAllocations
from raftkube.apiserver.service_ips import ServiceAddresses
from raftkube.apiserver.storage import Storage
from raftkube.apiserver.store_storage import StoreStorage
from raftkube.clock import Clock
from raftkube.net import Address, Network, TlsFiles
from raftkube.net.http_server import HttpLimits, serve_http
from raftkube.rng import Rng

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """What one API server is told. tls asks clients for certificates and lets anonymous ones in; store_tls
    is the store's client certificate, kubelet_tls what kubelets are shown. history_events: of each resource,
    for watches that are resumed."""

    name: str
    bind: Address
    tls: TlsFiles | None
    store_addresses: tuple[Address, ...] = ()
    store_tls: TlsFiles | None = None
    kubelet_tls: TlsFiles | None = None
    service_cidr: str = "10.96.0.0/16"
    limits: HttpLimits = field(default_factory=HttpLimits)
    history_events: int = HISTORY_EVENTS


async def run(
    config: ApiServerConfig,
    *,
    network: Network,
    clock: Clock,
    rng: Rng,
    storage: Storage | None = None,
    stop: trio.Event | None = None,
    catalog: Catalog = BUILT_IN,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set (then what is in flight is finished and watches end cleanly) or cancelled.

    storage: instead of the store at `store_addresses`, for tests. `started` gives the address once the
    system namespaces are there; the port answers health checks before that.
    Raises ConfigError: the port is taken, a file or flag is wrong.
    """
    stop = trio.Event() if stop is None else stop
    listener = await network.listen(config.bind, config.tls)
    async with _storage(config, network, clock, rng, storage) as opened, trio.open_nursery() as nursery:
        cache = WatchCache(opened, catalog.resources, history=config.history_events)
        parts = _parts(config, opened, cache, catalog, network, clock, rng)
        health = Health(opened, cache, stop)
        discovery = Discovery(catalog, server_address=str(listener.address))
        router = Router(parts, health, Metrics(), discovery)

        async def serve() -> None:
            await serve_http(listener, router.handle, limits=config.limits, stop=stop, clock=clock)
            nursery.cancel_scope.cancel()

        nursery.start_soon(serve)
        log.info("serving", name=config.name, address=str(listener.address))
        await nursery.start(cache.run)
        await bootstrap(parts, secure_port=listener.address.port)
        health.bootstrapped.set()
        log.info("ready", name=config.name, revision=cache.revision)
        nursery.start_soon(partial(keep, parts, secure_port=listener.address.port))
        task_status.started(listener.address)


@asynccontextmanager
async def _storage(
    config: ApiServerConfig, network: Network, clock: Clock, rng: Rng, given: Storage | None
) -> AsyncIterator[Storage]:
    if given is not None:
        yield given
        return
    async with StoreStorage.open(
        network, config.store_addresses, config.store_tls, name=config.name, clock=clock, rng=rng
    ) as storage:
        yield storage


def _parts(
    config: ApiServerConfig,
    storage: Storage,
    cache: WatchCache,
    catalog: Catalog,
    network: Network,
    clock: Clock,
    rng: Rng,
) -> Parts:
    services = _cache_of(cache, "", "v1", "services")
    return Parts(
        catalog=catalog,
        storage=storage,
        cache=cache,
        store=ObjectStore(storage, cache),
        fences=Fences(_cache_of(cache, "coordination.k8s.io", "v1", "leases")),
        allocations=ServiceAllocations(
            ServiceAddresses(config.service_cidr, services, rng), NodePorts(services, rng)
        ),
        kubelets=KubeletClients(network, config.kubelet_tls),
        clock=clock,
        rng=rng,
    )


def _cache_of(cache: WatchCache, group: str, version: str, plural: str) -> ResourceCache:
    resource = find(group, version, plural)
    assert resource is not None
    return cache.of(resource)
