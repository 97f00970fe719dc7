"""Three whole members and their clients under virtual time, a simulated network and disks that forget."""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager

import trio

from chaos.sim.clock import SimClock
from chaos.sim.disk import SimDisk
from chaos.sim.network import SimNetwork
from raftkube.errors import RaftkubeError
from raftkube.net import Address
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.raft.settings import RaftSettings
from raftkube.store.server.member import MemberConfig, run_member
from raftkube.wire.cluster_version import CLUSTER_VERSION

NAMES = ("store-1", "store-2", "store-3")


class SimulatedStore:
    """`crash` is a power loss; `kill` leaves the page cache; `start` comes back on what the disk kept."""

    def __init__(self, seed: int, nursery: trio.Nursery, *, raft: RaftSettings | None = None) -> None:
        self.raft = raft or RaftSettings()
        self.newest_versions = dict.fromkeys(NAMES, CLUSTER_VERSION)
        self.rng = seeded_rng(seed)
        self.network = SimNetwork(seeded_rng(f"network-{seed}"))
        self.peers = {name: Address(name, 2380) for name in NAMES}
        self.clients = {name: Address(name, 2379) for name in NAMES}
        self.disks = {name: SimDisk(seeded_rng(f"{name}-{seed}")) for name in NAMES}
        self.running: dict[str, trio.CancelScope] = {}
        self.stops: dict[str, trio.Event] = {}
        self.failures: list[str] = []
        self._ended: dict[str, trio.Event] = {}
        self._seed = seed
        self._starts = 0
        self._nursery = nursery

    async def start(self, name: str) -> None:
        await self._nursery.start(self._run, name)

    async def start_all(self) -> None:
        for name in NAMES:
            if name not in self.running:
                await self.start(name)

    async def crash(self, name: str) -> None:
        await self.kill(name)
        self.disks[name].crash()

    async def kill(self, name: str) -> None:
        self.network.crash(name)
        self.disks[name].sever()
        if name in self.running:
            self.running[name].cancel()
            await self._ended[name].wait()

    async def stop(self, name: str) -> float:
        """Gracefully, as SIGTERM does; how many seconds it took."""
        began = trio.current_time()
        self.stops[name].set()
        await self._ended[name].wait()
        self.network.crash(name)
        return trio.current_time() - began

    def client(self, host: str) -> AbstractAsyncContextManager[StoreClient]:
        return StoreClient.open(
            self.network.host(host),
            list(self.clients.values()),
            name=host,
            clock=SimClock(),
            rng=seeded_rng(f"{host}-{self._seed}"),
        )

    def config(self, name: str) -> MemberConfig:
        """What the member `name` is started with."""
        return MemberConfig(
            name=name,
            members=self.peers,
            listen_client=self.clients[name],
            listen_peer=self.peers[name],
            raft=self.raft,
            newest_version=self.newest_versions[name],
        )

    async def _run(self, name: str, *, task_status: trio.TaskStatus[object]) -> None:
        self._starts += 1
        self._ended[name] = trio.Event()
        scope = self.running[name] = trio.CancelScope()
        stop = self.stops[name] = trio.Event()
        try:
            with scope:
                await run_member(
                    self.config(name),
                    network=self.network.host(name),
                    clock=SimClock(monotonic_offset_s=1000.0 * list(self.peers).index(name)),
                    rng=seeded_rng(f"{name}-{self._seed}-{self._starts}"),
                    disk=self.disks[name],
                    stop=stop,
                    task_status=task_status,
                )
        except* RaftkubeError as errors:
            self.failures += [f"{name}: {error}" for error in errors.exceptions]
        finally:
            del self.running[name]
            self._ended[name].set()


async def settled(client: StoreClient) -> None:
    """Wait until every member answers and their states are equal."""
    while True:
        with contextlib.suppress(RaftkubeError):
            hashes = [(await client.hash(member=name))["hash"] for name in NAMES]
            if len(set(hashes)) == 1:
                return
        await trio.sleep(0.1)
