"""Whole members with a metrics port each, over real sockets and disks, and what a scrape of one says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from raftkube.clock import Clock, SystemClock
from raftkube.cluster.certificates import Authority
from raftkube.disk import SystemDisk
from raftkube.net import Address, TlsFiles
from raftkube.net.http_client import HttpClient
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.raft.identity import cluster_id_of
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.member import BoundAddresses, MemberConfig, run_member
from raftkube.store.server.monitor import MetricsListen
from raftkube.store.server.settings import ServerSettings

LOOPBACK = Address("127.0.0.1", 0)
PEER = "raftkube:store-peer"


class Members:
    """The members that run, by name."""

    def __init__(self) -> None:
        self.network = TcpNetwork()
        self.cluster_id = ""
        self.start: Callable[[str], Awaitable[object]]
        self.bound: dict[str, BoundAddresses] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self.ended: dict[str, trio.Event] = {}

    def client(self, tls: TlsFiles | None = None) -> AbstractAsyncContextManager[StoreClient]:
        addresses = [bound.client for bound in self.bound.values()]
        return StoreClient.open(self.network, addresses, tls, name="test", rng=seeded_rng(3))

    async def stop(self, name: str) -> None:
        """As a crash would end it."""
        self.scopes[name].cancel()
        await self.ended[name].wait()

    def metrics(self, name: str = "store-1") -> Address:
        return self.bound[name].metrics[0]


@asynccontextmanager
async def members(
    directory: Path,
    names: tuple[str, ...] = ("store-1",),
    *,
    absent: tuple[str, ...] = (),
    tls: Callable[[str], TlsFiles] | None = None,
    settings: ServerSettings | None = None,
    raft: RaftSettings | None = None,
) -> AsyncIterator[Members]:
    """The members `names`, each with one metrics port (https if there are TLS files), of a cluster to which
    the `absent` ones belong as well."""
    network = TcpNetwork()
    ports = [await network.listen(LOOPBACK, None) for _ in range(2 * len(names) + len(absent))]
    for port in ports:
        await port.aclose()
    addresses = dict(zip((*names, *absent), (port.address for port in ports), strict=False))
    client_addresses = [port.address for port in ports[len(addresses) :]]
    running = Members()
    running.cluster_id = cluster_id_of(RaftSettings().cluster_token, addresses)

    async def run(name: str, client: Address, *, task_status: trio.TaskStatus[None]) -> None:
        files = None if tls is None else tls(name)
        config = MemberConfig(
            name=name,
            members=addresses,
            listen_client=client,
            listen_peer=addresses[name],
            client_tls=files,
            peer_tls=files,
            listen_metrics=(MetricsListen(LOOPBACK, files),),
            server=settings or ServerSettings(),
            raft=raft or RaftSettings(),
        )
        disk = SystemDisk(str(directory / f"{name}.data"))
        running.ended[name] = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                running.scopes[name] = nursery.cancel_scope
                running.bound[name] = await nursery.start(_run, config, network, disk)
                task_status.started()
        finally:
            disk.close()
            running.ended[name].set()

    clients = dict(zip(names, client_addresses, strict=True))
    async with trio.open_nursery() as nursery:

        async def start(name: str) -> None:
            await nursery.start(run, name, clients[name])

        running.start = start
        async with trio.open_nursery() as starting:
            for name in names:
                starting.start_soon(running.start, name)
        yield running
        nursery.cancel_scope.cancel()


async def _run(
    config: MemberConfig,
    network: TcpNetwork,
    disk: SystemDisk,
    *,
    task_status: trio.TaskStatus[BoundAddresses],
) -> None:
    rng = seeded_rng(config.name)
    await run_member(
        config, network=network, clock=SystemClock(), rng=rng, disk=disk, task_status=task_status
    )


class Certificates:
    """A CA, and what it issued into `directory`."""

    def __init__(self, directory: Path, name: str = "store-ca") -> None:
        self.directory = directory
        self.authority = Authority.create(name, SystemClock())
        self.ca = self.authority.write(directory, name)

    def member(self, name: str) -> TlsFiles:
        hosts = (name, "127.0.0.1", "localhost")
        issued = self.authority.issue(name, organizations=(PEER,), hosts=hosts, server=True)
        return TlsFiles(self.ca, *issued.write(self.directory, name))

    def client(
        self, organization: str, *, name: str = "somebody", days: int = 1, clock: Clock | None = None
    ) -> TlsFiles:
        authority = self.authority
        if clock is not None:
            authority = Authority.load(self.directory, Path(self.ca).stem, clock)
        issued = authority.issue(name, organizations=(organization,), days=days)
        return TlsFiles(self.ca, *issued.write(self.directory, f"{organization.replace(':', '-')}-{name}"))


async def get(
    address: Address, path: str, tls: TlsFiles | None = None, *, method: str = "GET"
) -> tuple[int, str]:
    """Status and body."""
    client = HttpClient(TcpNetwork(), address, tls)
    try:
        with trio.fail_after(20):
            response = await client.request(method, path)
            return response.status, response.body.decode()
    finally:
        await client.aclose()


async def scrape(address: Address, tls: TlsFiles | None = None) -> dict[str, Metric]:
    """The families at /metrics, by name, as Prometheus' own parser reads them."""
    status, text = await get(address, "/metrics", tls)
    assert status == 200, text
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return {family.name: family for family in families}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    """The value of the one sample of that name with those labels."""
    found = [
        each.value
        for family in families.values()
        for each in family.samples
        if each.name == sample and labels.items() <= each.labels.items()
    ]
    assert len(found) == 1, (sample, labels, found)
    return float(found[0])


async def until(holds: Callable[[], Awaitable[bool]], *, attempts: int = 400) -> None:
    """Poll a real condition, for a bounded number of times."""
    for _ in range(attempts):
        if await holds():
            return
        await trio.sleep(0.025)
    raise AssertionError("it never came to hold")
