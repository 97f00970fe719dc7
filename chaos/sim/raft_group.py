"""A group of Raft members in one process: real `RaftNode`s over the fakes, which can crash and come back.

What is watched all the time: at most one leader a term, and the same entry at the same index everywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
import trio

from chaos.sim.clock import SimClock
from chaos.sim.disk import MountedDisk, SimDisk
from chaos.sim.groups import Observer
from chaos.sim.network import SimNetwork
from raftkube.errors import RaftkubeError, StoreError
from raftkube.net import Address
from raftkube.rng import seeded_rng
from raftkube.store.raft.driver import RaftNode
from raftkube.store.raft.identity import Identity
from raftkube.store.raft.settings import RaftSettings, RoleChange
from raftkube.types import LogIndex

PEER_PORT = 2380


class RecordingMachine:
    """Keeps the operations in the order applied; the result is (log index, position)."""

    def __init__(self, group: RaftGroup) -> None:
        self._group = group
        self.operations: list[bytes] = []
        self.applied: int = 0

    def apply(self, index: LogIndex, payload: bytes, operations: Any = None) -> list[Any]:
        self._group.observer.saw_entry(index, payload)
        results = []
        for operation in msgpack.unpackb(payload):
            self.operations.append(operation)
            results.append((index, len(self.operations)))
        self.applied = index
        return results

    def snapshot(self) -> Iterator[bytes]:
        image = msgpack.packb([self.applied, self.operations])
        return iter([image[at : at + 1000] for at in range(0, len(image), 1000)])

    def restoring(self, chunks: Iterator[bytes]) -> Generator[None, None, Callable[[], None]]:
        parts = []
        for chunk in chunks:
            parts.append(chunk)
            yield
        applied, operations = msgpack.unpackb(b"".join(parts))

        def swap() -> None:
            self.applied, self.operations = applied, operations

        return swap


@dataclass(slots=True)
class Host:
    """One member's machine: its disk outlives its process."""

    name: str
    disk: SimDisk
    clock: SimClock
    node: RaftNode | None = None
    machine: RecordingMachine | None = None
    scope: trio.CancelScope | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    error: RaftkubeError | None = None
    starts: int = 0
    blank: Identity | None = None  # what an empty disk becomes; None: a member of the initial group


class _Started:
    """Passes `started` on and remembers it."""

    def __init__(self, outer: trio.TaskStatus[None]) -> None:
        self._outer, self.done = outer, False

    def started(self, value: object = None) -> None:
        self.done = True
        self._outer.started()


class RaftGroup:
    """`size` members called store-1, store-2, ... Violations gather in `violations`, in plain sentences."""

    def __init__(
        self, seed: int, nursery: trio.Nursery, *, size: int = 3, settings: RaftSettings | None = None
    ) -> None:
        self.rng = seeded_rng(seed)
        self.network = SimNetwork(seeded_rng(f"network-{seed}"))
        self.names = [f"store-{number}" for number in range(1, size + 1)]
        self.members = {name: Address(name, PEER_PORT) for name in self.names}  # where each listens
        self.initial = dict(self.members)
        self.settings = settings or RaftSettings()
        self.observer = Observer()
        self.violations = self.observer.violations
        self._seed, self._nursery = seed, nursery
        self.hosts = {
            name: Host(name, SimDisk(seeded_rng(f"{name}-{seed}")), SimClock(monotonic_offset_s=1000.0 * at))
            for at, name in enumerate(self.names)
        }

    def node(self, name: str) -> RaftNode:
        node = self.hosts[name].node
        assert node is not None
        return node

    def machine(self, name: str) -> RecordingMachine:
        machine = self.hosts[name].machine
        assert machine is not None
        return machine

    def up(self) -> list[str]:
        """The members that run."""
        return [name for name in self.names if self.hosts[name].scope is not None]

    async def start(self, name: str) -> None:
        """Start the member on whatever its disk holds; returns once it listens. Raises what `run` raises."""
        host = self.hosts[name]
        host.starts += 1
        host.machine = RecordingMachine(self)
        host.node = RaftNode(
            name=name,
            members=self.initial,
            disk=MountedDisk(host.disk),
            network=self.network.host(name),
            tls=None,
            listen=self.members[name],
            clock=host.clock,
            rng=seeded_rng(f"{name}-{self._seed}-{host.starts}"),
            machine=host.machine,
            settings=self.settings,
            blank=host.blank,
        )
        host.node.add_role_listener(lambda role: self._saw_role(name, role))
        await self._nursery.start(self._run, host)

    async def start_all(self) -> None:
        for name in self.names:
            if self.hosts[name].scope is None:
                await self.start(name)

    async def _run(
        self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        assert host.node is not None
        host.ended, host.error, host.scope = trio.Event(), None, trio.CancelScope()
        status = _Started(task_status)
        try:
            with host.scope:
                await host.node.run(task_status=status)
        except RaftkubeError as error:
            host.error = error
            self.network.crash(host.name)
            if not status.done:
                raise
        finally:
            host.scope = None
            host.ended.set()

    async def kill(self, name: str) -> None:
        """SIGKILL of one member: network and disk are severed before its tasks end."""
        host = self.hosts[name]
        self.network.crash(name)
        host.disk.sever()
        if host.scope is not None:
            host.scope.cancel()
            await host.ended.wait()

    async def crash(self, name: str, *, lose_all: bool = False) -> None:
        """Power loss of one member: `kill`, and its disk loses what was not synced."""
        await self.kill(name)
        self.hosts[name].disk.crash(lose_all=lose_all)

    async def stop(self, name: str) -> None:
        """Graceful."""
        host = self.hosts[name]
        if host.node is not None:
            await host.node.stop()
            await host.ended.wait()
        self.network.crash(name)

    async def wait_leader(self, *, among: list[str] | None = None, timeout_s: float = 30.0) -> str:
        """A member that leads and has applied its own term's first entry."""
        with trio.fail_after(timeout_s):
            while True:
                ready = [
                    name
                    for name in among or self.up()
                    if self.hosts[name].scope and self.node(name).role.ready
                ]
                if ready:
                    return max(ready, key=lambda name: self.node(name).role.term)
                await trio.sleep(0.01)

    async def propose(self, operation: bytes, *, timeout_s: float = 60.0) -> Any:
        """Propose wherever a leader is, until it is applied (so it may be applied more than once)."""
        with trio.fail_after(timeout_s):
            while True:
                name = await self.wait_leader(timeout_s=timeout_s)
                with contextlib.suppress(StoreError):
                    return await self.node(name).propose(operation)
                await trio.sleep(0.01)

    async def wait_converged(self, *, timeout_s: float = 60.0) -> None:
        """All members run, have applied the same, and know the same leader."""
        with trio.fail_after(timeout_s):
            while True:
                states = [self.node(name).status() for name in self.names]
                marks = {(status.applied_index, status.leader, status.term) for status in states}
                if len(marks) == 1 and states[0].leader is not None and len(self.up()) == len(self.names):
                    return
                await trio.sleep(0.05)

    def _saw_role(self, name: str, role: RoleChange) -> None:
        self.network.trace(name, role)
        if role.role == "leader":
            self.observer.saw_leader(name, role.term)
