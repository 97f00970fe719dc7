"""Whole members of a store and their clients under virtual time, a simulated network and disks that forget.

A member's machine outlives its process: `kill` leaves the page cache, `crash` is a power loss, `wipe` a new
disk. A process dies from the outside in: its network and its disk are severed before its tasks are
cancelled, so that no `finally` of a dead process reaches anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from chaos.sim.clock import SimClock
from chaos.sim.disk import MountedDisk, SimDisk
from chaos.sim.network import SimNetwork
from chaos.sim.trio_private import HOST, AtStep, go_on, stand_still, standing
from raftkube.errors import RaftkubeError, Stopped
from raftkube.net import Address
from raftkube.rng import seeded_rng
from raftkube.store.client import StoreClient
from raftkube.store.raft.driver import RaftNode
from raftkube.store.raft.settings import RaftSettings, RoleChange
from raftkube.store.server.member import MemberConfig, run_member
from raftkube.store.server.settings import ServerSettings
from raftkube.wire.cluster_version import CLUSTER_VERSION

NAMES = ("store-1", "store-2", "store-3")
PEER_PORT, CLIENT_PORT = 2380, 2379

RoleListener = Callable[[str, RoleChange], None]


def store_names(size: int) -> tuple[str, ...]:
    """store-1, store-2, ..."""
    return tuple(f"store-{number}" for number in range(1, size + 1))


class SimulatedStore:
    """Members run in `nursery`. `failures`: what members ended with that were not asked to, in sentences.
    `on_role(name, role)` is called at each change of a role."""

    def __init__(
        self,
        seed: int,
        nursery: trio.Nursery,
        *,
        names: Sequence[str] = NAMES,
        raft: RaftSettings | None = None,
        server: ServerSettings | None = None,
        network: SimNetwork | None = None,
        on_role: RoleListener | None = None,
    ) -> None:
        self.raft, self.server = raft or RaftSettings(), server or ServerSettings()
        self.names = tuple(names)
        self.newest_versions: dict[str, int] = {}
        self.rng = seeded_rng(seed)
        self.network = network or SimNetwork(seeded_rng(f"network-{seed}"))
        self.initial = {name: Address(name, PEER_PORT) for name in names}
        self.peers = dict(self.initial)
        self.clients = {name: Address(name, CLIENT_PORT) for name in names}
        self.disks = {name: SimDisk(seeded_rng(f"{name}-{seed}")) for name in names}
        self.clocks = {
            name: SimClock(monotonic_offset_s=1000.0 * number) for number, name in enumerate(names)
        }
        self.states = dict.fromkeys(names, "new")  # --initial-cluster-state of the next start
        self.nodes: dict[str, RaftNode] = {}  # the Raft member of each name's life
        self.running: dict[str, trio.CancelScope] = {}
        self.stops: dict[str, trio.Event] = {}
        self.failures: list[str] = []
        self._on_role = on_role
        self._ended: dict[str, trio.Event] = {}
        self._seed = seed
        self._starts = 0
        self._nursery = nursery

    # What is seen.

    def up(self) -> list[str]:
        """The members whose process runs, standing still or not."""
        return [name for name in self.names if name in self.running]

    def leaders(self) -> list[str]:
        """Members that run and believe they lead, of the highest term first."""
        found = []
        for name in self.up():
            with contextlib.suppress(Stopped, KeyError):  # it does not know yet who it is
                status = self.nodes[name].status()
                if status.role == "leader":
                    found.append((-status.term, name))
        return [name for _, name in sorted(found)]

    # Life and death.

    async def start(self, name: str) -> None:
        """On whatever its disk holds; returns once it serves clients. Raises RuntimeError: it ended before
        (`failures` says why)."""
        await self._nursery.start(self._run, name)

    async def start_all(self) -> None:
        for name in self.names:
            if name not in self.running:
                await self.start(name)

    async def kill(self, name: str) -> None:
        """SIGKILL: what was written stays."""
        self._sever(name)
        if name in self.running:
            self.running[name].cancel()
            await self._ended[name].wait()

    def _sever(self, name: str) -> None:
        """Nothing that the process still does reaches anybody."""
        self.network.crash(name)
        if name in self.disks:  # else its machine was thrown away meanwhile
            self.disks[name].sever()
        go_on(name)

    async def kill_at_step(self, name: str, steps: int, *, within_s: float) -> bool:
        """SIGKILL at the start of a step of one of its tasks, that many from now; True if it came to that."""
        reached = trio.Event()

        def die() -> None:
            self._sever(name)
            if name in self.running:
                self.running[name].cancel()
            reached.set()

        with AtStep(name, steps, die), trio.move_on_after(within_s):
            await reached.wait()
        if name in self._ended and reached.is_set():
            await self._ended[name].wait()
        return reached.is_set()

    async def crash(self, name: str, *, lose_all: bool = False) -> None:
        """Power loss: chance keeps some of what was not synced, or nothing of it (`lose_all`)."""
        await self.kill(name)
        if name in self.disks:
            self.disks[name].crash(lose_all=lose_all)

    async def stop(self, name: str) -> float:
        """Gracefully, as SIGTERM does; how many seconds it took."""
        began = trio.current_time()
        self.stops[name].set()
        await self._ended[name].wait()
        self.network.crash(name)
        return trio.current_time() - began

    def pause(self, name: str) -> None:
        """SIGSTOP: no task of it takes a step, while time and bytes come in."""
        stand_still(name)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        go_on(name)

    def resume_all(self) -> None:
        for name in sorted(standing()):
            go_on(name)

    def add_machine(self, name: str) -> None:
        """A machine with an empty disk, known or new, for a member that joins."""
        if name not in self.names:
            self.names = (*self.names, name)
        self.peers.setdefault(name, Address(name, PEER_PORT))
        self.clients.setdefault(name, Address(name, CLIENT_PORT))
        self.clocks.setdefault(name, SimClock(monotonic_offset_s=1000.0 * len(self.names)))
        self.disks[name] = SimDisk(seeded_rng(f"{name}-{self._seed}-{self._starts}"))
        self.states[name] = "existing"

    def remove_machine(self, name: str) -> None:
        """It is thrown away, with its disk; it does not run."""
        self.names = tuple(other for other in self.names if other != name)
        del self.peers[name], self.clients[name], self.disks[name]

    def client(
        self, host: str, *, pinned: str | None = None, exactly_once: bool = False
    ) -> AbstractAsyncContextManager[StoreClient]:
        """A client on a machine of its own, of all members or `pinned` to one."""
        return StoreClient.open(
            self.network.host(host),
            [self.clients[pinned]] if pinned else list(self.clients.values()),
            name=host,
            clock=SimClock(),
            rng=seeded_rng(f"{host}-{self._seed}"),
            pinned=pinned is not None,
            exactly_once=exactly_once,
        )

    def config(self, name: str) -> MemberConfig:
        """What the member `name` is started with."""
        return MemberConfig(
            name=name,
            members=self.initial,
            listen_client=self.clients[name],
            listen_peer=self.peers[name],
            client_addresses=self.clients if self.states[name] == "existing" else {},
            cluster_state=self.states[name],
            raft=self.raft,
            server=self.server,
            newest_version=self.newest_versions.get(name, CLUSTER_VERSION),
        )

    def _observe(self, name: str, node: RaftNode) -> None:
        self.nodes[name] = node
        if self._on_role is not None:
            listener = self._on_role
            node.add_role_listener(lambda role: listener(name, role))

    async def _run(self, name: str, *, task_status: trio.TaskStatus[object]) -> None:
        HOST.set(name)
        self.nodes.pop(name, None)
        self._starts += 1
        self._ended[name] = trio.Event()
        scope = self.running[name] = trio.CancelScope()
        stop = self.stops[name] = trio.Event()
        try:
            with scope:
                await run_member(
                    self.config(name),
                    network=self.network.host(name),
                    clock=self.clocks[name],
                    rng=seeded_rng(f"{name}-{self._seed}-{self._starts}"),
                    disk=MountedDisk(self.disks[name]),
                    stop=stop,
                    observe=lambda node: self._observe(name, node),
                    task_status=task_status,
                )
        except* RaftkubeError as errors:
            self.failures += [f"{name}: {error}" for error in errors.exceptions]
            self.network.crash(name, keep_in_flight=True)  # the kernel closes what the process held
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
