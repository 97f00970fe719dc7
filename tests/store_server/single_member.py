"""A one-member store for tests: real server, real client, real sockets; consensus is an immediate apply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from raftkube.clock import SystemClock
from raftkube.errors import MembershipRefused, NotLeader, StoreError
from raftkube.net import Address, TlsFiles
from raftkube.net.tcp import TcpNetwork
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.raft.membership import Change, Configuration
from raftkube.store.server.consensus import ConsensusView
from raftkube.store.server.machine import StoreMachine
from raftkube.store.server.server import StoreServer
from raftkube.store.server.service import Identity, MemberInfo
from raftkube.store.server.settings import ServerSettings
from raftkube.types import LogIndex
from raftkube.wire.frames import pack

LOOPBACK = Address("127.0.0.1", 0)


class ImmediateConsensus:
    """Commits at once. `refuse_with` makes every call fail; `hold` makes reads and writes wait."""

    def __init__(self, machine: StoreMachine) -> None:
        self.machine = machine
        self.index = 0
        self.leader: str | None = "store-1"
        self.refuse_with: StoreError | None = None
        self.gate = trio.Event()
        self.gate.set()
        self.proposed: list[Any] = []
        self.held: list[tuple[list[Any], Callable[[Any], None]]] = []

    async def propose(self, operation: Any) -> Any:
        await self._enter()
        return self._apply([operation])[0]

    def submit(
        self, operations: list[Any], done: Callable[[Any], None], deadline: float = float("inf")
    ) -> None:
        self._check()
        if self.gate.is_set():
            done(self._apply(operations))
        else:
            self.held.append((operations, done))

    def _apply(self, operations: list[Any]) -> list[Any]:
        self.index += 1
        self.proposed += operations
        return self.machine.apply(LogIndex(self.index), pack(operations))

    async def read_index(self) -> int:
        await self._enter()
        return self.index

    async def transfer_leadership(self, to: str | None = None) -> str:
        await self._enter()
        return to or "store-1"

    async def change_members(self, change: Change) -> Configuration:
        await self._enter()
        raise MembershipRefused("this consensus is one member's, alone")

    async def _enter(self) -> None:
        await self.gate.wait()
        self._check()

    def _check(self) -> None:
        if self.refuse_with is not None:
            raise self.refuse_with
        if self.leader != "store-1":
            raise NotLeader("this member does not lead", leader=self.leader)

    def view(self) -> ConsensusView:
        role = "leader" if self.leader == "store-1" else "follower"
        return ConsensusView(role, self.leader, 1, self.index, self.index, self.index)


class SingleMember:
    def __init__(self, settings: ServerSettings | None = None) -> None:
        self.machine = StoreMachine()
        self.consensus = ImmediateConsensus(self.machine)
        self.identity = Identity("store-1", "c", (MemberInfo("store-1", "127.0.0.1:0"),))
        self.network = TcpNetwork()
        self.server = StoreServer(
            self.identity,
            self.machine,
            self.consensus,
            clock=SystemClock(),
            rng=seeded_rng(1),
            settings=settings,
        )
        self.server.set_leading(True)
        self.address = LOOPBACK


@asynccontextmanager
async def single_member(
    settings: ServerSettings | None = None, tls: TlsFiles | None = None, roles: frozenset[str] = frozenset()
) -> AsyncIterator[SingleMember]:
    member = SingleMember(settings)
    async with trio.open_nursery() as nursery:
        listener = await member.network.listen(LOOPBACK, tls)
        member.address = await nursery.start(member.server.run, listener, roles)
        yield member
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(member: SingleMember, **options: Any) -> AsyncIterator[StoreClient]:
    async with StoreClient.open(
        member.network, [member.address], None, name="test", rng=seeded_rng(2), **options
    ) as client:
        yield client
