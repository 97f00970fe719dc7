"""Three whole members in one process, over loopback TCP and real disks, each of them killable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from raftkube.clock import SystemClock
from raftkube.disk import SystemDisk
from raftkube.net import Address
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.server.member import MemberConfig, run_member

LOOPBACK = Address("127.0.0.1", 0)
NAMES = ("store-1", "store-2", "store-3")


async def free_addresses(network: TcpNetwork, count: int) -> list[Address]:
    """Distinct ports that were free a moment ago."""
    listeners = [await network.listen(LOOPBACK, None) for _ in range(count)]
    for listener in listeners:
        await listener.aclose()
    return [listener.address for listener in listeners]


class ThreeMembers:
    """`start` and `kill` by name; `kill` cancels a member as a crash would end it."""

    def __init__(self, directory: Path, network: TcpNetwork, nursery: trio.Nursery, ports: list[Address]):
        self.network = network
        self.peers = dict(zip(NAMES, ports[:3], strict=True))
        self.clients = dict(zip(NAMES, ports[3:], strict=True))
        self._directory = directory
        self._nursery = nursery
        self.make_disk: Callable[[str], SystemDisk] = SystemDisk
        self._scopes: dict[str, trio.CancelScope] = {}
        self._ended: dict[str, trio.Event] = {}

    async def start(self, name: str) -> None:
        await self._nursery.start(self._run, name)

    async def start_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(self.start, name)

    async def kill(self, name: str) -> None:
        self._scopes[name].cancel()
        await self._ended[name].wait()

    def open_client(self) -> object:
        return StoreClient.open(self.network, list(self.clients.values()), name="test", rng=seeded_rng(3))

    async def _run(self, name: str, *, task_status: trio.TaskStatus[object]) -> None:
        config = MemberConfig(
            name=name,
            members=self.peers,
            listen_client=self.clients[name],
            listen_peer=self.peers[name],
        )
        self._ended[name] = trio.Event()
        disk = self.make_disk(str(self._directory / name))
        try:
            with trio.CancelScope() as self._scopes[name]:
                await run_member(
                    config,
                    network=self.network,
                    clock=SystemClock(),
                    rng=seeded_rng(name),
                    disk=disk,
                    task_status=task_status,
                )
        finally:
            disk.close()
            self._ended[name].set()


@asynccontextmanager
async def three_members(directory: Path) -> AsyncIterator[ThreeMembers]:
    network = TcpNetwork()
    async with trio.open_nursery() as nursery:
        ports = await free_addresses(network, 6)
        members = ThreeMembers(directory, network, nursery, ports)
        await members.start_all()
        yield members
        nursery.cancel_scope.cancel()


async def leader_of(client: StoreClient) -> str:
    """Who leads, once somebody does."""
    while True:
        status = await client.status()
        if status["leader"]:
            return str(status["leader"])
        await trio.sleep(0.02)
